//! Decodes image files to pixels.
//!
//! Owns what counts as a readable image: formats, limits, orientation, transparency, and when a
//! damaged file is refused. The content tells the format, never the name. Pure functions, no I/O.
//! Does not catch panics of decoders: the caller does. Upstream: the fetched bytes. Downstream:
//! `camshaft-vision`.

mod alpha;
mod claimed_size;
mod error;
mod exif;
mod jpeg;
mod limits;
mod recognise;
#[cfg(test)]
mod tests;
mod tiff;
mod vp8l;
mod watch;
mod webp;

use alpha::AlphaKind;
use camshaft_common::decoded_scale::{DecodedFrame, DecodedScale};
use camshaft_common::transparency::Transparency;
use claimed_size::claimed_size;
use image::codecs::bmp::BmpDecoder;
use image::codecs::gif::GifDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::pnm::PnmDecoder;
use image::codecs::tiff::TiffDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageDecoder, ImageError, ImageResult, RgbImage, Rgba};

pub use error::DecodeError;
pub use exif::camera;
pub use limits::{BYTES_PER_PIXEL, ImageLimits};
pub use recognise::EncodedFormat;
use recognise::FileContent;
use watch::{Watch, WatchedFile};

/// Decodes an image to 8-bit RGB, turned upright by its EXIF orientation.
///
/// Takes the first frame of an animation, treats transparency as told and rounds 16-bit samples to 8
/// bits. Does not apply colour profiles: nor do Pillow and torchvision, whose pixels the
/// models were trained on.
///
/// # Errors
///
/// If the file exceeds `limits`, is not of a supported kind, or is damaged. Its header is checked
/// before a pixel is decoded. No part of a damaged picture is returned.
///
/// ```
/// use camshaft_common::transparency::Transparency;
/// use camshaft_decoding::{ImageLimits, decode};
///
/// let limits = ImageLimits::default();
/// let error = decode(b"not an image", &limits, Transparency::OverWhite).unwrap_err();
/// println!("{:?}: {error}", error.class());
/// ```
pub fn decode(
    bytes: &[u8],
    limits: &ImageLimits,
    transparency: Transparency,
) -> Result<RgbImage, DecodeError> {
    let choose_scale: ChooseScale<'_> = &|_size| DecodedScale::Full;
    with_decoder(bytes, limits, DecodePicture { transparency, choose_scale })
        .map(|picture| picture.pixels)
}

/// Chooses the scale of a JPEG by the width and height of the upright image.
pub type ChooseScale<'a> = &'a dyn Fn((u32, u32)) -> DecodedScale;

/// A decoded image, perhaps at a reduced scale.
#[derive(Clone, Debug)]
pub struct DecodedPicture {
    /// 8-bit RGB, upright.
    pub pixels: RgbImage,
    /// Where the image lies in the pixels.
    pub frame: DecodedFrame,
}

/// As [`decode`], but decodes a JPEG at the scale that `choose_scale` gives: a half takes half of the
/// time and a quarter of the memory. Other formats have no scales; they are decoded at their full size.
/// The limits are on the full size. At every scale all of a file is read, and damage found.
///
/// # Errors
///
/// As [`decode`].
pub fn decode_at_scale(
    bytes: &[u8],
    limits: &ImageLimits,
    transparency: Transparency,
    choose_scale: ChooseScale<'_>,
) -> Result<DecodedPicture, DecodeError> {
    with_decoder(bytes, limits, DecodePicture { transparency, choose_scale })
}

/// The most bytes that [`decode`] will hold at once. Reads only the header.
///
/// # Errors
///
/// As [`decode`], as far as the header tells.
pub fn memory_to_decode(bytes: &[u8], limits: &ImageLimits) -> Result<u64, DecodeError> {
    memory_to_decode_at_scale(bytes, limits, &|_size| DecodedScale::Full)
}

/// The most bytes that [`decode_at_scale`] will hold at once. Reads only the header.
///
/// # Errors
///
/// As [`decode`], as far as the header tells.
pub fn memory_to_decode_at_scale(
    bytes: &[u8],
    limits: &ImageLimits,
    choose_scale: ChooseScale<'_>,
) -> Result<u64, DecodeError> {
    with_decoder(bytes, limits, MeasureMemory { choose_scale })
}

/// True if a file that begins with these bytes is an image of a format that can be decoded.
#[must_use]
pub fn begins_as_image(start: &[u8]) -> bool {
    matches!(recognise::recognise(start), FileContent::Image(_))
}

/// What is known about an open decoder besides its header.
#[derive(Clone, Copy)]
struct FileTraits {
    format: EncodedFormat,
    alpha: AlphaKind,
    /// Bytes that the decoder holds for each pixel, besides the pixels that it returns.
    bytes_per_pixel: u64,
    /// Further bytes that it holds.
    fixed_bytes: u64,
}

impl FileTraits {
    fn of(format: EncodedFormat) -> Self {
        Self { format, alpha: AlphaKind::Straight, bytes_per_pixel: 0, fixed_bytes: 0 }
    }
}

