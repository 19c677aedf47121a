//! All pairs of 64-bit hashes that differ in few bits, among a million and more.
//!
//! Owns the search, not what a hash means or how close is alike. Upstream: perceptual hashes of
//! pictures. Downstream: groups of near-duplicates, by `disjoint_sets`.
//!
//! The search is multi-index hashing (Norouzi, Punjani & Fleet 2012, "Fast search in Hamming space
//! with multi-index hashing"): of the four bands of 16 bits of two hashes that differ in at most 7
//! bits, one band differs in at most 1. So for each band the hashes are sorted into buckets by its
//! value, and each bucket is compared with itself and with the 16 buckets one bit away; up to a
//! distance of 3, with itself alone. Sorting by value brings equal hashes together first, so that
//! copies cost nothing.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

const BANDS: u32 = 4;
const BAND_BITS: u32 = u64::BITS / BANDS;
const BUCKETS: usize = 1 << BAND_BITS;
/// The largest distance for which some band differs in at most one bit: two bits in each of four
/// bands make 8.
pub(crate) const MOST_DISTANCE: u32 = 2 * BANDS - 1;
/// Comparisons at most, some 20 s on two cores. A million random hashes take 5·10⁸.
const MOST_COMPARISONS: u64 = 20_000_000_000;
/// Hashes compared before looking whether any was close; lets the comparisons be vector code.
const STRIDE: usize = 16;
/// Buckets handed to the threads at a time; pairs are counted against the limit in between.
const BUCKETS_AT_A_TIME: usize = 1 << 10;
/// Hashes of a bucket that a thread takes at a time, so that a full bucket occupies all threads.
const HASHES_AT_A_TIME: usize = 1 << 10;

/// Hashes grouped by value.
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

/// Groups `hashes` by value; there are fewer than 2³² of them.
pub(crate) fn groups_of_equal(hashes: &[u64]) -> EqualGroups {
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

/// What `close_pairs` found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClosePairs {
    /// (lower index, higher index, distance in bits), ascending and each once.
    pub(crate) pairs: Vec<(u32, u32, u32)>,
    /// There are more pairs than the limit. Those given are the same in every run, but not the closest.
    pub(crate) truncated: bool,
    /// Nothing was left out for want of time. Otherwise some pairs may be missing: of many hashes that
    /// share a band, each was compared only with those most like it in the bits that follow.
    pub(crate) thorough: bool,
}

/// The pairs of `unique` that are at most `max_distance` bits apart; larger distances than
/// `MOST_DISTANCE` count as that. Runs on rayon's threads.
///
/// `unique` are distinct values, as of `EqualGroups::values`: pairs of equal ones are found too, but
/// many copies cost quadratic time. Beside the result it takes some 20 bytes a hash.
pub(crate) fn close_pairs(unique: &[u64], max_distance: u32, limit: usize) -> ClosePairs {
    close_pairs_within(unique, max_distance, limit, MOST_COMPARISONS)
}

fn close_pairs_within(
    unique: &[u64],
    max_distance: u32,
    limit: usize,
    most_comparisons: u64,
) -> ClosePairs {
    let max_distance = max_distance.min(MOST_DISTANCE);
    let mut found = ClosePairs { pairs: Vec::new(), truncated: false, thorough: true };
    let mut comparisons_left = most_comparisons;
    for band in 0..BANDS {
        let buckets = Buckets::new(unique, band, max_distance);
        // A band in order leaves more for the ones after it.
        let window = buckets.window(comparisons_left / u64::from(BANDS - band));
        comparisons_left = comparisons_left.saturating_sub(buckets.comparisons(window));
        found.thorough &= window == usize::MAX;
        for chunk in buckets.occupied.chunks(BUCKETS_AT_A_TIME) {
            buckets.search(chunk, window, limit, &mut found);
            if found.truncated {
                found.pairs.par_sort_unstable();
                return found;
            }
        }
    }
    found.pairs.par_sort_unstable();
    found
}

