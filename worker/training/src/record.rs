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

impl EpochRecord {
    /// True if this epoch's weights are kept rather than those of the earlier epoch `kept`: if its
    /// validation loss is lower; if both are the same, if its accuracy is higher.
    ///
    /// The loss, since it also counts how sure the network is: with some wrong labels accuracy is
    /// often best in a late epoch, when the network is sure of the wrong labels, too.
    pub(super) fn is_better_than(&self, kept: &Self) -> bool {
        (-self.validation_loss, self.validation_accuracy)
            > (-kept.validation_loss, kept.validation_accuracy)
    }
}

/// The epoch whose weights a training from its first epoch keeps: the one with the lowest
/// validation loss.
#[must_use]
pub fn best(history: &[EpochRecord]) -> Option<&EpochRecord> {
    history.iter().reduce(|best, next| if next.is_better_than(best) { next } else { best })
}

/// The epoch whose weights were kept by versions whose checkpoints don't name it: the one with the
/// best validation accuracy; of several, the one with the lowest loss.
pub(super) fn most_accurate(history: &[EpochRecord]) -> Option<&EpochRecord> {
    let rank = |epoch: &EpochRecord| (epoch.validation_accuracy, -epoch.validation_loss);
    history.iter().reduce(|best, next| if rank(next) > rank(best) { next } else { best })
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

    fn record(epoch: u32, validation_accuracy: f64, validation_loss: f64) -> EpochRecord {
        EpochRecord {
            epoch,
            training_loss: 0.0,
            training_accuracy: 0.0,
            validation_loss,
            validation_accuracy,
            seconds: 0.0,
        }
    }

    #[test]
    fn the_epoch_with_the_least_validation_loss_is_best_however_accurate_others_are() {
        let history =
            [record(1, 0.8, 0.4), record(2, 0.9, 0.3), record(3, 0.945, 0.5), record(4, 0.91, 0.3)];
        assert_eq!(best(&history).unwrap().epoch, 4, "of equal losses the more accurate");
        assert_eq!(best(&history[..3]).unwrap().epoch, 2);
        assert_eq!(best(&[]), None);
    }

    #[test]
    fn of_equally_accurate_epochs_older_trainings_kept_the_one_with_the_least_loss() {
        let history =
            [record(1, 0.8, 0.1), record(2, 0.9, 0.5), record(3, 0.9, 0.4), record(4, 0.9, 0.4)];
        assert_eq!(most_accurate(&history).unwrap().epoch, 3);
        assert_eq!(most_accurate(&[]), None);
    }
}
