//! Checks a TIFF's first directory before a decoder relies on it.
//!
//! Owns two checks:
//! 1. The decoder allocates room for as many values as an entry claims, up to a quarter of a
//!    gigabyte for each entry, before it reads the first value. Claims that no picture needs are
//!    refused.
//! 2. Kinds that the decoder reads wrongly, or calls damaged, are refused by name. A camera's raw
//!    picture is among them: its first directory is a thumbnail. So are those that cost it far more
//!    than their size: JPEG inside, which it decodes at the JPEG's own size, and huge tiles.
//!
//! Does not refuse other damage: the decoder does. Upstream: `decode`.

use super::alpha::AlphaKind;
use super::error::DecodeError;
use super::recognise::EncodedFormat;

const FORMAT: EncodedFormat = EncodedFormat::Tiff;

/// Values of the longest entry: a strip for each row of the tallest picture, in each of four
/// planes.
const MAX_VALUES: u64 = 4 * 65_536;

// Tags, from TIFF 6.0, TIFF/EP and DNG.
const NEW_SUBFILE_TYPE: u16 = 254;
const IMAGE_WIDTH: u16 = 256;
const IMAGE_LENGTH: u16 = 257;
const BITS_PER_SAMPLE: u16 = 258;
const COMPRESSION: u16 = 259;
const PHOTOMETRIC_INTERPRETATION: u16 = 262;
const FILL_ORDER: u16 = 266;
const SAMPLES_PER_PIXEL: u16 = 277;
const PLANAR_CONFIGURATION: u16 = 284;
const TILE_WIDTH: u16 = 322;
const TILE_LENGTH: u16 = 323;
const EXTRA_SAMPLES: u16 = 338;
const SAMPLE_FORMAT: u16 = 339;
const DNG_VERSION: u16 = 50_706;
/// Pixels of the largest tile that a picture of any size may have: 2048×2048.
const SMALL_PIXELS: u64 = 4 << 20;
/// A type of values.
const BYTE: u16 = 1;

/// Tags that the decoder reads, from TIFF 6.0, sections 8 to 22: size, sample layout, compression,
/// orientation, strips, tiles. Others, such as colour profiles, may have any length.
const READ_TAGS: [u16; 20] = [
    256, 257, 258, 259, 262, 273, 274, 277, 278, 279, 284, 317, 322, 323, 324, 325, 338, 339, 347,
    530,
];

/// Refuses a directory with an entry that claims more values than any picture has, or than the file
/// has bytes; and a kind of TIFF that can't be read. Returns what the fourth sample means.
pub(super) fn check_directory(bytes: &[u8]) -> Result<AlphaKind, DecodeError> {
    // The decoder says what is wrong with such a file.
    let Some(directory) = Directory::first(bytes) else { return Ok(AlphaKind::Straight) };
    let max_values = MAX_VALUES.min(bytes.len() as u64);
    let mut entries = directory.entries();
    if let Some(Entry { tag, count, .. }) =
        entries.find(|entry| READ_TAGS.contains(&entry.tag) && entry.count > max_values)
    {
        let reason = format!("its tag {tag} claims {count} values");
        return Err(DecodeError::Corrupt { format: FORMAT, reason });
    }
    if let Some(detail) = unreadable_kind(&directory) {
        return Err(DecodeError::UnsupportedKind { format: FORMAT, detail });
    }
    Ok(match directory.first_value(EXTRA_SAMPLES) {
        Some(1) => AlphaKind::Premultiplied,
        Some(2) => AlphaKind::Straight,
        // No tag says what it means, or "unspecified".
        _ => AlphaKind::Unspecified,
    })
}

/// The size that the first directory claims.
pub(super) fn size(bytes: &[u8]) -> Option<(u32, u32)> {
    let directory = Directory::first(bytes)?;
    let side = |tag| u32::try_from(directory.first_value(tag)?).ok();
    Some((side(IMAGE_WIDTH)?, side(IMAGE_LENGTH)?))
}

