//! Whether a model has the layers and classes that it is asked to explain.

use camshaft_common::explain::{Choices, ExplainOptions, FusedLayers, Target};
use camshaft_common::label::LabelProblem;

use super::cost::ExplanationCost;
use super::error::ExplainError;
use crate::config::ModelConfig;
use crate::model_files::ModelFiles;
use crate::network::layer_point::LayerPoint;
use crate::network::resnet::ResNetShape;

/// Classes an error names before it only counts them.
const NAMED_CLASSES: usize = 10;

impl ModelFiles {
    /// Checks, before any image is read, that the model has the layers and the class of `options`, and
    /// that an image's maps are not too many.
    ///
    /// # Errors
    /// If the model has no such layer, or not exactly one such class, or if the maps cost too much.
    pub fn check(&self, options: &ExplainOptions) -> Result<(), ExplainError> {
        self.config().check_explanation(options)
    }
}

/// Checks that a network of this shape has these layers.
///
/// # Errors
/// If it lacks one; the error names the first.
pub(super) fn check_layers(
    shape: ResNetShape,
    layers: &Choices<FusedLayers>,
) -> Result<(), ExplainError> {
    let layers = layers.iter().flat_map(FusedLayers::as_slice).copied();
    for layer in layers {
        if LayerPoint::find(layer, shape).is_none() {
            return Err(ExplainError::UnknownLayer { layer, has: shape.describe_layers() });
        }
    }
    Ok(())
}

impl ModelConfig {
    /// As [`ModelFiles::check`], which needs no weights.
    ///
    /// # Errors
    /// As [`ModelFiles::check`].
    pub fn check_explanation(&self, options: &ExplainOptions) -> Result<(), ExplainError> {
        check_layers(ResNetShape::of(self.architecture), &options.layer)?;
        if let Target::Class(name) = &options.target {
            self.class_named(name)?;
        }
        let (cost, limits) = (self.explanation_cost(options), ExplanationCost::MOST);
        if cost.is_within(limits) {
            return Ok(());
        }
        let ExplanationCost { maps, values, passes } = cost;
        Err(ExplainError::TooCostly { maps, values, passes, limits })
    }

    /// The index of the class called `name`.
    ///
    /// # Errors
    /// If no class or several classes have that name.
    pub fn class_named(&self, name: &str) -> Result<usize, ExplainError> {
        let classes = &self.classes;
        let mut found = (0..classes.len()).filter(|&class| classes[class] == name);
        match (found.next(), found.count()) {
            (Some(class), 0) => Ok(class),
            (Some(_), more) => {
                Err(ExplainError::AmbiguousClass { name: name.to_owned(), count: more + 1 })
            }
            (None, _) => {
                let classes = self.listed_classes();
                Err(ExplainError::UnknownClass { name: name.to_owned(), classes })
            }
        }
    }

    /// The error for a label that is to be explained and means no class.
    pub(super) fn label_error(&self, label: &str, problem: LabelProblem) -> ExplainError {
        let label = label.to_owned();
        match problem {
            LabelProblem::Unknown => {
                ExplainError::UnknownLabel { label, classes: self.listed_classes() }
            }
            LabelProblem::Ambiguous => ExplainError::AmbiguousLabel { label },
        }
    }

    /// The first classes, and the number of the others.
    fn listed_classes(&self) -> String {
        let classes = &self.classes;
        let mut listed = classes[..classes.len().min(NAMED_CLASSES)].join(", ");
        if classes.len() > NAMED_CLASSES {
            listed += &format!(" and {} more", classes.len() - NAMED_CLASSES);
        }
        listed
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::small_model;

    #[cfg(feature = "bundled")]
    #[test]
    fn the_bundled_models_options_are_checked_without_its_weights() {
        use crate::{ModelConfig, ModelFiles};
        let config = ModelConfig::bundled();
        assert_eq!(&config, ModelFiles::bundled().config());
        for (layer, target, fault) in [
            ("layer4", "class:dog", None),
            ("layer4.3", "top1", Some("no layer layer4.3")),
            ("layer4", "class:whale", Some("no class \"whale\"")),
        ] {
            let options = camshaft_common::explain::ExplainOptions {
                layer: layer.parse().unwrap(),
                target: target.parse().unwrap(),
                ..Default::default()
            };
            match (config.check_explanation(&options), fault) {
                (Ok(()), None) => {}
                (Err(error), Some(part)) => assert!(error.to_string().contains(part), "{error}"),
                (checked, _) => panic!("{layer}, {target}: {checked:?}"),
            }
        }
    }

    #[test]
    fn a_name_that_is_no_class_is_answered_with_those_there_are() {
        let error = small_model().config().class_named("whale").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the model has no class \"whale\"; its classes are c0, c1, c2, c3, c4, c5, c6"
        );
    }
}
