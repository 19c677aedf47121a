//! Hashes in buckets by the value of a band, and the search among the buckets of one band.
//!
//! Upstream: [`close_pairs`](super::close_pairs), which goes from band to band.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::{BANDS, ClosePairs, SearchLimits};

const BAND_BITS: u32 = u64::BITS / BANDS;
const BUCKETS: usize = 1 << BAND_BITS;
/// Hashes that are compared before asking whether any of them was close, so that the comparisons
/// become vector code.
const STRIDE: usize = 16;
/// Buckets that the threads search at a time. The limit on pairs is checked in between.
pub(super) const BUCKETS_AT_A_TIME: usize = 1 << 10;
/// Hashes of a bucket that a thread takes at a time, so that a full bucket is shared by all
/// threads.
const HASHES_AT_A_TIME: usize = 1 << 10;

/// Hashes sorted into buckets by one of their bands.
pub(super) struct HashBuckets {
    /// The hashes, rotated so that the band comes first, ascending.
    rotated: Vec<u64>,
    /// By position in `rotated`, the index of the hash.
    indices: Vec<u32>,
    /// By bucket, the position of its first hash; one more for the end.
    starts: Vec<usize>,
    /// The buckets that hold hashes, ascending.
    pub(super) occupied: Vec<usize>,
}

impl HashBuckets {
    pub(super) fn new(hashes: &[u64], band: u32) -> Self {
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
        Self { rotated, indices, starts, occupied }
    }

    /// The positions of the hashes of a bucket.
    fn positions(&self, bucket: usize) -> Range<usize> {
        self.starts[bucket]..self.starts[bucket + 1]
    }
}

/// The search for pairs that are close in one band.
pub(super) struct PairSearch<'a> {
    from: &'a HashBuckets,
    to: &'a HashBuckets,
    /// Whether both are the same hashes, so that each pair would come up twice.
    is_within: bool,
    band: u32,
    limits: SearchLimits<'a>,
    /// The number of bits in which the band may differ: 0 to 2.
    band_distance: u32,
    /// The differences of a bucket to the others that it is compared with.
    differences: Vec<usize>,
    /// The number of hashes of a bucket that each hash is compared with at most; `usize::MAX` if
    /// no such bound is needed.
    pub(super) window: usize,
}

impl<'a> PairSearch<'a> {
    pub(super) fn new(
        from: &'a HashBuckets,
        to: Option<&'a HashBuckets>,
        band: u32,
        limits: SearchLimits<'a>,
    ) -> Self {
        let band_distance = limits.max_distance / BANDS;
        let differences = (1..BUCKETS).filter(|bits| bits.count_ones() <= band_distance).collect();
        Self {
            from,
            to: to.unwrap_or(from),
            is_within: to.is_none(),
            band,
            limits,
            band_distance,
            differences,
            window: usize::MAX,
        }
    }

    /// The buckets to compare this one with, besides its own. Among the same hashes they are above
    /// it, so that each pair of buckets comes up once.
    fn buckets_nearby(&self, bucket: usize) -> impl Iterator<Item = usize> {
        let nearby = self.differences.iter().map(move |difference| bucket ^ difference);
        nearby.filter(move |&other| !self.is_within || other > bucket)
    }

    /// Chooses the largest window with at most `max_comparisons`.
    pub(super) fn choose_window(&mut self, max_comparisons: u64) {
        self.window = usize::MAX;
        if self.comparisons(usize::MAX) <= max_comparisons {
            return;
        }
        let (mut within, mut above) = (1, self.to.rotated.len());
        while above - within > 1 {
            let middle = within.midpoint(above);
            if self.comparisons(middle) <= max_comparisons {
                within = middle;
            } else {
                above = middle;
            }
        }
        self.window = within;
    }

    /// The number of comparisons with this window.
    pub(super) fn comparisons(&self, window: usize) -> u64 {
        let product = |length: usize, other: usize| length as u64 * other.min(window) as u64;
        let of_bucket = |&bucket: &usize| {
            let length = self.from.positions(bucket).len();
            let own = match self.is_within {
                true => product(length, length.saturating_sub(1) / 2),
                false => product(length, self.to.positions(bucket).len()),
            };
            let nearby = self.buckets_nearby(bucket);
            own + nearby.map(|other| product(length, self.to.positions(other).len())).sum::<u64>()
        };
        self.from.occupied.par_iter().map(of_bucket).sum()
    }

