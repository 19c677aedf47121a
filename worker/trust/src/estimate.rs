//! Means and shares with 95 % confidence intervals, and verdicts from them.
//!
//! Does not know what the numbers measure. Downstream: `summary`.

use camshaft_common::trust::{Estimate, Verdict};
use statrs::distribution::{ContinuousCDF, StudentsT};

/// The confidence of every interval.
pub const CONFIDENCE: f64 = 0.95;
/// The standard normal distribution's 0.975 quantile.
const NORMAL_QUANTILE: f64 = 1.959_963_984_540_054;

/// The mean of independent values with Student's interval, `mean ± t·s/√n`; t is the 0.975 quantile
/// for n − 1 degrees of freedom. Fewer than two values have no interval.
#[must_use]
pub fn mean(values: &[f64]) -> Estimate {
    let count = values.len();
    let n = count as u64;
    if count == 0 {
        return Estimate { mean: None, low: None, high: None, n };
    }
    let mean = values.iter().sum::<f64>() / count as f64;
    if count == 1 {
        return Estimate { mean: Some(mean), low: None, high: None, n };
    }
    let degrees = (count - 1) as f64;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / degrees;
    let student = StudentsT::new(0.0, 1.0, degrees).expect("degrees of freedom are above zero");
    let quantile = student.inverse_cdf(0.5 + CONFIDENCE / 2.0);
    let half = quantile * (variance / count as f64).sqrt();
    Estimate { mean: Some(mean), low: Some(mean - half), high: Some(mean + half), n }
}

/// As [`mean`], for a quantity between `lowest` and `highest`: the interval is cut to that range.
#[must_use]
pub fn mean_within(values: &[f64], lowest: f64, highest: f64) -> Estimate {
    let estimate = mean(values);
    Estimate {
        low: estimate.low.map(|low| low.max(lowest)),
        high: estimate.high.map(|high| high.min(highest)),
        ..estimate
    }
}

/// The share of `true` among answers, with Wilson's score interval (1927). It stays within 0 and 1,
/// and has a length even if all answers are the same.
#[must_use]
pub fn proportion(answers: &[bool]) -> Estimate {
    let n = answers.len() as u64;
    if n == 0 {
        return Estimate { mean: None, low: None, high: None, n };
    }
    let count = n as f64;
    let share = answers.iter().filter(|&&yes| yes).count() as f64 / count;
    let z2 = NORMAL_QUANTILE.powi(2);
    let scale = 1.0 + z2 / count;
    let centre = (share + z2 / (2.0 * count)) / scale;
    let spread = share * (1.0 - share) / count + z2 / (4.0 * count * count);
    let half = NORMAL_QUANTILE * spread.sqrt() / scale;
    let (low, high) = ((centre - half).max(0.0), (centre + half).min(1.0));
    Estimate { mean: Some(share), low: Some(low), high: Some(high), n }
}

/// The difference of two shares of the same `n` things, of which `first_only` are counted by the first
/// share alone and `second_only` by the second alone. The interval is Agresti and Min's (2005): Wald's
/// after half a thing is added to each of the four cells, so that it has a length even without a
/// difference.
#[must_use]
pub fn paired_difference(first_only: u64, second_only: u64, n: u64) -> Estimate {
    if n == 0 {
        return Estimate { mean: None, low: None, high: None, n };
    }
    let (first, second, count) = (first_only as f64, second_only as f64, n as f64);
    let (added_first, added_second, added_count) = (first + 0.5, second + 0.5, count + 2.0);
    let difference = added_first - added_second;
    let variance = added_first + added_second - difference.powi(2) / added_count;
    let half = NORMAL_QUANTILE * variance.sqrt() / added_count;
    let middle = difference / added_count;
    Estimate {
        mean: Some((first - second) / count),
        low: Some((middle - half).max(-1.0)),
        high: Some((middle + half).min(1.0)),
        n,
    }
}

