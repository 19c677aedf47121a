//! The trained network as the files of a model, which every program can load.

use camshaft_common::model::ModelReference;
use camshaft_model::{
    ComputeDevice, ComputeSettings, KernelChoice, Model, ModelError, ModelFiles, Precision,
};

use super::network::NamedTensors;
use super::settings::Settings;

/// The content of `model.safetensors`.
pub(super) fn weights_file(tensors: &NamedTensors) -> candle_core::Result<Vec<u8>> {
    Ok(safetensors::serialize(tensors, None)?)
}

/// Loads `tensors` as every user of the trained model will.
pub(super) fn load_model(
    settings: &Settings,
    tensors: &NamedTensors,
    precision: Precision,
) -> Result<Model, ModelError> {
    let config = serde_json::to_vec(&settings.model).expect("a config can be written as JSON");
    let weights = weights_file(tensors)?.into();
    let files = ModelFiles::from_bytes(ModelReference::Bundled, weights, &config)?;
    let kernel = KernelChoice::Auto;
    // The CPU takes batches of any size.
    let compute = ComputeSettings { precision, kernel, largest_batch: 1 };
    Model::load(&files, &ComputeDevice::Cpu, compute)
}
