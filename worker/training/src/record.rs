//! The record of a training: `training.json`.

use serde::{Deserialize, Serialize};

use super::settings::Settings;

/// Losses and accuracies of one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// The epoch's number, from 1.
    pub epoch: u32,
    /// Mean loss of the training images, each before the step that learns from it.
    pub training_loss: f64,
    /// Share of the training images that were classified correctly before that step.
    pub training_accuracy: f64,
    /// Mean loss of the images to validate on, after the epoch.
    pub validation_loss: f64,
    /// Share of the images to validate on that are classified correctly.
    pub validation_accuracy: f64,
    /// Duration of the epoch in seconds.
    pub seconds: f64,
}

/// The epoch with the best validation accuracy; of several, the one with the lowest loss.
#[must_use]
pub fn best(history: &[EpochRecord]) -> Option<&EpochRecord> {
    history.iter().reduce(|best, next| {
        let better = (next.validation_accuracy, -next.validation_loss)
            > (best.validation_accuracy, -best.validation_loss);
        if better { next } else { best }
    })
}

/// `training.json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrainingRecord<'a> {
    /// Version of this format.
    pub schema: u32,
    /// The settings of the training.
    pub settings: &'a Settings,
    /// Number of images that were left out because they can't be read.
    pub skipped_images: u64,
    /// The epoch whose weights are in `model.safetensors`.
    pub best_epoch: Option<u32>,
    /// Every epoch so far.
    pub history: &'a [EpochRecord],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equally_accurate_epochs_the_one_with_the_least_loss_is_best() {
        let record = |epoch, validation_accuracy, validation_loss| EpochRecord {
            epoch,
            training_loss: 0.0,
            training_accuracy: 0.0,
            validation_loss,
            validation_accuracy,
            seconds: 0.0,
        };
        let history =
            [record(1, 0.8, 0.1), record(2, 0.9, 0.5), record(3, 0.9, 0.4), record(4, 0.9, 0.4)];
        assert_eq!(best(&history).unwrap().epoch, 3);
        assert_eq!(best(&[]), None);
    }
}
