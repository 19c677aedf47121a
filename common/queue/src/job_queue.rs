//! The contract of a job queue: what [`RabbitMqQueue`](super::RabbitMqQueue) and
//! [`InProcessQueue`](super::InProcessQueue) do alike.
//!
//! Publishing is not part of it. A broker's jobs are published in a
//! [`Sequence`](super::Sequence), which a killed enqueue can continue; the in-process queue takes
//! one message after the other and makes the publisher wait while it is full.

use async_trait::async_trait;
use futures::stream::BoxStream;
use tokio_util::sync::CancellationToken;

use crate::delivery::Delivery;
use crate::error::QueueError;
use crate::message::QueueName;
use camshaft_common::run::RunId;

/// How many messages a queue holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueDepth {
    /// Ready for a worker. Includes those that a worker is to take alone.
    pub ready: u64,
    /// Waiting for another try.
    pub retrying: u64,
    /// Dead letters.
    pub dead: u64,
}

impl QueueDepth {
    /// Whether no message waits for a worker, now or after a delay.
    #[must_use]
    pub fn is_idle(self) -> bool {
        self.ready == 0 && self.retrying == 0
    }
}

/// Deliveries as they come. Ends once consuming was stopped.
pub type Deliveries = BoxStream<'static, Delivery>;

/// A durable first-in, first-out queue of jobs with retries and dead letters.
#[async_trait]
pub trait JobQueue: Send + Sync {
    /// The queue that jobs are published to.
    fn name(&self) -> QueueName;

    /// Starts to consume, with at most `prefetch` unsettled deliveries at a time. The stream
    /// survives lost connections. Once `stop` is cancelled no further message is taken, those
    /// not yet yielded go back to the queue, and the stream ends; deliveries that were yielded
    /// can still be settled.
    ///
    /// # Errors
    /// If the queue refuses the consumer for good (access, topology).
    async fn consume(
        &self,
        prefetch: u16,
        stop: CancellationToken,
    ) -> Result<Deliveries, QueueError>;

    /// Counts the messages.
    ///
    /// # Errors
    /// If the queue stays out of reach.
    async fn depth(&self) -> Result<QueueDepth, QueueError>;

    /// Moves dead letters back to the jobs, with their tries counted from the start: all of them,
    /// or those of one `run`. Returns how many were moved.
    ///
    /// # Errors
    /// If the queue stays out of reach. No dead letter is lost.
    async fn redrive(&self, run: Option<&RunId>) -> Result<u64, QueueError>;

    /// Why a stream of deliveries ended by itself; `None` if none did.
    fn failure(&self) -> Option<QueueError> {
        None
    }
}
