//! Deletion and insertion: Petsiuk et al. 2018, RISE, <https://arxiv.org/abs/1806.07421>,
//! section 4.1.
//!
//! Deletion removes pixels from the image, insertion puts them into a blurred image: the hottest
//! first, in equal steps. The measure is the area under the curve of the class's probability over
//! the share of moved pixels, by the trapezoid rule, 0 to 1. With a faithful map the probability
//! falls fast (small deletion area) or rises fast (large insertion area).
//!
//! Makes the images of each step; does not run the network. Downstream:
//! [`measure`](crate::measure).

use rayon::prelude::*;

use super::pixels::{InputImage, PixelHeat};

/// Steps of a curve. RISE moves 224 pixels of 224 × 224 in each step. Moving eight times as many
/// takes an eighth of the passes through the network, which take nearly all of the time.
pub const STEPS: usize = 28;

/// Standard deviation of the blur, as a share of the image's shorter side: 14 pixels of 224.
/// RISE blurs by 5 pixels. A network of few classes still recognises a cat through that blur, and
/// then insertion shows nothing.
pub const BLUR_SHARE: f32 = 1.0 / 16.0;
/// Radius of the blur's kernel, in standard deviations.
const BLUR_REACH: f32 = 3.0;

/// The probability of a class at each step, from no pixel moved to all pixels moved.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbabilityCurve(pub Vec<f32>);

impl ProbabilityCurve {
    /// Area under the curve over a base of 1, by the trapezoid rule.
    ///
    /// # Panics
    /// If the curve has no step.
    #[must_use]
    pub fn area(&self) -> f64 {
        let steps = self.0.len() - 1;
        let sum: f64 = self.0.iter().copied().map(f64::from).sum();
        let ends = f64::from(self.0[0]) + f64::from(self.0[steps]);
        (sum - ends / 2.0) / steps as f64
    }
}

/// The images `[3, H, W]` of a deletion, without the whole image: from the first step to the last,
/// in which all pixels are deleted. A deleted pixel gets the values in `blank`, one for each
/// channel.
#[must_use]
pub fn deletion_images(pixels: &InputImage, heat: &PixelHeat, blank: [f32; 3]) -> Vec<Vec<f32>> {
    let plane = pixels.plane();
    let empty: Vec<_> = blank.iter().flat_map(|&value| vec![value; plane]).collect();
    images_at_steps(&pixels.values, &empty, plane, heat, 1..STEPS + 1)
}

/// The images `[3, H, W]` of an insertion, without the whole image: the first is all blurred.
#[must_use]
pub fn insertion_images(pixels: &InputImage, heat: &PixelHeat, blurred: &[f32]) -> Vec<Vec<f32>> {
    images_at_steps(blurred, &pixels.values, pixels.plane(), heat, 0..STEPS)
}

/// For each of `steps`, the image `from` with the hottest pixels of `to`.
fn images_at_steps(
    from: &[f32],
    to: &[f32],
    plane: usize,
    heat: &PixelHeat,
    steps: std::ops::Range<usize>,
) -> Vec<Vec<f32>> {
    let step = |step: usize| {
        let mut image = from.to_vec();
        for &pixel in &heat.order[..step * plane / STEPS] {
            for at in (pixel as usize..image.len()).step_by(plane) {
                image[at] = to[at];
            }
        }
        image
    };
    steps.into_par_iter().map(step).collect()
}

/// The standard deviation of the blur, in pixels.
#[must_use]
pub fn blur_sigma(height: usize, width: usize) -> f32 {
    height.min(width) as f32 * BLUR_SHARE
}

/// Blurs an image with a Gaussian, to `[3, H, W]`. Pixels at the edge are repeated beyond it.
#[must_use]
pub fn blur(pixels: &InputImage) -> Vec<f32> {
    let sigma = blur_sigma(pixels.height, pixels.width);
    let reach = (BLUR_REACH * sigma).ceil() as isize;
    let weights: Vec<_> =
        (-reach..=reach).map(|at| (-0.5 * (at as f32 / sigma).powi(2)).exp()).collect();
    let sum: f32 = weights.iter().sum();
    let weights: Vec<_> = weights.iter().map(|weight| weight / sum).collect();
    let planes: Vec<_> = pixels.values.chunks(pixels.plane()).collect();
    let blur_plane = |plane: &&[f32]| {
        // The first call transposes the plane, the second transposes it back.
        let transposed = blur_rows(plane, pixels.width, &weights);
        blur_rows(&transposed, pixels.height, &weights)
    };
    planes.par_iter().flat_map(blur_plane).collect()
}

