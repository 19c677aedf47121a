//! Decodes JPEGs to RGB, and refuses damaged ones.
//!
//! Owns which JPEGs are read, their size, orientation and memory, and the check that no data are
//! missing. Does not recognise JPEGs, and calls no C: `camshaft-jpeg` does. Upstream: `decode`.
//!
//! Data sets contain JPEGs with flaws that lose no pixel, and Pillow reads them. So these are
//! accepted: bytes after the end of the image, between markers and before the end of a scan; and a
//! missing end marker, if there is one scan and it is complete. A scan with invalid codes or with
//! too few data is refused, although Pillow reads it.

use camshaft_common::decoded_scale::{DecodedFrame, DecodedScale};
use camshaft_jpeg::{DecodeSettings, JpegError, MAX_SIDE};
use image::RgbImage;
use image::metadata::Orientation;

use super::error::{DecodeError, one_line};
use super::limits::ImageLimits;
use super::recognise::EncodedFormat;
use super::watch::Watch;
use super::{ChooseScale, DecodedPicture, RGB_BYTES, upright};

const FORMAT: EncodedFormat = EncodedFormat::Jpeg;

// Markers, from ITU-T T.81, table B.1. Each follows a byte of 0xFF.
const SOI: u8 = 0xd8;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
const DHT: u8 = 0xc4;
const JPG: u8 = 0xc8;
const DAC: u8 = 0xcc;
const APP1: u8 = 0xe1;
const SOF0: u8 = 0xc0;
const PROGRESSIVE: u8 = 0xc2;
/// The coding processes that can be read: baseline, extended and progressive. The others are
/// lossless, hierarchical or arithmetic. Damage in arithmetic codes shows nowhere.
const READABLE_PROCESSES: [u8; 3] = [SOF0, 0xc1, PROGRESSIVE];

/// The most components of a readable file: CMYK's.
const MAX_COMPONENTS: u8 = 4;
/// Coefficients of a block.
const COEFFICIENTS: usize = 64;
/// Bytes of the coefficients of a block, of two bytes each.
const BLOCK_BYTES: u64 = 2 * COEFFICIENTS as u64;
/// Tables, and rows of the widest picture, which libjpeg counts as coefficients.
const WORKING_BYTES: u64 = 16 << 20;

pub(super) fn decode(
    bytes: &[u8],
    limits: &ImageLimits,
    watch: &Watch,
    choose_scale: ChooseScale<'_>,
) -> Result<DecodedPicture, DecodeError> {
    let structure = JpegStructure::read(bytes);
    let frame = structure.check(limits)?;
    // A further scan that refines the picture may be missing; nothing in the file tells.
    if structure.end.is_none() && !structure.one_scan {
        return Err(DecodeError::Truncated { format: FORMAT });
    }
    let size = (frame.width, frame.height);
    let orientation = structure.orientation();
    let scale = choose_scale(upright_size(size, orientation));
    let max_coefficient_bytes = structure.memory(DecodedScale::Full) + WORKING_BYTES;
    let settings = DecodeSettings {
        size,
        divisor: scale.divisor(),
        max_coefficient_bytes: usize::try_from(max_coefficient_bytes).unwrap_or(usize::MAX),
    };
    let pixels = camshaft_jpeg::decode(bytes, settings, &|| watch.step());
    let pixels = pixels.map_err(|error| structure.decode_error(error))?;
    let (width, height) = scale.reduce(size);
    let image = RgbImage::from_raw(width, height, pixels)
        .expect("three bytes were returned for each pixel");
    Ok(DecodedPicture {
        pixels: upright(image, orientation),
        frame: upright_frame(size, scale, orientation),
    })
}

/// True if the orientation makes columns of rows.
fn turns(orientation: Orientation) -> bool {
    matches!(
        orientation,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    )
}

fn upright_size((width, height): (u32, u32), orientation: Orientation) -> (u32, u32) {
    if turns(orientation) { (height, width) } else { (width, height) }
}

