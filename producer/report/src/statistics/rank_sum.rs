//! The rank-sum test: which groups have larger or smaller values than all the others.
//!
//! Owns the test and the correction for many tests, not what is tested. Upstream: one number an
//! image, and the group of each image. Downstream: the findings.
//!
//! The test is Mann & Whitney's U (1947, "On a test of whether one of two random variables is
//! stochastically larger than the other") by its normal approximation. The correction is Benjamini
//! & Hochberg's (1995, "Controlling the false discovery rate").

use rayon::prelude::*;
use statrs::function::erf::erfc;

/// The q-value below which a difference counts as real: one in a hundred of them is by chance.
pub(crate) const SIGNIFICANT_Q: f64 = 0.01;

/// The test of one group's values against the values of all the others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RankSumTest {
    /// The number of values in the group.
    pub(crate) count: u64,
    /// The probability, 0 to 1, that a value of the group is larger than one of the rest; a tie
    /// counts half. 0.5 means no difference. It is U over its maximum, and the area under the ROC
    /// curve.
    pub(crate) effect: f64,
    /// The two-sided p-value, 0 to 1, corrected for ties and continuity. The approximation needs
    /// some 10 values on either side. Values below about 1e-300 become 0.
    pub(crate) p: f64,
}

impl RankSumTest {
    /// No difference: the result for a group that is empty, or that has no rest to compare with.
    fn no_difference(count: u64) -> Self {
        Self { count, effect: 0.5, p: 1.0 }
    }
}

/// Tests each group in 0..`groups` against all other values. Sorts the values only once.
///
/// `group_of` has the group of each value. Groups from `groups` on count among the rest, and are
/// not tested themselves. NaN is left out. The result is that of `scipy.stats.mannwhitneyu(group,
/// rest, method="asymptotic")`. Runs on rayon's threads.
pub(crate) fn test_against_rest(
    values: &[f32],
    group_of: &[u32],
    groups: usize,
) -> Vec<RankSumTest> {
    let mut sorted: Vec<(f32, u32)> = values
        .iter()
        .zip(group_of)
        .filter(|(value, _)| !value.is_nan())
        // Adding 0 turns −0 into 0, so that the two are sorted as equal.
        .map(|(&value, &group)| (value + 0.0, group))
        .collect();
    sorted.par_sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let mut counts = vec![0u64; groups];
    let mut rank_sums = vec![0.0; groups];
    let mut ties = 0.0;
    let mut before = 0.0;
    for equal in sorted.chunk_by(|a, b| a.0 == b.0) {
        let length = equal.len() as f64;
        let mean_rank = before + (length + 1.0) / 2.0;
        for &(_, group) in equal {
            if let Some(count) = counts.get_mut(group as usize) {
                *count += 1;
                rank_sums[group as usize] += mean_rank;
            }
        }
        ties += length * (length * length - 1.0);
        before += length;
    }
    let tests = counts.into_iter().zip(rank_sums);
    tests.map(|(count, rank_sum)| test_group(count, rank_sum, before, ties)).collect()
}

/// The test of a group of `count` values whose ranks among all `total` values add up to `rank_sum`.
/// `ties` is the sum of `t³ − t` over all runs of `t` equal values.
fn test_group(count: u64, rank_sum: f64, total: f64, ties: f64) -> RankSumTest {
    let inside = count as f64;
    let outside = total - inside;
    if count == 0 || outside < 1.0 {
        return RankSumTest::no_difference(count);
    }
    let u = rank_sum - inside * (inside + 1.0) / 2.0;
    let pairs = inside * outside;
    let variance = pairs / 12.0 * (total + 1.0 - ties / (total * (total - 1.0)));
    let distance = (u - pairs / 2.0).abs() - 0.5;
    // If all values are equal, the variance is 0, or below 0 by rounding.
    let p = if variance > 0.0 && distance > 0.0 {
        erfc(distance / (2.0 * variance).sqrt()).clamp(0.0, 1.0)
    } else {
        1.0
    };
    RankSumTest { count, effect: (u / pairs).clamp(0.0, 1.0), p }
}

