//! Jobs published one after the other over one channel, and a bookmark that the broker keeps of
//! the last one, so that whoever is killed in the middle can go on where it was: without a job
//! lost, and with no more twice than were on their way.
//!
//! Each job goes to the jobs and, as a blind copy of the same publish, to a small queue of its
//! sequence's own that keeps the newest message only (its `x-max-length` is 1). A channel of the
//! broker takes publishes in order and hands each to both queues; so nothing behind the message
//! in the small queue is among the jobs. What is before it is, up to the last that was confirmed
//! when it was published. Of those in between, the jobs, a quorum queue, have the first so many:
//! it takes messages a little later, and forgets those of a channel that is gone by then. How many,
//! the [`census`](super::census) tells where it can; else all of them are unsure.
//!
//! What could make that untrue is seen to:
//! - A publisher that comes back while the broker still reads what it had sent before. Every
//!   publisher consumes the small queue exclusively, over the channel it publishes by, so the
//!   broker lets the next one in only when that channel is gone. The one message it is given
//!   it never acknowledges.
//! - Jobs that the broker has read and then can't store (a broker that is killed, a quorum that is
//!   lost). The small queue is a classic one and its messages are not persistent, so a broker that
//!   restarts has forgotten the bookmark; the jobs are written to disk whatever a message says.
//!   Without a bookmark, whatever has no result is published again.
//!
//! Upstream: enqueue. Others publish in no order, by [`publisher`](super::publisher).

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use lapin::options::QueueDeleteOptions;
use lapin::types::ShortString;
use lapin::{Channel, Confirmation, PublisherConfirm};
use tokio::time::Instant;

use super::Shared;
use super::bookmark::{Bookmark, Hold, try_attach};
use super::census::{Census, Standing};
use super::connection::{OPERATION_TIMEOUT, Patience, warn_of};
use super::publisher::{self, returned};
use super::small_queue::Obstacle;
use super::wire::Outgoing;
use crate::{Message, QueueError, QueueName};

/// Jobs on their way at a time: enough to keep the broker busy, and as many as may be there twice
/// after a kill where they can't be counted.
const WINDOW: usize = 256;
/// A confirm that takes longer is late.
const LATE: Duration = Duration::from_secs(5);
/// How long an earlier publisher may take to be gone. One whose machine is lost is noticed by the
/// heartbeat, after a minute at most.
const HELD_TIMEOUT: Duration = Duration::from_secs(90);
const HELD_POLL: Duration = Duration::from_millis(100);

/// Publishes in order, with confirms awaited behind. Dropped before [`Sequence::end`], it leaves
/// its bookmark.
pub struct Sequence {
    shared: Arc<Shared>,
    /// The bookmark's queue; `None` where this user may not have one.
    memory: Option<ShortString>,
    /// Why it may not, until that is told.
    no_right: Option<String>,
    /// Whether this user may have the right to count.
    counts: bool,
    /// What was there at the start.
    bookmark: Option<Bookmark>,
    hold: Option<Hold>,
    /// Not yet confirmed, in order.
    in_flight: VecDeque<InFlight>,
    confirmed: u64,
    /// While something is wrong.
    patience: Option<Patience>,
}

struct InFlight {
    message: Message,
    note: Option<String>,
    sending: Sending,
}

/// How far one message has come.
enum Sending {
    Unsent,
    /// Handed to the connection, in order.
    Handed(Pin<Box<dyn Future<Output = Result<PublisherConfirm, lapin::Error>> + Send>>),
    /// On the socket.
    Written(PublisherConfirm),
}

impl Sequence {
    /// Takes up the sequence of that name where it was left, once nobody else has it.
    pub(super) async fn open(shared: Arc<Shared>, name: &str) -> Result<Self, QueueError> {
        let mut sequence = Self {
            memory: Some(shared.topology.bookmark(name)?),
            no_right: None,
            counts: true,
            shared,
            bookmark: None,
            hold: None,
            in_flight: VecDeque::with_capacity(WINDOW),
            confirmed: 0,
            patience: None,
        };
        loop {
            match sequence.attach().await {
                Ok((hold, bookmark)) => {
                    sequence.hold = Some(hold);
                    sequence.bookmark = bookmark;
                    return Ok(sequence);
                }
                Err(error) => sequence.pause(error).await?,
            }
        }
    }

