//! Counts the results in OUT, and how fast they come.
//!
//! If the run has a manifest, an image is done if it has a result that the manifest counts. Without
//! one, as of an older version, all results are counted. A result that the last report found unusable
//! does not count; what nobody has read yet may be unusable, too.

use std::collections::{HashMap, HashSet};

use camshaft_common::key::ImageKey;
use camshaft_common::key_hash::{ImageKeyHasher, KeyHash};
use camshaft_common::layout::{FAILURES, PREDICTIONS};
use camshaft_common::manifest::{ManifestEntry, ManifestError};
use camshaft_common::results::{self, ResultFile};
use camshaft_common::run::RunRecord;
use camshaft_common::store::{Folder, StoreError};
use camshaft_common::unusable_results::UnusableResults;
use chrono::{DateTime, TimeDelta, Utc};
use futures::TryStreamExt;
use futures::stream::BoxStream;

/// The rate is counted over the results of the last minute.
const RATE_WINDOW: TimeDelta = TimeDelta::seconds(60);

/// The entries of a manifest.
pub(crate) type Entries = BoxStream<'static, Result<ManifestEntry, ManifestError>>;

/// When the results in OUT were written. There may be millions: each takes 27 to 54 bytes here.
#[derive(Debug, Default)]
pub(crate) struct ResultTimes {
    predictions: HashMap<KeyHash, i64>,
    failures: HashMap<KeyHash, i64>,
    /// Images of results that do not count.
    unusable: HashSet<KeyHash>,
    hasher: ImageKeyHasher,
}

/// When the results of one image were written.
#[derive(Clone, Copy, Debug)]
struct TimesOfImage {
    prediction: Option<DateTime<Utc>>,
    failure: Option<DateTime<Utc>>,
}

impl ResultTimes {
    /// Lists the results in OUT, which holds this run.
    ///
    /// # Errors
    /// If OUT can't be listed.
    pub(crate) async fn list(out: &Folder, record: &RunRecord) -> Result<Self, StoreError> {
        let unusable = UnusableResults::read(out, Some(record)).await?;
        let mut times = Self::default();
        // Failures first: a prediction that is written meanwhile replaces a failure, and counts.
        for folder in [FAILURES, PREDICTIONS] {
            let mut files = results::list(out, folder);
            while let Some(file) = files.try_next().await? {
                let key = times.hasher.hash(&file.key);
                if unusable.contains(&file) {
                    times.unusable.insert(key);
                    continue;
                }
                let of_kind = match folder {
                    FAILURES => &mut times.failures,
                    _ => &mut times.predictions,
                };
                of_kind.insert(key, file.last_modified.timestamp_micros());
            }
        }
        Ok(times)
    }

    fn of(&self, key: &ImageKey) -> TimesOfImage {
        let key = self.hasher.hash(key);
        let time = |of_kind: &HashMap<KeyHash, i64>| {
            of_kind.get(&key).and_then(|micros| DateTime::from_timestamp_micros(*micros))
        };
        TimesOfImage { prediction: time(&self.predictions), failure: time(&self.failures) }
    }

    /// True if the image has a result that the manifest counts.
    #[must_use]
    pub(crate) fn is_done(&self, entry: &ManifestEntry) -> bool {
        let TimesOfImage { prediction, failure } = self.of(&entry.key);
        [prediction, failure].into_iter().flatten().any(|written| entry.counts(written))
    }
}

/// The results of a run.
#[derive(Debug, Default)]
pub(crate) struct ResultCounts {
    /// Predictions.
    pub(crate) done: u64,
    /// Failures.
    pub(crate) failed: u64,
    /// Images with a result.
    pub(crate) finished: u64,
    /// Images with a prediction and a failure.
    pub(crate) doubled: Vec<ImageKey>,
    /// Images without a result, but with a file that the last report found unusable.
    pub(crate) unusable: u64,
    /// Results of the last minute.
    recent: u64,
    first_recent: Option<DateTime<Utc>>,
    /// When the last result was written.
    pub(crate) newest: Option<DateTime<Utc>>,
}

