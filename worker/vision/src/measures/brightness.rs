//! How a picture's brightness is distributed.
//!
//! Upstream: a reduced picture. Downstream: [`measure`](super::measure).

use super::reduced::{Luma, STEPS, WHITE};

/// Moments, percentiles and entropy of brightness; all 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct BrightnessStatistics {
    pub(super) mean: f32,
    pub(super) deviation: f32,
    /// A twentieth of the pixels is at or below it, to one of 256 levels.
    pub(super) dark: f32,
    /// A twentieth of the pixels is at or above it.
    pub(super) bright: f32,
    /// Entropy of the 256 levels in bits, divided by 8.
    pub(super) information: f32,
}

impl BrightnessStatistics {
    #[inline(always)]
    pub(super) fn of(luma: &Luma) -> Self {
        let count = luma.values.len() as u64;
        let (mut sum, mut squares) = (0u64, 0u64);
        for &value in &luma.values {
            let value = u32::from(value);
            sum += u64::from(value);
            squares += u64::from(value * value);
        }
        let scale = f64::from(WHITE) * count.max(1) as f64;
        // In whole numbers, so that a picture of one shade has a deviation of exactly 0.
        let variance = u128::from(count) * u128::from(squares) - u128::from(sum) * u128::from(sum);
        let levels = levels(&luma.values);
        Self {
            mean: (sum as f64 / scale) as f32,
            deviation: ((variance as f64).sqrt() / scale) as f32,
            dark: percentile(levels.iter().copied().enumerate(), count),
            bright: percentile(levels.iter().copied().enumerate().rev(), count),
            information: information(&levels, count),
        }
    }
}

/// Number of pixels of each level. Brightness is rounded to the nearest level.
#[inline(always)]
fn levels(values: &[u16]) -> [u32; 256] {
    // Four tables are faster: neighbours are often alike, and adding to one count must wait for the
    // addition before.
    let mut tables = [[0; 256]; 4];
    // A byte, so that no index needs a check: white is 255.
    let level = |value: u16| usize::from(((u32::from(value) + STEPS / 2) / STEPS) as u8);
    let (fours, rest) = values.as_chunks::<4>();
    for four in fours {
        for (table, &value) in tables.iter_mut().zip(four) {
            table[level(value)] += 1;
        }
    }
    rest.iter().for_each(|&value| tables[0][level(value)] += 1);
    std::array::from_fn(|level| tables.iter().map(|table| table[level]).sum())
}

/// The first level at which at least a twentieth of all pixels have been counted, 0 to 1.
fn percentile(levels: impl Iterator<Item = (usize, u32)>, count: u64) -> f32 {
    let mut seen = 0;
    for (level, pixels) in levels {
        seen += u64::from(pixels);
        if pixels > 0 && 20 * seen >= count {
            return level as f32 / 255.0;
        }
    }
    0.0
}

/// Entropy of the levels in bits, divided by 8.
fn information(levels: &[u32; 256], count: u64) -> f32 {
    let shares = levels.iter().filter(|&&pixels| pixels > 0);
    let shares = shares.map(|&pixels| f64::from(pixels) / count as f64);
    let bits: f64 = shares.map(|share| share * share.recip().log2()).sum();
    (bits / 8.0) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics(values: &[u8]) -> BrightnessStatistics {
        let values: Vec<_> = values.iter().map(|&value| u16::from(value) * 256).collect();
        BrightnessStatistics::of(&Luma { width: values.len(), height: 1, values })
    }

    fn assert_close(found: BrightnessStatistics, expected: [f64; 5]) {
        let BrightnessStatistics { mean, deviation, dark, bright, information } = found;
        for (found, expected) in [mean, deviation, dark, bright, information].iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-6, "{found} is not {expected}");
        }
    }

    #[test]
    fn closed_forms() {
        assert_close(statistics(&[51; 1000]), [0.2, 0.0, 0.2, 0.2, 0.0]);
        assert_eq!(statistics(&[51; 1000]).deviation, 0.0);
        assert_close(statistics(&[255]), [1.0, 0.0, 1.0, 1.0, 0.0]);
        let halves: Vec<_> = (0..1000).map(|at| if at < 500 { 0 } else { 255 }).collect();
        assert_close(statistics(&halves), [0.5, 0.5, 0.0, 1.0, 1.0 / 8.0]);
        let every: Vec<_> = (0..=255).collect();
        // Deviation of 0 to n-1: sqrt((n² - 1) / 12). A twentieth of 256 is 12.8.
        let deviation = ((65536.0 - 1.0) / 12.0f64).sqrt() / 255.0;
        assert_close(statistics(&every), [0.5, deviation, 12.0 / 255.0, 243.0 / 255.0, 1.0]);
        // Fewer dark pixels than a twentieth don't count.
        let few: Vec<_> = (0..100).map(|at| if at < 4 { 0 } else { 102 }).collect();
        assert!((statistics(&few).dark - 0.4).abs() < 1e-6);
    }

    #[test]
    fn no_pixels_are_no_numbers_to_divide_by() {
        assert_close(statistics(&[]), [0.0; 5]);
    }
}
