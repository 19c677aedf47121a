//! `camshaft audit`: a whole audit in one process.
//!
//! Wiring only: the jobs of an [`EnqueuePlan`] go through an in-process queue to the worker's
//! engine. [`tally`] says what became of each image. [`precision`] keeps to that of the results in OUT.
//! [`trust`] measures the maps afterwards, [`shortcuts`] proves what looks like a shortcut, and
//! [`report`] builds the report. [`remeasure`] is an audit without jobs.

mod int8;
pub(crate) mod measuring;
mod precision;
mod remeasure;
pub(crate) mod shortcuts;
mod tally;
pub(crate) mod trust;

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use camshaft_common::location::Location;
use camshaft_common::store::StoreOptions;
use camshaft_model::{ExplainError, ModelFiles};
use camshaft_queue::{Deliveries, InProcessQueue, JobQueue, QueueError, RetryDelays};
use camshaft_report::{Condition, LabelOptions, ReportOptions};
use camshaft_worker::advice::describe_explain_error;
use camshaft_worker::config::{EngineConfig, EngineSettings};
use camshaft_worker::engine::{Engine, EngineError};
use camshaft_worker::pipeline::allowed_places::AllowedPlaces;
use camshaft_worker::pipeline::model_files::ModelUnavailable;
use camshaft_worker::pipeline::outage::OutagePolicy;
use camshaft_worker::pipeline::outcome_counters::{OutcomeCounters, OutcomeCounts};
use camshaft_worker::pipeline::stages::PipelineError;
use futures::stream::StreamExt;
use tokio_util::sync::CancellationToken;

use crate::advice;
use crate::calibrate::CalibrateError;
use crate::calibration;
use crate::enqueue::counters::EnqueueCounters;
use crate::enqueue::generation_watch::JobsSuperseded;
use crate::enqueue::inheritance;
use crate::enqueue::outlet::Outlet;
use crate::enqueue::plan::{EnqueuePlan, EnqueuePlanError, FoundImages};
use crate::enqueue::prune::Pruning;
use crate::enqueue::request::{EnqueueRequest, JobsQueue, RunConfig};
use crate::images::selection::Selection;
use crate::images::source_error::SourceError;
use crate::interrupt::cancel_on_signal;
use crate::label_map::{LabelMap, LabelMapError};
use crate::report::{self, BuildError, ConditionsHold};
use crate::terminal::output::{format_count, print_line};
use crate::terminal::progress::{Progress, ProgressCounts};
use remeasure::RemeasureError;
use shortcuts::{ShortcutError, ShortcutProving};
use tally::AuditTally;
use trust::{TrustError, TrustSampling};

/// Jobs that may be listed ahead of the model. That is more images than most data sets have, so
/// that the progress bar soon knows their number. Takes less than 100 MB.
const MAX_JOBS_AHEAD: usize = 100_000;

/// An audit that is told to stop finishes what it can do in this time. A person waits for it.
const STOP_TIME: Duration = Duration::from_secs(5);

/// What `camshaft audit` is to do.
#[derive(Debug)]
pub(crate) struct AuditConfig {
    /// The images, the model, and where results go.
    pub(crate) run: RunConfig,
    /// The largest share of images that may fail.
    pub(crate) max_failure_rate: f64,
    /// Measure the maps of a sample of `trust_sample` images.
    pub(crate) trust_sample: Option<u16>,
    /// Prove each suspected shortcut on this number of images of other classes.
    pub(crate) prove_shortcuts: Option<u16>,
    /// Only add the measures that older results lack, without the network.
    pub(crate) remeasure: bool,
    /// Build the report.
    pub(crate) report: bool,
    /// The conditions of `--fail-on`.
    pub(crate) fail_on: Vec<Condition>,
    /// How the report judges labels.
    pub(crate) labels: LabelOptions,
    /// How the network runs, and how large images may be.
    pub(crate) engine: EngineConfig,
    /// Ends the audit early. A signal cancels it, and so does the engine: see [`engine_settings`].
    pub(crate) stop: CancellationToken,
}

/// The settings of an audit's engine, which no flag changes. It cancels `stop` at an error that
/// every further image would meet.
#[must_use]
pub(crate) fn engine_settings(stop: CancellationToken) -> EngineSettings {
    EngineSettings {
        pinned: true,
        worker_name: format!("audit-{}", std::process::id()),
        outage_policy: OutagePolicy::INTERACTIVE,
        consumer_timeout: None,
        stop_at_lasting_error: Some(stop),
        allowed_places: AllowedPlaces::default(),
        // The first refusal stops the audit.
        refusal_limit: Duration::MAX,
    }
}

