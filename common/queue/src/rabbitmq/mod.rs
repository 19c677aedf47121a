//! The job queue on RabbitMQ: many producers, many workers, nothing lost.
//!
//! This file only wires the parts together. From the bottom up:
//! - reaching the broker: [`tls`] (certificates), [`connection`] (one try to connect, and what errors
//!   mean), [`retry`] (how long to try), [`topology`] (the queues), [`wire`] (headers and
//!   properties), [`shared_connection`] (the connection for everything but deliveries), [`broker`]
//!   (all of these together)
//! - publishing: [`publisher`] (confirmed, in no particular order), [`bookmark`] and [`sequence`] (the
//!   jobs of an enqueue, which another process can continue), [`dead_letters`] and [`run_notes`] (which
//!   are read where they are, and handed back by [`hand_back`])
//! - consuming: [`consumer_channel`], [`receipt`] (settling a delivery), [`held_deliveries`] (all that
//!   are not settled), [`consumer_session`] (one connection), [`consumer`] (across lost connections)

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use camshaft_common::run::RunId;
use camshaft_common::secret::Secret;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::error::QueueError;
use crate::job_queue::{Deliveries, JobQueue, QueueDepth};
use crate::message::{DeadLetter, QueueName, RunNote};
use crate::retry_delays::RetryDelays;

mod bookmark;
mod broker;
mod connection;
mod consumer;
mod consumer_channel;
mod consumer_session;
mod dead_letters;
mod hand_back;
mod held_deliveries;
mod held_delivery;
mod publisher;
mod receipt;
mod retry;
mod run_notes;
mod sequence;
mod shared_connection;
mod tls;
mod topology;
mod transport;
mod wire;

use broker::Broker;
use connection::Connector;
use consumer::Consumers;
use retry::retry;
use topology::Topology;

pub use bookmark::Bookmark;
pub use connection::is_remote;
pub use sequence::{MAX_UNCONFIRMED, Sequence};
pub use tls::TlsFiles;
pub use transport::open_connection;
pub use wire::REASON_HEADER;

/// How to use the broker. Its URL says where it is and who we are.
#[derive(Clone, Debug)]
pub struct RabbitMqOptions {
    /// The first part of the queues' names.
    pub name: String,
    /// How often a job is tried, and how long it waits between tries. All programs that use the
    /// same queues should agree on it.
    pub delays: RetryDelays,
    /// Certificates for `amqps://`.
    pub tls: TlsFiles,
    /// True to create the queues that don't exist yet. Otherwise it is an error if they don't.
    pub creates_queues: bool,
    /// What the broker's own pages call the connections.
    pub connection_name: String,
    /// How long [`RabbitMqQueue::connect`] tries to reach a broker that does not answer;
    /// `None` tries for ever.
    pub connect_limit: Option<Duration>,
    /// How long publishing, counting and redriving try to go on once a connection is lost.
    /// Consuming tries for ever.
    pub retry_limit: Duration,
}

impl Default for RabbitMqOptions {
    fn default() -> Self {
        Self {
            name: "camshaft".to_owned(),
            delays: RetryDelays::default(),
            tls: TlsFiles::default(),
            creates_queues: true,
            connection_name: "camshaft".to_owned(),
            connect_limit: Some(Duration::from_secs(10)),
            retry_limit: Duration::from_secs(60),
        }
    }
}

/// A job queue on RabbitMQ. Clones share its connections.
#[derive(Clone)]
pub struct RabbitMqQueue {
    broker: Arc<Broker>,
    consumers: Arc<Consumers>,
}

impl RabbitMqQueue {
    /// Connects, and declares the queues that don't exist yet, unless the options forbid it.
    ///
    /// # Errors
    /// [`QueueError::Unreachable`] once `options.connect_limit` is over;
    /// [`QueueError::AccessRefused`], [`QueueError::Topology`], [`QueueError::NoQueue`],
    /// [`QueueError::Tls`], [`QueueError::QueueNameTooLong`] and [`QueueError::InvalidUrl`] at once.
    pub async fn connect(url: Secret, options: RabbitMqOptions) -> Result<Self, QueueError> {
        let RabbitMqOptions { name, delays, tls, creates_queues, .. } = options;
        let connector = Connector::new(&url, options.connection_name, tls)?;
        let topology = Topology::new(&name, &delays)?;
        let (connect_limit, retry_limit) = (options.connect_limit, options.retry_limit);
        let broker = Broker::new(connector, topology, delays, retry_limit, creates_queues);
        broker.connection.open(connect_limit).await?;
        Ok(Self { broker: Arc::new(broker), consumers: Arc::default() })
    }

    /// Checks what [`Self::connect`] would be given, without connecting.
    ///
    /// # Errors
    /// [`QueueError::Tls`], [`QueueError::QueueNameTooLong`] and [`QueueError::InvalidUrl`].
    pub fn check(url: &Secret, options: &RabbitMqOptions) -> Result<(), QueueError> {
        Connector::new(url, options.connection_name.clone(), options.tls.clone())?;
        Topology::new(&options.name, &options.delays)?;
        Ok(())
    }

    /// The broker's host and port.
    #[must_use]
    pub fn address(&self) -> &str {
        self.broker.connector.address()
    }

