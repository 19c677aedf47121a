//! Each format, the limits, damaged files, and files that aren't images.

use std::collections::BTreeMap;
use std::path::PathBuf;

use camshaft_common::prediction::FailureClass;
use camshaft_common::transparency::Transparency;
use image::{ImageFormat, RgbImage};
use proptest::prelude::*;
use serde::Deserialize;

use super::{DecodeError, EncodedFormat, ImageLimits, decode};

mod scale;
pub(super) mod webp;

/// What Pillow decodes; tests/data/formats/make.py writes it.
#[derive(Deserialize)]
struct Expected {
    width: u32,
    height: u32,
    mean: [f64; 3],
    /// x, y, red, green, blue.
    pixels: Vec<[u32; 5]>,
}

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/formats"))
}

fn file(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name)).unwrap()
}

fn expected() -> BTreeMap<String, Expected> {
    serde_json::from_slice(&file("expected.json")).unwrap()
}

fn decoded(bytes: &[u8]) -> Result<RgbImage, DecodeError> {
    decode_within(bytes, &ImageLimits::default())
}

fn decode_within(bytes: &[u8], limits: &ImageLimits) -> Result<RgbImage, DecodeError> {
    decode(bytes, limits, Transparency::OverWhite)
}

fn class(bytes: &[u8]) -> FailureClass {
    decoded(bytes).unwrap_err().class()
}

fn gradient(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        image::Rgb([(x * 255 / width) as u8, (y * 255 / height) as u8, 128])
    })
}

fn encoded(image: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut file = std::io::Cursor::new(Vec::new());
    image.write_to(&mut file, format).unwrap();
    file.into_inner()
}

