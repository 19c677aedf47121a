//! The generation of an enqueue's or audit's jobs: begins it, reads what earlier ones of the run left
//! in OUT, and writes its manifest.
//!
//! A user who may not write manifests goes on without them, as older versions do: then results count
//! by their number.

use camshaft_common::job::Job;
use camshaft_common::location::Location;
use camshaft_common::manifest::{
    self, ManifestEntry, ManifestError, ManifestImages, ManifestWriter,
};
use camshaft_common::run::{Generation, ReadRunError, RunId, RunRecord};
use camshaft_common::store::{Folder, StoreError};
use chrono::{DateTime, Utc};
use tracing::warn;

use crate::images::selection::Selection;

/// A generation that has begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    pub(crate) id: Generation,
    /// When it began, by the store's clock.
    pub(crate) since: DateTime<Utc>,
    /// True if jobs of earlier generations no longer count when it ends.
    supersedes: bool,
}

/// What earlier enqueues and audits left in OUT.
#[derive(Debug)]
pub(crate) struct EarlierGenerations {
    /// `run.json`, if it is of the same run.
    record: Option<RunRecord>,
    /// The last generation of jobs, of this run or another.
    last: Option<Generation>,
}

impl EarlierGenerations {
    /// Reads `run.json`.
    ///
    /// # Errors
    /// If it can't be read.
    pub(crate) async fn read(out: &Folder, run: RunId) -> Result<Self, ReadRunError> {
        let record = RunRecord::read(out).await?;
        let last = record.as_ref().and_then(|record| record.generation.max(record.jobs_since));
        Ok(Self { record: record.filter(|record| record.run == run), last })
    }

    /// True if the last enqueue or audit of the run has not listed SOURCE to its end, and has published
    /// this job, and was not cancelled: then its jobs count, and the rest can be published behind them.
    #[must_use]
    pub(crate) fn can_go_on_after(&self, job: &Job) -> bool {
        let unfinished = self.record.as_ref().filter(|record| record.images.is_none());
        unfinished.is_some_and(|record| {
            record.generation == job.generation && record.counts(job.generation)
        })
    }

    /// When the run was cancelled, if it is.
    #[must_use]
    pub(crate) fn cancelled_at(&self) -> Option<DateTime<Utc>> {
        self.record.as_ref().and_then(|record| record.cancelled_at)
    }

    /// Begins a generation, or goes on with the unfinished one if `resumes`, and notes in `record` what
    /// counts from now on. `newest` is the time of the newest result.
    ///
    /// # Errors
    /// If OUT can't be written. [`Refused`] tells that it may not: then there is no generation.
    pub(crate) async fn begin(
        &self,
        out: &Folder,
        record: &mut RunRecord,
        (selection, resumes): (Selection, bool),
        newest: Option<DateTime<Utc>>,
    ) -> Result<Result<Begun, Refused>, StoreError> {
        let earlier = self.record.as_ref();
        let resumed = earlier.filter(|_| resumes).and_then(|earlier| earlier.generation);
        let (id, since) = match resumed {
            Some(id) => (id, resume(out, id).await),
            None => {
                let id = Generation::after(self.last);
                (id, manifest::start(out, id, newest).await)
            }
        };
        // Then every image without a result has a job of this generation, unless an older version has
        // published the first of them.
        let supersedes =
            matches!(selection, Selection::New | Selection::All) && (!resumes || resumed.is_some());
        match since.map(|since| Begun { id, since, supersedes }) {
            Ok(begun) => {
                self.note_begin(record, (begun.id, begun.since), (selection, resumes));
                Ok(Ok(begun))
            }
            Err(error) if manifest::can_do_without(&error) => {
                // No job has a generation then, so none may be needed.
                (record.generation, record.jobs_since) = (None, None);
                (record.manifest, record.results_since) = (None, None);
                Ok(Err(Refused(error)))
            }
            Err(error) => Err(error),
        }
    }

    /// Notes in `record` what would count if a generation began now. Writes nothing.
    pub(crate) fn foresee(&self, record: &mut RunRecord, selection: Selection) {
        let next = (Generation::after(self.last), Utc::now());
        self.note_begin(record, next, (selection, false));
    }

    /// Notes in `record` what counts once a generation has begun.
    fn note_begin(
        &self,
        record: &mut RunRecord,
        (id, since): (Generation, DateTime<Utc>),
        (selection, resumes): (Selection, bool),
    ) {
        let earlier = self.record.as_ref();
        record.generation = Some(id);
        // The jobs of another run must not be done with the options of this one.
        record.jobs_since = earlier.map_or(Some(id), |earlier| earlier.jobs_since);
        record.manifest = earlier.and_then(|earlier| earlier.manifest);
        record.results_since = match selection {
            Selection::All if !resumes => Some(since),
            _ => earlier.and_then(|earlier| earlier.results_since),
        };
    }

