//! Counts the memory that the prefix codes of a lossless WebP take, before a decoder builds them:
//! RFC 9649, section 3.
//!
//! A picture of any size may have 65,536 groups of five codes. Four bytes of file can make a code
//! whose table takes some kilobytes: a file of five megabytes with 16 × 16 pixels takes a gigabyte
//! and a half. To count the codes, this reads the file up to the picture's own codes. Before them
//! are the pictures of its transforms, and the picture that assigns a group to each block.
//!
//! Does not refuse damage: the count ends there, and so does the decoder. Upstream: `webp`.

use std::sync::LazyLock;

/// Symbols of a group's five codes: green and lengths, red, blue, alpha, distances. A colour cache
/// adds symbols to the first.
const ALPHABETS: [u16; 5] = [256 + LENGTH_SYMBOLS, 256, 256, 256, 40];
const LENGTH_SYMBOLS: u16 = 24;
/// The order in which the lengths of code lengths are written.
const LENGTH_ORDER: [usize; 19] =
    [17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
const MAX_LENGTH: usize = 15;

/// The decoder's sizes: bits of the table of a code; bytes of a code in a list that grows by
/// doubling, of an entry in the table, and of a node for longer symbols.
const TABLE_BITS: usize = 10;
const CODE_BYTES: u64 = 2 * 56;
const ENTRY_BYTES: u64 = 4;
const NODE_BYTES: u64 = 16;

/// Bytes that a decoder holds for all codes of a picture of `size`. `stream` begins after the
/// picture's header. Stops counting at the first code above `max_bytes`.
pub(super) fn bytes_of_codes(stream: &[u8], size: (u32, u32), max_bytes: u64) -> u64 {
    let mut reader = BitReader { stream, at: 0, code_bytes: 0, max_bytes };
    let _damaged = reader.picture(size);
    reader.code_bytes
}

/// Reads a stream and counts its codes. Functions return `None` if the stream is damaged, or if the
/// codes take more than `max_bytes`.
struct BitReader<'a> {
    stream: &'a [u8],
    /// Position in bits.
    at: usize,
    code_bytes: u64,
    max_bytes: u64,
}

/// A prefix code: the number of symbols of each length, and the symbols in the code's order.
struct PrefixCode {
    counts: [u16; MAX_LENGTH + 1],
    symbols: Vec<u16>,
}

impl PrefixCode {
    /// Makes a code of its symbols' lengths; `None` if the code is not complete. A code of a single
    /// symbol takes no bits.
    fn new(lengths: &[u8]) -> Option<Self> {
        let mut counts = [0; MAX_LENGTH + 1];
        let mut by_length = [const { Vec::new() }; MAX_LENGTH + 1];
        for (symbol, &length) in lengths.iter().enumerate().filter(|(_, length)| **length > 0) {
            counts[usize::from(length)] += 1;
            by_length[usize::from(length)].push(symbol as u16);
        }
        let symbols = by_length.concat();
        let space: u32 =
            (1..=MAX_LENGTH).map(|length| u32::from(counts[length]) << (MAX_LENGTH - length)).sum();
        (symbols.len() == 1 || space == 1 << MAX_LENGTH).then_some(Self { counts, symbols })
    }

    /// Bytes that the decoder holds for this code.
    fn bytes(&self) -> u64 {
        if self.symbols.len() == 1 {
            return CODE_BYTES;
        }
        let longest = self.counts.iter().rposition(|&count| count > 0).unwrap_or(0);
        let beyond = self.counts[TABLE_BITS + 1..].iter().map(|&count| u64::from(count));
        let nodes = 3 + 2 * beyond.sum::<u64>();
        CODE_BYTES + (ENTRY_BYTES << longest.min(TABLE_BITS)) + nodes * NODE_BYTES
    }
}

