//! Hostile TIFFs, by TIFF 6.0. Constants are tags and types of entries.

use image::ImageFormat;

use super::bits::zlib_zeros;
use super::common::{encoded, position, sample, with};
use super::jpeg::{FRAME, PROGRESSIVE_FRAME};
use super::{Corpus, Expected};

const WIDTH: u16 = 256;
const HEIGHT: u16 = 257;
const BITS: u16 = 258;
const COMPRESSION: u16 = 259;
const PHOTOMETRIC: u16 = 262;
const OFFSETS: u16 = 273;
const SAMPLES: u16 = 277;
const ROWS: u16 = 278;
const COUNTS: u16 = 279;
const PLANES: u16 = 284;
const PREDICTOR: u16 = 317;
const TILE_WIDTH: u16 = 322;
const TILE_HEIGHT: u16 = 323;
const TILE_OFFSETS: u16 = 324;
const TILE_COUNTS: u16 = 325;
const EXTRA: u16 = 338;
const FORMAT: u16 = 339;
const PROFILE: u16 = 34_675;

const BYTE: u16 = 1;
const ASCII: u16 = 2;
const SHORT: u16 = 3;
const LONG: u16 = 4;

/// Offset of the samples: directly after the header's eight bytes.
const DATA_AT: u32 = 8;

/// An entry: tag, type, number of values, and the value or the offset of the values.
type Entry = (u16, u16, u32, u32);

/// A file with one page: a header, `data`, a directory of `entries`, and the offset of the `next`
/// directory.
fn page(entries: &[Entry], data: &[u8], next: u32) -> Vec<u8> {
    let directory_at = DATA_AT + data.len() as u32;
    let mut file = b"II\x2a\0".to_vec();
    file.extend(directory_at.to_le_bytes());
    file.extend(data);
    file.extend((entries.len() as u16).to_le_bytes());
    let mut entries = entries.to_vec();
    entries.sort_by_key(|entry| entry.0);
    for (tag, kind, count, value) in entries {
        file.extend([tag.to_le_bytes(), kind.to_le_bytes()].concat());
        file.extend([count.to_le_bytes(), value.to_le_bytes()].concat());
    }
    file.extend(next.to_le_bytes());
    file
}

/// The entries of a grey picture of 8×8 pixels in one strip.
fn grey() -> Vec<Entry> {
    [
        (WIDTH, 8),
        (HEIGHT, 8),
        (BITS, 8),
        (COMPRESSION, 1),
        (PHOTOMETRIC, 1),
        (OFFSETS, DATA_AT),
        (SAMPLES, 1),
        (ROWS, 8),
        (COUNTS, 64),
    ]
    .map(|(tag, value)| (tag, LONG, 1, value))
    .to_vec()
}

/// The grey picture's entries with `others` replaced or added.
fn changed(others: &[Entry]) -> Vec<Entry> {
    let kept = |entry: &Entry| !others.iter().any(|other| other.0 == entry.0);
    grey().into_iter().filter(kept).chain(others.iter().copied()).collect()
}

/// The grey picture's entries with the values in `others` replaced or added.
fn valued(others: &[(u16, u32)]) -> Vec<Entry> {
    let others: Vec<_> = others.iter().map(|&(tag, value)| (tag, LONG, 1, value)).collect();
    changed(&others)
}

pub(super) fn add(corpus: &mut Corpus) {
    lying_values(corpus);
    kinds(corpus);
    counts(corpus);
    directories(corpus);
    compressed(corpus);
    jpegs_inside(corpus);
}

fn lying_values(corpus: &mut Corpus) {
    for (name, values, expected) in [
        ("as-it-is", &[][..], Expected::Prediction),
        ("no-width", &[(WIDTH, 0)], Expected::UNDECODABLE),
        ("no-height", &[(HEIGHT, 0)], Expected::UNDECODABLE),
        ("no-rows", &[(ROWS, 0)], Expected::UNDECODABLE),
        ("all-rows", &[(ROWS, u32::MAX)], Expected::Prediction),
        // One strip of eight rows is not enough for that height.
        ("longest-sides", &[(WIDTH, u32::MAX), (HEIGHT, u32::MAX)], Expected::UNDECODABLE),
        ("30000", &[(WIDTH, 30_000), (HEIGHT, 30_000), (ROWS, 30_000)], Expected::TOO_LARGE),
        (
            "most-of-the-limit",
            &[(WIDTH, 9_900), (HEIGHT, 9_900), (ROWS, 9_900)],
            Expected::UNDECODABLE,
        ),
        ("samples-behind-the-end", &[(OFFSETS, 100_000)], Expected::UNDECODABLE),
        ("samples-at-the-last-byte", &[(OFFSETS, u32::MAX)], Expected::UNDECODABLE),
        // Without compression, the picture's size gives the number of samples, and they are all
        // there.
        ("counts-of-nothing", &[(COUNTS, 0)], Expected::Prediction),
        ("counts-of-too-few", &[(COUNTS, 20)], Expected::Prediction),
        ("no-such-predictor", &[(PREDICTOR, 77)], Expected::UNDECODABLE),
        ("no-such-planes", &[(PLANES, 9)], Expected::UNDECODABLE),
        // 4,096 tiles of a megapixel each.
        (
            "tiles-wider-than-the-picture",
            &[(WIDTH, 1), (HEIGHT, 65_535), (TILE_WIDTH, 65_520), (TILE_HEIGHT, 16)],
            Expected::UNSUPPORTED,
        ),
    ] {
        let bytes = page(&valued(values), &[0x80; 64], 0);
        corpus.add(format!("{name}.tif"), bytes, expected);
    }
    for missing in [WIDTH, HEIGHT, OFFSETS, COUNTS] {
        let entries: Vec<_> = grey().into_iter().filter(|entry| entry.0 != missing).collect();
        let bytes = page(&entries, &[0x80; 64], 0);
        corpus.add(format!("without-{missing}.tif"), bytes, Expected::UNDECODABLE);
    }
}

