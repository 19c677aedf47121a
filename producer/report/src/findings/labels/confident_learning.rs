//! Confident learning (Northcutt, Jiang and Chuang 2021, <https://arxiv.org/abs/1911.00068>): how
//! many labels are wrong, and which, by probabilities of whatever source.
//!
//! The threshold of a class is the mean probability of the class among the images labelled with it.
//! An image counts as confidently of a class if its probability of the class reaches the threshold;
//! if there are several, of the most probable one. The number of images that are labelled *i* and
//! confidently of class *j* says how many labels *i* should be *j*. As many images as that is for all
//! pairs are suspected: those whose two probabilities differ most.
//!
//! The paper prunes that many of each pair of classes ("prune by noise rate", section 3.2). With many
//! classes most pairs have one wrong label or none, and the confident counts of a pair are chance.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use crate::predictions::NO_NAME;

/// Repetitions of the bootstrap, enough for the ends of a 95 % interval (Efron and Tibshirani 1993).
const REPETITIONS: usize = 1000;
/// What the bootstrap draws from.
const SEED: u64 = 0x626f_6f74;
/// How many times as probable as the label another class must be, so that the label is suspected. With
/// twenty swapped labels among 600 photographs all of them are above, and two others.
const CLEARLY: f32 = 3.0;
/// The most wrong labels that may be there if none was counted, at 95 %: the rule of three.
const HIGH_OF_NONE: u64 = 3;

/// What probabilities say of one image.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Opinion {
    /// The number of the class that the image is labelled with.
    pub(super) label: u32,
    pub(super) label_probability: f32,
    /// The most probable class.
    pub(super) top: u32,
    pub(super) top_probability: f32,
    /// The class that the image is confidently of; [`NO_NAME`] if of none.
    pub(super) confident: u32,
}

impl Opinion {
    /// Whether another class is clearly more probable than the label.
    fn doubts_label(&self) -> bool {
        self.top != self.label && self.top_probability >= CLEARLY * self.label_probability
    }

    /// By how much the most probable class is more probable than the label.
    pub(super) fn margin(&self) -> f32 {
        self.top_probability - self.label_probability
    }
}

/// An estimated number, and the 95 % interval of a bootstrap over images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EstimatedErrors {
    pub(crate) count: u64,
    pub(crate) low: u64,
    pub(crate) high: u64,
}

/// Which labels are suspected.
pub(super) struct Suspects {
    /// Positions in the list of opinions.
    pub(super) positions: Vec<usize>,
    pub(super) estimate: EstimatedErrors,
}

/// The mean probability of each class among the images labelled with it, given pairs of a label and
/// its probability; NaN for a class without images.
pub(super) fn thresholds(labels: impl Iterator<Item = (u32, f32)>, class_count: usize) -> Vec<f32> {
    let mut sums = vec![(0.0_f64, 0_u64); class_count];
    for (label, probability) in labels {
        let (sum, count) = &mut sums[label as usize];
        *sum += f64::from(probability);
        *count += 1;
    }
    sums.into_iter().map(|(sum, count)| (sum / count as f64) as f32).collect()
}

/// The class that an image is confidently of: of the classes whose probability reaches the
/// threshold, the most probable one; [`NO_NAME`] if there is none.
pub(super) fn confident_class(probabilities: &[f32], thresholds: &[f32]) -> u32 {
    let mut best = (NO_NAME, 0.0);
    for ((probability, threshold), class) in probabilities.iter().zip(thresholds).zip(0..) {
        if probability >= threshold && *probability > best.1 {
            best = (class, *probability);
        }
    }
    best.0
}

/// Chooses the suspected labels.
pub(super) fn suspects(opinions: &[Opinion]) -> Suspects {
    most_suspected(opinions, estimate(opinions))
}

/// Chooses as many labels as are estimated to be wrong, or fewer: those that no opinion clearly doubts
/// are not named.
pub(super) fn most_suspected(opinions: &[Opinion], estimate: EstimatedErrors) -> Suspects {
    let mut positions: Vec<usize> =
        (0..opinions.len()).filter(|at| opinions[*at].doubts_label()).collect();
    let margin = |at: &usize| opinions[*at].margin();
    positions.sort_by(|a, b| margin(b).total_cmp(&margin(a)).then(a.cmp(b)));
    positions.truncate(estimate.count as usize);
    positions.sort_unstable();
    Suspects { positions, estimate }
}

/// Estimates how many labels are wrong.
fn estimate(opinions: &[Opinion]) -> EstimatedErrors {
    let (mut joint, mut given) = (BTreeMap::new(), BTreeMap::new());
    for opinion in opinions {
        *given.entry(opinion.label).or_insert(0_u64) += 1;
        if opinion.confident != NO_NAME {
            *joint.entry((opinion.label, opinion.confident)).or_insert(0_u64) += 1;
        }
    }
    let joint: Vec<_> = joint.into_iter().map(|(pair, count)| (pair, count as f64)).collect();
    let wrong = wrong_by_pair(&joint, &given);
    let count = wrong.values().sum::<f64>().round() as u64;
    let (low, high) = interval(&joint, &given);
    let high = if count == 0 { high.max(HIGH_OF_NONE.min(opinions.len() as u64)) } else { high };
    EstimatedErrors { count, low: low.min(count), high: high.max(count) }
}