impl BitReader<'_> {
    fn bits(&mut self, count: usize) -> Option<usize> {
        let mut bits = 0;
        for place in 0..count {
            let byte = self.stream.get(self.at / 8)?;
            bits |= usize::from(byte >> (self.at % 8) & 1) << place;
            self.at += 1;
        }
        Some(bits)
    }

    fn bit(&mut self) -> Option<bool> {
        self.bits(1).map(|bit| bit == 1)
    }

    fn symbol(&mut self, code: &PrefixCode) -> Option<usize> {
        if let [only] = code.symbols[..] {
            return Some(only.into());
        }
        let (mut prefix, mut first, mut before) = (0, 0, 0);
        for count in code.counts[1..].iter().map(|&count| usize::from(count)) {
            prefix |= self.bits(1)?;
            if prefix < first + count {
                return code.symbols.get(before + prefix - first).map(|&symbol| symbol.into());
            }
            before += count;
            first = (first + count) << 1;
            prefix <<= 1;
        }
        None
    }

    /// Reads up to the pixels of a picture.
    fn picture(&mut self, (mut width, height): (u32, u32)) -> Option<()> {
        let block = |size: u32, bits: usize| size.div_ceil(1 << bits);
        let mut seen = [false; 4];
        while self.bit()? {
            let transform = self.bits(2)?;
            if std::mem::replace(&mut seen[transform], true) {
                return None;
            }
            match transform {
                0 | 1 => {
                    let bits = self.bits(3)? + 2;
                    self.helper_picture((block(width, bits), block(height, bits)))?;
                }
                2 => {}
                _ => {
                    let colours = self.bits(8)? as u32 + 1;
                    self.helper_picture((colours, 1))?;
                    let bits = match colours {
                        0..=2 => 3,
                        3..=4 => 2,
                        5..=16 => 1,
                        _ => 0,
                    };
                    width = block(width, bits);
                }
            }
        }
        let cache_bits = self.cache_bits()?;
        let mut groups = 1;
        if self.bit()? {
            let bits = self.bits(3)? + 2;
            let of_blocks = self.helper_picture((block(width, bits), block(height, bits)))?;
            groups = of_blocks.iter().map(|argb| argb >> 8 & 0xffff).max()? + 1;
        }
        for _group in 0..groups {
            self.group(cache_bits)?;
        }
        Some(())
    }

    /// The size of the colour cache as a power of two; 0 if there is none.
    fn cache_bits(&mut self) -> Option<usize> {
        if !self.bit()? {
            return Some(0);
        }
        self.bits(4).filter(|bits| (1..=11).contains(bits))
    }

    fn group(&mut self, cache_bits: usize) -> Option<[PrefixCode; 5]> {
        let cached = if cache_bits > 0 { 1 << cache_bits } else { 0 };
        let [green, red, blue, alpha, distance] = ALPHABETS;
        Some([
            self.code(green + cached)?,
            self.code(red)?,
            self.code(blue)?,
            self.code(alpha)?,
            self.code(distance)?,
        ])
    }

    fn code(&mut self, alphabet: u16) -> Option<PrefixCode> {
        let code = if self.bit()? {
            self.simple_code()?
        } else {
            PrefixCode::new(&self.code_lengths(alphabet)?)?
        };
        if !code.symbols.iter().all(|&symbol| symbol < alphabet) {
            return None;
        }
        self.code_bytes += code.bytes();
        (self.code_bytes <= self.max_bytes).then_some(code)
    }

    /// A code of one or two symbols. Two symbols count as two even if they are equal.
    fn simple_code(&mut self) -> Option<PrefixCode> {
        let two = self.bit()?;
        let bits = if self.bit()? { 8 } else { 1 };
        let mut symbols = vec![self.bits(bits)? as u16];
        if two {
            symbols.push(self.bits(8)? as u16);
        }
        let mut counts = [0; MAX_LENGTH + 1];
        counts[1] = symbols.len() as u16;
        Some(PrefixCode { counts, symbols })
    }

    /// The lengths of a code's symbols, which are themselves written with a prefix code.
    fn code_lengths(&mut self, alphabet: u16) -> Option<Vec<u8>> {
        let mut of_lengths = [0; LENGTH_ORDER.len()];
        let written = self.bits(4)? + 4;
        for place in LENGTH_ORDER.into_iter().take(written) {
            of_lengths[place] = self.bits(3)? as u8;
        }
        let code = PrefixCode::new(&of_lengths)?;
        let alphabet = usize::from(alphabet);
        let mut left = alphabet;
        if self.bit()? {
            let bits = 2 + 2 * self.bits(3)?;
            left = 2 + self.bits(bits)?;
        }
        let mut lengths = Vec::with_capacity(alphabet);
        let mut last = 8;
        while lengths.len() < alphabet && left > 0 {
            left -= 1;
            let (length, times) = match self.symbol(&code)? {
                16 => (last, 3 + self.bits(2)?),
                17 => (0, 3 + self.bits(3)?),
                18 => (0, 11 + self.bits(7)?),
                length => (length as u8, 1),
            };
            if length > 0 {
                last = length;
            }
            lengths.extend(std::iter::repeat_n(length, times));
        }
        lengths.resize(alphabet.max(lengths.len()), 0);
        (lengths.len() == alphabet).then_some(lengths)
    }

    /// Reads the pixels of a picture that describes the main one: of a transform, or of groups.
    fn helper_picture(&mut self, (width, height): (u32, u32)) -> Option<Vec<u32>> {
        let cache_bits = self.cache_bits()?;
        let [green, red, blue, alpha, distance] = self.group(cache_bits)?;
        let mut cache = vec![0; 1 << cache_bits];
        let count = width as usize * height as usize;
        let mut pixels: Vec<u32> = Vec::with_capacity(count);
        while pixels.len() < count {
            let symbol = self.symbol(&green)?;
            if let Some(length) =
                symbol.checked_sub(256).filter(|&symbol| symbol < LENGTH_SYMBOLS.into())
            {
                let length = self.length_or_distance(length)?;
                let distance = self.symbol(&distance)?;
                let distance = distance_in_pixels(self.length_or_distance(distance)?, width);
                if distance > pixels.len() || length > count - pixels.len() {
                    return None;
                }
                for _pixel in 0..length {
                    let argb = pixels[pixels.len() - distance];
                    pixels.push(argb);
                    // As in the decoder: at distance 1 the colour is in the cache already.
                    if distance > 1 {
                        cache[cache_index(argb, cache_bits)] = argb;
                    }
                }
            } else if symbol < 256 {
                let red = self.symbol(&red)?;
                let blue = self.symbol(&blue)?;
                let alpha = self.symbol(&alpha)?;
                let argb = (alpha << 24 | red << 16 | symbol << 8 | blue) as u32;
                pixels.push(argb);
                cache[cache_index(argb, cache_bits)] = argb;
            } else {
                pixels.push(*cache.get(symbol - 256 - usize::from(LENGTH_SYMBOLS))?);
            }
        }
        Some(pixels)
    }

    /// Reads a length or a distance whose symbol is known.
    fn length_or_distance(&mut self, symbol: usize) -> Option<usize> {
        if symbol < 4 {
            return Some(symbol + 1);
        }
        let bits = (symbol - 2) / 2;
        Some(((2 + symbol % 2) << bits) + self.bits(bits)? + 1)
    }
}