    /// When the unfinished enqueue or audit of the run began, if there is one.
    ///
    /// # Errors
    /// If OUT can't be listed.
    pub(crate) async fn unfinished_since(
        &self,
        out: &Folder,
    ) -> Result<Option<DateTime<Utc>>, StoreError> {
        let unfinished = self.record.as_ref().filter(|record| record.images.is_none());
        match unfinished.and_then(|record| record.generation) {
            Some(generation) => manifest::started_at(out, generation).await,
            None => Ok(None),
        }
    }

    /// Reads the run's last manifest, if it has one.
    ///
    /// # Errors
    /// If it can't be read at the moment. One that is damaged is as none.
    pub(crate) async fn read_manifest(
        &self,
        out: &Folder,
        source: &Location,
    ) -> Result<Option<ManifestImages>, ManifestError> {
        let Some(record) = &self.record else { return Ok(None) };
        let Some(generation) = record.manifest else { return Ok(None) };
        match ManifestImages::read_generation(out, generation, record.images, Some(source)).await {
            Ok(previous) => Ok(Some(previous)),
            Err(error) if error.can_do_without() => {
                warn!(
                    %error,
                    "what images were like before is not known: only those that were written after \
                     their result count as changed"
                );
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Goes on with a generation that another process began. Returns when that was.
async fn resume(out: &Folder, id: Generation) -> Result<DateTime<Utc>, StoreError> {
    match manifest::started_at(out, id).await? {
        Some(since) => Ok(since),
        // Somebody has deleted it. Results of before count no more.
        None => manifest::start(out, id, None).await,
    }
}

/// This user may not write manifests.
#[derive(Debug)]
pub(crate) struct Refused(StoreError);

impl Refused {
    /// Warns of it.
    pub(crate) fn warn(&self) {
        warn!(
            error = %self.0,
            "the run gets no manifest: status counts result files, and images that were changed, \
             removed or are to be redone may count as done"
        );
    }
}

/// The manifest of the run, as long as it can be written.
#[derive(Debug)]
pub(crate) struct RunManifest(Option<ManifestWriter>);

impl RunManifest {
    /// The manifest of a generation, or none.
    pub(crate) fn new(out: &Folder, begun: Option<Begun>) -> Self {
        Self(begun.map(|begun| ManifestWriter::new(out.clone(), begun.id)))
    }

    /// Adds an image.
    ///
    /// # Errors
    /// If OUT can't be written at the moment.
    pub(crate) async fn push(&mut self, entry: ManifestEntry) -> Result<(), ManifestError> {
        let Some(writer) = &mut self.0 else { return Ok(()) };
        match writer.push(entry).await {
            Ok(()) => Ok(()),
            Err(error) => {
                self.0 = None;
                give_up(error)
            }
        }
    }

    /// Writes the rest. Returns the number of images; `None` if there is no manifest.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub(crate) async fn finish(self) -> Result<Option<u64>, ManifestError> {
        let Some(writer) = self.0 else { return Ok(None) };
        match writer.finish().await {
            Ok(images) => Ok(Some(images)),
            Err(error) => give_up(error).map(|()| None),
        }
    }
}

fn give_up(error: ManifestError) -> Result<(), ManifestError> {
    if !error.can_do_without() {
        return Err(error);
    }
    warn!(%error, "the run gets no manifest: status counts result files");
    Ok(())
}

/// Notes in `record` that SOURCE has been listed to its end: it has `found` images, and `listed` are in
/// the manifest of the generation, if there is one.
pub(crate) fn note_end(
    record: &mut RunRecord,
    begun: Option<Begun>,
    found: u64,
    listed: Option<u64>,
) {
    record.images = Some(listed.unwrap_or(found));
    record.manifest = listed.and(begun).map(|begun| begun.id);
    if let Some(begun) = begun.filter(|begun| begun.supersedes) {
        record.jobs_since = Some(begun.id);
    }
    if record.manifest.is_some() {
        // The manifest says it of each image.
        record.results_since = None;
    }
}

/// Deletes older manifests, but not the one that was `replaced` now: somebody may be reading it.
pub(crate) async fn remove_older(out: &Folder, record: &RunRecord, replaced: Option<Generation>) {
    let kept: Vec<_> =
        [record.generation, record.manifest, replaced].into_iter().flatten().collect();
    if let Err(error) = manifest::remove_others(out, &kept).await {
        warn!(%error, "older manifests of the run stay");
    }
}

#[cfg(test)]
mod tests {
    use camshaft_common::explain::ExplainOptions;
    use camshaft_common::model::ModelIdentity;
    use camshaft_common::run::SCHEMA;
    use camshaft_common::store::StoreOptions;

    use super::*;
    use crate::enqueue::run_record;

    fn record() -> RunRecord {
        RunRecord {
            schema: SCHEMA,
            run: RunId::generate(),
            source: "file:///images".to_owned(),
            base: None,
            key_column: None,
            label_column: None,
            label_map: Default::default(),
            limit: None,
            queue: None,
            image_files: None,
            model: ModelIdentity::bundled(),
            trained_layers: None,
            explain: ExplainOptions::default(),
            int8: None,
            images: None,
            skipped: None,
            generation: None,
            jobs_since: None,
            cancelled_at: None,
            manifest: None,
            results_since: None,
            created_at: Utc::now(),
            updated_at: Utc::now(),
            camshaft: String::new(),
        }
    }

    fn folder(directory: &tempfile::TempDir) -> Folder {
        let location = directory.path().to_str().unwrap().parse().unwrap();
        Folder::open(&location, &StoreOptions::default()).unwrap()
    }

    /// Begins as a command does. Returns the generation.
    async fn begin(
        out: &Folder,
        record: &mut RunRecord,
        selection: Selection,
        resumes: bool,
    ) -> Begun {
        let earlier = EarlierGenerations::read(out, record.run).await.unwrap();
        let begun = earlier.begin(out, record, (selection, resumes), None).await.unwrap();
        run_record::write(out, record).await.unwrap();
        begun.unwrap()
    }

    #[tokio::test]
    async fn a_resumed_enqueue_keeps_its_generation_and_any_other_begins_a_later_one() {
        let directory = tempfile::tempdir().unwrap();
        let (out, mut record) = (folder(&directory), record());
        let first = begin(&out, &mut record, Selection::All, false).await;
        assert_eq!((record.generation, record.manifest), (Some(first.id), None));
        assert_eq!(record.results_since, Some(first.since));
        let again = begin(&out, &mut record, Selection::All, true).await;
        assert_eq!((again.id, again.since), (first.id, first.since));
        // What was to be redone stays so until a manifest tells it.
        let other = begin(&out, &mut record, Selection::New, false).await;
        assert!(other.id > first.id);
        assert_eq!(record.results_since, Some(first.since));
        note_end(&mut record, Some(other), 3, Some(3));
        assert_eq!((record.manifest, record.results_since), (Some(other.id), None));
        run_record::write(&out, &record).await.unwrap();
        let last = begin(&out, &mut record, Selection::Failed, false).await;
        assert_eq!((record.generation, record.manifest), (Some(last.id), Some(other.id)));
        // Another run in the same OUT.
        let mut another = RunRecord { run: RunId::generate(), ..record.clone() };
        let begun = begin(&out, &mut another, Selection::New, false).await;
        assert!(begun.id > last.id);
        assert_eq!(another.manifest, None);
    }

    #[tokio::test]
    async fn what_would_count_is_foreseen_without_a_write() {
        let directory = tempfile::tempdir().unwrap();
        let (out, mut record) = (folder(&directory), record());
        let first = begin(&out, &mut record, Selection::New, false).await;
        note_end(&mut record, Some(first), 3, Some(3));
        run_record::write(&out, &record).await.unwrap();
        let earlier = EarlierGenerations::read(&out, record.run).await.unwrap();
        let mut foreseen = record.clone();
        earlier.foresee(&mut foreseen, Selection::All);
        assert!(foreseen.generation > Some(first.id) && foreseen.results_since.is_some());
        assert_eq!((foreseen.jobs_since, foreseen.manifest), (Some(first.id), Some(first.id)));
        let manifests = std::fs::read_dir(directory.path().join("manifest")).unwrap();
        assert_eq!(manifests.count(), 1);
    }

    #[tokio::test]
    async fn earlier_jobs_count_until_every_image_has_a_later_one() {
        let directory = tempfile::tempdir().unwrap();
        let (out, mut record) = (folder(&directory), record());
        // Another run's jobs would have other options.
        let first = begin(&out, &mut record, Selection::New, false).await;
        assert_eq!(record.jobs_since, Some(first.id));
        let mut last = first.id;
        for (selection, supersedes) in [
            (Selection::New, true),
            (Selection::Failed, false),
            (Selection::Missing, false),
            (Selection::All, true),
        ] {
            let begun = begin(&out, &mut record, selection, false).await;
            assert_eq!(record.jobs_since, Some(last), "{selection:?} may be killed");
            note_end(&mut record, Some(begun), 3, Some(3));
            last = if supersedes { begun.id } else { last };
            assert_eq!(record.jobs_since, Some(last), "{selection:?}");
            run_record::write(&out, &record).await.unwrap();
        }
        // The first jobs of an enqueue that an older version began have no generation.
        (record.generation, record.jobs_since, record.images) = (None, None, None);
        run_record::write(&out, &record).await.unwrap();
        let begun = begin(&out, &mut record, Selection::New, true).await;
        note_end(&mut record, Some(begun), 3, Some(3));
        assert_eq!(record.jobs_since, None);
    }

    #[tokio::test]
    async fn without_a_manifest_images_are_counted_as_found() {
        let directory = tempfile::tempdir().unwrap();
        let (out, mut record) = (folder(&directory), record());
        let begun = begin(&out, &mut record, Selection::All, false).await;
        note_end(&mut record, Some(begun), 3, None);
        assert_eq!((record.images, record.manifest), (Some(3), None));
        assert_eq!(record.results_since, Some(begun.since), "no manifest tells it");
    }
}