/// What is unusual about a TIFF that can't be read.
fn unreadable_kind(directory: &Directory<'_>) -> Option<String> {
    let value = |tag| directory.first_value(tag);
    let reduced = value(NEW_SUBFILE_TYPE).is_some_and(|kind| kind & 1 == 1);
    let is_dng =
        |entry: &Entry<'_>| entry.tag == DNG_VERSION && (entry.kind, entry.count) == (BYTE, 4);
    if reduced || directory.entries().any(|entry| is_dng(&entry)) {
        return Some("a camera's raw picture, or one that begins with a thumbnail".to_owned());
    }
    let photometric = match value(PHOTOMETRIC_INTERPRETATION) {
        // Grey, RGB, and inks.
        None | Some(0..=2 | 5) => None,
        Some(3) => Some("colours from a palette".to_owned()),
        Some(4) => Some("a transparency mask".to_owned()),
        Some(6) => Some("YCbCr colours".to_owned()),
        Some(8..=10) => Some("L*a*b* colours".to_owned()),
        Some(32_803) => Some("a camera's raw picture".to_owned()),
        Some(other) => Some(format!("photometric interpretation {other}")),
    };
    let compression = || match value(COMPRESSION) {
        // None, CCITT's group 4, LZW, deflate, PackBits.
        None | Some(1 | 4 | 5 | 8 | 32_773 | 32_946) => None,
        Some(2 | 3) => Some("compression for fax machines (CCITT group 3)".to_owned()),
        Some(6 | 7) => Some("JPEG compression inside it".to_owned()),
        Some(34_712) => Some("JPEG 2000 compression inside it".to_owned()),
        Some(34_925) => Some("LZMA compression".to_owned()),
        Some(50_000) => Some("Zstandard compression".to_owned()),
        Some(50_001 | 50_002) => Some("WebP or JPEG XL compression inside it".to_owned()),
        Some(other) => Some(format!("compression {other}")),
    };
    let is_ink = value(PHOTOMETRIC_INTERPRETATION) == Some(5);
    let samples = || {
        let bits = match value(BITS_PER_SAMPLE) {
            Some(bits) => bits,
            // Its values are behind the end of the file: the decoder says so.
            None if directory.entries().any(|entry| entry.tag == BITS_PER_SAMPLE) => return None,
            None => 1,
        };
        match (value(SAMPLE_FORMAT), value(SAMPLES_PER_PIXEL).unwrap_or(1)) {
            (Some(2), _) => Some("signed samples".to_owned()),
            (Some(3), _) => Some("floating-point samples".to_owned()),
            (Some(5 | 6), _) => Some("complex samples".to_owned()),
            (_, count) if !matches!((bits, count), (1, 1) | (8 | 16, 1 | 3..)) => {
                Some(format!("{count} samples of {bits} bits for each pixel"))
            }
            _ if is_ink && value(SAMPLES_PER_PIXEL).is_some_and(|count| count != 4) => Some(
                "other inks than cyan, magenta, yellow and black, or opacity beside them"
                    .to_owned(),
            ),
            _ => None,
        }
    };
    let tiles = || {
        let side = |tag| value(tag).filter(|&side| side > 0);
        let (width, height) = (side(IMAGE_WIDTH)?, side(IMAGE_LENGTH)?);
        let (tile_width, tile_height) = (side(TILE_WIDTH)?, side(TILE_LENGTH)?);
        // The decoder unpacks each tile whole.
        let columns = width.div_ceil(tile_width).saturating_mul(tile_width);
        let rows = height.div_ceil(tile_height).saturating_mul(tile_height);
        let most = width.saturating_mul(height).saturating_mul(4).saturating_add(SMALL_PIXELS);
        (columns.saturating_mul(rows) > most)
            .then(|| "tiles far larger than the picture".to_owned())
    };
    let layout = || match (value(FILL_ORDER), value(PLANAR_CONFIGURATION), value(TILE_WIDTH)) {
        (Some(2), ..) => Some("bits in the reverse order".to_owned()),
        (_, Some(2), Some(_)) => Some("tiles of separate colours".to_owned()),
        _ => None,
    };
    photometric.or_else(compression).or_else(samples).or_else(tiles).or_else(layout)
}

struct Directory<'a> {
    file: &'a [u8],
    entries: &'a [u8],
    little_endian: bool,
    big_tiff: bool,
}

/// An entry of a directory.
struct Entry<'a> {
    tag: u16,
    /// The type of its values, by TIFF's numbers.
    kind: u16,
    /// The number of its values.
    count: u64,
    /// The values, or where they are.
    field: &'a [u8],
}

impl<'a> Directory<'a> {
    fn first(bytes: &'a [u8]) -> Option<Self> {
        let little_endian = bytes.starts_with(b"II");
        let number =
            |at: usize, length: usize| number(bytes.get(at..)?.get(..length)?, little_endian);
        // TIFF 6.0, section 2; BigTIFF has longer counts and offsets.
        let big_tiff = number(2, 2)? == 43;
        let (at, length_of_count) = if big_tiff { (number(8, 8)?, 8) } else { (number(4, 4)?, 2) };
        let at = usize::try_from(at).ok()?;
        let count = usize::try_from(number(at, length_of_count)?).ok()?;
        let entries = bytes.get(at.checked_add(length_of_count)?..)?;
        let length = count.saturating_mul(if big_tiff { 20 } else { 12 }).min(entries.len());
        Some(Self { file: bytes, entries: &entries[..length], little_endian, big_tiff })
    }

    fn entries(&self) -> impl Iterator<Item = Entry<'a>> {
        let (length, field) = if self.big_tiff { (20, 12) } else { (12, 8) };
        let little_endian = self.little_endian;
        self.entries.chunks_exact(length).filter_map(move |entry| {
            let read = |from: usize, to: usize| number(&entry[from..to], little_endian);
            Some(Entry {
                tag: u16::try_from(read(0, 2)?).ok()?,
                kind: u16::try_from(read(2, 4)?).ok()?,
                count: read(4, field)?,
                field: &entry[field..],
            })
        })
    }

    /// The first value of an entry of whole numbers.
    fn first_value(&self, tag: u16) -> Option<u64> {
        let Entry { kind, count, field, .. } = self.entries().find(|entry| entry.tag == tag)?;
        // BYTE, SHORT, LONG, LONG8.
        let length = match kind {
            BYTE => 1,
            3 => 2,
            4 => 4,
            16 => 8,
            _ => return None,
        };
        if count == 0 {
            return None;
        }
        let whole = usize::try_from(count).ok()?.checked_mul(length)?;
        let values = if whole <= field.len() {
            field
        } else {
            let at = usize::try_from(number(field, self.little_endian)?).ok()?;
            self.file.get(at..)?
        };
        number(values.get(..length)?, self.little_endian)
    }
}

/// Reads a number of up to eight bytes.
fn number(bytes: &[u8], little_endian: bool) -> Option<u64> {
    let mut wide = [0; 8];
    if little_endian {
        wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(u64::from_le_bytes(wide))
    } else {
        wide.get_mut(8_usize.checked_sub(bytes.len())?..)?.copy_from_slice(bytes);
        Some(u64::from_be_bytes(wide))
    }
}