/// The place of a colour in the cache.
fn cache_index(argb: u32, cache_bits: usize) -> usize {
    (u64::from(argb.wrapping_mul(0x1e35_a7bd)) >> (32 - cache_bits)) as usize
}

/// The pixels that the first 120 distances stand for: columns to the left and rows up.
static NEIGHBOURS: LazyLock<Vec<(i32, i32)>> = LazyLock::new(|| {
    let rows = (0..8).flat_map(|up| (-7..=8).map(move |left| (left, up)));
    let mut neighbours: Vec<(i32, i32)> = rows.filter(|&(left, up)| up > 0 || left > 0).collect();
    // The nearest first. At the same distance, fewer columns first, then left before right.
    neighbours.sort_by_key(|&(left, up)| (left * left + up * up, left.abs(), left < 0));
    neighbours
});

/// A distance as a number of pixels in reading order.
fn distance_in_pixels(distance: usize, width: u32) -> usize {
    match NEIGHBOURS.get(distance - 1) {
        None => distance - NEIGHBOURS.len(),
        Some(&(left, up)) => {
            usize::try_from(i64::from(left) + i64::from(up) * i64::from(width)).unwrap_or(1).max(1)
        }
    }
}

#[cfg(test)]
mod tests {
    use camshaft_common::transparency::Transparency;

    use super::*;
    use crate::tests::webp::{chunk, webp};
    use crate::{DecodeError, ImageLimits, decode, memory_to_decode};

    /// The stream of a picture of 16 × 16 pixels with `count` groups of codes, each with the
    /// longest lengths possible. Without the picture's header.
    fn groups(count: usize) -> Vec<u8> {
        let mut bits = Vec::new();
        let mut put = |value: usize, length: u32| {
            bits.extend((0..length).map(|at| value.checked_shr(at).unwrap_or(0) & 1 == 1));
        };
        // No transform and no cache. Groups belong to blocks of 512 × 512 pixels; the only block
        // has the last group.
        put(0, 2);
        put(0b1111, 4);
        put(0, 1);
        for symbol in [(count - 1) & 0xff, (count - 1) >> 8, 0, 0, 0] {
            put(0b101, 3);
            put(symbol, 8);
        }
        for _code in 0..count * ALPHABETS.len() {
            put(0, 1);
            put(15, 4);
            // The lengths 0 to 15 take four bits each; 16 are written: 1, 2, 3 … 14, 15, 15.
            LENGTH_ORDER.iter().for_each(|&length| put(if length < 16 { 4 } else { 0 }, 3));
            put(0b0011, 4);
            put(16 - 2, 4);
            for length in (1_u8..=15).chain([15]) {
                put((length.reverse_bits() >> 4).into(), 4);
            }
        }
        put(0, 4096);
        bits.chunks(8)
            .map(|byte| byte.iter().rev().fold(0, |all, &bit| all << 1 | u8::from(bit)))
            .collect()
    }

