//! Jobs published one after the other over one channel, and a bookmark of the last one that the
//! broker keeps. If the publisher is killed, the next one continues from the bookmark: no job is
//! lost, and at most [`MAX_UNCONFIRMED`] are there twice.
//!
//! Each job goes to the jobs' queue. The same publish puts a copy into a queue that the sequence
//! has for itself and that keeps the newest message only. A channel of the broker takes publishes
//! in order and hands each to both queues. So:
//! - No message behind the bookmark is among the jobs.
//! - Every message before it is, up to the last one that was confirmed when the bookmark was
//!   published.
//! - Of the messages in between, only the first few may be: the jobs' queue is a quorum queue, which
//!   takes messages a little later and drops those whose channel is gone by then. The next
//!   publisher publishes all of them again.
//!
//! Two things could make that untrue, and are prevented:
//! - A publisher that comes back while the broker still reads what the one before had sent. Every
//!   publisher consumes the bookmark's queue exclusively, over the channel that it publishes by, so
//!   the broker lets the next one in only when that channel is gone.
//! - Jobs that the broker has read and then can't store (a broker that is killed, a quorum that is
//!   lost). The bookmark's queue is a classic one and its messages are not persistent, so a broker
//!   that restarts has no bookmark any more. Without a bookmark, every image without a result is
//!   published again. The jobs themselves are always on disk.
//!
//! Upstream: enqueue. Messages in no particular order go through [`publisher`](super::publisher).

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use lapin::options::QueueDeleteOptions;
use lapin::types::ShortString;
use lapin::{Confirmation, PublisherConfirm};
use tokio::time::Instant;

use super::bookmark::{AttachError, Bookmark, SequenceChannel, attach};
use super::broker::Broker;
use super::connection::OPERATION_TIMEOUT;
use super::publisher::{not_stored, publish, returned};
use super::retry::{BrokerRetries, warn_of};
use super::wire::{BookmarkCopy, OutgoingMessage};
use crate::error::QueueError;
use crate::message::{Message, QueueName};

/// The most messages of a sequence that are published and not yet confirmed. As many may be in the
/// queue twice after the publisher was killed. Enough to keep the broker busy.
pub const MAX_UNCONFIRMED: usize = 256;
/// A confirm that takes longer is late.
const LATE: Duration = Duration::from_secs(5);
/// How long to wait for an earlier publisher to be gone. If its machine is lost, the broker notices
/// by the heartbeat, after a minute at most.
const IN_USE_TIMEOUT: Duration = Duration::from_secs(90);
const IN_USE_POLL: Duration = Duration::from_millis(100);

/// Publishes messages in order, and waits for their confirms later. If it is dropped before
/// [`Sequence::end`], its bookmark stays.
pub struct Sequence {
    broker: Arc<Broker>,
    /// `None` if this user may have no bookmark.
    bookmark_queue: Option<ShortString>,
    /// Why this user may have no bookmark, until that was logged.
    no_right: Option<String>,
    /// The bookmark that was there at the start.
    bookmark: Option<Bookmark>,
    /// `None` only while an error is being dealt with.
    channel: Option<SequenceChannel>,
    /// Not yet confirmed, in order.
    unconfirmed: VecDeque<UnconfirmedMessage>,
    confirmed: u64,
    /// The tries since the last success; `None` if nothing is wrong.
    retries: Option<BrokerRetries>,
}

struct UnconfirmedMessage {
    message: Message,
    note: Option<String>,
    /// Whether an earlier channel may have carried it already.
    republished: bool,
    progress: PublishProgress,
}

/// How far the publish of one message has come.
enum PublishProgress {
    Unsent,
    /// Handed to the connection, in order.
    Handed(Pin<Box<dyn Future<Output = Result<PublisherConfirm, lapin::Error>> + Send>>),
    /// Written to the socket.
    Written(PublisherConfirm),
}

