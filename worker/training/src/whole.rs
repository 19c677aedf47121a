//! Training all layers: every batch goes through the whole network, and back.

use candle_core::Tensor;

use super::adam::Adam;
use super::dataset::{Dataset, Sample};
use super::error::TrainingError;
use super::examples;
use super::initial::{Init, draw_head};
use super::layer::NamedTensors;
use super::learner::{Learner, Watch};
use super::loss::{Score, cross_entropy};
use super::network::TrainedNetwork;
use super::parameter::Parameter;
use super::random::Pick;
use super::settings::Settings;
use super::trainer::load;
use super::values;
use camshaft_model::Precision;

/// Images validated at once.
const VALIDATION_BATCH: usize = 16;

/// A network and the images it learns from.
pub(super) struct WholeNetwork {
    settings: Settings,
    network: TrainedNetwork,
    adam: Adam,
    training: Vec<Sample>,
    validation: Vec<Sample>,
    skipped: u64,
}

impl WholeNetwork {
    /// Makes the network and looks which images can be read.
    pub(super) fn prepare(
        settings: &Settings,
        init: &Init,
        dataset: &Dataset,
        watch: &Watch,
    ) -> Result<Self, TrainingError> {
        let mut tensors = init.backbone(settings.seed)?;
        draw_head(&mut tensors, settings.head_shape(), settings.seed)?;
        let network = TrainedNetwork::new(&tensors, settings.shape(), settings.head_shape())?;
        watch.begin(dataset.training.len() + dataset.validation.len());
        let rule = &settings.model.input;
        let (training, skipped) = examples::readable(&dataset.training, rule, watch)?;
        examples::check_classes(dataset, &training, "train")?;
        let (validation, more) = examples::readable(&dataset.validation, rule, watch)?;
        examples::check_classes(dataset, &validation, "validate")?;
        Ok(Self {
            settings: settings.clone(),
            network,
            adam: Adam::new(settings.learning_rate),
            training,
            validation,
            skipped: skipped + more,
        })
    }

    /// Inputs of images that could be read before.
    fn inputs(&self, samples: &[&Sample]) -> Result<Vec<Vec<f32>>, TrainingError> {
        let inputs = examples::inputs(samples, &self.settings.model.input);
        let read = samples.iter().zip(inputs).map(|(sample, input)| {
            input.map_err(|reason| TrainingError::ImageLost { key: sample.key.clone(), reason })
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

    fn step(&mut self, picks: &[Pick]) -> Result<Score, TrainingError> {
        let samples: Vec<_> = picks.iter().map(|pick| &self.training[pick.sample]).collect();
        let classes: Vec<_> = samples.iter().map(|sample| sample.class).collect();
        let rule = &self.settings.model.input;
        let mut inputs = self.inputs(&samples)?;
        for (input, pick) in inputs.iter_mut().zip(picks) {
            if pick.mirrored {
                examples::mirror(input, rule);
            }
        }
        let (logits, trace) = self.network.forward(&examples::batch(&inputs, rule)?)?;
        let (score, gradient) = cross_entropy(&values::copy(&logits)?, &classes);
        let gradient = Tensor::from_vec(gradient, logits.dims(), logits.device())?;
        self.network.backward(trace, &gradient)?;
        self.adam.step(self.network.parameters_mut())?;
        Ok(score)
    }

    /// By the model as it will be used: BatchNorms folded in, on the CPU's kernels.
    fn validate(&self, watch: &Watch) -> Result<Score, TrainingError> {
        let model = load(&self.settings, &self.export()?, Precision::F32)?;
        let mut score = Score::default();
        for chunk in self.validation.chunks(VALIDATION_BATCH) {
            watch.check()?;
            let samples: Vec<_> = chunk.iter().collect();
            let batch = examples::batch(&self.inputs(&samples)?, &self.settings.model.input)?;
            let logits = model.forward(&batch, &[])?.logits;
            let classes: Vec<_> = chunk.iter().map(|sample| sample.class).collect();
            score += cross_entropy(&values::copy(&logits)?, &classes).0;
            watch.advance(chunk.len());
        }
        Ok(score)
    }

    fn steps(&self) -> u64 {
        self.adam.steps
    }

    fn save(&self) -> candle_core::Result<Vec<(String, Tensor)>> {
        let parameters = self.network.parameters().map(Parameter::save);
        let mut saved: Vec<_> =
            parameters.collect::<candle_core::Result<Vec<_>>>()?.into_iter().flatten().collect();
        for (name, value) in self.network.running() {
            let value = Tensor::from_slice(value, value.len(), Settings::device())?;
            saved.push((name.clone(), value));
        }
        Ok(saved)
    }

    fn restore(
        &mut self,
        steps: u64,
        find: &dyn Fn(&str) -> candle_core::Result<Tensor>,
    ) -> candle_core::Result<()> {
        self.adam.steps = steps;
        self.network.parameters_mut().try_for_each(|parameter| parameter.restore(find))?;
        for (name, value) in self.network.layers_mut().flat_map(|layer| layer.running_mut()) {
            *value = values::copy(&find(name)?)?;
        }
        Ok(())
    }

    fn export(&self) -> candle_core::Result<NamedTensors> {
        self.network.export()
    }
}
