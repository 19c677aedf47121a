//! Hostile JPEGs. Markers and segments are those of ITU-T T.81.

use camshaft_common::prediction::FailureClass;
use image::ImageFormat;

use super::common::{encoded, position, sample, with};
use super::{Corpus, Expected};

pub(super) const FRAME: &[u8] = &[0xff, 0xc0];
pub(super) const PROGRESSIVE_FRAME: &[u8] = &[0xff, 0xc2];
const QUANTIZATION: &[u8] = &[0xff, 0xdb];
const HUFFMAN: &[u8] = &[0xff, 0xc4];
const SCAN: &[u8] = &[0xff, 0xda];

pub(super) fn add(corpus: &mut Corpus) {
    lying_frames(corpus);
    other_processes(corpus);
    tables(corpus);
    segments(corpus);
    scans(corpus);
}

/// The segment whose marker is at `at`, with its marker.
fn segment(bytes: &[u8], at: usize) -> &[u8] {
    let length = usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
    &bytes[at..at + 2 + length]
}

/// `bytes` without the first segment with this marker.
fn without(bytes: &[u8], marker: &[u8]) -> Vec<u8> {
    let at = position(bytes, marker);
    let end = at + segment(bytes, at).len();
    [&bytes[..at], &bytes[end..]].concat()
}

fn lying_frames(corpus: &mut Corpus) {
    let photo = encoded(ImageFormat::Jpeg);
    let progressive = sample("progressive.jpg");
    for (name, height, width, expected) in [
        ("no-width", 64_u16, 0_u16, Expected::UNDECODABLE),
        ("no-size", 0, 0, Expected::UNDECODABLE),
        ("twice-the-height", 128, 96, Expected::UNDECODABLE),
        ("twice-the-width", 64, 192, Expected::UNDECODABLE),
        ("most-of-the-limit", 9_990, 10_000, Expected::UNDECODABLE),
        ("above-the-limit", 10_001, 10_000, Expected::TOO_LARGE),
        ("longest-sides", 65_535, 65_535, Expected::TOO_LARGE),
        ("longest-width", 64, 65_535, Expected::TOO_LARGE),
        ("longest-height", 65_535, 96, Expected::TOO_LARGE),
    ] {
        let size = [height.to_be_bytes(), width.to_be_bytes()].concat();
        let at = position(&photo, FRAME);
        corpus.add(format!("claims-{name}.jpg"), with(&photo, at + 5, &size), expected);
        let cut = with(&photo[..photo.len() - 9], at + 5, &size);
        corpus.add(format!("claims-{name}-cut.jpg"), cut, expected);
        let at = position(&progressive, PROGRESSIVE_FRAME);
        let name = format!("claims-{name}-progressive.jpg");
        // Scans of a progressive file may end anywhere: the pixels so far are a picture.
        let expected = match expected {
            Expected::Failure(FailureClass::TooLarge) => expected,
            Expected::Failure(_) if height == 0 || width == 0 => expected,
            _ => Expected::PredictionOrUndecodable,
        };
        corpus.add(name, with(&progressive, at + 5, &size), expected);
    }
}

/// Processes other than baseline and progressive, and other numbers of bits, components and
/// sampling factors.
fn other_processes(corpus: &mut Corpus) {
    let photo = encoded(ImageFormat::Jpeg);
    let at = position(&photo, FRAME);
    for (name, code) in [
        ("lossless", 0xc3),
        ("differential", 0xc5),
        ("differential-progressive", 0xc6),
        ("arithmetic", 0xc9),
        ("arithmetic-progressive", 0xca),
        ("arithmetic-lossless", 0xcb),
    ] {
        let bytes = with(&photo, at + 1, &[code]);
        corpus.add(format!("{name}.jpg"), bytes, Expected::UNSUPPORTED);
    }
    for bits in [0, 7, 12, 16, 255] {
        let bytes = with(&photo, at + 4, &[bits]);
        corpus.add(format!("samples-of-{bits}-bits.jpg"), bytes, Expected::UNSUPPORTED);
    }
    for count in [0, 2, 4, 5, 255] {
        let bytes = with(&photo, at + 9, &[count]);
        corpus.add(format!("{count}-components.jpg"), bytes, Expected::UNDECODABLE);
    }
    for factors in [0x00, 0x01, 0x10, 0x55, 0xff] {
        let bytes = with(&photo, at + 11, &[factors]);
        corpus.add(format!("sampled-{factors:02x}.jpg"), bytes, Expected::UNDECODABLE);
    }
}

