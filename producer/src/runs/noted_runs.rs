//! The runs that notes on a broker tell of, and what is left to do of each by its OUT.

use std::collections::HashMap;

use camshaft_common::location::Location;
use camshaft_common::run::{RunId, RunRecord};
use camshaft_common::store::{Folder, StoreOptions};
use camshaft_queue::RunNote;
use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::runs::enqueued_run::EnqueuedRun;
use crate::status::StatusError;
use crate::status::run_results::RunResults;
use crate::status::run_status::RunStatus;
use crate::terminal::output::{format_count, format_time};

/// A run that was enqueued once or more often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NotedRun {
    /// What its newest note says.
    pub(super) newest: EnqueuedRun,
    /// That note.
    pub(super) newest_note: RunNote,
    /// The others, which say nothing that the newest one does not.
    pub(super) older_notes: Vec<RunNote>,
}

/// A run with images to do, or whose OUT can't be read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct WaitingRun {
    /// The run.
    run: RunId,
    /// Where its results go.
    out: Location,
    /// SOURCE.
    source: String,
    /// When it was last enqueued.
    since: DateTime<Utc>,
    /// How far it is.
    #[serde(flatten)]
    progress: RunProgress,
}

/// How far a run is. `null` is what is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct RunProgress {
    /// Images in SOURCE, once it has been listed to its end.
    images: Option<u64>,
    /// Images with a prediction.
    done: Option<u64>,
    /// Images with a failure.
    failed: Option<u64>,
    /// Images without a result, once `images` is known.
    remaining: Option<u64>,
    /// Why OUT can't be read.
    error: Option<String>,
}

/// Puts the notes of each run together, the run that was enqueued last comes last. Notes that can't be
/// read are left out: they are not ours to remove.
pub(super) fn group(notes: Vec<RunNote>) -> Vec<NotedRun> {
    let mut runs: HashMap<(RunId, Location), NotedRun> = HashMap::new();
    for note in notes {
        let Some(enqueued) = EnqueuedRun::of_note(&note) else { continue };
        // A copy of an OUT has the run's id, too.
        let key = (enqueued.run, enqueued.out.clone());
        let Some(known) = runs.get_mut(&key) else {
            let (newest, newest_note, older_notes) = (enqueued, note, Vec::new());
            runs.insert(key, NotedRun { newest, newest_note, older_notes });
            continue;
        };
        let rank = |run: &EnqueuedRun| (run.generation, run.at);
        if rank(&enqueued) < rank(&known.newest) {
            known.older_notes.push(note);
        } else {
            known.newest = enqueued;
            known.older_notes.push(std::mem::replace(&mut known.newest_note, note));
        }
    }
    let mut runs: Vec<_> = runs.into_values().collect();
    runs.sort_by_key(|run| (run.newest.at, run.newest.run));
    // Of two notes that are alike, neither is older.
    for run in &mut runs {
        run.older_notes.retain(|note| *note != run.newest_note);
    }
    runs
}

impl NotedRun {
    /// Looks into OUT. `None` if nothing is left of the run: all its images are done, it was cancelled, or
    /// another run has taken its OUT.
    pub(super) async fn look(&self, stores: &StoreOptions) -> Option<WaitingRun> {
        let progress = match self.progress(stores).await {
            Ok(progress) => progress?,
            Err(error) => RunProgress { error: Some(error.to_string()), ..RunProgress::default() },
        };
        let EnqueuedRun { run, out, source, at: since, .. } = self.newest.clone();
        Some(WaitingRun { run, out, source, since, progress })
    }

    async fn progress(&self, stores: &StoreOptions) -> Result<Option<RunProgress>, StatusError> {
        let out = Folder::open(&self.newest.out, stores)?;
        let record = RunRecord::read_existing(&out).await?;
        if record.run != self.newest.run || record.cancelled_at.is_some() {
            return Ok(None);
        }
        let results = RunResults::count(&out, &record).await?;
        let status = RunStatus::new(&record, results.counts, None);
        if status.is_complete() {
            return Ok(None);
        }
        let RunStatus { images, done, failed, remaining, .. } = status;
        let (done, failed) = (Some(done), Some(failed));
        Ok(Some(RunProgress { images, done, failed, remaining, error: None }))
    }
}