/// Hashes sorted by one of their bands.
struct Buckets {
    band: u32,
    max_distance: u32,
    /// Bits in which the band may differ: 0 or 1.
    band_distance: u32,
    /// Hashes turned so that the band comes first, ascending.
    turned: Vec<u64>,
    indices: Vec<u32>,
    /// Where each bucket starts, and the end.
    starts: Vec<usize>,
    /// The buckets with hashes in them, ascending.
    occupied: Vec<usize>,
}

impl Buckets {
    fn new(hashes: &[u64], band: u32, max_distance: u32) -> Self {
        let mut sorted: Vec<(u64, u32)> =
            hashes.iter().map(|hash| hash.rotate_left(band * BAND_BITS)).zip(0..).collect();
        sorted.par_sort_unstable();
        let (turned, indices): (Vec<u64>, Vec<u32>) = sorted.into_iter().unzip();
        let mut starts = vec![0; BUCKETS + 1];
        turned.iter().for_each(|&hash| starts[bucket_of(hash) + 1] += 1);
        let occupied = (0..BUCKETS).filter(|&bucket| starts[bucket + 1] > 0).collect();
        for bucket in 0..BUCKETS {
            starts[bucket + 1] += starts[bucket];
        }
        let band_distance = u32::from(max_distance >= BANDS);
        Self { band, max_distance, band_distance, turned, indices, starts, occupied }
    }

    fn bucket(&self, bucket: usize) -> Range<usize> {
        self.starts[bucket]..self.starts[bucket + 1]
    }

    /// Buckets above this one to compare it with; together these give each pair of buckets once.
    fn buckets_nearby(&self, bucket: usize) -> impl Iterator<Item = usize> {
        let bits = if self.band_distance == 0 { 0 } else { BAND_BITS };
        (0..bits).map(move |bit| bucket ^ (1 << bit)).filter(move |&other| other > bucket)
    }

    /// Hashes of a bucket that each one is compared with at most, so that there are no more than
    /// `most_comparisons`; `usize::MAX` where that needs no bound.
    fn window(&self, most_comparisons: u64) -> usize {
        if self.comparisons(usize::MAX) <= most_comparisons {
            return usize::MAX;
        }
        let (mut within, mut above) = (1, self.turned.len());
        while above - within > 1 {
            let middle = within.midpoint(above);
            if self.comparisons(middle) <= most_comparisons {
                within = middle;
            } else {
                above = middle;
            }
        }
        within
    }

    fn comparisons(&self, window: usize) -> u64 {
        let product = |length: usize, other: usize| length as u64 * other.min(window) as u64;
        self.occupied
            .par_iter()
            .map(|&bucket| {
                let length = self.bucket(bucket).len();
                let own = product(length, length.saturating_sub(1) / 2);
                let nearby = self.buckets_nearby(bucket);
                own + nearby.map(|other| product(length, self.bucket(other).len())).sum::<u64>()
            })
            .sum()
    }

    /// Adds the pairs whose lower bucket is one of `chunk`, up to `limit` pairs in all.
    fn search(&self, chunk: &[usize], window: usize, limit: usize, found: &mut ClosePairs) {
        let left = limit - found.pairs.len();
        let counted = AtomicUsize::new(0);
        let parts: Vec<(usize, Range<usize>)> = chunk
            .iter()
            .flat_map(|&bucket| {
                let own = self.bucket(bucket);
                let firsts = own.clone().step_by(HASHES_AT_A_TIME);
                firsts.map(move |first| (bucket, first..own.end.min(first + HASHES_AT_A_TIME)))
            })
            .collect();
        let pairs: Vec<Vec<(u32, u32, u32)>> = parts
            .par_iter()
            .map(|(bucket, positions)| {
                let mut pairs = Vec::new();
                self.search_part(*bucket, positions.clone(), window, &mut |pair| {
                    pairs.push(pair);
                    counted.fetch_add(1, Ordering::Relaxed) < left
                });
                pairs
            })
            .collect();
        if counted.into_inner() <= left {
            found.pairs.extend(pairs.into_iter().flatten());
            return;
        }
        // The threads stopped somewhere; one after another the parts always give the same pairs.
        drop(pairs);
        found.truncated = true;
        for (bucket, positions) in parts {
            let more = self.search_part(bucket, positions, window, &mut |pair| {
                let more = found.pairs.len() < limit;
                if more {
                    found.pairs.push(pair);
                }
                more
            });
            if !more {
                return;
            }
        }
    }