    /// Where its messages go.
    #[must_use]
    pub fn queue(&self) -> QueueName {
        self.shared.topology.name(false)
    }

    /// Where it was left by an earlier publisher.
    #[must_use]
    pub fn bookmark(&self) -> Option<&Bookmark> {
        self.bookmark.as_ref()
    }

    /// How many messages the broker has taken.
    #[must_use]
    pub fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// Publishes the next message; waits while too many are on their way. With a `note`, which no
    /// other message may have, it becomes the bookmark.
    ///
    /// # Errors
    /// Where the broker refuses messages or stays out of reach.
    pub async fn publish(
        &mut self,
        message: Message,
        note: Option<String>,
    ) -> Result<(), QueueError> {
        self.settle_confirmed().await?;
        while self.in_flight.len() >= WINDOW {
            self.settle_oldest().await?;
        }
        self.in_flight.push_back(InFlight { message, note, sending: Sending::Unsent });
        if let Err(error) = self.hand_over(self.in_flight.len() - 1).await {
            self.recover(error).await?;
        }
        if self.due_census().is_some() {
            self.flush().await?;
            let shared = Arc::clone(&self.shared);
            // Another one, where the channel was lost meanwhile.
            if let Some((census, channel)) = self.due_census() {
                census.count(&shared, channel).await;
            }
        }
        Ok(())
    }

    fn due_census(&mut self) -> Option<(&mut Census, &Channel)> {
        let Hold { channel, census, .. } = self.hold.as_mut()?;
        Some((census.as_mut().filter(|census| census.is_due())?, channel))
    }

    /// Waits until the broker has taken every message.
    ///
    /// # Errors
    /// As [`Sequence::publish`].
    pub async fn flush(&mut self) -> Result<(), QueueError> {
        while !self.in_flight.is_empty() {
            self.settle_oldest().await?;
        }
        Ok(())
    }

    /// Lets the broker forget the bookmark, and keeps no other from here on.
    ///
    /// # Errors
    /// As [`Sequence::publish`].
    pub async fn forget(&mut self) -> Result<(), QueueError> {
        let Some(memory) = self.memory.take() else { return Ok(()) };
        let channel = self.shared.publisher.fresh_channel().await?;
        let deleting = channel.queue_delete(memory, QueueDeleteOptions::default());
        self.shared.publisher.answer(deleting).await?;
        Ok(())
    }

    /// Ends the sequence once all is published: nobody is to go on with it.
    ///
    /// # Errors
    /// As [`Sequence::publish`], and where the jobs' queue was deleted meanwhile.
    pub async fn end(mut self) -> Result<(), QueueError> {
        self.flush().await?;
        // A copy that still has a place to go hides that the job itself has none.
        let channel = self.shared.publisher.fresh_channel().await?;
        let there = self.shared.publisher.count(&channel, self.shared.topology.jobs()).await;
        self.forget().await?;
        there.map(|_| ())
    }

    /// Hands a message to the connection. It is on its way from then on, in the order of calls.
    async fn hand_over(&mut self, index: usize) -> Result<(), QueueError> {
        let Some(hold) = &mut self.hold else {
            // Only an error leaves none.
            return Err(QueueError::Stale);
        };
        let topology = &self.shared.topology;
        let InFlight { message, note, .. } = &self.in_flight[index];
        let noted = self.memory.as_ref().zip(note.as_deref());
        let addition = hold.census.is_none().then(|| topology.additions());
        let expected = hold.census.as_mut().and_then(Census::expect_one_more);
        let standing = Standing { on_their_way: index + 1, expected };
        let copy_to: Vec<_> = noted.map(|(memory, _)| memory).into_iter().chain(addition).collect();
        let bookmark = noted.map(|(_, note)| (note, &standing));
        let outgoing = match &copy_to[..] {
            [] => Outgoing::job(topology.jobs(), message.clone()),
            _ => Outgoing::copied(topology.jobs(), &copy_to, message.clone(), bookmark),
        };
        let channel = hold.channel.clone();
        let mut sending =
            Box::pin(async move { publisher::publish(&channel, outgoing, true).await });
        // The first poll queues the frames; the rest is waiting for the socket.
        let sending = match futures::poll!(&mut sending) {
            Poll::Pending => Sending::Handed(sending),
            Poll::Ready(Ok(confirm)) => Sending::Written(confirm),
            Poll::Ready(Err(error)) => {
                return Err(self.shared.connector.classify(&error));
            }
        };
        self.in_flight[index].sending = sending;
        Ok(())
    }

