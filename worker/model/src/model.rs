//! A loaded model: what it is, and one forward pass.
//!
//! Owns the weights on a device. Maps and predictions are computed by
//! [`explain`](crate::explain). Upstream: [`ModelFiles`]. Downstream: the pipeline's model stage.

use std::sync::OnceLock;

use camshaft_common::label::LabelMatcher;
use camshaft_common::model::ModelIdentity;
use camshaft_common::prediction::ModelRecord;
use camshaft_vision::input::InputRule;
use candle_core::Tensor;

use crate::compute::{
    Backend, ComputeDevice, ComputeMode, ComputeSettings, DeviceChoice, Precision,
};
use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::model_files::{ModelFiles, head};
use crate::network::head::{HEAD_WEIGHT, HeadShape};
use crate::network::inference::{EngineError, LoadError, PixelInput};
use crate::network::resnet::{ForwardOutput, NetworkShape, ResNet, ResNetShape};

/// Images that a model in f32 takes at once, to which images go whose numbers are too large for f16.
/// There are few, and f32 takes twice the memory.
const LARGEST_EXACT_BATCH: usize = 8;

/// A loaded model: owned by the one thread that runs it.
#[derive(Debug)]
pub struct Model {
    identity: ModelIdentity,
    config: ModelConfig,
    labels: LabelMatcher,
    network: ResNet,
    device: DeviceChoice,
    compute: ComputeMode,
    /// Where images are done again whose numbers this model's precision can't hold; none if that
    /// precision was asked for.
    exact: Option<ExactModel>,
}

impl Model {
    /// Loads a model onto `device`.
    ///
    /// # Errors
    /// If the weights don't match the network or its classes, or the device can't hold them.
    pub fn load(
        files: &ModelFiles,
        device: &ComputeDevice,
        settings: ComputeSettings,
    ) -> Result<Self, ModelError> {
        let shape = ResNetShape::of(files.config().architecture);
        Self::load_shape(files, shape, device, settings)
    }

    /// Loads a network of any depth and width, for tests.
    pub(crate) fn load_shape(
        files: &ModelFiles,
        shape: ResNetShape,
        device: &ComputeDevice,
        settings: ComputeSettings,
    ) -> Result<Self, ModelError> {
        let mut compute = ComputeMode::choose(device, settings, files.calibration())?;
        let (identity, config) = (files.identity().clone(), files.config().clone());
        let file = files.weights();
        let mut weights = file
            .open()
            .map_err(|source| ModelError::Weights { model: identity.name.clone(), source })?;
        if let Some((tensor, shape)) = weights.find(HEAD_WEIGHT)
            && let Some(&rows) = shape.first()
        {
            files.check_classes(tensor, rows)?;
        }
        let features = shape.features(config.input.height, config.input.width);
        let head = HeadShape { features, ..head(&config) };
        let shape = NetworkShape { backbone: shape, head };
        let input = PixelInput::of(&config.input);
        let network = ResNet::load(&mut weights, file.clone(), shape, input, &compute)?;
        files.check_tensors(&weights)?;
        if let (Backend::Kernel(_), None) = (&compute.backend, network.engine_name()) {
            compute = ComputeMode::without_kernel(settings.precision, settings.kernel)?;
        }
        let labels = files.labels().clone();
        let chose_f16 =
            settings.precision == Precision::Auto && compute.precision == Precision::F16;
        let exact = chose_f16.then(|| ExactModel::new(files, shape.backbone, device, settings));
        Ok(Self { identity, config, labels, network, device: device.choice(), compute, exact })
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

    /// Finds the classes that labels mean.
    #[must_use]
    pub(crate) fn labels(&self) -> &LabelMatcher {
        &self.labels
    }

    /// The same model in f32, if images may be done again there. It is loaded when it is first
    /// asked for.
    ///
    /// # Errors
    /// If the device has no memory for it, or is lost.
    pub(crate) fn exact(&self) -> Result<Option<&Self>, ModelError> {
        match &self.exact {
            Some(exact) => exact.model(),
            None => Ok(None),
        }
    }

    /// The network itself.
    #[must_use]
    pub(crate) fn network(&self) -> &ResNet {
        &self.network
    }

    /// The network itself, to change it.
    #[cfg(test)]
    pub(crate) fn network_mut(&mut self) -> &mut ResNet {
        &mut self.network
    }

    /// The number format it computes in: never `auto`.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.compute.precision
    }

    /// What multiplies matrices: a kernel of the CPU, `cudnn`, or `candle`.
    #[must_use]
    pub fn kernel(&self) -> String {
        self.network.engine_name().unwrap_or_else(|| "candle".to_owned())
    }

