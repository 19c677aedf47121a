//! The connection that everything but deliveries goes through, replaced when it is lost.
//!
//! Deliveries have connections of their own: a broker that is low on memory or disk stops reading
//! from a connection that publishes, and acknowledgements must not wait for that. Upstream:
//! publishing, sequences, dead letters and counting. Downstream: [`connection`](super::connection).

use std::sync::Arc;
use std::time::Duration;

use lapin::options::ConfirmSelectOptions;
use lapin::protocol::AMQPSoftError::NOTFOUND;
use lapin::types::ShortString;
use lapin::{Channel, Connection, Queue};
use parking_lot::Mutex;

use super::connection::{Connector, OPERATION_TIMEOUT};
use super::retry::retry;
use super::topology::{self, Topology, is_soft};
use crate::error::QueueError;
use crate::job_queue::QueueDepth;

/// A connection to one broker that is opened when it is needed.
pub(super) struct SharedConnection {
    connector: Connector,
    topology: Topology,
    creates_queues: bool,
    state: tokio::sync::Mutex<ConnectionState>,
}

enum ConnectionState {
    Disconnected,
    Connected(Arc<OpenConnection>),
    Closed,
}

/// An open connection whose queues exist.
pub(super) struct OpenConnection {
    connection: Connection,
    /// Channels with confirms on that nobody uses at the moment.
    idle_channels: Mutex<Vec<Channel>>,
}

impl SharedConnection {
    /// If it `creates_queues`, it declares those that don't exist whenever it connects. Otherwise it
    /// connects only if they are there.
    pub(super) fn new(connector: Connector, topology: Topology, creates_queues: bool) -> Self {
        let state = tokio::sync::Mutex::new(ConnectionState::Disconnected);
        Self { connector, topology, creates_queues, state }
    }

    pub(super) fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Connects before there is anything to do.
    pub(super) async fn open(&self, limit: Option<Duration>) -> Result<(), QueueError> {
        retry(limit, || self.get()).await.map(|_| ())
    }

    /// The connection, opened again if it was lost. One try.
    pub(super) async fn get(&self) -> Result<Arc<OpenConnection>, QueueError> {
        let mut state = self.state.lock().await;
        match &*state {
            ConnectionState::Closed => return Err(QueueError::Closed),
            ConnectionState::Connected(open) if open.connection.status().connected() => {
                return Ok(Arc::clone(open));
            }
            ConnectionState::Connected(_) | ConnectionState::Disconnected => {}
        }
        *state = ConnectionState::Disconnected;
        let connection = self.connector.connect().await?;
        if self.creates_queues {
            self.connector.answer(self.topology.declare(&connection)).await?;
        } else if let Some(queue) =
            self.connector.answer(self.topology.first_missing(&connection)).await?
        {
            let (address, queue) = (self.connector.address().to_owned(), queue.as_str().to_owned());
            close_connection(&connection).await;
            return Err(QueueError::NoQueue { address, queue });
        }
        let open = Arc::new(OpenConnection { connection, idle_channels: Mutex::default() });
        *state = ConnectionState::Connected(Arc::clone(&open));
        Ok(open)
    }

    /// A new channel without confirms.
    pub(super) async fn channel(&self) -> Result<Channel, QueueError> {
        let open = self.get().await?;
        self.connector.answer(open.connection.create_channel()).await
    }

    /// As [`SharedConnection::channel`], after the broker has closed a channel.
    pub(super) async fn channel_after_refusal(&self) -> Result<Channel, QueueError> {
        let open = self.get().await?;
        self.connector.answer(topology::channel_after_refusal(&open.connection)).await
    }

    /// A channel of `open` with confirms on that nobody else uses.
    pub(super) async fn confirming_channel(
        &self,
        open: &OpenConnection,
    ) -> Result<Channel, QueueError> {
        if let Some(channel) = open.take_idle() {
            return Ok(channel);
        }
        self.new_confirming_channel(open).await
    }

    /// As [`SharedConnection::confirming_channel`], but never one that was used before.
    pub(super) async fn new_confirming_channel(
        &self,
        open: &OpenConnection,
    ) -> Result<Channel, QueueError> {
        self.connector
            .answer(async {
                let channel = open.connection.create_channel().await?;
                channel.confirm_select(ConfirmSelectOptions::default()).await?;
                Ok(channel)
            })
            .await
    }

