//! `camshaft audit`: the whole job in one process. Wiring only: the plan's jobs go through
//! an in-process queue to the worker's engine.

pub(crate) mod trust;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use camshaft_common::location::Location;
use camshaft_common::model::ModelReference;
use camshaft_common::store::StoreOptions;
use camshaft_queue::{InProcessQueue, JobQueue, RetryDelays};
use camshaft_worker::engine::{Engine, EngineError, Terms};
use camshaft_worker::pipeline::model_files;
use camshaft_worker::pipeline::outage::Patience;
use camshaft_worker::pipeline::places::Places;
use camshaft_worker::pipeline::tally::{Counts, Tally};
use camshaft_worker::pipeline::trouble::Trouble;
use futures::stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::audit::trust::TrustRequest;
use crate::cli::AuditArgs;
use crate::enqueue::outlet::Outlet;
use crate::enqueue::plan::{Plan, PlanProgress};
use crate::images::selection::Only;
use crate::request::request;
use crate::terminal::output::{count, say};
use crate::terminal::progress::Progress;

/// Jobs listed ahead of the model: enough that most data sets' size is known at once, for
/// the progress bar, in under 100 MB.
const JOBS_AHEAD: usize = 100_000;

/// Why an audit that could start is not a success.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuditError {
    /// It is done, but more images failed than allowed.
    #[error(
        "{failed} of {found} images failed, more than --max-failure-rate {max_failure_rate} allows; \
         the reasons are in {out}/failures"
    )]
    TooManyFailures {
        /// Images that failed.
        failed: u64,
        /// Images in all.
        found: u64,
        /// The share allowed.
        max_failure_rate: f64,
        /// OUT.
        out: Location,
    },
    /// The store kept failing.
    #[error("{images} could not be finished, {reason}; run the same command again to do the rest")]
    Unfinished {
        /// How many.
        images: String,
        /// The last one's reason.
        reason: String,
    },
    /// No further image could be done either.
    #[error("stopped: {reason}; when that is mended, run the same command again to do the rest")]
    Trouble {
        /// The first one's.
        reason: String,
    },
    /// The user stopped it.
    #[error("stopped; run the same command again to do the rest")]
    Stopped,
}

/// Does a whole audit.
///
/// # Errors
/// Where SOURCE, OUT or the model can't be used, or images could not be finished.
pub(crate) async fn audit(args: AuditArgs, stores: StoreOptions) -> anyhow::Result<()> {
    let started = Instant::now();
    let reference = args.run.model.model.clone().unwrap_or(ModelReference::Bundled);
    let files = Arc::new(model_files::read(&reference, &stores).await.map_err(EngineError::from)?);
    let request = request(args.run, Only::New, false, files.identity().clone(), &stores)?;
    // Better said once than for each image.
    files.check(&request.explain)?;
    let (out, embeddings) = (request.out.clone(), request.explain.embeddings);
    let trust = args.trust_sample.map(|sample| TrustRequest {
        sample,
        source: request.source.location().clone(),
        out: out.clone(),
        explain: request.explain.clone(),
        engine: args.engine.clone(),
        files: Arc::clone(&files),
    });
    let plan = Plan::new(request, None, &stores).await?;
    let (run, listed) = (plan.run(), plan.progress());

    let queue = InProcessQueue::new(JOBS_AHEAD, RetryDelays::default());
    let stop = CancellationToken::new();
    stop_on_interrupt(stop.clone())?;
    let publishing = tokio::spawn(publish(plan, queue.clone(), stop.clone()));
    let prefetch = args.engine.most_prefetch(cores());
    let mut deliveries = queue.consume(prefetch, stop.clone()).await?.peekable();

    let mut first_trouble = None;
    // The model is built only where there is work for it.
    let counts = if Pin::new(&mut deliveries).peek().await.is_some() {
        let terms = Terms {
            pinned: true,
            worker: format!("audit-{}", std::process::id()),
            patience: Patience::PERSON,
            trouble: Trouble::stopping(stop.clone()),
            places: Places::default(),
        };
        let engine = Engine::start(&args.engine, Some(files), stores.clone(), terms)?;
        let (tally, context) = (engine.tally(), engine.context());
        let (seen, read) = (Arc::clone(&listed), Arc::clone(&tally));
        Progress::start("done")
            .follow(engine.run(deliveries.boxed()), move || reading(&seen, &read))
            .await?;
        first_trouble = context.trouble.first();
        tally.counts()
    } else {
        Counts::default()
    };
    publishing.await??;
    summarise(&listed, &counts, started, &out);
    if let Some(reason) = first_trouble {
        return Err(AuditError::Trouble { reason }.into());
    }
    if stop.is_cancelled() {
        return Err(AuditError::Stopped.into());
    }
    let letters = queue.dead_letters();
    if let Some(last) = letters.last() {
        let images = count(letters.len() as u64, "image");
        return Err(AuditError::Unfinished { images, reason: last.reason.clone() }.into());
    }
    if let Some(trust) = trust {
        trust.measure(run, &stores, &stop).await?;
    }
    let mut closed = None;
    if !args.no_report {
        closed = crate::report::after_audit(&out, embeddings, &args.gate, &stores).await?;
    }
    let failed = counts.failed_in_all() + listed.skipped_failed.load(Relaxed);
    let (found, max_failure_rate) = (listed.found.load(Relaxed), args.max_failure_rate);
    if failed as f64 > max_failure_rate * found as f64 {
        return Err(AuditError::TooManyFailures { failed, found, max_failure_rate, out }.into());
    }
    closed.map_or(Ok(()), |closed| Err(closed.into()))
}

/// Publishes every job, then lets the queue's consumers end.
async fn publish(
    plan: Plan,
    queue: InProcessQueue,
    stop: CancellationToken,
) -> Result<(), crate::enqueue::plan::PlanError> {
    let result = tokio::select! {
        result = plan.publish(Outlet::in_process(&queue), stop.clone()) => result,
        // It may be waiting for room that nobody makes any more.
        () = stop.cancelled() => Ok(()),
    };
    queue.finish();
    result
}

/// Ctrl-C or SIGTERM: finish what is in work; a second one ends at once.
pub(crate) fn stop_on_interrupt(stop: CancellationToken) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        for again in [false, true] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if again {
                std::process::exit(1);
            }
            warn!("stopping: finishing what is in work");
            stop.cancel();
        }
    });
    Ok(())
}

fn reading(listed: &PlanProgress, tally: &Tally) -> crate::terminal::progress::Reading {
    let counts = tally.counts();
    let total = listed.listed.load(Relaxed).then(|| listed.published.load(Relaxed));
    (counts.finished(), total, counts.failed_in_all())
}

fn summarise(listed: &PlanProgress, counts: &Counts, started: Instant, out: &Location) {
    let seconds = started.elapsed().as_secs_f64();
    let skipped = listed.skipped.load(Relaxed);
    let mut line = format!(
        "Audited {} in {seconds:.1} s ({:.1} images/s): {} predicted, {} failed",
        count(counts.finished(), "image"),
        counts.finished() as f64 / seconds,
        counts.predicted,
        counts.failed_in_all(),
    );
    if skipped > 0 {
        line.push_str(&format!("; {skipped} had results already"));
    }
    say(&line);
    for (class, number) in &counts.failed {
        say(&format!("  {number} {class}"));
    }
    say(&format!("Results are in {out}"));
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
