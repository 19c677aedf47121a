//! What a WebP's chunks claim, before a decoder believes it: RFC 9649.
//!
//! Owns three checks. The decoder makes room for metadata by the length they claim, up to four
//! gigabytes; it decodes a lossy frame at the frame's own size before it compares that with the
//! canvas, whose size is all that the limits are held against; and it looks for chunks behind the
//! end that the file gives itself. Upstream: `decode`, once it knows the bytes to be a WebP.

use super::error::DecodeError;
use super::recognise::EncodedFormat;

const FORMAT: EncodedFormat = EncodedFormat::WebP;

/// A name of four bytes, then the length of what follows.
const HEAD_BYTES: usize = 8;
/// What precedes the chunks in a frame of an animation: its place, size and duration.
const FRAME_BYTES: usize = 16;

/// The file without what follows its end, which is all a decoder may see.
///
/// Refuses one that ends before its chunks do, as libwebp does even where only metadata are
/// missing, and one with a frame larger than its canvas.
pub(super) fn checked(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let truncated = || DecodeError::Truncated { format: FORMAT };
    let length = number(bytes, 4, 4).ok_or_else(truncated)?;
    let file = bytes.get(..HEAD_BYTES.saturating_add(length)).ok_or_else(truncated)?;
    let mut canvas = None;
    for chunk in Chunks(file.get(HEAD_BYTES + 4..).ok_or_else(truncated)?) {
        let (name, content) = chunk.ok_or_else(truncated)?;
        let lossy = match name {
            // The first counts, as for the decoder.
            b"VP8X" if canvas.is_none() => {
                let size = number(content, 4, 3).zip(number(content, 7, 3));
                canvas = Some(size.ok_or_else(truncated)?);
                continue;
            }
            b"VP8 " => content,
            b"ANMF" => match lossy_frame(content).ok_or_else(truncated)? {
                Some(frame) => frame,
                None => continue,
            },
            _ => continue,
        };
        let (width, height) = frame_size(lossy).ok_or_else(truncated)?;
        // A canvas is written one less than it is.
        if canvas.is_some_and(|(wide, high)| width > wide + 1 || height > high + 1) {
            let reason = format!("a frame of {width}×{height} pixels exceeds its canvas");
            return Err(DecodeError::Corrupt { format: FORMAT, reason });
        }
    }
    Ok(file)
}

/// The lossy picture in a frame of an animation, if it has one, found as the decoder finds it: it
/// takes what follows transparency for one, whatever that calls itself and however long it claims
/// to be. `None` where the frame ends before that can be told.
fn lossy_frame(frame: &[u8]) -> Option<Option<&[u8]>> {
    let chunks = frame.get(FRAME_BYTES..)?;
    let picture = match chunks.get(..4)? {
        b"VP8 " => 0,
        b"ALPH" => HEAD_BYTES + number(chunks, 4, 4)?.next_multiple_of(2),
        _ => return Some(None),
    };
    chunks.get(picture + HEAD_BYTES..).map(Some)
}

/// Width and height of a lossy key frame, of 14 bits each: RFC 6386, section 9.1.
fn frame_size(frame: &[u8]) -> Option<(usize, usize)> {
    Some((number(frame, 6, 2)? & 0x3fff, number(frame, 8, 2)? & 0x3fff))
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
