//! Why a model can't be loaded or run. Errors of single images are in
//! [`explain`](crate::explain).

use crate::checkpoint::CheckpointError;
use crate::compute::{DeviceError, PrecisionError};

/// Why a model can't be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// `config.json` is not JSON, or has words that this version doesn't know. serde's message
    /// lists the known words.
    #[error(
        "config.json of model {model:?} can't be used: {source}; correct it or use a newer version"
    )]
    Config {
        /// The model's name.
        model: String,
        /// What is wrong, with line and column.
        #[source]
        source: serde_json::Error,
    },
    /// `config.json` can be read but contradicts itself.
    #[error("config.json of model {model:?} can't be used: {problem}")]
    ConfigValue {
        /// The model's name.
        model: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// The file of weights has a format that can't be read.
    #[error("weights of model {model:?} can't be read: {source}")]
    Checkpoint {
        /// The model's name.
        model: String,
        /// What is wrong and what to do.
        #[source]
        source: CheckpointError,
    },
    /// The file of weights is not safetensors, or truncated.
    #[error("weights of model {model:?} are not a whole safetensors file; copy them again")]
    Weights {
        /// The model's name.
        model: String,
        /// What is wrong.
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
        /// Number of class names in `config.json`.
        classes: usize,
        /// Name of the head's weight in the file.
        tensor: String,
        /// Number of classes of the head.
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
        /// The network in `config.json`.
        architecture: &'static str,
        /// The first tensors that don't fit, and the number of the others.
        misfits: String,
    },
    /// The device is not there, or this build can't use it.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The CPU doesn't compute in that precision with that kernel.
    #[error(transparent)]
    Precision(#[from] PrecisionError),
    /// A batch has another shape than the model's input, or another number of images than requests.
    #[error("a batch of shape {actual:?} was given, the model takes {expected:?}")]
    BatchShape {
        /// The batch's shape.
        actual: Vec<usize>,
        /// The shape that the model takes, for the number of requests.
        expected: [usize; 4],
    },
    /// The device failed while loading or computing: it ran out of memory, or was lost.
    #[error("the model's device failed: {0}; if memory ran out, use a smaller batch")]
    Compute(#[from] candle_core::Error),
}
