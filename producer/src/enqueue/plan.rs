//! Publishes a job for each image of a run that needs one.
//!
//! `audit` and `enqueue` share it and differ only in the queue that takes the jobs. Opens OUT and
//! writes `run.json` and the manifest, but nothing before SOURCE has given its first image; does not
//! open SOURCE or the queue. [`dry_run`] tells what it would do.

pub(crate) mod dry_run;
mod error;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use camshaft_common::job::{JOB_VERSION, Job};
use camshaft_common::key::ImageKey;
use camshaft_common::layout::Layout;
use camshaft_common::manifest::ManifestEntry;
use camshaft_common::model::ModelIdentity;
use camshaft_common::run::{RunId, RunRecord};
use camshaft_common::store::{Folder, StoreOptions};
use camshaft_common::unusable_results::UnusableResults;
use camshaft_queue::{Bookmark, Message, QueueError, RabbitMqQueue};
use camshaft_telemetry::TraceContext;
use chrono::{DateTime, Utc};
use futures::stream::{self, BoxStream, StreamExt};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::enqueue::counters::EnqueueCounters;
use crate::enqueue::generation::{self, Begun, EarlierGenerations, RunManifest};
use crate::enqueue::generation_watch::{GenerationWatch, JobsSuperseded};
use crate::enqueue::outlet::Outlet;
use crate::enqueue::prune::{FoundKeys, PruneLimit, Pruning};
use crate::enqueue::request::{DeadImage, EnqueueRequest};
use crate::enqueue::resumption::{InterruptedEnqueue, NoteTemplate};
use crate::enqueue::run_record;
use crate::enqueue::traces;
use crate::images::existing_results::ExistingResults;
use crate::images::found_image::FoundImage;
use crate::images::selection::{CountingResults, Decision, ImageSelector, JobMarks, Selection};
use crate::images::skipped_log::SkippedLog;
use crate::images::source::Source;
use crate::images::source_error::SourceError;
use crate::label_map::{JobLabel, LabelMap};
use crate::runs::enqueued_run::EnqueuedRun;

pub(crate) use error::EnqueuePlanError;

/// SOURCE's images, as they are found.
pub(crate) type FoundImages = BoxStream<'static, Result<FoundImage, SourceError>>;

/// What the jobs of a run have in common, and which images get one.
#[derive(Debug)]
pub(crate) struct EnqueuePlan {
    source: Source,
    out: Folder,
    selection: Selection,
    model: ModelIdentity,
    label_map: LabelMap,
    record: RunRecord,
    images: ImageSelector,
    dead: Vec<DeadImage>,
    counters: Arc<EnqueueCounters>,
    notes: NoteTemplate,
    /// What an earlier process left on the broker.
    bookmark: Option<Bookmark>,
    /// The enqueue of this run that an earlier process did not finish.
    interrupted: Option<InterruptedEnqueue>,
    /// When the run was cancelled, if it was when this command started, which goes on with it.
    cancelled_before: Option<DateTime<Utc>>,
    /// The generation of the jobs, once it has begun.
    begun: Option<Begun>,
    /// The image before this one, if images have to come in the order of their keys.
    last: Option<ImageKey>,
    /// `--prune`.
    prune: Option<PruneLimit>,
    /// The images so far, if results of others are to be removed.
    found: FoundKeys,
    /// Whether to print the results that go.
    prints_gone: bool,
}