    /// Takes the confirms that are there, so that no more count as on their way than are.
    async fn settle_confirmed(&mut self) -> Result<(), QueueError> {
        while let Some(oldest) = self.in_flight.front_mut() {
            let outcome = match futures::poll!(std::pin::pin!(oldest.sending.confirmed())) {
                Poll::Ready(outcome) => outcome,
                Poll::Pending => break,
            };
            self.settle(outcome).await?;
        }
        Ok(())
    }

    /// Waits for the oldest message's confirm, and mends what goes wrong.
    async fn settle_oldest(&mut self) -> Result<(), QueueError> {
        let mut waited = Duration::ZERO;
        let outcome = loop {
            let Some(oldest) = self.in_flight.front_mut() else { return Ok(()) };
            if let Some(outcome) = oldest.sending.confirmed_soon().await {
                break outcome;
            }
            waited += LATE;
            if let Some(blocked) = self.blocked() {
                // It goes on reading from here as soon as it can: another connection would only
                // wait beside this one.
                warn_of(&blocked, LATE);
                waited = Duration::ZERO;
            } else if waited >= OPERATION_TIMEOUT {
                break Ok(None);
            }
        };
        self.settle(outcome).await
    }

    /// The broker's answer about the oldest message; `None` where there was none.
    async fn settle(
        &mut self,
        outcome: Result<Option<Confirmation>, lapin::Error>,
    ) -> Result<(), QueueError> {
        match outcome {
            Ok(Some(Confirmation::Ack(None))) => {
                self.in_flight.pop_front();
                self.confirmed += 1;
                // Who may not publish either has another problem.
                if let Some(reason) = self.no_right.take() {
                    tracing::warn!(
                        reason,
                        "the broker may keep no bookmark for this user: killed and started again, \
                         enqueue will publish what has no result yet a second time"
                    );
                }
                self.patience = None;
                Ok(())
            }
            Ok(Some(Confirmation::Nack(None))) => {
                self.recover(QueueError::Rejected {
                    reason: "it could not store it; see the broker's log and its disk".to_owned(),
                })
                .await
            }
            Ok(Some(Confirmation::Ack(Some(message)) | Confirmation::Nack(Some(message)))) => {
                self.recover(returned(&message)).await
            }
            Ok(Some(Confirmation::NotRequested)) => unreachable!("the channel has confirms on"),
            Ok(None) => self.recover(self.shared.connector.no_answer(OPERATION_TIMEOUT)).await,
            Err(error) => self.recover(self.shared.connector.classify(&error)).await,
        }
    }

    fn blocked(&self) -> Option<QueueError> {
        let hold = self.hold.as_ref()?;
        let address = self.shared.connector.address().to_owned();
        hold.link.blocked().then_some(QueueError::Blocked { address })
    }