impl Sequence {
    /// Continues the sequence of that name where it was left, or starts it. Waits until no other
    /// publisher has it.
    pub(super) async fn open(broker: Arc<Broker>, name: &str) -> Result<Self, QueueError> {
        let mut sequence = Self {
            bookmark_queue: Some(broker.topology.bookmark(name)?),
            no_right: None,
            broker,
            bookmark: None,
            channel: None,
            unconfirmed: VecDeque::with_capacity(MAX_UNCONFIRMED),
            confirmed: 0,
            retries: None,
        };
        loop {
            match sequence.attach().await {
                Ok((channel, bookmark)) => {
                    sequence.channel = Some(channel);
                    sequence.bookmark = bookmark;
                    return Ok(sequence);
                }
                Err(error) => sequence.pause(error).await?,
            }
        }
    }

    /// The queue that its messages go to.
    #[must_use]
    pub fn queue(&self) -> QueueName {
        self.broker.topology.name(false)
    }

    /// Where an earlier publisher left the sequence; `None` if it starts here.
    #[must_use]
    pub fn bookmark(&self) -> Option<&Bookmark> {
        self.bookmark.as_ref()
    }

    /// How many messages the broker has taken.
    #[must_use]
    pub fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// Publishes the next message. Waits while [`MAX_UNCONFIRMED`] are not confirmed. With a
    /// `note`, which no other message may have, the message becomes the bookmark.
    ///
    /// # Errors
    /// If the broker refuses messages or stays out of reach.
    pub async fn publish(
        &mut self,
        message: Message,
        note: Option<String>,
    ) -> Result<(), QueueError> {
        self.settle_confirmed().await?;
        while self.unconfirmed.len() >= MAX_UNCONFIRMED {
            self.settle_oldest().await?;
        }
        let progress = PublishProgress::Unsent;
        self.unconfirmed.push_back(UnconfirmedMessage {
            message,
            note,
            republished: false,
            progress,
        });
        if let Err(error) = self.hand_over(self.unconfirmed.len() - 1).await {
            self.recover(error).await?;
        }
        Ok(())
    }

    /// Waits until the broker has taken every message.
    ///
    /// # Errors
    /// As [`Sequence::publish`].
    pub async fn flush(&mut self) -> Result<(), QueueError> {
        while !self.unconfirmed.is_empty() {
            self.settle_oldest().await?;
        }
        Ok(())
    }

    /// Deletes the bookmark. Later messages leave none.
    ///
    /// # Errors
    /// As [`Sequence::publish`].
    pub async fn forget(&mut self) -> Result<(), QueueError> {
        let Some(queue) = self.bookmark_queue.take() else { return Ok(()) };
        let channel = self.broker.connection.channel().await?;
        let deleting = channel.queue_delete(queue, QueueDeleteOptions::default());
        self.broker.connector.answer(deleting).await?;
        Ok(())
    }

    /// Ends the sequence once all is published: nobody is to continue it.
    ///
    /// # Errors
    /// As [`Sequence::publish`], and if the jobs' queue was deleted meanwhile.
    pub async fn end(mut self) -> Result<(), QueueError> {
        self.flush().await?;
        // The broker returns a message only if none of its queues exists, the bookmark's included.
        let connection = &self.broker.connection;
        let channel = connection.channel().await?;
        let jobs = connection.count_messages(&channel, self.broker.topology.jobs()).await;
        self.forget().await?;
        jobs.map(|_| ())
    }

