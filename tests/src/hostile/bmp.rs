//! Hostile Windows bitmaps. Constants are offsets of the fields of `BITMAPFILEHEADER` and
//! `BITMAPINFOHEADER`.

use image::ImageFormat;

use super::common::{encoded, sample, with};
use super::{Corpus, Expected};

const DATA_AT: usize = 10;
const HEADER_LENGTH: usize = 14;
const WIDTH: usize = 18;
const HEIGHT: usize = 22;
const BITS: usize = 28;
const COMPRESSION: usize = 30;

pub(super) fn add(corpus: &mut Corpus) {
    lying_headers(corpus);
    run_lengths(corpus);
}

fn lying_headers(corpus: &mut Corpus) {
    let photo = encoded(ImageFormat::Bmp);
    for (name, width, height, expected) in [
        ("no-width", 0, 64, Expected::UNDECODABLE),
        ("no-height", 96, 0, Expected::UNDECODABLE),
        ("negative-width", -96, 64, Expected::UNDECODABLE),
        ("lowest-width", i32::MIN, 64, Expected::UNDECODABLE),
        ("lowest-height", 96, i32::MIN, Expected::UNDECODABLE),
        // A negative height means that the first row is the top one.
        ("upside-down", 96, -64, Expected::Prediction),
        ("ten-times-the-height", 96, 640, Expected::UNDECODABLE),
        ("most-of-the-limit", 9_900, 9_900, Expected::UNDECODABLE),
        ("above-the-limit", 10_001, 10_000, Expected::TOO_LARGE),
        ("upside-down-above-the-limit", 10_001, -10_000, Expected::TOO_LARGE),
        ("30000", 30_000, 30_000, Expected::TOO_LARGE),
    ] {
        let size = [width.to_le_bytes(), height.to_le_bytes()].concat();
        corpus.add(format!("claims-{name}.bmp"), with(&photo, WIDTH, &size), expected);
    }
    assert_eq!(photo[WIDTH..HEIGHT], 96_i32.to_le_bytes());
    for at in [photo.len() as u32 + 1, 0x7fff_ffff, u32::MAX] {
        let bytes = with(&photo, DATA_AT, &at.to_le_bytes());
        corpus.add(format!("samples-at-{at}.bmp"), bytes, Expected::UNDECODABLE);
    }
    // The header's length tells its version. The shortest has twelve bytes. A length that is longer
    // than all known headers may be a future version, so it is unsupported.
    for (length, expected) in [
        (0_u32, Expected::UNDECODABLE),
        (1, Expected::UNDECODABLE),
        (11, Expected::UNDECODABLE),
        (41, Expected::UNSUPPORTED),
        (0x7fff_ffff, Expected::UNSUPPORTED),
        (u32::MAX, Expected::UNSUPPORTED),
    ] {
        let bytes = with(&photo, HEADER_LENGTH, &length.to_le_bytes());
        corpus.add(format!("header-of-{length}.bmp"), bytes, expected);
    }
    for bits in [0_u16, 3, 7, 64, 0xffff] {
        let bytes = with(&photo, BITS, &bits.to_le_bytes());
        corpus.add(format!("samples-of-{bits}-bits.bmp"), bytes, Expected::UNDECODABLE);
    }
    // 4 and 5 are JPEG and PNG in a bitmap, 11 and 12 are CMYK, and the last two are not defined.
    for (compression, expected) in [
        (4_u32, Expected::UNSUPPORTED),
        (5, Expected::UNSUPPORTED),
        (11, Expected::UNSUPPORTED),
        (12, Expected::UNSUPPORTED),
        (99, Expected::UNDECODABLE),
        (u32::MAX, Expected::UNDECODABLE),
    ] {
        let bytes = with(&photo, COMPRESSION, &compression.to_le_bytes());
        corpus.add(format!("compression-{compression}.bmp"), bytes, expected);
    }
    let palette = sample("palette.bmp");
    let bytes = with(&palette, 46, &u32::MAX.to_le_bytes());
    corpus.add("countless-colours.bmp", bytes, Expected::UNDECODABLE);
    corpus.add("header-only.bmp", photo[..54].to_vec(), Expected::UNDECODABLE);
}

/// A bitmap of eight bits a pixel, run-length encoded.
fn encoded_runs(width: i32, height: i32, runs: &[u8]) -> Vec<u8> {
    let colors = [0x80; 1024];
    let data_at = (54 + colors.len()) as u32;
    let mut file = b"BM".to_vec();
    file.extend((data_at + runs.len() as u32).to_le_bytes());
    file.extend([0; 4]);
    file.extend(data_at.to_le_bytes());
    file.extend(40_u32.to_le_bytes());
    file.extend(width.to_le_bytes());
    file.extend(height.to_le_bytes());
    file.extend([1, 0, 8, 0]);
    file.extend(1_u32.to_le_bytes());
    file.extend((runs.len() as u32).to_le_bytes());
    file.extend([0; 16]);
    file.extend(colors);
    file.extend(runs);
    file
}

fn run_lengths(corpus: &mut Corpus) {
    let row = [&[8, 1, 0, 0][..]].concat();
    let whole = [row.repeat(8), vec![0, 1]].concat();
    corpus.add("runs.bmp", encoded_runs(8, 8, &whole), Expected::Prediction);
    // Pixels that no run covers have colour 0.
    corpus.add("nothing-but-an-end.bmp", encoded_runs(9_000, 9_000, &[0, 1]), Expected::Prediction);
    let steps = [0, 2, 255, 255].repeat(1_000);
    let bytes = encoded_runs(8, 8, &[&steps[..], &[0, 1]].concat());
    corpus.add("steps-outside.bmp", bytes, Expected::PredictionOrUndecodable);
    let long = [[255, 1].repeat(100_000), vec![0, 1]].concat();
    let bytes = encoded_runs(8, 8, &long);
    corpus.add("runs-outside.bmp", bytes, Expected::PredictionOrUndecodable);
    corpus.add("no-end.bmp", encoded_runs(8, 8, &row), Expected::UNDECODABLE);
    corpus.add("half-a-run.bmp", encoded_runs(8, 8, &[8]), Expected::UNDECODABLE);
    corpus.add("cut-literal-run.bmp", encoded_runs(8, 8, &[0, 200, 1, 1]), Expected::UNDECODABLE);
    let bytes = encoded_runs(20_000, 20_000, &[0, 1]);
    corpus.add("runs-above-the-limit.bmp", bytes, Expected::TOO_LARGE);
}
