//! Proves shortcuts: runs a model on images with patches, counts how many become the class, and
//! judges.
//!
//! Owns the statistics and the verdict. Does not choose, read or paste images. Upstream:
//! [`patches`](super::patches), by way of the producer's audit. Downstream: `shortcuts.json`.

use std::sync::atomic::Ordering::Relaxed;

use camshaft_common::prediction::ModelRecord;
use camshaft_common::shortcuts::{ControlEffect, PatchEffect, ProofSettings, ProofVerdict};
use camshaft_common::trust::Estimate;
use camshaft_model::{ComputeDevice, ComputeSettings, Model, ModelError, ModelFiles};
use statrs::distribution::{Binomial, DiscreteCDF};

use super::estimate::{CONFIDENCE, mean_within, paired_difference, proportion};
use super::examination::{ExaminationError, ExaminationProgress, input_tensor, softmax_of};
use super::patches::{PATCH, PLAIN, RANDOM_PLACE, TRIAL_IMAGES, USUAL_PLACE};

/// The p-value below which a difference is significant. Below the usual 0.05, because a run may
/// have several flagged clusters.
pub const SIGNIFICANCE: f64 = 0.01;
/// The least difference of two rates that matters: one image in ten.
pub const SMALLEST_EFFECT: f64 = 0.1;
/// The least difference of two rises of the probability that matters. A network that relies on a
/// detail a little moves many images, and turns few of them.
pub const SMALLEST_RISE: f64 = 0.05;
/// The fewest images with a verdict: even if all of eight images became the class and none with the
/// control, chance would do that one time in 128.
pub const SMALLEST_SAMPLE: u64 = 10;

/// The limits as the file has them, for a run that was asked for `images`.
#[must_use]
pub fn settings(images: u64) -> ProofSettings {
    ProofSettings {
        images,
        confidence: CONFIDENCE,
        significance: SIGNIFICANCE,
        smallest_effect: SMALLEST_EFFECT,
        smallest_sample: SMALLEST_SAMPLE,
    }
}

/// An image of another class with its patches, ready for the network.
#[derive(Clone, Debug, PartialEq)]
pub struct PatchTrial {
    /// The number of the cluster.
    pub cluster: usize,
    /// The index of the cluster's class.
    pub class: usize,
    /// As [`TrialImages::inputs`](super::patches::TrialImages::inputs) makes them.
    pub inputs: [Vec<f32>; TRIAL_IMAGES],
}

/// What the network says of a trial's images.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrialOutcome {
    /// Whether the class is the most probable one.
    pub is_class: [bool; TRIAL_IMAGES],
    /// Its probability.
    pub probability: [f64; TRIAL_IMAGES],
}

/// The outcomes of all trials.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasuredTrials {
    /// The model, and what it ran on.
    pub model: ModelRecord,
    /// By cluster, in the order of the trials. Without trials whose numbers are not finite.
    pub outcomes: Vec<Vec<TrialOutcome>>,
}

/// Runs the model on trials of `clusters` clusters as they come.
///
/// # Errors
/// If the model can't be loaded or run, or if `progress.stop` is set.
pub fn measure_trials(
    files: &ModelFiles,
    device: &ComputeDevice,
    compute: ComputeSettings,
    clusters: usize,
    mut trials: impl Iterator<Item = PatchTrial>,
    progress: &ExaminationProgress,
) -> Result<MeasuredTrials, ExaminationError> {
    let model = Model::load(files, device, compute)?;
    let at_once = (compute.largest_batch / TRIAL_IMAGES).max(1);
    let mut outcomes = vec![Vec::new(); clusters];
    loop {
        if progress.stop.load(Relaxed) {
            return Err(ExaminationError::Stopped);
        }
        let batch: Vec<_> = trials.by_ref().take(at_once).collect();
        if batch.is_empty() {
            return Ok(MeasuredTrials { model: model.record(), outcomes });
        }
        let found = run_trials(&model, &batch, compute.largest_batch)?;
        for (trial, outcome) in batch.iter().zip(found) {
            outcomes[trial.cluster].extend(outcome);
        }
        progress.measured.fetch_add(batch.len() as u64, Relaxed);
    }
}

/// The outcome of each trial; none if the network's numbers are not finite.
fn run_trials(
    model: &Model,
    trials: &[PatchTrial],
    largest_batch: usize,
) -> Result<Vec<Option<TrialOutcome>>, ModelError> {
    let inputs: Vec<_> = trials.iter().flat_map(|trial| &trial.inputs).collect();
    let mut logits = Vec::with_capacity(inputs.len());
    for inputs in inputs.chunks(largest_batch.max(1)) {
        let values = inputs.iter().flat_map(|input| input.iter().copied()).collect();
        logits.extend(model.forward(&input_tensor(values, model)?, &[])?.logits.to_vec2::<f32>()?);
    }
    let of_trials = trials.iter().zip(logits.chunks(TRIAL_IMAGES));
    Ok(of_trials.map(|(trial, logits)| TrialOutcome::of(logits, trial.class)).collect())
}

