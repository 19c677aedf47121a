//! `camshaft enqueue`: a persistent, confirmed message for each image.

pub(crate) mod outlet;
pub(crate) mod plan;
pub(crate) mod resumption;
pub(crate) mod traces;

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;

use camshaft_arguments::{BrokerArgs, QueueArgs, TlsArgs};
use camshaft_common::key::ImageKey;
use camshaft_common::location::Location;
use camshaft_common::model::{ModelFilesError, ModelIdentity, ModelReference, StoredModel};
use camshaft_common::secret::Secret;
use camshaft_common::store::StoreOptions;
use camshaft_queue::{JobQueue, QueueError, RabbitMqOptions, RabbitMqQueue};
use tokio_util::sync::CancellationToken;

use crate::cli::EnqueueArgs;
use crate::enqueue::plan::{Plan, PlanError};
use crate::images::selection::Only;
use crate::request::request;
use crate::terminal::output::{count, say};
use crate::terminal::progress::Progress;

/// What seems missing may still wait.
#[derive(Debug, thiserror::Error)]
#[error(
    "{waiting} messages wait in the queue, and an image that seems missing may be among them; \
     use --only missing when the queue is empty (camshaft status tells)"
)]
pub(crate) struct QueueNotEmpty {
    waiting: u64,
}

/// Publishes what is to be done.
///
/// # Errors
/// Where SOURCE, OUT, the model or the broker can't be used.
pub(crate) async fn enqueue(args: EnqueueArgs, stores: StoreOptions) -> anyhow::Result<()> {
    let reference = args.run.model.model.clone().unwrap_or(ModelReference::Bundled);
    let model = identify(reference, &stores).await?;
    let queue = connect(args.broker).await?;
    let mut request = request(args.run, args.only, true, model, &stores)?;
    if args.only == Only::Missing {
        request.dead = dead_images(&queue, &request.out).await?;
    }
    let mut plan = Plan::new(request, Some(&queue), &stores).await?;
    let (run, counts) = (plan.run(), plan.progress());
    let outlet = plan.outlet(&queue).await?;

    let progress = Progress::start("enqueued");
    let watched = std::sync::Arc::clone(&counts);
    let publishing = plan.publish(outlet, CancellationToken::new());
    let published: Result<(), PlanError> = progress
        .follow(publishing, move || {
            let total = watched.listed.load(Relaxed).then(|| watched.found.load(Relaxed));
            let past = watched.skipped.load(Relaxed) + watched.before.load(Relaxed);
            (watched.published.load(Relaxed) + past, total, 0)
        })
        .await;
    queue.close().await;
    published?;
    let before = match counts.before.load(Relaxed) {
        0 => String::new(),
        before => format!(", {before} were enqueued before"),
    };
    say(&format!(
        "Enqueued {} of {} ({} have results already{before}), run {run}",
        counts.published.load(Relaxed),
        count(counts.found.load(Relaxed), "image"),
        counts.skipped.load(Relaxed),
    ));
    Ok(())
}

/// The images of dead letters, which are not lost. A queue that is not empty may hold those that
/// seem so.
async fn dead_images(queue: &RabbitMqQueue, out: &Location) -> anyhow::Result<HashSet<ImageKey>> {
    let depth = queue.depth().await?;
    if !depth.is_idle() {
        return Err(QueueNotEmpty { waiting: depth.ready + depth.retrying }.into());
    }
    #[derive(serde::Deserialize)]
    struct Part {
        key: ImageKey,
        out: Location,
    }
    let letters = queue.dead_letters().await?;
    let parts = letters.iter().filter_map(|letter| serde_json::from_slice(&letter.body).ok());
    Ok(parts.filter(|part: &Part| part.out == *out).map(|Part { key, .. }| key).collect())
}

/// Connects to the broker for a command that a person waits for.
///
/// # Errors
/// Where it stays out of reach or refuses.
pub(crate) async fn connect(args: BrokerArgs) -> Result<RabbitMqQueue, QueueError> {
    connect_to(args.broker, args.tls, args.queue).await
}

/// As [`connect`], for a command whose broker is optional.
///
/// # Errors
/// Where it stays out of reach or refuses.
pub(crate) async fn connect_to(
    broker: Secret,
    tls: TlsArgs,
    queue: QueueArgs,
) -> Result<RabbitMqQueue, QueueError> {
    let options = RabbitMqOptions {
        name: queue.queue,
        delays: queue.retry_delays,
        tls: tls.into(),
        ..RabbitMqOptions::default()
    };
    RabbitMqQueue::connect(broker, options).await
}

/// Names a model by its files' content, without loading it.
async fn identify(
    reference: ModelReference,
    stores: &StoreOptions,
) -> Result<ModelIdentity, ModelFilesError> {
    match reference {
        ModelReference::Bundled => Ok(ModelIdentity::bundled()),
        ModelReference::Folder(location) => {
            Ok(StoredModel::from_folder(&location, stores).await?.identity)
        }
        ModelReference::Hub(model) => Ok(StoredModel::from_hub(&model, stores).await?.identity),
    }
}
