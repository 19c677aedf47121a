//! The results in OUT: which images have one, of which kind, and when it was written.

use std::collections::HashMap;

use camshaft_common::key::ImageKey;
use camshaft_common::key_hash::{ImageKeyHasher, KeyHash};
use camshaft_common::layout::{FAILURES, PREDICTIONS};
use camshaft_common::store::{Folder, StoreError};
use camshaft_common::unusable_results::UnusableResults;
use chrono::{DateTime, Utc};
use futures::TryStreamExt;

/// A kind of result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResultKind {
    Prediction,
    Failure,
    /// Of either kind. The last report found that it does not count.
    Unusable,
}

/// The results in OUT. There may be millions: each takes 27 to 54 bytes here, whatever the length
/// of its key.
#[derive(Debug, Default)]
pub(crate) struct ExistingResults {
    by_key: HashMap<KeyHash, ExistingResult>,
    hasher: ImageKeyHasher,
    newest: Option<DateTime<Utc>>,
    /// True if one of them counts.
    has_usable: bool,
}

/// A result in eight bytes: when it was written, in microseconds, and in the two lowest bits its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExistingResult(i64);

impl ExistingResult {
    fn new(kind: ResultKind, written: DateTime<Utc>) -> Self {
        let kind = match kind {
            ResultKind::Prediction => 0,
            ResultKind::Failure => 1,
            ResultKind::Unusable => 2,
        };
        Self(written.timestamp_micros() << 2 | kind)
    }

    /// Its kind.
    pub(crate) fn kind(self) -> ResultKind {
        match self.0 & 3 {
            0 => ResultKind::Prediction,
            1 => ResultKind::Failure,
            _ => ResultKind::Unusable,
        }
    }

    /// True unless the last report found that it does not count.
    pub(crate) fn is_usable(self) -> bool {
        self.kind() != ResultKind::Unusable
    }

    /// True if it was written before `time`.
    pub(crate) fn is_older_than(self, time: DateTime<Utc>) -> bool {
        self.0 >> 2 < time.timestamp_micros()
    }
}

impl ExistingResults {
    /// Lists the results in OUT. `unusable` are those that do not count.
    ///
    /// # Errors
    /// If OUT can't be listed.
    pub(crate) async fn list(out: &Folder, unusable: &UnusableResults) -> Result<Self, StoreError> {
        let mut results = Self::default();
        // Failures last: an image that has both counts as failed.
        for (folder, kind) in
            [(PREDICTIONS, ResultKind::Prediction), (FAILURES, ResultKind::Failure)]
        {
            let mut files = camshaft_common::results::list(out, folder);
            while let Some(file) = files.try_next().await? {
                let kind = if unusable.contains(&file) { ResultKind::Unusable } else { kind };
                results.insert(&file.key, kind, file.last_modified);
            }
        }
        Ok(results)
    }

    pub(super) fn insert(&mut self, key: &ImageKey, kind: ResultKind, written: DateTime<Utc>) {
        self.newest = self.newest.max(Some(written));
        let (key, result) = (self.hasher.hash(key), ExistingResult::new(kind, written));
        if result.is_usable() {
            self.has_usable = true;
            self.by_key.insert(key, result);
        } else {
            // Another one of the image may count.
            self.by_key.entry(key).or_insert(result);
        }
    }

    /// The image's result, if it has one. It may be unusable.
    #[must_use]
    pub(crate) fn get(&self, key: &ImageKey) -> Option<ExistingResult> {
        self.by_key.get(&self.hasher.hash(key)).copied()
    }

    /// True if OUT has no result that counts.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        !self.has_usable
    }

    /// The number of images that have a result.
    #[must_use]
    pub(crate) fn images(&self) -> u64 {
        self.by_key.len() as u64
    }

    /// When the newest result was written.
    #[must_use]
    pub(crate) fn newest(&self) -> Option<DateTime<Utc>> {
        self.newest
    }
}