/// Kinds of samples and compression that are not supported.
fn kinds(corpus: &mut Corpus) {
    for (name, values) in [
        ("fax", &[(COMPRESSION, 3), (BITS, 8)][..]),
        ("jbig", &[(COMPRESSION, 34_661)]),
        ("jpeg-2000", &[(COMPRESSION, 34_712)]),
        ("no-such-compression", &[(COMPRESSION, 12_345)]),
        ("palette", &[(PHOTOMETRIC, 3)]),
        ("lab", &[(PHOTOMETRIC, 8)]),
        ("no-such-colours", &[(PHOTOMETRIC, 777)]),
        ("float", &[(FORMAT, 3), (BITS, 32)]),
        ("double", &[(FORMAT, 3), (BITS, 64)]),
        ("signed", &[(FORMAT, 2)]),
        ("samples-of-3-bits", &[(BITS, 3)]),
        ("samples-of-64-bits", &[(BITS, 64)]),
        ("samples-of-77-bits", &[(BITS, 77)]),
    ] {
        let bytes = page(&valued(values), &[0x80; 512], 0);
        corpus.add(format!("{name}.tif"), bytes, Expected::UNSUPPORTED);
    }
    for name in ["refused-float.tif", "refused-palette.tif"] {
        corpus.add(name, sample(name), Expected::UNSUPPORTED);
    }
}

/// Entries that claim more values than the file has.
fn counts(corpus: &mut Corpus) {
    for tag in [BITS, OFFSETS, COUNTS, EXTRA, FORMAT] {
        for kind in [BYTE, SHORT, LONG] {
            for count in [0x0010_0000, 0x7fff_ffff, u32::MAX] {
                let bytes = page(&changed(&[(tag, kind, count, 8)]), &[0x80; 64], 0);
                let name = format!("{count:x}-values-of-{tag}-as-{kind}.tif");
                corpus.add(name, bytes, Expected::UNDECODABLE);
            }
        }
    }
    let bytes = page(&changed(&[(SAMPLES, LONG, 1, 60_000)]), &[0x80; 64], 0);
    corpus.add("60000-samples.tif", bytes, Expected::UNSUPPORTED);
    // The decoder does not read these entries: the picture does not need them.
    let bytes = page(&changed(&[(PROFILE, BYTE, u32::MAX, 8)]), &[0x80; 64], 0);
    corpus.add("endless-profile.tif", bytes, Expected::Prediction);
    let bytes = page(&changed(&[(270, ASCII, u32::MAX, 8)]), &[0x80; 64], 0);
    corpus.add("endless-description.tif", bytes, Expected::Prediction);
}

fn directories(corpus: &mut Corpus) {
    let whole = page(&grey(), &[0x80; 64], 0);
    let itself = page(&grey(), &[0x80; 64], DATA_AT + 64);
    // The chain of pages never ends.
    corpus.add("its-own-next-page.tif", itself, Expected::UNDECODABLE);
    let nowhere = page(&grey(), &[0x80; 64], u32::MAX - 7);
    corpus.add("next-page-nowhere.tif", nowhere, Expected::Prediction);
    for at in [0_u32, 4, whole.len() as u32 - 1, whole.len() as u32 + 1, u32::MAX] {
        let mut bytes = whole.clone();
        bytes[4..8].copy_from_slice(&at.to_le_bytes());
        corpus.add(format!("directory-at-{at}.tif"), bytes, Expected::UNDECODABLE);
    }
    let mut bytes = whole.clone();
    bytes[72..74].copy_from_slice(&u16::MAX.to_le_bytes());
    corpus.add("65535-entries.tif", bytes, Expected::UNDECODABLE);
    corpus.add("no-entries.tif", page(&[], &[], 0), Expected::UNDECODABLE);
    let unknown: Vec<_> = (0..20_000).map(|tag| (40_000 + tag, LONG, 1, 7)).collect();
    corpus.add(
        "20000-unknown-entries.tif",
        page(&changed(&unknown), &[0x80; 64], 0),
        Expected::Prediction,
    );
    let mut bytes = whole;
    bytes[2] = 77;
    // Its first bytes are of no known kind of file.
    corpus.add("of-another-version.tif", bytes, Expected::UNDECODABLE);
    let mut bytes = b"II\x2b\0\x08\0\0\0".to_vec();
    bytes.extend(u64::MAX.to_le_bytes());
    corpus.add("big-directory-nowhere.tif", bytes, Expected::UNDECODABLE);
    let mut bytes = b"II\x2b\0\x08\0\0\0\x10\0\0\0\0\0\0\0".to_vec();
    bytes.extend([0xff; 40]);
    corpus.add("big-endless-directory.tif", bytes, Expected::UNDECODABLE);
}

