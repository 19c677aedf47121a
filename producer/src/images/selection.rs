//! Which images are to be done, given the results that lie in OUT already.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use camshaft_common::key::ImageKey;
use camshaft_common::layout;
use camshaft_common::store::{Folder, StoreError};
use chrono::{DateTime, Utc};
use futures::TryStreamExt;

use crate::images::source::FoundImage;

/// Which images are wanted: `--only`.
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
pub enum Only {
    /// Those without a result, or written since their result was.
    #[default]
    New,
    /// All.
    All,
    /// Those with a failure.
    Failed,
    /// Those that were lost: with neither a result nor a dead letter, once the queue is empty.
    Missing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Prediction,
    Failure,
}

/// The results that lie in OUT. There may be millions: each takes 27 to 54 bytes here, however
/// long its key is.
#[derive(Debug, Default)]
pub struct Results {
    by_key: HashMap<Fingerprint, Written>,
    hashers: [RandomState; 2],
    /// Images whose job is a dead letter.
    dead: HashSet<ImageKey>,
}

/// A key's hash, with a secret of this process: nobody can make two keys with the same one, and
/// among a billion keys two have it by chance once in 10^20 times.
type Fingerprint = [u64; 2];

/// When a result was written, in microseconds, and in the lowest bit whether it is a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Written(i64);

impl Written {
    fn new(kind: Kind, at: DateTime<Utc>) -> Self {
        Self(at.timestamp_micros() << 1 | i64::from(kind == Kind::Failure))
    }

    fn kind(self) -> Kind {
        if self.0 & 1 == 1 { Kind::Failure } else { Kind::Prediction }
    }

    fn is_before(self, time: DateTime<Utc>) -> bool {
        self.0 >> 1 < time.timestamp_micros()
    }
}

/// What is to be done with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Its result is there.
    Skip,
    /// It is to be done; `replaces` where a result of it lies there.
    Do {
        /// Whether a result lies there.
        replaces: bool,
    },
}

impl Results {
    /// Lists the results in OUT.
    ///
    /// # Errors
    /// Where OUT can't be listed.
    pub async fn list(out: &Folder) -> Result<Self, StoreError> {
        let mut results = Self::default();
        // Failures last: of an image that has both, the failure is what is to be seen to.
        for (folder, kind) in
            [(layout::PREDICTIONS, Kind::Prediction), (layout::FAILURES, Kind::Failure)]
        {
            let mut objects = out.list_in_order(folder);
            while let Some(object) = objects.try_next().await? {
                if let Some(key) = layout::image_of_result(&object.path) {
                    results.insert(&key, kind, object.last_modified);
                }
            }
        }
        Ok(results)
    }

    fn insert(&mut self, key: &ImageKey, kind: Kind, written: DateTime<Utc>) {
        self.by_key.insert(self.fingerprint(key), Written::new(kind, written));
    }

    fn get(&self, key: &ImageKey) -> Option<Written> {
        self.by_key.get(&self.fingerprint(key)).copied()
    }

    fn fingerprint(&self, key: &ImageKey) -> Fingerprint {
        self.hashers.each_ref().map(|hasher| hasher.hash_one(key))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Whether an image has one.
    #[must_use]
    pub fn has(&self, key: &ImageKey) -> bool {
        self.get(key).is_some()
    }

    /// Takes images whose job is a dead letter for accounted for.
    pub fn set_dead(&mut self, dead: HashSet<ImageKey>) {
        self.dead = dead;
    }

    /// Whether an image's result is a failure.
    #[must_use]
    pub fn has_failed(&self, key: &ImageKey) -> bool {
        self.get(key).is_some_and(|written| written.kind() == Kind::Failure)
    }

    /// Decides on an image.
    #[must_use]
    pub fn decide(&self, image: &FoundImage, only: Only) -> Decision {
        let result = self.get(&image.key);
        let wanted = match (only, result) {
            (Only::All, _) | (Only::New, None) => true,
            (Only::New, Some(written)) => {
                image.last_modified.is_some_and(|modified| written.is_before(modified))
            }
            (Only::Failed, _) => self.has_failed(&image.key),
            (Only::Missing, result) => result.is_none() && !self.dead.contains(&image.key),
        };
        // A lost image may yet turn up: then the other kind of result must not stay.
        let replaces = result.is_some() || only == Only::Missing;
        if wanted { Decision::Do { replaces } } else { Decision::Skip }
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
        let mut results = Results::default();
        results.insert(&key("done.jpg"), Kind::Prediction, now);
        results.insert(&key("failed.jpg"), Kind::Failure, now);
        results.set_dead(HashSet::from([key("dead.jpg")]));
        let earlier = Some(now - TimeDelta::hours(1));
        let later = Some(now + TimeDelta::hours(1));
        let again = Decision::Do { replaces: true };
        let first = Decision::Do { replaces: false };

        assert_eq!(results.decide(&image("new.jpg", earlier), Only::New), first);
        assert_eq!(results.decide(&image("done.jpg", earlier), Only::New), Decision::Skip);
        assert_eq!(results.decide(&image("done.jpg", None), Only::New), Decision::Skip);
        assert_eq!(results.decide(&image("done.jpg", later), Only::New), again);
        assert_eq!(results.decide(&image("failed.jpg", earlier), Only::New), Decision::Skip);
        assert_eq!(results.decide(&image("failed.jpg", earlier), Only::Failed), again);
        assert_eq!(results.decide(&image("new.jpg", earlier), Only::Failed), Decision::Skip);
        assert_eq!(results.decide(&image("lost.jpg", earlier), Only::Missing), again);
        for there in ["done.jpg", "failed.jpg", "dead.jpg"] {
            assert_eq!(results.decide(&image(there, later), Only::Missing), Decision::Skip);
        }
        assert_eq!(results.decide(&image("done.jpg", earlier), Only::All), again);
        assert_eq!(results.decide(&image("new.jpg", earlier), Only::All), first);
    }
}
