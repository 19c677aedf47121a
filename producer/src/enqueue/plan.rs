//! A run about to start: SOURCE and OUT opened, `run.json` agreed on, jobs on their way.
//!
//! Shared by `audit` and `enqueue`, which differ only in the queue the jobs go to.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use camshaft_common::explain::ExplainOptions;
use camshaft_common::job::{JOB_VERSION, Job};
use camshaft_common::key::ImageKey;
use camshaft_common::layout::RUN_FILE;
use camshaft_common::location::Location;
use camshaft_common::model::ModelIdentity;
use camshaft_common::run::{ReadRunError, RunId, RunRecord, SCHEMA};
use camshaft_common::store::{Folder, JSON, StoreError, StoreOptions};
use camshaft_queue::{Message, QueueError, RabbitMqQueue};
use camshaft_telemetry::TraceContext;
use chrono::Utc;
use futures::stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::enqueue::outlet::Outlet;
use crate::enqueue::resumption::{Before, Terms};
use crate::enqueue::traces;
use crate::images::selection::{Decision, Only, Results};
use crate::images::source::{FoundImage, Source, SourceError};

/// Why a run can't start or go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    /// Images can't be found.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// OUT can't be read or written.
    #[error(transparent)]
    Out(#[from] StoreError),
    /// Jobs can't be published.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// OUT holds something else.
    #[error("{out} holds results {difference}; choose another --out{redo}")]
    OtherRun {
        /// The place.
        out: String,
        /// What differs.
        difference: String,
        /// What else can be done, where something can.
        redo: &'static str,
    },
    /// `run.json` can't be read.
    #[error(transparent)]
    Run(#[from] ReadRunError),
    /// What an earlier process enqueued can't be told from the rest.
    #[error(
        "SOURCE's store doesn't list objects in the order of their names ({key} came late), so an \
         enqueue can't be gone on with; start again to enqueue every image without a result"
    )]
    NoOrder {
        /// The first that was out of order.
        key: ImageKey,
    },
    /// SOURCE has no file at all.
    #[error("no images in {0}: is the path or prefix right?")]
    NoImages(String),
}

/// What the jobs of a run have in common, and which images get one.
#[derive(Debug)]
pub(crate) struct Plan {
    source: Source,
    source_name: String,
    out: Folder,
    only: Only,
    limit: Option<u64>,
    model: ModelIdentity,
    explain: ExplainOptions,
    record: RunRecord,
    results: Results,
    progress: Arc<PlanProgress>,
    terms: Terms,
    /// Images enqueued by an earlier process that didn't come to its end.
    before: Option<Before>,
    /// The image before, where they have to come in the order of their keys.
    last: Option<ImageKey>,
}

/// Counts that change while jobs are published.
#[derive(Debug, Default)]
pub(crate) struct PlanProgress {
    /// Images found in SOURCE.
    pub(crate) found: AtomicU64,
    /// Jobs the queue has taken.
    pub(crate) published: AtomicU64,
    /// Images skipped because their result is there.
    pub(crate) skipped: AtomicU64,
    /// Those of them whose result is a failure.
    pub(crate) skipped_failed: AtomicU64,
    /// Images without a result that an earlier process enqueued.
    pub(crate) before: AtomicU64,
    /// Whether SOURCE has been listed to its end.
    pub(crate) listed: AtomicBool,
}

/// What the user asked for, before anything is opened.
#[derive(Debug)]
pub(crate) struct Request {
    /// SOURCE, opened.
    pub(crate) source: Source,
    /// SOURCE as a text that names it again.
    pub(crate) source_name: String,
    /// What a list's keys are below.
    pub(crate) base: Option<Location>,
    /// OUT.
    pub(crate) out: Location,
    /// Which images.
    pub(crate) only: Only,
    /// Images whose job is a dead letter, where that matters.
    pub(crate) dead: HashSet<ImageKey>,
    /// At most so many of SOURCE's first images.
    pub(crate) limit: Option<u64>,
    /// The model.
    pub(crate) model: ModelIdentity,
    /// How to explain.
    pub(crate) explain: ExplainOptions,
    /// Whether the user can pass `--only all`.
    pub(crate) can_redo_all: bool,
}