    fn lossless(stream: &[u8]) -> Vec<u8> {
        chunk(b"VP8L", &[&[0x2f, 15, 0xc0, 3, 0], stream].concat())
    }

    fn canvas(flags: u8) -> Vec<u8> {
        chunk(b"VP8X", &[flags, 0, 0, 0, 15, 0, 0, 15, 0, 0])
    }

    fn animated(picture: &[u8]) -> Vec<u8> {
        let frame = [&[0; 6][..], &[15, 0, 0, 15, 0, 0], &[0; 4], picture].concat();
        webp(&[canvas(0b10_0010), chunk(b"ANIM", &[0; 6]), chunk(b"ANMF", &frame)])
    }

    #[test]
    fn no_picture_makes_more_codes_than_any_encoder() {
        let most = groups(65_536);
        let transparency = chunk(b"ALPH", &[&[1], &most[..]].concat());
        let lossy = chunk(b"VP8 ", &[0x90, 1, 0, 0x9d, 1, 0x2a, 16, 0, 16, 0, 0, 0]);
        for bytes in [
            webp(&[lossless(&most)]),
            webp(&[canvas(0x10), transparency.clone(), lossy.clone()]),
            animated(&lossless(&most)),
            animated(&[transparency, lossy].concat()),
        ] {
            let error =
                decode(&bytes, &ImageLimits::default(), Transparency::OverWhite).unwrap_err();
            assert!(matches!(error, DecodeError::Corrupt { .. }), "{error}");
            assert!(error.to_string().contains("prefix codes take more than 64 MiB"), "{error}");
        }
    }

    #[test]
    fn codes_count_towards_the_memory_of_a_picture() {
        let bytes = webp(&[lossless(&groups(2000))]);
        let limits = ImageLimits::default();
        assert!(decode(&bytes, &limits, Transparency::OverWhite).is_ok());
        let tables = 2000 * 5 * (ENTRY_BYTES << TABLE_BITS);
        let bytes = memory_to_decode(&bytes, &limits).unwrap();
        assert!((tables..tables * 11 / 10).contains(&bytes), "{bytes} of {tables}");
    }

    #[test]
    fn codes_of_an_encoders_pictures_are_found_to_the_last() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/formats");
        for (file, name, header) in [
            ("lossless.webp", b"VP8L", 5),
            ("alpha.webp", b"VP8L", 5),
            ("lossy-alpha.webp", b"ALPH", 1),
        ] {
            let bytes = std::fs::read(format!("{folder}/{file}")).unwrap();
            let (width, height) = decode(&bytes, &ImageLimits::default(), Transparency::OverWhite)
                .unwrap()
                .dimensions();
            let start = bytes.windows(4).position(|found| found == name).unwrap() + 8 + header;
            let mut reader =
                BitReader { stream: &bytes[start..], at: 0, code_bytes: 0, max_bytes: u64::MAX };
            assert_eq!(reader.picture((width, height)), Some(()), "{file}");
            assert!(reader.code_bytes > 5 * CODE_BYTES, "{file}: {}", reader.code_bytes);
        }
    }

    #[test]
    fn distances_name_neighbours_as_they_are_written() {
        // From the table in section 3.5.2.
        let some =
            [(1, (0, 1)), (4, (-1, 1)), (40, (5, 0)), (78, (-5, 5)), (105, (-6, 6)), (120, (8, 7))];
        assert_eq!(NEIGHBOURS.len(), 120);
        for (distance, neighbour) in some {
            assert_eq!(NEIGHBOURS[distance - 1], neighbour, "{distance}");
        }
        let pixels =
            [distance_in_pixels(1, 30), distance_in_pixels(4, 1), distance_in_pixels(121, 30)];
        assert_eq!(pixels, [30, 1, 1]);
    }
}
