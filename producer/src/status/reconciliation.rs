//! Finds the images of a run that are not accounted for: those with neither a result in OUT nor a dead
//! letter.
//!
//! The images are those of the manifest. Without one, SOURCE and OUT are listed again, so `status` asks
//! for it only if the numbers don't add up.

use std::collections::HashSet;
use std::sync::Arc;

use camshaft_common::key::ImageKey;
use camshaft_common::manifest::ManifestError;
use camshaft_common::run::{Generation, RunId, RunRecord};
use camshaft_common::store::{Folder, StoreError, StoreOptions};
use camshaft_common::unusable_results::UnusableResults;
use camshaft_queue::{DeadLetter, QueueError, RabbitMqQueue};
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;

use crate::advice;
use crate::images::existing_results::{ExistingResult, ExistingResults};
use crate::images::source::Source;
use crate::images::source_error::SourceError;
use crate::status::result_counts::{Entries, ResultTimes};

/// The most keys that are named. A person reads the first few; a script repairs with `enqueue`.
const MAX_NAMED: usize = 1000;

/// A run can't be checked.
#[derive(Debug, thiserror::Error)]
pub enum ReconciliationError {
    /// SOURCE can't be listed again.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// OUT can't be listed.
    #[error(transparent)]
    Out(#[from] StoreError),
    /// The dead letters can't be read.
    #[error("{}", advice::describe_queue_error(.0))]
    Queue(#[from] QueueError),
}

/// A dead letter of the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct DeadJob {
    /// Its image; `None` if the message can't be read.
    pub(crate) key: Option<ImageKey>,
    /// Why it is dead.
    pub(crate) reason: String,
}

/// Images that are not accounted for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unaccounted {
    /// Neither a result nor a dead letter.
    pub(crate) count: u64,
    /// The first of them, by name.
    pub(crate) keys: Vec<ImageKey>,
}

impl Unaccounted {
    fn add(&mut self, key: ImageKey) {
        self.count += 1;
        if self.keys.len() < MAX_NAMED {
            self.keys.push(key);
        }
    }
}

/// The dead letters of a run that no later enqueue has superseded, and that were not cancelled, with the
/// keys of their images.
///
/// # Errors
/// If the broker can't be reached.
pub(crate) async fn dead_jobs(
    queue: &RabbitMqQueue,
    record: &RunRecord,
) -> Result<Vec<DeadJob>, QueueError> {
    let letters = queue.dead_letters().await?;
    let counts = |generation| record.counts(generation);
    Ok(letters.iter().filter_map(|letter| dead_job(letter, record.run, counts)).collect())
}

/// `None` if the dead letter is another run's, or of a generation that doesn't count. One that can't be
/// read at all may be any run's.
fn dead_job(
    letter: &DeadLetter,
    run: RunId,
    counts: impl Fn(Option<Generation>) -> bool,
) -> Option<DeadJob> {
    #[derive(serde::Deserialize)]
    struct JobFields {
        run: Option<RunId>,
        generation: Option<Generation>,
        key: Option<ImageKey>,
    }
    let unread = JobFields { run: None, generation: None, key: None };
    let job = serde_json::from_slice(&letter.body).unwrap_or(unread);
    let ours = job.run.is_none_or(|of| of == run && counts(job.generation));
    ours.then(|| DeadJob { key: job.key, reason: letter.reason.clone() })
}

/// Finds the images of a manifest with neither a result that counts nor a dead letter.
///
/// # Errors
/// If the manifest can't be read.
pub(crate) async fn unaccounted_of_manifest(
    times: &ResultTimes,
    mut entries: Entries,
    dead: &[DeadJob],
) -> Result<Unaccounted, ManifestError> {
    let dead = dead_keys(dead);
    let mut found = Unaccounted::default();
    while let Some(entry) = entries.try_next().await? {
        if !times.is_done(&entry) && !dead.contains(&entry.key) {
            found.add(entry.key);
        }
    }
    Ok(found)
}

/// Finds the images of a run without a manifest that have neither a result nor a dead letter.
///
/// # Errors
/// If SOURCE or OUT can't be listed.
pub(crate) async fn unaccounted(
    record: &RunRecord,
    out: &Folder,
    dead: &[DeadJob],
    stores: &StoreOptions,
) -> Result<Unaccounted, ReconciliationError> {
    let unusable = UnusableResults::read(out, Some(record)).await?;
    let results = ExistingResults::list(out, &unusable).await?;
    let counts = |result: ExistingResult| {
        result.is_usable() && !record.results_since.is_some_and(|since| result.is_older_than(since))
    };
    let dead = dead_keys(dead);
    let source = Source::open_recorded(record, out.location(), stores)?;
    let limit = record.limit.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    let mut images = source.images(&Arc::default()).take(limit);
    let mut found = Unaccounted::default();
    while let Some(image) = images.try_next().await? {
        if !results.get(&image.key).is_some_and(counts) && !dead.contains(&image.key) {
            found.add(image.key);
        }
    }
    Ok(found)
}

fn dead_keys(dead: &[DeadJob]) -> HashSet<&ImageKey> {
    dead.iter().filter_map(|job| job.key.as_ref()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_is_its_runs_or_nobodys() {
        let (run, other) = (RunId::generate(), RunId::generate());
        let letter = |body: String| DeadLetter {
            body: body.into(),
            reason: "no".to_owned(),
            attempts: 5,
            trace: None,
        };
        let job = |of: RunId| letter(format!(r#"{{"run":"{of}","key":"cat/a.jpg"}}"#));
        let all = |_| true;
        let key = dead_job(&job(run), run, all).unwrap().key;
        assert_eq!(key.unwrap().as_str(), "cat/a.jpg");
        assert_eq!(dead_job(&job(other), run, all), None);
        assert_eq!(dead_job(&letter("junk".to_owned()), run, |_| false).unwrap().key, None);
        assert_eq!(dead_job(&job(run), run, |_| false), None);
    }
}
