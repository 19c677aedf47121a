//! Decodes JPEGs to RGB, and refuses damaged ones.
//!
//! Owns colour spaces and the check that no data are missing. Uses zune-jpeg instead of the image
//! crate's wrapper of it: the wrapper fills missing parts with grey and reports success. Does not
//! recognise JPEGs. Upstream: `decode`.
//!
//! Data sets contain JPEGs with flaws that lose no pixel, and Pillow reads them. So these are
//! accepted: bytes after the end of the image, between markers and before the end of a scan; and a
//! missing end marker, if there is one scan and it is complete. A scan with invalid codes is
//! refused, although Pillow reads it.

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
/// The coding processes that can be read: baseline, extended and progressive. The others are
/// lossless, differential or arithmetic.
const READABLE_PROCESSES: [u8; 3] = [0xc0, 0xc1, PROGRESSIVE];

pub(super) fn decode(bytes: &[u8], limits: &ImageLimits) -> Result<RgbImage, DecodeError> {
    let structure = JpegStructure::read(bytes);
    // Checked before the bytes are copied.
    check_header(&structure, bytes, limits)?;
    if let Some(end) = structure.end {
        let (image, repeats) =
            decode_whole(bytes, limits).map_err(|error| to_decode_error(error, false))?;
        // An end marker does not prove that the scan is complete: it may belong to a thumbnail, or
        // a program may have appended it to a truncated file. The decoder then reads zeros.
        let complete = !(structure.one_scan && repeats)
            || image == decode_with_tail(&bytes[..end], ONES, limits)?;
        return if complete { Ok(image) } else { Err(DecodeError::Truncated { format: FORMAT }) };
    }
    if !structure.one_scan {
        return Err(DecodeError::Truncated { format: FORMAT });
    }
    decode_without_end(bytes, limits)
}

/// The most bytes that decoding holds at once.
pub(super) fn memory_to_decode(bytes: &[u8], limits: &ImageLimits) -> Result<u64, DecodeError> {
    check_header(&JpegStructure::read(bytes), bytes, limits)
}

/// Refuses a JPEG of a kind that can't be read, or beyond the limits. Returns the most bytes that
/// decoding holds at once.
fn check_header(
    structure: &JpegStructure,
    bytes: &[u8],
    limits: &ImageLimits,
) -> Result<u64, DecodeError> {
    if let Some(process) = structure.process.filter(|process| !READABLE_PROCESSES.contains(process))
    {
        let detail = format!("its coding process is number {}", process - READABLE_PROCESSES[0]);
        return Err(DecodeError::UnsupportedKind { format: FORMAT, detail });
    }
    if structure.precision.is_some_and(|bits| bits != 8) {
        let detail = "samples of other than 8 bits".to_owned();
        return Err(DecodeError::UnsupportedKind { format: FORMAT, detail });
    }
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options());
    let size = read_header(&mut decoder, limits)
        .map_err(|e| to_decode_error(e, structure.end.is_none()))?;
    limits.check_memory(size, structure.bytes_per_pixel())
}

/// Two bytes of zeros in a scan.
const ZEROS: [u8; 2] = [0, 0];
/// One byte of ones in a scan: T.81 writes 0xFF as 0xFF 0x00.
const ONES: [u8; 2] = [0xff, 0];

/// Decodes twice, with different bytes appended. The pictures are equal only if the scan is
/// complete: then the decoder reads none of the appended bytes.
fn decode_without_end(bytes: &[u8], limits: &ImageLimits) -> Result<RgbImage, DecodeError> {
    let zeros = decode_with_tail(bytes, ZEROS, limits)?;
    let ones = decode_with_tail(bytes, ONES, limits)?;
    if zeros == ones { Ok(zeros) } else { Err(DecodeError::Truncated { format: FORMAT }) }
}

/// Decodes with repetitions of `tail` and an end marker appended.
fn decode_with_tail(
    bytes: &[u8],
    tail: [u8; 2],
    limits: &ImageLimits,
) -> Result<RgbImage, DecodeError> {
    /// More than the decoder reads ahead.
    const TAIL_BYTES: usize = 64;
    let mut bytes = bytes.to_vec();
    // The file may have the first half of an end marker.
    if bytes.last() == Some(&0xff) {
        bytes.pop();
    }
    bytes.extend(tail.repeat(TAIL_BYTES / 2));
    bytes.extend([0xff, EOI]);
    let (image, _) = decode_whole(&bytes, limits).map_err(|error| to_decode_error(error, true))?;
    Ok(image)
}

/// True if the last row of pixels repeats with the period of a block. It does if a whole row of
/// blocks is missing, but also if the picture ends in one colour. A missing part of a row is not
/// detected.
fn last_row_repeats(image: &RgbImage) -> bool {
    /// Width of the widest block: four blocks of 8 samples. The widths of all others divide it.
    const PERIOD: u32 = 32;
    let bottom = image.height() - 1;
    let pixel = |x| image.get_pixel(x, bottom);
    (PERIOD..image.width()).all(|x| pixel(x) == pixel(x - PERIOD))
}

fn options() -> DecoderOptions {
    // No limits here: `ImageLimits` checks the size in the header.
    DecoderOptions::default()
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_out_colorspace(ColorSpace::RGB)
        .set_strict_mode(false)
}

