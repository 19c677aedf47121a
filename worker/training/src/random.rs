//! Everything drawn by chance, from the seed alone: the same command gives the same numbers,
//! and an epoch's can be drawn again without those before it.

use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use sha2::{Digest, Sha256};

/// One image of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pick {
    /// Which of the training images.
    pub(super) sample: usize,
    /// Whether left and right are exchanged.
    pub(super) mirrored: bool,
}

/// Random numbers for one purpose, independent of those for every other.
pub(super) fn stream(seed: u64, purpose: &str) -> Xoshiro256PlusPlus {
    let digest = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(purpose).finalize();
    Xoshiro256PlusPlus::from_seed(digest.into())
}

/// Values between `-bound` and `bound`.
pub(super) fn uniform(random: &mut impl RngExt, bound: f32, count: usize) -> Vec<f32> {
    (0..count).map(|_| (2.0 * random.random::<f32>() - 1.0) * bound).collect()
}

/// Normally distributed values around zero (Box and Muller 1958).
pub(super) fn normal(random: &mut impl RngExt, deviation: f32, count: usize) -> Vec<f32> {
    (0..count)
        .map(|_| {
            // The first in 0..1 without its zero, whose logarithm is none.
            let (first, second) = (1.0 - random.random::<f64>(), random.random::<f64>());
            let normal = (-2.0 * first.ln()).sqrt() * (std::f64::consts::TAU * second).cos();
            normal as f32 * deviation
        })
        .collect()
}

/// The images of an epoch (counted from 1) in its order, each once.
pub(super) fn epoch(seed: u64, epoch: u32, samples: usize, flip: bool) -> Vec<Pick> {
    let mut random = stream(seed, &format!("epoch {epoch}"));
    let mut order: Vec<usize> = (0..samples).collect();
    order.shuffle(&mut random);
    let mut pick = |sample| Pick { sample, mirrored: flip && random.random_bool(0.5) };
    order.into_iter().map(&mut pick).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_has_each_image_once_in_an_order_of_its_own() {
        let [first, second] = [1, 2].map(|number| epoch(7, number, 100, true));
        assert_ne!(first, second);
        assert_eq!(first, epoch(7, 1, 100, true), "the same epoch is the same again");
        assert_ne!(first, epoch(8, 1, 100, true));
        let mut samples: Vec<_> = first.iter().map(|pick| pick.sample).collect();
        samples.sort_unstable();
        assert_eq!(samples, (0..100).collect::<Vec<_>>());
        let mirrored = first.iter().filter(|pick| pick.mirrored).count();
        assert!((30..70).contains(&mirrored), "{mirrored} of 100 are mirrored");
        assert!(epoch(7, 1, 100, false).iter().all(|pick| !pick.mirrored));
    }

    #[test]
    fn normal_values_have_their_deviation() {
        let values = normal(&mut stream(0, "test"), 0.5, 20_000);
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 20_000.0;
        assert!(mean.abs() < 0.02 && (variance.sqrt() - 0.5).abs() < 0.02, "{mean} {variance}");
    }
}