impl ResultCounts {
    /// Counts the results of a manifest's images.
    ///
    /// # Errors
    /// If the manifest can't be read.
    pub(crate) async fn of_manifest(
        times: &ResultTimes,
        mut entries: Entries,
    ) -> Result<Self, ManifestError> {
        let mut counts = Self::default();
        let window_start = Utc::now() - RATE_WINDOW;
        while let Some(entry) = entries.try_next().await? {
            let TimesOfImage { prediction, failure } = times.of(&entry.key);
            let counting =
                [prediction, failure].map(|written| written.filter(|time| entry.counts(*time)));
            counts.done += u64::from(counting[0].is_some());
            counts.failed += u64::from(counting[1].is_some());
            counting.into_iter().flatten().for_each(|time| counts.add_time(time, window_start));
            if counting.iter().any(Option::is_some) {
                counts.finished += 1;
            } else if times.unusable.contains(&times.hasher.hash(&entry.key)) {
                counts.unusable += 1;
            }
            if counting.iter().all(Option::is_some) {
                counts.doubled.push(entry.key);
            }
        }
        Ok(counts)
    }

    /// Lists and counts the results in OUT. Those of files that are no images of the run do not count:
    /// an older version took every file for an image. Nor do those that were to be redone when an
    /// enqueue was cut short.
    ///
    /// # Errors
    /// If OUT can't be listed.
    pub(crate) async fn list(out: &Folder, record: &RunRecord) -> Result<Self, StoreError> {
        let unusable = UnusableResults::read(out, Some(record)).await?;
        let mut counts = Self::default();
        let window_start = Utc::now() - RATE_WINDOW;
        let is_too_old =
            |written: DateTime<Utc>| record.results_since.is_some_and(|since| written < since);
        // There are few failures: their keys are kept to find the images that have both.
        let mut failed = HashSet::new();
        for folder in [FAILURES, PREDICTIONS] {
            let mut files = results::list(out, folder);
            while let Some(file) = files.try_next().await? {
                if !record.selects(&file.key) || is_too_old(file.last_modified) {
                    continue;
                }
                if unusable.contains(&file) {
                    counts.unusable += 1;
                    continue;
                }
                let ResultFile { key, last_modified, .. } = file;
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
        counts.finished = counts.done + counts.failed - counts.doubled.len() as u64;
        Ok(counts)
    }

    fn add_time(&mut self, written: DateTime<Utc>, window_start: DateTime<Utc>) {
        if written >= window_start {
            self.recent += 1;
            self.first_recent = Some(self.first_recent.map_or(written, |first| first.min(written)));
        }
        self.newest = Some(self.newest.map_or(written, |newest| newest.max(written)));
    }

    /// Results a second: over the last minute, or since the first result if that is later.
    #[must_use]
    pub(crate) fn rate(&self) -> f64 {
        let (Some(first), Some(newest)) = (self.first_recent, self.newest) else { return 0.0 };
        let seconds = (newest - first).as_seconds_f64();
        if self.recent < 2 { 0.0 } else { (self.recent - 1) as f64 / seconds.max(1.0) }
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    fn key(text: &str) -> ImageKey {
        ImageKey::parse(text).unwrap()
    }

    #[tokio::test]
    async fn results_count_if_their_image_is_in_the_manifest_and_they_are_not_too_old() {
        let now = DateTime::from_timestamp_millis(Utc::now().timestamp_millis()).unwrap();
        let hour = TimeDelta::hours(1);
        let mut times = ResultTimes::default();
        let (predictions, failures) = (
            [
                ("kept", now - hour),
                ("old", now - hour),
                ("new", now),
                ("gone", now),
                ("twice", now),
            ],
            [("failed", now), ("twice", now)],
        );
        for (name, written) in predictions {
            let hash = times.hasher.hash(&key(name));
            times.predictions.insert(hash, written.timestamp_micros());
        }
        for (name, written) in failures {
            let hash = times.hasher.hash(&key(name));
            times.failures.insert(hash, written.timestamp_micros());
        }
        let entries: Vec<_> = [
            ("failed", Some(now)),
            ("kept", None),
            ("new", Some(now)),
            ("nothing", None),
            ("old", Some(now)),
            ("twice", None),
        ]
        .map(|(name, since)| ManifestEntry {
            key: key(name),
            etag: None,
            size: None,
            absent: false,
            label: None,
            since,
        })
        .into();
        let done: Vec<_> = entries.iter().map(|entry| times.is_done(entry)).collect();
        assert_eq!(done, [true, true, true, false, false, true]);
        let entries = futures::stream::iter(entries.into_iter().map(Ok)).boxed();
        times.unusable =
            ["nothing", "new", "gone"].map(|name| times.hasher.hash(&key(name))).into();
        let counts = ResultCounts::of_manifest(&times, entries).await.unwrap();
        assert_eq!(counts.unusable, 1, "another result of an image may count");
        assert_eq!((counts.done, counts.failed, counts.finished), (3, 2, 4));
        assert_eq!(counts.doubled, [key("twice")]);
        assert_eq!(counts.newest, Some(now));
    }
}