    /// Hands a message to the connection. Messages are sent in the order of these calls.
    async fn hand_over(&mut self, index: usize) -> Result<(), QueueError> {
        let Some(channel) = &self.channel else {
            // Only an error leaves none.
            return Err(QueueError::Stale);
        };
        let UnconfirmedMessage { message, note, republished, .. } = &self.unconfirmed[index];
        let noted = self.bookmark_queue.as_ref().zip(note.as_deref());
        let bookmark =
            noted.map(|(queue, note)| BookmarkCopy { queue, note, unconfirmed: index + 1 });
        let jobs = self.broker.topology.jobs();
        let outgoing = OutgoingMessage::sequence_job(jobs, message.clone(), bookmark, *republished);
        let channel = channel.channel.clone();
        let mut publishing = Box::pin(async move { publish(&channel, outgoing).await });
        // The first poll queues the frames. What remains is waiting for the socket.
        let progress = match futures::poll!(&mut publishing) {
            Poll::Pending => PublishProgress::Handed(publishing),
            Poll::Ready(Ok(confirm)) => PublishProgress::Written(confirm),
            Poll::Ready(Err(error)) => {
                return Err(self.broker.connector.classify(&error));
            }
        };
        self.unconfirmed[index].progress = progress;
        Ok(())
    }

    /// Takes the confirms that are there, so that a bookmark doesn't count confirmed messages.
    async fn settle_confirmed(&mut self) -> Result<(), QueueError> {
        while let Some(oldest) = self.unconfirmed.front_mut() {
            let outcome = match futures::poll!(std::pin::pin!(oldest.progress.confirmed())) {
                Poll::Ready(outcome) => outcome,
                Poll::Pending => break,
            };
            self.settle(outcome).await?;
        }
        Ok(())
    }

    /// Waits for the oldest message's confirm. After an error, tries again.
    async fn settle_oldest(&mut self) -> Result<(), QueueError> {
        let mut waited = Duration::ZERO;
        let outcome = loop {
            let Some(oldest) = self.unconfirmed.front_mut() else { return Ok(()) };
            if let Some(outcome) = oldest.progress.confirmed_soon().await {
                break outcome;
            }
            waited += LATE;
            if let Some(blocked) = self.blocked() {
                // The broker goes on reading from this connection as soon as it can. Another
                // connection would only wait beside this one.
                warn_of(&blocked, LATE);
                waited = Duration::ZERO;
            } else if waited >= OPERATION_TIMEOUT {
                break Ok(None);
            }
        };
        self.settle(outcome).await
    }

    /// Acts on the broker's answer about the oldest message; `None` if there was no answer.
    async fn settle(
        &mut self,
        outcome: Result<Option<Confirmation>, lapin::Error>,
    ) -> Result<(), QueueError> {
        let connector = &self.broker.connector;
        let error = match outcome {
            Ok(Some(Confirmation::Ack(None))) => {
                self.note_confirmed();
                return Ok(());
            }
            Ok(Some(Confirmation::Nack(None))) => not_stored(),
            Ok(Some(Confirmation::Ack(Some(message)) | Confirmation::Nack(Some(message)))) => {
                returned(&message)
            }
            Ok(Some(Confirmation::NotRequested)) => unreachable!("the channel has confirms on"),
            Ok(None) => connector.no_answer(OPERATION_TIMEOUT),
            Err(error) => connector.classify(&error),
        };
        self.recover(error).await
    }

    fn note_confirmed(&mut self) {
        self.unconfirmed.pop_front();
        self.confirmed += 1;
        self.retries = None;
        // A user who may not publish either gets an error instead.
        if let Some(reason) = self.no_right.take() {
            tracing::warn!(
                reason,
                "the broker may keep no bookmark for this user: killed and started again, \
                 enqueue will publish what has no result yet a second time"
            );
        }
    }

    fn blocked(&self) -> Option<QueueError> {
        self.broker.connection.blocked_error(&self.channel.as_ref()?.connection)
    }

    /// After an error: takes another channel and publishes again all that is not confirmed.
    async fn recover(&mut self, mut error: QueueError) -> Result<(), QueueError> {
        loop {
            if let Some(channel) = self.channel.take() {
                self.collect_confirms().await;
                leave(&self.broker, channel).await;
            }
            for waiting in &mut self.unconfirmed {
                // One that was never sent is marked, too: that costs its worker one look.
                waiting.republished = true;
                waiting.progress = PublishProgress::Unsent;
            }
            self.pause(error).await?;
            match self.attach().await {
                Ok((channel, _)) => self.channel = Some(channel),
                Err(again) => {
                    error = again;
                    continue;
                }
            }
            match self.hand_over_all().await {
                Ok(()) => return Ok(()),
                Err(again) => error = again,
            }
        }
    }

