//! Counts the results in OUT, and how fast they come.

use std::collections::HashSet;

use camshaft_common::key::ImageKey;
use camshaft_common::layout::{FAILURES, PREDICTIONS};
use camshaft_common::results::{self, ResultFile};
use camshaft_common::run::RunRecord;
use camshaft_common::store::{Folder, StoreError};
use chrono::{DateTime, TimeDelta, Utc};
use futures::TryStreamExt;

/// The rate is counted over the results of the last minute.
const RATE_WINDOW: TimeDelta = TimeDelta::seconds(60);

/// The results in OUT.
#[derive(Debug, Default)]
pub(crate) struct ResultCounts {
    /// Predictions.
    pub(crate) done: u64,
    /// Failures.
    pub(crate) failed: u64,
    /// Images with a prediction and a failure.
    pub(crate) doubled: Vec<ImageKey>,
    /// Results of the last minute.
    recent: u64,
    first_recent: Option<DateTime<Utc>>,
    /// When the last result was written.
    pub(crate) newest: Option<DateTime<Utc>>,
}

impl ResultCounts {
    /// Lists the results in OUT. Those of files that are no images of the run do not count: an older
    /// version took every file for an image.
    ///
    /// # Errors
    /// If OUT can't be listed.
    pub(crate) async fn list(out: &Folder, record: &RunRecord) -> Result<Self, StoreError> {
        let mut counts = Self::default();
        let window_start = Utc::now() - RATE_WINDOW;
        // There are few failures: their keys are kept to find the images that have both.
        let mut failed = HashSet::new();
        for folder in [FAILURES, PREDICTIONS] {
            let mut files = results::list(out, folder);
            while let Some(file) = files.try_next().await? {
                let ResultFile { key, last_modified, .. } = file;
                if !record.selects(&key) {
                    continue;
                }
                if folder == FAILURES {
                    counts.failed += 1;
                    failed.insert(key);
                } else {
                    counts.done += 1;
                    if failed.contains(&key) {
                        counts.doubled.push(key);
                    }
                }
                counts.add_time(last_modified, window_start);
            }
        }
        Ok(counts)
    }

    fn add_time(&mut self, written: DateTime<Utc>, window_start: DateTime<Utc>) {
        if written >= window_start {
            self.recent += 1;
            self.first_recent = Some(self.first_recent.map_or(written, |first| first.min(written)));
        }
        self.newest = Some(self.newest.map_or(written, |newest| newest.max(written)));
    }

    /// Images with a result.
    #[must_use]
    pub(crate) fn finished(&self) -> u64 {
        self.done + self.failed - self.doubled.len() as u64
    }

    /// Results a second: over the last minute, or since the first result if that is later.
    #[must_use]
    pub(crate) fn rate(&self) -> f64 {
        let (Some(first), Some(newest)) = (self.first_recent, self.newest) else { return 0.0 };
        let seconds = (newest - first).as_seconds_f64();
        if self.recent < 2 { 0.0 } else { (self.recent - 1) as f64 / seconds.max(1.0) }
    }
}