/// Why an audit can't start, or is not a success.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The model's files can't be used.
    #[error(transparent)]
    ModelFiles(#[from] ModelUnavailable),
    /// The model can't be calibrated for 8 bits.
    #[error(transparent)]
    Calibrate(#[from] CalibrateError),
    /// The model has no such layer or class, or the maps cost too much.
    #[error("{}", describe_explain_error(.0))]
    Explain(#[from] ExplainError),
    /// SOURCE can't be used.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The label map can't be used.
    #[error(transparent)]
    LabelMap(#[from] LabelMapError),
    /// The run can't start or go on.
    #[error(transparent)]
    Plan(#[from] EnqueuePlanError),
    /// The in-process queue failed.
    #[error("{}", advice::describe_queue_error(.0))]
    Queue(#[from] QueueError),
    /// The model can't run.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A bug in a stage of the pipeline, or the model's device is lost.
    #[error("{0}; run the same command again to do the rest")]
    Pipeline(#[from] PipelineError),
    /// A bug in the listing of images.
    #[error("listing the images ended by a panic, which is a bug; run the same command again")]
    ListingPanicked,
    /// Signals can't be received.
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] std::io::Error),
    /// The maps can't be measured.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The shortcuts can't be proved.
    #[error(transparent)]
    Shortcuts(#[from] ShortcutError),
    /// Measures can't be added.
    #[error(transparent)]
    Remeasure(RemeasureError),
    /// The report can't be built or checked.
    #[error(transparent)]
    Report(#[from] BuildError),
    /// The audit is done, but more images failed than allowed.
    #[error(
        "{failed} of {found} images failed, more than --max-failure-rate {max_failure_rate} allows; \
         the reasons are in {out}/failures"
    )]
    TooManyFailures {
        /// Images that failed.
        failed: u64,
        /// Images in all.
        found: u64,
        /// The share that may fail.
        max_failure_rate: f64,
        /// OUT.
        out: Location,
    },
    /// Every try of some images failed, for instance since the store did not answer.
    #[error("{images} could not be finished, {reason}; run the same command again to do the rest")]
    Unfinished {
        /// How many.
        images: String,
        /// The reason of the last one.
        reason: String,
    },
    /// The audit ended early, since no further image could be done either.
    #[error("stopped: {reason}; when that is mended, run the same command again to do the rest")]
    LastingError {
        /// The first error.
        reason: String,
    },
    /// The user stopped it.
    #[error("stopped; run the same command again to do the rest")]
    Stopped,
    /// The user stopped it when every image was done.
    #[error("stopped; every image is done, and the same command again goes on with {0}")]
    StoppedAtEnd(String),
    /// Another audit or enqueue of the same OUT has begun. This audit is no success: some of its images
    /// have no result yet, and whoever waits for it must not go on as if they had.
    #[error("{other}; {left} to it, and no report is built here: wait until it has ended")]
    GaveWay {
        /// The other one.
        other: JobsSuperseded,
        /// How many images are.
        left: String,
    },
    /// `camshaft cancel` ended it.
    #[error("cancelled by camshaft cancel; {left} to do; the same command again goes on")]
    Cancelled {
        /// How many images are.
        left: String,
    },
    /// The audit and its report are done, and conditions of `--fail-on` hold.
    #[error(transparent)]
    ConditionsHold(#[from] ConditionsHold),
}

impl From<RemeasureError> for AuditError {
    fn from(error: RemeasureError) -> Self {
        match error {
            // Its exit status tells wrong usage.
            RemeasureError::Source(error) => Self::Source(error),
            error => Self::Remeasure(error),
        }
    }
}

/// Does a whole audit.
///
/// # Errors
/// If SOURCE, OUT or the model can't be used, if images could not be finished, if too many of them
/// failed, or if a condition of `--fail-on` holds.
pub(crate) async fn audit(config: AuditConfig, stores: StoreOptions) -> Result<(), AuditError> {
    if config.remeasure {
        return complete_measures(config, &stores).await;
    }
    let started = Instant::now();
    let AuditConfig { run, max_failure_rate, report, fail_on, mut engine, stop, .. } = config;
    let (trust_sample, prove_shortcuts) = (config.trust_sample, config.prove_shortcuts);
    let labels = config.labels;
    let mut run = inheritance::inherit(run, &stores).await?;
    calibration::relocate(&mut run, &stores).await;
    precision::go_on(&mut engine.compute, &run.out, &stores)
        .await
        .map_err(EnqueuePlanError::from)?;
    let (out, explain, dry_run) = (run.out.clone(), run.explain.clone(), run.dry_run);
    let source = run.open_source(&stores)?;
    let files = Arc::new(int8::settle(&mut run, &mut engine, &source, &stores, &stop).await?);
    // Both change the network's weights or inputs, which its scales for 8 bits don't fit.
    let (measured, measuring) = int8::without(&files, &engine);
    // Tells a wrong option once, and not for each image.
    files.check(&explain)?;
    let label_map = LabelMap::read(&run.label_map, &files.config().label_matcher())?;
    let image_files = source.image_files().cloned();
    let trust = trust_sample.map(|images| TrustSampling {
        images,
        source: source.location().clone(),
        out: out.clone(),
        explain: explain.clone(),
        engine: measuring.clone(),
        files: Arc::clone(&measured),
    });
    let shortcuts = prove_shortcuts.map(|images| ShortcutProving {
        images,
        source: source.location().clone(),
        out: out.clone(),
        engine: measuring.clone(),
        files: measured,
    });
    let request = EnqueueRequest {
        run,
        source,
        model: files.identity().clone(),
        trained_layers: files.config().trained_layers,
        label_map,
        selection: Selection::New,
        dead: Vec::new(),
        can_redo_all: false,
        queue: JobsQueue::InProcess,
    };
    let mut plan = EnqueuePlan::new(request, &stores).await?;
    if dry_run {
        return Ok(plan.dry_run("audit", report).await?);
    }
    let images = plan.find_images().await?;
    plan.begin().await?;
    let (run, enqueued, watch) = (plan.run(), plan.counters(), plan.watch());

    let queue = InProcessQueue::new(MAX_JOBS_AHEAD, RetryDelays::default());
    cancel_on_signal(stop.clone()).map_err(AuditError::Signals)?;
    let publishing = tokio::spawn(publish(plan, images, queue.clone(), stop.clone()));
    let deliveries = queue.consume(engine.max_prefetch(), stop.clone()).await?;
    let work = Work { engine, files, stores: stores.clone(), stop: stop.clone() };
    let done = work.run(deliveries, &enqueued).await?;
    let published = publishing.await.map_err(|_panic| AuditError::ListingPanicked)?;

    let tally = AuditTally::of(&enqueued, &done.outcomes);
    print_summary(&tally, &enqueued, &done.outcomes, started, &out);
    if let Some(reason) = done.lasting_error {
        return Err(AuditError::LastingError { reason });
    }
    let pruning = match published {
        Err(EnqueuePlanError::Superseded(superseded)) => return Err(gave_way(superseded, &tally)),
        published => published?,
    };
    if tally.left_to_others > 0 {
        return Err(gave_way(watch.noticed().await, &tally));
    }
    if stop.is_cancelled() {
        if !enqueued.listed.load(Relaxed) || tally.not_done > 0 {
            return Err(AuditError::Stopped);
        }
        let rest = [
            (pruning.is_some(), "removing results"),
            (trust.is_some(), "measuring the maps"),
            (shortcuts.is_some(), "proving shortcuts"),
            (report, "the report"),
        ];
        let rest: Vec<_> = rest.into_iter().filter(|(is_left, _)| *is_left).collect();
        if !rest.is_empty() {
            let rest: Vec<_> = rest.into_iter().map(|(_, what)| what).collect();
            return Err(AuditError::StoppedAtEnd(rest.join(", ")));
        }
    }
    let letters = queue.dead_letters();
    if let Some(last) = letters.last() {
        let images = format_count(letters.len() as u64, "image");
        return Err(AuditError::Unfinished { images, reason: last.reason.clone() });
    }
    if let Some(pruning) = pruning {
        prune(&pruning, &stop).await?;
    }
    if let Some(trust) = trust {
        trust.measure(run, image_files.as_ref(), &stores, &stop).await?;
    }
    // Before the report, which says what came out.
    if let Some(shortcuts) = shortcuts {
        shortcuts.prove(run, &stores, &stop).await?;
    }
    let mut conditions = None;
    if report {
        let embeddings = explain.embeddings;
        let options = ReportOptions { embeddings, labels, ..ReportOptions::default() };
        conditions = report::report_audit(&out, &options, &fail_on, &stores).await?;
    }
    let failed = done.outcomes.failed_in_all() + enqueued.skipped_failed.load(Relaxed);
    let found = enqueued.found.load(Relaxed);
    if failed as f64 > max_failure_rate * found as f64 {
        return Err(AuditError::TooManyFailures { failed, found, max_failure_rate, out });
    }
    match conditions {
        Some(conditions) => Err(conditions.into()),
        None => Ok(()),
    }
}

/// Adds the measures that results in OUT lack, and builds the report.
async fn complete_measures(config: AuditConfig, stores: &StoreOptions) -> Result<(), AuditError> {
    let AuditConfig { run, report, fail_on, labels, engine, stop, .. } = config;
    cancel_on_signal(stop.clone()).map_err(AuditError::Signals)?;
    let record = remeasure::remeasure(&run, engine.image_limits, stores, &stop).await?;
    if !report {
        return Ok(());
    }
    let embeddings = record.explain.embeddings;
    let options = ReportOptions { embeddings, labels, ..ReportOptions::default() };
    match report::report_audit(&run.out, &options, &fail_on, stores).await? {
        Some(conditions) => Err(conditions.into()),
        None => Ok(()),
    }
}

/// The end of an audit whose jobs no longer count.
fn gave_way(superseded: JobsSuperseded, tally: &AuditTally) -> AuditError {
    let left = match tally.left() {
        0 => "nothing is left".to_owned(),
        left => format!("{} left", format_count(left, "image")),
    };
    match superseded {
        JobsSuperseded::Cancelled => AuditError::Cancelled { left },
        other @ JobsSuperseded::ByAnother { .. } => AuditError::GaveWay { other, left },
    }
}

/// Publishes every job, then lets the queue's consumer end.
async fn publish(
    plan: EnqueuePlan,
    images: FoundImages,
    queue: InProcessQueue,
    stop: CancellationToken,
) -> Result<Option<Pruning>, EnqueuePlanError> {
    let result = tokio::select! {
        biased;
        result = plan.publish(images, Outlet::in_process(queue.clone()), stop.clone()) => {
            result
        }
        // The queue may be full, and nobody takes jobs any more.
        () = stop.cancelled() => Ok(None),
    };
    queue.finish();
    result
}

/// Removes results of images that have gone, unless the user stops it.
async fn prune(pruning: &Pruning, stop: &CancellationToken) -> Result<(), AuditError> {
    let removed = tokio::select! {
        removed = pruning.remove() => removed.map_err(EnqueuePlanError::from)?,
        () = stop.cancelled() => return Err(AuditError::Stopped),
    };
    print_line(&format!("Removed {removed}"));
    Ok(())
}

/// What the engine needs for an audit.
struct Work {
    engine: EngineConfig,
    files: Arc<ModelFiles>,
    stores: StoreOptions,
    stop: CancellationToken,
}

/// What the engine did.
#[derive(Default)]
struct WorkDone {
    outcomes: OutcomeCounts,
    /// The first error that every further image would meet.
    lasting_error: Option<String>,
}

impl Work {
    /// Runs the engine until the deliveries end. Builds the model only if there is a delivery.
    async fn run(
        self,
        deliveries: Deliveries,
        enqueued: &Arc<EnqueueCounters>,
    ) -> Result<WorkDone, AuditError> {
        let Self { engine, files, stores, stop } = self;
        let mut deliveries = deliveries.peekable();
        if Pin::new(&mut deliveries).peek().await.is_none() {
            return Ok(WorkDone::default());
        }
        let engine = Engine::start(engine, Some(files), stores)?;
        let (hold, monitor) = (engine.hold_limit(), engine.monitor());
        let (enqueued, counters) = (Arc::clone(enqueued), monitor.counters());
        let stoppable = async {
            let mut working = pin!(engine.run(deliveries.boxed()));
            tokio::select! {
                ended = &mut working => ended,
                () = stop.cancelled() => {
                    hold.give_up_after(STOP_TIME);
                    working.await
                }
            }
        };
        Progress::start("done")
            .follow(stoppable, move || progress_counts(&enqueued, &counters))
            .await?;
        let lasting_error = monitor.first_lasting_error();
        Ok(WorkDone { outcomes: monitor.counts(), lasting_error })
    }
}

fn progress_counts(enqueued: &EnqueueCounters, counters: &OutcomeCounters) -> ProgressCounts {
    let outcomes = counters.counts();
    ProgressCounts {
        done: outcomes.finished(),
        total: enqueued.listed.load(Relaxed).then(|| enqueued.published.load(Relaxed)),
        failed: outcomes.failed_in_all(),
    }
}

fn print_summary(
    tally: &AuditTally,
    enqueued: &EnqueueCounters,
    outcomes: &OutcomeCounts,
    started: Instant,
    out: &Location,
) {
    print_line(&tally.describe(started.elapsed().as_secs_f64()));
    for (class, number) in &outcomes.failed {
        print_line(&format!("  {number} {class}"));
    }
    enqueued.left_out.to_lines().iter().for_each(|line| print_line(line));
    print_line(&format!("Results are in {out}"));
}