    /// The device it runs on: never `auto`.
    #[must_use]
    pub fn device(&self) -> DeviceChoice {
        self.device
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
    /// input rule says; `stages`, 1 to 4, are the stages whose outputs are wanted.
    ///
    /// # Errors
    /// If the batch has another shape than the input rule's, or the device fails.
    pub fn forward(&self, input: &Tensor, stages: &[usize]) -> Result<ForwardOutput, ModelError> {
        let InputRule { height, width, .. } = self.config.input;
        let batch = input.dims().first().copied().unwrap_or(0);
        let expected = [batch, 3, height, width];
        if input.dims() != expected {
            return Err(ModelError::BatchShape { actual: input.dims().to_vec(), expected });
        }
        self.network.forward(input, stages).map_err(|error| self.error_of(error))
    }

    /// Batches whose passes may be under way at once: see [`Model::begin_batch`].
    #[must_use]
    pub fn batches_at_once(&self) -> usize {
        self.network.passes_at_once()
    }

    /// The error of a pass: the engine's, if it failed, or else candle's.
    pub(crate) fn error_of(&self, error: candle_core::Error) -> ModelError {
        match self.network.take_failure() {
            Some(failure) => failure.into(),
            None => ModelError::Compute(error),
        }
    }
}

/// The same model in f32, for images whose numbers are too large for f16: how to load it, and the
/// model once it is loaded. Most runs have no such image.
#[derive(Debug)]
struct ExactModel {
    files: ModelFiles,
    shape: ResNetShape,
    device: ComputeDevice,
    settings: ComputeSettings,
    /// None if it can't be loaded.
    loaded: OnceLock<Option<Box<Model>>>,
}

impl ExactModel {
    /// Of the model of `files` on `device`.
    fn new(
        files: &ModelFiles,
        shape: ResNetShape,
        device: &ComputeDevice,
        settings: ComputeSettings,
    ) -> Self {
        let largest_batch = settings.largest_batch.min(LARGEST_EXACT_BATCH);
        let settings = ComputeSettings { precision: Precision::F32, largest_batch, ..settings };
        let (files, device) = (files.clone(), device.clone());
        Self { files, shape, device, settings, loaded: OnceLock::new() }
    }

    /// The model, if it can be loaded.
    ///
    /// # Errors
    /// If another try may end differently, on this device or on another: for want of memory, or since
    /// the device is lost.
    fn model(&self) -> Result<Option<&Model>, ModelError> {
        let Self { files, shape, device, settings, loaded } = self;
        if let Some(known) = loaded.get() {
            return Ok(known.as_deref());
        }
        let model = match Model::load_shape(files, *shape, device, *settings) {
            Ok(model) => Some(Box::new(model)),
            Err(error @ (ModelError::OutOfMemory(_) | ModelError::DeviceLost(_))) => {
                return Err(error);
            }
            Err(error) => {
                tracing::warn!(
                    %error,
                    "images whose numbers are too large for f16 can't be done again in f32"
                );
                None
            }
        };
        Ok(loaded.get_or_init(|| model).as_deref())
    }
}

impl From<EngineError> for ModelError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::OutOfMemory(reason) => Self::OutOfMemory(reason),
            EngineError::DeviceLost(reason) => Self::DeviceLost(reason),
            EngineError::Failed(reason) => Self::Compute(candle_core::Error::Msg(reason)),
        }
    }
}

impl From<LoadError> for ModelError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Tensors(error) => Self::Compute(error),
            LoadError::Engine(error) => error.into(),
            LoadError::Precision(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use camshaft_common::model::ModelReference;
    use candle_core::Device;

    use super::*;

    #[test]
    fn a_head_that_is_a_single_number_is_a_misfit() {
        let head = Tensor::new(1f32, &Device::Cpu).unwrap();
        let file = safetensors::serialize(HashMap::from([(HEAD_WEIGHT, head)]), None).unwrap();
        let config = br#"{
            "architecture": "resnet18", "classes": ["cat", "dog"],
            "input": {
                "height": 32, "width": 32, "resize": "stretch", "color": "rgb",
                "interpolation": "bilinear-antialiased", "scale": "1/255",
                "mean": [0, 0, 0], "std": [1, 1, 1]
            }
        }"#;
        let files = ModelFiles::from_bytes(ModelReference::Bundled, file.into(), config).unwrap();
        let error = Model::load(&files, &ComputeDevice::Cpu, crate::testing::ON_CANDLE);
        let error = error.unwrap_err();
        assert!(matches!(error, ModelError::Misfit { .. }), "{error}");
    }
}
