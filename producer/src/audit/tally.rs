//! What became of each image that an audit found, and the line that says so.
//!
//! Every image is in exactly one part, so that the numbers add up. Upstream: the counters of the
//! listing and of the engine. Downstream: the last lines of `audit`, and its exit status.

use std::sync::atomic::Ordering::Relaxed;

use camshaft_worker::pipeline::outcome_counters::OutcomeCounts;

use crate::enqueue::counters::EnqueueCounters;
use crate::terminal::output::{format_count, format_elapsed, format_rate};

/// The images that an audit found, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AuditTally {
    /// All of them: the sum of the other numbers.
    pub(crate) found: u64,
    /// Predicted by this audit.
    pub(crate) predicted: u64,
    /// Failed in this audit.
    pub(crate) failed: u64,
    /// Had a result that needed no look.
    pub(crate) had_results: u64,
    /// Had a result, which was read, is right, and counts from now on.
    pub(crate) confirmed: u64,
    /// Had a prediction, which got another label.
    pub(crate) relabelled: u64,
    /// Had a prediction of the same content, which got another entity tag.
    pub(crate) renewed: u64,
    /// Had a job that counts no more: a later audit or enqueue of the same OUT has one for them, or
    /// the run was cancelled.
    pub(crate) left_to_others: u64,
    /// None of these: the audit ended before, or every try failed.
    pub(crate) not_done: u64,
}

impl AuditTally {
    /// Counts once the listing and the engine have ended. Each image that needs one has one job,
    /// which ends at most once with a result, or as superseded.
    #[must_use]
    pub(crate) fn of(enqueued: &EnqueueCounters, outcomes: &OutcomeCounts) -> Self {
        // Named one by one: a new outcome is a part of its own, or ends without a result.
        let OutcomeCounts {
            predicted,
            failed: _,
            already_done: confirmed,
            relabelled,
            renewed,
            superseded: left_to_others,
            taken: _,
            retried: _,
            refused: _,
            dead: _,
            handed_back: _,
            unsettled: _,
        } = *outcomes;
        let failed = outcomes.failed_in_all();
        let found = enqueued.found.load(Relaxed);
        let had_results = enqueued.skipped.load(Relaxed);
        let kept = [had_results, confirmed, relabelled, renewed];
        let parts = [predicted, failed, left_to_others].into_iter().chain(kept);
        let not_done = found.saturating_sub(parts.sum());
        Self {
            found,
            predicted,
            failed,
            had_results,
            confirmed,
            relabelled,
            renewed,
            left_to_others,
            not_done,
        }
    }

    /// Images without a result of this audit or an earlier one.
    #[must_use]
    pub(crate) fn left(&self) -> u64 {
        self.left_to_others + self.not_done
    }

    /// One line for a person.
    #[must_use]
    pub(crate) fn describe(&self, seconds: f64) -> String {
        let audited = self.predicted + self.failed;
        // A run that was complete already has no rate.
        let rate = match audited {
            0 => String::new(),
            audited => format!(" ({} images/s)", format_rate(audited as f64 / seconds)),
        };
        let line = format!(
            "Audited {} in {}{rate}: {} predicted, {} failed",
            format_count(audited, "image"),
            format_elapsed(seconds),
            self.predicted,
            self.failed,
        );
        let others = [
            (self.had_results, "had results already"),
            (self.confirmed, "had results that were checked and kept"),
            (self.relabelled, "relabelled"),
            (self.renewed, "renewed"),
            (self.left_to_others, "superseded or cancelled"),
            (self.not_done, "not done"),
        ];
        let others = others.into_iter().filter(|(number, _)| *number > 0);
        let others: Vec<_> = others.map(|(number, what)| format!("{number} {what}")).collect();
        match others.as_slice() {
            [] => line,
            others => format!("{line}; of the {} found, {}", self.found, others.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use camshaft_common::prediction::FailureClass;

    use super::*;

    fn enqueued(found: u64, skipped: u64) -> EnqueueCounters {
        let counters = EnqueueCounters::default();
        counters.found.store(found, Relaxed);
        counters.skipped.store(skipped, Relaxed);
        counters
    }

    #[test]
    fn every_image_is_in_exactly_one_part() {
        for found in [23, 34] {
            let outcomes = OutcomeCounts {
                taken: 40,
                predicted: 7,
                already_done: 1,
                relabelled: 2,
                renewed: 1,
                superseded: 3,
                // These come again, or are not done.
                retried: 11,
                refused: 2,
                dead: 1,
                handed_back: 5,
                unsettled: 1,
                failed: BTreeMap::from([(FailureClass::NotFound, 2), (FailureClass::TooLarge, 1)]),
            };
            let tally = AuditTally::of(&enqueued(found, 6), &outcomes);
            let AuditTally {
                predicted, failed, had_results, confirmed, relabelled, renewed, ..
            } = tally;
            assert_eq!((predicted, failed, had_results), (7, 3, 6));
            assert_eq!((confirmed, relabelled, renewed), (1, 2, 1));
            let kept = had_results + confirmed + relabelled + renewed;
            let parts = predicted + failed + kept + tally.left();
            assert_eq!((tally.found, parts), (found, found));
            assert_eq!((tally.left_to_others, tally.not_done), (3, found - 23));
        }
    }

    #[test]
    fn the_line_names_each_part_that_has_images() {
        let all = AuditTally { found: 4, predicted: 3, failed: 1, ..AuditTally::default() };
        assert_eq!(
            all.describe(2.0),
            "Audited 4 images in 2.0 s (2.0 images/s): 3 predicted, 1 failed"
        );
        let some = AuditTally {
            found: 14,
            predicted: 1,
            had_results: 2,
            confirmed: 1,
            left_to_others: 3,
            not_done: 7,
            ..AuditTally::default()
        };
        assert_eq!(
            some.describe(10.0),
            "Audited 1 image in 10.0 s (0.10 images/s): 1 predicted, 0 failed; of the 14 found, 2 \
             had results already, 1 had results that were checked and kept, 3 superseded or \
             cancelled, 7 not done"
        );
        let none = AuditTally { found: 2, had_results: 2, ..AuditTally::default() };
        assert_eq!(
            none.describe(0.5),
            "Audited 0 images in 0.5 s: 0 predicted, 0 failed; of the 2 found, 2 had results already"
        );
    }
}