    /// After an error: another channel, and all that is not known to be among the jobs again.
    async fn recover(&mut self, mut error: QueueError) -> Result<(), QueueError> {
        // Then others behind may have been taken, and the count doesn't tell which.
        let mut refused = false;
        loop {
            refused |= matches!(error, QueueError::Rejected { .. });
            if let Some(hold) = self.hold.take() {
                refused |= !self.collect_confirms().await;
                self.shared.publisher.forget(&hold.link).await;
                // Lets the next one in, where the connection is still there.
                let closing = hold.channel.close(200, "again".into());
                match tokio::time::timeout(LATE, closing).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%error, "the channel was closed already"),
                    Err(_) => tracing::debug!("the broker did not confirm the channel's end"),
                }
            }
            for waiting in &mut self.in_flight {
                waiting.sending = Sending::Unsent;
            }
            self.pause(error).await?;
            match self.attach().await {
                Ok((hold, bookmark)) => {
                    self.hold = Some(hold);
                    self.take_out_arrived(bookmark.filter(|_| !refused));
                }
                Err(again) => {
                    error = again;
                    continue;
                }
            }
            let mut outcome = Ok(());
            for index in 0..self.in_flight.len() {
                outcome = self.hand_over(index).await;
                if outcome.is_err() {
                    break;
                }
            }
            match outcome {
                Ok(()) => return Ok(()),
                Err(again) => error = again,
            }
        }
    }

    /// Waits before the next try. Patience counts from the first error, since a slow SOURCE may
    /// leave any time between two jobs.
    async fn pause(&mut self, error: QueueError) -> Result<(), QueueError> {
        let limit = self.shared.patience;
        self.patience.get_or_insert_with(|| Patience::new(Some(limit))).pause(error).await
    }

    /// Takes out what was confirmed before the first that was not. Those behind it stay: a note
    /// counts on everything before what is on its way being there. False where the broker refused
    /// that first one.
    async fn collect_confirms(&mut self) -> bool {
        // Of a connection that is lost they all fail at once.
        let deadline = Instant::now() + LATE;
        while let Some(oldest) = self.in_flight.front_mut() {
            let confirmed = tokio::time::timeout_at(deadline, oldest.sending.confirmed()).await;
            match confirmed {
                Ok(Ok(Some(Confirmation::Ack(None)))) => {
                    self.in_flight.pop_front();
                    self.confirmed += 1;
                }
                Ok(Ok(Some(_))) => return false,
                Ok(Ok(None) | Err(_)) | Err(_) => break,
            }
        }
        true
    }

    /// Takes out what was not confirmed and yet has arrived, where that is certain.
    fn take_out_arrived(&mut self, bookmark: Option<Bookmark>) {
        let Some(Bookmark { note, unsure, is_counted: true, .. }) = bookmark else { return };
        let is_last_read = |waiting: &InFlight| waiting.note.as_ref() == Some(&note);
        let Some(last) = self.in_flight.iter().position(is_last_read) else { return };
        let arrived = (last + 1).saturating_sub(unsure);
        self.in_flight.drain(..arrived);
        self.confirmed += arrived as u64;
    }

    /// A channel of one's own, and the bookmark once nobody else can change it.
    async fn attach(&mut self) -> Result<(Hold, Option<Bookmark>), QueueError> {
        let deadline = Instant::now() + HELD_TIMEOUT;
        loop {
            match try_attach(&self.shared, self.memory.as_ref(), self.counts).await {
                Ok(attached) => return Ok(attached),
                Err(Obstacle::NoRight { queue, reason })
                    if self.memory.as_ref() == Some(&queue) =>
                {
                    self.memory = None;
                    self.no_right = Some(reason);
                }
                Err(Obstacle::NoRight { reason, .. }) => {
                    tracing::debug!(reason, "the broker may not count for this user");
                    self.counts = false;
                }
                Err(Obstacle::Held) if Instant::now() < deadline => {
                    tokio::time::sleep(HELD_POLL).await;
                }
                Err(Obstacle::Held) => {
                    let address = self.shared.connector.address().to_owned();
                    return Err(QueueError::Held { address });
                }
                Err(Obstacle::Failed(error)) => return Err(error),
            }
        }
    }
}

impl fmt::Debug for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sequence")
            .field("memory", &self.memory)
            .field("in_flight", &self.in_flight.len())
            .field("confirmed", &self.confirmed)
            .finish_non_exhaustive()
    }
}

impl Sending {
    /// The broker's answer, unless it is late.
    async fn confirmed_soon(&mut self) -> Option<Result<Option<Confirmation>, lapin::Error>> {
        let mut confirming = std::pin::pin!(self.confirmed());
        // Most are there already, and a timer for each would cost.
        match futures::poll!(&mut confirming) {
            Poll::Ready(outcome) => Some(outcome),
            Poll::Pending => tokio::time::timeout(LATE, confirming).await.ok(),
        }
    }

    /// The broker's answer; `None` for what was never sent.
    async fn confirmed(&mut self) -> Result<Option<Confirmation>, lapin::Error> {
        // What has ended is not to be asked again.
        if let Self::Handed(sending) = self {
            let sent = sending.await;
            *self = Self::Unsent;
            *self = Self::Written(sent?);
        }
        let Self::Written(confirm) = self else { return Ok(None) };
        let answer = confirm.await;
        *self = Self::Unsent;
        answer.map(Some)
    }
}