/// An error of zune-jpeg, or of our own checks.
enum JpegError {
    Decoder(DecodeErrors),
    Check(DecodeError),
}

impl From<DecodeErrors> for JpegError {
    fn from(error: DecodeErrors) -> Self {
        Self::Decoder(error)
    }
}

impl From<DecodeError> for JpegError {
    fn from(error: DecodeError) -> Self {
        Self::Check(error)
    }
}

/// If the end marker is missing (`ends_early`), all damage counts as truncation.
fn to_decode_error(error: JpegError, ends_early: bool) -> DecodeError {
    match error {
        JpegError::Check(error) => error,
        JpegError::Decoder(DecodeErrors::Unsupported(kind)) => {
            DecodeError::UnsupportedKind { format: FORMAT, detail: one_line(&format!("{kind:?}")) }
        }
        JpegError::Decoder(_) if ends_early => DecodeError::Truncated { format: FORMAT },
        JpegError::Decoder(error) => {
            DecodeError::Corrupt { format: FORMAT, reason: one_line(&error.to_string()) }
        }
    }
}

/// Reads the headers and checks the size and the colour space. Returns width and height.
fn read_header(
    decoder: &mut JpegDecoder<ZCursor<&[u8]>>,
    limits: &ImageLimits,
) -> Result<(u32, u32), JpegError> {
    decoder.decode_headers()?;
    let (width, height) = decoder.dimensions().expect("the header was read");
    let (width, height) = (width as u32, height as u32);
    limits.check_size(FORMAT, width, height)?;
    match decoder.input_colorspace() {
        // zune-jpeg treats samples of CMYK and YCCK as inverted, with or without Adobe's marker.
        // Pillow and browsers do the same.
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

/// Decodes the picture; the flag is true if rows may be missing at its end.
fn decode_whole(bytes: &[u8], limits: &ImageLimits) -> Result<(RgbImage, bool), JpegError> {
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options());
    let (width, height) = read_header(&mut decoder, limits)?;
    // Strict for scans only: flaws between markers lose no pixel.
    decoder.set_options(decoder.options().set_strict_mode(true));
    let mut pixels = vec![0; width as usize * height as usize * 3];
    decoder.decode_into(&mut pixels)?;
    let image = RgbImage::from_raw(width, height, pixels)
        .expect("three bytes were allocated for each pixel");
    let repeats = last_row_repeats(&image);
    let orientation = decoder.exif().and_then(|exif| Orientation::from_exif_chunk(exif));
    Ok((upright(image, orientation.unwrap_or(Orientation::NoTransforms)), repeats))
}

/// What a file's markers tell: how it is coded, and where it ends.
#[derive(Debug, Default)]
struct JpegStructure {
    /// Position of the end marker after a scan.
    end: Option<usize>,
    /// True if a single scan holds the picture: not progressive, all components interleaved.
    one_scan: bool,
    /// The coding process: the marker of the frame.
    process: Option<u8>,
    /// Bits of a sample.
    precision: Option<u8>,
    /// Bytes of all coefficients, for each pixel.
    coefficient_bytes: u64,
}

impl JpegStructure {
    /// The most bytes that decoding holds at once for each pixel. With one scan: RGB before and
    /// after it is turned upright. With several scans: RGB, and the larger of a
    /// second RGB and the coefficients of all scans.
    fn bytes_per_pixel(&self) -> u64 {
        if self.one_scan {
            2 * RGB_BYTES
        } else {
            RGB_BYTES + self.coefficient_bytes.max(RGB_BYTES)
        }
    }

    /// Reads the segments by their lengths. So an end marker of a thumbnail in a segment is not
    /// taken for the image's.
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
                // Start of frame: precision, height, width, number of components. After a scan has
                // begun, such a marker is damage.
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

/// Bytes of coefficients for each pixel, rounded up, from a frame's sampling factors: T.81, figure
/// B.3. If the factors are invalid, as many as CMYK takes; the decoder then refuses the file.
fn coefficient_bytes(frame: &[u8]) -> u64 {
    const COEFFICIENT_BYTES: u64 = 2;
    const MAX_BYTES: u64 = 4 * COEFFICIENT_BYTES;
    let factors = || {
        let components = frame.get(6..).unwrap_or_default().chunks_exact(3);
        let count = usize::from(frame.get(5).copied().unwrap_or_default());
        components.take(count).map(|component| (component[1] >> 4, component[1] & 15))
    };
    let most_wide = factors().map(|(wide, _)| u64::from(wide)).max().unwrap_or_default();
    let most_high = factors().map(|(_, high)| u64::from(high)).max().unwrap_or_default();
    let all: u64 = factors().map(|(wide, high)| u64::from(wide) * u64::from(high)).sum();
    match most_wide * most_high {
        0 => MAX_BYTES,
        most => (COEFFICIENT_BYTES * all).div_ceil(most).min(MAX_BYTES),
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
        // All other codes are scan data: stuffing, restart markers, or damage that the decoder
        // finds.
        if matches!(code, 0xc0..=0xcf | SOI..=0xef | 0xfe) {
            return Some(code);
        }
    }
}
