//! Confirmed messages: published is what the broker has taken responsibility for.
//!
//! Owns the connection that everything but deliveries goes through (the broker stops reading
//! from those that publish when it runs low, and acknowledgements must not wait for that),
//! its pool of channels, and what happens when it is lost. Upstream: enqueue, receipts that
//! retry or dead-letter, redrive.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};

use lapin::message::BasicReturnMessage;
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Confirmation, Connection, PublisherConfirm, Queue};
use tokio::sync::Semaphore;

use super::census;
use super::connection::{Connector, OPERATION_TIMEOUT, Patience};
use super::topology::Topology;
use super::wire::Outgoing;
use crate::{QueueDepth, QueueError};

/// Messages handed to the socket at a time: enough to fill it, few enough to bound memory.
const WINDOW: usize = 256;
/// Far below the 2047 channels a broker allows a connection.
const MAX_CHANNELS: usize = 64;

/// Publishes to one broker, over a connection that it replaces when it is lost.
pub(super) struct Publisher {
    connector: Connector,
    topology: Topology,
    state: tokio::sync::Mutex<State>,
    permits: Semaphore,
}

/// What publishing does while the broker is low on memory or disk, which can last until its queues
/// are emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WhileBlocked {
    /// Goes on trying for as long as it lasts.
    Wait,
    /// Counts it as any other fault.
    GiveUp,
}

enum State {
    Disconnected,
    Connected(Arc<Link>),
    Closed,
}

/// A connection whose queues are declared.
pub(super) struct Link {
    connection: Connection,
    /// Channels with confirms on and nothing under way.
    idle: Mutex<Vec<Channel>>,
}

impl Publisher {
    pub(super) fn new(connector: Connector, topology: Topology) -> Self {
        let state = tokio::sync::Mutex::new(State::Disconnected);
        Self { connector, topology, state, permits: Semaphore::new(MAX_CHANNELS) }
    }

    /// Connects before there is anything to publish.
    pub(super) async fn open(&self, limit: Option<Duration>) -> Result<(), QueueError> {
        let mut patience = Patience::new(limit);
        loop {
            match self.link().await {
                Ok(_) => return Ok(()),
                Err(error) => patience.pause(error).await?,
            }
        }
    }

    /// Publishes all messages in order and waits until each is confirmed. Those not yet
    /// confirmed when a connection is lost are published again, so some may be there twice.
    pub(super) async fn publish(
        &self,
        messages: &[Outgoing],
        limit: Duration,
        while_blocked: WhileBlocked,
    ) -> Result<(), QueueError> {
        let mut pending: Vec<usize> = (0..messages.len()).collect();
        let mut patience = Patience::new(Some(limit));
        while !pending.is_empty() {
            let before = pending.len();
            if let Err(error) = self.attempt(messages, &mut pending).await {
                let waits = while_blocked == WhileBlocked::Wait
                    && matches!(error, QueueError::Blocked { .. });
                if pending.len() < before || waits {
                    patience = Patience::new(Some(limit));
                }
                patience.pause(error).await?;
            }
        }
        Ok(())
    }

    async fn attempt(
        &self,
        messages: &[Outgoing],
        pending: &mut Vec<usize>,
    ) -> Result<(), QueueError> {
        let _permit = self.permits.acquire().await.expect("permits are never closed");
        let link = self.link().await?;
        let result = async {
            let channel = self.channel(&link).await?;
            self.send(&channel, messages, pending).await?;
            link.put_back(channel);
            Ok(())
        }
        .await;
        if result.is_err() {
            self.forget(&link).await;
            // The broker says so, and reads nothing more: no answer is the consequence.
            if link.blocked() {
                return Err(QueueError::Blocked { address: self.connector.address().to_owned() });
            }
        }
        result
    }

