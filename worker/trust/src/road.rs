//! ROAD, "remove and debias": Rong et al. 2022, <https://arxiv.org/abs/2202.00449>, as
//! pytorch-grad-cam's `ROADCombined` puts it into one number.
//!
//! The most relevant pixels are removed and imputed from the others; then the network's probability
//! of the class is measured. The same is done with the least relevant pixels. Imputation hides the
//! shape of the removed pixels, and leaves no hard edges, on which no network was trained. The
//! value at a percentile is `(p(least relevant removed) - p(most relevant removed)) / 2`; the
//! measure is the mean over the percentiles, -0.5 to 0.5. It is above zero for a faithful map, and
//! zero on average for random maps.
//!
//! Makes the images; does not run the network. Upstream: [`imputation`](super::imputation).
//! Downstream: [`measure`](crate::measure).

use rand_distr::{Distribution, Normal};
use rand_pcg::Pcg64;
use rayon::prelude::*;

use super::imputation::impute;
use super::pixels::{InputImage, PixelHeat};

/// Pixels below a percentile of relevance stay, the others are removed: 80, 60, 40 and 20 % of all
/// pixels. Rong et al. and pytorch-grad-cam use every tenth percentile, which takes twice the time.
pub const PERCENTILES: [u8; 4] = [20, 40, 60, 80];
/// Standard deviation of the noise on imputed pixels whose values are 0 to 1, as in
/// pytorch-grad-cam. Without noise a network could recognise the smooth patches.
pub const NOISE: f32 = 0.01;

/// Two images `[3, H, W]` for each percentile: first without the least relevant pixels, then
/// without the most relevant ones. The same `seed` gives the same noise.
#[must_use]
pub fn removal_images(pixels: &InputImage, heat: &PixelHeat, seed: u64) -> Vec<Vec<f32>> {
    let plane = pixels.plane();
    let noise = Normal::new(0.0, NOISE).expect("the deviation is finite");
    let wanted: Vec<_> =
        PERCENTILES.iter().flat_map(|&keep| [false, true].map(|most| (keep, most))).collect();
    let remove = |(turn, &(keep, most)): (usize, &(u8, bool))| {
        let removed = plane - plane * usize::from(keep) / 100;
        let removed = if most { &heat.order[..removed] } else { &heat.order[plane - removed..] };
        let mut missing = vec![false; plane];
        for &pixel in removed {
            missing[pixel as usize] = true;
        }
        let mut image = impute(pixels, &missing);
        let mut random = Pcg64::new(seed.into(), turn as u128);
        for value in image.chunks_mut(plane).flat_map(|plane| plane.iter_mut().zip(&missing)) {
            if let (value, true) = value {
                *value += noise.sample(&mut random);
            }
        }
        image
    };
    wanted.par_iter().enumerate().map(remove).collect()
}

/// The measure, from the class's probabilities for the images of [`removal_images`].
///
/// # Panics
/// If there is not one probability for each image.
#[must_use]
pub fn combined_score(probabilities: &[f32]) -> f64 {
    let (pairs, rest) = probabilities.as_chunks::<2>();
    assert!(rest.is_empty() && pairs.len() == PERCENTILES.len(), "two for each percentile");
    let differences = pairs.iter().map(|&[least, most]| f64::from(least) - f64::from(most));
    differences.sum::<f64>() / 2.0 / pairs.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use camshaft_vision::heat_map::HeatMap;

    #[test]
    fn combined_by_hand() {
        let same = [0.7; 8];
        assert_eq!(combined_score(&same), 0.0);
        let value = combined_score(&[1.0, 0.0, 1.0, 0.5, 0.75, 0.75, 0.5, 0.75]);
        assert_eq!(value, (1.0 + 0.5 + 0.0 - 0.25) / 8.0);
    }

    #[test]
    fn what_is_removed_is_imputed_with_noise_and_the_rest_stays() {
        let (height, width) = (20, 20);
        // A ramp from the top, so that what is imputed differs from what was there.
        let values: Vec<f32> = (0..3 * 400).map(|at| (at % 400 / 20) as f32 / 20.0).collect();
        let pixels = InputImage { height, width, values };
        let map = HeatMap { height: 4, width: 1, values: vec![0.0, 0.1, 0.9, 1.0] };
        let heat = PixelHeat::of(&map, (height, width));
        let images = removal_images(&pixels, &heat, 5);
        assert_eq!(images.len(), 8);
        // At percentile 80, the last: a fifth of the pixels, at the top and at the bottom.
        let [least, most] = [&images[6], &images[7]];
        let changed = |image: &[f32]| -> Vec<_> {
            (0..400).filter(|&at| image[at] != pixels.values[at]).collect()
        };
        assert!(changed(least).into_iter().eq(0..80), "{:?}", changed(least));
        assert!(changed(most).into_iter().eq(320..400));
        let mean = |image: &[f32]| image[..80].iter().sum::<f32>() / 80.0;
        assert!((mean(least) - 0.2).abs() < 0.01, "the nearest row that is known is at 0.2");
        assert_eq!(images, removal_images(&pixels, &heat, 5), "the same seed gives the same noise");
        assert_ne!(images, removal_images(&pixels, &heat, 6));
    }
}
