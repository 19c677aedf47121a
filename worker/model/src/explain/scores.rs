//! Scores of an image's classes: which classes are listed, which are explained, and how sure the
//! network is.

use camshaft_common::explain::Target;
use camshaft_common::label::{LabelMatcher, LabelProblem};
use camshaft_common::prediction::ClassPrediction;

use super::error::ExplainError;
use super::result::ExplainRequest;
use crate::config::ModelConfig;

/// A result lists at least this many classes: ImageNet's customary top 5.
pub(super) const LISTED_CLASSES: usize = 5;

/// Which of an image's classes are listed and which are explained.
pub(super) struct ChosenClasses {
    /// Classes to explain, in the order of the result.
    pub(super) targets: Vec<usize>,
    /// The class that the label means, if there is a label.
    pub(super) label: Option<Result<usize, LabelProblem>>,
}

impl ChosenClasses {
    /// Chooses the classes to explain. `ranking` has at least one class, the most probable first.
    pub(super) fn of(
        config: &ModelConfig,
        labels: &LabelMatcher,
        request: &ExplainRequest<'_>,
        ranking: &[usize],
    ) -> Result<Self, ExplainError> {
        let label = request.label.map(|label| labels.find(label));
        let targets = match &request.options.target {
            Target::Top(count) => {
                let mut targets: Vec<_> = ranking.iter().copied().take(*count).collect();
                // A label may mean none of the model's classes; that is no error here.
                let given = label.and_then(Result::ok);
                targets.extend(given.filter(|given| !targets.contains(given)));
                targets
            }
            Target::Label => {
                let given = request.label.ok_or(ExplainError::NoLabel)?;
                let label =
                    labels.find(given).map_err(|problem| config.label_error(given, problem))?;
                let top = ranking[0];
                if top == label { vec![label] } else { vec![label, top] }
            }
            Target::Class(name) => vec![config.class_named(name)?],
        };
        Ok(Self { targets, label })
    }

    /// True if the result lists the class at `rank`, counted from 0. The class of the label is always
    /// listed.
    pub(super) fn lists(&self, rank: usize, class: usize) -> bool {
        rank < LISTED_CLASSES || self.targets.contains(&class) || self.label == Some(Ok(class))
    }
}

/// The scores in an image's result, and which of its classes to explain.
pub(super) struct ScorePlan {
    /// The listed classes, most probable first.
    pub(super) predictions: Vec<ClassPrediction>,
    /// Entropy of all probabilities, divided by ln(classes).
    pub(super) entropy: f32,
    /// Classes to explain, in the order of the result.
    pub(super) targets: Vec<usize>,
    /// The class that the label means, if there is a label.
    pub(super) label: Option<Result<usize, LabelProblem>>,
}

/// The ranked logits of one image.
pub(super) struct ImageScores<'a> {
    logits: &'a [f32],
    probabilities: Vec<f32>,
    entropy: f32,
    /// Class indices, most probable first; classes with the same logit in class order.
    ranking: Vec<usize>,
}

impl<'a> ImageScores<'a> {
    pub(super) fn of(logits: &'a [f32]) -> Result<Self, ExplainError> {
        if !logits.iter().all(|logit| logit.is_finite()) {
            return Err(ExplainError::LogitsNotFinite);
        }
        let mut ranking: Vec<_> = (0..logits.len()).collect();
        ranking.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        let (probabilities, entropy) = softmax(logits);
        Ok(Self { logits, probabilities, entropy, ranking })
    }

    /// Decides which classes are listed and which are explained.
    pub(super) fn plan(
        &self,
        config: &ModelConfig,
        labels: &LabelMatcher,
        request: &ExplainRequest<'_>,
    ) -> Result<ScorePlan, ExplainError> {
        let chosen = ChosenClasses::of(config, labels, request, &self.ranking)?;
        let listed = self.ranking.iter().enumerate();
        let listed = listed.filter(|&(rank, &class)| chosen.lists(rank, class));
        let predictions = listed.map(|(_, &class)| ClassPrediction {
            class,
            label: config.classes[class].clone(),
            probability: self.probabilities[class],
            logit: self.logits[class],
        });
        let (predictions, entropy) = (predictions.collect(), self.entropy);
        let ChosenClasses { targets, label } = chosen;
        Ok(ScorePlan { predictions, entropy, targets, label })
    }
}

/// Probabilities of finite logits, and their entropy divided by ln(classes): 0 if one class is
/// certain, 1 if all are equally probable. With a single class it is 0.
fn softmax(logits: &[f32]) -> (Vec<f32>, f32) {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let below = || logits.iter().map(|&logit| f64::from(logit) - f64::from(max));
    let powers: Vec<_> = below().map(f64::exp).collect();
    let sum: f64 = powers.iter().sum();
    // -Σ p ln p, with ln p = logit - max - ln(sum). A probability of 0 adds 0.
    let mean: f64 = powers.iter().zip(below()).map(|(power, below)| power / sum * below).sum();
    let most = (logits.len() as f64).ln();
    let entropy = if most > 0.0 { ((sum.ln() - mean) / most).clamp(0.0, 1.0) } else { 0.0 };
    (powers.into_iter().map(|power| (power / sum) as f32).collect(), entropy as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_is_none_where_a_class_is_sure_and_whole_where_all_are_alike() {
        assert_eq!(softmax(&[3.5]), (vec![1.0], 0.0));
        assert_eq!(softmax(&[-2.0; 8]).1, 1.0);
        assert_eq!(softmax(&[f32::MAX, f32::MIN, 0.0]), (vec![1.0, 0.0, 0.0], 0.0));
        // scipy.stats.entropy(scipy.special.softmax([1, 2, 3])) / numpy.log(3), SciPy 1.17
        let (shares, entropy) = softmax(&[1.0, 2.0, 3.0]);
        assert!((entropy - 0.757_679_1).abs() < 1e-6, "{entropy}");
        assert!((shares.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }
}
