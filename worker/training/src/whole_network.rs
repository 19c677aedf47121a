//! Training all layers: every batch runs forward and backward through the whole network.

use camshaft_model::Precision;
use candle_core::{Device, Tensor};

use super::adam::Adam;
use super::dataset::{Dataset, DatasetImage};
use super::error::TrainingError;
use super::exported_model::load_model;
use super::initial_weights::{Init, draw_head};
use super::inputs;
use super::learner::{Learner, Watch};
use super::loss::{Score, cross_entropy};
use super::network::{
    FindTensor, NamedTensors, TrainedResNet, restore_all, save_all, tensor_values,
};
use super::random::EpochImage;
use super::settings::Settings;

/// Images that are validated at a time.
const VALIDATION_BATCH: usize = 16;

/// A network, and the images that it learns from.
pub(super) struct WholeNetwork {
    settings: Settings,
    network: TrainedResNet,
    adam: Adam,
    training: Vec<DatasetImage>,
    validation: Vec<DatasetImage>,
    skipped: u64,
}

impl WholeNetwork {
    /// Makes the network, and finds the images that can be read.
    pub(super) fn prepare(
        settings: &Settings,
        init: &Init,
        dataset: &Dataset,
        watch: &Watch,
    ) -> Result<Self, TrainingError> {
        let mut tensors = init.backbone(settings.seed)?;
        draw_head(&mut tensors, settings.head_shape(), settings.seed)?;
        let network = TrainedResNet::new(&tensors, settings.shape(), settings.head_shape())?;
        watch.begin(dataset.training.len() + dataset.validation.len());
        let model = &settings.model;
        let (training, skipped) = inputs::find_readable(&dataset.training, model, watch)?;
        inputs::check_classes(dataset, &training, "train")?;
        let (validation, more) = inputs::find_readable(&dataset.validation, model, watch)?;
        inputs::check_classes(dataset, &validation, "validate")?;
        Ok(Self {
            settings: settings.clone(),
            network,
            adam: Adam::new(settings.learning_rate),
            training,
            validation,
            skipped: skipped + more,
        })
    }

    /// Reads images that could be read before.
    fn inputs(&self, images: &[&DatasetImage]) -> Result<Vec<Vec<f32>>, TrainingError> {
        let inputs = inputs::read_inputs(images, &self.settings.model);
        let read = images.iter().zip(inputs).map(|(image, input)| {
            input.map_err(|reason| TrainingError::ImageLost { key: image.key.clone(), reason })
        });
        read.collect()
    }
}

impl Learner for WholeNetwork {
    fn images(&self) -> [usize; 2] {
        [self.training.len(), self.validation.len()]
    }

    fn skipped(&self) -> u64 {
        self.skipped
    }

    fn step(&mut self, drawn: &[EpochImage]) -> Result<Score, TrainingError> {
        let images: Vec<_> = drawn.iter().map(|drawn| &self.training[drawn.image]).collect();
        let classes: Vec<_> = images.iter().map(|image| image.class).collect();
        let rule = &self.settings.model.input;
        let mut inputs = self.inputs(&images)?;
        for (input, drawn) in inputs.iter_mut().zip(drawn) {
            if drawn.mirrored {
                inputs::mirror(input, rule);
            }
        }
        let (logits, trace) = self.network.forward(&inputs::to_batch(&inputs, rule)?)?;
        let (score, gradient) = cross_entropy(&tensor_values::copy(&logits)?, &classes);
        let gradient = Tensor::from_vec(gradient, logits.dims(), logits.device())?;
        self.network.backward(trace, &gradient)?;
        self.adam.step(self.network.parameters_mut())?;
        Ok(score)
    }

    /// Validates with the model as users will run it: BatchNorms folded in, on the CPU's kernels.
    fn validate(&self, watch: &Watch) -> Result<Score, TrainingError> {
        let model = load_model(&self.settings, &self.export()?, Precision::F32)?;
        let mut score = Score::default();
        for chunk in self.validation.chunks(VALIDATION_BATCH) {
            watch.check()?;
            let images: Vec<_> = chunk.iter().collect();
            let batch = inputs::to_batch(&self.inputs(&images)?, &self.settings.model.input)?;
            let logits = model.forward(&batch, &[])?.logits;
            let classes: Vec<_> = chunk.iter().map(|image| image.class).collect();
            score += cross_entropy(&tensor_values::copy(&logits)?, &classes).0;
            watch.advance(chunk.len());
        }
        Ok(score)
    }

    fn steps(&self) -> u64 {
        self.adam.steps
    }

    fn save(&self) -> candle_core::Result<Vec<(String, Tensor)>> {
        let mut saved = save_all(self.network.parameters())?;
        for (name, value) in self.network.running() {
            let value = Tensor::from_slice(value, value.len(), &Device::Cpu)?;
            saved.push((name.clone(), value));
        }
        Ok(saved)
    }

    fn restore(&mut self, steps: u64, find: FindTensor<'_>) -> candle_core::Result<()> {
        self.adam.steps = steps;
        restore_all(self.network.parameters_mut(), find)?;
        for (name, value) in self.network.layers_mut().flat_map(|layer| layer.running_mut()) {
            *value = tensor_values::copy(&find(name)?)?;
        }
        Ok(())
    }

    fn export(&self) -> candle_core::Result<NamedTensors> {
        self.network.export()
    }
}
