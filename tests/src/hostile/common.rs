//! Hostile files of every format: cut and changed files, one file behind another, noise, and files
//! that are not images.

use std::fs;
use std::io::Cursor;

use image::imageops::FilterType;
use image::{ImageFormat, RgbImage};

use super::bits::Chance;
use super::{Corpus, Expected};
use crate::repository;

/// The formats, with their files' extensions.
pub(super) const FORMATS: [(ImageFormat, &str); 6] = [
    (ImageFormat::Jpeg, "jpg"),
    (ImageFormat::Png, "png"),
    (ImageFormat::WebP, "webp"),
    (ImageFormat::Gif, "gif"),
    (ImageFormat::Bmp, "bmp"),
    (ImageFormat::Tiff, "tif"),
];

/// A small photo.
pub(super) fn photo() -> RgbImage {
    let photo = image::open(repository::chelsea().join("cat/chelsea.jpg"));
    let photo = photo.expect("a sample photo can be read").to_rgb8();
    image::imageops::resize(&photo, 96, 64, FilterType::Triangle)
}

/// The small photo as a file.
pub(super) fn encoded(format: ImageFormat) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    photo().write_to(&mut file, format).expect("a photo can be written");
    file.into_inner()
}

/// A file of `tests/data/formats`.
pub(super) fn sample(name: &str) -> Vec<u8> {
    fs::read(repository::root().join("tests/data/formats").join(name)).expect("it is there")
}

/// The offset of the first `pattern`.
pub(super) fn position(bytes: &[u8], pattern: &[u8]) -> usize {
    let found = bytes.windows(pattern.len()).position(|window| window == pattern);
    found.expect("the sample has it")
}

/// `bytes` with `others` written over those at `at`.
pub(super) fn with(bytes: &[u8], at: usize, others: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + others.len()].copy_from_slice(others);
    bytes
}

pub(super) fn add(corpus: &mut Corpus) {
    cut(corpus);
    flipped(corpus);
    concatenated(corpus);
    noise(corpus);
    no_images(corpus);
}

/// Files cut at 18 places. Each cut removes more than an end mark.
fn cut(corpus: &mut Corpus) {
    for (format, extension) in FORMATS {
        let bytes = encoded(format);
        for twentieth in 1..19 {
            let length = (bytes.len() * twentieth / 20).max(40);
            let name = format!("cut-at-{twentieth}-of-20.{extension}");
            corpus.add(name, bytes[..length].to_vec(), Expected::UNDECODABLE);
        }
    }
}

/// Files in which one bit differs. A format with checksums must refuse the file. Without
/// compression it is still a picture, with other samples.
fn flipped(corpus: &mut Corpus) {
    let mut chance = Chance(1);
    for (format, extension) in FORMATS {
        let bytes = encoded(format);
        // In all six formats this part of the file holds samples.
        let (first, end) = (bytes.len() * 2 / 5, bytes.len() * 4 / 5);
        let expected = match format {
            ImageFormat::Png => Expected::UNDECODABLE,
            ImageFormat::Bmp | ImageFormat::Tiff => Expected::Prediction,
            _ => Expected::PredictionOrUndecodable,
        };
        for number in 0..12 {
            let mut bytes = bytes.clone();
            bytes[first + chance.below(end - first)] ^= 1 << chance.below(8);
            corpus.add(format!("flipped-{number}.{extension}"), bytes, expected);
        }
    }
}

/// Pictures with other content behind them, or with a wrong extension. Neither matters.
fn concatenated(corpus: &mut Corpus) {
    let jpeg = encoded(ImageFormat::Jpeg);
    for (format, extension) in FORMATS {
        let bytes = encoded(format);
        let name = format!("with-a-photo-behind.{extension}");
        corpus.add(name, [&bytes[..], &jpeg].concat(), Expected::Prediction);
        let name = format!("with-an-archive-behind.{extension}");
        corpus.add(name, [&bytes[..], b"PK\x03\x04\x14\0"].concat(), Expected::Prediction);
        let name = format!("a-photo-in-front.{extension}");
        corpus.add(name, [&jpeg[..], &bytes].concat(), Expected::Prediction);
        corpus.add(format!("misnamed-{extension}.txt"), bytes, Expected::Prediction);
    }
}