/// By label and class, the estimated number of labels that should be the class: the confident counts
/// of each label, scaled so that they add up to the number of images with the label.
fn wrong_by_pair(
    joint: &[((u32, u32), f64)],
    given: &BTreeMap<u32, u64>,
) -> BTreeMap<(u32, u32), f64> {
    let mut confident = BTreeMap::new();
    for ((label, _), count) in joint {
        *confident.entry(*label).or_insert(0.0) += count;
    }
    let wrong = joint.iter().filter(|((label, class), _)| label != class);
    wrong
        .map(|((label, class), count)| {
            let share = count / f64::max(confident[label], 1.0);
            ((*label, *class), share * given[label] as f64)
        })
        .collect()
}

/// The 95 % interval of the estimated number. Images are drawn again with replacement: the counts of
/// the pairs then follow Poisson distributions (Chamandy et al. 2012).
fn interval(joint: &[((u32, u32), f64)], given: &BTreeMap<u32, u64>) -> (u64, u64) {
    let mut chance = Pcg64Mcg::seed_from_u64(SEED);
    let mut estimates: Vec<f64> = (0..REPETITIONS)
        .map(|_| {
            let drawn: Vec<_> =
                joint.iter().map(|(pair, count)| (*pair, poisson(*count, &mut chance))).collect();
            wrong_by_pair(&drawn, given).values().sum()
        })
        .collect();
    estimates.sort_by(f64::total_cmp);
    let at = |share: f64| estimates[((REPETITIONS - 1) as f64 * share).round() as usize];
    (at(0.025).round() as u64, at(0.975).round() as u64)
}

/// A number from a Poisson distribution. Large means are drawn from the normal distribution, which is
/// much the same there.
fn poisson(mean: f64, chance: &mut Pcg64Mcg) -> f64 {
    if mean > 50.0 {
        let (radius, angle) = (1.0 - chance.random::<f64>(), chance.random::<f64>());
        let normal = (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos();
        return (mean + mean.sqrt() * normal).round().max(0.0);
    }
    // Knuth's method: how many uniform numbers can be multiplied.
    let (limit, mut product, mut count) = ((-mean).exp(), chance.random::<f64>(), 0.0);
    while product > limit {
        product *= chance.random::<f64>();
        count += 1.0;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opinion(label: u32, other: f32) -> Opinion {
        let (top, top_probability) =
            if other > 0.5 { (1 - label, other) } else { (label, 1.0 - other) };
        let confident = if top_probability >= 0.9 { top } else { NO_NAME };
        Opinion { label, label_probability: 1.0 - other, top, top_probability, confident }
    }

    #[test]
    fn as_many_labels_are_suspected_as_are_confidently_wrong() {
        let mut opinions: Vec<_> = (0..200).map(|at| opinion(at % 2, 0.05)).collect();
        opinions.extend([opinion(0, 0.97), opinion(0, 0.99), opinion(1, 0.6), opinion(1, 0.95)]);
        let found = suspects(&opinions);
        assert_eq!(found.positions, [200, 201, 203]);
        assert_eq!(found.estimate.count, 3);
        assert!(found.estimate.low <= 1 && (5..=8).contains(&found.estimate.high));
    }

    #[test]
    fn without_wrong_labels_three_may_still_be_there() {
        let opinions: Vec<_> = (0..200).map(|at| opinion(at % 2, 0.05)).collect();
        let found = suspects(&opinions);
        assert_eq!(found.estimate, EstimatedErrors { count: 0, low: 0, high: 3 });
    }

    #[test]
    fn thresholds_are_means_and_the_most_probable_class_above_its_threshold_is_confident() {
        let thresholds = thresholds([(0, 0.5), (0, 0.7), (1, 0.9)].into_iter(), 3);
        assert!((thresholds[0] - 0.6).abs() < 1e-6 && thresholds[2].is_nan());
        assert_eq!(confident_class(&[0.65, 0.3, 0.05], &thresholds), 0);
        assert_eq!(confident_class(&[0.5, 0.45, 0.05], &thresholds), NO_NAME);
    }

    #[test]
    fn poisson_numbers_have_their_mean() {
        let mut chance = Pcg64Mcg::seed_from_u64(1);
        for mean in [0.0, 3.0, 200.0] {
            let sum: f64 = (0..2000).map(|_| poisson(mean, &mut chance)).sum();
            assert!((sum / 2000.0 - mean).abs() <= 0.05 * mean, "{mean}");
        }
    }
}
