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

use std::io::Cursor;

use image::codecs::bmp::BmpDecoder;
use image::codecs::gif::GifDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::tiff::TiffDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageDecoder, ImageResult, RgbImage, Rgba};

pub use error::DecodeError;
pub use limits::ImageLimits;
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
        EncodedFormat::Jpeg => jpeg::decode(bytes, limits),
        EncodedFormat::Png => {
            // Counts text and colour profile only, which come before the picture.
            let memory = limits.memory(0);
            read(PngDecoder::with_limits(source, memory).map_err(failed)?, format, limits)
        }
        EncodedFormat::WebP if riff_is_cut(bytes) => Err(DecodeError::Truncated { format }),
        EncodedFormat::WebP => read(webp_over_white(source).map_err(failed)?, format, limits),
        EncodedFormat::Gif => read(GifDecoder::new(source).map_err(failed)?, format, limits),
        EncodedFormat::Bmp => read(BmpDecoder::new(source).map_err(failed)?, format, limits),
        EncodedFormat::Tiff => read(TiffDecoder::new(source).map_err(failed)?, format, limits),
    }
}

/// The decoder does not miss what comes after the picture, such as its orientation; libwebp
/// refuses such a file, too.
fn riff_is_cut(bytes: &[u8]) -> bool {
    let claimed = bytes.get(4..8).and_then(|size| size.try_into().ok()).map(u32::from_le_bytes);
    // The size excludes the eight bytes up to and with itself.
    claimed.is_none_or(|claimed| u64::from(claimed) + 8 > bytes.len() as u64)
}

/// The frames of an animation cover parts of its canvas; the rest is white, not the colour
/// the file hints at, which browsers ignore too.
fn webp_over_white(source: Cursor<&[u8]>) -> ImageResult<WebPDecoder<Cursor<&[u8]>>> {
    let mut decoder = WebPDecoder::new(source)?;
    if decoder.has_animation() {
        decoder.set_background_color(Rgba([255; 4]))?;
    }
    Ok(decoder)
}

/// From a read header to upright RGB.
fn read(
    mut decoder: impl ImageDecoder,
    format: EncodedFormat,
    limits: &ImageLimits,
) -> Result<RgbImage, DecodeError> {
    let (width, height) = decoder.dimensions();
    limits.check_size(format, width, height)?;
    if matches!(decoder.color_type(), ColorType::Rgb32F | ColorType::Rgba32F) {
        let detail = "floating-point samples".to_owned();
        return Err(DecodeError::UnsupportedKind { format, detail });
    }
    let failed = |error| DecodeError::from_image(format, error);
    decoder.set_limits(limits.memory(decoder.total_bytes())).map_err(failed)?;
    // Unreadable metadata is no reason to refuse a picture.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(failed)?;
    image.apply_orientation(orientation);
    Ok(over_white(image))
}

fn over_white(image: DynamicImage) -> RgbImage {
    if !image.color().has_alpha() {
        return image.into_rgb8();
    }
    let image = image.into_rgba8();
    let (width, height) = image.dimensions();
    let pixels = image
        .as_chunks::<4>()
        .0
        .iter()
        .flat_map(|&[red, green, blue, alpha]| [red, green, blue].map(|c| blend(c, alpha)))
        .collect();
    RgbImage::from_raw(width, height, pixels).expect("three bytes were written for each pixel")
}

/// One channel over white, rounded to nearest.
fn blend(channel: u8, alpha: u8) -> u8 {
    let (channel, alpha) = (u32::from(channel), u32::from(alpha));
    ((channel * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}