/// Noise, and noise behind a format's first bytes.
fn noise(corpus: &mut Corpus) {
    let mut chance = Chance(2);
    for number in 0..12 {
        // No known kind of file begins with these two bytes.
        let bytes = [b"\x01\x02", &chance.bytes(1 << (2 + number))[..]].concat();
        corpus.add(format!("noise-{number}.jpg"), bytes, Expected::UNDECODABLE);
        let bytes = vec![if number % 2 == 0 { 0 } else { 0xff }; 1 << (2 * number)];
        corpus.add(format!("filled-{number}.png"), bytes, Expected::UNDECODABLE);
    }
    for number in 0..8 {
        for (start, extension) in
            [(&b"\xff\xd8\xff\xe0"[..], "jpg"), (b"\x89PNG\r\n\x1a\n", "png"), (b"II\x2a\0", "tif")]
        {
            let bytes = [start, &chance.bytes(2000)[..]].concat();
            let name = format!("noise-as-{extension}-{number}.{extension}");
            corpus.add(name, bytes, Expected::UNDECODABLE);
        }
        let length = 2004_u32.to_le_bytes();
        let bytes = [b"RIFF", &length[..], b"WEBP", &chance.bytes(2000)].concat();
        corpus.add(format!("noise-as-webp-{number}.webp"), bytes, Expected::UNDECODABLE);
    }
}

fn no_images(corpus: &mut Corpus) {
    let jpeg = encoded(ImageFormat::Jpeg);
    let files: [(&str, Vec<u8>); 17] = [
        ("text.jpg", b"remember the milk\n".to_vec()),
        ("long-text.jpg", b"all work and no play ".repeat(10_000)),
        ("list.png", b"key,label\na.jpg,cat\n".to_vec()),
        ("page.jpg", b"<!DOCTYPE html><title>404</title>".to_vec()),
        ("drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>".to_vec()),
        ("entities.svg", b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a 'aa'>]><svg/>".to_vec()),
        ("pointer.jpg", b"version https://git-lfs.github.com/spec/v1\n".to_vec()),
        ("document.jpg", [b"%PDF-1.7\n", &jpeg[..]].concat()),
        ("archive.jpg", [b"PK\x03\x04\x14\0\0\0\0\0", &jpeg[..]].concat()),
        ("gzip.jpg", [b"\x1f\x8b\x08\0", &jpeg[..]].concat()),
        ("apple.jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic".to_vec()),
        ("av1.jpg", b"\0\0\0\x1cftypavif\0\0\0\0avifmif1".to_vec()),
        ("film.jpg", b"\0\0\0\x1cftypisom\0\0\0\0isomavc1".to_vec()),
        ("icon.jpg", b"\0\0\x01\0\x01\0\x10\x10\0\0".to_vec()),
        ("layers.jpg", b"8BPS\0\x01\0\0\0\0\0\0\0\x03".to_vec()),
        ("array.jpg", b"\x93NUMPY\x01\0v\0".to_vec()),
        ("xl.jpg", b"\xff\x0a\0\0\0\0".to_vec()),
    ];
    for (name, bytes) in files {
        corpus.add(name, bytes, Expected::UNSUPPORTED);
    }
    for (name, header, expected) in [
        ("as-text-and-huge.ppm", "P3 60000 60000 255\n0 0 0\n", Expected::TOO_LARGE),
        ("huge.ppm", "P6 60000 60000 255\n", Expected::TOO_LARGE),
        ("most-of-the-limit.pgm", "P5 9990 9990 255\n", Expected::UNDECODABLE),
        ("no-width.ppm", "P6 0 8 255\n", Expected::UNDECODABLE),
        ("no-maximum.pgm", "P5 8 8 0\n", Expected::UNDECODABLE),
        ("a-size-of-many-digits.ppm", "P6 99999999999999999999 8 255\n", Expected::UNDECODABLE),
    ] {
        corpus.add(name, header.as_bytes().to_vec(), expected);
    }
    corpus.add("empty.jpg", Vec::new(), Expected::UNDECODABLE);
    for (number, start) in
        [&b"\xff\xd8"[..], b"\x89PNG\r\n\x1a\n", b"MM\0\x2a", b"BM\0\0"].iter().enumerate()
    {
        corpus.add(format!("only-a-start-{number}.jpg"), start.to_vec(), Expected::UNDECODABLE);
    }
    let mut bytes = encoded(ImageFormat::Bmp);
    bytes.resize((64 << 20) + 1, 0);
    corpus.add("too-many-bytes.bmp", bytes, Expected::TOO_LARGE);
}