#[test]
fn every_format_decodes_as_pillow_decodes_it() {
    for (name, expected) in expected() {
        let image = decoded(&file(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(image.dimensions(), (expected.width, expected.height), "{name}");
        // libjpeg smooths upsampled chroma differently; other formats are exact, but for
        // 16-bit alpha, which is rounded before it is blended.
        let tolerance = if name.ends_with(".jpg") { 4 } else { 1 };
        for [x, y, rgb @ ..] in expected.pixels {
            let found = image.get_pixel(x, y).0;
            let close = found.iter().zip(rgb).all(|(&a, b)| u32::from(a).abs_diff(b) <= tolerance);
            assert!(close, "{name} at {x}, {y}: {found:?} is not {rgb:?}");
        }
        let count = f64::from(expected.width * expected.height);
        for (channel, mean) in expected.mean.into_iter().enumerate() {
            let found =
                image.pixels().map(|pixel| f64::from(pixel.0[channel])).sum::<f64>() / count;
            assert!((found - mean).abs() < 1.0, "{name}: mean {found} is not {mean}");
        }
    }
}

#[test]
fn every_exif_orientation_turns_the_image_upright() {
    let upright = decoded(&file("orientation-1.jpg")).unwrap();
    let (right, bottom) = (upright.width() - 1, upright.height() - 1);
    // Where the stored top left corner ends up, by the EXIF specification's table.
    let corners = [
        (1, (0, 0)),
        (2, (right, 0)),
        (3, (right, bottom)),
        (4, (0, bottom)),
        (5, (0, 0)),
        (6, (bottom, 0)),
        (7, (bottom, right)),
        (8, (0, right)),
    ];
    for (orientation, (x, y)) in corners {
        let image = decoded(&file(&format!("orientation-{orientation}.jpg"))).unwrap();
        let turned = orientation > 4;
        assert_eq!(image.width(), if turned { bottom + 1 } else { right + 1 }, "{orientation}");
        assert_eq!(image.get_pixel(x, y), upright.get_pixel(0, 0), "{orientation}");
    }
}

#[test]
fn the_format_is_found_by_content() {
    let image = gradient(9, 5);
    for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::WebP] {
        assert_eq!(decoded(&encoded(&image, format)).unwrap(), image, "{format:?}");
    }
    assert_eq!(decoded(&encoded(&image, ImageFormat::Jpeg)).unwrap().dimensions(), (9, 5));
}

/// A truncated file is either refused, or decodes to the whole picture.
#[test]
fn truncated_files_are_never_half_pictures() {
    for name in expected().into_keys() {
        let bytes = file(&name);
        let whole = decoded(&bytes).unwrap();
        for length in (0..bytes.len()).step_by(3).chain(bytes.len() - 4..bytes.len()) {
            match decoded(&bytes[..length]) {
                Ok(image) => assert!(image == whole, "{name} cut to {length} lost something"),
                // A shorter file may not be recognised.
                Err(error) if length >= 16 => {
                    assert_eq!(error.class(), FailureClass::Undecodable, "{name}: {error}");
                }
                Err(_) => {}
            }
        }
    }
}

/// Some programs repair a truncated file by appending an end marker.
#[test]
fn a_jpeg_with_an_end_mark_but_not_all_rows_is_no_picture() {
    for name in ["ycbcr-420.jpg", "ycbcr-444.jpg", "rgb.jpg", "grey.jpg", "orientation-6.jpg"] {
        let bytes = file(name);
        let scan = bytes.windows(2).rposition(|pair| pair == [0xff, 0xda]).unwrap() + 14;
        // At least the last row of blocks is missing.
        for length in scan..scan + (bytes.len() - scan) / 3 {
            let cut = [&bytes[..length], b"\xff\xd9"].concat();
            assert_eq!(class(&cut), FailureClass::Undecodable, "{name} cut to {length}");
        }
        let frame = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        let mut taller = bytes;
        taller[frame + 5] += 1;
        assert_eq!(class(&taller), FailureClass::Undecodable, "{name}");
    }
}

#[test]
fn a_jpeg_of_another_process_is_unsupported() {
    let mut bytes = file("ycbcr-444.jpg");
    let frame = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    for process in [0xc3, 0xc5, 0xc9, 0xcb, 0xcf] {
        bytes[frame + 1] = process;
        assert_eq!(class(&bytes), FailureClass::Unsupported, "{process:x}");
    }
}

#[test]
fn a_bitmap_of_no_pixels_is_corrupt() {
    for side in [18..22, 22..26] {
        let mut bytes = file("rgb.bmp");
        bytes[side].fill(0);
        assert_eq!(class(&bytes), FailureClass::Undecodable);
    }
}

#[test]
fn half_a_photo_is_called_truncated() {
    let image = gradient(200, 160);
    for (format, name) in [
        (ImageFormat::Jpeg, EncodedFormat::Jpeg),
        (ImageFormat::Png, EncodedFormat::Png),
        (ImageFormat::Bmp, EncodedFormat::Bmp),
        (ImageFormat::Tiff, EncodedFormat::Tiff),
    ] {
        let bytes = encoded(&image, format);
        let error = decoded(&bytes[..bytes.len() / 2]).unwrap_err();
        assert_eq!(error, DecodeError::Truncated { format: name });
    }
}

#[test]
fn flaws_that_lose_no_pixel_of_a_jpeg_are_forgiven() {
    let bytes = file("ycbcr-420.jpg");
    let whole = decoded(&bytes).unwrap();
    let end = bytes.len() - 2;
    let flawed = [
        ("bytes after the end", [&bytes[..], b"trailing bytes \xff\xd8\xff"].concat()),
        ("no end marker", bytes[..end].to_vec()),
        ("half an end marker", bytes[..=end].to_vec()),
        ("bytes after the scan", [&bytes[..end], &[0; 65][..], &bytes[end..]].concat()),
        ("bytes between markers", [&bytes[..20], &[7; 9][..], &bytes[20..]].concat()),
    ];
    for (flaw, bytes) in flawed {
        assert_eq!(decoded(&bytes).as_ref(), Ok(&whole), "{flaw}");
    }
}

#[test]
fn a_progressive_jpeg_without_its_end_is_truncated() {
    // A further scan that refines the picture may be missing; nothing in the file tells.
    let bytes = file("progressive.jpg");
    let error = decoded(&bytes[..bytes.len() - 2]).unwrap_err();
    assert_eq!(error, DecodeError::Truncated { format: EncodedFormat::Jpeg });
}

#[test]
fn a_progressive_jpeg_without_one_of_its_scans_is_corrupt() {
    let bytes = file("progressive.jpg");
    let starts: Vec<_> =
        (0..bytes.len() - 1).filter(|&at| bytes[at..at + 2] == [0xff, 0xda]).collect();
    assert!(starts.len() > 5);
    let ends = starts[1..].iter().copied().chain([bytes.len() - 2]);
    for (start, end) in starts.iter().copied().zip(ends) {
        // Tables of codes may lie between scans; without them the file is damaged otherwise.
        let without = [&bytes[..start], &bytes[end..]].concat();
        assert_eq!(class(&without), FailureClass::Undecodable, "without the scan at {start}");
    }
}

#[test]
fn an_almost_empty_scan_is_complete() {
    // The last rows take fewer bytes than the decoder reads ahead.
    for size in [1, 7, 8, 9, 64, 333] {
        let flat = RgbImage::from_pixel(size, size, image::Rgb([200, 200, 200]));
        let bytes = encoded(&flat, ImageFormat::Jpeg);
        for bytes in [&bytes[..], &bytes[..bytes.len() - 2]] {
            let image = decoded(bytes).unwrap();
            assert!(image.pixels().all(|pixel| pixel.0[0].abs_diff(200) <= 1), "{size}");
        }
    }
}

/// A PNG that claims a size, with a valid checksum.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut chunk = b"IHDR".to_vec();
    chunk.extend(width.to_be_bytes());
    chunk.extend(height.to_be_bytes());
    chunk.extend([8, 2, 0, 0, 0]);
    // CRC-32 by its definition: RFC 1952, section 8.
    let checksum = !chunk.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 }
        })
    });
    let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    file.extend(chunk);
    file.extend(checksum.to_be_bytes());
    file.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
    file
}

