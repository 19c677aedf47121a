//! Hostile WebPs, by RFC 9649.

use image::ImageFormat;

use super::bits::Bits;
use super::common::{encoded, sample, with};
use super::{Corpus, Expected};

pub(super) fn add(corpus: &mut Corpus) {
    bombs(corpus);
    lying_headers(corpus);
    extended(corpus);
}

fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let padding = &[0][..data.len() % 2];
    [kind, &(data.len() as u32).to_le_bytes()[..], data, padding].concat()
}

fn file(chunks: &[Vec<u8>]) -> Vec<u8> {
    let chunks = chunks.concat();
    [b"RIFF", &(chunks.len() as u32 + 4).to_le_bytes()[..], b"WEBP", &chunks].concat()
}

/// A lossless picture of one colour. Its five codes have one symbol each, so that a pixel takes no
/// bits.
fn plain(width: u32, height: u32) -> Vec<u8> {
    let mut bits = Bits::default();
    bits.push(0x2f, 8);
    bits.push(u64::from(width - 1), 14);
    bits.push(u64::from(height - 1), 14);
    // No alpha, version 0; then no transform, no colour cache, one group of codes.
    bits.push(0, 4);
    bits.push(0, 3);
    for symbol in [0x60, 0x90, 0x30, 0xff, 0] {
        // A simple code with one symbol of eight bits.
        bits.push(0b101, 3);
        bits.push(symbol, 8);
    }
    bits.into_bytes()
}

fn bombs(corpus: &mut Corpus) {
    for (width, height, expected) in [
        (64, 64, Expected::Prediction),
        (9_000, 9_000, Expected::Prediction),
        (16_383, 1, Expected::Prediction),
        (1, 16_383, Expected::Prediction),
        // Decoding takes seven bytes a pixel. The limit is six bytes for each of 100 megapixels.
        (9_900, 9_900, Expected::TOO_LARGE),
        (16_383, 16_383, Expected::TOO_LARGE),
    ] {
        let bytes = file(&[chunk(b"VP8L", &plain(width, height))]);
        corpus.add(format!("bomb-{width}x{height}.webp"), bytes, expected);
    }
}

fn lying_headers(corpus: &mut Corpus) {
    let lossless = encoded(ImageFormat::WebP);
    for (name, size, expected) in [
        ("most-of-the-limit", (8_999_u32 << 14) | 8_999, Expected::UNDECODABLE),
        ("longest-sides", (16_382 << 14) | 16_382, Expected::TOO_LARGE),
    ] {
        // The lowest 28 bits after the signature are the size.
        let bytes = with(&lossless, 21, &size.to_le_bytes());
        corpus.add(format!("claims-{name}.webp"), bytes, expected);
    }
    let bytes = with(&lossless, 20, &[0x2e]);
    corpus.add("no-signature.webp", bytes, Expected::UNDECODABLE);

    let lossy = sample("lossy.webp");
    assert_eq!(&lossy[12..16], b"VP8 ");
    for (name, width, height, expected) in [
        ("no-width", 0_u16, 10_u16, Expected::UNDECODABLE),
        ("no-height", 10, 0, Expected::UNDECODABLE),
        ("longest-sides", 0x3fff, 0x3fff, Expected::TOO_LARGE),
        ("most-of-the-limit", 9_900, 9_900, Expected::UNDECODABLE),
    ] {
        let size = [width.to_le_bytes(), height.to_le_bytes()].concat();
        let bytes = with(&lossy, 26, &size);
        corpus.add(format!("claims-{name}-lossy.webp"), bytes, expected);
    }
    let bytes = with(&lossy, 23, &[0, 0, 0]);
    corpus.add("no-start-code.webp", bytes, Expected::UNDECODABLE);
    // An interframe: it only holds what differs from another frame.
    let bytes = with(&lossy, 20, &[lossy[20] | 1]);
    corpus.add("no-key-frame.webp", bytes, Expected::UNDECODABLE);
    for length in [0_u32, 1, 9] {
        let bytes = with(&lossy, 16, &length.to_le_bytes());
        corpus.add(format!("chunk-of-{length}.webp"), bytes, Expected::UNDECODABLE);
    }
    let bytes = with(&lossy, 4, &u32::MAX.to_le_bytes());
    corpus.add("endless.webp", bytes, Expected::UNDECODABLE);
    corpus.add("no-chunks.webp", file(&[]), Expected::UNDECODABLE);
    let unknown = chunk(b"ABCD", &[0; 100]);
    corpus.add("unknown-chunk.webp", file(&[unknown]), Expected::UNDECODABLE);
}

const ANIMATED: u8 = 0b10;
const ALPHA: u8 = 0b1_0000;

