//! A training from epoch to epoch.

use std::time::Instant;

use camshaft_common::model::ModelReference;

use super::checkpoint::Checkpoint;
use super::dataset::Dataset;
use super::error::TrainingError;
use super::frozen::FrozenFeatures;
use super::initial::Init;
use super::layer::NamedTensors;
use super::learner::{Learner, Watch};
use super::loss::Score;
use super::random::{Pick, epoch};
use super::record::{EpochRecord, best};
use super::settings::{Settings, TrainedLayers};
use super::whole::WholeNetwork;
use camshaft_model::{KernelChoice, Model, ModelError, ModelFiles, Precision};

/// A training between two epochs.
pub struct Trainer {
    settings: Settings,
    history: Vec<EpochRecord>,
    learner: Box<dyn Learner>,
}

impl std::fmt::Debug for Trainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trainer").field("history", &self.history).finish_non_exhaustive()
    }
}

impl Trainer {
    /// Reads the initial model and whatever else is done once, and goes on where
    /// `checkpoint` was made.
    ///
    /// # Errors
    /// Where the checkpoint is another training's, the model or a class can't be used, or
    /// `watch` says to stop.
    pub fn prepare(
        settings: Settings,
        init: &Init,
        dataset: &Dataset,
        checkpoint: Option<&Checkpoint>,
        watch: &Watch,
    ) -> Result<Self, TrainingError> {
        let mut learner: Box<dyn Learner> = match settings.layers {
            TrainedLayers::Head => {
                Box::new(FrozenFeatures::prepare(&settings, init, dataset, watch)?)
            }
            TrainedLayers::All => Box::new(WholeNetwork::prepare(&settings, init, dataset, watch)?),
        };
        let mut history = Vec::new();
        if let Some(checkpoint) = checkpoint {
            if let Some(difference) = settings.difference(checkpoint.settings()) {
                return Err(TrainingError::OtherTraining(difference));
            }
            if learner.skipped() != checkpoint.skipped_images() {
                let difference = format!(
                    "{} images could not be read, and {} can't now",
                    checkpoint.skipped_images(),
                    learner.skipped()
                );
                return Err(TrainingError::OtherTraining(difference));
            }
            learner
                .restore(checkpoint.steps(), &|name| checkpoint.tensor(name))
                .map_err(|error| TrainingError::Checkpoint(error.to_string()))?;
            history = checkpoint.history().to_vec();
        }
        Ok(Self { settings, history, learner })
    }

    /// Trains one epoch and validates.
    ///
    /// # Errors
    /// Where an image is lost, the loss is no number, or `watch` says to stop. What was done of
    /// the epoch is then worth nothing: go on from the last checkpoint.
    pub fn train_epoch(&mut self, watch: &Watch) -> Result<EpochRecord, TrainingError> {
        let started = Instant::now();
        let number = self.history.last().map_or(0, |last| last.epoch) + 1;
        let [training, validation] = self.learner.images();
        watch.begin(training + validation);
        let picks = epoch(self.settings.seed, number, training, self.settings.flip);
        let mut learnt = Score::default();
        for batch in batches(&picks, self.settings.batch) {
            watch.check()?;
            learnt += self.learner.step(batch)?;
            if !learnt.loss.is_finite() {
                let learning_rate = self.settings.learning_rate;
                return Err(TrainingError::Diverged { epoch: number, learning_rate });
            }
            watch.advance(batch.len());
        }
        let validated = self.learner.validate(watch)?;
        if !validated.loss.is_finite() {
            let learning_rate = self.settings.learning_rate;
            return Err(TrainingError::Diverged { epoch: number, learning_rate });
        }
        let record = EpochRecord {
            epoch: number,
            training_loss: learnt.mean_loss(),
            training_accuracy: learnt.accuracy(),
            validation_loss: validated.mean_loss(),
            validation_accuracy: validated.accuracy(),
            seconds: started.elapsed().as_secs_f64(),
        };
        self.history.push(record);
        Ok(record)
    }

    /// Every epoch so far.
    #[must_use]
    pub fn history(&self) -> &[EpochRecord] {
        &self.history
    }

    /// Images that can't be read and were left out.
    #[must_use]
    pub fn skipped_images(&self) -> u64 {
        self.learner.skipped()
    }

    /// Whether the last epoch is the best so far.
    #[must_use]
    pub fn is_best(&self) -> bool {
        best(&self.history) == self.history.last()
    }

    /// `model.safetensors` with the weights as they are now.
    ///
    /// # Errors
    /// Where memory runs out.
    pub fn model(&self) -> Result<Vec<u8>, TrainingError> {
        Ok(weights_file(&self.learner.export()?)?)
    }

    /// Where the training is now.
    ///
    /// # Errors
    /// Where memory runs out.
    pub fn checkpoint(&self) -> Result<Checkpoint, TrainingError> {
        let (skipped, steps) = (self.learner.skipped(), self.learner.steps());
        let (settings, history) = (self.settings.clone(), self.history.clone());
        Ok(Checkpoint::new(settings, history, skipped, steps, self.learner.save()?))
    }
}

/// An epoch's batches. A last image by itself joins the batch before: normalising it by
/// itself would say nothing.
fn batches(picks: &[Pick], size: usize) -> Vec<&[Pick]> {
    let mut batches: Vec<_> = picks.chunks(size).collect();
    if let [.., before, last] = batches.as_mut_slice()
        && last.len() == 1
        && size > 1
    {
        *before = &picks[picks.len() - size - 1..];
        batches.pop();
    }
    batches
}

fn weights_file(tensors: &NamedTensors) -> candle_core::Result<Vec<u8>> {
    Ok(safetensors::serialize(tensors, None)?)
}

/// The model that `tensors` are, as it will be loaded by whoever uses it.
pub(super) fn load(
    settings: &Settings,
    tensors: &NamedTensors,
    precision: Precision,
) -> Result<Model, ModelError> {
    let config = serde_json::to_vec(&settings.model).expect("a config can be written as JSON");
    let weights = weights_file(tensors)?.into();
    let files = ModelFiles::from_bytes(ModelReference::Bundled, weights, &config)?;
    Model::load(&files, Settings::device(), precision, KernelChoice::Auto)
}
