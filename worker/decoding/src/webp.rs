//! What a WebP's chunks claim, before a decoder believes it: RFC 9649.
//!
//! Owns four checks. The decoder makes room for metadata by the length they claim, up to four
//! gigabytes; it decodes a lossy frame at the frame's own size before it compares that with the
//! canvas, whose size is all that the limits are held against; it builds as many prefix codes as a
//! lossless picture claims to have; and it looks for chunks behind the end that the file gives
//! itself. Upstream: `decode`, once it knows the bytes to be a WebP.

use std::collections::BTreeSet;

use super::error::DecodeError;
use super::limits::ImageLimits;
use super::recognise::EncodedFormat;
use super::vp8l;

const FORMAT: EncodedFormat = EncodedFormat::WebP;

/// A name of four bytes, then the length of what follows.
const HEAD_BYTES: usize = 8;
/// What precedes the chunks in a frame of an animation: its place, size and duration.
const FRAME_BYTES: usize = 16;

/// What prefix codes may take. A mosaic of 1200 photographs, 12 megapixels, has 3 MB of them.
const MAX_CODE_BYTES: u64 = 64 << 20;
/// What precedes a lossless picture: a mark, its sides of 14 bits each, and four bits more.
const LOSSLESS_HEAD_BYTES: usize = 5;

/// What a decoder may see of a file.
pub(super) struct Checked<'a> {
    /// The file without what follows its end.
    pub(super) file: &'a [u8],
    /// What the prefix codes of a lossless picture take.
    pub(super) code_bytes: u64,
}

/// Refuses a file that ends before its chunks do, as libwebp does even where only metadata are
/// missing, one with a frame larger than its canvas, and one of too many codes.
pub(super) fn checked<'a>(
    bytes: &'a [u8],
    limits: &ImageLimits,
) -> Result<Checked<'a>, DecodeError> {
    let truncated = || DecodeError::Truncated { format: FORMAT };
    let length = number(bytes, 4, 4).ok_or_else(truncated)?;
    let file = bytes.get(..HEAD_BYTES.saturating_add(length)).ok_or_else(truncated)?;
    let mut canvas = None;
    let mut code_bytes = 0;
    let mut measured = BTreeSet::new();
    for chunk in Chunks(file.get(HEAD_BYTES + 4..).ok_or_else(truncated)?) {
        let (name, content) = chunk.ok_or_else(truncated)?;
        // The first counts, as for the decoder.
        if name == b"VP8X" && canvas.is_none() {
            canvas = Some(size_less_one(content, 4).ok_or_else(truncated)?);
            continue;
        }
        let Some(pictures) = pictures(name, content).ok_or_else(truncated)? else { continue };
        let lossy = pictures.lossy.map(frame_size);
        let lossless = pictures.lossless.map(lossless_size);
        for size in [lossy, lossless].into_iter().flatten() {
            let (width, height) = size.ok_or_else(truncated)?;
            if canvas.is_some_and(|canvas| width > canvas.0 || height > canvas.1) {
                let reason = format!("a frame of {width}×{height} pixels exceeds its canvas");
                return Err(DecodeError::Corrupt { format: FORMAT, reason });
            }
        }
        // Only the first of each kind is decoded; measuring all could take for ever.
        if measured.insert(name) {
            code_bytes = code_bytes.max(measure_codes(&pictures, canvas, limits)?);
        }
    }
    if code_bytes > MAX_CODE_BYTES {
        let reason = format!("its prefix codes take more than {} MiB", MAX_CODE_BYTES >> 20);
        return Err(DecodeError::Corrupt { format: FORMAT, reason });
    }
    Ok(Checked { file, code_bytes })
}

/// In pixels.
type Size = (u32, u32);

/// What a chunk has for a decoder.
struct Pictures<'a> {
    lossy: Option<&'a [u8]>,
    lossless: Option<&'a [u8]>,
    transparency: Option<&'a [u8]>,
    /// Of a frame of an animation.
    size: Option<Size>,
}