    /// Calls `visit` for each close pair of these hashes of a bucket and those after them there, or
    /// those of the buckets nearby, until it returns false; whether it never did.
    fn search_part(
        &self,
        bucket: usize,
        positions: Range<usize>,
        window: usize,
        visit: &mut dyn FnMut((u32, u32, u32)) -> bool,
    ) -> bool {
        let end = self.bucket(bucket).end;
        for position in positions.clone() {
            let after = position + 1..end.min((position + 1).saturating_add(window));
            if !self.compare(position, after, visit) {
                return false;
            }
        }
        for nearby in self.buckets_nearby(bucket) {
            let other = self.bucket(nearby);
            for position in positions.clone() {
                let others = self.most_alike(position, nearby, other.clone(), window);
                if !self.compare(position, others, visit) {
                    return false;
                }
            }
        }
        true
    }

    /// The `window` hashes of another bucket about where this hash would be if its band were theirs.
    fn most_alike(
        &self,
        position: usize,
        bucket: usize,
        other: Range<usize>,
        window: usize,
    ) -> Range<usize> {
        if other.len() <= window {
            return other;
        }
        let rest = self.turned[position] & (u64::MAX >> BAND_BITS);
        let moved = (bucket as u64) << (u64::BITS - BAND_BITS) | rest;
        let place = self.turned[other.clone()].partition_point(|&hash| hash < moved);
        let first = place.saturating_sub(window / 2).min(other.len() - window);
        other.start + first..other.start + first + window
    }

    fn compare(
        &self,
        position: usize,
        others: Range<usize>,
        visit: &mut dyn FnMut((u32, u32, u32)) -> bool,
    ) -> bool {
        let hash = self.turned[position];
        let mut first = others.start;
        for stride in self.turned[others].chunks(STRIDE) {
            let close = |other: &u64| (hash ^ other).count_ones() <= self.max_distance;
            if stride.iter().fold(false, |any, other| any | close(other)) {
                for (other, offset) in stride.iter().zip(0..) {
                    let difference = hash ^ other;
                    if close(other) && self.is_first_band(difference) {
                        let (a, b) = (self.indices[position], self.indices[first + offset]);
                        if !visit((a.min(b), a.max(b), difference.count_ones())) {
                            return false;
                        }
                    }
                }
            }
            first += stride.len();
        }
        true
    }

    /// Whether no earlier band has found the pair with this difference already.
    fn is_first_band(&self, turned_difference: u64) -> bool {
        let difference = turned_difference.rotate_right(self.band * BAND_BITS);
        (0..self.band).all(|band| {
            let of_band = difference.rotate_left(band * BAND_BITS) >> (u64::BITS - BAND_BITS);
            of_band.count_ones() > self.band_distance
        })
    }
}

