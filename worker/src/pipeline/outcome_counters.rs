//! Counts what became of the deliveries.
//!
//! Every stage may count; progress bars, health and metrics read the counts while they change.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use camshaft_common::prediction::FailureClass;
use parking_lot::Mutex;

/// Counts since the pipeline started. Any thread may add to them.
#[derive(Debug, Default)]
pub struct OutcomeCounters {
    taken: AtomicU64,
    predicted: AtomicU64,
    already_done: AtomicU64,
    relabelled: AtomicU64,
    renewed: AtomicU64,
    superseded: AtomicU64,
    retried: AtomicU64,
    refused: AtomicU64,
    dead: AtomicU64,
    handed_back: AtomicU64,
    unsettled: AtomicU64,
    failed: Mutex<BTreeMap<FailureClass, u64>>,
}

/// The values of [`OutcomeCounters`] at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutcomeCounts {
    /// Deliveries taken from the queue.
    pub taken: u64,
    /// Images whose prediction was stored.
    pub predicted: u64,
    /// Images whose prediction an earlier try, or the job of another enqueue, had stored.
    pub already_done: u64,
    /// Images whose prediction got another label, without the network.
    pub relabelled: u64,
    /// Images that were written again with the same content, so that their prediction was kept.
    pub renewed: u64,
    /// Deliveries whose job a later enqueue has superseded, or whose run was cancelled.
    pub superseded: u64,
    /// Deliveries put back, to be tried again after a delay.
    pub retried: u64,
    /// Deliveries left to other workers, or put off, without a try.
    pub refused: u64,
    /// Deliveries that became dead letters.
    pub dead: u64,
    /// Deliveries that this worker had no time for, and that are in the queue again.
    pub handed_back: u64,
    /// Deliveries that could not be settled; the queue delivers them again.
    pub unsettled: u64,
    /// Images whose failure was stored, by class.
    pub failed: BTreeMap<FailureClass, u64>,
}

impl OutcomeCounters {
    pub(super) fn count_taken(&self) {
        self.taken.fetch_add(1, Relaxed);
    }

    pub(super) fn count_predicted(&self) {
        self.predicted.fetch_add(1, Relaxed);
    }

    pub(super) fn count_already_done(&self) {
        self.already_done.fetch_add(1, Relaxed);
    }

    pub(super) fn count_relabelled(&self) {
        self.relabelled.fetch_add(1, Relaxed);
    }

    pub(super) fn count_renewed(&self) {
        self.renewed.fetch_add(1, Relaxed);
    }

    pub(super) fn count_superseded(&self) {
        self.superseded.fetch_add(1, Relaxed);
    }

    pub(super) fn count_retried(&self) {
        self.retried.fetch_add(1, Relaxed);
    }

    pub(super) fn count_refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub(super) fn count_dead(&self) {
        self.dead.fetch_add(1, Relaxed);
    }

    pub(super) fn count_handed_back(&self) {
        self.handed_back.fetch_add(1, Relaxed);
    }

    pub(super) fn count_unsettled(&self) {
        self.unsettled.fetch_add(1, Relaxed);
    }

    pub(super) fn count_failed(&self, class: FailureClass) {
        *self.failed.lock().entry(class).or_default() += 1;
    }

    /// Reads the counts as they are now.
    #[must_use]
    pub fn counts(&self) -> OutcomeCounts {
        OutcomeCounts {
            taken: self.taken.load(Relaxed),
            predicted: self.predicted.load(Relaxed),
            already_done: self.already_done.load(Relaxed),
            relabelled: self.relabelled.load(Relaxed),
            renewed: self.renewed.load(Relaxed),
            superseded: self.superseded.load(Relaxed),
            retried: self.retried.load(Relaxed),
            refused: self.refused.load(Relaxed),
            dead: self.dead.load(Relaxed),
            handed_back: self.handed_back.load(Relaxed),
            unsettled: self.unsettled.load(Relaxed),
            failed: self.failed.lock().clone(),
        }
    }
}

impl OutcomeCounts {
    /// Images whose failure was stored, of all classes.
    #[must_use]
    pub fn failed_in_all(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Images whose prediction in OUT was kept.
    #[must_use]
    pub fn kept(&self) -> u64 {
        self.already_done + self.relabelled + self.renewed
    }

    /// Images that have a result now.
    #[must_use]
    pub fn finished(&self) -> u64 {
        self.predicted + self.kept() + self.failed_in_all()
    }

    /// Deliveries that are in a stage now, or wait between two.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        let come_again = self.retried + self.refused + self.handed_back + self.unsettled;
        let left = self.finished() + self.superseded + self.dead + come_again;
        self.taken.saturating_sub(left)
    }
}