impl EnqueuePlan {
    /// Opens OUT, lists its results, and makes sure that this run belongs there. Writes nothing.
    ///
    /// # Errors
    /// If OUT can't be read, or holds the results of another run.
    pub(crate) async fn new(
        request: EnqueueRequest,
        stores: &StoreOptions,
    ) -> Result<Self, EnqueuePlanError> {
        let out = Folder::open(&request.run.out, stores)?;
        let existing = RunRecord::read(&out).await?;
        let unusable = UnusableResults::read(&out, existing.as_ref()).await?;
        let results = ExistingResults::list(&out, &unusable).await?;
        // A record of other images or options counts only if there are results. Otherwise the user
        // may have mistyped something and starts over.
        let counts = |existing: &RunRecord| {
            !results.is_empty() || run_record::is_same_run(&request, existing)
        };
        let existing = existing.filter(counts);
        let goes_on = existing.as_ref().map(|existing| existing.run);
        let cancelled_before = existing.as_ref().and_then(|existing| existing.cancelled_at);
        let record = run_record::resume_or_start(&request, existing)?;
        let goes_on = goes_on == Some(record.run);
        let EnqueueRequest { run, source, selection, dead, model, label_map, .. } = request;
        let results = Arc::new(results);
        let images = ImageSelector { results, goes_on, ..ImageSelector::default() };
        let notes = NoteTemplate::new(selection, source.labels(), source.image_files().cloned());
        let left_out = Arc::new(SkippedLog::new(run.list_skipped));
        let counters = Arc::new(EnqueueCounters { left_out, ..EnqueueCounters::default() });
        Ok(Self {
            source,
            out,
            selection,
            model,
            label_map,
            record,
            images,
            dead,
            counters,
            notes,
            bookmark: None,
            interrupted: None,
            cancelled_before,
            begun: None,
            last: None,
            prune: run.prune,
            found: FoundKeys::default(),
            prints_gone: run.list_skipped,
        })
    }

    /// Waits for the first image of SOURCE. Returns all of them.
    ///
    /// # Errors
    /// If SOURCE can't be listed or has no images. A list in a file is refused whatever line of it is
    /// wrong. Of a pipe only the first lines are read: jobs that are published before a later line
    /// need their `run.json`.
    pub(crate) async fn find_images(&self) -> Result<FoundImages, EnqueuePlanError> {
        let mut images = self.source.images(&self.counters.left_out);
        let Some(first) = images.next().await.transpose()? else {
            let (source_name, skipped) =
                (self.record.source.clone(), self.counters.left_out.counts());
            return Err(EnqueuePlanError::NoImages { source_name, skipped });
        };
        Ok(stream::iter([Ok(first)]).chain(images).boxed())
    }

    /// Opens the broker's side of the run, where an earlier process may have left a bookmark. Waits
    /// until no other process enqueues the run.
    ///
    /// # Errors
    /// If the broker stays out of reach, or if another process enqueues this run.
    pub(crate) async fn open_outlet(
        &mut self,
        broker: &RabbitMqQueue,
    ) -> Result<Outlet, QueueError> {
        let sequence = broker.sequence(&self.run().to_string()).await?;
        self.bookmark = sequence.bookmark().cloned();
        Ok(Outlet::broker(sequence))
    }

    /// Goes on with the generation of an enqueue that was killed, or begins one, and writes `run.json`.
    /// To be called after [`Self::find_images`], so that a SOURCE that is refused leaves OUT as it was.
    ///
    /// # Errors
    /// If OUT can't be read or written, or if the run was cancelled meanwhile.
    pub(crate) async fn begin(&mut self) -> Result<(), EnqueuePlanError> {
        // Again: another process may have enqueued the run while this one waited for its end.
        let earlier = EarlierGenerations::read(&self.out, self.record.run).await?;
        // Not before this command, but while it waited.
        if earlier.cancelled_at().is_some_and(|at| Some(at) != self.cancelled_before) {
            return Err(EnqueuePlanError::Superseded(JobsSuperseded::Cancelled));
        }
        if let Some(bookmark) = self.bookmark.take()
            && let Ok(job) = Job::parse(&bookmark.body)
            && earlier.can_go_on_after(&job)
        {
            let (source, notes) = (&self.source, &mut self.notes);
            self.interrupted = InterruptedEnqueue::read(&bookmark, job.key, source, notes).await;
        }
        let how = (self.selection, self.interrupted.is_some());
        let newest = self.images.results.newest();
        let begun = earlier.begin(&self.out, &mut self.record, how, newest).await?;
        if let Ok(begun) = &begun {
            // It may have taken seconds. What others wrote meanwhile must not be written over.
            check(&GenerationWatch::new(&self.out, Some(begun.id))).await?;
        }
        run_record::write(&self.out, &self.record).await?;
        // Not before: if nothing at all may be written there, that is said alone.
        self.begun = match begun {
            Ok(begun) => Some(begun),
            Err(refused) => {
                refused.warn();
                None
            }
        };
        // The enqueue that this one goes on with is not another one, whose jobs may be in work.
        self.images.goes_on &= self.interrupted.is_none();
        self.look_back(&earlier).await
    }

