//! The model: loading a checkpoint, running it, and explaining what it says.
//!
//! Owns weights, device and class names. How pixels become input is described by
//! [`InputRule`] and done elsewhere; maps are computed by [`crate::cam`]. Upstream: decoded
//! batches. Downstream: overlays and results.

#[cfg(feature = "bundled")]
mod bundled;
pub mod cam;
mod checkpoint;
mod compute;
mod config;
pub mod convolution;
mod cut;
mod device;
pub mod embedding;
mod error;
mod explain;
mod files;
mod finish;
pub mod head;
pub mod layers;
mod maps;
mod naming;
pub mod patches;
pub mod pooling;
mod redrawn;
mod resnet;
mod scores;
mod suggest;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod weights;

use camshaft_common::model::ModelIdentity;
use camshaft_common::prediction::ModelRecord;
use camshaft_vision::input::InputRule;
use candle_core::{Device, Tensor};

pub use checkpoint::CheckpointError;
pub use compute::{KernelChoice, ParseKernelChoiceError};
pub use config::{Architecture, HeadKind, ModelConfig};
pub use cut::Cut;
pub use device::{DeviceChoice, ParseDeviceError, ParsePrecisionError, Precision};
pub use error::ModelError;
pub use explain::{ClassMap, ExplainError, ExplainRequest, Explained};
pub use files::ModelFiles;
pub use redrawn::{NetworkPart, redrawn};
pub use resnet::{Forward, ResNet, STAGES};

use compute::Compute;
use head::{HEAD, HeadShape};
use layers::ResNetShape;
use weights::{Weights, describe};

/// A loaded model: owned by the one thread that runs it.
#[derive(Debug)]
pub struct Model {
    identity: ModelIdentity,
    config: ModelConfig,
    network: ResNet,
    device: Device,
    compute: Compute,
}

impl Model {
    /// Loads a model onto `device`.
    ///
    /// # Errors
    /// Where the weights are not those of the network or not of its classes, or the device
    /// can't hold them.
    pub fn load(
        files: &ModelFiles,
        device: &Device,
        precision: Precision,
        kernel: KernelChoice,
    ) -> Result<Self, ModelError> {
        let shape = ResNetShape::of(files.config().architecture);
        Self::load_shape(files, shape, device, precision, kernel)
    }

    fn load_shape(
        files: &ModelFiles,
        shape: ResNetShape,
        device: &Device,
        precision: Precision,
        kernel: KernelChoice,
    ) -> Result<Self, ModelError> {
        let mut compute = Compute::choose(device, precision, kernel)?;
        let (identity, config) = (files.identity().clone(), files.config().clone());
        let model = || identity.name.clone();
        let file = files.weights();
        let mut weights = Weights::read(&file)
            .map_err(|source| ModelError::Weights { model: model(), source })?;
        let classes = config.classes.len();
        if let Some((tensor, shape)) = weights.find(HEAD.0)
            && let Some(&rows) = shape.first()
            && rows != classes
        {
            return Err(ModelError::ClassCount { model: model(), classes, tensor, rows });
        }
        let head = HeadShape {
            kind: config.head,
            classes,
            features: shape.features(config.input.height, config.input.width),
        };
        let network = ResNet::load(&mut weights, file.clone(), (shape, head), device, &compute)?;
        let suggestion = suggest::suggestion(&weights, config.architecture).unwrap_or_default();
        let misfits = weights.into_misfits();
        if !misfits.is_empty() {
            let misfits = describe(&misfits) + &suggestion;
            let architecture = config.architecture.name();
            return Err(ModelError::Misfit { model: model(), architecture, misfits });
        }
        if compute.kernel.is_some() && network.kernel().is_none() {
            compute = Compute::without_kernel(precision, kernel)?;
        }
        Ok(Self { identity, config, network, device: device.clone(), compute })
    }

    /// Name and digests.
    #[must_use]
    pub fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    /// Class names and input rule.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The network itself, for whoever explains in ways of their own.
    #[must_use]
    pub fn network(&self) -> &ResNet {
        &self.network
    }

    /// What it computes in: never `auto`.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.compute.precision
    }

    /// What multiplies.
    #[must_use]
    pub fn kernel(&self) -> String {
        self.compute.kernel.map_or_else(|| "candle".to_owned(), |kernel| kernel.to_string())
    }

    /// What it runs on: never `auto`.
    #[must_use]
    pub fn device(&self) -> DeviceChoice {
        match self.device.location() {
            candle_core::DeviceLocation::Cuda { gpu_id } => DeviceChoice::Cuda(gpu_id),
            _ => DeviceChoice::Cpu,
        }
    }

    /// What results say about the model and how it ran.
    #[must_use]
    pub fn record(&self) -> ModelRecord {
        let ModelIdentity { name, digest, config_digest, .. } = self.identity.clone();
        let (precision, device) = (self.precision().to_string(), self.device().to_string());
        let kernel = self.kernel();
        ModelRecord { name, digest, config_digest, precision, kernel, device }
    }

    /// Runs the network once. `input` `[N, 3, H, W]`, f32, on any device, scaled as the
    /// input rule says; `stages` are those whose outputs are wanted, 1 to 4.
    ///
    /// # Errors
    /// Where the batch has another shape than the input rule's, or the device fails.
    pub fn forward(&self, input: &Tensor, stages: &[usize]) -> Result<Forward, ModelError> {
        let InputRule { height, width, .. } = self.config.input;
        let batch = input.dims().first().copied().unwrap_or(0);
        let expected = [batch, 3, height, width];
        if input.dims() != expected {
            return Err(ModelError::BatchShape { actual: input.dims().to_vec(), expected });
        }
        Ok(self.network.forward(&input.to_device(&self.device)?, stages)?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use camshaft_common::model::ModelReference;

    use super::*;

    #[test]
    fn a_head_that_is_a_single_number_is_a_misfit() {
        let head = Tensor::new(1f32, &Device::Cpu).unwrap();
        let file = safetensors::serialize(HashMap::from([(HEAD.0, head)]), None).unwrap();
        let config = br#"{
            "architecture": "resnet18", "classes": ["cat", "dog"],
            "input": {
                "height": 32, "width": 32, "resize": "stretch", "color": "rgb",
                "interpolation": "bilinear-antialiased", "scale": "1/255",
                "mean": [0, 0, 0], "std": [1, 1, 1]
            }
        }"#;
        let files = ModelFiles::from_bytes(ModelReference::Bundled, file.into(), config).unwrap();
        let error = Model::load(&files, &Device::Cpu, Precision::F32, KernelChoice::Candle);
        let error = error.unwrap_err();
        assert!(matches!(error, ModelError::Misfit { .. }), "{error}");
    }
}
