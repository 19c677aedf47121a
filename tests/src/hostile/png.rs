//! Hostile PNGs, by the third edition of the PNG specification. Checksums are right unless the name
//! says otherwise.

use image::ImageFormat;

use super::bits::zlib_zeros;
use super::common::{encoded, position, with};
use super::{Corpus, Expected};

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
const GREY: u8 = 0;
const RGB: u8 = 2;
const PALETTE: u8 = 3;
const RGBA: u8 = 6;

pub(super) fn add(corpus: &mut Corpus) {
    lying_headers(corpus);
    bombs(corpus);
    chunks(corpus);
    animation(corpus);
}

fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let content = [kind, data].concat();
    // CRC-32, as RFC 1952, section 8, defines it.
    let checksum = !content.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 }
        })
    });
    [&(data.len() as u32).to_be_bytes()[..], &content, &checksum.to_be_bytes()].concat()
}

fn header(width: u32, height: u32, bits: u8, color: u8, interlaced: u8) -> Vec<u8> {
    let sides = [width.to_be_bytes(), height.to_be_bytes()].concat();
    chunk(b"IHDR", &[&sides[..], &[bits, color, 0, 0, interlaced]].concat())
}

fn file(chunks: &[Vec<u8>]) -> Vec<u8> {
    [SIGNATURE, &chunks.concat(), &chunk(b"IEND", &[])].concat()
}

/// A valid file of a black picture.
fn black(width: u32, height: u32, bits: u8, color: u8) -> Vec<u8> {
    let samples = match color {
        RGB => 3,
        RGBA => 4,
        _ => 1,
    };
    let row = 1 + (width as usize * samples * usize::from(bits)).div_ceil(8);
    let pixels = chunk(b"IDAT", &zlib_zeros(row * height as usize));
    file(&[header(width, height, bits, color, 0), pixels])
}

fn lying_headers(corpus: &mut Corpus) {
    let photo = encoded(ImageFormat::Png);
    let rest = &photo[SIGNATURE.len() + 25..];
    let claims = |width, height| [SIGNATURE, &header(width, height, 8, RGB, 0), rest].concat();
    for (name, width, height, expected) in [
        ("no-width", 0, 64, Expected::UNDECODABLE),
        ("no-height", 96, 0, Expected::UNDECODABLE),
        ("no-size", 0, 0, Expected::UNDECODABLE),
        ("a-row-more", 96, 65, Expected::UNDECODABLE),
        ("ten-times-the-height", 96, 640, Expected::UNDECODABLE),
        ("most-of-the-limit", 9990, 10_000, Expected::UNDECODABLE),
        ("above-the-limit", 10_001, 10_000, Expected::TOO_LARGE),
        ("30000", 30_000, 30_000, Expected::TOO_LARGE),
        ("longest-sides", 0x7fff_ffff, 0x7fff_ffff, Expected::TOO_LARGE),
        ("longest-width", 0x7fff_ffff, 1, Expected::TOO_LARGE),
        ("longest-height", 1, 0x7fff_ffff, Expected::TOO_LARGE),
    ] {
        corpus.add(format!("claims-{name}.png"), claims(width, height), expected);
    }
    for (number, (bits, color)) in
        [(3, GREY), (16, PALETTE), (4, RGB), (8, 5), (32, RGBA), (0, GREY)].into_iter().enumerate()
    {
        let bytes = [SIGNATURE, &header(96, 64, bits, color, 0), rest].concat();
        corpus.add(format!("no-such-samples-{number}.png"), bytes, Expected::UNDECODABLE);
    }
    let bytes = [SIGNATURE, &header(96, 64, 8, RGB, 9), rest].concat();
    corpus.add("no-such-interlace.png", bytes, Expected::UNDECODABLE);
    // The header says interlaced, for which the data has too few rows.
    let bytes = [SIGNATURE, &header(96, 64, 8, RGB, 1), rest].concat();
    corpus.add("not-interlaced.png", bytes, Expected::UNDECODABLE);
}

