//! Writes bits into bytes, the lowest bit first, as DEFLATE, GIF and WebP need them; compresses
//! zeros with DEFLATE; and makes pseudo-random numbers.

/// Bytes that are written bit by bit.
#[derive(Default)]
pub(super) struct Bits {
    bytes: Vec<u8>,
    filled: u32,
}

impl Bits {
    /// Appends the lowest `count` bits of `value`, the lowest first.
    pub(super) fn push(&mut self, value: u64, count: u32) {
        for bit in 0..count {
            if self.filled.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let last = self.bytes.last_mut().expect("one was pushed");
            *last |= ((value >> bit & 1) as u8) << (self.filled % 8);
            self.filled += 1;
        }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// `count` zeros in zlib's format, in a 158th of their size: literals, then copies of 258 bytes
/// (RFC 1951, section 3.2.6).
pub(super) fn zlib_zeros(count: usize) -> Vec<u8> {
    const LONGEST: usize = 258;
    let mut bits = Bits::default();
    // The header of the last block, with fixed codes.
    bits.push(0b011, 3);
    let copies = count.saturating_sub(1) / LONGEST;
    let literals = count - copies * LONGEST;
    for _ in 0..literals {
        // Code 0011_0000, its highest bit first.
        bits.push(0b0000_1100, 8);
    }
    for _ in 0..copies {
        // Length 258 is code 1100_0101, distance 1 code 0_0000.
        bits.push(0b1010_0011, 8);
        bits.push(0, 5);
    }
    // The end of the block: code 000_0000.
    bits.push(0, 7);
    let mut zlib = vec![0x78, 0x9c];
    zlib.extend(bits.into_bytes());
    // Adler-32 of zeros: its low half stays 1, and its high half adds that for each byte.
    let sum = (count % 65_521) as u32;
    zlib.extend((sum << 16 | 1).to_be_bytes());
    zlib
}

/// Pseudo-random numbers, the same in each run: SplitMix64 (Steele, Lea and Flood 2014).
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number less than `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(super) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}
