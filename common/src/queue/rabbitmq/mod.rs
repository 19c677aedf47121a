//! The job queue on RabbitMQ: many producers, many workers, nothing lost.
//!
//! Owns what `NAME.jobs`, `NAME.dead` and `NAME.retry.<seconds>` are used for. One file
//! each: [`connection`] (reaching the broker, and telling its errors apart), [`tls`]
//! (certificates), [`topology`] (the queues), [`wire`] (headers and properties), [`publisher`]
//! (confirmed messages), [`sequence`] (those of an enqueue, which can be gone on with),
//! [`bookmark`] (where it was), [`census`] (which of its last arrived), [`small_queue`] (where
//! both are kept), [`consumer`] (deliveries across lost connections), [`receipt`] (settling
//! them), [`dead_letters`] (looking at them, and back to work).

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{
    DeadLetter, Deliveries, JobQueue, Message, QueueDepth, QueueError, QueueName, RetryDelays,
};
use crate::run::RunId;
use crate::secret::Secret;

mod bookmark;
mod census;
mod connection;
mod consumer;
mod dead_letters;
mod publisher;
mod receipt;
mod sequence;
mod small_queue;
mod tls;
mod topology;
mod transport;
mod wire;

use connection::{Connector, Patience};
use consumer::Line;
use publisher::{Publisher, WhileBlocked};
use topology::Topology;
use wire::Outgoing;

pub use bookmark::Bookmark;
pub use sequence::Sequence;
pub use tls::{TlsError, TlsFiles};
pub use transport::open_connection;

/// How long [`RabbitMqQueue::close`] lets messages arrive that are on their way from one queue to
/// another. Cut off there, one would be in both.
const MOVES_PATIENCE: Duration = Duration::from_secs(2);

/// How to use the broker; where it is and who we are is in its URL.
#[derive(Clone, Debug)]
pub struct RabbitMqOptions {
    /// What the queues' names start with.
    pub name: String,
    /// How often a job is tried, and how long it rests between tries. All that use the same
    /// queues should agree on it.
    pub delays: RetryDelays,
    /// Certificates for `amqps://`.
    pub tls: TlsFiles,
    /// What the broker's own pages call the connections.
    pub connection_name: String,
    /// How long [`RabbitMqQueue::connect`] tries to reach a broker that does not answer;
    /// `None` tries for ever.
    pub connect_patience: Option<Duration>,
    /// How long publishing, counting and redriving try to go on once a connection is lost.
    /// Consuming tries for ever.
    pub patience: Duration,
}

impl Default for RabbitMqOptions {
    fn default() -> Self {
        Self {
            name: "camshaft".to_owned(),
            delays: RetryDelays::default(),
            tls: TlsFiles::default(),
            connection_name: "camshaft".to_owned(),
            connect_patience: Some(Duration::from_secs(10)),
            patience: Duration::from_secs(60),
        }
    }
}

/// A job queue on RabbitMQ. Clones share its connections.
#[derive(Clone)]
pub struct RabbitMqQueue(Arc<Shared>);

struct Shared {
    connector: Connector,
    topology: Topology,
    delays: RetryDelays,
    patience: Duration,
    publisher: Publisher,
    /// The consumers' connections, for [`RabbitMqQueue::close`].
    lines: Mutex<Vec<std::sync::Weak<Line>>>,
    /// Why no deliveries come just now.
    trouble: Mutex<Option<String>>,
    /// Why a stream of deliveries ended by itself.
    failure: Mutex<Option<QueueError>>,
    closed: CancellationToken,
    /// Messages that nobody downstream sees, on their way to the suspects or the dead letters.
    moves: TaskTracker,
    /// Receipts may be dropped outside of it.
    runtime: Handle,
}

impl RabbitMqQueue {
    /// Connects, and declares the queues where they don't exist yet.
    ///
    /// # Errors
    /// [`QueueError::Unreachable`] once `options.connect_patience` is over;
    /// [`QueueError::AccessRefused`], [`QueueError::Topology`], [`QueueError::Tls`] and
    /// [`QueueError::InvalidUrl`] at once.
    pub async fn connect(url: Secret, options: RabbitMqOptions) -> Result<Self, QueueError> {
        let connector = Connector::new(&url, options.connection_name, options.tls)?;
        let topology = Topology::new(&options.name, &options.delays)?;
        let publisher = Publisher::new(connector.clone(), topology.clone());
        publisher.open(options.connect_patience).await?;
        Ok(Self(Arc::new(Shared {
            connector,
            topology,
            delays: options.delays,
            patience: options.patience,
            publisher,
            lines: Mutex::default(),
            trouble: Mutex::default(),
            failure: Mutex::default(),
            closed: CancellationToken::new(),
            moves: TaskTracker::new(),
            runtime: Handle::current(),
        })))
    }

