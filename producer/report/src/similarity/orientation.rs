//! The perceptual hash of a picture that is mirrored or turned, computed from the picture's own.
//!
//! Owns the eight orientations and their effect on a hash. Upstream: the layout of
//! [`PerceptualHash`](camshaft_common::measure::PerceptualHash). Downstream: the search for
//! duplicates.
//!
//! The hash is an 8 × 8 matrix: the signs of the lowest frequencies of a picture that is stretched
//! to a square. Swapping the axes of the picture transposes the matrix. Mirroring it changes the
//! sign of the waves with an odd horizontal frequency, which are every other column.

/// How a picture lies, compared with another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Orientation {
    /// The same way.
    Same,
    /// Left and right are swapped.
    Mirrored,
    /// Turned by 90° clockwise.
    Turned90,
    /// Turned by 180°.
    Turned180,
    /// Turned by 270° clockwise.
    Turned270,
    /// Top and bottom are swapped.
    UpsideDown,
    /// The axes are swapped: mirrored, then turned by 270°.
    MirroredTurned270,
    /// Mirrored, then turned by 90°.
    MirroredTurned90,
}

/// The waves with an odd horizontal frequency.
const ODD_ACROSS: u64 = 0x5555_5555_5555_5555;
/// The waves with an odd vertical frequency.
const ODD_DOWN: u64 = 0x00ff_00ff_00ff_00ff;
/// The bit of the mean, which is never set.
const MEAN: u64 = 1 << 63;

impl Orientation {
    /// The orientations other than the same. A pair that differs by 270° differs by 90° the other
    /// way round, so that these find all pairs.
    pub(crate) const OTHERS: [Self; 6] = [
        Self::Mirrored,
        Self::Turned90,
        Self::Turned180,
        Self::UpsideDown,
        Self::MirroredTurned90,
        Self::MirroredTurned270,
    ];

    /// All eight.
    pub(crate) const ALL: [Self; 8] = [
        Self::Same,
        Self::Mirrored,
        Self::Turned90,
        Self::Turned180,
        Self::Turned270,
        Self::UpsideDown,
        Self::MirroredTurned90,
        Self::MirroredTurned270,
    ];

    /// The hash of the picture in this orientation, to a bit or two.
    pub(crate) fn of_hash(self, hash: u64) -> u64 {
        let hash = match self {
            Self::Same => hash,
            Self::Mirrored => hash ^ ODD_ACROSS,
            Self::UpsideDown => hash ^ ODD_DOWN,
            Self::Turned180 => hash ^ ODD_ACROSS ^ ODD_DOWN,
            Self::MirroredTurned270 => transposed(hash),
            Self::Turned90 => transposed(hash) ^ ODD_ACROSS,
            Self::Turned270 => transposed(hash) ^ ODD_DOWN,
            Self::MirroredTurned90 => transposed(hash) ^ ODD_ACROSS ^ ODD_DOWN,
        };
        hash & !MEAN
    }
}

/// Swaps the rows and columns of 8 × 8 bits: first within blocks of 2 × 2, then of 4 × 4 and 8 × 8
/// (Warren, Hacker's Delight, 7–3).
fn transposed(mut bits: u64) -> u64 {
    for (mask, shift) in
        [(0x00aa_00aa_00aa_00aa, 7), (0x0000_cccc_0000_cccc, 14), (0x0000_0000_f0f0_f0f0, 28)]
    {
        let swapped = (bits ^ (bits >> shift)) & mask;
        bits ^= swapped ^ (swapped << shift);
    }
    bits
}

#[cfg(test)]
mod tests {
    use camshaft_common::measure::PerceptualHash;
    use rand::{RngExt, SeedableRng};
    use rand_pcg::Pcg64;

    use super::*;

    const SIDE: usize = 16;
    type Picture = [[f32; SIDE]; SIDE];

    /// The hash as `worker/vision/src/measures/perceptual_hash.rs` defines it.
    fn hash_of(picture: &Picture) -> u64 {
        let wave = |frequency: usize, at: usize| {
            (std::f32::consts::PI * frequency as f32 * (at as f32 + 0.5) / SIDE as f32).cos()
        };
        let mut hash = 0;
        for (down, across) in (0..8).flat_map(|down| (0..8).map(move |across| (down, across))) {
            let cells = (0..SIDE).flat_map(|y| (0..SIDE).map(move |x| (y, x)));
            let sum: f32 =
                cells.map(|(y, x)| picture[y][x] * wave(down, y) * wave(across, x)).sum();
            hash = hash << 1 | u64::from(sum > 0.0);
        }
        hash & !MEAN
    }

    fn moved(picture: &Picture, orientation: Orientation) -> Picture {
        let mirrored = |p: &Picture| p.map(|row| std::array::from_fn(|x| row[SIDE - 1 - x]));
        let turned = |p: &Picture| -> Picture {
            std::array::from_fn(|y| std::array::from_fn(|x| p[SIDE - 1 - x][y]))
        };
        match orientation {
            Orientation::Same => *picture,
            Orientation::Mirrored => mirrored(picture),
            Orientation::Turned90 => turned(picture),
            Orientation::Turned180 => turned(&turned(picture)),
            Orientation::Turned270 => turned(&turned(&turned(picture))),
            Orientation::UpsideDown => turned(&turned(&mirrored(picture))),
            Orientation::MirroredTurned90 => turned(&mirrored(picture)),
            Orientation::MirroredTurned270 => turned(&turned(&turned(&mirrored(picture)))),
        }
    }

    #[test]
    fn the_hash_of_a_turned_picture_is_told_by_the_pictures_own() {
        let mut random = Pcg64::seed_from_u64(1);
        for _ in 0..20 {
            let picture: Picture =
                std::array::from_fn(|_| std::array::from_fn(|_| random.random_range(0.0..1.0)));
            for orientation in Orientation::ALL {
                let told = orientation.of_hash(hash_of(&picture));
                let differing = (told ^ hash_of(&moved(&picture, orientation))).count_ones();
                assert!(differing <= 2, "{orientation:?} {differing}");
            }
        }
    }

    #[test]
    fn mirrored_is_what_the_workers_call_mirrored() {
        let hash = 0x1234_5678_9abc_def0;
        let told = PerceptualHash(hash).mirrored().0;
        assert_eq!(Orientation::Mirrored.of_hash(hash), told & !MEAN);
    }
}
