//! Random numbers of a training, which depend on the seed only. The same command gives the same
//! numbers, and an epoch's numbers can be drawn without those of earlier epochs.

use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use sha2::{Digest, Sha256};

/// One image of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EpochImage {
    /// Index among the training images.
    pub(super) image: usize,
    /// True if left and right are exchanged.
    pub(super) mirrored: bool,
}

/// A generator for one purpose, independent of the generators for other purposes.
pub(super) fn stream(seed: u64, purpose: &str) -> Xoshiro256PlusPlus {
    let digest = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(purpose).finalize();
    Xoshiro256PlusPlus::from_seed(digest.into())
}

/// Uniform values between `-bound` and `bound`.
pub(super) fn uniform(random: &mut impl RngExt, bound: f32, count: usize) -> Vec<f32> {
    (0..count).map(|_| (2.0 * random.random::<f32>() - 1.0) * bound).collect()
}

/// Normally distributed values around zero (Box and Muller 1958).
pub(super) fn normal(random: &mut impl RngExt, deviation: f32, count: usize) -> Vec<f32> {
    (0..count)
        .map(|_| {
            // The first is above 0: zero has no logarithm.
            let (first, second) = (1.0 - random.random::<f64>(), random.random::<f64>());
            let normal = (-2.0 * first.ln()).sqrt() * (std::f64::consts::TAU * second).cos();
            normal as f32 * deviation
        })
        .collect()
}

/// The images of an epoch (counted from 1) in random order, each once.
pub(super) fn draw_epoch(seed: u64, epoch: u32, images: usize, flip: bool) -> Vec<EpochImage> {
    let mut random = stream(seed, &format!("epoch {epoch}"));
    let mut order: Vec<usize> = (0..images).collect();
    order.shuffle(&mut random);
    let mut draw = |image| EpochImage { image, mirrored: flip && random.random_bool(0.5) };
    order.into_iter().map(&mut draw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_has_each_image_once_in_an_order_of_its_own() {
        let [first, second] = [1, 2].map(|number| draw_epoch(7, number, 100, true));
        assert_ne!(first, second);
        assert_eq!(first, draw_epoch(7, 1, 100, true), "the same epoch is the same again");
        assert_ne!(first, draw_epoch(8, 1, 100, true));
        let mut images: Vec<_> = first.iter().map(|drawn| drawn.image).collect();
        images.sort_unstable();
        assert_eq!(images, (0..100).collect::<Vec<_>>());
        let mirrored = first.iter().filter(|drawn| drawn.mirrored).count();
        assert!((30..70).contains(&mirrored), "{mirrored} of 100 are mirrored");
        assert!(draw_epoch(7, 1, 100, false).iter().all(|drawn| !drawn.mirrored));
    }

    #[test]
    fn normal_values_have_their_deviation() {
        let values = normal(&mut stream(0, "test"), 0.5, 20_000);
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 20_000.0;
        assert!(mean.abs() < 0.02 && (variance.sqrt() - 0.5).abs() < 0.02, "{mean} {variance}");
    }
}