impl WaitingRun {
    /// The run as a line for a person.
    pub(super) fn to_line(&self) -> String {
        let Self { run, out, since, progress, .. } = self;
        let since = format_time(*since);
        let RunProgress { images, done, failed, remaining, error } = progress;
        if let Some(error) = error {
            return format!("{out}  run {run}: not known, {error}; enqueued {since}");
        }
        let number = |number: &Option<u64>| number.map_or("?".to_owned(), |n| n.to_string());
        let images = images.map_or("? images".to_owned(), |images| format_count(images, "image"));
        let [done, failed, remaining] = [done, failed, remaining].map(number);
        format!(
            "{out}  run {run}: {images}, {done} done, {failed} failed, {remaining} to do; \
             enqueued {since}"
        )
    }
}

#[cfg(test)]
mod tests {
    use camshaft_common::run::Generation;

    use super::*;

    fn enqueued(run: RunId, out: &str, second: i64) -> EnqueuedRun {
        let at = DateTime::from_timestamp(second, 0).unwrap();
        let source = "file:///images".to_owned();
        EnqueuedRun { run, out: out.parse().unwrap(), source, generation: None, at }
    }

    #[test]
    fn the_newest_note_of_a_run_counts_and_those_of_others_are_left() {
        let (one, other) = (RunId::generate(), RunId::generate());
        let first = enqueued(one, "/a", 1);
        // Its clock is behind.
        let generation = Some(Generation::after(None));
        let newest = EnqueuedRun { generation, ..enqueued(one, "/a", 0) };
        let copy = enqueued(one, "/copy", 9);
        let of_other = enqueued(other, "/a", 2);
        let junk = RunNote { body: "junk".into() };
        let runs = [&of_other, &newest, &copy, &first, &first, &copy];
        let mut notes: Vec<_> = runs.iter().map(|run| run.to_note()).collect();
        notes.push(junk);
        let grouped = group(notes);
        let expected = [(newest, 2), (of_other, 0), (copy, 0)];
        assert_eq!(grouped.len(), expected.len(), "{grouped:?}");
        for (run, (newest, older)) in grouped.iter().zip(expected) {
            assert_eq!((&run.newest, &run.newest_note), (&newest, &newest.to_note()));
            assert_eq!(run.older_notes.len(), older, "{run:?}");
        }
    }

    #[test]
    fn a_note_has_no_more_than_a_run_needs_and_is_read_as_written() {
        let run = RunId::generate();
        let enqueued = enqueued(run, "s3://data/audit", 1_700_000_000);
        let note = enqueued.to_note();
        let text = std::str::from_utf8(&note.body).unwrap();
        let out = r#""out":"s3://data/audit","source":"file:///images""#;
        assert_eq!(text, format!(r#"{{"run":"{run}",{out},"at":"2023-11-14T22:13:20Z"}}"#));
        assert_eq!(EnqueuedRun::of_note(&note), Some(enqueued));
    }

    #[test]
    fn a_line_says_what_is_known() {
        let EnqueuedRun { run, out, source, at: since, .. } =
            enqueued(RunId::generate(), "s3://data/audit", 1_700_000_000);
        let progress = RunProgress {
            images: Some(3),
            done: Some(1),
            failed: Some(0),
            remaining: Some(2),
            error: None,
        };
        let mut waiting = WaitingRun { run, out, source, since, progress };
        let enqueued = "enqueued 2023-11-14 22:13:20 UTC";
        let place = format!("s3://data/audit  run {run}:");
        assert_eq!(
            waiting.to_line(),
            format!("{place} 3 images, 1 done, 0 failed, 2 to do; {enqueued}")
        );
        (waiting.progress.images, waiting.progress.remaining) = (None, None);
        assert_eq!(
            waiting.to_line(),
            format!("{place} ? images, 1 done, 0 failed, ? to do; {enqueued}")
        );
        waiting.progress = RunProgress { error: Some("gone".to_owned()), ..RunProgress::default() };
        assert_eq!(waiting.to_line(), format!("{place} not known, gone; {enqueued}"));
    }
}
