//! The searches compared with brute force.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

use super::*;

fn limits(max_distance: u32, max_pairs: usize, max_comparisons: u64) -> SearchLimits<'static> {
    SearchLimits { max_distance, max_pairs, max_comparisons, accept: &|_, _| true }
}

fn pairs_of(hashes: &[u64], max_distance: u32, max_pairs: usize) -> ClosePairs {
    close_pairs(hashes, limits(max_distance, max_pairs, u64::MAX))
}

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
        for max_distance in 0..=MAX_DISTANCE {
            let found = pairs_of(&hashes, max_distance, usize::MAX);
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
        for max_distance in [0, 3, 4, 7, 8, 11] {
            let found = pairs_of(&hashes, max_distance, usize::MAX);
            assert_eq!(found.pairs, by_brute_force(&hashes, max_distance));
        }
    }
}

#[test]
fn larger_distances_count_as_the_largest_searched() {
    let hashes = [0, 0x7ff, 0xfff];
    let pairs = vec![(0, 1, 11), (1, 2, 1)];
    assert_eq!(pairs_of(&hashes, 64, 9).pairs, pairs);
    assert_eq!(pairs_of(&hashes, MAX_DISTANCE, 9).pairs, pairs);
}

#[test]
fn limit_bounds_the_pairs_and_gives_the_same_ones_each_time() {
    let hashes = clustered(600, 3, &mut Pcg64::seed_from_u64(3));
    let all = by_brute_force(&hashes, 7);
    for limit in [0, 1, 100, all.len() - 1, all.len()] {
        let found = pairs_of(&hashes, 7, limit);
        assert_eq!(found.pairs.len(), limit);
        assert_eq!(found.truncated, limit < all.len());
        assert!(found.pairs.iter().all(|pair| all.contains(pair)));
        assert_eq!(found, pairs_of(&hashes, 7, limit));
    }
}

#[test]
fn bounded_work_finds_most_pairs_and_says_that_some_may_be_missing() {
    // All share three bands; only the last tells them apart, in runs of neighbouring values.
    let hashes: Vec<u64> = (0..3000).map(|value| 0xabcd_ef01_2345_0000 | value).collect();
    let all = by_brute_force(&hashes, 2);
    let found = close_pairs(&hashes, limits(2, usize::MAX, 4_000_000));
    assert!(!found.thorough && !found.truncated);
    assert!(found.pairs.len() > all.len() / 2, "{} of {}", found.pairs.len(), all.len());
    let thorough = close_pairs(&hashes, limits(2, usize::MAX, 40_000_000));
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

#[test]
fn pairs_between_two_sets_are_those_of_brute_force() {
    let mut random = Pcg64::seed_from_u64(4);
    let hashes = clustered(400, 20, &mut random);
    let others: Vec<u64> =
        clustered(300, 20, &mut random).into_iter().chain(hashes.iter().map(|h| h ^ 3)).collect();
    for max_distance in [0, 3, 5, 7, 11] {
        let mut expected = Vec::new();
        for (a, hash) in hashes.iter().enumerate() {
            for (b, other) in others.iter().enumerate() {
                let distance = (hash ^ other).count_ones();
                if distance <= max_distance {
                    expected.push((a as u32, b as u32, distance));
                }
            }
        }
        let limits = limits(max_distance, usize::MAX, u64::MAX);
        assert_eq!(close_pairs_between(&hashes, &others, limits).pairs, expected);
    }
}

#[test]
fn only_accepted_pairs_count_towards_the_limit() {
    let hashes = clustered(600, 3, &mut Pcg64::seed_from_u64(5));
    let accept = |one: u32, other: u32| (one + other).is_multiple_of(3);
    let expected: Vec<_> =
        by_brute_force(&hashes, 7).into_iter().filter(|pair| accept(pair.0, pair.1)).collect();
    let limits = SearchLimits { accept: &accept, ..limits(7, expected.len(), u64::MAX) };
    let found = close_pairs(&hashes, limits);
    assert!(!found.truncated);
    assert_eq!(found.pairs, expected);
}
