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
//! alone. Equal hashes are grouped first ([`group_equal_hashes`]), so that copies cost nothing.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

const BANDS: u32 = 4;
const BAND_BITS: u32 = u64::BITS / BANDS;
const BUCKETS: usize = 1 << BAND_BITS;
/// The largest distance at which one band is sure to differ in at most one bit: 8 bits could be two
/// in each of the four bands.
pub(crate) const MAX_DISTANCE: u32 = 2 * BANDS - 1;
/// The most comparisons: some 20 s on two cores. A million random hashes take 5·10⁸.
const MAX_COMPARISONS: u64 = 20_000_000_000;
/// Hashes that are compared before asking whether any of them was close, so that the comparisons
/// become vector code.
const STRIDE: usize = 16;
/// Buckets that the threads search at a time. The limit on pairs is checked in between.
const BUCKETS_AT_A_TIME: usize = 1 << 10;
/// Hashes of a bucket that a thread takes at a time, so that a full bucket is shared by all
/// threads.
const HASHES_AT_A_TIME: usize = 1 << 10;

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

/// What [`close_pairs`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClosePairs {
    /// (lower index, higher index, distance in bits), ascending, each pair once.
    pub(crate) pairs: Vec<(u32, u32, u32)>,
    /// Whether there are more pairs than the limit. The pairs given are the same each time, but not
    /// the closest.
    pub(crate) truncated: bool,
    /// Whether all hashes were compared that had to be. If not, there was not enough time, and some
    /// pairs may be missing: of the hashes that share a band, each was compared only with the most
    /// similar ones in the bits after the band.
    pub(crate) thorough: bool,
}

/// The pairs of `unique` that are at most `max_distance` bits apart, up to `limit` pairs. Distances
/// above [`MAX_DISTANCE`] count as `MAX_DISTANCE`. Runs on rayon's threads.
///
/// `unique` are distinct hashes, such as `EqualGroups::values`. Pairs of equal hashes are found as
/// well, but many copies take quadratic time. The search takes some 20 bytes a hash besides the
/// result.
pub(crate) fn close_pairs(unique: &[u64], max_distance: u32, limit: usize) -> ClosePairs {
    close_pairs_within(unique, max_distance, limit, MAX_COMPARISONS)
}

