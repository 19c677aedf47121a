//! An image's result for another label, made of its result for the earlier one.
//!
//! The label decides which classes are listed and which are explained, and nothing else. So the network
//! is needed only if the label's class has no score or no map yet. Upstream: a stored result.
//! Downstream: the same result with another label.

use camshaft_common::explain::{FusedLayers, Method, Target};
use camshaft_common::label::{LabelMatcher, LabelProblem};
use camshaft_common::prediction::ClassPrediction;

use super::result::ExplainRequest;
use super::scores::{ChosenClasses, LISTED_CLASSES};
use crate::config::ModelConfig;
use crate::model_files::ModelFiles;

/// What a map of a result shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownMap<'a> {
    /// The method that computed it.
    pub method: Method,
    /// The layer, or fused layers.
    pub layer: &'a FusedLayers,
    /// Class index.
    pub class: usize,
}

/// The parts of a result that depend on the label.
#[derive(Clone, Debug, PartialEq)]
pub struct Relabelled {
    /// Index of the class that the label means, if there is a label.
    pub label: Option<Result<usize, LabelProblem>>,
    /// The classes that the result lists, most probable first.
    pub predictions: Vec<ClassPrediction>,
    /// The maps that the result has, in its order: each by its place among the known ones.
    pub maps: Vec<usize>,
}

impl ModelFiles {
    /// Makes the result of `request` from an earlier result of the same image by this model, which had
    /// another label and the same options: from the classes that it lists and from its maps. `None` if
    /// that needs the network, or can't be done at all.
    #[must_use]
    pub fn relabel(
        &self,
        predictions: &[ClassPrediction],
        maps: &[KnownMap<'_>],
        request: &ExplainRequest<'_>,
    ) -> Option<Relabelled> {
        relabel(self.config(), self.labels(), predictions, maps, request)
    }
}

fn relabel(
    config: &ModelConfig,
    labels: &LabelMatcher,
    predictions: &[ClassPrediction],
    maps: &[KnownMap<'_>],
    request: &ExplainRequest<'_>,
) -> Option<Relabelled> {
    let options = request.options;
    let most_probable = match &options.target {
        // They are explained, and so they are listed.
        Target::Top(count) => LISTED_CLASSES.max(*count),
        Target::Label | Target::Class(_) => LISTED_CLASSES,
    };
    // Older versions may have listed fewer.
    if predictions.len() < most_probable.min(config.classes.len()) {
        return None;
    }
    let ranking: Vec<_> = predictions.iter().map(|listed| listed.class).collect();
    let chosen = ChosenClasses::of(config, labels, request, &ranking).ok()?;
    let of_label = chosen.label.and_then(Result::ok);
    if !chosen.targets.iter().chain(&of_label).all(|class| ranking.contains(class)) {
        return None;
    }
    let kinds = options
        .method
        .iter()
        .flat_map(|&method| options.layer.iter().map(move |layer| (method, layer)));
    let kinds = kinds.flat_map(|(method, layer)| {
        chosen.targets.iter().map(move |&class| KnownMap { method, layer, class })
    });
    let maps: Option<Vec<_>> =
        kinds.map(|kind| maps.iter().position(|known| *known == kind)).collect();
    let listed = predictions.iter().enumerate();
    let listed = listed.filter(|(rank, listed)| chosen.lists(*rank, listed.class));
    let predictions = listed.map(|(_, listed)| listed.clone()).collect();
    Some(Relabelled { label: chosen.label, predictions, maps: maps? })
}

#[cfg(test)]
mod tests {
    use camshaft_common::explain::ExplainOptions;

    use super::super::result::ClassMap;
    use super::*;
    use crate::testing::{CLASSES, SIDE, noise, small_model};

    fn known_map(map: &ClassMap) -> KnownMap<'_> {
        KnownMap { method: map.method, layer: &map.layer, class: map.class }
    }

    #[test]
    fn a_relabelled_result_is_the_one_that_the_network_would_give() {
        let model = small_model();
        let input = noise(&[1, 3, SIDE, SIDE], 100).abs().unwrap();
        let classes = (0..CLASSES).map(|class| Some(format!("c{class}")));
        let labels: Vec<_> = classes.chain([Some("whale".to_owned()), None]).collect();
        for target in ["top1", "top-2", "top-99", "label", "class:c0"] {
            let options = ExplainOptions {
                method: "grad-cam,layer-cam".parse().unwrap(),
                layer: "layer4,layer3".parse().unwrap(),
                target: target.parse().unwrap(),
                ..ExplainOptions::default()
            };
            let explained = labels.iter().map(|label| {
                let request = ExplainRequest { options: &options, label: label.as_deref() };
                model.explain_batch(&input, &[request]).unwrap().remove(0)
            });
            let explained: Vec<_> = explained.collect();
            let mut kept = 0;
            for first in explained.iter().flatten() {
                let known: Vec<_> = first.explanations.iter().map(known_map).collect();
                for (label, second) in labels.iter().zip(&explained) {
                    let request = ExplainRequest { options: &options, label: label.as_deref() };
                    let scores = &first.predictions;
                    let (config, matcher) = (model.config(), model.labels());
                    let Some(made) = relabel(config, matcher, scores, &known, &request) else {
                        continue;
                    };
                    let second = second.as_ref().expect("the network gives a result, too");
                    assert_eq!(made.label, second.label, "{target} {label:?}");
                    assert_eq!(made.predictions, second.predictions, "{target} {label:?}");
                    let made: Vec<_> = made.maps.iter().map(|&at| known[at]).collect();
                    let computed: Vec<_> = second.explanations.iter().map(known_map).collect();
                    assert_eq!(made, computed, "{target} {label:?}");
                    kept += 1;
                }
            }
            // Of 9 labels: to the most probable classes, to none, and to the same label.
            let listed = explained.last().unwrap().as_ref().map_or(0, |one| one.predictions.len());
            let expected = match target {
                "top1" => 3 * 9 + 6,
                "top-2" => 4 * 9 + 5,
                "top-99" => 9 * 9,
                // Without a label there is no result, and the most probable class always has a map.
                "label" => 7 + 6,
                _ => (listed + 2) * 9 + CLASSES - listed,
            };
            assert_eq!(kept, expected, "{target}");
        }
    }

    #[test]
    fn a_result_that_lists_too_few_classes_needs_the_network() {
        let model = small_model();
        let options = ExplainOptions::default();
        let request = ExplainRequest { options: &options, label: None };
        for listed in 0..LISTED_CLASSES {
            let scores = (0..listed).map(|class| ClassPrediction {
                class,
                label: format!("c{class}"),
                probability: 0.1,
                logit: 1.0,
            });
            let scores: Vec<_> = scores.collect();
            let layer = options.layer.first();
            let method = *options.method.first();
            let known = [KnownMap { method, layer, class: 0 }];
            let made = relabel(model.config(), model.labels(), &scores, &known, &request);
            assert_eq!(made, None, "{listed}");
        }
    }
}