/// What to do with a decoder once it is open: decode the picture, or measure the memory it takes.
trait DecoderTask {
    type Output;
    fn jpeg(
        self,
        bytes: &[u8],
        limits: &ImageLimits,
        watch: &Watch,
    ) -> Result<Self::Output, DecodeError>;
    fn other(
        self,
        decoder: impl ImageDecoder,
        file: FileTraits,
        limits: &ImageLimits,
    ) -> Result<Self::Output, DecodeError>;
}

struct DecodePicture<'a> {
    transparency: Transparency,
    choose_scale: ChooseScale<'a>,
}

impl DecoderTask for DecodePicture<'_> {
    type Output = DecodedPicture;

    fn jpeg(
        self,
        bytes: &[u8],
        limits: &ImageLimits,
        watch: &Watch,
    ) -> Result<DecodedPicture, DecodeError> {
        jpeg::decode(bytes, limits, watch, self.choose_scale)
    }

    fn other(
        self,
        decoder: impl ImageDecoder,
        file: FileTraits,
        limits: &ImageLimits,
    ) -> Result<DecodedPicture, DecodeError> {
        let pixels = decode_picture(decoder, file, limits, self.transparency)?;
        let frame = DecodedFrame::full(pixels.dimensions());
        Ok(DecodedPicture { pixels, frame })
    }
}

struct MeasureMemory<'a> {
    choose_scale: ChooseScale<'a>,
}

impl DecoderTask for MeasureMemory<'_> {
    type Output = u64;

    fn jpeg(self, bytes: &[u8], limits: &ImageLimits, _watch: &Watch) -> Result<u64, DecodeError> {
        jpeg::memory_to_decode(bytes, limits, self.choose_scale)
    }

    fn other(
        self,
        decoder: impl ImageDecoder,
        file: FileTraits,
        limits: &ImageLimits,
    ) -> Result<u64, DecodeError> {
        check_header(&decoder, file, limits)
    }
}

/// Finds the format, opens its decoder and runs the task. Stops it if that takes too long.
fn with_decoder<T: DecoderTask>(
    bytes: &[u8],
    limits: &ImageLimits,
    task: T,
) -> Result<T::Output, DecodeError> {
    limits.check_bytes(bytes.len())?;
    let watch = Watch::start(limits.max_time);
    let result = with_watched_decoder(bytes, limits, &watch, task);
    // A decoder that gets an error instead of bytes calls the file damaged.
    result.map_err(|error| match watch.was_over() {
        true => DecodeError::TookTooLong { seconds: limits.max_time.as_secs() },
        false => error,
    })
}

fn with_watched_decoder<T: DecoderTask>(
    bytes: &[u8],
    limits: &ImageLimits,
    watch: &Watch,
    task: T,
) -> Result<T::Output, DecodeError> {
    let format = match recognise::recognise(bytes) {
        FileContent::Empty => return Err(DecodeError::Empty),
        FileContent::Image(format) => format,
        FileContent::Other(looks_like) => return Err(DecodeError::NotAnImage { looks_like }),
        FileContent::Unknown => return Err(DecodeError::Unrecognised),
    };
    let source = WatchedFile::new(bytes, watch);
    let failed = |error| refused(bytes, format, limits, error);
    let file = FileTraits::of(format);
    match format {
        EncodedFormat::Jpeg => task.jpeg(bytes, limits, watch),
        EncodedFormat::Png => {
            // These limits bound text and colour profiles, which come before the picture.
            let decoder =
                PngDecoder::with_limits(source, limits.decoder_limits(0)).map_err(failed)?;
            task.other(decoder, file, limits)
        }
        EncodedFormat::WebP => {
            let webp::CheckedFile { file: content, code_bytes } = webp::check_file(bytes, limits)?;
            let decoder = WebPDecoder::new(WatchedFile::new(content, watch)).map_err(failed)?;
            // A lossless frame is always decoded to RGBA. An animation also has a canvas.
            let bytes_per_pixel = match (decoder.has_animation(), content.get(12..16)) {
                (true, _) => 2 * RGBA_BYTES,
                // A byte of luma, and chroma at a quarter of the resolution, twice.
                (false, Some(b"VP8 ")) => 2,
                (false, _) => RGBA_BYTES,
            };
            let decoder = webp_over_white(decoder).map_err(failed)?;
            task.other(
                decoder,
                FileTraits { bytes_per_pixel, fixed_bytes: code_bytes, ..file },
                limits,
            )
        }
        EncodedFormat::Gif => {
            let decoder = GifDecoder::new(source).map_err(failed)?;
            // A frame smaller than the screen is decoded into a buffer of its own.
            task.other(decoder, FileTraits { bytes_per_pixel: RGBA_BYTES, ..file }, limits)
        }
        EncodedFormat::Bmp if bitmap_is_empty(bytes) => {
            let reason = "its header claims no pixels".to_owned();
            Err(DecodeError::Corrupt { format, reason })
        }
        EncodedFormat::Bmp => {
            let decoder = BmpDecoder::new(source).map_err(failed)?;
            task.other(decoder, FileTraits { alpha: AlphaKind::EmptyIfZero, ..file }, limits)
        }
        EncodedFormat::Pnm => {
            let decoder = PnmDecoder::new(source).map_err(failed)?;
            // The decoder takes the samples of a PAM that doesn't say what they are for bytes.
            let header = decoder.header().as_arbitrary();
            if header.is_some_and(|h| h.tupltype.is_none() && h.maxval > u32::from(u8::MAX)) {
                let detail = "16-bit samples without a TUPLTYPE".to_owned();
                return Err(DecodeError::UnsupportedKind { format, detail });
            }
            task.other(decoder, file, limits)
        }
        EncodedFormat::Tiff => {
            let alpha = tiff::check_directory(bytes)?;
            let decoder = TiffDecoder::new(source).map_err(failed)?;
            // The decoder holds the whole picture, then copies it; it copies CMYK as RGB.
            let bytes_per_pixel =
                u64::from(decoder.original_color_type().bits_per_pixel().div_ceil(8));
            task.other(decoder, FileTraits { alpha, bytes_per_pixel, ..file }, limits)
        }
    }
}

