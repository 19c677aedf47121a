//! Why a model can't be loaded or run. Failures of single images are in [`super::explain`].

use super::checkpoint::CheckpointError;
use super::compute::KernelChoice;
use super::device::{DeviceChoice, Precision};

/// Why a model can't be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// `config.json` is not JSON, or holds words this version doesn't know; serde's message
    /// lists those it does.
    #[error(
        "config.json of model {model:?} can't be used: {source}; correct it or use a newer version"
    )]
    Config {
        /// The model's name.
        model: String,
        /// What and where.
        #[source]
        source: serde_json::Error,
    },
    /// `config.json` can be read but contradicts itself.
    #[error("config.json of model {model:?} can't be used: {problem}")]
    ConfigValue {
        /// The model's name.
        model: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The weights file is of another kind, or one that can't be converted.
    #[error("weights of model {model:?} can't be read: {source}")]
    Checkpoint {
        /// The model's name.
        model: String,
        /// What is wrong and what to do.
        #[source]
        source: CheckpointError,
    },
    /// The weights file is not safetensors.
    #[error("weights of model {model:?} are not a whole safetensors file; copy them again")]
    Weights {
        /// The model's name.
        model: String,
        /// What and where.
        #[source]
        source: candle_core::Error,
    },
    /// The last layer has another number of classes than `config.json` names.
    #[error(
        "config.json of model {model:?} names {classes} classes, but {tensor} has {rows}; \
         list one name for each, in order"
    )]
    ClassCount {
        /// The model's name.
        model: String,
        /// Class names in `config.json`.
        classes: usize,
        /// The head's weight in the file.
        tensor: String,
        /// Classes it is for.
        rows: usize,
    },
    /// Tensors are missing or have another shape than the network needs.
    #[error(
        "weights of model {model:?} are not those of the {architecture} in its config.json: \
         {misfits}; check \"architecture\" and \"head\", and that the parameters have the names of \
         torchvision, timm, transformers or Keras"
    )]
    Misfit {
        /// The model's name.
        model: String,
        /// The network they were read for.
        architecture: &'static str,
        /// The first tensors that don't fit, and how many more there are.
        misfits: String,
    },
    /// The device is not there, or not in this build.
    #[error("device {choice} can't be used: {problem}")]
    Device {
        /// What was asked for.
        choice: DeviceChoice,
        /// Why not, and what to do.
        problem: String,
    },
    /// The CPU doesn't compute in that precision, or not with that kernel.
    #[error("{precision} with kernel {choice} is not available on this CPU; use --precision f32")]
    Precision {
        /// What was asked for.
        precision: Precision,
        /// What was to multiply.
        choice: KernelChoice,
    },
    /// A batch of another shape than the model takes, or with another number of requests.
    #[error("a batch of shape {actual:?} was given, the model takes {expected:?}")]
    BatchShape {
        /// Shape of the batch.
        actual: Vec<usize>,
        /// Shape the requests and the model call for.
        expected: [usize; 4],
    },
    /// The device failed while loading or computing: out of memory, lost.
    #[error("the model's device failed: {0}; if memory ran out, use a smaller --batch")]
    Compute(#[from] candle_core::Error),
}