    /// Sends what is `pending` over a channel nothing else uses, and takes out of it what was
    /// confirmed.
    async fn send(
        &self,
        channel: &Channel,
        messages: &[Outgoing],
        pending: &mut Vec<usize>,
    ) -> Result<(), QueueError> {
        let mut outcome = Ok(());
        let mut confirms = Vec::with_capacity(pending.len());
        let addition = census::addition(&self.topology);
        for window in pending.chunks(WINDOW) {
            // Goes first, so that no enqueue takes what follows for jobs of its own.
            let before = std::iter::once((None, &addition));
            let following = window.iter().map(|&index| (Some(index), &messages[index]));
            let sends = before.chain(following).map(|(index, message)| {
                publish(channel, message.clone(), index.is_some()).map(move |sent| (index, sent))
            });
            match tokio::time::timeout(OPERATION_TIMEOUT, join_all(sends)).await {
                Err(_) => outcome = Err(self.connector.no_answer(OPERATION_TIMEOUT)),
                Ok(sent) => {
                    for (index, sent) in sent {
                        match sent {
                            Ok(confirm) => confirms.push((index, confirm)),
                            Err(error) => outcome = Err(self.connector.classify(&error)),
                        }
                    }
                }
            }
            if outcome.is_err() {
                break;
            }
        }
        let mut confirmed = vec![false; messages.len()];
        for (index, confirm) in confirms {
            match self.confirmed(confirm).await {
                Ok(()) => {
                    if let Some(index) = index {
                        confirmed[index] = true;
                    }
                }
                // The library may hand a returned message to a neighbour's confirm: which one
                // it was is not known, so none of them counts.
                Err(error @ Refusal::Returned(_)) => return Err(error.into()),
                Err(error @ Refusal::Refused(_)) => outcome = Err(error.into()),
                Err(error @ Refusal::NoAnswer(_)) => {
                    outcome = Err(error.into());
                    break;
                }
            }
        }
        pending.retain(|&index| !confirmed[index]);
        outcome
    }

    async fn confirmed(&self, confirm: PublisherConfirm) -> Result<(), Refusal> {
        match tokio::time::timeout(OPERATION_TIMEOUT, confirm).await {
            Ok(Ok(Confirmation::Ack(None))) => Ok(()),
            Ok(Ok(Confirmation::Ack(Some(message)) | Confirmation::Nack(Some(message)))) => {
                Err(Refusal::Returned(returned(&message)))
            }
            Ok(Ok(Confirmation::Nack(None))) => Err(Refusal::Refused(QueueError::Rejected {
                reason: "it could not store it; see the broker's log and its disk".to_owned(),
            })),
            Ok(Ok(Confirmation::NotRequested)) => {
                unreachable!("every channel of the pool has confirms on")
            }
            Ok(Err(error)) => Err(Refusal::Refused(self.connector.classify(&error))),
            Err(_) => Err(Refusal::NoAnswer(self.connector.no_answer(OPERATION_TIMEOUT))),
        }
    }

    /// Whether the broker has said that it takes no messages for now.
    pub(super) fn blocked(&self) -> Option<QueueError> {
        // Whoever holds it is about to find out.
        let state = self.state.try_lock().ok()?;
        match &*state {
            State::Connected(link) if link.blocked() => {
                Some(QueueError::Blocked { address: self.connector.address().to_owned() })
            }
            _ => None,
        }
    }

    /// Counts the messages of every queue.
    pub(super) async fn depth(&self) -> Result<QueueDepth, QueueError> {
        let channel = self.fresh_channel().await?;
        let retrying = self.resting(&channel).await?;
        let ready = self.count(&channel, self.topology.jobs()).await?
            + self.count(&channel, self.topology.suspects()).await?;
        let dead = self.count(&channel, self.topology.dead()).await?;
        Ok(QueueDepth { ready, retrying, dead })
    }

    /// Counts the messages that rest before a retry.
    pub(super) async fn resting(&self, channel: &Channel) -> Result<u64, QueueError> {
        let mut resting = 0;
        for name in self.topology.retries() {
            resting += self.count(channel, name).await?;
        }
        Ok(resting)
    }

    /// Counts the messages that are ready in a queue.
    pub(super) async fn count(
        &self,
        channel: &Channel,
        queue: &ShortString,
    ) -> Result<u64, QueueError> {
        Ok(u64::from(self.look_at(channel, queue).await?.message_count()))
    }

    /// Counts those who consume jobs.
    pub(super) async fn workers(&self) -> Result<u64, QueueError> {
        let channel = self.fresh_channel().await?;
        Ok(u64::from(self.look_at(&channel, self.topology.jobs()).await?.consumer_count()))
    }

    /// Counts the messages that are ready in a queue, and those who consume it.
    pub(super) async fn look_at(
        &self,
        channel: &Channel,
        queue: &ShortString,
    ) -> Result<Queue, QueueError> {
        let options = QueueDeclareOptions::durable().passive();
        let declaring = channel.queue_declare(queue.clone(), options, FieldTable::default());
        let looked = self.answer(declaring).await;
        if looked.is_err() {
            // Someone deleted the queue: the next connection declares it again.
            self.disconnect().await;
        }
        looked
    }