fn tables(corpus: &mut Corpus) {
    let photo = encoded(ImageFormat::Jpeg);
    let quantization = position(&photo, QUANTIZATION);
    let bytes = without(&without(&photo, QUANTIZATION), QUANTIZATION);
    corpus.add("no-quantization.jpg", bytes, Expected::UNDECODABLE);
    let bytes = with(&photo, quantization + 4, &[0x0f]);
    corpus.add("table-15.jpg", bytes, Expected::UNDECODABLE);
    let codes = position(&photo, HUFFMAN);
    // More codes of each length than can exist.
    let bytes = with(&photo, codes + 5, &[0xff; 16]);
    corpus.add("countless-codes.jpg", bytes, Expected::UNDECODABLE);
    let bytes = with(&photo, codes + 5, &[3]);
    corpus.add("three-codes-of-one-bit.jpg", bytes, Expected::UNDECODABLE);
    for marker in [QUANTIZATION, HUFFMAN, FRAME, SCAN] {
        let at = position(&photo, marker);
        for length in [0_u16, 1, 2, 3, 0xffff] {
            let name = format!("length-{length}-of-{:02x}.jpg", marker[1]);
            let bytes = with(&photo, at + 2, &length.to_be_bytes());
            // Without tables the standard's own count, as in Motion JPEG: here they are the same.
            let expected = match (marker, length) {
                (HUFFMAN, 2) => Expected::PredictionOrUndecodable,
                _ => Expected::UNDECODABLE,
            };
            corpus.add(name, bytes, expected);
        }
    }
    corpus.add("no-frame.jpg", without(&photo, FRAME), Expected::UNDECODABLE);
    corpus.add("no-scan.jpg", photo[..position(&photo, SCAN)].to_vec(), Expected::UNDECODABLE);
}