    /// Reads what earlier enqueues and audits of the run left in OUT. Decisions need it.
    async fn look_back(&mut self, earlier: &EarlierGenerations) -> Result<(), EnqueuePlanError> {
        let counting = self.dead.iter().filter(|dead| self.record.counts(dead.generation));
        self.images.dead = counting.map(|dead| dead.key.clone()).collect();
        let source = self.source.location();
        self.images.previous = earlier.read_manifest(&self.out, source).await?;
        self.images.interrupted_since = earlier.unfinished_since(&self.out).await?;
        self.images.results_since = self.record.results_since;
        Ok(())
    }

    /// The run's id.
    #[must_use]
    pub(crate) fn run(&self) -> RunId {
        self.record.run
    }

    /// Counters that change while jobs are published.
    #[must_use]
    pub(crate) fn counters(&self) -> Arc<EnqueueCounters> {
        Arc::clone(&self.counters)
    }

    /// Tells whether the jobs still count, once they have [begun](Self::begin).
    #[must_use]
    pub(crate) fn watch(&self) -> GenerationWatch {
        GenerationWatch::new(&self.out, self.begun.map(|begun| begun.id))
    }

    /// What others may know of the run, once it has [begun](Self::begin).
    #[must_use]
    pub(crate) fn enqueued_run(&self) -> EnqueuedRun {
        EnqueuedRun {
            run: self.record.run,
            out: self.out.location().clone(),
            source: self.record.source.clone(),
            generation: self.begun.map(|begun| begun.id),
            at: Utc::now(),
        }
    }

    /// Publishes a job for each of these images that needs one. Then writes the manifest, and the number
    /// of images into `run.json`. Returns what `--prune` has to do, if it was given. If `stop` is
    /// cancelled, stops early, writes no number and prunes nothing.
    ///
    /// # Errors
    /// If images can't be listed or jobs can't be published. The jobs published so far stay in the
    /// queue; the same command does the rest. If the run is cancelled, this ends within seconds. If
    /// another enqueue or audit has begun meanwhile, its `run.json` stays.
    pub(crate) async fn publish(
        self,
        images: FoundImages,
        outlet: Outlet,
        stop: CancellationToken,
    ) -> Result<Option<Pruning>, EnqueuePlanError> {
        let span = traces::enqueue_span(self.run());
        let (counters, watch) = (self.counters(), self.watch());
        let published = tokio::select! {
            published = self.publish_images(&span, images, outlet, stop, &watch) => published,
            // As if the process were killed here: whatever it waits for, it need not wait.
            superseded = watch.superseded() => Err(EnqueuePlanError::Superseded(superseded)),
        };
        span.record("camshaft.found", counters.found.load(Relaxed));
        span.record("camshaft.published", counters.published.load(Relaxed));
        if let Err(error) = &published {
            traces::fail(&span, error);
        }
        published
    }