/// Where an image of the file's size lies after it is turned upright. In the file, decoded pixels reach
/// beyond it to the right and below.
fn upright_frame(size: (u32, u32), scale: DecodedScale, orientation: Orientation) -> DecodedFrame {
    let beyond = |side: u32| side.next_multiple_of(scale.divisor()) - side;
    let (right, below) = (beyond(size.0), beyond(size.1));
    let margin = match orientation {
        Orientation::NoTransforms | Orientation::Rotate90FlipH => (0, 0),
        Orientation::FlipHorizontal => (right, 0),
        Orientation::FlipVertical => (0, below),
        Orientation::Rotate180 => (right, below),
        Orientation::Rotate90 => (below, 0),
        Orientation::Rotate270 => (0, right),
        Orientation::Rotate270FlipH => (below, right),
    };
    DecodedFrame { size: upright_size(size, orientation), scale, margin }
}

/// The content of the first segment with EXIF metadata, which comes before the picture.
pub(super) fn exif(bytes: &[u8]) -> Option<&[u8]> {
    let mut at = 2;
    while let Some(marker) = next_marker(bytes, &mut at) {
        match marker {
            SOS | EOI => break,
            SOI => continue,
            _ => {}
        }
        let &[high, low] = bytes.get(at..)?.first_chunk()?;
        let length = usize::from(u16::from_be_bytes([high, low])).max(2);
        let content = bytes.get(at + 2..at + length)?;
        if let (APP1, Some(exif)) = (marker, content.strip_prefix(b"Exif\0\0")) {
            return Some(exif);
        }
        at += length;
    }
    None
}

/// The most bytes that decoding holds at once.
pub(super) fn memory_to_decode(
    bytes: &[u8],
    limits: &ImageLimits,
    choose_scale: ChooseScale<'_>,
) -> Result<u64, DecodeError> {
    let structure = JpegStructure::read(bytes);
    let frame = structure.check(limits)?;
    let size = upright_size((frame.width, frame.height), structure.orientation());
    Ok(structure.memory(choose_scale(size)))
}

fn unsupported(detail: impl Into<String>) -> DecodeError {
    DecodeError::UnsupportedKind { format: FORMAT, detail: detail.into() }
}

fn corrupt(reason: impl Into<String>) -> DecodeError {
    DecodeError::Corrupt { format: FORMAT, reason: reason.into() }
}

/// The frame header: T.81, section B.2.2.
#[derive(Debug)]
struct Frame {
    process: u8,
    /// Bits of a sample.
    precision: u8,
    width: u32,
    height: u32,
    component_count: u8,
    /// The components; none if there are more than a readable file has.
    components: Vec<Component>,
}

/// A component of the picture: luma, a chroma, a colour.
#[derive(Debug)]
struct Component {
    id: u8,
    horizontal_factor: u32,
    vertical_factor: u32,
    /// For each coefficient, the lowest bit that a scan has told; `None` before the first scan.
    known_bits: [Option<u8>; COEFFICIENTS],
}

impl Component {
    /// True if its scans have told all bits of all coefficients.
    fn is_complete(&self) -> bool {
        self.known_bits.iter().all(|&bit| bit == Some(0))
    }
}

impl Frame {
    fn read(process: u8, segment: &[u8]) -> Option<Self> {
        let &[precision, high, low, left, right, count, ref rest @ ..] = segment else {
            return None;
        };
        // Of more than four components this says only how many: each scan of a file made to do harm
        // would cost time for each of them.
        if rest.len() != 3 * usize::from(count) {
            return None;
        }
        let rest = if count > MAX_COMPONENTS { &[][..] } else { rest };
        let components = rest.chunks_exact(3).map(|component| Component {
            id: component[0],
            horizontal_factor: u32::from(component[1] >> 4),
            vertical_factor: u32::from(component[1] & 15),
            known_bits: [None; COEFFICIENTS],
        });
        Some(Self {
            process,
            precision,
            component_count: count,
            width: u32::from(u16::from_be_bytes([left, right])),
            height: u32::from(u16::from_be_bytes([high, low])),
            components: components.collect(),
        })
    }

