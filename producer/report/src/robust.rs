//! What is usual, whatever a few odd values do: medians, and deviations from them.

/// The middle of some values and how far they usually lie from it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    /// Of a normal distribution, its standard deviation; never 0, infinite where it can't be told.
    pub(crate) deviation: f64,
}

/// Median absolute deviation to standard deviation of a normal distribution.
const OF_NORMAL: f64 = 1.482_602_218_505_602;
/// Mean absolute deviation likewise: the square root of π/2.
const MEAN_OF_NORMAL: f64 = 1.253_314_137_315_5;

impl Spread {
    /// Of the values that are numbers. Where more than half of them are the same, the mean
    /// deviation takes the median one's place (Iglewicz and Hoaglin 1993).
    pub(crate) fn of(values: &[f32]) -> Self {
        let mut known: Vec<f32> =
            values.iter().copied().filter(|value| value.is_finite()).collect();
        let Some(median) = median(&mut known) else {
            return Self { median: 0.0, deviation: f64::INFINITY };
        };
        let mut far: Vec<f32> = known.iter().map(|value| (value - median).abs()).collect();
        let mean = far.iter().copied().map(f64::from).sum::<f64>() / far.len() as f64;
        let middle = self::median(&mut far).map_or(0.0, f64::from);
        let deviation = if middle > 0.0 { OF_NORMAL * middle } else { MEAN_OF_NORMAL * mean };
        let deviation = if deviation > 0.0 { deviation } else { f64::INFINITY };
        Self { median: f64::from(median), deviation }
    }

    /// How many deviations a value lies above the median; NaN for NaN.
    pub(crate) fn above(&self, value: f32) -> f64 {
        (f64::from(value) - self.median) / self.deviation
    }
}

/// The middle one, of an even number the upper; none of none. Reorders them.
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
        let spread = Spread::of(&[1.0, 2.0, 3.0, 4.0, 1e9, f32::NAN]);
        assert_eq!(spread.median, 3.0);
        assert!((spread.deviation - 1.4826).abs() < 1e-4);
        assert!((spread.above(6.0) - 2.023_469).abs() < 1e-4);
    }

    #[test]
    fn equal_values_make_nothing_odd_and_a_few_others_do() {
        assert_eq!(Spread::of(&[2.0; 9]).above(2.0), 0.0);
        assert_eq!(Spread::of(&[]).above(2.0), 0.0);
        let mut values = [2.0; 100];
        values[0] = 102.0;
        assert!(Spread::of(&values).above(102.0) > 50.0);
    }
}
