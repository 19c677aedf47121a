//! JPEG to RGB, and which damaged JPEGs are refused.
//!
//! Owns colour spaces and the check that no data are missing. Uses zune-jpeg rather than the
//! image crate's wrapper of it, which fills what is missing with grey and reports success.
//! Upstream: `decode`, once it knows the bytes to be a JPEG.
//!
//! Real data sets have JPEGs with flaws that lose no pixel, and Pillow reads them; so these
//! pass: bytes after the end of the image, between markers and before the end of a scan;
//! and a missing end marker, if the one scan is complete. Refused, unlike by Pillow, is a
//! scan with codes that mean nothing.

use image::RgbImage;
use image::metadata::Orientation;
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;

use super::error::{DecodeError, one_line};
use super::limits::ImageLimits;
use super::recognise::EncodedFormat;
use super::{RGB_BYTES, upright};

const FORMAT: EncodedFormat = EncodedFormat::Jpeg;

// Markers, from ITU-T T.81, table B.1. Each follows a byte of 0xFF.
const SOI: u8 = 0xd8;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
const DHT: u8 = 0xc4;
const JPG: u8 = 0xc8;
const DAC: u8 = 0xcc;
const PROGRESSIVE: u8 = 0xc2;
/// Baseline, extended and progressive; others are lossless, differential or arithmetic.
const READ: [u8; 3] = [0xc0, 0xc1, PROGRESSIVE];

pub(super) fn decode(bytes: &[u8], limits: &ImageLimits) -> Result<RgbImage, DecodeError> {
    let structure = Structure::read(bytes);
    // Before the bytes are copied.
    check(&structure, bytes, limits)?;
    if let Some(end) = structure.end {
        let (image, repeats) =
            decode_whole(bytes, limits).map_err(|error| failure(error, false))?;
        // An end mark may stand where samples are missing: that of a thumbnail, or one of a
        // program's that mends what is cut. The decoder then goes on with zeros.
        let complete = !(structure.one_scan && repeats)
            || image == decode_with_tail(&bytes[..end], ONES, limits)?;
        return if complete { Ok(image) } else { Err(DecodeError::Truncated { format: FORMAT }) };
    }
    if !structure.one_scan {
        return Err(DecodeError::Truncated { format: FORMAT });
    }
    decode_without_end(bytes, limits)
}

/// What decoding holds at its height.
pub(super) fn memory_to_decode(bytes: &[u8], limits: &ImageLimits) -> Result<u64, DecodeError> {
    check(&Structure::read(bytes), bytes, limits)
}

/// Holds the headers against what is read and the limits.
fn check(structure: &Structure, bytes: &[u8], limits: &ImageLimits) -> Result<u64, DecodeError> {
    if let Some(process) = structure.process.filter(|process| !READ.contains(process)) {
        let detail = format!("its coding process is number {}", process - READ[0]);
        return Err(DecodeError::UnsupportedKind { format: FORMAT, detail });
    }
    if structure.precision.is_some_and(|bits| bits != 8) {
        let detail = "samples of other than 8 bits".to_owned();
        return Err(DecodeError::UnsupportedKind { format: FORMAT, detail });
    }
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options());
    let size =
        read_header(&mut decoder, limits).map_err(|e| failure(e, structure.end.is_none()))?;
    limits.check_memory(size, structure.bytes_per_pixel())
}

const ZEROS: [u8; 2] = [0, 0];
/// A byte of ones in a scan is written 0xFF 0x00.
const ONES: [u8; 2] = [0xff, 0];

/// Decodes twice, with unlike data appended: a complete scan reads neither, and a picture that
/// shows no difference is complete.
fn decode_without_end(bytes: &[u8], limits: &ImageLimits) -> Result<RgbImage, DecodeError> {
    let zeros = decode_with_tail(bytes, ZEROS, limits)?;
    let ones = decode_with_tail(bytes, ONES, limits)?;
    if zeros == ones { Ok(zeros) } else { Err(DecodeError::Truncated { format: FORMAT }) }
}