/// Segments of applications. They do not matter to the picture, even if they are many or damaged.
fn segments(corpus: &mut Corpus) {
    let photo = encoded(ImageFormat::Jpeg);
    let behind_start = |segments: &[u8]| [&photo[..2], segments, &photo[2..]].concat();
    let application = |number: u8, content: &[u8]| {
        let length = (content.len() as u16 + 2).to_be_bytes();
        [&[0xff, 0xe0 + number], &length[..], content].concat()
    };
    let metadata = application(1, &[b"Exif\0\0", &[0x11; 65_000][..]].concat());
    let bytes = behind_start(&metadata.repeat(200));
    corpus.add("metadata-of-13-megabytes.jpg", bytes, Expected::Prediction);
    let profile = (1..=255_u8).flat_map(|number| {
        let head = [&b"ICC_PROFILE\0"[..], &[number, 255]].concat();
        application(2, &[&head[..], &[0; 65_000]].concat())
    });
    let bytes = behind_start(&profile.collect::<Vec<_>>());
    corpus.add("profile-of-16-megabytes.jpg", bytes, Expected::Prediction);
    // The parts of one text, each of a byte. Nobody needs the text, and to put it together takes a
    // time that grows with the square of their number.
    let extended = (0..40_000_u32).flat_map(|offset| {
        let identity = [b'0'; 32];
        let head = [&b"http://ns.adobe.com/xmp/extension/\0"[..], &identity].concat();
        let place = [40_000_u32.to_be_bytes(), offset.to_be_bytes()].concat();
        application(1, &[&head[..], &place, b" "].concat())
    });
    let bytes = behind_start(&extended.collect::<Vec<_>>());
    corpus.add("metadata-in-40000-parts.jpg", bytes, Expected::Prediction);
    let comments = [&[0xff, 0xfe, 0, 4][..], b"hi"].concat().repeat(50_000);
    corpus.add("many-comments.jpg", behind_start(&comments), Expected::Prediction);
    let thumbnail = application(1, &[b"Exif\0\0", &photo[..]].concat());
    corpus.add("thumbnail.jpg", behind_start(&thumbnail), Expected::Prediction);
    let whole = behind_start(&thumbnail);
    let cut = whole[..thumbnail.len() + photo.len() / 2].to_vec();
    corpus.add("only-its-thumbnail-is-whole.jpg", cut, Expected::UNDECODABLE);

    // A directory of metadata that names itself as the next, and one with 65535 entries.
    let cyclic = b"Exif\0\0II\x2a\0\x08\0\0\0\0\0\x08\0\0\0";
    corpus.add("cyclic-metadata.jpg", behind_start(&application(1, cyclic)), Expected::Prediction);
    let countless = b"Exif\0\0II\x2a\0\x08\0\0\0\xff\xff\x12\x01\x03\0\xff\xff\xff\xff\x09\0\0\0";
    let bytes = behind_start(&application(1, countless));
    corpus.add("countless-metadata.jpg", bytes, Expected::Prediction);
    let fill = vec![0xff; 1_000_000];
    let at = position(&photo, QUANTIZATION);
    let bytes = [&photo[..at], &fill, &photo[at..]].concat();
    corpus.add("a-megabyte-of-fill.jpg", bytes, Expected::Prediction);
}

fn scans(corpus: &mut Corpus) {
    let progressive = sample("progressive.jpg");
    let first = position(&progressive, SCAN);
    let rest = &progressive[first + 2..];
    // The scan ends at the next marker. 0xff followed by zero is not a marker but data of the scan.
    let end = rest.windows(2).position(|pair| pair[0] == 0xff && pair[1] != 0);
    let end = first + 2 + end.expect("there are more scans");
    // The decoder allows a hundred scans; an honest file has ten.
    for count in [100, 500, 3000] {
        let scans = progressive[first..end].repeat(count);
        let bytes = [&progressive[..first], &scans, &progressive[end..]].concat();
        corpus.add(format!("{count}-scans.jpg"), bytes, Expected::UNDECODABLE);
    }
    // One small scan for a frame of 64 megapixels.
    let at = position(&progressive, PROGRESSIVE_FRAME);
    let size = [8_000_u16.to_be_bytes(), 8_000_u16.to_be_bytes()].concat();
    let huge = with(&progressive, at + 5, &size);
    let cut = huge[..end].to_vec();
    corpus.add("one-scan-of-a-huge-frame.jpg", cut, Expected::UNDECODABLE);

    let photo = encoded(ImageFormat::Jpeg);
    let at = position(&photo, SCAN);
    let start = at + segment(&photo, at).len();
    for (name, content) in [
        ("no", &[][..]),
        ("a-single-byte-of", &[0x55]),
        ("restarts-instead-of", &[0xff, 0xd0, 0xff, 0xd1, 0xff, 0xd2, 0xff, 0xd3]),
        ("another-start-instead-of", &[0xff, 0xd8]),
    ] {
        let bytes = [&photo[..start], content, &[0xff, 0xd9]].concat();
        corpus.add(format!("{name}-samples.jpg"), bytes, Expected::UNDECODABLE);
    }
    let bytes = with(&photo, start + 100, &[0xff; 60]);
    corpus.add("a-hole-in-the-scan.jpg", bytes, Expected::UNDECODABLE);
}
