//! Counts of what became of images, read by progress bars and summaries while they change.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use camshaft_common::prediction::FailureClass;

/// Counts since the pipeline started.
#[derive(Debug, Default)]
pub struct Tally {
    taken: AtomicU64,
    predicted: AtomicU64,
    already_done: AtomicU64,
    retried: AtomicU64,
    dead: AtomicU64,
    unsettled: AtomicU64,
    failed: Mutex<BTreeMap<FailureClass, u64>>,
}

/// [`Tally`] at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Deliveries taken from the queue.
    pub taken: u64,
    /// Images with a prediction written.
    pub predicted: u64,
    /// Images found done by an earlier try.
    pub already_done: u64,
    /// Tries put off.
    pub retried: u64,
    /// Dead letters.
    pub dead: u64,
    /// Deliveries whose settling did not reach the queue: they come again.
    pub unsettled: u64,
    /// Images with a failure written, by class.
    pub failed: BTreeMap<FailureClass, u64>,
}

impl Tally {
    pub(super) fn count_taken(&self) {
        self.taken.fetch_add(1, Relaxed);
    }

    pub(super) fn count_predicted(&self) {
        self.predicted.fetch_add(1, Relaxed);
    }

    pub(super) fn count_already_done(&self) {
        self.already_done.fetch_add(1, Relaxed);
    }

    pub(super) fn count_retried(&self) {
        self.retried.fetch_add(1, Relaxed);
    }

    pub(super) fn count_dead(&self) {
        self.dead.fetch_add(1, Relaxed);
    }

    pub(super) fn count_unsettled(&self) {
        self.unsettled.fetch_add(1, Relaxed);
    }

    pub(super) fn count_failed(&self, class: FailureClass) {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner).entry(class).or_default() += 1;
    }

    /// The counts now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            taken: self.taken.load(Relaxed),
            predicted: self.predicted.load(Relaxed),
            already_done: self.already_done.load(Relaxed),
            retried: self.retried.load(Relaxed),
            dead: self.dead.load(Relaxed),
            unsettled: self.unsettled.load(Relaxed),
            failed: self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

impl Counts {
    /// Images with a failure written.
    #[must_use]
    pub fn failed_in_all(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Images that have a result now.
    #[must_use]
    pub fn finished(&self) -> u64 {
        self.predicted + self.already_done + self.failed_in_all()
    }

    /// Deliveries still on their way through the stages.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        let out = self.finished() + self.retried + self.dead + self.unsettled;
        self.taken.saturating_sub(out)
    }
}
