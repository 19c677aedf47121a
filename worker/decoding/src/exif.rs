//! The camera in a file's EXIF metadata.
//!
//! Owns where JPEG, PNG, WebP and TIFF keep EXIF, and reading its tags. Reads the two directories that
//! have what is wanted, each once, and copies nothing, so that time is bounded by the file's size whatever
//! a hostile file claims. [`Camera`] decides which texts are kept. The orientation is read by `image`.
//! Upstream: the fetched bytes. Downstream: records.

use camshaft_common::camera::Camera;

use super::jpeg;
use super::recognise::{EncodedFormat, FileContent, recognise};
use super::webp::Chunks;

// Tags, from EXIF 2.32 (CIPA DC-008-2019), tables 3 and 8.
const MAKE: u16 = 0x010f;
const MODEL: u16 = 0x0110;
const DATE_TIME: u16 = 0x0132;
const EXIF_DIRECTORY: u16 = 0x8769;
const DATE_TIME_ORIGINAL: u16 = 0x9003;
/// The type of a text: bytes.
const ASCII: u16 = 2;
/// The type of an offset: four bytes.
const LONG: u16 = 4;
/// Bytes of a directory's entry: tag, type, number, and a value or its offset.
const ENTRY_BYTES: usize = 12;
/// The bytes of a text that are looked at.
const MAX_TEXT_BYTES: usize = 1024;

/// The camera that an image file names; `None` if it names none. Does not decode the picture, and says
/// nothing against a file whose metadata are damaged.
#[must_use]
pub fn camera(bytes: &[u8]) -> Option<Camera> {
    let FileContent::Image(format) = recognise(bytes) else { return None };
    let exif = match format {
        EncodedFormat::Jpeg => jpeg::exif(bytes)?,
        EncodedFormat::Png => png_chunk(bytes)?,
        EncodedFormat::WebP => webp_chunk(bytes)?,
        EncodedFormat::Tiff => bytes,
        EncodedFormat::Gif | EncodedFormat::Bmp | EncodedFormat::Pnm => return None,
    };
    let exif = Exif::new(exif.strip_prefix(b"Exif\0\0").unwrap_or(exif))?;
    let main = exif.directory(exif.long(4)?)?;
    let text = |tag| exif.text(main, tag);
    let original = exif.offset(main, EXIF_DIRECTORY).and_then(|at| exif.directory(at));
    let date = original.and_then(|original| exif.text(original, DATE_TIME_ORIGINAL));
    Camera::of_metadata(text(MAKE), text(MODEL), date.or_else(|| text(DATE_TIME)))
}

/// The content of a PNG's `eXIf`: chunks are a length, a name, the content and a checksum, after a
/// signature of eight bytes.
fn png_chunk(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.get(8..)?;
    loop {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (name, after) = after.split_first_chunk::<4>()?;
        let (content, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        if name == b"eXIf" {
            return Some(content);
        }
        rest = after.get(4..)?;
    }
}

/// The content of a WebP's `EXIF`, behind a header of twelve bytes.
fn webp_chunk(bytes: &[u8]) -> Option<&[u8]> {
    let mut chunks = Chunks(bytes.get(12..)?).flatten();
    chunks.find(|(name, _)| *name == b"EXIF").map(|(_, content)| content)
}

/// EXIF metadata: a TIFF without a picture.
#[derive(Clone, Copy)]
struct Exif<'a> {
    bytes: &'a [u8],
    is_big_endian: bool,
}

impl<'a> Exif<'a> {
    /// `None` if the header is none.
    fn new(bytes: &'a [u8]) -> Option<Self> {
        match bytes.first_chunk::<4>()? {
            b"MM\0*" => Some(Self { bytes, is_big_endian: true }),
            b"II*\0" => Some(Self { bytes, is_big_endian: false }),
            _ => None,
        }
    }