impl TrialOutcome {
    /// From the logits of a trial's images; none if they are not finite.
    fn of(logits: &[Vec<f32>], class: usize) -> Option<Self> {
        let is_finite = logits.iter().flatten().all(|logit| logit.is_finite());
        (is_finite && logits.len() == TRIAL_IMAGES).then(|| Self {
            is_class: std::array::from_fn(|image| {
                let logits = &logits[image];
                // On a tie an image stays what it was.
                (0..logits.len()).all(|other| other == class || logits[other] < logits[class])
            }),
            probability: std::array::from_fn(|image| softmax_of(&logits[image], class)),
        })
    }
}

/// What the outcomes of a cluster's trials say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClusterProof {
    /// Images measured.
    pub measured: u64,
    /// The cluster's patches.
    pub patch: PatchEffect,
    /// Random places of other images of the class.
    pub random_place: ControlEffect,
    /// Where the model looks most in other images of the class.
    pub usual_place: ControlEffect,
    /// What follows.
    pub verdict: ProofVerdict,
}

impl ClusterProof {
    /// Sums outcomes up. An image that the model takes for the class as it is can't become it, so it
    /// does not count.
    #[must_use]
    pub fn of(outcomes: &[TrialOutcome]) -> Self {
        let usable: Vec<_> =
            outcomes.iter().filter(|outcome| !outcome.is_class[PLAIN]).copied().collect();
        let measured = usable.len() as u64;
        let random_place = control_effect(&usable, RANDOM_PLACE);
        let usual_place = control_effect(&usable, USUAL_PLACE);
        let random = AgainstControl { control: &random_place, rise: rise(&usable, RANDOM_PLACE) };
        let usual = AgainstControl { control: &usual_place, rise: rise(&usable, USUAL_PLACE) };
        let verdict = judge(measured, &random, &usual);
        Self { measured, patch: patch_effect(&usable, PATCH), random_place, usual_place, verdict }
    }
}

fn patch_effect(outcomes: &[TrialOutcome], image: usize) -> PatchEffect {
    let flipped: Vec<_> = outcomes.iter().map(|outcome| outcome.is_class[image]).collect();
    let rise = |outcome: &TrialOutcome| outcome.probability[image] - outcome.probability[PLAIN];
    let rises: Vec<_> = outcomes.iter().map(rise).collect();
    PatchEffect {
        flips: flipped.iter().filter(|flipped| **flipped).count() as u64,
        rate: proportion(&flipped),
        probability_rise: mean_within(&rises, -1.0, 1.0),
    }
}

fn control_effect(outcomes: &[TrialOutcome], image: usize) -> ControlEffect {
    let only = |one: usize, other: usize| {
        outcomes.iter().filter(|o| o.is_class[one] && !o.is_class[other]).count() as u64
    };
    let (patch_only, control_only) = (only(PATCH, image), only(image, PATCH));
    ControlEffect {
        effect: patch_effect(outcomes, image),
        difference: paired_difference(patch_only, control_only, outcomes.len() as u64),
        p: mcnemar_p(patch_only, control_only),
    }
}

/// The two-sided exact p-value of McNemar's test (1947) for the pairs in which only one of two
/// patches turns the image.
fn mcnemar_p(one: u64, other: u64) -> f64 {
    let binomial = Binomial::new(0.5, one + other).expect("a half is a probability");
    (2.0 * binomial.cdf(one.min(other))).min(1.0)
}

/// By how much more the patch raises the probability than a control, image by image.
fn rise(outcomes: &[TrialOutcome], image: usize) -> Estimate {
    let more = |outcome: &TrialOutcome| outcome.probability[PATCH] - outcome.probability[image];
    mean_within(&outcomes.iter().map(more).collect::<Vec<_>>(), -1.0, 1.0)
}

/// The patch against a control.
struct AgainstControl<'a> {
    control: &'a ControlEffect,
    /// By how much more the patch raises the probability.
    rise: Estimate,
}

impl AgainstControl<'_> {
    /// Whether the patch does clearly more: it turns more images, or raises the probability by more.
    fn is_more(&self) -> bool {
        let ControlEffect { difference, p, .. } = self.control;
        let turns =
            *p < SIGNIFICANCE && difference.mean.is_some_and(|mean| mean >= SMALLEST_EFFECT);
        turns || self.rise.low.is_some_and(|low| low >= SMALLEST_RISE)
    }

    /// Whether the patch does hardly more by either measure.
    fn is_hardly_more(&self) -> bool {
        let is_below =
            |estimate: Estimate, least: f64| estimate.high.is_some_and(|high| high < least);
        is_below(self.control.difference, SMALLEST_EFFECT) && is_below(self.rise, SMALLEST_RISE)
    }
}