    async fn publish_images(
        mut self,
        span: &Span,
        images: FoundImages,
        mut outlet: Outlet,
        stop: CancellationToken,
        watch: &GenerationWatch,
    ) -> Result<Option<Pruning>, EnqueuePlanError> {
        let counters = Arc::clone(&self.counters);
        let mut images = self.images_to_decide(images);
        let mut manifest = RunManifest::new(&self.out, self.begun);
        let mut must_be_in_order = !self.source.is_list();
        let interrupted = self.interrupted.as_ref();
        let max_unconfirmed = interrupted.map_or(0, InterruptedEnqueue::unconfirmed);
        let mut unconfirmed = VecDeque::new();
        while let Some(image) = images.next().await {
            if stop.is_cancelled() {
                return Ok(None);
            }
            let image = image?;
            if must_be_in_order && self.is_out_of_order(&image) {
                outlet.forget().await?;
                if self.interrupted.is_some() {
                    return Err(EnqueuePlanError::OutOfOrder { key: image.key });
                }
                must_be_in_order = false;
            }
            let (position, decision) = self.decide(&image);
            if let Some(begun) = self.begun {
                manifest.push(manifest_entry(&image, decision.counting, begun)).await?;
            }
            let Some(marks) = decision.job else { continue };
            let planned = self.plan_image(image, position, marks);
            match planned.earlier {
                EarlierEnqueue::Passed => {
                    unconfirmed.push_back(planned);
                    if unconfirmed.len() > max_unconfirmed {
                        unconfirmed.pop_front();
                        counters.enqueued_before.fetch_add(1, Relaxed);
                    }
                }
                EarlierEnqueue::PassedBeforeChange => {
                    self.put(&mut outlet, planned, false, span).await?;
                }
                EarlierEnqueue::NotReached => {
                    for again in unconfirmed.drain(..) {
                        self.put(&mut outlet, again, true, span).await?;
                    }
                    self.put(&mut outlet, planned, false, span).await?;
                }
            }
        }
        for again in unconfirmed {
            self.put(&mut outlet, again, true, span).await?;
        }
        outlet.flush(&counters.published).await?;
        counters.listed.store(true, Relaxed);
        let found = counters.found.load(Relaxed);
        let replaced = self.record.manifest;
        let listed = manifest.finish().await?;
        generation::note_end(&mut self.record, self.begun, found, listed);
        self.record.skipped =
            self.source.image_files().is_some().then(|| counters.left_out.counts());
        self.record.updated_at = Utc::now();
        if let Err(error) = check(watch).await {
            outlet.end().await?;
            return Err(error);
        }
        run_record::write(&self.out, &self.record).await?;
        outlet.end().await?;
        generation::remove_older(&self.out, &self.record, replaced).await;
        Ok(self.pruning(listed.is_some()))
    }

    /// The images that are decided about: up to `--limit`, and with what is known of a list's objects.
    fn images_to_decide(&self, images: FoundImages) -> FoundImages {
        let limit = self.record.limit.and_then(|limit| usize::try_from(limit).ok());
        let images = images.take(limit.unwrap_or(usize::MAX)).boxed();
        self.source.look_at_those_done(images, &self.images.results)
    }

    /// Counts an image and decides about it. Returns its position in SOURCE as well, from 1.
    fn decide(&mut self, image: &FoundImage) -> (u64, Decision) {
        let position = self.counters.found.fetch_add(1, Relaxed) + 1;
        if self.prune.is_some() {
            let has_result = self.images.results.get(&image.key).is_some();
            self.found.insert(&image.key, has_result);
        }
        let decision = self.images.decide(image, self.selection);
        if decision.job.is_none() {
            self.counters.skipped.fetch_add(1, Relaxed);
            if self.images.has_failed(&image.key) {
                self.counters.skipped_failed.fetch_add(1, Relaxed);
            }
        }
        (position, decision)
    }

    /// What `--prune` has to do, if it was given, once SOURCE has been listed to its end.
    fn pruning(&mut self, has_manifest: bool) -> Option<Pruning> {
        Some(Pruning {
            limit: self.prune?,
            out: self.out.clone(),
            source: self.source.location().clone(),
            owners: Layout::of(self.out.location()).owners(&self.record.explain),
            found: std::mem::take(&mut self.found),
            images_with_results: self.images.results.images(),
            left_out: self.counters.left_out.counts(),
            has_manifest,
            before: self.begun.map(|begun| begun.since),
            prints_each: self.prints_gone,
            watch: self.watch(),
        })
    }

