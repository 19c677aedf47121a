//! Probabilities from heads that have not seen the image: for each fold, a head is fitted to the
//! images of all others (Northcutt et al. 2021, section 3, "out-of-sample").
//!
//! The strength of the regularisation is the one whose heads are least surprised by the labels of the
//! folds that they have not seen. Heads are fitted twice: the second time without the labels that the
//! first ones suspect, which would otherwise pull them.

use super::confident_learning::{self, Opinion};
use super::folds::FOLDS;
use crate::learning::{FeatureMatrix, MultinomialHead};
use crate::predictions::NO_NAME;

/// Strengths to choose from, the strongest first. A row of features has the squared length 128; on
/// photographs of cats and dogs 0.1 was best, and sets of more images take weaker ones.
const STRENGTHS: [f64; 8] = [1.0, 0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4];
/// The most images, about, that one head is fitted to: 1,300 of each of 100 classes.
const MAX_TRAINING_IMAGES: f64 = 131_072.0;
/// The most images, about, that strengths are compared on.
const MAX_COMPARED_IMAGES: f64 = 8192.0;
/// If more images than these are compared, one fold is enough to compare strengths on.
const MANY_IMAGES: usize = 5000;

/// The images that heads are fitted to and judge.
pub(super) struct LabelledImages<'a> {
    pub(super) features: &'a FeatureMatrix,
    /// By row of the table, the number of the class; [`NO_NAME`] for other rows.
    pub(super) classes: Vec<u32>,
    pub(super) class_count: usize,
    /// By row of the table.
    pub(super) folds: &'a [u8],
    /// By row of the table, what samples are drawn by.
    pub(super) draws: &'a [f32],
    /// The rows with a class and a fold, in ascending order.
    pub(super) rows: Vec<u32>,
}

/// The heads of all folds, and what they say of the images of their own fold.
pub(super) struct CrossFit {
    pub(super) strength: f64,
    heads: Vec<MultinomialHead>,
    /// By position in the examples' rows.
    pub(super) opinions: Vec<Opinion>,
}

impl LabelledImages<'_> {
    /// Fits heads to all folds.
    pub(super) fn cross_fit(&self) -> CrossFit {
        let strength = self.choose_strength();
        let fit = |fold| {
            let rows = self.training_rows(MAX_TRAINING_IMAGES, Some(fold), &|_| false);
            MultinomialHead::fit(self.features, &rows, &self.classes, self.class_count, strength)
        };
        let heads: Vec<_> = (0..FOLDS).map(fit).collect();
        let opinions = self.opinions(&heads);
        CrossFit { strength, heads, opinions }
    }

    /// Fits heads again, to all images but the suspected ones.
    pub(super) fn fit_again(&self, first: &CrossFit, suspected: &dyn Fn(u32) -> bool) -> CrossFit {
        let strength = first.strength;
        let again = |(fold, head): (u8, &MultinomialHead)| {
            let rows = self.training_rows(MAX_TRAINING_IMAGES, Some(fold), suspected);
            head.fit_again(self.features, &rows, &self.classes, strength)
        };
        let heads: Vec<_> = (0..FOLDS).zip(&first.heads).map(again).collect();
        let opinions = self.opinions(&heads);
        CrossFit { strength, heads, opinions }
    }

    /// A head on all folds, but without the suspected images.
    pub(super) fn fit_all(
        &self,
        strength: f64,
        suspected: &dyn Fn(u32) -> bool,
    ) -> MultinomialHead {
        let rows = self.training_rows(MAX_TRAINING_IMAGES, None, suspected);
        MultinomialHead::fit(self.features, &rows, &self.classes, self.class_count, strength)
    }

    /// A sample of about `most` of the rows outside `fold` that are not suspected.
    fn training_rows(
        &self,
        most: f64,
        fold: Option<u8>,
        suspected: &dyn Fn(u32) -> bool,
    ) -> Vec<u32> {
        let share = (most / self.rows.len() as f64) as f32;
        let rows = self.rows.iter().copied();
        rows.filter(|row| {
            let at = *row as usize;
            Some(self.folds[at]) != fold && self.draws[at] < share && !suspected(*row)
        })
        .collect()
    }

    fn choose_strength(&self) -> f64 {
        let sample = self.training_rows(MAX_COMPARED_IMAGES, None, &|_| false);
        let folds = if sample.len() > MANY_IMAGES { 1 } else { FOLDS };
        let mut heads: Vec<Option<MultinomialHead>> = vec![None; usize::from(folds)];
        let mut best = (STRENGTHS[0], f64::INFINITY);
        for strength in STRENGTHS {
            let mut surprise = 0.0;
            for (fold, head) in (0..folds).zip(&mut heads) {
                let (seen, unseen): (Vec<u32>, Vec<u32>) =
                    sample.iter().partition(|row| self.folds[**row as usize] != fold);
                let (features, classes) = (self.features, &self.classes);
                let next = match head {
                    Some(head) => head.fit_again(features, &seen, classes, strength),
                    None => {
                        MultinomialHead::fit(features, &seen, classes, self.class_count, strength)
                    }
                };
                let surprises = next.map_rows(features, &unseen, |row, probabilities| {
                    let probability = probabilities[classes[row as usize] as usize];
                    -f64::from(probability.max(f32::MIN_POSITIVE)).ln()
                });
                surprise += surprises.iter().sum::<f64>();
                *head = Some(next);
            }
            // Weaker ones only get worse from here on.
            if surprise > best.1 {
                break;
            }
            best = (strength, surprise);
        }
        best.0
    }

    /// What each fold's head says of its images.
    fn opinions(&self, heads: &[MultinomialHead]) -> Vec<Opinion> {
        let first = |row: u32, probabilities: &[f32]| {
            let label = self.classes[row as usize];
            let mut best = (label, probabilities[label as usize]);
            for (class, probability) in (0..).zip(probabilities) {
                if *probability > best.1 {
                    best = (class, *probability);
                }
            }
            let label_probability = probabilities[label as usize];
            let (top, top_probability) = best;
            Opinion { label, label_probability, top, top_probability, confident: NO_NAME }
        };
        let mut opinions = self.map_folds(heads, first);
        let labels = opinions.iter().map(|opinion| (opinion.label, opinion.label_probability));
        let thresholds = confident_learning::thresholds(labels, self.class_count);
        // Holding all probabilities would take more memory than a second pass takes time.
        let confident = self.map_folds(heads, |_, probabilities| {
            confident_learning::confident_class(probabilities, &thresholds)
        });
        for (opinion, confident) in opinions.iter_mut().zip(confident) {
            opinion.confident = confident;
        }
        opinions
    }

    /// Calls `read` with each row and the probabilities that its fold's head gives it. Returns what it
    /// returns, in the order of the rows.
    fn map_folds<T: Clone + Default + Send>(
        &self,
        heads: &[MultinomialHead],
        read: impl Fn(u32, &[f32]) -> T + Sync,
    ) -> Vec<T> {
        let mut all = vec![T::default(); self.rows.len()];
        for (fold, head) in (0..).zip(heads) {
            let of_fold = |at: &usize| self.folds[self.rows[*at] as usize] == fold;
            let positions: Vec<usize> = (0..self.rows.len()).filter(of_fold).collect();
            let rows: Vec<u32> = positions.iter().map(|at| self.rows[*at]).collect();
            let found = head.map_rows(self.features, &rows, &read);
            for (at, value) in positions.into_iter().zip(found) {
                all[at] = value;
            }
        }
        all
    }
}