/// The rules of the verdict; see [`ProofVerdict`].
fn judge(
    measured: u64,
    random_place: &AgainstControl<'_>,
    usual_place: &AgainstControl<'_>,
) -> ProofVerdict {
    if measured < SMALLEST_SAMPLE {
        return ProofVerdict::Undecided;
    }
    if random_place.is_more() && usual_place.is_more() {
        ProofVerdict::Confirmed
    } else if random_place.is_hardly_more() {
        ProofVerdict::Refuted
    } else {
        ProofVerdict::Undecided
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Outcomes of `n` images of which the patch flips the first, and each control the first.
    fn outcomes(n: usize, patch: usize, random: usize, usual: usize) -> Vec<TrialOutcome> {
        let outcome = |at: usize| {
            let is_class = [false, at < patch, at < random, at < usual];
            TrialOutcome { is_class, probability: is_class.map(|is| if is { 0.9 } else { 0.1 }) }
        };
        (0..n).map(outcome).collect()
    }

    fn verdict(n: usize, patch: usize, random: usize, usual: usize) -> ProofVerdict {
        ClusterProof::of(&outcomes(n, patch, random, usual)).verdict
    }

    #[test]
    fn a_patch_that_turns_images_as_no_control_does_is_a_shortcut() {
        assert_eq!(verdict(50, 40, 2, 5), ProofVerdict::Confirmed);
        assert_eq!(verdict(10, 10, 0, 0), ProofVerdict::Confirmed);
    }

    #[test]
    fn a_patch_that_does_what_random_places_do_is_innocent() {
        assert_eq!(verdict(50, 0, 0, 0), ProofVerdict::Refuted);
        assert_eq!(verdict(50, 20, 20, 30), ProofVerdict::Refuted);
        // With a thousand images 3 % more is significant, and does not matter.
        let small = ClusterProof::of(&outcomes(1000, 40, 10, 10));
        assert!(small.random_place.p < SIGNIFICANCE);
        assert_eq!(small.verdict, ProofVerdict::Refuted);
    }

    #[test]
    fn a_patch_that_does_what_the_usual_places_do_may_show_the_class_itself() {
        assert_eq!(verdict(50, 40, 2, 38), ProofVerdict::Undecided);
    }

    #[test]
    fn a_patch_that_moves_many_images_and_turns_few_is_a_shortcut_too() {
        let moved = |rise: f64, usual: f64| {
            let mut outcomes = outcomes(50, 5, 0, 0);
            for (at, outcome) in outcomes.iter_mut().enumerate() {
                let noise = (at % 5) as f64 / 100.0;
                outcome.probability = [0.2, 0.2 + rise + noise, 0.2 + noise, 0.2 + usual];
            }
            ClusterProof::of(&outcomes).verdict
        };
        assert_eq!(moved(0.12, 0.0), ProofVerdict::Confirmed);
        assert_eq!(moved(0.12, 0.12), ProofVerdict::Undecided);
        assert_eq!(moved(0.04, 0.0), ProofVerdict::Undecided);
    }

    #[test]
    fn few_images_give_no_verdict() {
        assert_eq!(verdict(9, 9, 0, 0), ProofVerdict::Undecided);
        assert_eq!(verdict(0, 0, 0, 0), ProofVerdict::Undecided);
        // Four more of ten: neither significant nor ruled out.
        assert_eq!(verdict(10, 4, 0, 0), ProofVerdict::Undecided);
    }

    #[test]
    fn rates_rises_and_the_test_are_those_of_the_pairs() {
        let proof = ClusterProof::of(&outcomes(20, 10, 2, 0));
        assert_eq!((proof.measured, proof.patch.flips), (20, 10));
        assert_eq!(proof.patch.rate.mean, Some(0.5));
        assert!((proof.patch.probability_rise.mean.unwrap() - 0.4).abs() < 1e-9);
        // Eight pairs speak for the patch, none against it: 2 / 2^8.
        assert!((proof.random_place.p - 2.0 / 256.0).abs() < 1e-12);
        assert_eq!(proof.random_place.difference.mean, Some(0.4));
    }

    #[test]
    fn images_that_are_the_class_anyway_do_not_count() {
        let mut outcomes = outcomes(20, 10, 0, 0);
        outcomes[0].is_class[PLAIN] = true;
        let proof = ClusterProof::of(&outcomes);
        assert_eq!((proof.measured, proof.patch.flips), (19, 9));
    }

    #[test]
    fn outcomes_are_those_of_the_logits() {
        let logits = [[1.0, 0.0], [0.0, 3.0_f32.ln()], [0.5, 0.5], [2.0, 1.0]].map(Vec::from);
        let outcome = TrialOutcome::of(&logits, 1).unwrap();
        assert_eq!(outcome.is_class, [false, true, false, false]);
        assert!((outcome.probability[PATCH] - 0.75).abs() < 1e-6);
        let mut broken = logits.clone();
        broken[3][0] = f32::NAN;
        assert_eq!(TrialOutcome::of(&broken, 1), None);
    }
}