    /// What keeps messages from coming or going at the moment. The queue goes on trying.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let blocked = || self.broker.connection.blocked().map(|error| error.to_string());
        self.consumers.problem().or_else(blocked)
    }

    /// All dead letters, of every run. They stay where they are.
    ///
    /// # Errors
    /// If the broker stays out of reach.
    pub async fn dead_letters(&self) -> Result<Vec<DeadLetter>, QueueError> {
        self.consumers.ensure_open()?;
        dead_letters::read_all(&self.broker).await
    }

    /// Leaves a note of a run whose jobs come into the queue. The newest few thousand notes are kept.
    ///
    /// # Errors
    /// [`QueueError::AccessRefused`] if this user may leave none; else if the broker stays out of reach.
    pub async fn note_run(&self, note: RunNote) -> Result<(), QueueError> {
        self.consumers.ensure_open()?;
        run_notes::leave(&self.broker, note).await
    }

    /// All notes of runs, in no particular order. They stay where they are.
    ///
    /// # Errors
    /// As [`Self::note_run`].
    pub async fn run_notes(&self) -> Result<Vec<RunNote>, QueueError> {
        self.consumers.ensure_open()?;
        run_notes::read_all(&self.broker).await
    }

    /// Removes these notes of runs.
    ///
    /// # Errors
    /// As [`Self::note_run`].
    pub async fn remove_run_notes(&self, notes: &[RunNote]) -> Result<(), QueueError> {
        self.consumers.ensure_open()?;
        run_notes::remove(&self.broker, notes).await
    }

    /// Continues a sequence of jobs where it was left, or starts it. A sequence has one publisher
    /// at a time: this waits until an earlier one is gone.
    ///
    /// # Errors
    /// [`QueueError::SequenceInUse`] if another publisher stays; else if the broker stays out of
    /// reach.
    pub async fn sequence(&self, name: &str) -> Result<Sequence, QueueError> {
        self.consumers.ensure_open()?;
        Sequence::open(Arc::clone(&self.broker), name).await
    }

    /// How many workers consume.
    ///
    /// # Errors
    /// If the broker can't be reached.
    pub async fn workers(&self) -> Result<u64, QueueError> {
        self.consumers.ensure_open()?;
        self.broker.connection.count_workers().await
    }

    /// As [`JobQueue::consume`], with a prefetch that may change while consuming. A change takes
    /// effect once every delivery is settled, and no further one is taken before. If the new
    /// prefetch is lower, deliveries that were not yielded yet go back to the queue as far as it has
    /// no room for them; neither a try nor a loss is counted.
    ///
    /// # Errors
    /// As [`JobQueue::consume`].
    pub async fn consume_adjusting(
        &self,
        prefetch: watch::Receiver<u16>,
        stop: CancellationToken,
    ) -> Result<Deliveries, QueueError> {
        self.consumers.ensure_open()?;
        let (broker, consumers) = (Arc::clone(&self.broker), Arc::clone(&self.consumers));
        consumer::deliveries(broker, consumers, prefetch, stop).await
    }

    /// Makes every consumer hold at most `limit` unsettled deliveries for now, or none if it is zero.
    /// `None` goes back to its own prefetch. This changes a prefetch as
    /// [`RabbitMqQueue::consume_adjusting`] says: the lower of the two holds.
    pub fn limit_prefetch(&self, limit: Option<u16>) {
        self.consumers.limit_prefetch(limit);
    }

    /// Hands back every delivery that is not settled, as [`Outcome::HandBack`] does. Its receipt can
    /// settle nothing any more. To be called once consuming was stopped. Returns how many there were.
    ///
    /// # Errors
    /// If the broker takes no messages. Then it delivers these again, and may count a loss of each.
    ///
    /// [`Outcome::HandBack`]: crate::Outcome::HandBack
    pub async fn hand_back(&self) -> Result<usize, QueueError> {
        self.consumers.ensure_open()?;
        self.consumers.hand_back_all(&self.broker).await
    }

    /// Ends consuming and closes every connection. Unsettled deliveries come back to the queue, and
    /// a loss of each is counted. Every later call fails.
    pub async fn close(&self) {
        self.consumers.stop().await;
        self.broker.connection.close().await;
        self.consumers.close_connections().await;
    }
}

impl fmt::Debug for RabbitMqQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMqQueue")
            .field("address", &self.address())
            .field("jobs", &self.broker.topology.jobs())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl JobQueue for RabbitMqQueue {
    fn name(&self) -> QueueName {
        self.broker.topology.name(false)
    }

    async fn consume(
        &self,
        prefetch: u16,
        stop: CancellationToken,
    ) -> Result<Deliveries, QueueError> {
        // Its sender is gone, so it never changes.
        let (_, prefetch) = watch::channel(prefetch);
        self.consume_adjusting(prefetch, stop).await
    }

    async fn depth(&self) -> Result<QueueDepth, QueueError> {
        self.consumers.ensure_open()?;
        let connection = &self.broker.connection;
        retry(Some(self.broker.retry_limit), || connection.depth()).await
    }

    async fn redrive(&self, run: Option<&RunId>) -> Result<u64, QueueError> {
        self.consumers.ensure_open()?;
        dead_letters::redrive(&self.broker, run).await
    }

    fn failure(&self) -> Option<QueueError> {
        self.consumers.failure()
    }
}