#[test]
fn oversized_images_are_refused_by_their_header() {
    let too_many = |width, height| DecodeError::TooManyPixels {
        width,
        height,
        max_pixels: ImageLimits::default().max_pixels,
    };
    let started = std::time::Instant::now();
    assert_eq!(decoded(&png_header(30_000, 30_000)), Err(too_many(30_000, 30_000)));

    let mut bmp = file("rgb.bmp");
    bmp[18..22].copy_from_slice(&30_000_u32.to_le_bytes());
    bmp[22..26].copy_from_slice(&30_000_u32.to_le_bytes());
    assert_eq!(decoded(&bmp), Err(too_many(30_000, 30_000)));

    let mut gif = file("still.gif");
    gif[6..10].fill(0xff);
    assert_eq!(decoded(&gif), Err(too_many(65_535, 65_535)));

    let mut jpeg = file("ycbcr-444.jpg");
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].fill(0xff);
    assert_eq!(decoded(&jpeg), Err(too_many(65_535, 65_535)));
    assert_eq!(class(&jpeg), FailureClass::TooLarge);
    // Without an end, too.
    assert_eq!(decoded(&jpeg[..jpeg.len() - 9]), Err(too_many(65_535, 65_535)));

    assert!(started.elapsed().as_millis() < 1000, "took {:?}", started.elapsed());
}

