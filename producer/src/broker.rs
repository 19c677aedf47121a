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
    /// The first part of the queues' names.
    pub(crate) queue: String,
    /// The rests between tries, which the names of the retry queues tell.
    pub(crate) retry_delays: RetryDelays,
}

/// Connects to the broker for a command that a person waits for.
///
/// # Errors
/// If the broker stays out of reach or refuses access.
pub(crate) async fn connect(config: BrokerConfig) -> Result<RabbitMqQueue, QueueError> {
    let options = RabbitMqOptions {
        name: config.queue,
        delays: config.retry_delays,
        tls: config.tls,
        ..RabbitMqOptions::default()
    };
    RabbitMqQueue::connect(config.url, options).await
}
