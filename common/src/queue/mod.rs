//! The job queue: where the producer's messages wait for a worker.
//!
//! Two implementations with one meaning: [`RabbitMqQueue`] for many machines and
//! [`InProcessQueue`] for `camshaft audit`. A message leaves the queue only when its
//! [`Receipt`] is settled; a receipt dropped unsettled hands its message back.
//! Upstream: enqueue. Downstream: the worker's pipeline.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use tokio_util::sync::CancellationToken;

use crate::run::RunId;
use crate::telemetry::TraceContext;

mod in_process;
mod rabbitmq;

pub use in_process::InProcessQueue;
#[doc(hidden)]
pub use rabbitmq::open_connection;
pub use rabbitmq::{Bookmark, RabbitMqOptions, RabbitMqQueue, Sequence, TlsError, TlsFiles};

/// Header with the number of tries a message has had when it is published again.
pub const ATTEMPTS_HEADER: &str = "x-camshaft-attempts";
/// Header with the number of deliveries that ended without an answer before the message was set
/// apart.
pub const LOSSES_HEADER: &str = "x-camshaft-losses";
/// Header of a dead letter: why it is one.
pub const REASON_HEADER: &str = "x-camshaft-reason";
/// Header of a job: where in its run's images the enqueue was that published it.
pub const BOOKMARK_HEADER: &str = "x-camshaft-bookmark";
/// Beside it: how far the messages up to this one had arrived when it was published.
pub const STANDING_HEADER: &str = "x-camshaft-standing";
/// Media type of every message.
pub const CONTENT_TYPE: &str = "application/json";

/// How often a job is tried, and how long it rests between tries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryDelays(Vec<Duration>);

impl RetryDelays {
    /// One delay after each try but the last. Whole seconds; empty means a single try.
    #[must_use]
    pub fn new(delays: Vec<Duration>) -> Self {
        Self(delays)
    }

    /// The rest after the try numbered `attempt` (from 1); `None` after the last.
    #[must_use]
    pub fn after(&self, attempt: u32) -> Option<Duration> {
        self.0.get(usize::try_from(attempt.checked_sub(1)?).ok()?).copied()
    }

    /// Every delay, in order.
    pub fn iter(&self) -> impl Iterator<Item = Duration> + '_ {
        self.0.iter().copied()
    }

    /// How many tries there are in all.
    #[must_use]
    pub fn max_attempts(&self) -> usize {
        self.0.len() + 1
    }
}

impl Default for RetryDelays {
    /// Five tries over six minutes: long enough for a store's bad moment, short enough
    /// that a job doesn't outlive the person waiting for it.
    fn default() -> Self {
        Self([2, 10, 60, 300].map(Duration::from_secs).to_vec())
    }
}

/// Which queue messages are in, in the words of OpenTelemetry's conventions for messaging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueName {
    /// What kind of queue: `messaging.system`.
    pub system: &'static str,
    /// Its name there: `messaging.destination.name`.
    pub name: Arc<str>,
}

/// A message to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The job as JSON.
    pub body: Bytes,
    /// The image's trace.
    pub trace: Option<TraceContext>,
}

/// A message taken from the queue, not yet settled.
#[derive(Debug)]
pub struct Delivery {
    /// The job as JSON, unread.
    pub body: Bytes,
    /// Where it waited.
    pub queue: QueueName,
    /// Which try this is, from 1.
    pub attempt: u32,
    /// Whether the queue handed it out before without an answer.
    pub redelivered: bool,
    /// Whether it is to be worked on with nothing beside it: workers were lost while they held
    /// it, and it may be the reason.
    pub alone: bool,
    /// The image's trace.
    pub trace: Option<TraceContext>,
    /// When it was published, to the second, where the queue tells.
    pub published_at: Option<SystemTime>,
    /// The one way to settle it.
    pub receipt: Receipt,
}

/// What becomes of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its result is stored: forget the message.
    Ack,
    /// A passing error: try again after a delay, or dead-letter it after the last try.
    Retry {
        /// What went wrong this time.
        reason: String,
    },
    /// It can never be done: keep it among the dead letters.
    DeadLetter {
        /// Why not.
        reason: String,
    },
}

/// What the queue did with a settled delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Gone from the queue.
    Acknowledged,
    /// Will be delivered again after this delay.
    Retrying(Duration),
    /// Kept among the dead letters.
    DeadLettered,
}

/// The queue's side of a [`Receipt`].
#[async_trait]
pub trait Settle: Send + Sync {
    /// Does what `outcome` says, confirmed by the queue before it returns.
    async fn settle(self: Box<Self>, outcome: Outcome) -> Result<Settlement, QueueError>;
    /// Hands the message back for another delivery. Must not block.
    fn hand_back(self: Box<Self>);
}

/// The one way to settle a delivery. Dropped unsettled, it hands the message back.
#[must_use = "a delivery that is never settled comes back"]
pub struct Receipt(Option<Box<dyn Settle>>);

impl Receipt {
    /// Wraps a queue's own receipt.
    pub fn new(settle: Box<dyn Settle>) -> Self {
        Self(Some(settle))
    }

    /// Settles the delivery.
    ///
    /// # Errors
    /// Where the queue can't be reached or the delivery is no longer this consumer's.
    /// The message is then delivered again: nothing is lost, work may be done twice.
    pub async fn settle(mut self, outcome: Outcome) -> Result<Settlement, QueueError> {
        let settle = self.0.take().expect("only settle and drop take it, and both consume self");
        settle.settle(outcome).await
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(settle) = self.0.take() {
            settle.hand_back();
        }
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receipt")
    }
}