/// The q-value of each p-value: the smallest false discovery rate at which the test counts as a
/// discovery (Benjamini & Hochberg 1995). NaN stays NaN and does not count as a test.
pub(crate) fn q_values(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).filter(|&index| !p[index].is_nan()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let tests = order.len() as f64;
    let mut q = vec![f64::NAN; p.len()];
    let mut smallest = 1.0f64;
    for (below, &index) in order.iter().enumerate().rev() {
        smallest = smallest.min(p[index] * tests / (below + 1) as f64);
        q[index] = smallest;
    }
    q
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_near(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 1e-9 * expected.abs(), "{found} is not {expected}");
    }

    /// From scipy 1.17.1:
    /// ```python
    /// for g in range(3):
    ///     a = [v for v, h in zip(values, group) if h == g]
    ///     b = [v for v, h in zip(values, group) if h != g]
    ///     r = scipy.stats.mannwhitneyu(a, b, method="asymptotic")
    ///     print(len(a), r.statistic / (len(a) * len(b)), r.pvalue)
    /// ```
    #[test]
    fn few_values_with_ties_are_tested_as_by_scipy() {
        let values = [0.5, 0.5, 0.25, 1.0, 0.0, 0.75, 0.5, 0.125, 2.0, 1.0, 0.25, 3.0];
        let group = [0, 1, 0, 2, 0, 1, 2, 0, 2, 2, 1, 2];
        let expected = [
            (4, 0.078125, 0.025649924720993835),
            (3, 0.42592592592592593, 0.7792427821970063),
            (5, 0.9428571428571428, 0.013818184103990466),
        ];
        for (found, (count, effect, p)) in
            test_against_rest(&values, &group, 3).iter().zip(expected)
        {
            assert_eq!(found.count, count);
            assert_near(found.effect, effect);
            assert_near(found.p, p);
        }
    }

    /// From scipy 1.17.1:
    /// ```python
    /// i = numpy.arange(3000)
    /// v = i * 7919 % 3001 % 500 + (i % 3 == 0) * 125
    /// for g in range(3):
    ///     a, b = v[i % 3 == g], v[i % 3 != g]
    ///     r = scipy.stats.mannwhitneyu(a, b, method="asymptotic")
    ///     print(r.statistic / (len(a) * len(b)), r.pvalue)
    /// ```
    #[test]
    fn tiny_p_values_are_those_of_scipy() {
        let group: Vec<u32> = (0..3000).map(|i| i % 3).collect();
        let values: Vec<f32> = (0..3000)
            .map(|i| (i * 7919 % 3001 % 500 + if i % 3 == 0 { 125 } else { 0 }) as f32)
            .collect();
        let expected = [
            (0.735398, 2.2319932340758386e-98),
            (0.37364475, 1.3170476106151428e-29),
            (0.39095725, 1.8184735384905866e-22),
        ];
        for (found, (effect, p)) in test_against_rest(&values, &group, 3).iter().zip(expected) {
            assert_near(found.effect, effect);
            assert_near(found.p, p);
        }
    }

    #[test]
    fn far_apart_groups_have_a_p_value_of_zero_and_not_less() {
        let values: Vec<f32> = (0..200_000).map(|i| i as f32).collect();
        let group: Vec<u32> = (0..200_000).map(|i| u32::from(i >= 100_000)).collect();
        let none = RankSumTest { count: 100_000, effect: 0.0, p: 0.0 };
        let all = RankSumTest { effect: 1.0, ..none };
        assert_eq!(test_against_rest(&values, &group, 2), [none, all]);
    }

    #[test]
    fn groups_without_values_or_without_a_rest_say_nothing() {
        let none = |count| RankSumTest { count, effect: 0.5, p: 1.0 };
        assert_eq!(test_against_rest(&[], &[], 2), [none(0), none(0)]);
        assert_eq!(test_against_rest(&[1.0, 2.0], &[1, 1], 2), [none(0), none(2)]);
        assert_eq!(test_against_rest(&[3.0; 6], &[0, 0, 1, 1, 1, 0], 2), [none(3), none(3)]);
        assert_eq!(test_against_rest(&[0.0, -0.0], &[0, 1], 2), [none(1), none(1)]);
    }

    #[test]
    fn nan_is_left_out_and_other_groups_count_among_the_rest() {
        let values = [1.0, f32::NAN, 2.0, f32::INFINITY, 4.0, f32::NEG_INFINITY];
        let found = test_against_rest(&values, &[0, 0, 0, 9, 9, 9], 1);
        assert_eq!(found, test_against_rest(&[1.0, 2.0, 6.0, 4.0, 0.0], &[0, 0, 1, 1, 1], 1));
        assert_eq!(found[0].count, 2);
    }

    /// From scipy 1.17.1: `scipy.stats.false_discovery_control(p).tolist()`
    #[test]
    fn q_values_are_those_of_scipy() {
        let p = [0.01, 0.04, f64::NAN, 0.03, 0.005, 0.9, 0.02, 0.04, 1.0, 1e-30];
        let expected = [
            0.03,
            0.051428571428571435,
            f64::NAN,
            0.051428571428571435,
            0.0225,
            1.0,
            0.045,
            0.051428571428571435,
            1.0,
            9.000000000000001e-30,
        ];
        for (found, expected) in q_values(&p).into_iter().zip(expected) {
            if expected.is_nan() {
                assert!(found.is_nan());
            } else {
                assert_near(found, expected);
            }
        }
        assert!(q_values(&[]).is_empty());
    }
}
