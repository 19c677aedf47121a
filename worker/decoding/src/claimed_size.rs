//! The size that a file's header claims, read without its decoder.
//!
//! A decoder that can't count the bytes of a huge picture refuses it in other words: memory is short,
//! this kind isn't supported, or the file is damaged. What is wrong is its size. Upstream: a file that
//! its decoder refuses. Downstream: the limits.

use super::recognise::EncodedFormat;
use super::tiff;

/// Bytes at the beginning of a PNM that its size is looked for in.
const PNM_HEADER_BYTES: usize = 1024;

/// Width and height; `None` if they can't be told, or if one is zero.
pub(super) fn claimed_size(format: EncodedFormat, bytes: &[u8]) -> Option<(u32, u32)> {
    let size = match format {
        EncodedFormat::Png => png_size(bytes),
        EncodedFormat::Bmp => bitmap_size(bytes),
        EncodedFormat::Pnm => pnm_size(bytes),
        EncodedFormat::Tiff => tiff::size(bytes),
        // Their sides are short enough to be multiplied, or are checked by themselves.
        EncodedFormat::Jpeg | EncodedFormat::WebP | EncodedFormat::Gif => None,
    };
    size.filter(|&(width, height)| width > 0 && height > 0)
}

/// The first chunk is `IHDR`, which begins with the sides.
fn png_size(bytes: &[u8]) -> Option<(u32, u32)> {
    if bytes.get(12..16)? != b"IHDR" {
        return None;
    }
    Some((u32::from_be_bytes(array(bytes, 16)?), u32::from_be_bytes(array(bytes, 20)?)))
}

/// A negative height means that the first row is the top one. OS/2's header, of twelve bytes, has
/// sides of two bytes, which are never too long.
fn bitmap_size(bytes: &[u8]) -> Option<(u32, u32)> {
    if u32::from_le_bytes(array(bytes, 14)?) <= 12 {
        return None;
    }
    let width = u32::try_from(i32::from_le_bytes(array(bytes, 18)?)).ok()?;
    let height = i32::from_le_bytes(array(bytes, 22)?).checked_abs()?;
    Some((width, u32::try_from(height).ok()?))
}

/// The first two numbers behind the signature. A PAM names them.
fn pnm_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(PNM_HEADER_BYTES)]);
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let words: Vec<_> = lines.flat_map(str::split_ascii_whitespace).collect();
    let number = |at: usize| -> Option<u32> { words.get(at)?.parse().ok() };
    if words.first() != Some(&"P7") {
        return Some((number(1)?, number(2)?));
    }
    let named = |name: &str| number(words.iter().position(|word| *word == name)? + 1);
    Some((named("WIDTH")?, named("HEIGHT")?))
}

fn array(bytes: &[u8], at: usize) -> Option<[u8; 4]> {
    bytes.get(at..at + 4)?.try_into().ok()
}
