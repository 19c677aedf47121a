//! What an epoch needs of the thing that is trained: a head on frozen features
//! ([`frozen_features`](super::frozen_features)) or all layers
//! ([`whole_network`](super::whole_network)).

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use candle_core::Tensor;
use tokio_util::sync::CancellationToken;

use super::error::TrainingError;
use super::loss::Score;
use super::network::{FindTensor, NamedTensors};
use super::random::EpochImage;

/// Progress of a long computation, and a way to stop it.
#[derive(Debug, Default)]
pub struct Watch {
    /// Images done.
    pub done: AtomicU64,
    /// Images to do in all.
    pub total: AtomicU64,
    /// If it is cancelled, the computation ends with [`TrainingError::Stopped`] after its batch.
    pub stop: CancellationToken,
}

impl Watch {
    /// A watch that `stop` stops.
    #[must_use]
    pub fn new(stop: CancellationToken) -> Self {
        Self { stop, ..Self::default() }
    }

    pub(super) fn begin(&self, total: usize) {
        self.done.store(0, Relaxed);
        self.total.store(total as u64, Relaxed);
    }

    pub(super) fn advance(&self, images: usize) {
        self.done.fetch_add(images as u64, Relaxed);
    }

    pub(super) fn check(&self) -> Result<(), TrainingError> {
        if self.stop.is_cancelled() { Err(TrainingError::Stopped) } else { Ok(()) }
    }
}

/// A network or a head that is trained, and the images that it learns from.
pub(super) trait Learner: Send {
    /// Number of images to train on, and to validate on.
    fn images(&self) -> [usize; 2];

    /// Number of images that can't be read.
    fn skipped(&self) -> u64;

    /// Learns from a batch. Returns the batch's score before the step.
    fn step(&mut self, images: &[EpochImage]) -> Result<Score, TrainingError>;

    /// The score of the images to validate on.
    fn validate(&self, watch: &Watch) -> Result<Score, TrainingError>;

    /// Number of optimiser steps so far.
    fn steps(&self) -> u64;

    /// The tensors that [`Self::restore`] needs, by name.
    fn save(&self) -> candle_core::Result<Vec<(String, Tensor)>>;

    /// Restores what [`Self::save`] gave after `steps` steps.
    fn restore(&mut self, steps: u64, find: FindTensor<'_>) -> candle_core::Result<()>;

    /// All tensors of the model, with torchvision's names, in PyTorch's layout.
    fn export(&self) -> candle_core::Result<NamedTensors>;
}