/// Why a file's decoder can't be opened. If the file claims a size beyond the limits, that is why: a
/// decoder that can't count the bytes of such a picture gives other reasons.
fn refused(
    bytes: &[u8],
    format: EncodedFormat,
    limits: &ImageLimits,
    error: ImageError,
) -> DecodeError {
    // BMP's calls the file damaged. Of the others, a file that is damaged may claim any size.
    let may_be_its_size = format == EncodedFormat::Bmp
        || matches!(error, ImageError::Limits(_) | ImageError::Unsupported(_));
    let size = claimed_size(format, bytes).filter(|_| may_be_its_size);
    let too_large = size.and_then(|(width, height)| limits.check_size(format, width, height).err());
    too_large.unwrap_or_else(|| DecodeError::from_image(format, error))
}

/// True if a bitmap's header has a side of zero. Checked here because the decoder reports such a
/// file as unsupported, not as corrupt.
fn bitmap_is_empty(bytes: &[u8]) -> bool {
    /// OS/2's header, whose sides have two bytes; later headers have four.
    const CORE_HEADER: u8 = 12;
    let side = |at: usize, length| bytes.get(at..at + length);
    let sides = match bytes.get(14..18) {
        Some(&[CORE_HEADER, 0, 0, 0]) => [side(18, 2), side(20, 2)],
        _ => [side(18, 4), side(22, 4)],
    };
    sides.into_iter().flatten().any(|side| side.iter().all(|&byte| byte == 0))
}

/// Makes an animation's canvas white, for frames that do not cover all of it. The file suggests a
/// colour, but browsers ignore it too.
fn webp_over_white(
    mut decoder: WebPDecoder<WatchedFile<'_>>,
) -> ImageResult<WebPDecoder<WatchedFile<'_>>> {
    if decoder.has_animation() {
        decoder.set_background_color(Rgba([255; 4]))?;
    }
    Ok(decoder)
}

const RGB_BYTES: u64 = 3;
const RGBA_BYTES: u64 = 4;

/// Checks a header that was read against the limits. Returns the most bytes that decoding will hold
/// at once.
fn check_header(
    decoder: &impl ImageDecoder,
    FileTraits { format, bytes_per_pixel, fixed_bytes, .. }: FileTraits,
    limits: &ImageLimits,
) -> Result<u64, DecodeError> {
    let (width, height) = decoder.dimensions();
    limits.check_size(format, width, height)?;
    if matches!(decoder.color_type(), ColorType::Rgb32F | ColorType::Rgba32F) {
        let detail = "floating-point samples".to_owned();
        return Err(DecodeError::UnsupportedKind { format, detail });
    }
    let pixel = u64::from(decoder.color_type().bytes_per_pixel());
    let pixels = limits.check_memory((width, height), pixel + bytes_per_pixel.max(RGB_BYTES))?;
    Ok(pixels + fixed_bytes)
}

/// Checks the header, and decodes the picture to upright RGB.
fn decode_picture(
    mut decoder: impl ImageDecoder,
    file: FileTraits,
    limits: &ImageLimits,
    transparency: Transparency,
) -> Result<RgbImage, DecodeError> {
    check_header(&decoder, file, limits)?;
    let failed = |error| DecodeError::from_image(file.format, error);
    decoder.set_limits(limits.decoder_limits(decoder.total_bytes())).map_err(failed)?;
    // A picture is not refused because its metadata can't be read.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let image = DynamicImage::from_decoder(decoder).map_err(failed)?;
    Ok(upright(alpha::to_rgb(image, file.alpha, transparency), orientation))
}

/// Turns a picture upright. This comes last, because turning copies the pixels and RGB is smallest.
fn upright(image: RgbImage, orientation: Orientation) -> RgbImage {
    let mut image = DynamicImage::ImageRgb8(image);
    image.apply_orientation(orientation);
    image.into_rgb8()
}
