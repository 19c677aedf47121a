//! Why a training can't start, go on or end well.

use camshaft_model::ModelError;

/// Why a training can't start, go on or end well.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    /// The model to start from, or the one to be made, can't be used.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// None of a class's images can be read.
    #[error(
        "none of the images of class {class:?} to {purpose} on can be read; the warnings above say \
         why"
    )]
    UnreadableClass {
        /// The class.
        class: String,
        /// `train` or `validate`.
        purpose: &'static str,
    },
    /// An image could be read when the training started, and no longer.
    #[error("{key} can no longer be read: {reason}; restore it and run the same command again")]
    ImageLost {
        /// Its key.
        key: String,
        /// Why.
        reason: String,
    },
    /// Batch normalisation of single images learns nothing.
    #[error("--layers all needs batches: use a --batch of 2 or more")]
    BatchOfOne,
    /// The loss is infinite or no number.
    #[error(
        "the loss is no longer a number in epoch {epoch}; use a lower --learning-rate than \
         {learning_rate}, and another --out"
    )]
    Diverged {
        /// The epoch.
        epoch: u32,
        /// The rate.
        learning_rate: f64,
    },
    /// The file is no checkpoint of this version's, or not a whole one.
    #[error("the checkpoint can't be used: {0}; choose another --out, or remove it to start anew")]
    Checkpoint(String),
    /// The checkpoint belongs to a training with other settings or data.
    #[error(
        "this is not how the training in --out was started: {0}; use the same settings to go on, \
         or another --out"
    )]
    OtherTraining(String),
    /// The user stopped it.
    #[error("stopped")]
    Stopped,
    /// Computing failed.
    #[error("training failed: {0}; if memory ran out, use a smaller --batch")]
    Compute(#[from] candle_core::Error),
}
