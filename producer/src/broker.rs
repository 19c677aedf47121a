//! The connection of a command to RabbitMQ.

use camshaft_common::secret::Secret;
use camshaft_queue::{QueueError, RabbitMqOptions, RabbitMqQueue, RetryDelays, TlsFiles};

/// How to reach the broker, and the queues there.
#[derive(Clone, Debug)]
pub(crate) struct BrokerConfig {
    /// The broker's URL with its password.
    pub(crate) url: Secret,
    /// Files for TLS.
    pub(crate) tls: TlsFiles,
    /// The first part of the queues' names, if it is not the usual one.
    pub(crate) queue: Option<String>,
    /// The rests between tries, which the names of the retry queues tell.
    pub(crate) retry_delays: RetryDelays,
}

impl BrokerConfig {
    /// The first part of the queues' names.
    #[must_use]
    pub(crate) fn queue_name(&self) -> String {
        self.queue.clone().unwrap_or_else(usual_queue_name)
    }
}

/// The first part of the queues' names if the user chooses no other.
#[must_use]
pub(crate) fn usual_queue_name() -> String {
    RabbitMqOptions::default().name
}

/// Connects to the broker for a command that a person waits for. Creates the queues that don't exist
/// yet.
///
/// # Errors
/// If the broker stays out of reach or refuses access.
pub(crate) async fn connect(config: BrokerConfig) -> Result<RabbitMqQueue, QueueError> {
    connect_as(config, RabbitMqOptions::default()).await
}

/// As [`connect`], for a command about what is in the queues: it creates none.
///
/// # Errors
/// As [`connect`], and if there are no such queues.
pub(crate) async fn connect_to_existing(config: BrokerConfig) -> Result<RabbitMqQueue, QueueError> {
    connect_as(config, RabbitMqOptions { creates_queues: false, ..RabbitMqOptions::default() })
        .await
}

/// Checks the URL, the queues' names and the files for TLS, without connecting.
///
/// # Errors
/// If one of them is wrong.
pub(crate) fn check(config: &BrokerConfig) -> Result<(), QueueError> {
    RabbitMqQueue::check(&config.url, &with_config(config, RabbitMqOptions::default()))
}

async fn connect_as(
    config: BrokerConfig,
    options: RabbitMqOptions,
) -> Result<RabbitMqQueue, QueueError> {
    let options = with_config(&config, options);
    RabbitMqQueue::connect(config.url, options).await
}

fn with_config(config: &BrokerConfig, options: RabbitMqOptions) -> RabbitMqOptions {
    RabbitMqOptions {
        name: config.queue_name(),
        delays: config.retry_delays.clone(),
        tls: config.tls.clone(),
        ..options
    }
}
