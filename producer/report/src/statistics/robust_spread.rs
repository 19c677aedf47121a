//! What is usual among some values, even if a few of them are far off: medians, and deviations from
//! them.

/// The median of some values, and how far the values usually lie from it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RobustSpread {
    pub(crate) median: f64,
    /// Estimates the standard deviation of a normal distribution. Above 0; infinite if the values
    /// are all equal or there are none.
    pub(crate) deviation: f64,
}

/// The standard deviation of a normal distribution over its median absolute deviation.
const DEVIATION_PER_MEDIAN: f64 = 1.482_602_218_505_602;
/// The standard deviation of a normal distribution over its mean absolute deviation: √(π/2).
const DEVIATION_PER_MEAN: f64 = 1.253_314_137_315_5;

impl RobustSpread {
    /// The spread of the values that are finite. If more than half of them are equal, the median
    /// deviation is 0 and the mean deviation takes its place (Iglewicz and Hoaglin 1993).
    pub(crate) fn of(values: &[f32]) -> Self {
        let mut finite: Vec<f32> =
            values.iter().copied().filter(|value| value.is_finite()).collect();
        let Some(median) = median(&mut finite) else {
            return Self { median: 0.0, deviation: f64::INFINITY };
        };
        let mut distances: Vec<f32> = finite.iter().map(|value| (value - median).abs()).collect();
        let mean = distances.iter().copied().map(f64::from).sum::<f64>() / distances.len() as f64;
        let middle = self::median(&mut distances).map_or(0.0, f64::from);
        let deviation =
            if middle > 0.0 { DEVIATION_PER_MEDIAN * middle } else { DEVIATION_PER_MEAN * mean };
        let deviation = if deviation > 0.0 { deviation } else { f64::INFINITY };
        Self { median: f64::from(median), deviation }
    }

    /// The number of deviations by which a value lies above the median; NaN for NaN.
    pub(crate) fn deviations_above(&self, value: f32) -> f64 {
        (f64::from(value) - self.median) / self.deviation
    }
}

/// The median; the upper of the two middle values if their number is even; none without values.
/// Reorders the values.
pub(crate) fn median(values: &mut [f32]) -> Option<f32> {
    let middle = values.len() / 2;
    if values.is_empty() {
        return None;
    }
    Some(*values.select_nth_unstable_by(middle, f32::total_cmp).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_values_change_nothing() {
        let spread = RobustSpread::of(&[1.0, 2.0, 3.0, 4.0, 1e9, f32::NAN]);
        assert_eq!(spread.median, 3.0);
        assert!((spread.deviation - 1.4826).abs() < 1e-4);
        assert!((spread.deviations_above(6.0) - 2.023_469).abs() < 1e-4);
    }

    #[test]
    fn equal_values_make_nothing_odd_and_a_few_others_do() {
        assert_eq!(RobustSpread::of(&[2.0; 9]).deviations_above(2.0), 0.0);
        assert_eq!(RobustSpread::of(&[]).deviations_above(2.0), 0.0);
        let mut values = [2.0; 100];
        values[0] = 102.0;
        assert!(RobustSpread::of(&values).deviations_above(102.0) > 50.0);
    }
}