    /// The error that the broker takes no messages for now; `None` if it takes them.
    pub(super) fn blocked(&self) -> Option<QueueError> {
        // If another task holds the lock, it is connecting and will see for itself.
        let state = self.state.try_lock().ok()?;
        match &*state {
            ConnectionState::Connected(open) => self.blocked_error(open),
            ConnectionState::Disconnected | ConnectionState::Closed => None,
        }
    }

    /// As [`SharedConnection::blocked`], for one connection.
    pub(super) fn blocked_error(&self, open: &OpenConnection) -> Option<QueueError> {
        let address = self.connector.address().to_owned();
        open.connection.status().blocked().then_some(QueueError::Blocked { address })
    }

    /// Counts the messages of every queue.
    pub(super) async fn depth(&self) -> Result<QueueDepth, QueueError> {
        let open = self.get().await?;
        let counting = async {
            let mut channel = open.connection.create_channel().await?;
            let mut retrying = 0;
            for name in self.topology.retries() {
                match topology::look(&channel, name).await {
                    // Those who created the queues have another delay.
                    Err(error) if !self.creates_queues && is_soft(&error, &NOTFOUND) => {
                        channel = topology::channel_after_refusal(&open.connection).await?;
                    }
                    looked => retrying += u64::from(looked?.message_count()),
                }
            }
            Ok((retrying, channel))
        };
        let (retrying, channel) = self.answer_or_disconnect(counting).await?;
        let ready = self.count_messages(&channel, self.topology.jobs()).await?
            + self.count_messages(&channel, self.topology.suspects()).await?;
        let dead = self.count_messages(&channel, self.topology.dead()).await?;
        Ok(QueueDepth { ready, retrying, dead })
    }

    /// Counts the messages that are ready in a queue.
    pub(super) async fn count_messages(
        &self,
        channel: &Channel,
        queue: &ShortString,
    ) -> Result<u64, QueueError> {
        Ok(u64::from(self.inspect(channel, queue).await?.message_count()))
    }

    /// Counts the workers that consume jobs.
    pub(super) async fn count_workers(&self) -> Result<u64, QueueError> {
        let channel = self.channel().await?;
        Ok(u64::from(self.inspect(&channel, self.topology.jobs()).await?.consumer_count()))
    }

    /// How many messages and consumers a queue has.
    async fn inspect(&self, channel: &Channel, queue: &ShortString) -> Result<Queue, QueueError> {
        self.answer_or_disconnect(topology::look(channel, queue)).await
    }

    /// Waits for an answer about a queue. Without one, someone has deleted it: the next connection
    /// declares it again, or says that it is not there.
    async fn answer_or_disconnect<T>(
        &self,
        asking: impl Future<Output = Result<T, lapin::Error>>,
    ) -> Result<T, QueueError> {
        let answered = self.connector.answer(asking).await;
        if answered.is_err() {
            self.disconnect().await;
        }
        answered
    }

    /// Drops a connection that failed, unless another has replaced it.
    pub(super) async fn discard(&self, failed: &Arc<OpenConnection>) {
        let mut state = self.state.lock().await;
        if matches!(&*state, ConnectionState::Connected(open) if Arc::ptr_eq(open, failed)) {
            *state = ConnectionState::Disconnected;
        }
    }

    async fn disconnect(&self) {
        let mut state = self.state.lock().await;
        if matches!(&*state, ConnectionState::Connected(_)) {
            *state = ConnectionState::Disconnected;
        }
    }

    /// Closes the connection. Every later call fails.
    pub(super) async fn close(&self) {
        let state = std::mem::replace(&mut *self.state.lock().await, ConnectionState::Closed);
        if let ConnectionState::Connected(open) = state {
            close_connection(&open.connection).await;
        }
    }
}

/// Closes a connection in the protocol's own way, if the broker still listens.
pub(super) async fn close_connection(connection: &Connection) {
    let closing = connection.close(200, "closed".into());
    match tokio::time::timeout(OPERATION_TIMEOUT, closing).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "connection was closed already"),
        Err(_) => tracing::debug!("broker did not confirm the end of the connection"),
    }
}

impl OpenConnection {
    fn take_idle(&self) -> Option<Channel> {
        let mut idle = self.idle_channels.lock();
        while let Some(channel) = idle.pop() {
            if channel.status().connected() {
                return Some(channel);
            }
        }
        None
    }

    /// Keeps a channel with confirms on, all of whose messages are confirmed, for the next user.
    pub(super) fn put_back(&self, channel: Channel) {
        self.idle_channels.lock().push(channel);
    }
}
