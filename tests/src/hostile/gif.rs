//! Hostile GIFs, by the GIF89a specification.

use image::ImageFormat;

use super::bits::Bits;
use super::common::{encoded, with};
use super::{Corpus, Expected};

/// Flags of the screen: a colour table with eight colours.
const COLORS: u8 = 0x82;

pub(super) fn add(corpus: &mut Corpus) {
    lying_screens(corpus);
    frames(corpus);
    damage(corpus);
}

fn screen(width: u16, height: u16) -> Vec<u8> {
    let sides = [width.to_le_bytes(), height.to_le_bytes()].concat();
    [b"GIF89a", &sides[..], &[COLORS, 0, 0], &[0x80; 24]].concat()
}

/// A frame of one colour.
fn frame(left: u16, top: u16, width: u16, height: u16) -> Vec<u8> {
    let place = [left, top, width, height].map(u16::to_le_bytes).concat();
    [&[0x2c], &place[..], &[0, 3], &blocks(&lzw(usize::from(width) * usize::from(height)))].concat()
}

/// Compresses *n* `pixels` of colour 1. It clears the table every six pixels, so that each code
/// stays four bits long.
fn lzw(pixels: usize) -> Vec<u8> {
    let mut bits = Bits::default();
    for pixel in 0..pixels {
        if pixel.is_multiple_of(6) {
            bits.push(8, 4);
        }
        bits.push(1, 4);
    }
    bits.push(9, 4);
    bits.into_bytes()
}

fn blocks(data: &[u8]) -> Vec<u8> {
    let blocks = data.chunks(255).flat_map(|block| [&[block.len() as u8], block].concat());
    blocks.chain([0]).collect()
}

fn file(screen: Vec<u8>, frames: &[Vec<u8>]) -> Vec<u8> {
    [screen, frames.concat(), vec![0x3b]].concat()
}

fn lying_screens(corpus: &mut Corpus) {
    for (name, width, height, expected) in [
        ("no-width", 0, 8, Expected::UNDECODABLE),
        ("no-height", 8, 0, Expected::UNDECODABLE),
        ("no-size", 0, 0, Expected::UNDECODABLE),
        ("longest-sides", 65_535, 65_535, Expected::TOO_LARGE),
        ("above-the-limit", 10_001, 10_000, Expected::TOO_LARGE),
        // Decoding takes eight bytes a pixel. The limit is six bytes for each of 100 megapixels.
        ("near-the-limit", 9_900, 9_900, Expected::TOO_LARGE),
        // A small frame on a large screen is a picture that is mostly transparent.
        ("half-the-limit", 7_000, 7_000, Expected::Prediction),
        ("longest-width", 65_535, 8, Expected::Prediction),
        ("longest-height", 8, 65_535, Expected::Prediction),
    ] {
        let bytes = file(screen(width, height), &[frame(0, 0, 8, 8)]);
        corpus.add(format!("screen-{name}.gif"), bytes, expected);
    }
}

fn frames(corpus: &mut Corpus) {
    let many = vec![frame(0, 0, 8, 8); 5_000];
    corpus.add("five-thousand-frames.gif", file(screen(8, 8), &many), Expected::Prediction);
    corpus.add("no-frames.gif", file(screen(8, 8), &[]), Expected::UNDECODABLE);
    // A comment of a million bytes, in thousands of blocks.
    let comment = [&[0x21, 0xfe][..], &blocks(&[b'a'; 1_000_000])].concat();
    let bytes = file(screen(8, 8), &[comment.repeat(3), frame(0, 0, 8, 8)]);
    corpus.add("comments-of-3-megabytes.gif", bytes, Expected::Prediction);
    let controls = [0x21, 0xf9, 4, 0, 0, 0, 0, 0].repeat(20_000);
    let bytes = file(screen(8, 8), &[controls, frame(0, 0, 8, 8)]);
    corpus.add("many-controls.gif", bytes, Expected::Prediction);

    let huge = |width: u16, height: u16| {
        with(&frame(0, 0, 8, 8), 5, &[width.to_le_bytes(), height.to_le_bytes()].concat())
    };
    corpus.add(
        "huge-frame-on-a-small-screen.gif",
        file(screen(8, 8), &[huge(65_535, 65_535)]),
        Expected::TOO_LARGE,
    );
    corpus.add(
        "large-frame-on-a-small-screen.gif",
        file(screen(8, 8), &[huge(3_000, 3_000)]),
        Expected::UNDECODABLE,
    );
    // More pixels than the frame's size.
    let rich = [&[0x2c, 0, 0, 0, 0, 8, 0, 8, 0, 0, 3][..], &blocks(&lzw(1_000_000))].concat();
    corpus.add("more-pixels-than-its-frame.gif", file(screen(8, 8), &[rich]), Expected::Prediction);
    let empty = with(&frame(0, 0, 8, 8), 5, &[0, 0, 0, 0]);
    corpus.add("frame-of-nothing.gif", file(screen(8, 8), &[empty]), Expected::UNDECODABLE);
}

fn damage(corpus: &mut Corpus) {
    let whole = frame(0, 0, 8, 8);
    // Byte 10 of a frame, after its place and flags, is the length of the smallest code.
    for bits in [0_u8, 12, 13, 255] {
        let bytes = file(screen(8, 8), &[with(&whole, 10, &[bits])]);
        corpus.add(format!("codes-of-{bits}-bits.gif"), bytes, Expected::UNDECODABLE);
    }
    let bytes = [screen(8, 8), whole[..12].to_vec(), vec![0, 0x3b]].concat();
    corpus.add("no-pixels.gif", bytes, Expected::UNDECODABLE);
    // A code that is not defined yet, directly after a clear.
    let bytes = file(screen(8, 8), &[[&whole[..11], &blocks(&[0xf8, 0xff, 0xff])].concat()]);
    corpus.add("undefined-code.gif", bytes, Expected::UNDECODABLE);
    let no_colors = [b"GIF89a\x08\0\x08\0\0\0\0", &whole[..], &[0x3b]].concat();
    corpus.add("no-colours.gif", no_colors, Expected::UNDECODABLE);
    let bytes = [screen(8, 8), vec![0x99; 500]].concat();
    corpus.add("unknown-blocks.gif", bytes, Expected::UNDECODABLE);
    let photo = encoded(ImageFormat::Gif);
    let version = with(&photo, 4, b"8");
    // Its first bytes are not those of a GIF. An unknown kind of file counts as a damaged image.
    corpus.add("of-another-version.gif", version, Expected::UNDECODABLE);
}