/// How many messages wait where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueDepth {
    /// Ready for a worker, those set apart included.
    pub ready: u64,
    /// Resting in a retry queue.
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

/// A message that will not be tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The job as JSON, unread.
    pub body: Bytes,
    /// Why it is one.
    pub reason: String,
    /// How many tries it had.
    pub attempts: u32,
    /// The image's trace.
    pub trace: Option<TraceContext>,
}

/// Deliveries as they come; ends when consuming was stopped.
pub type Deliveries = BoxStream<'static, Delivery>;

/// A durable first-in, first-out queue of jobs with retries and dead letters.
#[async_trait]
pub trait JobQueue: Send + Sync {
    /// Where messages are published to.
    fn name(&self) -> QueueName;

    /// Publishes messages, and returns once the queue has taken responsibility for all.
    ///
    /// # Errors
    /// Where the queue refuses them or stays out of reach. Some may have been taken:
    /// publishing all again is safe, since a job done twice has the same result.
    async fn publish(&self, messages: Vec<Message>) -> Result<(), QueueError>;

    /// Starts to consume, holding at most `prefetch` unsettled deliveries at a time. The
    /// stream survives lost connections. Once `stop` is cancelled no further message is
    /// taken, those not yet yielded are handed back, and the stream ends; deliveries
    /// already yielded can still be settled.
    ///
    /// # Errors
    /// Where the queue refuses the consumer for good (access, topology).
    async fn consume(
        &self,
        prefetch: u16,
        stop: CancellationToken,
    ) -> Result<Deliveries, QueueError>;

    /// Counts what waits.
    ///
    /// # Errors
    /// Where the queue stays out of reach.
    async fn depth(&self) -> Result<QueueDepth, QueueError>;

    /// Moves dead letters back to be worked on, with their tries counted from the start;
    /// those of one run where `run` says so. Returns how many were moved.
    ///
    /// # Errors
    /// Where the queue stays out of reach. No letter is lost.
    async fn redrive(&self, run: Option<&RunId>) -> Result<u64, QueueError>;

    /// Why a stream of deliveries ended though nobody stopped it; `None` where none did.
    fn failure(&self) -> Option<QueueError> {
        None
    }
}

/// The run a message belongs to, read with no regard for the rest of it: dead letters are
/// often those whose message can't be read as a job.
fn run_of(body: &[u8]) -> Option<RunId> {
    #[derive(serde::Deserialize)]
    struct OfRun {
        run: RunId,
    }
    serde_json::from_slice::<OfRun>(body).ok().map(|OfRun { run }| run)
}

/// What a job queue can fail with. No variant's text carries a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// Nothing answers, or the connection broke: trying again may help.
    #[error(
        "cannot reach the broker at {address}: {reason}; is it running, and is the address right?"
    )]
    Unreachable {
        /// Host and port.
        address: String,
        /// What the library said, without secrets.
        reason: String,
    },
    /// The broker knows us not, or forbids it: trying again won't help.
    #[error(
        "the broker at {address} refused access: {reason}; check user, password, virtual host and permissions"
    )]
    AccessRefused {
        /// Host and port.
        address: String,
        /// What the broker said, without secrets.
        reason: String,
    },
    /// No TLS with the broker: trying again won't help.
    #[error("no TLS with the broker at {address}: {reason}")]
    Tls {
        /// Host and port.
        address: String,
        /// Why not, and what to do.
        reason: TlsError,
    },
    /// The broker URL can't be read. The URL itself is not shown: it may hold a password.
    #[error("the broker URL is not valid: {reason}; expected amqp://USER:PASSWORD@HOST:PORT/VHOST")]
    InvalidUrl {
        /// What is wrong with it.
        reason: String,
    },
    /// A queue of that name exists with other properties.
    #[error(
        "the broker at {address} has a queue that doesn't fit: {reason}; delete it, or choose another name with --queue"
    )]
    Topology {
        /// Host and port.
        address: String,
        /// What the broker said.
        reason: String,
    },
    /// The broker takes no messages for now.
    #[error(
        "the broker at {address} takes no messages for now: it is low on memory or disk; see its log, and let workers empty its queues"
    )]
    Blocked {
        /// Host and port.
        address: String,
    },
    /// The broker would not take a message.
    #[error("the broker refused a message: {reason}")]
    Rejected {
        /// What the broker said.
        reason: String,
    },
    /// Somebody else publishes the same sequence.
    #[error(
        "another enqueue of this run is under way at the broker {address}; wait until it is done, \
         or end it, and start again"
    )]
    Held {
        /// Host and port.
        address: String,
    },
    /// The delivery belongs to a connection that is gone; it will come again.
    #[error("the connection that delivered this message is gone; it will be delivered again")]
    Stale,
    /// The queue was closed.
    #[error("the queue is closed")]
    Closed,
}

impl QueueError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Blocked { .. }
            | Self::Rejected { .. }
            | Self::Stale => true,
            Self::AccessRefused { .. }
            | Self::Tls { .. }
            | Self::InvalidUrl { .. }
            | Self::Topology { .. }
            | Self::Held { .. }
            | Self::Closed => false,
        }
    }
}