fn bucket_of(turned: u64) -> usize {
    (turned >> (u64::BITS - BAND_BITS)) as usize
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_pcg::Pcg64;

    use super::*;

    fn by_brute_force(hashes: &[u64], max_distance: u32) -> Vec<(u32, u32, u32)> {
        let mut pairs = Vec::new();
        for (a, hash) in hashes.iter().enumerate() {
            for (b, other) in hashes.iter().enumerate().skip(a + 1) {
                let distance = (hash ^ other).count_ones();
                if distance <= max_distance {
                    pairs.push((a as u32, b as u32, distance));
                }
            }
        }
        pairs
    }

    /// Distinct hashes in clusters: a few random ones, each with up to 9 bits turned over.
    fn clustered(count: usize, clusters: usize, random: &mut Pcg64) -> Vec<u64> {
        let centres: Vec<u64> = (0..clusters).map(|_| random.random()).collect();
        let mut hashes: Vec<u64> = (0..count)
            .map(|_| {
                let flips = random.random_range(0..10);
                (0..flips).fold(centres[random.random_range(0..clusters)], |hash, _| {
                    hash ^ (1 << random.random_range(0..64))
                })
            })
            .collect();
        hashes.sort_unstable();
        hashes.dedup();
        hashes
    }

    #[test]
    fn pairs_are_those_of_brute_force() {
        let mut random = Pcg64::seed_from_u64(1);
        for (count, clusters) in [(0, 1), (1, 1), (2, 1), (500, 1), (700, 30), (700, 700)] {
            let hashes = clustered(count, clusters, &mut random);
            for max_distance in 0..=7 {
                let found = close_pairs(&hashes, max_distance, usize::MAX);
                assert!(found.thorough && !found.truncated);
                assert_eq!(found.pairs, by_brute_force(&hashes, max_distance));
            }
        }
    }

    #[test]
    fn few_distinct_bits_fill_few_buckets_and_lose_no_pair() {
        let mut random = Pcg64::seed_from_u64(2);
        for mask in [0x1fff, 0x0101_0101_0101_0101, 0xffff_0000_0000_000f] {
            let mut hashes: Vec<u64> = (0..600).map(|_| random.random::<u64>() & mask).collect();
            hashes.sort_unstable();
            hashes.dedup();
            for max_distance in [0, 3, 4, 7] {
                let found = close_pairs(&hashes, max_distance, usize::MAX);
                assert_eq!(found.pairs, by_brute_force(&hashes, max_distance));
            }
        }
    }

    #[test]
    fn larger_distances_count_as_the_largest_searched() {
        let hashes = [0, 0x7f, 0xff];
        let pairs = vec![(0, 1, 7), (1, 2, 1)];
        assert_eq!(close_pairs(&hashes, 64, 9).pairs, pairs);
        assert_eq!(close_pairs(&hashes, MOST_DISTANCE, 9).pairs, pairs);
    }

    #[test]
    fn limit_bounds_the_pairs_and_gives_the_same_ones_each_time() {
        let hashes = clustered(600, 3, &mut Pcg64::seed_from_u64(3));
        let all = by_brute_force(&hashes, 7);
        for limit in [0, 1, 100, all.len() - 1, all.len()] {
            let found = close_pairs(&hashes, 7, limit);
            assert_eq!(found.pairs.len(), limit);
            assert_eq!(found.truncated, limit < all.len());
            assert!(found.pairs.iter().all(|pair| all.contains(pair)));
            assert_eq!(found, close_pairs(&hashes, 7, limit));
        }
    }

    #[test]
    fn bounded_work_finds_most_pairs_and_says_that_some_may_be_missing() {
        // All share three bands; only the last tells them apart, in runs of neighbouring values.
        let hashes: Vec<u64> = (0..3000).map(|value| 0xabcd_ef01_2345_0000 | value).collect();
        let all = by_brute_force(&hashes, 2);
        let found = close_pairs_within(&hashes, 2, usize::MAX, 4_000_000);
        assert!(!found.thorough && !found.truncated);
        assert!(found.pairs.len() > all.len() / 2, "{} of {}", found.pairs.len(), all.len());
        let thorough = close_pairs_within(&hashes, 2, usize::MAX, 40_000_000);
        assert!(thorough.thorough);
        assert_eq!(thorough.pairs, all);
    }

    #[test]
    fn equal_hashes_are_grouped() {
        let groups = groups_of_equal(&[7, 3, 7, u64::MAX, 3, 7]);
        assert_eq!(groups.values, [3, 7, u64::MAX]);
        assert_eq!(groups.members(0), [1, 4]);
        assert_eq!(groups.members(1), [0, 2, 5]);
        assert_eq!(groups.members(2), [3]);
        assert!(groups_of_equal(&[]).values.is_empty());
    }
}