fn decode_with_tail(
    bytes: &[u8],
    tail: [u8; 2],
    limits: &ImageLimits,
) -> Result<RgbImage, DecodeError> {
    /// Longer than the decoder reads ahead.
    const TAIL_BYTES: usize = 64;
    let mut bytes = bytes.to_vec();
    // One half of the end marker may be there.
    if bytes.last() == Some(&0xff) {
        bytes.pop();
    }
    bytes.extend(tail.repeat(TAIL_BYTES / 2));
    bytes.extend([0xff, EOI]);
    let (image, _) = decode_whole(&bytes, limits).map_err(|error| failure(error, true))?;
    Ok(image)
}

/// Whether the last row shows the same again and again, as it does where a whole row of blocks
/// is missing, and where a picture ends in one colour. Where less than a row is missing, nothing
/// tells.
fn last_row_repeats(image: &RgbImage) -> bool {
    /// Of the widest block, four times as wide as one of samples; any other is a part of it.
    const PERIOD: u32 = 32;
    let bottom = image.height() - 1;
    let pixel = |x| image.get_pixel(x, bottom);
    (PERIOD..image.width()).all(|x| pixel(x) == pixel(x - PERIOD))
}

fn options() -> DecoderOptions {
    // The header decides the size, and `ImageLimits` whether that is too much.
    DecoderOptions::default()
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_out_colorspace(ColorSpace::RGB)
        .set_strict_mode(false)
}

/// A failure of zune-jpeg's or of ours.
enum Failure {
    Decoder(DecodeErrors),
    Checked(DecodeError),
}

impl From<DecodeErrors> for Failure {
    fn from(error: DecodeErrors) -> Self {
        Self::Decoder(error)
    }
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        Self::Checked(error)
    }
}

/// `ends_early` says that the end marker is missing, which makes other damage its consequence.
fn failure(failure: Failure, ends_early: bool) -> DecodeError {
    match failure {
        Failure::Checked(error) => error,
        Failure::Decoder(DecodeErrors::Unsupported(kind)) => {
            DecodeError::UnsupportedKind { format: FORMAT, detail: one_line(&format!("{kind:?}")) }
        }
        Failure::Decoder(_) if ends_early => DecodeError::Truncated { format: FORMAT },
        Failure::Decoder(error) => {
            DecodeError::Corrupt { format: FORMAT, reason: one_line(&error.to_string()) }
        }
    }
}

/// Returns width and height.
fn read_header(
    decoder: &mut JpegDecoder<ZCursor<&[u8]>>,
    limits: &ImageLimits,
) -> Result<(u32, u32), Failure> {
    decoder.decode_headers()?;
    let (width, height) = decoder.dimensions().expect("the header was read");
    let (width, height) = (width as u32, height as u32);
    limits.check_size(FORMAT, width, height)?;
    match decoder.input_colorspace() {
        // Of CMYK and YCCK, zune-jpeg takes the samples to be inverted, with or without Adobe's
        // marker; so do Pillow and browsers.
        Some(
            ColorSpace::Luma
            | ColorSpace::YCbCr
            | ColorSpace::RGB
            | ColorSpace::CMYK
            | ColorSpace::YCCK,
        ) => Ok((width, height)),
        other => {
            let detail = format!("colour space {other:?}");
            Err(DecodeError::UnsupportedKind { format: FORMAT, detail }.into())
        }
    }
}

/// The picture, and whether it may lack rows.
fn decode_whole(bytes: &[u8], limits: &ImageLimits) -> Result<(RgbImage, bool), Failure> {
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options());
    let (width, height) = read_header(&mut decoder, limits)?;
    // Headers are read leniently, scans strictly: flaws between markers lose no pixel.
    decoder.set_options(decoder.options().set_strict_mode(true));
    let mut pixels = vec![0; width as usize * height as usize * 3];
    decoder.decode_into(&mut pixels)?;
    let image = RgbImage::from_raw(width, height, pixels)
        .expect("three bytes were allocated for each pixel");
    let repeats = last_row_repeats(&image);
    let orientation = decoder.exif().and_then(|exif| Orientation::from_exif_chunk(exif));
    Ok((upright(image, orientation.unwrap_or(Orientation::NoTransforms)), repeats))
}