    fn is_out_of_order(&mut self, image: &FoundImage) -> bool {
        let last = self.last.replace(image.key.clone());
        last.is_some_and(|last| last > image.key)
    }

    /// Publishes an image's job. `again` if the queue may have this job already.
    async fn put(
        &self,
        outlet: &mut Outlet,
        planned: PlannedJob,
        again: bool,
        span: &Span,
    ) -> Result<(), QueueError> {
        let PlannedJob { image, position, marks, earlier } = planned;
        let marks = JobMarks { again: marks.again || again, ..marks };
        let sending = traces::send_span(span, outlet.name(), self.run(), &image.key);
        let message = self.message(image, marks, TraceContext::of(&sending));
        // The bookmark is further on than a changed image that is done again: it stays there.
        let moves_bookmark = !matches!(earlier, EarlierEnqueue::PassedBeforeChange);
        let note = moves_bookmark.then(|| self.notes.note(position));
        outlet.put(message, note, sending, &self.counters.published).await
    }

    /// The job of the image at `position` in SOURCE.
    fn plan_image(&self, image: FoundImage, position: u64, marks: JobMarks) -> PlannedJob {
        let earlier = match &self.interrupted {
            Some(interrupted) if !interrupted.covers(&image, position) => {
                EarlierEnqueue::NotReached
            }
            Some(interrupted) if interrupted.is_changed(&image) => {
                EarlierEnqueue::PassedBeforeChange
            }
            Some(_) => EarlierEnqueue::Passed,
            None => EarlierEnqueue::NotReached,
        };
        PlannedJob { image, position, marks, earlier }
    }

    fn message(
        &self,
        image: FoundImage,
        JobMarks { replaces, changed, again }: JobMarks,
        trace: TraceContext,
    ) -> Message {
        let JobLabel { label, given: given_label } = self.label_map.apply(image.label);
        let job = Job {
            v: JOB_VERSION,
            run: self.record.run,
            generation: self.begun.map(|begun| begun.id),
            key: image.key,
            etag: image.etag,
            size: image.size_bytes,
            label,
            given_label,
            source: self.source.location().clone(),
            out: self.out.location().clone(),
            model: self.model.clone(),
            explain: self.record.explain.clone(),
            replaces,
            changed,
            again,
        };
        Message { body: job.to_json().into(), trace: Some(trace) }
    }
}

/// # Errors
/// If `run.json` is another command's by now.
async fn check(watch: &GenerationWatch) -> Result<(), EnqueuePlanError> {
    match watch.look_before_write().await? {
        Some(superseded) => Err(EnqueuePlanError::Superseded(superseded)),
        None => Ok(()),
    }
}

/// What the manifest says of an image.
fn manifest_entry(image: &FoundImage, counting: CountingResults, begun: Begun) -> ManifestEntry {
    let FoundImage { key, etag, size_bytes: size, is_absent: absent, label, .. } = image.clone();
    let since = match counting {
        CountingResults::Kept => None,
        CountingResults::FromNowOn => Some(begun.since),
        CountingResults::Since(since) => Some(since),
    };
    ManifestEntry { key, etag, size, absent, label, since }
}

/// An image that gets a job.
struct PlannedJob {
    image: FoundImage,
    /// Its position in SOURCE, counted from 1.
    position: u64,
    marks: JobMarks,
    earlier: EarlierEnqueue,
}

/// What an earlier process, which was killed, did about an image.
enum EarlierEnqueue {
    /// It published the image's job. The last jobs that it published may not have arrived.
    Passed,
    /// It published the image's job, but the image was written again since.
    PassedBeforeChange,
    /// It did not come to the image, or there was no earlier process.
    NotReached,
}
