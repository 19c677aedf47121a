//! The life of the `camshaft-worker` program: connect, consume, drain, end.
//!
//! Owns when the worker stops. The work itself is done by the [`engine`](crate::engine); when it
//! takes no jobs for a while is decided by `pauses`.

use std::sync::Arc;
use std::time::Duration;

use camshaft_arguments::advice::describe_queue_error;
use camshaft_common::model::{ModelReference, ModelRequest};
use camshaft_common::store::StoreOptions;
use camshaft_queue::{JobQueue, QueueError, RabbitMqQueue, is_remote};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::ServiceConfig;
use crate::engine::{Engine, EngineError};
use crate::health::{Health, HealthError};
use crate::monitor::EngineMonitor;
use crate::pauses::pause_while_useless;
use crate::pipeline::model_files;
use crate::pipeline::outcome_counters::OutcomeCounts;
use crate::pipeline::stages::PipelineError;
use crate::signals::Signals;

/// How long a worker that stops waits until the broker has taken back what is not done, and has
/// confirmed the end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How often progress is logged, if there is any.
const PROGRESS_PERIOD: Duration = Duration::from_secs(10);

/// How often a worker looks whether its decoders come back.
const DECODERS_PERIOD: Duration = Duration::from_secs(1);

/// Why a worker can't start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The model or the device can't be used.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The broker refuses the worker, and will not change its mind.
    #[error("{}", describe_queue_error(.0))]
    Queue(#[from] QueueError),
    /// A bug, or the model's device is lost.
    #[error("{0}; the images in work are delivered again")]
    Pipeline(#[from] PipelineError),
    /// Decoders have not come back.
    #[error("{0}")]
    DecodersLost(String),
    /// Health checks can't be answered.
    #[error(transparent)]
    Health(#[from] HealthError),
    /// Signals can't be received.
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] std::io::Error),
}

/// Runs a worker until SIGTERM, SIGINT or idleness ends it. Returns what it did.
///
/// # Errors
/// If the worker can't start, or can't go on.
pub async fn serve(
    config: ServiceConfig,
    stores: StoreOptions,
) -> Result<OutcomeCounts, ServiceError> {
    let mut signals = Signals::listen().map_err(ServiceError::Signals)?;
    if is_remote(&config.broker) && config.engine.settings.allowed_places.allows_every_place() {
        warn!(
            "jobs may name any place: whoever may publish to the broker can have this worker read \
             and write all that its user and its credentials can; name its places with --allow"
        );
    }
    let health = Health::default();
    if let Some(address) = config.health {
        health.serve(address).await?;
    }
    let (exit_when_idle, drain_timeout) = (config.exit_when_idle, config.drain_timeout);
    let (engine, queue) = tokio::select! {
        started = start(config, stores, &health) => started?,
        // No message was taken yet.
        () = signals.next() => return Ok(OutcomeCounts::default()),
    };
    let stop = CancellationToken::new();
    let (hold, monitor) = (engine.hold_limit(), engine.monitor());
    let deliveries = queue.consume_adjusting(hold.prefetch_changes(), stop.clone()).await?;
    info!(worker = monitor.worker_name(), "ready");

    let mut work = tokio::spawn(engine.run(deliveries));
    let mut lost = None;
    let ended = tokio::select! {
        () = signals.next() => {
            info!("stopping: finishing what is in work");
            None
        }
        () = idle(&queue, &monitor, exit_when_idle) => {
            info!("stopping: the queue has been empty");
            None
        }
        problem = decoders_lost(&monitor) => {
            warn!("stopping: too many decoders are lost");
            lost = Some(problem);
            None
        }
        () = log_progress(&monitor) => None,
        () = pause_while_useless(&queue, monitor.recent_jobs(), &health) => None,
        // Deliveries end by themselves only if the broker refuses the worker.
        ended = &mut work => Some(ended),
    };
    health.set_stopping();
    stop.cancel();
    hold.finish_within(drain_timeout);
    let ended = match ended {
        Some(ended) => Some(ended),
        None => drain(&mut work, &mut signals, drain_timeout).await,
    };
    let unfinished = ended.is_none();
    let device_lost = match ended {
        Some(ended) => loss_of_device(ended)?,
        None => {
            work.abort();
            None
        }
    };
    // What is not settled goes back to the queue when the connection ends, also if this process
    // just ends. So there is no reason to wait long for the broker. But then each message counts as
    // one that lost its worker.
    let closing = async {
        if unfinished {
            hand_back(&queue).await;
        }
        queue.close().await;
    };
    if tokio::time::timeout(CLOSE_TIMEOUT, closing).await.is_err() {
        warn!("the broker did not confirm the end of the connection");
    }
    match (device_lost, queue.failure(), lost) {
        (Some(error), _, _) => Err(error.into()),
        (None, Some(error), _) => Err(error.into()),
        (None, None, Some(problem)) => Err(ServiceError::DecodersLost(problem)),
        (None, None, None) => Ok(monitor.counts()),
    }
}