/// What the markers tell of a file's completeness.
#[derive(Debug, Default)]
struct Structure {
    /// Where the end marker is, after a scan.
    end: Option<usize>,
    /// A single scan holds everything: baseline, all components interleaved.
    one_scan: bool,
    /// How the frame is coded: its marker.
    process: Option<u8>,
    /// Bits a sample.
    precision: Option<u8>,
    /// Of all coefficients, for each pixel.
    coefficient_bytes: u64,
}

impl Structure {
    /// What decoding holds at its height: RGB and, where one scan doesn't hold everything, the
    /// coefficients of all scans; or RGB before and after it is turned upright.
    fn bytes_per_pixel(&self) -> u64 {
        if self.one_scan {
            2 * RGB_BYTES
        } else {
            RGB_BYTES + self.coefficient_bytes.max(RGB_BYTES)
        }
    }

    /// Walks the segments by their lengths, so that the end of a thumbnail within one isn't taken
    /// for the end of the image.
    fn read(bytes: &[u8]) -> Self {
        let mut structure = Self::default();
        let mut components = None;
        let mut scans = 0;
        let mut at = 2;
        while let Some(marker) = next_marker(bytes, &mut at) {
            match marker {
                EOI if scans > 0 => {
                    structure.end = Some(at - 2);
                    break;
                }
                SOI | EOI => continue,
                _ => {}
            }
            // The length counts its own two bytes.
            let Some(&[high, low]) = bytes.get(at..at + 2) else { break };
            let length = usize::from(u16::from_be_bytes([high, low]));
            let body = bytes.get(at + 2..at + length.max(2)).unwrap_or_default();
            match marker {
                // Start of frame: precision, height, width, number of components. What looks
                // like another one in a scan is damage.
                0xc0..=0xcf if scans == 0 && !matches!(marker, DHT | JPG | DAC) => {
                    structure.process = Some(marker);
                    structure.precision = body.first().copied();
                    structure.coefficient_bytes = coefficient_bytes(body);
                    components = body.get(5).copied().filter(|_| marker != PROGRESSIVE);
                }
                SOS => {
                    scans += 1;
                    structure.one_scan =
                        scans == 1 && components.is_some() && components == body.first().copied();
                }
                _ => {}
            }
            at += length.max(2);
        }
        structure
    }
}

/// Bytes of coefficients for each pixel, rounded up, by a frame's sampling factors: T.81, figure
/// B.3. As many as CMYK's where they make no sense, for the decoder to refuse.
fn coefficient_bytes(frame: &[u8]) -> u64 {
    const EACH: u64 = 2;
    const MOST: u64 = 4 * EACH;
    let factors = || {
        let components = frame.get(6..).unwrap_or_default().chunks_exact(3);
        let count = usize::from(frame.get(5).copied().unwrap_or_default());
        components.take(count).map(|component| (component[1] >> 4, component[1] & 15))
    };
    let most_wide = factors().map(|(wide, _)| u64::from(wide)).max().unwrap_or_default();
    let most_high = factors().map(|(_, high)| u64::from(high)).max().unwrap_or_default();
    let all: u64 = factors().map(|(wide, high)| u64::from(wide) * u64::from(high)).sum();
    match most_wide * most_high {
        0 => MOST,
        most => (EACH * all).div_ceil(most).min(MOST),
    }
}

/// Moves `at` past the next marker that begins a segment or ends the image.
fn next_marker(bytes: &[u8], at: &mut usize) -> Option<u8> {
    loop {
        let rest = bytes.get(*at..)?;
        let found = rest.iter().position(|&byte| byte == 0xff)?;
        let code = *rest.get(found + 1)?;
        // Any number of 0xFF may precede a code.
        *at += found + if code == 0xff { 1 } else { 2 };
        // Everything else is scan data: stuffing, restart markers, or damage for the decoder
        // to find.
        if matches!(code, 0xc0..=0xcf | SOI..=0xef | 0xfe) {
            return Some(code);
        }
    }
}