impl Plan {
    /// Opens OUT, lists what is done already, makes sure that this run belongs there, and
    /// writes `run.json`. With a broker, looks there whether the run's enqueue was cut short.
    ///
    /// # Errors
    /// Where OUT can't be read or written, or holds something else.
    pub(crate) async fn new(
        request: Request,
        broker: Option<&RabbitMqQueue>,
        stores: &StoreOptions,
    ) -> Result<Self, PlanError> {
        let out = Folder::open(&request.out, stores)?;
        let before = RunRecord::read(&out).await?;
        // Before anything is written: some servers make a missing bucket when written to.
        let mut results = Results::list(&out).await?;
        // A run that has no results yet, as after a mistyped SOURCE, binds nobody; but one whose
        // enqueue was cut short is gone on with.
        let binds = match (&before, broker) {
            _ if !results.is_empty() => true,
            (Some(before), Some(broker)) if is_same(&request, before) => {
                broker.has_sequence(&before.run.to_string()).await?
            }
            _ => false,
        };
        let record = agree(&request, before.filter(|_| binds))?;
        write_run(&out, &record).await?;
        let Request { source, source_name, only, dead, limit, model, explain, .. } = request;
        results.set_dead(dead);
        let progress = Arc::default();
        let terms = Terms::new(only, source.labels());
        Ok(Self {
            source,
            source_name,
            out,
            only,
            limit,
            model,
            explain,
            record,
            results,
            progress,
            terms,
            before: None,
            last: None,
        })
    }

    /// Takes up the run's jobs on the broker where an earlier process left them.
    ///
    /// # Errors
    /// Where the broker stays out of reach, or another process is at it.
    pub(crate) async fn outlet(
        &mut self,
        broker: &RabbitMqQueue,
    ) -> Result<Outlet<'static>, QueueError> {
        let sequence = broker.sequence(&self.run().to_string()).await?;
        if let Some(bookmark) = sequence.bookmark() {
            self.before = Before::read(bookmark, &self.source, &mut self.terms).await;
        }
        Ok(Outlet::broker(sequence))
    }

    /// The run's id.
    #[must_use]
    pub(crate) fn run(&self) -> RunId {
        self.record.run
    }

    /// Counts that change while jobs are published.
    #[must_use]
    pub(crate) fn progress(&self) -> Arc<PlanProgress> {
        Arc::clone(&self.progress)
    }

    /// Publishes a job for each image that is to be done, then writes the number of images
    /// into `run.json`. Stops early, without that number, where `stop` is cancelled.
    ///
    /// # Errors
    /// Where images can't be listed or jobs not be published. What was published stays;
    /// starting again does the rest.
    pub(crate) async fn publish(
        self,
        outlet: Outlet<'_>,
        stop: CancellationToken,
    ) -> Result<(), PlanError> {
        let span = traces::enqueue(self.run());
        let counts = self.progress();
        let published = self.publish_within(&span, outlet, stop).await;
        span.record("camshaft.found", counts.found.load(Relaxed));
        span.record("camshaft.published", counts.published.load(Relaxed));
        if let Err(error) = &published {
            traces::fail(&span, error);
        }
        published
    }

    async fn publish_within(
        mut self,
        span: &Span,
        mut outlet: Outlet<'_>,
        stop: CancellationToken,
    ) -> Result<(), PlanError> {
        let limit = self.limit.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
        let progress = Arc::clone(&self.progress);
        let mut images = self.source.images().take(limit);
        let mut may_forget = !self.source.is_list();
        let unsure_at_most = self.before.as_ref().map_or(0, Before::unsure);
        let mut unsure = VecDeque::new();
        while let Some(image) = images.next().await {
            if stop.is_cancelled() {
                return Ok(());
            }
            let image = image?;
            let at = progress.found.fetch_add(1, Relaxed) + 1;
            if may_forget && self.is_out_of_order(&image) {
                outlet.forget().await?;
                if self.before.is_some() {
                    return Err(PlanError::NoOrder { key: image.key });
                }
                may_forget = false;
            }
            let Some(chosen) = self.choose(image, at) else { continue };
            match chosen.when {
                When::Before => {
                    unsure.push_back(chosen);
                    if unsure.len() > unsure_at_most {
                        unsure.pop_front();
                        progress.before.fetch_add(1, Relaxed);
                    }
                }
                When::Changed => self.put(&mut outlet, chosen, false, span).await?,
                When::Now => {
                    for again in unsure.drain(..) {
                        self.put(&mut outlet, again, true, span).await?;
                    }
                    self.put(&mut outlet, chosen, false, span).await?;
                }
            }
        }
        for again in unsure {
            self.put(&mut outlet, again, true, span).await?;
        }
        outlet.flush(&progress.published).await?;
        progress.listed.store(true, Relaxed);
        let found = progress.found.load(Relaxed);
        if found == 0 {
            outlet.forget().await?;
            return Err(PlanError::NoImages(self.source_name));
        }
        self.record.images = Some(found);
        self.record.updated_at = Utc::now();
        write_run(&self.out, &self.record).await?;
        outlet.end().await?;
        Ok(())
    }

    fn is_out_of_order(&mut self, image: &FoundImage) -> bool {
        let last = self.last.replace(image.key.clone());
        last.is_some_and(|last| last > image.key)
    }

    /// Publishes an image's job. One that may be there already is `again`.
    async fn put(
        &self,
        outlet: &mut Outlet<'_>,
        chosen: Chosen,
        again: bool,
        span: &Span,
    ) -> Result<(), QueueError> {
        let Chosen { image, at, replaces, when } = chosen;
        let sending = traces::send(span, outlet.name(), self.run(), &image.key);
        let message = self.message(image, replaces, again, TraceContext::of(&sending));
        // The bookmark stays where it is, further on, where only a changed image is caught up with.
        let note = (!matches!(when, When::Changed)).then(|| self.terms.note(at));
        outlet.put(message, note, sending, &self.progress.published).await
    }

    /// The image at a place in SOURCE, from 1, where it is to be done.
    fn choose(&self, image: FoundImage, at: u64) -> Option<Chosen> {
        let progress = &self.progress;
        let replaces = match self.results.decide(&image, self.only) {
            Decision::Skip => {
                progress.skipped.fetch_add(1, Relaxed);
                if self.results.has_failed(&image.key) {
                    progress.skipped_failed.fetch_add(1, Relaxed);
                }
                return None;
            }
            Decision::Do { replaces } => replaces,
        };
        let when = match &self.before {
            Some(before) if !before.covers(&image, at) => When::Now,
            Some(before) if before.is_changed(&image) => When::Changed,
            Some(_) => When::Before,
            None => When::Now,
        };
        Some(Chosen { image, at, replaces, when })
    }

    fn message(
        &self,
        image: FoundImage,
        replaces: bool,
        again: bool,
        trace: TraceContext,
    ) -> Message {
        let job = Job {
            v: JOB_VERSION,
            run: self.record.run,
            key: image.key,
            etag: image.etag,
            size: image.size_bytes,
            label: image.label,
            source: self.source.location().clone(),
            out: self.out.location().clone(),
            model: self.model.clone(),
            explain: self.explain.clone(),
            replaces,
            again,
        };
        Message { body: job.to_json().into(), trace: Some(trace) }
    }
}