/// Passed if the whole interval is below `threshold`, failed if no part of it is.
#[must_use]
pub fn is_below(estimate: &Estimate, threshold: f64) -> Verdict {
    match (estimate.low, estimate.high) {
        (_, Some(high)) if high < threshold => Verdict::Passed,
        (Some(low), _) if low >= threshold => Verdict::Failed,
        _ => Verdict::Unclear,
    }
}

/// Passed if the whole interval is above `threshold`, failed if no part of it is.
#[must_use]
pub fn is_above(estimate: &Estimate, threshold: f64) -> Verdict {
    match (estimate.low, estimate.high) {
        (Some(low), _) if low > threshold => Verdict::Passed,
        (_, Some(high)) if high <= threshold => Verdict::Failed,
        _ => Verdict::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(actual: Option<f64>, expected: f64) {
        let actual = actual.unwrap();
        assert!((actual - expected).abs() < 1e-4, "{actual} is not {expected}");
    }

    #[test]
    fn students_interval_by_hand() {
        // s = 1, t(2) = 4.30265.
        let estimate = mean(&[1.0, 2.0, 3.0]);
        assert_close(estimate.mean, 2.0);
        assert_close(estimate.low, 2.0 - 4.302_65 / 3f64.sqrt());
        assert_close(estimate.high, 2.0 + 4.302_65 / 3f64.sqrt());
        assert_close(mean_within(&[1.0, 2.0, 3.0], 0.0, 3.0).low, 0.0);
        let same = mean(&[0.5; 4]);
        assert_eq!((same.low, same.high), (Some(0.5), Some(0.5)));
    }

    #[test]
    fn wilsons_interval_is_the_textbooks() {
        // 1 of 10 and 0 of 10: R's `prop.test(1, 10, correct = FALSE)`.
        let mut answers = [false; 10];
        let none = proportion(&answers);
        assert_close(none.low, 0.0);
        assert_close(none.high, 0.277_53);
        answers[3] = true;
        let one = proportion(&answers);
        assert_close(one.mean, 0.1);
        assert_close(one.low, 0.017_88);
        assert_close(one.high, 0.404_15);
    }

    #[test]
    fn agresti_and_mins_interval_by_hand() {
        // 9 and 1 of 20: the cells 9.5 and 1.5 of 22. Half is 1.96 / 22 * sqrt(11 - 64 / 22).
        let estimate = paired_difference(9, 1, 20);
        assert_close(estimate.mean, 0.4);
        assert_close(estimate.low, 8.0 / 22.0 - 1.96 / 22.0 * (11.0 - 64.0 / 22.0_f64).sqrt());
        assert_close(estimate.high, 8.0 / 22.0 + 1.96 / 22.0 * (11.0 - 64.0 / 22.0_f64).sqrt());
        let none = paired_difference(0, 0, 50);
        assert_eq!(none.mean, Some(0.0));
        assert!(none.low.unwrap() < 0.0 && none.high.unwrap() > 0.0);
        assert_eq!(paired_difference(0, 0, 0).mean, None);
    }

    #[test]
    fn too_few_images_give_no_interval_and_no_verdict() {
        assert_eq!(mean(&[]).mean, None);
        assert_eq!(proportion(&[]).mean, None);
        let one = mean(&[0.9]);
        assert_eq!((one.mean, one.low, one.high), (Some(0.9), None, None));
        assert_eq!(is_below(&one, 0.7), Verdict::Unclear);
        assert_eq!(is_above(&one, 0.7), Verdict::Unclear);
    }

    #[test]
    fn a_verdict_needs_the_whole_interval() {
        let estimate = mean(&[0.4, 0.5, 0.6]);
        for (threshold, below, above) in [
            (0.9, Verdict::Passed, Verdict::Failed),
            (0.5, Verdict::Unclear, Verdict::Unclear),
            (0.1, Verdict::Failed, Verdict::Passed),
        ] {
            assert_eq!(is_below(&estimate, threshold), below);
            assert_eq!(is_above(&estimate, threshold), above);
        }
    }
}