/// Finds pictures as the decoder does, which takes what follows the transparency of a frame for a
/// lossy one, whatever that calls itself and however long it claims to be. `Some(None)` where
/// there is none, `None` where the chunk ends before that can be told.
fn pictures<'a>(name: &[u8], content: &'a [u8]) -> Option<Option<Pictures<'a>>> {
    let mut found = Pictures { lossy: None, lossless: None, transparency: None, size: None };
    match name {
        b"VP8 " => found.lossy = Some(content),
        b"VP8L" => found.lossless = Some(content),
        b"ALPH" => found.transparency = Some(content),
        b"ANMF" => {
            found.size = Some(size_less_one(content, 6)?);
            let chunks = content.get(FRAME_BYTES..)?;
            let first = chunks.get(HEAD_BYTES..)?;
            match &chunks[..4] {
                b"VP8 " => found.lossy = Some(first),
                b"VP8L" => found.lossless = Some(first),
                b"ALPH" => {
                    found.transparency = Some(first);
                    let picture = HEAD_BYTES + number(chunks, 4, 4)?.next_multiple_of(2);
                    found.lossy = Some(chunks.get(picture + HEAD_BYTES..)?);
                }
                _ => return Some(None),
            }
        }
        _ => return Some(None),
    }
    Some(Some(found))
}

/// The most that the codes of one of them take. Sizes are held against the limits before.
fn measure_codes(
    pictures: &Pictures<'_>,
    canvas: Option<Size>,
    limits: &ImageLimits,
) -> Result<u64, DecodeError> {
    let measure = |stream: &[u8], size: Size| {
        limits.check_size(FORMAT, size.0, size.1)?;
        Ok(vp8l::bytes_of_codes(stream, size, MAX_CODE_BYTES))
    };
    let mut most = 0;
    if let Some(lossless) = pictures.lossless
        && let Some(size) = lossless_size(lossless)
    {
        most = measure(&lossless[LOSSLESS_HEAD_BYTES..], size)?;
    }
    if let Some([method, stream @ ..]) = pictures.transparency
        && method & 3 == 1
    {
        // The decoder also takes a frame's for that of the canvas.
        for size in [canvas, pictures.size].into_iter().flatten() {
            most = most.max(measure(stream, size)?);
        }
    }
    Ok(most)
}

/// Sides of a canvas or a frame, which are written one less than they are.
fn size_less_one(bytes: &[u8], at: usize) -> Option<Size> {
    Some((number(bytes, at, 3)? as u32 + 1, number(bytes, at + 3, 3)? as u32 + 1))
}

/// Width and height of a lossy key frame, of 14 bits each: RFC 6386, section 9.1.
fn frame_size(frame: &[u8]) -> Option<Size> {
    Some((number(frame, 6, 2)? as u32 & 0x3fff, number(frame, 8, 2)? as u32 & 0x3fff))
}

/// Width and height of a lossless picture, which are written one less than they are.
fn lossless_size(picture: &[u8]) -> Option<Size> {
    let sides = number(picture, 1, LOSSLESS_HEAD_BYTES - 1)? as u32;
    Some(((sides & 0x3fff) + 1, (sides >> 14 & 0x3fff) + 1))
}

/// Up to four bytes, the lowest first.
fn number(bytes: &[u8], at: usize, length: usize) -> Option<usize> {
    let bytes = bytes.get(at..at + length)?;
    Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte)))
}

/// Names and contents, and `None` at last where one is cut.
struct Chunks<'a>(&'a [u8]);

impl<'a> Iterator for Chunks<'a> {
    type Item = Option<(&'a [u8], &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.0;
        let length = number(rest, 4, 4)?;
        let Some(content) = rest.get(HEAD_BYTES..HEAD_BYTES.saturating_add(length)) else {
            self.0 = &[];
            return Some(None);
        };
        // Behind an odd length one more byte, which may be missing at the end.
        let next = HEAD_BYTES + length.next_multiple_of(2);
        self.0 = rest.get(next..).unwrap_or_default();
        Some(Some((&rest[..4], content)))
    }
}
