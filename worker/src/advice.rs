//! Errors of the model as a program tells them: what is wrong, and the option to change.
//!
//! The options are those of [`EngineArgs`](crate::arguments::EngineArgs), which both programs have.
//! Errors of the queue and the store are told by [`camshaft_arguments::advice`].

use camshaft_arguments::advice::with_option;
use camshaft_model::{CheckpointError, ModelError};

/// The text of a model's error, with the option to change.
#[must_use]
pub fn describe_model_error(error: &ModelError) -> String {
    let option = match error {
        ModelError::Device { .. } => Some("--device cpu"),
        ModelError::Precision { .. } => Some("--precision f32"),
        ModelError::Compute(_) => Some("--batch"),
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
            | CheckpointError::NotSafetensors(_)
            | CheckpointError::Tensor { .. }
            | CheckpointError::TwoShards(_) => None,
        },
        // Of another architecture no tensor may be ignored.
        ModelError::Unused { looks_like: None, .. } => Some("--ignore-tensors"),
        ModelError::ClassCount { .. } => Some("--classes"),
        ModelError::Unused { looks_like: Some(_), .. }
        | ModelError::Config { .. }
        | ModelError::ConfigValue { .. }
        | ModelError::Weights { .. }
        | ModelError::OneOutput { .. }
        | ModelError::NoArchitecture { .. }
        | ModelError::Misfit { .. }
        | ModelError::NotFinite { .. }
        | ModelError::BatchShape { .. } => None,
    };
    with_option(error, option)
}
