//! A training from epoch to epoch. Wiring only.
//!
//! Owns the order: prepare or resume, train an epoch, validate. Upstream: settings, initial weights
//! and a data set. Downstream: the model's files and a checkpoint, which the program writes.

use std::time::Instant;

use camshaft_common::model::TrainedLayers;

use super::checkpoint::Checkpoint;
use super::dataset::Dataset;
use super::error::TrainingError;
use super::exported_model::weights_file;
use super::frozen_features::FrozenFeatures;
use super::initial_weights::Init;
use super::learner::{Learner, Watch};
use super::loss::Score;
use super::random::{EpochImage, draw_epoch};
use super::record::EpochRecord;
use super::setting_differences::SettingDifference;
use super::settings::Settings;
use super::whole_network::WholeNetwork;

/// A training, between two epochs.
pub struct Trainer {
    settings: Settings,
    history: Vec<EpochRecord>,
    /// The epoch whose weights are the model's.
    kept_epoch: Option<u32>,
    learner: Box<dyn Learner>,
}

impl std::fmt::Debug for Trainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trainer").field("history", &self.history).finish_non_exhaustive()
    }
}

impl Trainer {
    /// Does everything that is done once, and resumes from `checkpoint` if there is one.
    ///
    /// # Errors
    /// If the checkpoint is another training's, the model or a class can't be used, or `watch` is
    /// stopped.
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
        let (mut history, mut kept_epoch) = (Vec::new(), None);
        if let Some(checkpoint) = checkpoint {
            settings.check_same(checkpoint.settings())?;
            if learner.skipped() != checkpoint.skipped_images() {
                let difference = format!(
                    "{} unreadable images were left out, and {} would be now",
                    checkpoint.skipped_images(),
                    learner.skipped()
                );
                let difference = SettingDifference::of_images(difference);
                return Err(TrainingError::OtherTraining(vec![difference].into()));
            }
            learner
                .restore(checkpoint.steps(), &|name| checkpoint.tensor(name))
                .map_err(|error| TrainingError::Checkpoint(error.to_string()))?;
            history = checkpoint.history().to_vec();
            kept_epoch = checkpoint.kept_epoch();
        }
        Ok(Self { settings, history, kept_epoch, learner })
    }

    /// Trains one epoch and validates.
    ///
    /// # Errors
    /// If an image can't be read any more, the loss is not finite, or `watch` is stopped. The epoch
    /// is then half done: resume from the last checkpoint.
    pub fn train_epoch(&mut self, watch: &Watch) -> Result<EpochRecord, TrainingError> {
        let started = Instant::now();
        let number = self.history.last().map_or(0, |last| last.epoch) + 1;
        let [training, validation] = self.learner.images();
        watch.begin(training + validation);
        let images = draw_epoch(self.settings.seed, number, training, self.settings.flip);
        let mut learnt = Score::default();
        for batch in batches(&images, self.settings.batch) {
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
        let kept = self.history.iter().find(|epoch| Some(epoch.epoch) == self.kept_epoch);
        if kept.is_none_or(|kept| record.is_better_than(kept)) {
            self.kept_epoch = Some(number);
        }
        self.history.push(record);
        Ok(record)
    }

    /// Every epoch so far.
    #[must_use]
    pub fn history(&self) -> &[EpochRecord] {
        &self.history
    }

    /// Number of images that were left out because they can't be read.
    #[must_use]
    pub fn skipped_images(&self) -> u64 {
        self.learner.skipped()
    }

    /// The epoch whose weights are the model's: the best so far.
    #[must_use]
    pub fn kept_epoch(&self) -> Option<u32> {
        self.kept_epoch
    }

    /// True if the last epoch is the best so far.
    #[must_use]
    pub fn is_best(&self) -> bool {
        self.history.last().is_some_and(|last| Some(last.epoch) == self.kept_epoch)
    }

    /// The content of `model.safetensors` with the current weights.
    ///
    /// # Errors
    /// If memory runs out.
    pub fn model(&self) -> Result<Vec<u8>, TrainingError> {
        Ok(weights_file(&self.learner.export()?)?)
    }

    /// The current state of the training.
    ///
    /// # Errors
    /// If memory runs out.
    pub fn checkpoint(&self) -> Result<Checkpoint, TrainingError> {
        let (skipped, steps) = (self.learner.skipped(), self.learner.steps());
        let history = (self.history.clone(), self.kept_epoch);
        let tensors = self.learner.save()?;
        Ok(Checkpoint::new(self.settings.clone(), history, (skipped, steps), tensors))
    }
}

/// An epoch's batches. A single image at the end joins the batch before it: normalised by itself it
/// would have no variance.
fn batches(images: &[EpochImage], size: usize) -> Vec<&[EpochImage]> {
    let mut batches: Vec<_> = images.chunks(size).collect();
    if let [.., before, last] = batches.as_mut_slice()
        && last.len() == 1
        && size > 1
    {
        *before = &images[images.len() - size - 1..];
        batches.pop();
    }
    batches
}
