//! Encoded bytes to pixels.
//!
//! Owns what counts as a readable image: formats, limits, orientation, transparency, and
//! when a damaged file is refused. The format is found by content, never by a name. Pure
//! functions: no I/O. A decoder that panics panics through here; the caller catches it.
//! Upstream: the fetched bytes. Downstream: `input` and `overlay`.

mod error;
mod jpeg;
mod limits;
mod recognise;
#[cfg(test)]
mod tests;
mod tiff;
mod vp8l;
mod webp;

use std::io::Cursor;

use image::codecs::bmp::BmpDecoder;
use image::codecs::gif::GifDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::tiff::TiffDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageDecoder, ImageResult, RgbImage, Rgba};

pub use error::DecodeError;
pub use limits::{BYTES_PER_PIXEL, ImageLimits};
use recognise::Content;
pub use recognise::EncodedFormat;

/// Decodes an image to 8-bit RGB, turned upright by its EXIF orientation.
///
/// Of an animation the first frame. Transparency lies over white. 16-bit samples are rounded
/// to 8 bits. Colour profiles are not applied, as in Pillow and torchvision, whose pixels
/// the models were trained on.
///
/// # Errors
///
/// When the file exceeds `limits` (found in its header, before a pixel is decoded), is not
/// of a supported kind, or is damaged. What a damaged file still shows is not returned.
pub fn decode(bytes: &[u8], limits: &ImageLimits) -> Result<RgbImage, DecodeError> {
    open(bytes, limits, ToPixels)
}

/// The bytes that [`decode`] will hold at its height, read from the header.
///
/// # Errors
///
/// As there, as far as the header tells.
pub fn memory_to_decode(bytes: &[u8], limits: &ImageLimits) -> Result<u64, DecodeError> {
    open(bytes, limits, ToMemory)
}

/// Bytes a decoder holds beside the pixels that it hands out.
#[derive(Clone, Copy, Default)]
struct Beside {
    for_each_pixel: u64,
    for_all: u64,
}

impl Beside {
    fn each_pixel(bytes: u64) -> Self {
        Self { for_each_pixel: bytes, for_all: 0 }
    }
}

/// What a decoder is opened for.
trait Purpose {
    type Result;
    fn jpeg(self, bytes: &[u8], limits: &ImageLimits) -> Result<Self::Result, DecodeError>;
    fn other(
        self,
        decoder: impl ImageDecoder,
        format: EncodedFormat,
        limits: &ImageLimits,
        beside: Beside,
    ) -> Result<Self::Result, DecodeError>;
}

struct ToPixels;

impl Purpose for ToPixels {
    type Result = RgbImage;

    fn jpeg(self, bytes: &[u8], limits: &ImageLimits) -> Result<RgbImage, DecodeError> {
        jpeg::decode(bytes, limits)
    }

    fn other(
        self,
        decoder: impl ImageDecoder,
        format: EncodedFormat,
        limits: &ImageLimits,
        beside: Beside,
    ) -> Result<RgbImage, DecodeError> {
        read(decoder, format, limits, beside)
    }
}

struct ToMemory;

impl Purpose for ToMemory {
    type Result = u64;

    fn jpeg(self, bytes: &[u8], limits: &ImageLimits) -> Result<u64, DecodeError> {
        jpeg::memory_to_decode(bytes, limits)
    }

    fn other(
        self,
        decoder: impl ImageDecoder,
        format: EncodedFormat,
        limits: &ImageLimits,
        beside: Beside,
    ) -> Result<u64, DecodeError> {
        check(&decoder, format, limits, beside)
    }
}

fn open<P: Purpose>(
    bytes: &[u8],
    limits: &ImageLimits,
    purpose: P,
) -> Result<P::Result, DecodeError> {
    limits.check_bytes(bytes.len())?;
    let format = match recognise::content(bytes) {
        Content::Empty => return Err(DecodeError::Empty),
        Content::Image(format) => format,
        Content::Other(looks_like) => return Err(DecodeError::NotAnImage { looks_like }),
        Content::Unknown => return Err(DecodeError::Unrecognised),
    };
    let source = Cursor::new(bytes);
    let failed = |error| DecodeError::from_image(format, error);
    match format {
        EncodedFormat::Jpeg => purpose.jpeg(bytes, limits),
        EncodedFormat::Png => {
            // Counts text and colour profile only, which come before the picture.
            let decoder = PngDecoder::with_limits(source, limits.memory(0)).map_err(failed)?;
            purpose.other(decoder, format, limits, Beside::default())
        }
        EncodedFormat::WebP => {
            let webp::Checked { file, code_bytes } = webp::checked(bytes, limits)?;
            let decoder = WebPDecoder::new(Cursor::new(file)).map_err(failed)?;
            // A lossless frame is RGBA whatever comes of it; an animation has a canvas, too.
            let for_each_pixel = match (decoder.has_animation(), file.get(12..16)) {
                (true, _) => 2 * RGBA_BYTES,
                // Luma and half as much chroma.
                (false, Some(b"VP8 ")) => 2,
                (false, _) => RGBA_BYTES,
            };
            let beside = Beside { for_each_pixel, for_all: code_bytes };
            let decoder = webp_over_white(decoder).map_err(failed)?;
            purpose.other(decoder, format, limits, beside)
        }
        EncodedFormat::Gif => {
            let decoder = GifDecoder::new(source).map_err(failed)?;
            // A frame that doesn't cover the screen is decoded beside it.
            purpose.other(decoder, format, limits, Beside::each_pixel(RGBA_BYTES))
        }
        EncodedFormat::Bmp if bitmap_is_empty(bytes) => {
            let reason = "its header claims no pixels".to_owned();
            Err(DecodeError::Corrupt { format, reason })
        }
        EncodedFormat::Bmp => {
            let decoder = BmpDecoder::new(source).map_err(failed)?;
            purpose.other(decoder, format, limits, Beside::default())
        }
        EncodedFormat::Tiff => {
            tiff::check_directory(bytes)?;
            let decoder = TiffDecoder::new(source).map_err(failed)?;
            // The picture is decoded whole, and then copied. Of CMYK, RGB is copied.
            let beside = u64::from(decoder.original_color_type().bits_per_pixel().div_ceil(8));
            purpose.other(decoder, format, limits, Beside::each_pixel(beside))
        }
    }
}