#[test]
fn sides_that_a_decoder_cannot_multiply_are_told_as_too_long() {
    let longest = i32::MAX as u32;
    let too_long = |width, height| {
        let max_side = ImageLimits::default().max_side;
        Err(DecodeError::SideTooLong { width, height, max_side })
    };
    assert_eq!(decoded(&png_header(longest, longest)), too_long(longest, longest));
    for (width, height) in [(longest, longest), (longest, 1), (1, longest), (65_536, 2)] {
        let mut bmp = file("rgb.bmp");
        bmp[18..22].copy_from_slice(&width.to_le_bytes());
        bmp[22..26].copy_from_slice(&height.to_le_bytes());
        assert_eq!(decoded(&bmp), too_long(width, height));
    }
    for header in [
        "P6 4294967295 # a comment\n4294967295 255\n",
        "P7\nWIDTH 4294967295\nHEIGHT 4294967295\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n",
    ] {
        assert_eq!(decoded(header.as_bytes()), too_long(u32::MAX, u32::MAX), "{header}");
    }
    // The longest canvas, less one in the file: 24 bits a side.
    let mut webp = b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0".to_vec();
    webp.extend([0xff; 6]);
    assert_eq!(decoded(&webp), too_long(1 << 24, 1 << 24));
    // A decoder's own words stay where a size is not the reason.
    let mut corrupt = png_header(longest, longest);
    corrupt[30] ^= 1;
    assert_eq!(class(&corrupt), FailureClass::Undecodable);
}

#[test]
fn each_limit_holds() {
    let bytes = encoded(&gradient(40, 20), ImageFormat::Png);
    let generous = ImageLimits::default();
    let with = |limits| decode_within(&bytes, &limits).map(|image| image.dimensions());
    assert_eq!(with(ImageLimits { max_pixels: 800, max_side: 40, ..generous }), Ok((40, 20)));
    assert_eq!(
        with(ImageLimits { max_pixels: 799, ..generous }),
        Err(DecodeError::TooManyPixels { width: 40, height: 20, max_pixels: 799 })
    );
    assert_eq!(
        with(ImageLimits { max_side: 39, ..generous }),
        Err(DecodeError::SideTooLong { width: 40, height: 20, max_side: 39 })
    );
    assert_eq!(
        with(ImageLimits { max_bytes: 50, ..generous }),
        Err(DecodeError::FileTooLarge { bytes: bytes.len() as u64, max_bytes: 50 })
    );
}

#[test]
fn pixels_that_take_more_memory_count_for_more() {
    // Four channels of 16 bits, and RGB: 11 bytes a pixel; 6 are allowed.
    let bytes = file("rgba-16.png");
    let (width, height) = decoded(&bytes).unwrap().dimensions();
    let pixels = u64::from(width * height);
    let enough = (pixels * 11).div_ceil(super::BYTES_PER_PIXEL);
    let with =
        |max_pixels| decode_within(&bytes, &ImageLimits { max_pixels, ..ImageLimits::default() });
    assert!(with(enough).is_ok());
    let error = with(enough - 1).unwrap_err();
    assert!(matches!(error, DecodeError::PixelsTooDeep { bytes_per_pixel: 11, .. }), "{error}");
    assert_eq!(error.class(), FailureClass::TooLarge);
    // The kinds of photographs: 8-bit RGB, and chroma at half the resolution.
    for name in ["rgb.bmp", "rgb.png", "ycbcr-420.jpg", "progressive.jpg"] {
        let bytes = file(name);
        let (width, height) = decoded(&bytes).unwrap().dimensions();
        let max_pixels = u64::from(width * height);
        let limits = ImageLimits { max_pixels, ..ImageLimits::default() };
        assert!(decode_within(&bytes, &limits).is_ok(), "{name} takes more than it should");
    }
}

#[test]
fn a_tiff_that_claims_countless_values_is_refused_before_room_is_made() {
    for (name, tag, big_endian) in [("grey.tif", 258_u16, false), ("lzw.tif", 279, false)] {
        let mut bytes = file(name);
        assert_eq!(bytes[0] == b'M', big_endian);
        let tag = tag.to_le_bytes();
        let first = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize + 2;
        let entry = (first..).step_by(12).find(|&at| bytes[at..at + 2] == tag).unwrap();
        bytes[entry + 4..entry + 8].copy_from_slice(&0x7f00_0001_u32.to_le_bytes());
        let error = decoded(&bytes).unwrap_err();
        assert_eq!(error.class(), FailureClass::Undecodable);
        assert!(error.to_string().contains("claims 2130706433 values"), "{error}");
    }
}

