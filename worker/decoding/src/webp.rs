//! Checks a WebP's chunks before a decoder relies on them: RFC 9649.
//!
//! Owns these checks, because of what the decoder does without them:
//! 1. It allocates room for metadata by the length they claim, up to four gigabytes.
//! 2. It decodes a lossy frame at the frame's own size before it compares that with the canvas.
//!    Only the canvas is checked against the limits.
//! 3. It builds as many prefix codes as a lossless picture claims to have.
//! 4. It looks for chunks after the end that the file's header gives, and for a still picture in the
//!    frames of an animation.
//!
//! Does not decode. Upstream: `decode`. Downstream: [`vp8l`] counts prefix codes.

use std::collections::BTreeSet;

use super::error::DecodeError;
use super::limits::ImageLimits;
use super::recognise::EncodedFormat;
use super::vp8l;

const FORMAT: EncodedFormat = EncodedFormat::WebP;

/// A chunk's name and the length of its content, four bytes each.
const HEAD_BYTES: usize = 8;
/// The bit of the extended header that says that there is an animation.
const ANIMATION: u8 = 0b10;
/// Bytes before the chunks of an animation's frame: its place, size and duration.
const FRAME_BYTES: usize = 16;

/// Memory that prefix codes may take. A mosaic of 1200 photographs, 12 megapixels, takes 3 MB.
const MAX_CODE_BYTES: u64 = 64 << 20;
/// Bytes before a lossless picture: a signature, two sides of 14 bits each, and four more bits.
const LOSSLESS_HEAD_BYTES: usize = 5;

/// A file that passed the checks.
pub(super) struct CheckedFile<'a> {
    /// The file, up to the end that its header gives.
    pub(super) file: &'a [u8],
    /// Bytes that the prefix codes of a lossless picture take in memory.
    pub(super) code_bytes: u64,
}

/// Refuses a file that ends before its chunks do, that has a frame larger than its canvas, or that
/// has too many prefix codes. libwebp, too, refuses a file of which only metadata are missing.
pub(super) fn check_file<'a>(
    bytes: &'a [u8],
    limits: &ImageLimits,
) -> Result<CheckedFile<'a>, DecodeError> {
    let truncated = || DecodeError::Truncated { format: FORMAT };
    let length = number(bytes, 4, 4).ok_or_else(truncated)?;
    let file = bytes.get(..HEAD_BYTES.saturating_add(length)).ok_or_else(truncated)?;
    let (mut canvas, mut is_animated) = (None, false);
    let mut code_bytes = 0;
    let mut measured = BTreeSet::new();
    for chunk in Chunks(file.get(HEAD_BYTES + 4..).ok_or_else(truncated)?) {
        let (name, content) = chunk.ok_or_else(truncated)?;
        // The decoder, too, uses the first one.
        if name == b"VP8X" && canvas.is_none() {
            let (width, height) = size_less_one(content, 4).ok_or_else(truncated)?;
            // The decoder calls a file damaged whose sides it can't multiply.
            limits.check_size(FORMAT, width, height)?;
            canvas = Some((width, height));
            is_animated = content.first().is_some_and(|flags| flags & ANIMATION != 0);
            continue;
        }
        // The decoder takes the picture in it for the still one, or for a second.
        if name == b"ANMF" && canvas.is_some() && !is_animated {
            let reason = "a still picture has an animation's frame".to_owned();
            return Err(DecodeError::Corrupt { format: FORMAT, reason });
        }
        let Some(pictures) = find_pictures(name, content).ok_or_else(truncated)? else { continue };
        let lossy = pictures.lossy.map(frame_size);
        let lossless = pictures.lossless.map(lossless_size);
        for size in [lossy, lossless].into_iter().flatten() {
            let (width, height) = size.ok_or_else(truncated)?;
            if canvas.is_some_and(|canvas| width > canvas.0 || height > canvas.1) {
                let reason = format!("a frame of {width}×{height} pixels exceeds its canvas");
                return Err(DecodeError::Corrupt { format: FORMAT, reason });
            }
        }
        // Only the first chunk of each name is decoded. Measuring all of them could take too long.
        if measured.insert(name) {
            code_bytes = code_bytes.max(measure_codes(&pictures, canvas, limits)?);
        }
    }
    if code_bytes > MAX_CODE_BYTES {
        let reason = format!("its prefix codes take more than {} MiB", MAX_CODE_BYTES >> 20);
        return Err(DecodeError::Corrupt { format: FORMAT, reason });
    }
    Ok(CheckedFile { file, code_bytes })
}