fn close_pairs_within(
    unique: &[u64],
    max_distance: u32,
    limit: usize,
    max_comparisons: u64,
) -> ClosePairs {
    let max_distance = max_distance.min(MAX_DISTANCE);
    let mut found = ClosePairs { pairs: Vec::new(), truncated: false, thorough: true };
    let mut comparisons_left = max_comparisons;
    for band in 0..BANDS {
        let buckets = HashBuckets::new(unique, band, max_distance);
        // Bands that need fewer comparisons leave more of them for the bands after.
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

/// Hashes sorted into buckets by one of their bands.
struct HashBuckets {
    band: u32,
    max_distance: u32,
    /// The number of bits in which the band may differ: 0 or 1.
    band_distance: u32,
    /// The hashes, rotated so that the band comes first, ascending.
    rotated: Vec<u64>,
    /// By position in `rotated`, the index of the hash.
    indices: Vec<u32>,
    /// By bucket, the position of its first hash; one more for the end.
    starts: Vec<usize>,
    /// The buckets that hold hashes, ascending.
    occupied: Vec<usize>,
}

impl HashBuckets {
    fn new(hashes: &[u64], band: u32, max_distance: u32) -> Self {
        let mut sorted: Vec<(u64, u32)> =
            hashes.iter().map(|hash| hash.rotate_left(band * BAND_BITS)).zip(0..).collect();
        sorted.par_sort_unstable();
        let (rotated, indices): (Vec<u64>, Vec<u32>) = sorted.into_iter().unzip();
        let mut starts = vec![0; BUCKETS + 1];
        rotated.iter().for_each(|&hash| starts[bucket_of(hash) + 1] += 1);
        let occupied = (0..BUCKETS).filter(|&bucket| starts[bucket + 1] > 0).collect();
        for bucket in 0..BUCKETS {
            starts[bucket + 1] += starts[bucket];
        }
        let band_distance = u32::from(max_distance >= BANDS);
        Self { band, max_distance, band_distance, rotated, indices, starts, occupied }
    }

    /// The positions of the hashes of a bucket.
    fn positions(&self, bucket: usize) -> Range<usize> {
        self.starts[bucket]..self.starts[bucket + 1]
    }

    /// The buckets to compare this one with. They are above it, so that each pair of buckets comes
    /// up once.
    fn buckets_nearby(&self, bucket: usize) -> impl Iterator<Item = usize> {
        let bits = if self.band_distance == 0 { 0 } else { BAND_BITS };
        (0..bits).map(move |bit| bucket ^ (1 << bit)).filter(move |&other| other > bucket)
    }

    /// The number of hashes of a bucket that each hash is compared with at most, so that there are
    /// at most `max_comparisons`; `usize::MAX` if no such bound is needed.
    fn window(&self, max_comparisons: u64) -> usize {
        if self.comparisons(usize::MAX) <= max_comparisons {
            return usize::MAX;
        }
        let (mut within, mut above) = (1, self.rotated.len());
        while above - within > 1 {
            let middle = within.midpoint(above);
            if self.comparisons(middle) <= max_comparisons {
                within = middle;
            } else {
                above = middle;
            }
        }
        within
    }

    /// The number of comparisons with this window.
    fn comparisons(&self, window: usize) -> u64 {
        let product = |length: usize, other: usize| length as u64 * other.min(window) as u64;
        self.occupied
            .par_iter()
            .map(|&bucket| {
                let length = self.positions(bucket).len();
                let own = product(length, length.saturating_sub(1) / 2);
                let nearby = self.buckets_nearby(bucket);
                own + nearby.map(|other| product(length, self.positions(other).len())).sum::<u64>()
            })
            .sum()
    }

    /// Adds the pairs whose lower bucket is one of `chunk`, until there are `limit` pairs in all.
    fn search(&self, chunk: &[usize], window: usize, limit: usize, found: &mut ClosePairs) {
        let left = limit - found.pairs.len();
        let counted = AtomicUsize::new(0);
        let parts: Vec<(usize, Range<usize>)> = chunk
            .iter()
            .flat_map(|&bucket| {
                let own = self.positions(bucket);
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
        // Which pairs the threads found before they stopped is a matter of chance. Searching the
        // parts one after the other gives the same pairs each time.
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

    /// Searches for close hashes of each of these positions of a bucket: among the later positions
    /// of the bucket, and in the buckets nearby. Calls `visit` for each close pair until `visit`
    /// returns false. Returns whether it never did.
    fn search_part(
        &self,
        bucket: usize,
        positions: Range<usize>,
        window: usize,
        visit: &mut dyn FnMut((u32, u32, u32)) -> bool,
    ) -> bool {
        let end = self.positions(bucket).end;
        for position in positions.clone() {
            let after = position + 1..end.min((position + 1).saturating_add(window));
            if !self.compare(position, after, visit) {
                return false;
            }
        }
        for nearby in self.buckets_nearby(bucket) {
            let other = self.positions(nearby);
            for position in positions.clone() {
                let others = self.most_alike(position, nearby, other.clone(), window);
                if !self.compare(position, others, visit) {
                    return false;
                }
            }
        }
        true
    }

    /// The `window` positions of another bucket whose hashes are most like this one in the bits
    /// after the band.
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
        let rest = self.rotated[position] & (u64::MAX >> BAND_BITS);
        let moved = (bucket as u64) << (u64::BITS - BAND_BITS) | rest;
        let middle = self.rotated[other.clone()].partition_point(|&hash| hash < moved);
        let first = middle.saturating_sub(window / 2).min(other.len() - window);
        other.start + first..other.start + first + window
    }

    /// Compares one hash with the others, and calls `visit` for each close pair that no earlier
    /// band has found. Returns false as soon as `visit` does.
    fn compare(
        &self,
        position: usize,
        others: Range<usize>,
        visit: &mut dyn FnMut((u32, u32, u32)) -> bool,
    ) -> bool {
        let hash = self.rotated[position];
        let mut first = others.start;
        for stride in self.rotated[others].chunks(STRIDE) {
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

    /// Whether no earlier band has found the pair with this difference.
    fn is_first_band(&self, rotated_difference: u64) -> bool {
        let difference = rotated_difference.rotate_right(self.band * BAND_BITS);
        (0..self.band).all(|band| {
            let of_band = difference.rotate_left(band * BAND_BITS) >> (u64::BITS - BAND_BITS);
            of_band.count_ones() > self.band_distance
        })
    }
}

fn bucket_of(rotated: u64) -> usize {
    (rotated >> (u64::BITS - BAND_BITS)) as usize
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

    /// Distinct hashes in clusters: a few random ones, each with up to 9 bits flipped.
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
        assert_eq!(close_pairs(&hashes, MAX_DISTANCE, 9).pairs, pairs);
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
        let groups = group_equal_hashes(&[7, 3, 7, u64::MAX, 3, 7]);
        assert_eq!(groups.values, [3, 7, u64::MAX]);
        assert_eq!(groups.members(0), [1, 4]);
        assert_eq!(groups.members(1), [0, 2, 5]);
        assert_eq!(groups.members(2), [3]);
        assert!(group_equal_hashes(&[]).values.is_empty());
    }
}