    fn is_progressive(&self) -> bool {
        self.process == PROGRESSIVE
    }

    /// Refuses a kind of JPEG that can't be read, and a size beyond the limits.
    fn check(&self, limits: &ImageLimits) -> Result<(), DecodeError> {
        if !READABLE_PROCESSES.contains(&self.process) {
            return Err(unsupported(format!(
                "its coding process is number {}, which is lossless, hierarchical or arithmetic",
                self.process - SOF0
            )));
        }
        if self.precision != 8 {
            return Err(unsupported(format!("its samples have {} bits", self.precision)));
        }
        let (width, height) = (self.width, self.height);
        limits.check_size(FORMAT, width, height)?;
        if width.max(height) > MAX_SIDE {
            return Err(DecodeError::SideTooLong { width, height, max_side: MAX_SIDE });
        }
        match self.component_count {
            1 | 3 | 4 => Ok(()),
            count => Err(unsupported(format!("it has {count} components"))),
        }
    }

    /// The largest sampling factors of any component, at least 1.
    fn max_factors(&self) -> (u32, u32) {
        self.components.iter().fold((1, 1), |(wide, high), component| {
            (wide.max(component.horizontal_factor), high.max(component.vertical_factor))
        })
    }

    /// Bytes of all coefficients for each pixel, rounded up.
    fn coefficient_bytes_per_pixel(&self) -> u64 {
        let (wide, high) = self.max_factors();
        let samples = |component: &Component| {
            u64::from(component.horizontal_factor) * u64::from(component.vertical_factor)
        };
        let all: u64 = self.components.iter().map(samples).sum();
        (2 * all).div_ceil(u64::from(wide) * u64::from(high))
    }

    /// Bytes of all coefficients. The blocks of each component are padded to whole units: T.81,
    /// section A.2.
    fn coefficient_bytes(&self) -> u64 {
        let (wide, high) = self.max_factors();
        let units =
            u64::from(self.width.div_ceil(8 * wide)) * u64::from(self.height.div_ceil(8 * high));
        let blocks = |component: &Component| {
            u64::from(component.horizontal_factor) * u64::from(component.vertical_factor)
        };
        units * self.components.iter().map(blocks).sum::<u64>() * BLOCK_BYTES
    }
}

/// What a file's markers tell: how it is coded, and where it ends.
#[derive(Debug, Default)]
struct JpegStructure<'a> {
    frame: Option<Frame>,
    /// Position of the end marker after a scan.
    end: Option<usize>,
    /// True if a single scan holds the picture: not progressive, all components interleaved.
    one_scan: bool,
    /// The content of the first segment with EXIF metadata.
    exif: Option<&'a [u8]>,
}

impl<'a> JpegStructure<'a> {
    /// Refuses a file without a whole frame, of a kind that can't be read, or beyond the limits.
    fn check(&self, limits: &ImageLimits) -> Result<&Frame, DecodeError> {
        let Some(frame) = &self.frame else {
            return Err(match self.end {
                None => DecodeError::Truncated { format: FORMAT },
                Some(_) => corrupt("it has no valid frame header"),
            });
        };
        frame.check(limits)?;
        limits.check_memory((frame.width, frame.height), self.bytes_per_pixel(frame))?;
        match frame.components.iter().find(|component| !component.is_complete()) {
            None => Ok(frame),
            Some(_) if self.end.is_none() => Err(DecodeError::Truncated { format: FORMAT }),
            Some(Component { id, .. }) => {
                Err(corrupt(format!("scans of its component {id} are missing")))
            }
        }
    }

    /// The most bytes that decoding holds at once for each pixel: RGB, and the larger of a second
    /// RGB that is turned upright and the coefficients of a file with several scans.
    fn bytes_per_pixel(&self, frame: &Frame) -> u64 {
        let coefficients = if self.one_scan { 0 } else { frame.coefficient_bytes_per_pixel() };
        RGB_BYTES + coefficients.max(RGB_BYTES)
    }