#[test]
fn a_decoders_words_stay_on_one_line() {
    // Some messages of zune-jpeg end with a line break; ours would go on in the next line.
    let bytes = file("ycck.jpg");
    for at in 2..bytes.len() {
        if let Err(error) = decoded(&[&bytes[..at], &[0x55], &bytes[at..]].concat()) {
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }
    let words = super::error::one_line("I/O errors\n  Not enough bytes\n");
    assert_eq!(words, "I/O errors Not enough bytes");
    assert!(super::error::one_line(&"long ".repeat(100)).chars().count() <= 201);
}

#[test]
fn files_that_are_no_images_are_named() {
    let cases: [(&[u8], &str); 11] = [
        (b"key,label\na.jpg,cat\n", "like text"),
        (b"BMW is no bitmap", "like text"),
        ("\u{feff}<?xml version=\"1.0\"?>\n<svg/>".as_bytes(), "an SVG drawing"),
        (b"<!DOCTYPE html><title>404</title>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC picture"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "an AVIF picture"),
        (b"\0\0\0\x1cftypisom\0\0\0\0", "a film"),
        (b"PK\x03\x04\x14\0", "a ZIP archive"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\x04CgBI\x50\0\x20\x02", "a PNG for iPhones"),
    ];
    for (bytes, words) in cases {
        let error = decoded(bytes).unwrap_err();
        assert_eq!(error.class(), FailureClass::Unsupported, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.to_string().contains("JPEG, PNG, WebP, GIF, BMP, TIFF and PNM"), "{error}");
    }
    for name in ["refused-float.tif", "refused-palette.tif"] {
        let error = decoded(&file(name)).unwrap_err();
        assert_eq!(error.class(), FailureClass::Unsupported, "{error}");
    }
}

#[test]
fn bytes_of_no_known_kind_are_taken_for_a_damaged_image() {
    let error = decoded(b"\x01\x02\x03").unwrap_err();
    assert_eq!((&error, error.class()), (&DecodeError::Unrecognised, FailureClass::Undecodable));
    assert!(error.to_string().contains("JPEG, PNG, WebP, GIF, BMP, TIFF and PNM"), "{error}");
}

#[test]
fn an_empty_file_is_undecodable() {
    assert_eq!(decoded(b""), Err(DecodeError::Empty));
    assert_eq!(class(b""), FailureClass::Undecodable);
}

#[test]
fn a_corrupt_scan_is_refused() {
    let mut bytes = file("ycbcr-444.jpg");
    let middle = bytes.len() - 200;
    bytes[middle..middle + 60].fill(0x7f);
    bytes[middle + 60..middle + 62].copy_from_slice(&[0xff, 0x3f]);
    assert_eq!(class(&bytes), FailureClass::Undecodable);

    let mut bytes = file("rgb.png");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    assert_eq!(class(&bytes), FailureClass::Undecodable);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_bytes_never_panic(
        start in prop::sample::select(vec![
            &b""[..], b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II\x2a\0",
            b"MM\0\x2a", b"RIFF\x40\0\0\0WEBPVP8 ", b"RIFF\x40\0\0\0WEBPVP8L",
        ]),
        rest in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let limits = ImageLimits { max_pixels: 100_000, ..ImageLimits::default() };
        drop(decode_within(&[start, &rest].concat(), &limits));
    }

    #[test]
    fn mutated_images_never_panic(
        name in prop::sample::select(expected().into_keys().collect::<Vec<_>>()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let mut bytes = file(&name);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let limits = ImageLimits { max_pixels: 100_000, ..ImageLimits::default() };
        drop(decode_within(&bytes, &limits));
    }
}
