//! The model: reading its files, running its network, and explaining what it predicts.
//!
//! How pixels become the network's input is described by the input rule of a [`ModelConfig`] and
//! done in another crate. Upstream: the files of a model, and decoded batches. Downstream:
//! overlays and results. Start reading at [`Model`].

#[cfg(feature = "bundled")]
mod bundled;
mod calibration;
pub mod cam;
pub mod checkpoint;
mod compute;
mod config;
pub mod embedding;
mod error;
mod explain;
mod model;
mod model_files;
pub mod network;
mod other_network;
mod redraw;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use calibration::{
    Calibration, CalibrationImages, CalibrationProgress, calibrate, calibrate_by,
    compare_calibrated,
};
pub use checkpoint::CheckpointError;
pub use compute::{
    ComputeDevice, ComputeSettings, DeviceChoice, DeviceError, KernelChoice, ParseDeviceError,
    ParseKernelChoiceError, ParsePrecisionError, Precision, PrecisionError, int8_kernel,
};
pub use config::{Architecture, HeadKind, ModelConfig};
pub use error::ModelError;
pub use explain::{
    ClassMap, ExplainError, ExplainRequest, ExplainedImage, ExplanationCost, ImageResults,
    KnownMap, Relabelled, StartedBatch,
};
pub use model::Model;
pub use model_files::ModelFiles;
pub use network::resnet::{ForwardOutput, STAGES};
pub use other_network::OtherNetwork;
pub use redraw::{NetworkPart, redraw};