/// Small, valid files of huge pictures.
fn bombs(corpus: &mut Corpus) {
    for (name, width, height, bits, color, expected) in [
        ("bits", 9_900, 9_900, 1, GREY, Expected::Prediction),
        ("bits-above-the-limit", 30_000, 30_000, 1, GREY, Expected::TOO_LARGE),
        ("grey", 9_000, 9_000, 8, GREY, Expected::Prediction),
        ("rgb", 6_000, 6_000, 8, RGB, Expected::Prediction),
        ("line", 65_535, 1, 8, RGB, Expected::Prediction),
        ("column", 1, 65_535, 8, RGB, Expected::Prediction),
        ("line-above-the-limit", 65_536, 1, 8, RGB, Expected::TOO_LARGE),
        // Decoding takes 11 bytes a pixel. The limit is 6 bytes for each of 100 megapixels.
        ("deep", 9_000, 9_000, 16, RGBA, Expected::TOO_LARGE),
        ("deep-enough", 4_000, 4_000, 16, RGBA, Expected::Prediction),
    ] {
        corpus.add(format!("bomb-{name}.png"), black(width, height, bits, color), expected);
    }
    // More samples than the picture's size needs. The picture itself is complete.
    let pixels = chunk(b"IDAT", &zlib_zeros(50_000_000));
    let bytes = file(&[header(8, 8, 8, RGB, 0), pixels]);
    corpus.add("bomb-behind-the-picture.png", bytes, Expected::Prediction);
}

fn chunks(corpus: &mut Corpus) {
    let small = |before: &[Vec<u8>]| {
        let pixels = chunk(b"IDAT", &zlib_zeros(8 * 25));
        file(&[vec![header(8, 8, 8, RGB, 0)], before.to_vec(), vec![pixels]].concat())
    };
    // Metadata that unpacks to 30 MB, less than the limit of a whole file.
    let profile = |count| [b"a\0\0", &zlib_zeros(count)[..]].concat();
    let text = chunk(b"zTXt", &profile(30_000_000));
    corpus.add("bomb-in-text.png", small(&[text]), Expected::Prediction);
    let profile = chunk(b"iCCP", &profile(30_000_000));
    corpus.add("bomb-in-a-profile.png", small(&[profile]), Expected::Prediction);
    let texts = vec![chunk(b"tEXt", b"key\0value"); 20_000];
    corpus.add("many-texts.png", small(&texts), Expected::Prediction);
    let unknown = chunk(b"zzZz", &[7; 1_000_000]);
    corpus.add("unknown-chunk.png", small(&[unknown]), Expected::Prediction);
    let empty = vec![chunk(b"IDAT", &[]); 10_000];
    corpus.add("many-empty-chunks.png", small(&empty), Expected::Prediction);

    let photo = encoded(ImageFormat::Png);
    let data = position(&photo, b"IDAT");
    let longest = with(&photo, data - 4, &[0x7f, 0xff, 0xff, 0xff]);
    corpus.add("endless-chunk.png", longest, Expected::UNDECODABLE);
    let no_data = file(&[header(8, 8, 8, RGB, 0)]);
    corpus.add("no-data.png", no_data, Expected::UNDECODABLE);
    let no_palette = file(&[header(8, 8, 8, PALETTE, 0), chunk(b"IDAT", &zlib_zeros(8 * 9))]);
    corpus.add("no-palette.png", no_palette, Expected::UNDECODABLE);
    let no_zlib = file(&[header(8, 8, 8, RGB, 0), chunk(b"IDAT", &[0x55; 200])]);
    corpus.add("no-zlib.png", no_zlib, Expected::UNDECODABLE);
    // 9 is not a filter type: the last one is 4.
    let mut rows = Vec::new();
    rows.extend([0x78, 0x01, 0x01, 200, 0, !200, 0xff]);
    rows.extend([9; 200]);
    rows.extend([0; 4]);
    let bad_filter = file(&[header(8, 8, 8, RGB, 0), chunk(b"IDAT", &rows)]);
    corpus.add("bad-filter.png", bad_filter, Expected::UNDECODABLE);
    let header_behind = [SIGNATURE, &chunk(b"IDAT", &zlib_zeros(200)), &header(8, 8, 8, RGB, 0)];
    corpus.add("header-behind.png", header_behind.concat(), Expected::UNDECODABLE);
}

/// An animation of two thousand frames. The first is the picture.
fn animation(corpus: &mut Corpus) {
    let rows = zlib_zeros(8 * 25);
    let mut chunks = vec![
        header(8, 8, 8, RGB, 0),
        chunk(b"acTL", &[&2000_u32.to_be_bytes()[..], &[0; 4]].concat()),
        chunk(b"IDAT", &rows),
    ];
    for frame in 0..2000_u32 {
        let sides = [8_u32, 8, 0, 0].map(u32::to_be_bytes).concat();
        let number = (2 * frame).to_be_bytes();
        chunks.push(chunk(b"fcTL", &[&number[..], &sides, &[0, 1, 0, 1, 0, 0]].concat()));
        let number = (2 * frame + 1).to_be_bytes();
        chunks.push(chunk(b"fdAT", &[&number[..], &rows].concat()));
    }
    corpus.add("two-thousand-frames.png", file(&chunks), Expected::Prediction);
}
