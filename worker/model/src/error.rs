//! Why a model can't be loaded or run. Errors of single images are in
//! [`explain`](crate::explain).

use camshaft_common::model::CalibrationError;

use crate::checkpoint::CheckpointError;
use crate::compute::{DeviceError, PrecisionError};
use crate::other_network::OtherNetwork;

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
    /// The last layer has another number of classes than are named.
    #[error(
        "{named_by} of model {model:?} names {classes} classes, but {tensor} has {rows}; list one \
         name for each, in order"
    )]
    ClassCount {
        /// The model's name.
        model: String,
        /// The file with the class names.
        named_by: String,
        /// Number of class names in it.
        classes: usize,
        /// Name of the head's weight in the file.
        tensor: String,
        /// Number of classes of the head.
        rows: usize,
    },
    /// The last layer has one output: a sigmoid follows, not a softmax.
    #[error(
        "model {model:?} has a single output ({tensor}), whose probability is a sigmoid's; only \
         models with one output for each of several classes can be run"
    )]
    OneOutput {
        /// The model's name.
        model: String,
        /// Name of the head's weight in the file.
        tensor: String,
    },
    /// The weights are of no architecture that can be run, and nothing names one.
    #[error(
        "the architecture of model {model:?} can't be told from its weights: they have {found}; \
         {}",
        match looks_like {
            Some(other @ OtherNetwork::Foreign(_)) => format!("they look like {other}"),
            _ => "name it in a config.json as \"architecture\"".to_owned(),
        }
    )]
    NoArchitecture {
        /// The model's name.
        model: String,
        /// The first tensors of the file, and the number of the others.
        found: String,
        /// The network that they seem to be of.
        looks_like: Option<OtherNetwork>,
    },
    /// Tensors are missing or have another shape than the network needs.
    #[error(
        "weights of model {model:?} are not those of the {architecture}: \
         {misfits}; beside what fits, the file has {found}; check \"architecture\" and \
         \"head\", and that the parameters have the names of torchvision, timm, transformers or \
         Keras"
    )]
    Misfit {
        /// The model's name.
        model: String,
        /// The network, and what names it.
        architecture: String,
        /// The first tensors that don't fit, and the number of the others.
        misfits: String,
        /// The first tensors that the network does not use, and the number of the others; what the
        /// file looks like, and which part of it was read.
        found: String,
    },
    /// The file has tensors that the network does not use: it is another network's.
    #[error(
        "weights of model {model:?} have tensors that a {architecture} does not use: {tensors}; {}",
        match looks_like {
            Some(other @ OtherNetwork::Foreign(_)) => format!("it looks like {other}"),
            Some(other) => format!("it looks like {other}; correct \"architecture\" in config.json"),
            None => "if the classifier gives the same without them, ignore them".to_owned(),
        }
    )]
    Unused {
        /// The model's name.
        model: String,
        /// The network that was loaded.
        architecture: &'static str,
        /// The first of these tensors, and the number of the others.
        tensors: String,
        /// The network that the file seems to be of, if it is another.
        looks_like: Option<OtherNetwork>,
    },
    /// Weights are NaN or infinite, or variances are below zero.
    #[error(
        "weights of model {model:?} have values that no trained network has: {tensors}; the \
         training diverged, or the file is damaged: take an earlier checkpoint or copy it again"
    )]
    NotFinite {
        /// The model's name.
        model: String,
        /// The first of these tensors, and the number of the others.
        tensors: String,
    },
    /// The model's calibration for 8 bits can't be used.
    #[error("model {model:?}: {source}")]
    Calibration {
        /// The model's name.
        model: String,
        /// What is wrong and what to do.
        #[source]
        source: CalibrationError,
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
    /// The maps of a batch were no longer wanted, and not all of them were computed.
    #[error("the maps were given up before all of them were computed")]
    GivenUp,
    /// The device ran out of memory. A smaller batch may fit.
    #[error("the model's device ran out of memory: {0}")]
    OutOfMemory(String),
    /// The device is lost for this process.
    #[error("the model's device is lost: {0}")]
    DeviceLost(String),
    /// Loading or computing failed, and would fail again.
    #[error("the network can't be computed: {0}")]
    Compute(#[from] candle_core::Error),
}
