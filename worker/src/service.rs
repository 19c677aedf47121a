//! The `camshaft-worker` program's life: connect, consume, drain, end.
//!
//! Owns when to stop; the work itself is the [`engine`](crate::engine)'s.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use camshaft_arguments::{BrokerArgs, LogArgs, ModelArgs};
use camshaft_common::model::ModelReference;
use camshaft_common::store::StoreOptions;
use camshaft_queue::{JobQueue, QueueError, RabbitMqOptions, RabbitMqQueue};
use clap::Parser;
use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::arguments::EngineArgs;
use crate::engine::{Engine, EngineError, Terms};
use crate::health::{Health, HealthError};
use crate::pipeline::PipelineError;
use crate::pipeline::model_files;
use crate::pipeline::outage::Patience;
use crate::pipeline::places::{Allowed, Places};
use crate::pipeline::tally::{Counts, Tally};
use crate::pipeline::trouble::Trouble;
use crate::signals::Signals;

/// Predicts and explains images from a RabbitMQ queue until it is told to stop
#[derive(Parser, Debug)]
#[command(name = "camshaft-worker", version)]
pub struct Args {
    #[command(flatten)]
    broker: BrokerArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    engine: EngineArgs,
    /// Refuse jobs that read, write or load a model elsewhere: folders and URLs, which stand for
    /// all below them, and hf:OWNER/NAME or hf:* for models on the Hugging Face Hub. Without it
    /// jobs may name any place
    #[arg(long, env = "CAMSHAFT_ALLOW", value_name = "PLACE,…", value_delimiter = ',')]
    allow: Vec<Allowed>,
    /// End once the queue has been empty, and nothing is in work here, for so long
    #[arg(long, env = "CAMSHAFT_EXIT_WHEN_IDLE", value_name = "SECONDS")]
    exit_when_idle: Option<u64>,
    /// After SIGTERM or SIGINT, finish what is in work for at most so long; the rest goes
    /// back to the queue
    #[arg(long, env = "CAMSHAFT_DRAIN_TIMEOUT", value_name = "SECONDS", default_value_t = 25)]
    drain_timeout: u64,
    /// Answer GET /healthz, /readyz and /metrics here, for whoever looks after this worker:
    /// 0.0.0.0:8080
    #[arg(long, env = "CAMSHAFT_HEALTH", value_name = "ADDRESS")]
    health: Option<SocketAddr>,
    /// Ask the worker at --health whether it lives, and end: with 0 if it does, else with 1
    #[arg(long, requires = "health")]
    check_health: bool,
    /// This worker's name in results
    #[arg(long, env = "CAMSHAFT_WORKER_NAME", value_name = "NAME")]
    worker_name: Option<String>,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

impl Args {
    /// What is logged and how.
    #[must_use]
    pub fn log(&self) -> &LogArgs {
        &self.log
    }

    /// The worker to ask whether it lives, where that is all there is to do.
    #[must_use]
    pub fn worker_to_ask(&self) -> Option<SocketAddr> {
        self.health.filter(|_| self.check_health)
    }
}

/// How long a stopped worker waits for the broker's last word.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Why the worker gave up.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The model or device can't be used.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The broker turned the worker away for good.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// A bug.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// Nobody could ask how it is.
    #[error(transparent)]
    Health(#[from] HealthError),
    /// Signals can't be received.
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] std::io::Error),
}

/// Runs a worker until SIGTERM, SIGINT or idleness ends it. Returns what it did.
///
/// # Errors
/// Where it can't start, or can't go on.
pub async fn serve(args: Args, stores: StoreOptions) -> Result<Counts, ServiceError> {
    let mut signals = Signals::listen().map_err(ServiceError::Signals)?;
    let health = Health::default();
    if let Some(address) = args.health {
        health.serve(address).await?;
    }
    let times = Times::of(&args);
    let (engine, queue) = tokio::select! {
        started = start(args, stores, &health) => started?,
        // Nothing was taken yet.
        () = signals.any() => return Ok(Counts::default()),
    };
    let stop = CancellationToken::new();
    let deliveries = queue.consume(engine.prefetch(), stop.clone()).await?;
    let tally = engine.tally();
    info!(worker = engine.context().worker, prefetch = engine.prefetch(), "ready");

    let mut work = tokio::spawn(engine.run(deliveries));
    let ended = tokio::select! {
        () = signals.any() => {
            info!("stopping: finishing what is in work");
            None
        }
        () = idle(&queue, &tally, times.idle) => {
            info!("stopping: the queue has been empty");
            None
        }
        () = report_progress(&tally) => None,
        // By themselves deliveries end only where the broker turned the worker away.
        ended = &mut work => Some(ended),
    };
    health.set_stopping();
    stop.cancel();
    let ended = match ended {
        Some(ended) => Some(ended),
        None => drain(&mut work, &mut signals, times.drain).await,
    };
    match ended {
        Some(Ok(result)) => result?,
        Some(Err(_panic)) => return Err(PipelineError::StagePanicked { stage: "pipeline" }.into()),
        None => work.abort(),
    }
    // Whatever is still unsettled goes back to the queue with the connection, which the broker
    // also takes back from a process that is gone: no reason to wait long for its word.
    if tokio::time::timeout(CLOSE_TIMEOUT, queue.close()).await.is_err() {
        warn!("the broker did not confirm the end of the connection");
    }
    match queue.failure() {
        Some(error) => Err(error.into()),
        None => Ok(tally.counts()),
    }
}