/// A 24-bit number as bytes.
fn three(value: u32) -> [u8; 3] {
    let [low, middle, high, _] = value.to_le_bytes();
    [low, middle, high]
}

fn canvas(flags: u8, width: u32, height: u32) -> Vec<u8> {
    let sides = [three(width - 1), three(height - 1)].concat();
    chunk(b"VP8X", &[&[flags, 0, 0, 0], &sides[..]].concat())
}

/// An animation's frame. Its place is in units of two pixels.
fn frame(left: u32, top: u32, width: u32, height: u32) -> Vec<u8> {
    let place = [three(left), three(top), three(width - 1), three(height - 1), three(100)].concat();
    let picture = chunk(b"VP8L", &plain(width, height));
    chunk(b"ANMF", &[&place[..], &[0], &picture].concat())
}

fn extended(corpus: &mut Corpus) {
    let animation = || chunk(b"ANIM", &[0; 6]);
    let frames = |width, height, frames: &[Vec<u8>]| {
        file(&[vec![canvas(ANIMATED, width, height), animation()], frames.to_vec()].concat())
    };
    let many = vec![frame(0, 0, 8, 8); 3_000];
    corpus.add("three-thousand-frames.webp", frames(8, 8, &many), Expected::Prediction);
    for (name, width, height, frame, expected) in [
        ("small-frame-on-a-large-canvas", 5_000, 5_000, frame(0, 0, 8, 8), Expected::Prediction),
        ("frame-outside", 8, 8, frame(100, 100, 8, 8), Expected::UNDECODABLE),
        ("frame-larger-than-its-canvas", 8, 8, frame(0, 0, 64, 64), Expected::UNDECODABLE),
        ("huge-frame-on-a-small-canvas", 8, 8, frame(0, 0, 16_384, 16_384), Expected::UNDECODABLE),
        ("longest-canvas", 1 << 24, 1, frame(0, 0, 8, 1), Expected::TOO_LARGE),
        ("huge-canvas", 60_000, 60_000, frame(0, 0, 8, 8), Expected::TOO_LARGE),
        ("canvas-near-the-limit", 9_900, 9_900, frame(0, 0, 8, 8), Expected::TOO_LARGE),
    ] {
        corpus.add(format!("{name}.webp"), frames(width, height, &[frame]), expected);
    }
    // The lossless picture is the frame's second chunk, behind one that nobody knows.
    let pictures = [chunk(b"ABCD", &[]), chunk(b"VP8L", &plain(8, 8))].concat();
    let hidden = chunk(b"ANMF", &[&[0; 16][..], &pictures].concat());
    let lossy = sample("lossy.webp")[12..].to_vec();
    let still_with_frame = file(&[canvas(0, 8, 8), hidden, lossy]);
    corpus.add("frame-in-a-still-picture.webp", still_with_frame, Expected::UNDECODABLE);
    corpus.add("no-frames.webp", frames(8, 8, &[]), Expected::UNDECODABLE);
    let still = chunk(b"VP8L", &plain(8, 8));
    let unlike = file(&[canvas(0, 5_000, 5_000), still.clone()]);
    corpus.add("canvas-unlike-its-picture.webp", unlike, Expected::UNDECODABLE);
    let no_alpha = file(&[canvas(ALPHA, 10, 10), sample("lossy.webp")[12..].to_vec()]);
    corpus.add("no-alpha.webp", no_alpha, Expected::UNDECODABLE);
    let metadata = |kind: &[u8; 4], flag: u8| {
        file(&[canvas(flag, 8, 8), chunk(kind, &vec![0x11; 20_000_000]), still.clone()])
    };
    // `metadata` has 20 MB that exist; `claims` says 4 GB that do not.
    let claims = |kind: &[u8; 4], flag: u8| {
        let whole = metadata(kind, flag);
        let at = 12 + 18 + 4;
        with(&whole[..at + 1_000], at, &0xfff0_0000_u32.to_le_bytes())
    };
    let length = |bytes: Vec<u8>| with(&bytes, 4, &(bytes.len() as u32 - 8).to_le_bytes());
    for (name, kind, flag) in [("metadata", b"EXIF", 0b1000), ("profile", b"ICCP", 0b10_0000)] {
        let bytes = length(claims(kind, flag));
        corpus.add(format!("{name}-of-4-gigabytes.webp"), bytes, Expected::UNDECODABLE);
    }
    corpus.add("metadata-of-20-megabytes.webp", metadata(b"EXIF", 0b1000), Expected::Prediction);
    corpus.add("profile-of-20-megabytes.webp", metadata(b"ICCP", 0b10_0000), Expected::Prediction);
}