    /// Adds the accepted pairs whose first bucket is one of `chunk`, until there are as many as the
    /// limit. `found_left` is the number of pairs that may still be found, accepted or not.
    pub(super) fn search(&self, chunk: &[usize], found_left: &mut usize, found: &mut ClosePairs) {
        let left = self.limits.max_pairs - found.pairs.len();
        let (counted, visited) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let parts: Vec<(usize, Range<usize>)> = chunk
            .iter()
            .flat_map(|&bucket| {
                let own = self.from.positions(bucket);
                let firsts = own.clone().step_by(HASHES_AT_A_TIME);
                firsts.map(move |first| (bucket, first..own.end.min(first + HASHES_AT_A_TIME)))
            })
            .collect();
        let pairs: Vec<Vec<(u32, u32, u32)>> = parts
            .par_iter()
            .map(|(bucket, positions)| {
                let mut pairs = Vec::new();
                self.search_part(*bucket, positions.clone(), &mut |pair| {
                    let accepted = (self.limits.accept)(pair.0, pair.1);
                    if accepted {
                        pairs.push(pair);
                    }
                    visited.fetch_add(1, Ordering::Relaxed) < *found_left
                        && (!accepted || counted.fetch_add(1, Ordering::Relaxed) < left)
                });
                pairs
            })
            .collect();
        let visited = visited.into_inner();
        if counted.into_inner() <= left && visited <= *found_left {
            *found_left -= visited;
            found.pairs.extend(pairs.into_iter().flatten());
            return;
        }
        // Which pairs the threads found before they stopped is a matter of chance. Searching the
        // parts one after the other gives the same pairs each time.
        drop(pairs);
        found.truncated = true;
        for (bucket, positions) in parts {
            let more = self.search_part(bucket, positions, &mut |pair| {
                if *found_left == 0 || found.pairs.len() == self.limits.max_pairs {
                    return false;
                }
                *found_left -= 1;
                if (self.limits.accept)(pair.0, pair.1) {
                    found.pairs.push(pair);
                }
                true
            });
            if !more {
                return;
            }
        }
    }

    /// Searches for close hashes of each of these positions of a bucket: in the same bucket, and in
    /// the buckets nearby. Calls `visit` for each close pair until `visit` returns false. Returns
    /// whether it never did.
    fn search_part(
        &self,
        bucket: usize,
        positions: Range<usize>,
        visit: &mut dyn FnMut((u32, u32, u32)) -> bool,
    ) -> bool {
        if self.is_within {
            let end = self.from.positions(bucket).end;
            for position in positions.clone() {
                let after = position + 1..end.min((position + 1).saturating_add(self.window));
                if !self.compare(position, after, visit) {
                    return false;
                }
            }
        }
        let own = Some(bucket).filter(|_| !self.is_within);
        for nearby in own.into_iter().chain(self.buckets_nearby(bucket)) {
            let other = self.to.positions(nearby);
            if other.is_empty() {
                continue;
            }
            for position in positions.clone() {
                let others = self.most_alike(position, nearby, other.clone());
                if !self.compare(position, others, visit) {
                    return false;
                }
            }
        }
        true
    }

    /// The `window` positions of another bucket whose hashes are most like this one in the bits
    /// after the band.
    fn most_alike(&self, position: usize, bucket: usize, other: Range<usize>) -> Range<usize> {
        if other.len() <= self.window {
            return other;
        }
        let rest = self.from.rotated[position] & (u64::MAX >> BAND_BITS);
        let moved = (bucket as u64) << (u64::BITS - BAND_BITS) | rest;
        let middle = self.to.rotated[other.clone()].partition_point(|&hash| hash < moved);
        let first = middle.saturating_sub(self.window / 2).min(other.len() - self.window);
        other.start + first..other.start + first + self.window
    }

    /// Compares one hash with the others, and calls `visit` for each close pair that no earlier
    /// band has found. Returns false as soon as `visit` does.
    fn compare(
        &self,
        position: usize,
        others: Range<usize>,
        visit: &mut dyn FnMut((u32, u32, u32)) -> bool,
    ) -> bool {
        let (hash, index) = (self.from.rotated[position], self.from.indices[position]);
        let mut first = others.start;
        for stride in self.to.rotated[others].chunks(STRIDE) {
            let close = |other: &u64| (hash ^ other).count_ones() <= self.limits.max_distance;
            if stride.iter().fold(false, |any, other| any | close(other)) {
                for (other, offset) in stride.iter().zip(0..) {
                    let difference = hash ^ other;
                    if close(other) && self.is_first_band(difference) {
                        let other = self.to.indices[first + offset];
                        let swap = self.is_within && other < index;
                        let (one, other) = if swap { (other, index) } else { (index, other) };
                        if !visit((one, other, difference.count_ones())) {
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
