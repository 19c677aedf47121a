//! Whether two samples of numbers are of one distribution: the test of Kolmogorov and Smirnov.
//!
//! Owns the test, not what is compared. Upstream: one number an image, of two runs.

use rayon::prelude::*;

/// The result of the test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct DistributionTest {
    /// The largest difference of the two distribution functions, 0 to 1.
    pub(crate) statistic: f64,
    /// The asymptotic p-value (Smirnov 1939), with Stephens' correction for small samples (1970).
    /// It is too large, never too small, if values are equal.
    pub(crate) p: f64,
}

/// Compares two samples. NaN is left out; without values on either side there is no difference.
pub(crate) fn kolmogorov_smirnov(one: &[f32], other: &[f32]) -> DistributionTest {
    let sorted = |values: &[f32]| {
        let mut values: Vec<f32> =
            values.iter().filter(|value| !value.is_nan()).map(|value| value + 0.0).collect();
        values.par_sort_unstable_by(f32::total_cmp);
        values
    };
    let (one, other) = (sorted(one), sorted(other));
    if one.is_empty() || other.is_empty() {
        return DistributionTest { statistic: 0.0, p: 1.0 };
    }
    let (mut statistic, mut a, mut b) = (0.0_f64, 0, 0);
    while a < one.len() && b < other.len() {
        let value = one[a].min(other[b]);
        a += one[a..].iter().take_while(|next| **next == value).count();
        b += other[b..].iter().take_while(|next| **next == value).count();
        let difference = a as f64 / one.len() as f64 - b as f64 / other.len() as f64;
        statistic = statistic.max(difference.abs());
    }
    let (n, m) = (one.len() as f64, other.len() as f64);
    let root = (n * m / (n + m)).sqrt();
    DistributionTest { statistic, p: kolmogorov_tail((root + 0.12 + 0.11 / root) * statistic) }
}

/// The chance that Kolmogorov's distribution is above `x`.
fn kolmogorov_tail(x: f64) -> f64 {
    // Below, the sum converges slowly, and the chance is 1 to 12 digits.
    if x < 0.2 {
        return 1.0;
    }
    let terms = (1..=100).map(|k| {
        let sign = if k % 2 == 1 { 2.0 } else { -2.0 };
        sign * (-2.0 * f64::from(k * k) * x * x).exp()
    });
    terms.sum::<f64>().clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_that_of_scipy() {
        // From scipy 1.17.1: scipy.special.kolmogorov([0.3, 0.8, 1.3, 2.5])
        for (x, expected) in [
            (0.3, 0.999_990_694_198_665_5),
            (0.8, 0.544_142_411_574_198_1),
            (1.3, 0.068_092_221_844_766_84),
            (2.5, 7.453_306_344_157_342e-6),
        ] {
            assert!((kolmogorov_tail(x) - expected).abs() < 1e-12, "{x}");
        }
    }

    #[test]
    fn the_statistic_is_the_largest_gap_whatever_is_equal() {
        let found = kolmogorov_smirnov(&[1.0, 2.0, 2.0, 3.0, f32::NAN], &[2.0, 3.0, 3.0, 4.0]);
        assert_eq!(found.statistic, 0.5);
        let same: Vec<f32> = (0..1000).map(|i| (i % 7) as f32).collect();
        assert_eq!(kolmogorov_smirnov(&same, &same), DistributionTest { statistic: 0.0, p: 1.0 });
        let later: Vec<f32> = same.iter().map(|value| value + 1.0).collect();
        assert!(kolmogorov_smirnov(&same, &later).p < 1e-4);
        assert_eq!(kolmogorov_smirnov(&[], &same).p, 1.0);
    }
}