/// See [`Plan::choose`].
struct Chosen {
    image: FoundImage,
    /// Its place in SOURCE, from 1.
    at: u64,
    /// Whether a result lies there.
    replaces: bool,
    when: When,
}

enum When {
    /// An earlier process came by it. Of the last of those it is not known whether their jobs
    /// arrived.
    Before,
    /// An earlier process came by it, but it was written since.
    Changed,
    Now,
}

async fn write_run(out: &Folder, record: &RunRecord) -> Result<(), StoreError> {
    let json = serde_json::to_vec_pretty(record).expect("a record has only strings and numbers");
    out.put(RUN_FILE, json, JSON).await
}

/// Whether a run is about the same images, model and options.
fn is_same(request: &Request, before: &RunRecord) -> bool {
    (&before.source, &before.base) == (&request.source_name, &request.base)
        && before.model.same_content(&request.model)
        && before.explain == request.explain
}

/// The run's record: the one that lies there, where this is the same run started again.
fn agree(request: &Request, before: Option<RunRecord>) -> Result<RunRecord, PlanError> {
    let now = Utc::now();
    let fresh = || RunRecord {
        schema: SCHEMA,
        run: RunId::generate(),
        source: request.source_name.clone(),
        base: request.base.clone(),
        limit: request.limit,
        model: request.model.clone(),
        explain: request.explain.clone(),
        images: None,
        created_at: now,
        updated_at: now,
        camshaft: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let Some(before) = before else { return Ok(fresh()) };
    let other = |difference: String, redo| {
        let out = request.out.to_string();
        Err(PlanError::OtherRun { out, difference, redo })
    };
    if (&before.source, &before.base) != (&request.source_name, &request.base) {
        return other(format!("of another SOURCE, {}", before.source), "");
    }
    let redo = match (request.can_redo_all, request.only) {
        (_, Only::All) => None,
        (true, _) => Some(", or redo every image with --only all"),
        (false, _) => Some(""),
    };
    if !before.model.same_content(&request.model) {
        return match redo {
            None => Ok(fresh()),
            Some(redo) => other(format!("of another model, {}", before.model.name), redo),
        };
    }
    if before.explain != request.explain {
        let words = serde_json::to_string(&before.explain).unwrap_or_default();
        return match redo {
            None => Ok(fresh()),
            Some(redo) => other(format!("made with other options, {words}"), redo),
        };
    }
    // Unknown again until they are listed: there may be more by now.
    Ok(RunRecord { limit: request.limit, images: None, updated_at: now, ..before })
}
