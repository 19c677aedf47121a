//! Errors of the model, and of explaining an image, as a program tells them: what is wrong, and the
//! option to change.
//!
//! The options are those of [`EngineArgs`](crate::arguments::EngineArgs), which both programs have.
//! Errors of the queue and the store are told by [`camshaft_arguments::advice`].

use camshaft_arguments::advice::with_option;
use camshaft_model::{CheckpointError, ExplainError, ModelError, PrecisionError};

/// The text of a model's error, with the option to change.
#[must_use]
pub fn describe_model_error(error: &ModelError) -> String {
    let option = match error {
        ModelError::Device { .. } => Some("--device cpu"),
        ModelError::Precision(PrecisionError::Unavailable { .. } | PrecisionError::Network(_)) => {
            Some("--precision f32")
        }
        ModelError::Precision(_) => None,
        ModelError::OutOfMemory(_) => Some("--batch"),
        ModelError::Checkpoint { source, .. } => match source {
            CheckpointError::SeveralStateDicts(_) | CheckpointError::NoKey { .. } => {
                Some("--weights-key")
            }
            CheckpointError::SeveralNetworks(_) => Some("--weights-key or --ignore-tensors"),
            CheckpointError::SeveralHeads(_) => Some("--ignore-tensors"),
            CheckpointError::Empty
            | CheckpointError::LfsPointer
            | CheckpointError::WebPage
            | CheckpointError::LegacyTorch
            | CheckpointError::WholeModule { .. }
            | CheckpointError::NoStateDict(_)
            | CheckpointError::Keras(_)
            | CheckpointError::Damaged(_)
            | CheckpointError::Unrecognised
            | CheckpointError::NotSafetensors(_)
            | CheckpointError::Tensor { .. }
            | CheckpointError::TwoShards(_) => None,
        },
        // Of another architecture no tensor may be ignored.
        ModelError::Unused { looks_like: None, .. } => Some("--ignore-tensors"),
        ModelError::ClassCount { .. } => Some("--classes"),
        ModelError::Unused { looks_like: Some(_), .. }
        | ModelError::Calibration { .. }
        | ModelError::Config { .. }
        | ModelError::ConfigValue { .. }
        | ModelError::Weights { .. }
        | ModelError::OneOutput { .. }
        | ModelError::NoArchitecture { .. }
        | ModelError::Misfit { .. }
        | ModelError::NotFinite { .. }
        | ModelError::BatchShape { .. }
        | ModelError::DeviceLost(_)
        | ModelError::Compute(_)
        | ModelError::GivenUp => None,
    };
    with_option(error, option)
}

/// The text of an error of explaining an image, with what to do about it.
#[must_use]
pub fn describe_explain_error(error: &ExplainError) -> String {
    let advice = match error {
        ExplainError::NoLabel => "; use --labels folder or a list with labels, or another --target",
        ExplainError::LogitsNotFinite | ExplainError::MapNotFinite { .. } => {
            "; if it runs in f16, use --precision f32"
        }
        ExplainError::UnknownLabel { .. } | ExplainError::AmbiguousLabel { .. } => {
            "; say with --label-map which class it is, or use another --target"
        }
        ExplainError::TooCostly { .. } => {
            "; choose fewer methods, layers or classes (--method, --layer, --target)"
        }
        ExplainError::UnknownClass { .. }
        | ExplainError::AmbiguousClass { .. }
        | ExplainError::UnknownLayer { .. } => "",
    };
    format!("{error}{advice}")
}

#[cfg(test)]
mod tests {
    use super::describe_explain_error as text;
    use super::*;

    #[test]
    fn a_failure_says_which_option_to_change() {
        assert_eq!(
            text(&ExplainError::NoLabel),
            "the image has no label to explain; use --labels folder or a list with labels, or \
             another --target"
        );
        assert_eq!(
            text(&ExplainError::LogitsNotFinite),
            "the model's logits are not finite; if it runs in f16, use --precision f32"
        );
        assert_eq!(
            text(&ExplainError::MapNotFinite { class: "cat".to_owned() }),
            "the map for class \"cat\" is not finite; if it runs in f16, use --precision f32"
        );
        assert_eq!(
            text(&ExplainError::AmbiguousLabel { label: "crane".to_owned() }),
            "the label \"crane\" could be several of the model's classes; say with --label-map \
             which class it is, or use another --target"
        );
        let classes = "cat, dog".to_owned();
        assert_eq!(
            text(&ExplainError::UnknownClass { name: "whale".to_owned(), classes }),
            "the model has no class \"whale\"; its classes are cat, dog"
        );
    }
}
