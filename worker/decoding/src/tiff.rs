//! Checks a TIFF's first directory before a decoder relies on it.
//!
//! The decoder allocates room for as many values as an entry claims, up to a quarter of a gigabyte
//! for each entry, before it reads the first value. This refuses claims that no picture needs. Does
//! not refuse other damage: the decoder does. Upstream: `decode`.

use super::error::DecodeError;
use super::recognise::EncodedFormat;

/// Values of the longest entry: a strip for each row of the tallest picture, in each of four
/// planes.
const MAX_VALUES: u64 = 4 * 65_536;

/// Tags that the decoder reads, from TIFF 6.0, sections 8 to 22: size, sample layout, compression,
/// orientation, strips, tiles. Others, such as colour profiles, may have any length.
const READ_TAGS: [u16; 20] = [
    256, 257, 258, 259, 262, 273, 274, 277, 278, 279, 284, 317, 322, 323, 324, 325, 338, 339, 347,
    530,
];

/// Refuses a directory with an entry that claims more values than any picture has, or than the file
/// has bytes.
pub(super) fn check_directory(bytes: &[u8]) -> Result<(), DecodeError> {
    let max_values = MAX_VALUES.min(bytes.len() as u64);
    let excessive = Directory::first(bytes).and_then(|directory| {
        let mut entries = directory.entries();
        entries.find(|(tag, count)| READ_TAGS.contains(tag) && *count > max_values)
    });
    match excessive {
        None => Ok(()),
        Some((tag, count)) => {
            let reason = format!("its tag {tag} claims {count} values");
            Err(DecodeError::Corrupt { format: EncodedFormat::Tiff, reason })
        }
    }
}

struct Directory<'a> {
    entries: &'a [u8],
    little_endian: bool,
    big_tiff: bool,
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
        Some(Self { entries: &entries[..length], little_endian, big_tiff })
    }

    /// Tag and number of values of each entry.
    fn entries(&self) -> impl Iterator<Item = (u16, u64)> {
        let (length, count) = if self.big_tiff { (20, 4..12) } else { (12, 4..8) };
        self.entries.chunks_exact(length).filter_map(move |entry| {
            let tag = number(&entry[..2], self.little_endian)?;
            Some((u16::try_from(tag).ok()?, number(&entry[count.clone()], self.little_endian)?))
        })
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