/// Readies the model, then reaches the broker.
async fn start(
    args: Args,
    stores: StoreOptions,
    health: &Health,
) -> Result<(Engine, RabbitMqQueue), ServiceError> {
    let name = args.worker_name.unwrap_or_else(worker_name);
    let pinned = args.model.model.is_some();
    let first = match args.model.model.or_else(bundled_if_any) {
        Some(model) => {
            Some(Arc::new(model_files::read(&model, &stores).await.map_err(EngineError::from)?))
        }
        None => None,
    };
    let connection_name = format!("camshaft-worker {name}");
    let terms = Terms {
        pinned,
        worker: name,
        patience: Patience::WORKER,
        trouble: Trouble::default(),
        places: Places::only(args.allow),
    };
    let engine = Engine::start(&args.engine, first, stores, terms)?;
    health.set_context(engine.context());
    let options = RabbitMqOptions {
        name: args.broker.queue.queue,
        delays: args.broker.queue.retry_delays,
        tls: args.broker.tls.into(),
        connection_name,
        // A worker may well be started before its broker.
        connect_limit: None,
        ..RabbitMqOptions::default()
    };
    let queue = RabbitMqQueue::connect(args.broker.broker, options).await?;
    health.set_queue(queue.clone());
    Ok((engine, queue))
}

/// When to stop, and how.
#[derive(Clone, Copy, Debug)]
struct Times {
    idle: Option<Duration>,
    drain: Duration,
}

impl Times {
    fn of(args: &Args) -> Self {
        Self {
            idle: args.exit_when_idle.map(Duration::from_secs),
            drain: Duration::from_secs(args.drain_timeout),
        }
    }
}

type Work = tokio::task::JoinHandle<Result<(), PipelineError>>;

/// Waits for what is in work, unless that takes too long or a second signal comes.
async fn drain(
    work: &mut Work,
    signals: &mut Signals,
    timeout: Duration,
) -> Option<Result<Result<(), PipelineError>, tokio::task::JoinError>> {
    tokio::select! {
        ended = work => Some(ended),
        () = signals.any() => {
            warn!("told to stop again: handing back what is in work");
            None
        }
        () = tokio::time::sleep(timeout) => {
            warn!(seconds = timeout.as_secs(), "drain timeout: handing back what is in work");
            None
        }
    }
}

/// Returns once the queue has been empty and nothing in work for as long as `limit`.
async fn idle(queue: &RabbitMqQueue, tally: &Arc<Tally>, limit: Option<Duration>) {
    let Some(limit) = limit else {
        return std::future::pending().await;
    };
    let mut idle_since = Instant::now();
    let mut last_taken = 0;
    let period = Duration::from_millis(500).min(limit.max(Duration::from_millis(50)));
    let mut ticks = interval(period);
    loop {
        ticks.tick().await;
        let counts = tally.counts();
        let quiet = counts.in_flight() == 0 && counts.taken == last_taken;
        last_taken = counts.taken;
        let asked = Instant::now();
        let empty = quiet && queue.depth().await.is_ok_and(|depth| depth.is_idle());
        // While a broker was out of reach nobody knows what its queue held, and one that has
        // just come back may not have found its messages yet.
        let late = asked.elapsed() > period;
        if !empty || late {
            idle_since = Instant::now();
        } else if idle_since.elapsed() >= limit {
            return;
        }
    }
}

/// A line every ten seconds in which something happened, for ever.
async fn report_progress(tally: &Arc<Tally>) {
    let mut ticks = interval(Duration::from_secs(10));
    let mut before = tally.counts();
    loop {
        ticks.tick().await;
        let now = tally.counts();
        if now == before {
            continue;
        }
        info!(
            predicted = now.predicted,
            failed = now.failed_in_all(),
            retried = now.retried,
            dead = now.dead,
            in_flight = now.in_flight(),
            images_per_second = (now.finished() - before.finished()) as f64 / 10.0,
            "progress"
        );
        before = now;
    }
}

fn bundled_if_any() -> Option<ModelReference> {
    cfg!(feature = "bundled-model").then_some(ModelReference::Bundled)
}

/// `host-pid`, as people look for a worker.
fn worker_name() -> String {
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let host = match host.trim() {
        "" => "worker",
        host => host,
    };
    format!("{host}-{}", std::process::id())
}