    async fn hand_over_all(&mut self) -> Result<(), QueueError> {
        for index in 0..self.unconfirmed.len() {
            self.hand_over(index).await?;
        }
        Ok(())
    }

    /// Waits before the next try. The limit counts from the first error, not from the last success:
    /// a slow SOURCE may leave any time between two jobs.
    async fn pause(&mut self, error: QueueError) -> Result<(), QueueError> {
        let limit = self.broker.retry_limit;
        self.retries.get_or_insert_with(|| BrokerRetries::new(Some(limit))).pause(error).await
    }

    /// Takes out the messages that were confirmed before the first that was not. Messages behind
    /// that one stay even if they are confirmed: a bookmark says that everything before the
    /// unconfirmed ones has arrived.
    async fn collect_confirms(&mut self) {
        // If the connection is lost, they all fail at once.
        let deadline = Instant::now() + LATE;
        while let Some(oldest) = self.unconfirmed.front_mut() {
            let confirmed = tokio::time::timeout_at(deadline, oldest.progress.confirmed()).await;
            let Ok(Ok(Some(Confirmation::Ack(None)))) = confirmed else { return };
            self.unconfirmed.pop_front();
            self.confirmed += 1;
        }
    }

    /// Takes a channel once no other publisher has one, and the bookmark left by it.
    async fn attach(&mut self) -> Result<(SequenceChannel, Option<Bookmark>), QueueError> {
        let deadline = Instant::now() + IN_USE_TIMEOUT;
        loop {
            match attach(&self.broker, self.bookmark_queue.as_ref()).await {
                Ok(attached) => return Ok(attached),
                Err(AttachError::NoRight(reason)) => {
                    self.bookmark_queue = None;
                    self.no_right = Some(reason);
                }
                Err(AttachError::InUse) if Instant::now() < deadline => {
                    tokio::time::sleep(IN_USE_POLL).await;
                }
                Err(AttachError::InUse) => {
                    let address = self.broker.connector.address().to_owned();
                    return Err(QueueError::SequenceInUse { address });
                }
                Err(AttachError::Failed(error)) => return Err(error),
            }
        }
    }
}

/// Gives up a channel that failed, so that the broker lets the next one in.
async fn leave(broker: &Broker, channel: SequenceChannel) {
    broker.connection.discard(&channel.connection).await;
    let closing = channel.channel.close(200, "again".into());
    match tokio::time::timeout(LATE, closing).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the channel was closed already"),
        Err(_) => tracing::debug!("the broker did not confirm the channel's end"),
    }
}

impl fmt::Debug for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sequence")
            .field("bookmark_queue", &self.bookmark_queue)
            .field("unconfirmed", &self.unconfirmed.len())
            .field("confirmed", &self.confirmed)
            .finish_non_exhaustive()
    }
}

impl PublishProgress {
    /// The broker's answer, unless it is late.
    async fn confirmed_soon(&mut self) -> Option<Result<Option<Confirmation>, lapin::Error>> {
        let mut confirming = std::pin::pin!(self.confirmed());
        // Most answers are there already, and a timer for each would cost.
        match futures::poll!(&mut confirming) {
            Poll::Ready(outcome) => Some(outcome),
            Poll::Pending => tokio::time::timeout(LATE, confirming).await.ok(),
        }
    }

    /// The broker's answer; `None` for what was never sent.
    async fn confirmed(&mut self) -> Result<Option<Confirmation>, lapin::Error> {
        // A future that has ended must not be polled again, so each is replaced.
        if let Self::Handed(publishing) = self {
            let sent = publishing.await;
            *self = Self::Unsent;
            *self = Self::Written(sent?);
        }
        let Self::Written(confirm) = self else { return Ok(None) };
        let answer = confirm.await;
        *self = Self::Unsent;
        answer.map(Some)
    }
}
