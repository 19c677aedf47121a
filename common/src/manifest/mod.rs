//! The manifest of a run: which images it has, what is known of each, and since when a result of it
//! counts.
//!
//! `OUT/manifest/<generation>/part-00000.jsonl.gz`, and so on: a line of JSON for each image, in the
//! order of keys, each key once. `enqueue` and `audit` write one when they have listed SOURCE to its
//! end; `run.json` then names its generation. The object `started` beside the parts tells by its time
//! when the generation began, by the store's own clock. Times of results are by the same clock, so
//! they can be compared.
//!
//! Upstream: the producer. Downstream: `status`, `report`, and the next `enqueue` or `audit`.

mod entry;
mod images;
mod reader;
mod sorter;
mod writer;

use std::io;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use tokio::time::{Instant, sleep};

use crate::layout::MANIFEST;
use crate::run::Generation;
use crate::store::{Folder, JSON, Listed, StoreError, StoreErrorKind};

pub use entry::ManifestEntry;
pub use images::{ManifestImage, ManifestImages};
pub use reader::read;
pub use writer::ManifestWriter;

/// The object whose time tells when a generation began.
const STARTED: &str = "started";
/// How long to wait until the store's clock is past the newest result. Most stores tell whole seconds.
/// A result from a clock that is wrong may be in the future: it is not waited for.
const CLOCK_LIMIT: Duration = Duration::from_millis(2500);
const FIRST_CLOCK_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_CLOCK_PAUSE: Duration = Duration::from_millis(250);

/// Why a manifest can't be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// OUT can't be written or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A part is missing, or is not what was written.
    #[error("{path} is not a part of a manifest: {source}")]
    Damaged {
        /// The part.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There are more or fewer images than `run.json` says.
    #[error("the manifest {path} has {found} images, and run.json says {expected}")]
    Incomplete {
        /// Its folder.
        path: String,
        /// Images in it.
        found: u64,
        /// Images that have to be in it.
        expected: u64,
    },
    /// Entries can't be sorted on disk.
    #[error("cannot use a temporary file: {0}; is TMPDIR full?")]
    Temporary(#[source] io::Error),
    /// A bug.
    #[error("reading {0} ended with a panic")]
    Panicked(String),
}

impl ManifestError {
    /// True if a run can go on without its manifest, as one of an older version does: it may not be
    /// written or read, or it was deleted. False if the same may work later.
    #[must_use]
    pub fn can_do_without(&self) -> bool {
        match self {
            Self::Store(error) => can_do_without(error),
            Self::Damaged { .. }
            | Self::Incomplete { .. }
            | Self::Temporary(_)
            | Self::Panicked(_) => true,
        }
    }
}

/// As [`ManifestError::can_do_without`], of a store's error.
#[must_use]
pub fn can_do_without(error: &StoreError) -> bool {
    match error.kind() {
        StoreErrorKind::NotFound
        | StoreErrorKind::AccessDenied
        | StoreErrorKind::ArchivedOrEncrypted
        | StoreErrorKind::TooLarge
        | StoreErrorKind::Unusable => true,
        StoreErrorKind::NoBucket
        | StoreErrorKind::BadCredentials
        | StoreErrorKind::BadSettings
        | StoreErrorKind::NoSpace
        | StoreErrorKind::Transient => false,
    }
}

/// The number of parts of a manifest of this many images.
#[must_use]
pub fn parts_of(images: u64) -> u64 {
    images.div_ceil(writer::PART_LINES as u64)
}

/// Begins a generation. Returns its time by the store's clock, in whole milliseconds: results from
/// now on have this time or a later one. `newest` is the time of the newest result in OUT, which is
/// earlier, unless it is in the future.
///
/// # Errors
/// If OUT can't be written or listed.
pub async fn start(
    out: &Folder,
    generation: Generation,
    newest: Option<DateTime<Utc>>,
) -> Result<DateTime<Utc>, StoreError> {
    let path = format!("{}/{STARTED}", folder(generation));
    let deadline = Instant::now() + CLOCK_LIMIT;
    let mut pause = FIRST_CLOCK_PAUSE;
    loop {
        out.put(&path, format!("{{\"generation\":\"{generation}\"}}\n"), JSON).await?;
        let started = match started_at(out, generation).await? {
            Some(started) => started,
            None => whole_millis(out.head(&path).await?.last_modified),
        };
        let is_later = newest.is_none_or(|newest| whole_millis(newest) < started);
        if is_later || Instant::now() >= deadline {
            return Ok(started);
        }
        sleep(pause).await;
        pause = LONGEST_CLOCK_PAUSE.min(pause * 2);
    }
}

/// When a generation began, as [`start`] returned it; `None` if OUT does not tell. It is asked for by a
/// listing, since the times of results come from listings, and other answers of a store are less
/// precise.
///
/// # Errors
/// If OUT can't be listed.
pub async fn started_at(
    out: &Folder,
    generation: Generation,
) -> Result<Option<DateTime<Utc>>, StoreError> {
    let mut objects = out.list(&folder(generation));
    while let Some(Listed { path, last_modified, .. }) = objects.try_next().await? {
        if path == STARTED {
            return Ok(Some(whole_millis(last_modified)));
        }
    }
    Ok(None)
}

/// Deletes the manifests of all generations but `kept`.
///
/// # Errors
/// If OUT can't be listed, or a part can't be deleted.
pub async fn remove_others(out: &Folder, kept: &[Generation]) -> Result<(), StoreError> {
    let mut old = Vec::new();
    let mut objects = out.list(MANIFEST);
    while let Some(Listed { path, .. }) = objects.try_next().await? {
        let generation = path.split('/').next().and_then(generation_of);
        if let Some(generation) = generation.filter(|generation| !kept.contains(generation)) {
            old.push((generation, path));
        }
    }
    for (_, path) in &old {
        out.delete(&format!("{MANIFEST}/{path}")).await?;
    }
    old.dedup_by_key(|(generation, _)| *generation);
    if let Some(root) = out.location().local_path() {
        for (generation, _) in old {
            // What it may still hold is not ours.
            std::fs::remove_dir(root.join(folder(generation))).unwrap_or_default();
        }
    }
    Ok(())
}

/// The generation that a folder is named after.
fn generation_of(name: &str) -> Option<Generation> {
    name.parse().ok().filter(|generation: &Generation| generation.to_string() == name)
}

/// The folder of a manifest.
fn folder(generation: Generation) -> String {
    format!("{MANIFEST}/{generation}")
}

fn part_name(number: usize) -> String {
    format!("part-{number:05}.jsonl.gz")
}

/// Manifests have whole milliseconds. Cut off, so that a result is never later than a generation that
/// began after it.
fn whole_millis(time: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(time.timestamp_millis()).unwrap_or(time)
}

#[cfg(test)]
mod tests;