    /// As [`Self::bytes_per_pixel`], for the whole picture at a scale, with the padding of coefficients,
    /// which are those of all pixels at every scale.
    fn memory(&self, scale: DecodedScale) -> u64 {
        let Some(frame) = &self.frame else { return 0 };
        let (width, height) = scale.reduce((frame.width, frame.height));
        let rgb = u64::from(width) * u64::from(height) * RGB_BYTES;
        let coefficients = if self.one_scan { 0 } else { frame.coefficient_bytes() };
        rgb + coefficients.max(rgb)
    }

    fn orientation(&self) -> Orientation {
        let orientation = self.exif.and_then(Orientation::from_exif_chunk);
        orientation.unwrap_or(Orientation::NoTransforms)
    }

    /// If the end marker is missing, all damage counts as truncation.
    fn decode_error(&self, error: JpegError) -> DecodeError {
        match error {
            JpegError::Unsupported(detail) => unsupported(one_line(&detail)),
            JpegError::TooMuchMemory => DecodeError::TooMuchMemory { format: FORMAT },
            // The caller knows the limit.
            JpegError::Late => corrupt("it takes too long"),
            JpegError::Truncated => DecodeError::Truncated { format: FORMAT },
            JpegError::Corrupt(_) if self.end.is_none() => {
                DecodeError::Truncated { format: FORMAT }
            }
            JpegError::Corrupt(reason) => corrupt(one_line(&reason)),
        }
    }

    /// Reads the segments by their lengths. So an end marker of a thumbnail in a segment is not
    /// taken for the image's.
    fn read(bytes: &'a [u8]) -> Self {
        let mut structure = Self::default();
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
            let segment = bytes.get(at + 2..at + length.max(2)).unwrap_or_default();
            match marker {
                // After a scan has begun, a frame is damage.
                0xc0..=0xcf if scans == 0 && !matches!(marker, DHT | JPG | DAC) => {
                    structure.frame = Frame::read(marker, segment);
                }
                SOS => {
                    scans += 1;
                    structure.add_scan(segment, scans);
                }
                APP1 if structure.exif.is_none() => {
                    structure.exif = segment.strip_prefix(b"Exif\0\0");
                }
                _ => {}
            }
            at += length.max(2);
        }
        structure
    }

    /// Notes the header of scan number `number`: the number of its components; a selector and tables
    /// for each; the first and the last coefficient; and the bits that it tells. T.81, section B.2.3.
    fn add_scan(&mut self, segment: &[u8], number: usize) {
        let Some((&count, rest)) = segment.split_first() else { return };
        let Some(frame) = &mut self.frame else { return };
        if count > MAX_COMPONENTS {
            return;
        }
        let count = usize::from(count);
        let is_progressive = frame.is_progressive();
        self.one_scan = number == 1 && !is_progressive && count == frame.components.len();
        let Some((selectors, parameters)) = rest.split_at_checked(2 * count) else { return };
        let (coefficients, above, bit) = match *parameters {
            [first, last, bits, ..] if is_progressive => {
                (usize::from(first)..usize::from(last) + 1, bits >> 4, bits & 15)
            }
            // A sequential scan tells everything, whatever these fields say.
            _ => (0..COEFFICIENTS, 0, 0),
        };
        // A scan that refines tells the bit below those that are known.
        let follows = |known: &Option<u8>| above == 0 || *known == Some(above);
        for selector in selectors.chunks_exact(2) {
            for component in frame.components.iter_mut().filter(|found| found.id == selector[0]) {
                let known = component.known_bits.get_mut(coefficients.clone());
                let known = known.into_iter().flatten().filter(|known| follows(known));
                known.for_each(|known| *known = Some(bit));
            }
        }
    }
}

/// Moves `at` past the next marker that begins a segment or ends the image.
fn next_marker(bytes: &[u8], at: &mut usize) -> Option<u8> {
    loop {
        let rest = bytes.get(*at..)?;
        let found = memchr::memchr(0xff, rest)?;
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
