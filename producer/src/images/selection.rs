//! Decides which images of SOURCE get a job, given the results that lie in OUT.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use camshaft_common::key::ImageKey;
use camshaft_common::layout::{FAILURES, PREDICTIONS};
use camshaft_common::store::{Folder, StoreError};
use chrono::{DateTime, Utc};
use futures::TryStreamExt;

use crate::images::found_image::FoundImage;

/// Which images get a job: `--only`.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    clap::ValueEnum,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Selection {
    /// Those without a result, and those that changed after their result was written.
    #[default]
    New,
    /// Every image.
    All,
    /// Those whose result is a failure.
    Failed,
    /// Those that were lost: once the queue is empty, they have neither a result nor a dead letter.
    Missing,
}

/// What happens to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It gets no job.
    Skip,
    /// It gets a job.
    Publish {
        /// True if its result may lie in OUT already and must be replaced.
        replaces: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ResultKind {
    Prediction,
    Failure,
}

/// The results in OUT. There may be millions: each takes 27 to 54 bytes here, whatever the length
/// of its key.
#[derive(Debug, Default)]
pub(crate) struct ExistingResults {
    by_key: HashMap<KeyHash, ExistingResult>,
    hashers: [RandomState; 2],
    /// Images whose job is a dead letter.
    dead: HashSet<ImageKey>,
}

/// The hash of a key, with a secret of this process: nobody can construct two keys with the same
/// hash. Among a billion keys, two have the same hash by chance once in 10^20 times.
type KeyHash = [u64; 2];

/// A result in eight bytes: when it was written, in microseconds, and in the lowest bit whether it
/// is a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ExistingResult(i64);

impl ExistingResult {
    fn new(kind: ResultKind, written: DateTime<Utc>) -> Self {
        Self(written.timestamp_micros() << 1 | i64::from(kind == ResultKind::Failure))
    }

    fn kind(self) -> ResultKind {
        if self.0 & 1 == 1 { ResultKind::Failure } else { ResultKind::Prediction }
    }

    fn is_older_than(self, time: DateTime<Utc>) -> bool {
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

    fn insert(&mut self, key: &ImageKey, kind: ResultKind, written: DateTime<Utc>) {
        self.by_key.insert(self.hash(key), ExistingResult::new(kind, written));
    }

    fn get(&self, key: &ImageKey) -> Option<ExistingResult> {
        self.by_key.get(&self.hash(key)).copied()
    }

    fn hash(&self, key: &ImageKey) -> KeyHash {
        self.hashers.each_ref().map(|hasher| hasher.hash_one(key))
    }

    /// True if OUT has no result.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// True if the image has a result.
    #[must_use]
    pub(crate) fn has(&self, key: &ImageKey) -> bool {
        self.get(key).is_some()
    }

    /// Sets the images whose job is a dead letter: they are not lost.
    pub(crate) fn set_dead(&mut self, dead: HashSet<ImageKey>) {
        self.dead = dead;
    }

    /// True if the image's result is a failure.
    #[must_use]
    pub(crate) fn has_failed(&self, key: &ImageKey) -> bool {
        self.get(key).is_some_and(|result| result.kind() == ResultKind::Failure)
    }

    /// Decides whether an image gets a job.
    #[must_use]
    pub(crate) fn decide(&self, image: &FoundImage, selection: Selection) -> Decision {
        let result = self.get(&image.key);
        let wanted = match (selection, result) {
            (Selection::All, _) | (Selection::New, None) => true,
            (Selection::New, Some(result)) => {
                image.last_modified.is_some_and(|modified| result.is_older_than(modified))
            }
            (Selection::Failed, _) => self.has_failed(&image.key),
            (Selection::Missing, result) => result.is_none() && !self.dead.contains(&image.key),
        };
        // The job of an image that seems lost may still be done by a worker. If the two jobs end
        // differently, one as a prediction and one as a failure, only one result may stay.
        let replaces = result.is_some() || selection == Selection::Missing;
        if wanted { Decision::Publish { replaces } } else { Decision::Skip }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn each_choice_takes_its_images() {
        let now = Utc::now();
        let image = |key: &str, modified| FoundImage {
            key: ImageKey::parse(key).unwrap(),
            etag: None,
            size_bytes: None,
            last_modified: modified,
            label: None,
        };
        let key = |key: &str| ImageKey::parse(key).unwrap();
        let mut results = ExistingResults::default();
        results.insert(&key("done.jpg"), ResultKind::Prediction, now);
        results.insert(&key("failed.jpg"), ResultKind::Failure, now);
        results.set_dead(HashSet::from([key("dead.jpg")]));
        let earlier = Some(now - TimeDelta::hours(1));
        let later = Some(now + TimeDelta::hours(1));
        let again = Decision::Publish { replaces: true };
        let first = Decision::Publish { replaces: false };

        assert_eq!(results.decide(&image("new.jpg", earlier), Selection::New), first);
        assert_eq!(results.decide(&image("done.jpg", earlier), Selection::New), Decision::Skip);
        assert_eq!(results.decide(&image("done.jpg", None), Selection::New), Decision::Skip);
        assert_eq!(results.decide(&image("done.jpg", later), Selection::New), again);
        assert_eq!(results.decide(&image("failed.jpg", earlier), Selection::New), Decision::Skip);
        assert_eq!(results.decide(&image("failed.jpg", earlier), Selection::Failed), again);
        assert_eq!(results.decide(&image("new.jpg", earlier), Selection::Failed), Decision::Skip);
        assert_eq!(results.decide(&image("lost.jpg", earlier), Selection::Missing), again);
        for there in ["done.jpg", "failed.jpg", "dead.jpg"] {
            assert_eq!(results.decide(&image(there, later), Selection::Missing), Decision::Skip);
        }
        assert_eq!(results.decide(&image("done.jpg", earlier), Selection::All), again);
        assert_eq!(results.decide(&image("new.jpg", earlier), Selection::All), first);
    }
}
