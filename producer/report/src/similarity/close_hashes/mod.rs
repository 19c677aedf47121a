//! All pairs of 64-bit hashes that differ in few bits, among a million and more.
//!
//! Owns the search, not what a hash means or which distance counts as alike. Upstream: perceptual
//! hashes and signs of embeddings. Downstream: the search for duplicates.
//!
//! The search is multi-index hashing (Norouzi, Punjani & Fleet 2012, "Fast search in Hamming space
//! with multi-index hashing"). A hash has four bands of 16 bits. If two hashes differ in at most 7
//! bits, then one of their bands differs in at most 1 bit. So for each band the hashes are sorted
//! into buckets by the value of the band, and each bucket is compared with itself and with the 16
//! buckets whose value is one bit away. For distances up to 3, a bucket is compared with itself
//! alone; for distances up to 11, also with the 120 buckets that are two bits away. Equal hashes are
//! grouped first ([`group_equal_hashes`]), so that copies cost nothing.

mod buckets;
#[cfg(test)]
mod tests;

use rayon::prelude::*;

use self::buckets::{BUCKETS_AT_A_TIME, HashBuckets, PairSearch};

const BANDS: u32 = 4;
/// The largest distance that is searched: then one band is sure to differ in at most two bits.
pub(crate) const MAX_DISTANCE: u32 = 3 * BANDS - 1;
/// A search ends if it has found this many times as many pairs as its limit, most of which were
/// not accepted.
const FOUND_PER_ACCEPTED: usize = 4;

/// The indices of hashes, grouped by value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EqualGroups {
    /// The distinct values, ascending.
    pub(crate) values: Vec<u64>,
    starts: Vec<usize>,
    members: Vec<u32>,
}

impl EqualGroups {
    /// The indices, ascending, of the hashes equal to `values[value]`.
    pub(crate) fn members(&self, value: usize) -> &[u32] {
        &self.members[self.starts[value]..self.starts[value + 1]]
    }
}

/// Groups `hashes` by value. There are fewer than 2³² hashes.
pub(crate) fn group_equal_hashes(hashes: &[u64]) -> EqualGroups {
    let mut members: Vec<u32> = (0..).take(hashes.len()).collect();
    members.par_sort_unstable_by_key(|&index| (hashes[index as usize], index));
    let (mut values, mut starts) = (Vec::new(), Vec::new());
    for (position, &index) in members.iter().enumerate() {
        let hash = hashes[index as usize];
        if values.last() != Some(&hash) {
            values.push(hash);
            starts.push(position);
        }
    }
    starts.push(members.len());
    EqualGroups { values, starts, members }
}

/// What is searched for, and how much that may cost.
#[derive(Clone, Copy)]
pub(crate) struct SearchLimits<'a> {
    /// The most bits by which a pair differs. More than [`MAX_DISTANCE`] counts as that.
    pub(crate) max_distance: u32,
    /// The most pairs.
    pub(crate) max_pairs: usize,
    /// The most comparisons: 10⁹ take about a second on two cores. A million random hashes take
    /// 5·10⁸ for distances up to 7, and eight times as many for those up to 11.
    pub(crate) max_comparisons: u64,
    /// Whether a close pair, by its indices, is worth returning.
    pub(crate) accept: &'a (dyn Fn(u32, u32) -> bool + Sync),
}

/// What [`close_pairs`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClosePairs {
    /// (one index, other index, distance in bits), ascending, each pair once.
    pub(crate) pairs: Vec<(u32, u32, u32)>,
    /// Whether there are more pairs than the limit. The pairs given are the same each time, but not
    /// the closest.
    pub(crate) truncated: bool,
    /// Whether all hashes were compared that had to be. If not, there was not enough time, and some
    /// pairs may be missing: of the hashes that share a band, each was compared only with the most
    /// similar ones in the bits after the band.
    pub(crate) thorough: bool,
}

/// The close pairs of `unique`, each with the lower index first. Runs on rayon's threads.
///
/// `unique` are distinct hashes, such as `EqualGroups::values`. Pairs of equal hashes are found as
/// well, but many copies take quadratic time. The search takes some 20 bytes a hash besides the
/// result.
pub(crate) fn close_pairs(unique: &[u64], limits: SearchLimits<'_>) -> ClosePairs {
    search(unique, None, limits)
}

/// The close pairs of one of `hashes` and one of `others`. Takes 40 bytes a hash.
pub(crate) fn close_pairs_between(
    hashes: &[u64],
    others: &[u64],
    limits: SearchLimits<'_>,
) -> ClosePairs {
    search(hashes, Some(others), limits)
}

fn search(hashes: &[u64], others: Option<&[u64]>, mut limits: SearchLimits<'_>) -> ClosePairs {
    limits.max_distance = limits.max_distance.min(MAX_DISTANCE);
    let mut found = ClosePairs { pairs: Vec::new(), truncated: false, thorough: true };
    let mut comparisons_left = limits.max_comparisons;
    let mut found_left = limits.max_pairs.saturating_mul(FOUND_PER_ACCEPTED);
    for band in 0..BANDS {
        let from = HashBuckets::new(hashes, band);
        let to = others.map(|others| HashBuckets::new(others, band));
        let mut search = PairSearch::new(&from, to.as_ref(), band, limits);
        // Bands that need fewer comparisons leave more of them for the bands after.
        search.choose_window(comparisons_left / u64::from(BANDS - band));
        comparisons_left = comparisons_left.saturating_sub(search.comparisons(search.window));
        found.thorough &= search.window == usize::MAX;
        for chunk in from.occupied.chunks(BUCKETS_AT_A_TIME) {
            search.search(chunk, &mut found_left, &mut found);
            if found.truncated {
                found.pairs.par_sort_unstable();
                return found;
            }
        }
    }
    found.pairs.par_sort_unstable();
    found
}