    fn read<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        let mut number = *self.bytes.get(at..)?.first_chunk::<N>()?;
        if self.is_big_endian {
            number.reverse();
        }
        Some(number)
    }

    fn short(self, at: usize) -> Option<u16> {
        self.read(at).map(u16::from_le_bytes)
    }

    fn long(self, at: usize) -> Option<usize> {
        self.read(at).map(|bytes| u32::from_le_bytes(bytes) as usize)
    }

    /// Where a directory's entries lie: a number of two bytes, and the entries. One that is cut off has
    /// those that are there.
    fn directory(self, at: usize) -> Option<(usize, usize)> {
        let entries = usize::from(self.short(at)?);
        Some((at.checked_add(2)?, entries))
    }

    /// Where the entry with this tag and type lies, of a directory.
    fn entry(self, (start, entries): (usize, usize), tag: u16, kind: u16) -> Option<usize> {
        let bytes = self.bytes.get(start..)?;
        let entries = bytes.chunks_exact(ENTRY_BYTES).take(entries).enumerate();
        let mut at = entries.map(|(index, _)| start + index * ENTRY_BYTES);
        at.find(|at| self.short(*at) == Some(tag) && self.short(*at + 2) == Some(kind))
    }

    fn offset(self, directory: (usize, usize), tag: u16) -> Option<usize> {
        self.long(self.entry(directory, tag, LONG)? + 8)
    }

    /// A text. Up to four bytes lie in the entry itself.
    fn text(self, directory: (usize, usize), tag: u16) -> Option<&'a [u8]> {
        let entry = self.entry(directory, tag, ASCII)?;
        let length = self.long(entry + 4)?;
        let at = if length <= 4 { entry + 8 } else { self.long(entry + 8)? };
        self.bytes.get(at..at.checked_add(length)?).map(|text| &text[..length.min(MAX_TEXT_BYTES)])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tests::webp::{chunk, webp};

    /// A directory at `at`, with its texts behind it, and the pointer to another one.
    fn directory(at: u32, texts: &[(u16, &[u8])], pointer: Option<u32>) -> Vec<u8> {
        let count = texts.len() + usize::from(pointer.is_some());
        let mut to = at + 2 + (ENTRY_BYTES * count) as u32 + 4;
        let (mut entries, mut values) = ((count as u16).to_be_bytes().to_vec(), Vec::new());
        let mut add = |tag: u16, kind: u16, count: u32, value: [u8; 4]| {
            entries.extend(
                [&tag.to_be_bytes()[..], &kind.to_be_bytes(), &count.to_be_bytes(), &value]
                    .concat(),
            );
        };
        for (tag, text) in texts {
            let mut value = [0; 4];
            if text.len() <= 4 {
                value[..text.len()].copy_from_slice(text);
            } else {
                value = to.to_be_bytes();
                to += text.len() as u32;
                values.extend_from_slice(text);
            }
            add(*tag, ASCII, text.len() as u32, value);
        }
        if let Some(pointer) = pointer {
            add(EXIF_DIRECTORY, LONG, 1, pointer.to_be_bytes());
        }
        [entries, vec![0; 4], values].concat()
    }

    fn exif(make: &[u8], model: &[u8]) -> Vec<u8> {
        let original = directory(8, &[(DATE_TIME_ORIGINAL, b"2019:08:31 12:00:00\0")], None);
        let texts = [(MAKE, make), (MODEL, model), (DATE_TIME, b"2024:01:01 00:00:00\0")];
        let main = directory(8 + original.len() as u32, &texts, Some(8));
        let start = (8 + original.len() as u32).to_be_bytes();
        [b"MM\0*", &start[..], &original, &main].concat()
    }

    fn jpeg(exif: &[u8]) -> Vec<u8> {
        let segment = [b"Exif\0\0", exif].concat();
        let length = (segment.len() as u16 + 2).to_be_bytes();
        [b"\xff\xd8\xff\xe1", &length[..], &segment, b"\xff\xd9"].concat()
    }

    #[test]
    fn the_camera_is_read_from_every_format_that_names_it() {
        let exif = exif(b"Canon\0", b"X1\0");
        let png_chunk = [&(exif.len() as u32).to_be_bytes()[..], b"eXIf", &exif, b"sum!"].concat();
        let png = [&b"\x89PNG\r\n\x1a\n\0\0\0\x02IHDR12sum!"[..], &png_chunk].concat();
        let webp = webp(&[chunk(b"VP8X", &[0; 10]), chunk(b"ODD ", b"1"), chunk(b"EXIF", &exif)]);
        for file in [jpeg(&exif), png, webp, exif.clone()] {
            let Camera { make, model, year } = camera(&file).unwrap();
            assert_eq!((make.as_deref(), model.as_deref()), (Some("Canon"), Some("X1")));
            assert_eq!(year, Some(2019), "the original's, not the file's");
        }
        assert_eq!(camera(b"GIF89a"), None);
        assert_eq!(camera(b""), None);
    }

    #[test]
    fn hostile_texts_become_plain_ones() {
        let camera =
            camera(&jpeg(&exif(b"=cmd|'/c'!A0\x1b[2J\r\n\xff\xfe\0", &[b'x'; 3000]))).unwrap();
        assert_eq!(camera.make.as_deref(), Some("=cmd|'/c'!A0 [2J"));
        assert_eq!(camera.model.map(|model| model.len()), Some(64));
    }

    #[test]
    fn metadata_that_point_anywhere_are_ignored() {
        let whole = exif(b"Canon\0", b"EOS 5D\0");
        for length in 0..whole.len() {
            let _no_panic = camera(&jpeg(&whole[..length]));
        }
        for at in 0..whole.len() - 4 {
            for value in [[0xff; 4], [0; 4], 8u32.to_be_bytes(), [0x7f, 0xff, 0xff, 0xff]] {
                let mut other = whole.clone();
                other[at..at + 4].copy_from_slice(&value);
                let _no_panic = (camera(&jpeg(&other)), camera(&other));
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_print(tail in proptest::collection::vec(any::<u8>(), 0..400)) {
            for start in [&b"II*\0\x08\0\0\0"[..], b"MM\0*\0\0\0\x08", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP"] {
                let file = [start, &tail].concat();
                for camera in [camera(&file), camera(&jpeg(&file))].into_iter().flatten() {
                    let texts = camera.make.into_iter().chain(camera.model);
                    for text in texts {
                        prop_assert!(text.len() <= 64 && text.bytes().all(|b| (32..127).contains(&b)));
                    }
                }
            }
        }
    }
}