/// The loss of the device, if that has ended the work. Then its images were handed back, and messages
/// that no stage has taken go back when the connection is closed.
///
/// # Errors
/// If a bug has ended the work. A message that led to it must count as one that lost its worker.
fn loss_of_device(
    ended: Result<PipelineResult, JoinError>,
) -> Result<Option<PipelineError>, PipelineError> {
    match ended {
        Ok(Ok(())) => Ok(None),
        Ok(Err(error @ PipelineError::DeviceLost { .. })) => Ok(Some(error)),
        Ok(Err(error @ PipelineError::StagePanicked { .. })) => Err(error),
        Err(_panic) => Err(PipelineError::StagePanicked { stage: "pipeline" }),
    }
}

/// Loads the model, then connects to the broker.
async fn start(
    config: ServiceConfig,
    stores: StoreOptions,
    health: &Health,
) -> Result<(Engine, RabbitMqQueue), ServiceError> {
    let first = match config.model.or_else(bundled_if_any) {
        Some(model) => {
            Some(Arc::new(model_files::read(&model, &stores).await.map_err(EngineError::from)?))
        }
        None => None,
    };
    let engine = Engine::start(config.engine, first, stores)?;
    health.set_engine(engine.monitor());
    let queue = RabbitMqQueue::connect(config.broker, config.queue).await?;
    health.set_queue(queue.clone());
    Ok((engine, queue))
}

fn bundled_if_any() -> Option<ModelRequest> {
    cfg!(feature = "bundled-model").then(|| ModelReference::Bundled.into())
}

type PipelineResult = Result<(), PipelineError>;

/// Waits until the work has ended. Returns `None` if that takes too long, or if a second signal
/// comes.
async fn drain(
    work: &mut JoinHandle<PipelineResult>,
    signals: &mut Signals,
    timeout: Duration,
) -> Option<Result<PipelineResult, JoinError>> {
    tokio::select! {
        ended = work => Some(ended),
        () = signals.next() => {
            warn!("told to stop again: handing back what is in work");
            None
        }
        () = tokio::time::sleep(timeout) => {
            warn!(seconds = timeout.as_secs(), "drain timeout: handing back what is in work");
            None
        }
    }
}

/// Hands back what the worker has no time for. The stages still hold the images, and the model may
/// be at work on some: this process is about to end.
async fn hand_back(queue: &RabbitMqQueue) {
    match queue.hand_back().await {
        Ok(images) => info!(images, "handed back"),
        Err(error) => warn!(%error, "not handed back; the broker delivers them again"),
    }
}

/// Returns once the queue was empty, and nothing was in work, for as long as `limit`.
async fn idle(queue: &RabbitMqQueue, monitor: &EngineMonitor, limit: Option<Duration>) {
    let Some(limit) = limit else {
        return std::future::pending().await;
    };
    let mut idle_since = Instant::now();
    let mut last_taken = 0;
    let period = Duration::from_millis(500).min(limit.max(Duration::from_millis(50)));
    let mut ticks = interval(period);
    loop {
        ticks.tick().await;
        let counts = monitor.counts();
        let quiet = counts.in_flight() == 0 && counts.taken == last_taken;
        last_taken = counts.taken;
        let asked = Instant::now();
        let empty = quiet && queue.depth().await.is_ok_and(|depth| depth.is_idle());
        // A late answer means that the broker was not reachable for some time. Its queue may have
        // had messages then. And a broker that just came back may not have found its messages yet.
        let late = asked.elapsed() > period;
        if !empty || late {
            idle_since = Instant::now();
        } else if idle_since.elapsed() >= limit {
            return;
        }
    }
}

/// Returns once too many decoders have not come back, and says how many.
async fn decoders_lost(monitor: &EngineMonitor) -> String {
    let mut ticks = interval(DECODERS_PERIOD);
    loop {
        if let Some(problem) = monitor.decoders_problem() {
            return problem;
        }
        ticks.tick().await;
    }
}

/// Logs what was done in each period in which something was done. Never returns.
async fn log_progress(monitor: &EngineMonitor) {
    let mut ticks = interval(PROGRESS_PERIOD);
    let mut before = monitor.counts();
    loop {
        ticks.tick().await;
        let now = monitor.counts();
        if now == before {
            continue;
        }
        let finished = (now.finished() - before.finished()) as f64;
        info!(
            predicted = now.predicted,
            failed = now.failed_in_all(),
            superseded = now.superseded,
            retried = now.retried,
            refused = now.refused,
            dead = now.dead,
            in_flight = now.in_flight(),
            images_per_second = finished / PROGRESS_PERIOD.as_secs_f64(),
            "progress"
        );
        before = now;
    }
}
