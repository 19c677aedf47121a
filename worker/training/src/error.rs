//! Why a training can't start or continue.

use camshaft_model::ModelError;

use super::setting_differences::SettingDifferences;

/// Why a training can't start or continue.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    /// The initial model, or the trained one, can't be used.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// No image of a class can be read.
    #[error(
        "none of the images of class {class:?} to {purpose} on can be read; the warnings above say \
         why"
    )]
    UnreadableClass {
        /// The class.
        class: String,
        /// What the class has no images for: `train` or `validate`.
        purpose: &'static str,
    },
    /// An image could be read when the training started, and can't be read now.
    #[error("{key} can no longer be read: {reason}; restore it and run the same command again")]
    ImageLost {
        /// The image's key.
        key: String,
        /// Why it can't be read.
        reason: String,
    },
    /// The batch has one image: a network can't learn from batches normalised by themselves.
    #[error("training all layers needs batches of 2 images or more")]
    BatchOfOne,
    /// The loss is infinite or NaN.
    #[error(
        "the loss is no longer a number in epoch {epoch}; use a lower learning rate than \
         {learning_rate}, and another folder for the model"
    )]
    Diverged {
        /// The epoch.
        epoch: u32,
        /// The learning rate.
        learning_rate: f64,
    },
    /// The file is no checkpoint of this version, or a truncated one. The text says what is wrong.
    #[error(
        "the checkpoint can't be used: {0}; choose another folder, or remove the checkpoint to \
         start anew"
    )]
    Checkpoint(String),
    /// The checkpoint belongs to a training with other settings or data. The text says what
    /// differs.
    #[error(
        "the folder has a training that was started with other settings: {0}; use the same \
         settings to go on, or another folder"
    )]
    OtherTraining(SettingDifferences),
    /// The user stopped the training.
    #[error("stopped")]
    Stopped,
    /// The computation failed, for example because memory ran out.
    #[error("training failed: {0}; if memory ran out, use a smaller batch")]
    Compute(#[from] candle_core::Error),
}