/// Blurs each row and transposes the plane.
fn blur_rows(plane: &[f32], width: usize, weights: &[f32]) -> Vec<f32> {
    let reach = weights.len() / 2;
    let height = plane.len() / width;
    let mut transposed = vec![0.0; plane.len()];
    let mut padded = vec![0.0; width + 2 * reach];
    for (y, row) in plane.chunks(width).enumerate() {
        padded[..reach].fill(row[0]);
        padded[reach..reach + width].copy_from_slice(row);
        padded[reach + width..].fill(row[width - 1]);
        for (x, window) in padded.windows(weights.len()).enumerate() {
            transposed[x * height + y] = window.iter().zip(weights).map(|(v, w)| v * w).sum();
        }
    }
    transposed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn area_is_the_trapezoids() {
        assert_eq!(ProbabilityCurve(vec![1.0, 0.0]).area(), 0.5);
        assert_eq!(ProbabilityCurve(vec![1.0, 0.5, 0.0, 0.0, 0.0]).area(), 0.25);
        assert_eq!(ProbabilityCurve(vec![0.25; 29]).area(), 0.25);
    }

    fn image() -> (InputImage, PixelHeat) {
        // 28 × 28: each step moves one row's worth of pixels.
        let (height, width) = (28, 28);
        let values = (0..3 * height * width).map(|at| at as f32 / 2352.0).collect();
        let order: Vec<_> = (0..784).rev().collect();
        let heat = PixelHeat { values: (0..784).map(|at| at as f32 / 783.0).collect(), order };
        (InputImage { height, width, values }, heat)
    }

    #[test]
    fn each_step_moves_as_many_of_the_hottest_pixels() {
        let (pixels, heat) = image();
        let blank = [-1.0, -2.0, -3.0];
        let deleted = deletion_images(&pixels, &heat, blank);
        assert_eq!(deleted.len(), STEPS);
        for (step, image) in (1..).zip(&deleted) {
            for (channel, plane) in image.chunks(784).enumerate() {
                let kept = 784 - step * 28;
                assert_eq!(plane[..kept], pixels.values[channel * 784..][..kept]);
                assert!(plane[kept..].iter().all(|&value| value == blank[channel]));
            }
        }
        let blurred = vec![9.0; 3 * 784];
        let inserted = insertion_images(&pixels, &heat, &blurred);
        assert_eq!((inserted.len(), &inserted[0]), (STEPS, &blurred));
        let last = &inserted[STEPS - 1];
        assert!(last[..28].iter().all(|&value| value == 9.0));
        assert_eq!(last[28..784], pixels.values[28..784]);
    }

    #[test]
    fn a_blur_keeps_what_is_even_and_spreads_a_point() {
        let even = InputImage { height: 32, width: 48, values: vec![0.25; 3 * 32 * 48] };
        assert!(blur(&even).iter().all(|value| (value - 0.25).abs() < 1e-5));
        let mut point = InputImage { height: 32, width: 48, values: vec![0.0; 3 * 32 * 48] };
        let at = 16 * 48 + 20;
        point.values[at] = 1.0;
        let spread = blur(&point);
        // The density of a normal distribution of two dimensions.
        let density = |d2: f32| {
            let sigma2 = blur_sigma(32, 48).powi(2);
            (-d2 / (2.0 * sigma2)).exp() / (2.0 * std::f32::consts::PI * sigma2)
        };
        for (offset, d2) in [(0, 0.0), (1, 1.0), (48, 1.0), (2 * 48 - 1, 5.0)] {
            let found = spread[at + offset];
            assert!((found - density(d2)).abs() < 0.01 * density(0.0), "{found} at {offset}");
        }
        assert!(spread[32 * 48..].iter().all(|&value| value == 0.0), "channels are apart");
    }
}