fn compressed(corpus: &mut Corpus) {
    const DEFLATE: u32 = 8;
    let deflated = |width: u32, height: u32, zeros: usize| {
        let data = zlib_zeros(zeros);
        let values = [
            (WIDTH, width),
            (HEIGHT, height),
            (ROWS, height),
            (COMPRESSION, DEFLATE),
            (COUNTS, data.len() as u32),
        ];
        page(&valued(&values), &data, 0)
    };
    corpus.add("bomb.tif", deflated(9_000, 9_000, 81_000_000), Expected::Prediction);
    let bytes = deflated(12_000, 12_000, 144_000_000);
    corpus.add("bomb-above-the-limit.tif", bytes, Expected::TOO_LARGE);
    corpus.add("bomb-behind-its-strip.tif", deflated(8, 8, 50_000_000), Expected::Prediction);
    corpus.add("too-little-in-its-strip.tif", deflated(800, 800, 64), Expected::UNDECODABLE);
    let noise = page(&valued(&[(COMPRESSION, DEFLATE)]), &[0x55; 64], 0);
    corpus.add("no-zlib.tif", noise, Expected::UNDECODABLE);
    let tiled = |width: u32, height: u32| {
        let tile = [
            (TILE_WIDTH, width),
            (TILE_HEIGHT, height),
            (TILE_OFFSETS, DATA_AT),
            (TILE_COUNTS, 64),
        ];
        let kept = grey().into_iter().filter(|entry| ![OFFSETS, ROWS, COUNTS].contains(&entry.0));
        let entries: Vec<_> = kept.chain(tile.map(|(tag, value)| (tag, LONG, 1, value))).collect();
        page(&entries, &[0x80; 64], 0)
    };
    corpus.add("tile-of-nothing.tif", tiled(0, 0), Expected::UNDECODABLE);
    // The sides of a tile must be multiples of 16, as here.
    corpus.add("longest-tile.tif", tiled(0xffff_fff0, 0xffff_fff0), Expected::UNSUPPORTED);
    corpus.add("huge-tile.tif", tiled(65_520, 65_520), Expected::UNSUPPORTED);
}

/// Strips that are JPEGs, whose frames say that they have another size than the strip. A decoder
/// that believes them takes a gigabyte for each.
fn jpegs_inside(corpus: &mut Corpus) {
    const OLD_JPEG: u32 = 6;
    const JPEG: u32 = 7;
    /// The longest side that the decoder in a TIFF's reader takes.
    const SIDE: u16 = 16_384;
    const STRIPS: u32 = 8_000;
    let size = [SIDE.to_be_bytes(), SIDE.to_be_bytes()].concat();
    let photo = encoded(ImageFormat::Jpeg);
    let strip = with(&photo, position(&photo, FRAME) + 5, &size);
    let progressive = sample("progressive.jpg");
    let at = position(&progressive, PROGRESSIVE_FRAME) + 5;
    let progressive = with(&progressive, at, &size);
    for (name, compression, strip) in [
        ("jpeg", JPEG, &strip),
        ("progressive-jpeg", JPEG, &progressive),
        ("old-jpeg", OLD_JPEG, &strip),
    ] {
        let values = [(COMPRESSION, compression), (COUNTS, strip.len() as u32)];
        let bytes = page(&valued(&values), strip, 0);
        corpus.add(format!("{name}-of-{SIDE}.tif"), bytes, Expected::UNSUPPORTED);
    }
    // A strip for each row, all of them the same bytes.
    let offsets_at = DATA_AT + strip.len() as u32;
    let counts_at = offsets_at + 4 * STRIPS;
    let offsets = DATA_AT.to_le_bytes().repeat(STRIPS as usize);
    let counts = (strip.len() as u32).to_le_bytes().repeat(STRIPS as usize);
    let entries = [
        (HEIGHT, LONG, 1, STRIPS),
        (ROWS, LONG, 1, 1),
        (COMPRESSION, LONG, 1, JPEG),
        (OFFSETS, LONG, STRIPS, offsets_at),
        (COUNTS, LONG, STRIPS, counts_at),
    ];
    let bytes = page(&changed(&entries), &[strip, offsets, counts].concat(), 0);
    corpus.add(format!("{STRIPS}-jpegs-of-{SIDE}.tif"), bytes, Expected::UNSUPPORTED);
}
