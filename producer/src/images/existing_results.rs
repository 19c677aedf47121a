//! The results in OUT: which images have one, of which kind, and when it was written.

use std::collections::HashMap;

use camshaft_common::key::ImageKey;
use camshaft_common::key_hash::{ImageKeyHasher, KeyHash};
use camshaft_common::layout::{FAILURES, PREDICTIONS};
use camshaft_common::store::{Folder, StoreError};
use chrono::{DateTime, Utc};
use futures::TryStreamExt;

/// A kind of result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResultKind {
    Prediction,
    Failure,
}

/// The results in OUT. There may be millions: each takes 27 to 54 bytes here, whatever the length
/// of its key.
#[derive(Debug, Default)]
pub(crate) struct ExistingResults {
    by_key: HashMap<KeyHash, ExistingResult>,
    hasher: ImageKeyHasher,
    newest: Option<DateTime<Utc>>,
}

/// A result in eight bytes: when it was written, in microseconds, and in the lowest bit whether it
/// is a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExistingResult(i64);

impl ExistingResult {
    fn new(kind: ResultKind, written: DateTime<Utc>) -> Self {
        Self(written.timestamp_micros() << 1 | i64::from(kind == ResultKind::Failure))
    }

    /// Its kind.
    pub(crate) fn kind(self) -> ResultKind {
        if self.0 & 1 == 1 { ResultKind::Failure } else { ResultKind::Prediction }
    }

    /// True if it was written before `time`.
    pub(crate) fn is_older_than(self, time: DateTime<Utc>) -> bool {
        self.0 >> 1 < time.timestamp_micros()
    }
}

impl ExistingResults {
    /// Lists the results in OUT.
    ///
    /// # Errors
    /// If OUT can't be listed.
    pub(crate) async fn list(out: &Folder) -> Result<Self, StoreError> {
        let mut results = Self::default();
        // Failures last: an image that has both counts as failed.
        for (folder, kind) in
            [(PREDICTIONS, ResultKind::Prediction), (FAILURES, ResultKind::Failure)]
        {
            let mut files = camshaft_common::results::list(out, folder);
            while let Some(file) = files.try_next().await? {
                results.insert(&file.key, kind, file.last_modified);
            }
        }
        Ok(results)
    }

    pub(super) fn insert(&mut self, key: &ImageKey, kind: ResultKind, written: DateTime<Utc>) {
        self.by_key.insert(self.hasher.hash(key), ExistingResult::new(kind, written));
        self.newest = self.newest.max(Some(written));
    }

    /// The image's result, if it has one.
    #[must_use]
    pub(crate) fn get(&self, key: &ImageKey) -> Option<ExistingResult> {
        self.by_key.get(&self.hasher.hash(key)).copied()
    }

    /// True if OUT has no result.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
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