    /// The broker's host and port.
    #[must_use]
    pub fn address(&self) -> &str {
        self.0.connector.address()
    }

    /// What keeps messages from coming or going at this moment; it mends itself or not, but the
    /// queue goes on trying.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let consuming = self.0.trouble.lock().expect("no code panics under it").clone();
        consuming.or_else(|| self.0.publisher.blocked().map(|error| error.to_string()))
    }

    /// Every dead letter there is, of all runs. They stay where they are.
    ///
    /// # Errors
    /// Where the broker stays out of reach.
    pub async fn dead_letters(&self) -> Result<Vec<DeadLetter>, QueueError> {
        self.0.ensure_open()?;
        dead_letters::look(&self.0).await
    }

    /// Takes up a sequence of jobs where it was left, or starts it. There is one publisher of a
    /// sequence at a time: this waits until an earlier one is gone.
    ///
    /// # Errors
    /// [`QueueError::Held`] where another stays; else where the broker stays out of reach.
    pub async fn sequence(&self, name: &str) -> Result<Sequence, QueueError> {
        self.0.ensure_open()?;
        Sequence::open(Arc::clone(&self.0), name).await
    }

    /// Whether the broker has a sequence of that name that was started and has not ended.
    ///
    /// # Errors
    /// Where the broker stays out of reach.
    pub async fn has_sequence(&self, name: &str) -> Result<bool, QueueError> {
        self.0.ensure_open()?;
        let mut patience = Patience::new(Some(self.0.patience));
        loop {
            match bookmark::is_open(&self.0, name).await {
                Err(error) => patience.pause(error).await?,
                open => return open,
            }
        }
    }

    /// How many workers consume.
    ///
    /// # Errors
    /// Where the broker can't be reached.
    pub async fn workers(&self) -> Result<u64, QueueError> {
        self.0.ensure_open()?;
        self.0.publisher.workers().await
    }

    /// Ends consuming and closes every connection; deliveries not yet settled come back to
    /// the queue. Whatever is asked of the queue afterwards fails.
    pub async fn close(&self) {
        self.0.closed.cancel();
        self.0.moves.close();
        if timeout(MOVES_PATIENCE, self.0.moves.wait()).await.is_err() {
            tracing::debug!("not all messages were set apart in time; those stay where they were");
        }
        self.0.publisher.close().await;
        let lines = std::mem::take(&mut *self.0.lines.lock().expect("no code panics under it"));
        for line in lines.iter().filter_map(std::sync::Weak::upgrade) {
            line.close().await;
        }
    }
}

impl Shared {
    fn note_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().expect("no code panics under it") = trouble;
    }

    fn ensure_open(&self) -> Result<(), QueueError> {
        if self.closed.is_cancelled() { Err(QueueError::Closed) } else { Ok(()) }
    }
}

impl fmt::Debug for RabbitMqQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMqQueue")
            .field("address", &self.address())
            .field("jobs", &self.0.topology.jobs())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl JobQueue for RabbitMqQueue {
    fn name(&self) -> QueueName {
        self.0.topology.name(false)
    }

    async fn publish(&self, messages: Vec<Message>) -> Result<(), QueueError> {
        self.0.ensure_open()?;
        let jobs = self.0.topology.jobs();
        let messages: Vec<_> =
            messages.into_iter().map(|message| Outgoing::job(jobs, message)).collect();
        self.0.publisher.publish(&messages, self.0.patience, WhileBlocked::Wait).await
    }

    async fn consume(
        &self,
        prefetch: u16,
        stop: CancellationToken,
    ) -> Result<Deliveries, QueueError> {
        self.0.ensure_open()?;
        consumer::deliveries(Arc::clone(&self.0), prefetch, stop).await
    }

    async fn depth(&self) -> Result<QueueDepth, QueueError> {
        self.0.ensure_open()?;
        let mut patience = Patience::new(Some(self.0.patience));
        loop {
            match self.0.publisher.depth().await {
                Err(error) => patience.pause(error).await?,
                depth => return depth,
            }
        }
    }

    async fn redrive(&self, run: Option<&RunId>) -> Result<u64, QueueError> {
        self.0.ensure_open()?;
        dead_letters::redrive(&self.0, run).await
    }

    fn failure(&self) -> Option<QueueError> {
        self.0.failure.lock().expect("no code panics under it").clone()
    }
}