    /// A channel for anything but publishing.
    pub(super) async fn fresh_channel(&self) -> Result<Channel, QueueError> {
        let link = self.link().await?;
        self.answer(link.connection.create_channel()).await
    }

    /// Waits for an answer, but not for ever: a broker that is low on memory or disk stops
    /// reading from this connection.
    pub(super) async fn answer<T>(
        &self,
        asking: impl Future<Output = Result<T, lapin::Error>>,
    ) -> Result<T, QueueError> {
        match tokio::time::timeout(OPERATION_TIMEOUT, asking).await {
            Ok(result) => result.map_err(|error| self.connector.classify(&error)),
            Err(_) => Err(self.connector.no_answer(OPERATION_TIMEOUT)),
        }
    }

    /// The connection, made anew where it is lost. One try.
    pub(super) async fn link(&self) -> Result<Arc<Link>, QueueError> {
        let mut state = self.state.lock().await;
        match &*state {
            State::Closed => return Err(QueueError::Closed),
            State::Connected(link) if link.connection.status().connected() => {
                return Ok(Arc::clone(link));
            }
            State::Connected(_) | State::Disconnected => {}
        }
        *state = State::Disconnected;
        let connection = self.connector.connect().await?;
        self.answer(self.topology.declare(&connection)).await?;
        let link = Arc::new(Link { connection, idle: Mutex::default() });
        *state = State::Connected(Arc::clone(&link));
        Ok(link)
    }

    async fn channel(&self, link: &Link) -> Result<Channel, QueueError> {
        if let Some(channel) = link.take_idle() {
            return Ok(channel);
        }
        self.answer(async {
            let channel = link.connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            Ok(channel)
        })
        .await
    }

    /// Lets go of a connection that failed, unless another took its place already.
    pub(super) async fn forget(&self, failed: &Arc<Link>) {
        let mut state = self.state.lock().await;
        if matches!(&*state, State::Connected(link) if Arc::ptr_eq(link, failed)) {
            *state = State::Disconnected;
        }
    }

    async fn disconnect(&self) {
        let mut state = self.state.lock().await;
        if matches!(&*state, State::Connected(_)) {
            *state = State::Disconnected;
        }
    }

    /// Closes the connection; whatever is asked afterwards fails.
    pub(super) async fn close(&self) {
        let state = std::mem::replace(&mut *self.state.lock().await, State::Closed);
        if let State::Connected(link) = state {
            close_connection(&link.connection).await;
        }
    }
}

/// Closes a connection in the protocol's own way, where the broker still listens.
pub(super) async fn close_connection(connection: &Connection) {
    let closing = connection.close(200, "closed".into());
    match tokio::time::timeout(OPERATION_TIMEOUT, closing).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "connection was closed already"),
        Err(_) => tracing::debug!("broker did not confirm the end of the connection"),
    }
}

/// Hands a message to the connection. A `mandatory` one comes back where it has no queue to go to.
pub(super) async fn publish(
    channel: &Channel,
    message: Outgoing,
    mandatory: bool,
) -> Result<PublisherConfirm, lapin::Error> {
    let options = BasicPublishOptions { mandatory, ..BasicPublishOptions::default() };
    let Outgoing { queue, body, properties } = message;
    channel.basic_publish("".into(), queue, options, &body, properties).await
}

/// What the broker says of a message that has no queue to go to.
pub(super) fn returned(message: &BasicReturnMessage) -> QueueError {
    QueueError::Rejected {
        reason: format!("{} ({})", message.reply_text.as_str(), message.routing_key.as_str()),
    }
}

/// Why a message is not confirmed.
enum Refusal {
    Returned(QueueError),
    Refused(QueueError),
    NoAnswer(QueueError),
}

impl From<Refusal> for QueueError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Returned(error) | Refusal::Refused(error) | Refusal::NoAnswer(error) => error,
        }
    }
}

impl Link {
    /// Whether the broker has said that it takes no messages for now.
    pub(super) fn blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// A channel that nobody else uses.
    pub(super) async fn create_channel(&self) -> Result<Channel, lapin::Error> {
        self.connection.create_channel().await
    }

    fn take_idle(&self) -> Option<Channel> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(channel) = idle.pop() {
            if channel.status().connected() {
                return Some(channel);
            }
        }
        None
    }

    fn put_back(&self, channel: Channel) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(channel);
    }
}
