//! Errors of the model as a program tells them: what is wrong, and the option to change.
//!
//! The options are those of [`EngineArgs`](crate::arguments::EngineArgs), which both programs have.
//! Errors of the queue and the store are told by [`camshaft_arguments::advice`].

use camshaft_arguments::advice::with_option;
use camshaft_model::ModelError;

/// The text of a model's error, with the option to change.
#[must_use]
pub fn describe_model_error(error: &ModelError) -> String {
    let option = match error {
        ModelError::Device { .. } => Some("--device cpu"),
        ModelError::Precision { .. } => Some("--precision f32"),
        ModelError::Compute(_) => Some("--batch"),
        ModelError::Config { .. }
        | ModelError::ConfigValue { .. }
        | ModelError::Checkpoint { .. }
        | ModelError::Weights { .. }
        | ModelError::ClassCount { .. }
        | ModelError::Misfit { .. }
        | ModelError::BatchShape { .. } => None,
    };
    with_option(error, option)
}
