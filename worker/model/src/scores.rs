//! What an image's logits say: which classes are listed, which are explained, and how sure the
//! network is.

use camshaft_common::explain::Target;
use camshaft_common::prediction::ClassPrediction;

use super::Model;
use super::explain::{ExplainError, ExplainRequest};

/// Classes a result lists even where only one is explained: ImageNet's customary top 5.
const LISTED_CLASSES: usize = 5;

/// What is known of an image before its maps are.
pub(super) struct Plan {
    pub(super) predictions: Vec<ClassPrediction>,
    pub(super) entropy: f32,
    /// Classes to explain, in the order of the result.
    pub(super) targets: Vec<usize>,
}

/// The logits of one image, ranked.
pub(super) struct Scores<'a> {
    logits: &'a [f32],
    probabilities: Vec<f32>,
    entropy: f32,
    /// Class indices, most probable first; equals in class order.
    ranking: Vec<usize>,
}

impl<'a> Scores<'a> {
    pub(super) fn of(logits: &'a [f32]) -> Result<Self, ExplainError> {
        if !logits.iter().all(|logit| logit.is_finite()) {
            return Err(ExplainError::LogitsNotFinite);
        }
        let mut ranking: Vec<_> = (0..logits.len()).collect();
        ranking.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        let (probabilities, entropy) = softmax(logits);
        Ok(Self { logits, probabilities, entropy, ranking })
    }

    /// Which classes are listed and which explained.
    pub(super) fn plan(
        &self,
        model: &Model,
        request: &ExplainRequest<'_>,
    ) -> Result<Plan, ExplainError> {
        let targets = match &request.options.target {
            Target::Top(count) => {
                let mut targets: Vec<_> = self.ranking.iter().copied().take(*count).collect();
                // A label may be of other words than the model's; that is no error here.
                let given = request.label.and_then(|name| model.config.class_named(name).ok());
                targets.extend(given.filter(|given| !targets.contains(given)));
                targets
            }
            Target::Label => {
                let label =
                    model.config.class_named(request.label.ok_or(ExplainError::NoLabel)?)?;
                let top = self.ranking[0];
                if top == label { vec![label] } else { vec![label, top] }
            }
            Target::Class(name) => vec![model.config.class_named(name)?],
        };
        let listed = self.ranking.iter().enumerate();
        let listed =
            listed.filter(|&(rank, class)| rank < LISTED_CLASSES || targets.contains(class));
        let predictions = listed.map(|(_, &class)| ClassPrediction {
            class,
            label: model.config.classes[class].clone(),
            probability: self.probabilities[class],
            logit: self.logits[class],
        });
        Ok(Plan { predictions: predictions.collect(), entropy: self.entropy, targets })
    }
}

/// Shares that add up to 1, from finite logits, and their entropy divided by that of equal ones: 0
/// sure, 1 no idea. A single class is sure.
fn softmax(logits: &[f32]) -> (Vec<f32>, f32) {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let below = || logits.iter().map(|&logit| f64::from(logit) - f64::from(max));
    let powers: Vec<_> = below().map(f64::exp).collect();
    let sum: f64 = powers.iter().sum();
    // -Σ p ln p, where ln p is a logit less what all have in common. A share of nothing has none.
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
