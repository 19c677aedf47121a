//! `run.json`: the record of a run.
//!
//! `status`, `report` and the next `enqueue` or `audit` read it.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::explain::ExplainOptions;
use crate::image_files::ImageFiles;
use crate::key::ImageKey;
use crate::layout::RUN_FILE;
use crate::location::{AZURE_SCHEMES, Location};
use crate::model::{Int8Outcome, ModelIdentity, TrainedLayers};
use crate::skipped::SkippedCounts;
use crate::store::{Folder, StoreError, StoreErrorKind, StoreOptions};

/// The most bytes of a run record. One without a label map has a few kilobytes.
pub const MAX_RUN_FILE_BYTES: u64 = 16 << 20;

/// The version of the files written under OUT.
pub const SCHEMA: u32 = 1;

/// Identifies a run: a UUID v7, so runs sort by their start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RunId(Uuid);

impl RunId {
    /// A new id, from the clock and a random number.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for RunId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// Identifies the jobs that were enqueued together, by one `enqueue` or `audit`: a UUID v7. A later
/// one is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Generation(Uuid);

impl Generation {
    /// A new one, from the clock and a random number. It is greater than `earlier` also if this
    /// machine's clock is behind that of the other.
    #[must_use]
    pub fn after(earlier: Option<Self>) -> Self {
        let now = Self(Uuid::now_v7());
        match earlier {
            Some(Self(earlier)) if now.0 <= earlier => {
                Self(Uuid::from_u128(earlier.as_u128().saturating_add(1)))
            }
            _ => now,
        }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for Generation {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// `OUT/run.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The run's id; kept when the run is started again.
    pub run: RunId,
    /// SOURCE as given, as a URL if it is a place.
    pub source: String,
    /// The place that the keys of a list are below.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub base: Option<Location>,
    /// The column of a list that has the keys, if the user named it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key_column: Option<String>,
    /// The column of a list that has the labels, if the user named it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub label_column: Option<String>,
    /// What a label map decided: by given label, the words for it in jobs, which name a class.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub label_map: BTreeMap<String, String>,
    /// The number of SOURCE's images to use, from the first.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limit: Option<u64>,
    /// The first part of the names of the queues that the run was last enqueued to, if it is not the
    /// usual one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub queue: Option<String>,
    /// Which files of SOURCE are images. Absent if every file is: for a list, for a single image, and
    /// for a run of an older version that has not been gone on with.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub image_files: Option<ImageFiles>,
    /// The model all results come from.
    pub model: ModelIdentity,
    /// Which layers of the model were trained, if its configuration says so.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trained_layers: Option<TrainedLayers>,
    /// The options all results come from.
    pub explain: ExplainOptions,
    /// How far 8 bits are from f32, if they were asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub int8: Option<Int8Outcome>,
    /// Number of images in SOURCE, once they have been listed to the end.
    pub images: Option<u64>,
    /// What else lies in SOURCE, once it has been listed to the end. Absent in older runs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub skipped: Option<SkippedCounts>,
    /// The last enqueue or audit that was started. Absent in older runs, and if this user may write no
    /// manifest.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub generation: Option<Generation>,
    /// Jobs of earlier generations, and those without one, no longer count: all images without a result
    /// have later jobs, or the run was cancelled. Absent if all jobs count.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub jobs_since: Option<Generation>,
    /// When the run was cancelled. Absent if it was not, or was gone on with since.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cancelled_at: Option<DateTime<Utc>>,
    /// The generation whose [`manifest`](crate::manifest) has the run's images: the last one that
    /// listed SOURCE to its end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub manifest: Option<Generation>,
    /// No result counts that was written before this time of the store's clock: every image was to be
    /// redone, and that enqueue has not ended. When it ends, the manifest says so of each image.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub results_since: Option<DateTime<Utc>>,
    /// When the run was first started.
    pub created_at: DateTime<Utc>,
    /// When it was last started, or finished listing.
    pub updated_at: DateTime<Utc>,
    /// The version of Camshaft that wrote this.
    pub camshaft: String,
}

/// Why `run.json` cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadRunError {
    /// OUT has no `run.json`.
    #[error("{0} holds no run: there is no run.json; is the path right, and was a run started?")]
    Missing(String),
    /// The file is empty, cut off, or otherwise no JSON.
    #[error(
        "{out}/{RUN_FILE} is damaged ({source}); delete it, then run the audit or enqueue again with \
         the options of before: it keeps the results that are there"
    )]
    Damaged {
        /// The place.
        out: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The file is JSON, but not a run record: another program's, or a later version's.
    #[error("{out}/{RUN_FILE} is not a run record ({source}); choose another --out")]
    Malformed {
        /// The place.
        out: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// OUT cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RunRecord {
    /// True if a file with this key is an image of the run. OUT may hold results of others: of files
    /// that counted as images when they were written.
    #[must_use]
    pub fn selects(&self, key: &ImageKey) -> bool {
        self.image_files.as_ref().is_none_or(|files| files.selects(key))
    }

    /// The folder or prefix that the keys of the images are below; `None` if the record does not tell it.
    #[must_use]
    pub fn images_place(&self) -> Option<Location> {
        let place = self.base.clone().or_else(|| self.source.parse().ok())?;
        let is_file = place.local_path().is_some_and(|path| path.is_file());
        match place.split_last() {
            // SOURCE is a single image, whose key is its file name.
            Some((folder, _)) if is_file => Some(folder),
            _ => Some(place),
        }
    }

    /// SOURCE as it was given, without a user, a password or a query: nothing that a table may pass on is a
    /// secret.
    #[must_use]
    pub fn source_without_secrets(&self) -> String {
        without_secrets(&self.source)
    }

    /// Opens the folder that the keys of the images are below; `None` if the record does not tell it, or
    /// it can't be opened.
    #[must_use]
    pub fn open_images(&self, stores: &StoreOptions) -> Option<Folder> {
        Folder::open(&self.images_place()?, stores).ok()
    }

    /// True if a job of this generation counts, or one without a generation.
    #[must_use]
    pub fn counts(&self, generation: Option<Generation>) -> bool {
        generation >= self.jobs_since
    }

    /// Cancels the run: none of the jobs published so far counts any more. The next enqueue or audit
    /// has a later generation.
    pub fn cancel(&mut self, now: DateTime<Utc>) {
        self.jobs_since = Some(Generation::after(self.generation.max(self.jobs_since)));
        self.cancelled_at = Some(now);
    }

    /// The generation whose manifest has the images that SOURCE had when it was last listed, and their
    /// number; `None` while it is being listed, and if there is no manifest.
    #[must_use]
    pub fn listed_manifest(&self) -> Option<(Generation, u64)> {
        self.manifest.zip(self.images)
    }

    /// Reads OUT's `run.json`, if it has one.
    ///
    /// # Errors
    /// If OUT cannot be read, or the file is not a run record.
    pub async fn read(out: &Folder) -> Result<Option<Self>, ReadRunError> {
        let content = match out.get(RUN_FILE, MAX_RUN_FILE_BYTES).await {
            Ok(content) => content.bytes,
            Err(error) if error.kind() == StoreErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let out = || out.location().to_string();
        match serde_json::from_slice(&content) {
            Ok(record) => Ok(Some(record)),
            Err(source) if source.is_data() => Err(ReadRunError::Malformed { out: out(), source }),
            Err(source) => Err(ReadRunError::Damaged { out: out(), source }),
        }
    }

    /// Reads OUT's `run.json`.
    ///
    /// # Errors
    /// As [`Self::read`], and if there is none.
    pub async fn read_existing(out: &Folder) -> Result<Self, ReadRunError> {
        let record = Self::read(out).await?;
        record.ok_or_else(|| ReadRunError::Missing(out.location().to_string()))
    }
}

fn without_secrets(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    let authority = match authority.rsplit_once('@') {
        // A list's scheme is `list:az`.
        Some((user, host)) if AZURE_SCHEMES.iter().any(|azure| scheme.ends_with(azure)) => {
            let container = user.split(':').next().unwrap_or_default();
            format!("{container}@{host}")
        }
        Some((_, host)) => host.to_owned(),
        None => authority.to_owned(),
    };
    format!("{scheme}://{authority}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{JSON, StoreOptions};

    #[tokio::test]
    async fn a_record_that_is_damaged_is_told_from_another_programs() {
        let directory = tempfile::tempdir().unwrap();
        let location = directory.path().to_str().unwrap().parse().unwrap();
        let out = Folder::open(&location, &StoreOptions::default()).unwrap();
        for (content, advice) in [
            ("", "delete it"),
            ("{\"schema\": 1, \"run\"", "delete it"),
            ("\0\0\0", "delete it"),
            ("{\"run\": 3}", "choose another --out"),
        ] {
            out.put(RUN_FILE, content, JSON).await.unwrap();
            let error = RunRecord::read(&out).await.unwrap_err().to_string();
            assert!(error.contains(advice), "{content:?}: {error}");
        }
    }

    #[test]
    fn a_source_is_told_without_its_secrets() {
        for (source, told) in [
            ("list:/data/keys.csv", "list:/data/keys.csv"),
            ("s3://data/images", "s3://data/images"),
            ("s3://key:secret@data/images?X-Amz-Signature=1#x", "s3://data/images"),
            ("https://ana:secret@host", "https://host"),
            ("az://box@account/x", "az://box@account/x"),
            ("az://box:secret@account/x", "az://box@account/x"),
            ("list:abfss://box:secret@account/x", "list:abfss://box@account/x"),
        ] {
            assert_eq!(without_secrets(source), told);
        }
    }

    #[test]
    fn a_later_generation_is_greater_though_the_clock_goes_back() {
        let first = Generation::after(None);
        assert!(Generation::after(Some(first)) > first);
        let tomorrow = Generation(Uuid::from_u128(first.0.as_u128() + (86_400_000_u128 << 80)));
        let next = Generation::after(Some(tomorrow));
        assert!(next > tomorrow, "{next} {tomorrow}");
        assert_eq!(next.to_string().parse(), Ok(next));
    }

    #[test]
    fn no_job_of_a_cancelled_run_counts_and_an_older_record_stays_as_it_was() {
        // As an older version wrote it.
        let older = format!(
            r#"{{"schema":1,"run":"{}","source":"file:///images","model":{},"explain":{},"images":2,"#,
            RunId::generate(),
            serde_json::to_string(&ModelIdentity::bundled()).unwrap(),
            serde_json::to_string(&ExplainOptions::default()).unwrap(),
        );
        let times = r#""created_at":"2026-01-02T03:04:05Z","updated_at":"2026-01-02T03:04:05Z""#;
        let older = format!(r#"{older}{times},"camshaft":"0.1.0"}}"#);
        let mut record: RunRecord = serde_json::from_str(&older).unwrap();
        assert_eq!(serde_json::to_string(&record).unwrap(), older);
        assert!(record.counts(None));
        record.cancel(Utc::now());
        assert!(!record.counts(None) && record.cancelled_at.is_some());
        // Twice, and with a generation that a clock ahead of this one has made.
        let ahead = Generation(Uuid::from_u128(
            Generation::after(None).0.as_u128() + (86_400_000_u128 << 80),
        ));
        for generation in [Generation::after(record.jobs_since), ahead] {
            record.generation = Some(generation);
            assert!(record.counts(Some(generation)));
            record.cancel(Utc::now());
            assert!(!record.counts(Some(generation)));
            assert!(record.counts(Some(Generation::after(record.jobs_since))));
        }
    }
}
