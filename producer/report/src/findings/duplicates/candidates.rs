//! Which pairs of pictures may be copies, among a million and more.
//!
//! Owns the searches and their limits; `pictures` tells which candidates are copies. Candidates are
//! pictures whose perceptual hashes are a few bits apart, as they are or with one of them mirrored
//! or turned, and pictures whose embeddings point in nearly the same direction, by the signs of a
//! random projection (SimHash, Charikar 2002).

use super::pictures::{MAX_EDITED_BITS, MAX_HASH_BITS, MAX_TURNED_BITS, Pictures, Sketches};
use crate::similarity::close_hashes::{
    ClosePairs, EqualGroups, MAX_DISTANCE, SearchLimits, close_pairs, close_pairs_between,
    group_equal_hashes,
};
use crate::similarity::orientation::Orientation;

/// The most candidates of each kind. Nobody could look through more.
const MAX_PAIRS: usize = 4_000_000;
/// The most comparisons of the search for hashes as they are.
const MAX_COMPARISONS: u64 = 20_000_000_000;
/// The most comparisons of each of the other searches.
const MAX_MORE_COMPARISONS: u64 = 5_000_000_000;
/// Of the signs of embeddings, small distances come first: if there are too many pairs, they are
/// those that are found.
const SIGN_BITS: [u32; 3] = [3, 7, MAX_DISTANCE];
/// The most bits by which the other half of the signs of a candidate differs.
const MAX_OTHER_SIGN_BITS: u32 = 18;
/// All pairs of rows with two values are compared if there are at most this many; otherwise each is
/// compared with the first.
const MAX_PAIRS_OF_VALUES: usize = 64;

/// Pairs of rows that are copies.
#[derive(Default)]
pub(super) struct CopyPairs {
    /// Each pair may come up more than once.
    pub(super) pairs: Vec<(u32, u32)>,
    /// Whether some may be missing.
    pub(super) truncated: bool,
}

/// Searches for copies. Of rows with the same file, the first stands for all.
pub(super) fn find_copies(pictures: &Pictures) -> CopyPairs {
    let mut found = CopyPairs::default();
    let stands = |row: &u32| pictures.file[*row as usize] == *row;
    let rows = |exists: &[bool]| -> Vec<u32> {
        let rows = (0..).zip(exists).filter(|(_, exists)| **exists).map(|(row, _)| row);
        rows.filter(stands).collect()
    };

    let hashed = HashedRows::new(&pictures.hashes, rows(&pictures.usable));
    found.add_equal(&hashed, pictures);
    let limits = SearchLimits {
        max_distance: MAX_HASH_BITS,
        max_pairs: MAX_PAIRS,
        max_comparisons: MAX_COMPARISONS,
        accept: &|_, _| true,
    };
    found.add(close_pairs(&hashed.groups.values, limits), &hashed, pictures);
    let limits = SearchLimits {
        max_distance: MAX_TURNED_BITS,
        max_comparisons: MAX_MORE_COMPARISONS,
        accept: &|one, other| one != other,
        ..limits
    };
    for orientation in Orientation::OTHERS {
        let turned: Vec<u64> =
            hashed.groups.values.iter().map(|hash| orientation.of_hash(*hash)).collect();
        let close = close_pairs_between(&hashed.groups.values, &turned, limits);
        found.add(close, &hashed, pictures);
    }
    if let Some(sketches) = &pictures.sketches {
        let exists: Vec<bool> =
            sketches.exists.iter().zip(&pictures.usable).map(|(a, b)| *a && *b).collect();
        for half in 0..2 {
            let hashed = HashedRows::new(&sketches.signs[half], rows(&exists));
            found.add_by_signs(&hashed, half, sketches, pictures);
        }
    }
    found
}

/// Rows, grouped by a hash.
struct HashedRows {
    rows: Vec<u32>,
    groups: EqualGroups,
}

impl HashedRows {
    fn new(hashes: &[u64], rows: Vec<u32>) -> Self {
        let hashes: Vec<u64> = rows.iter().map(|row| hashes[*row as usize]).collect();
        Self { groups: group_equal_hashes(&hashes), rows }
    }

    /// The rows with a value.
    fn members(&self, value: u32) -> impl ExactSizeIterator<Item = u32> {
        self.groups.members(value as usize).iter().map(|at| self.rows[*at as usize])
    }

    fn first(&self, value: u32) -> u32 {
        self.members(value).next().expect("no group is empty")
    }
}

impl CopyPairs {
    fn test(&mut self, one: u32, other: u32, pictures: &Pictures) {
        if one != other && pictures.compare(one, other).is_some() {
            self.pairs.push((one, other));
        }
    }

    /// Tests the rows with equal hashes.
    fn add_equal(&mut self, hashed: &HashedRows, pictures: &Pictures) {
        for value in (0..).take(hashed.groups.values.len()) {
            let members = || hashed.members(value);
            let all = members().len() * members().len() <= 2 * MAX_PAIRS_OF_VALUES;
            let mut before = hashed.first(value);
            for (at, row) in members().enumerate().skip(1) {
                if all {
                    members().take(at).for_each(|earlier| self.test(earlier, row, pictures));
                } else {
                    self.test(hashed.first(value), row, pictures);
                    self.test(before, row, pictures);
                }
                before = row;
            }
        }
    }

    /// Tests the rows of values that are close.
    fn add(&mut self, close: ClosePairs, hashed: &HashedRows, pictures: &Pictures) {
        self.truncated |= close.truncated || !close.thorough;
        for (one, other, _) in close.pairs {
            let counts = hashed.members(one).len() * hashed.members(other).len();
            if counts > MAX_PAIRS_OF_VALUES {
                self.test(hashed.first(one), hashed.first(other), pictures);
                continue;
            }
            for row in hashed.members(one) {
                hashed.members(other).for_each(|other| self.test(row, other, pictures));
            }
        }
    }

    /// Adds rows by half of their embeddings' signs.
    fn add_by_signs(
        &mut self,
        hashed: &HashedRows,
        half: usize,
        sketches: &Sketches,
        pictures: &Pictures,
    ) {
        self.add_equal(hashed, pictures);
        let differ = |hashes: &[u64], one: u32, other: u32| {
            (hashes[one as usize] ^ hashes[other as usize]).count_ones()
        };
        let accept = |one: u32, other: u32| {
            let (one, other) = (hashed.first(one), hashed.first(other));
            differ(&sketches.signs[1 - half], one, other) <= MAX_OTHER_SIGN_BITS
                && differ(&pictures.hashes, one, other) <= MAX_EDITED_BITS
        };
        for max_distance in SIGN_BITS {
            let limits = SearchLimits {
                max_distance,
                max_pairs: MAX_PAIRS,
                max_comparisons: MAX_MORE_COMPARISONS,
                accept: &accept,
            };
            let close = close_pairs(&hashed.groups.values, limits);
            let is_enough = close.truncated || !close.thorough;
            self.add(close, hashed, pictures);
            if is_enough {
                break;
            }
        }
    }
}
