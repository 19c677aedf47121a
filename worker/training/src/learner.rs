//! What an epoch needs to know of what is trained: a head on frozen features
//! ([`super::frozen`]) or all layers ([`super::whole`]).

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use candle_core::Tensor;
use tokio_util::sync::CancellationToken;

use super::error::TrainingError;
use super::layer::NamedTensors;
use super::loss::Score;
use super::random::Pick;

/// How far something that takes long has come, and whether it is to end early.
#[derive(Debug, Default)]
pub struct Watch {
    /// Images done.
    pub done: AtomicU64,
    /// Images there are to do.
    pub total: AtomicU64,
    /// Cancelled: end with [`TrainingError::Stopped`] after the batch in work.
    pub stop: CancellationToken,
}

impl Watch {
    /// One that is stopped by `stop`.
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

/// What is trained, and the images it is trained on.
pub(super) trait Learner: Send {
    /// Images to train on, and to validate on.
    fn images(&self) -> [usize; 2];

    /// Images that can't be read.
    fn skipped(&self) -> u64;

    /// Learns from a batch; its score is that before learning.
    fn step(&mut self, picks: &[Pick]) -> Result<Score, TrainingError>;

    /// The score of the images to validate on.
    fn validate(&self, watch: &Watch) -> Result<Score, TrainingError>;

    /// Optimiser steps so far.
    fn steps(&self) -> u64;

    /// What [`Self::restore`] needs beside the number of steps.
    fn save(&self) -> candle_core::Result<Vec<(String, Tensor)>>;

    /// Continues from there; `find` tells a tensor by its name.
    fn restore(
        &mut self,
        steps: u64,
        find: &dyn Fn(&str) -> candle_core::Result<Tensor>,
    ) -> candle_core::Result<()>;

    /// The whole model, by torchvision's names and in PyTorch's layout.
    fn export(&self) -> candle_core::Result<NamedTensors>;
}