/// Width and height in pixels.
type PixelSize = (u32, u32);

/// The pictures in a chunk.
struct ChunkPictures<'a> {
    lossy: Option<&'a [u8]>,
    lossless: Option<&'a [u8]>,
    transparency: Option<&'a [u8]>,
    /// Size of an animation's frame, from its header.
    size: Option<PixelSize>,
}

/// Finds a chunk's pictures as the decoder does. The decoder takes the chunk after a frame's
/// transparency for a lossy picture, whatever its name and length are. Returns `Some(None)` if
/// there is no picture, and `None` if the chunk ends too early to tell.
fn find_pictures<'a>(name: &[u8], content: &'a [u8]) -> Option<Option<ChunkPictures<'a>>> {
    let mut found = ChunkPictures { lossy: None, lossless: None, transparency: None, size: None };
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

/// The memory that the prefix codes of one of the pictures take, the largest. Checks the sizes
/// against the limits first.
fn measure_codes(
    pictures: &ChunkPictures<'_>,
    canvas: Option<PixelSize>,
    limits: &ImageLimits,
) -> Result<u64, DecodeError> {
    let measure = |stream: &[u8], size: PixelSize| {
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
        // Two sizes: the decoder may also use a frame's transparency as the canvas's.
        for size in [canvas, pictures.size].into_iter().flatten() {
            most = most.max(measure(stream, size)?);
        }
    }
    Ok(most)
}

/// Reads the size of a canvas or a frame. The file has each side less one.
fn size_less_one(bytes: &[u8], at: usize) -> Option<PixelSize> {
    Some((number(bytes, at, 3)? as u32 + 1, number(bytes, at + 3, 3)? as u32 + 1))
}

/// Reads the size of a lossy key frame, 14 bits a side: RFC 6386, section 9.1.
fn frame_size(frame: &[u8]) -> Option<PixelSize> {
    Some((number(frame, 6, 2)? as u32 & 0x3fff, number(frame, 8, 2)? as u32 & 0x3fff))
}

/// Reads the size of a lossless picture. The file has each side less one.
fn lossless_size(picture: &[u8]) -> Option<PixelSize> {
    let sides = number(picture, 1, LOSSLESS_HEAD_BYTES - 1)? as u32;
    Some(((sides & 0x3fff) + 1, (sides >> 14 & 0x3fff) + 1))
}

/// Reads a number of up to four bytes, the lowest first.
fn number(bytes: &[u8], at: usize, length: usize) -> Option<usize> {
    let bytes = bytes.get(at..at + length)?;
    Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte)))
}

/// Iterates over names and contents of chunks. If the last chunk is truncated, ends with `None`.
pub(super) struct Chunks<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Chunks<'a> {
    type Item = Option<(&'a [u8], &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.0;
        let length = number(rest, 4, 4)?;
        let Some(content) = rest.get(HEAD_BYTES..HEAD_BYTES.saturating_add(length)) else {
            self.0 = &[];
            return Some(None);
        };
        // A chunk of odd length is followed by one more byte, which may be missing at the end.
        let next = HEAD_BYTES + length.next_multiple_of(2);
        self.0 = rest.get(next..).unwrap_or_default();
        Some(Some((&rest[..4], content)))
    }
}