/// The decoder takes such a bitmap for one of a kind that it can't read.
fn bitmap_is_empty(bytes: &[u8]) -> bool {
    /// OS/2's header, with sides of two bytes; later ones have four.
    const CORE_HEADER: u8 = 12;
    let side = |at: usize, length| bytes.get(at..at + length);
    let sides = match bytes.get(14..18) {
        Some(&[CORE_HEADER, 0, 0, 0]) => [side(18, 2), side(20, 2)],
        _ => [side(18, 4), side(22, 4)],
    };
    sides.into_iter().flatten().any(|side| side.iter().all(|&byte| byte == 0))
}

/// The frames of an animation cover parts of its canvas; the rest is white, not the colour
/// the file hints at, which browsers ignore too.
fn webp_over_white(
    mut decoder: WebPDecoder<Cursor<&[u8]>>,
) -> ImageResult<WebPDecoder<Cursor<&[u8]>>> {
    if decoder.has_animation() {
        decoder.set_background_color(Rgba([255; 4]))?;
    }
    Ok(decoder)
}

const RGB_BYTES: u64 = 3;
const RGBA_BYTES: u64 = 4;

/// Holds a read header against the limits; returns what decoding will hold at its height.
fn check(
    decoder: &impl ImageDecoder,
    format: EncodedFormat,
    limits: &ImageLimits,
    beside: Beside,
) -> Result<u64, DecodeError> {
    let (width, height) = decoder.dimensions();
    limits.check_size(format, width, height)?;
    if matches!(decoder.color_type(), ColorType::Rgb32F | ColorType::Rgba32F) {
        let detail = "floating-point samples".to_owned();
        return Err(DecodeError::UnsupportedKind { format, detail });
    }
    let pixel = u64::from(decoder.color_type().bytes_per_pixel());
    let pixels =
        limits.check_memory((width, height), pixel + beside.for_each_pixel.max(RGB_BYTES))?;
    Ok(pixels + beside.for_all)
}

/// From a read header to upright RGB.
fn read(
    mut decoder: impl ImageDecoder,
    format: EncodedFormat,
    limits: &ImageLimits,
    beside: Beside,
) -> Result<RgbImage, DecodeError> {
    check(&decoder, format, limits, beside)?;
    let failed = |error| DecodeError::from_image(format, error);
    decoder.set_limits(limits.memory(decoder.total_bytes())).map_err(failed)?;
    // Unreadable metadata is no reason to refuse a picture.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let image = DynamicImage::from_decoder(decoder).map_err(failed)?;
    Ok(upright(over_white(image), orientation))
}

/// After all else: pixels are turned by copying them, and RGB is the least of them.
fn upright(image: RgbImage, orientation: Orientation) -> RgbImage {
    let mut image = DynamicImage::ImageRgb8(image);
    image.apply_orientation(orientation);
    image.into_rgb8()
}

const STRIP_ROWS: u32 = 64;

fn over_white(image: DynamicImage) -> RgbImage {
    if !image.color().has_alpha() {
        return image.into_rgb8();
    }
    let (width, height) = (image.width(), image.height());
    let mut pixels = Vec::with_capacity(width as usize * height as usize * 3);
    // In strips: of 16-bit samples the whole picture in 8 bits would be one picture too many.
    for top in (0..height).step_by(STRIP_ROWS as usize) {
        let strip = image.crop_imm(0, top, width, STRIP_ROWS).into_rgba8();
        let rgba = strip.as_chunks::<4>().0;
        pixels.extend(rgba.iter().flat_map(|&[red, green, blue, alpha]| {
            [red, green, blue].map(|channel| blend(channel, alpha))
        }));
    }
    RgbImage::from_raw(width, height, pixels).expect("three bytes were written for each pixel")
}

/// One channel over white, rounded to nearest.
fn blend(channel: u8, alpha: u8) -> u8 {
    let (channel, alpha) = (u32::from(channel), u32::from(alpha));
    ((channel * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}
