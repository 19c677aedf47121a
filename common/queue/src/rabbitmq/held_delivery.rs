//! Settling a delivery. At every moment, some queue has its message.
//!
//! A retry, a dead letter and a message that comes again without a try counted are copies: they are
//! confirmed in their queue before the original is acknowledged. A crash in between leaves the job
//! twice, never not at all. A requeue would do for what is handed back, but RabbitMQ before 4.3
//! counts it as a loss.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use camshaft_telemetry::TraceContext;
use lapin::Acker;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use lapin::types::ShortString;
use tokio::time::timeout;

use super::broker::Broker;
use super::consumer_channel::Unsettled;
use super::publisher::WhileBlocked;
use super::wire::{History, Losses, OutgoingMessage};
use crate::delivery::{Outcome, Settlement};
use crate::error::QueueError;
use crate::refusals::Refusals;

/// How long to try to publish a copy. Then the original is requeued: the broker still has it.
const COPY_TIMEOUT: Duration = Duration::from_secs(10);

/// How often to check whether the channel of a slow acknowledgement is still open.
const CHANNEL_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A message that this process has, and what it takes to settle it.
pub(super) struct HeldDelivery {
    pub(super) broker: Arc<Broker>,
    /// The channel that it came through.
    pub(super) channel: Unsettled,
    pub(super) acker: Acker,
    pub(super) body: Bytes,
    /// Which try this is, from 1.
    pub(super) attempt: u32,
    pub(super) trace: Option<TraceContext>,
    pub(super) losses: Losses,
    /// Set while nobody has tried it since it was refused.
    pub(super) refusals: Option<Refusals>,
    /// True if it came from the suspects, else from the jobs.
    pub(super) is_suspect: bool,
}

impl HeldDelivery {
    async fn acknowledge(&self) -> Result<(), QueueError> {
        let mut acknowledging = pin!(self.acker.ack(BasicAckOptions::default()));
        loop {
            match timeout(CHANNEL_CHECK_INTERVAL, &mut acknowledging).await {
                Ok(Ok(true)) => return Ok(()),
                // Nothing was sent: the channel is gone, and the message with it.
                Ok(Ok(false) | Err(_)) => return Err(QueueError::Stale),
                // It is under way, unless the connection is lost: then the library may never
                // answer.
                Err(_) if self.is_usable() => {}
                Err(_) => return Err(QueueError::Stale),
            }
        }
    }

    fn is_usable(&self) -> bool {
        self.acker.usable() && self.channel.is_open()
    }

    /// Puts a copy into another queue, then acknowledges the original.
    async fn replace_with(self, copy: OutgoingMessage) -> Result<(), QueueError> {
        if !self.is_usable() {
            return Err(QueueError::Stale);
        }
        let copies = [copy];
        let publisher = &self.broker.publisher;
        let published = publisher.publish(&copies, COPY_TIMEOUT, WhileBlocked::GiveUp).await;
        if let Err(error) = published {
            self.requeue();
            return Err(error);
        }
        self.acknowledge().await
    }

    /// Moves the message to the suspects.
    pub(super) async fn move_to_suspects(self) -> Result<(), QueueError> {
        let copy = self.uncounted(self.broker.topology.suspects(), self.refusals);
        self.replace_with(copy).await
    }

    pub(super) async fn dead_letter(self, reason: &str) -> Result<Settlement, QueueError> {
        let attempts = self.attempt;
        self.dead_letter_after(attempts, reason).await
    }

    async fn dead_letter_after(
        self,
        attempts: u32,
        reason: &str,
    ) -> Result<Settlement, QueueError> {
        let dead = self.broker.topology.dead();
        let (body, trace) = (self.body.clone(), self.trace.as_ref());
        let letter = OutgoingMessage::dead_letter(dead, body, trace, attempts, reason);
        self.replace_with(letter).await?;
        Ok(Settlement::DeadLettered)
    }

    /// The copy to hand back.
    fn copy(&self) -> OutgoingMessage {
        let topology = &self.broker.topology;
        let queue = if self.is_suspect { topology.suspects() } else { topology.jobs() };
        self.uncounted(queue, self.refusals)
    }

    async fn refuse(self, reason: &str, limit: Duration) -> Result<Settlement, QueueError> {
        let refusals = Refusals::one_more(self.refusals);
        // The workers are counted only for a message that has been refused for long enough.
        let by_all = refusals.are_by_all(limit, 1)
            && (limit.is_zero() || {
                let workers = self.broker.connection.count_workers().await;
                workers.is_ok_and(|workers| refusals.are_by_all(limit, workers))
            });
        if by_all {
            let attempts = self.earlier_attempts();
            return self.dead_letter_after(attempts, &refusals.reason(reason)).await;
        }
        self.deliver_again(refusals.age(), Some(refusals)).await
    }

    /// Delivers the message again after a delay that is near `about`, without counting a try. A
    /// suspect waits there, too, and then returns to the suspects by its losses.
    async fn deliver_again(
        self,
        about: Duration,
        refusals: Option<Refusals>,
    ) -> Result<Settlement, QueueError> {
        let delay = self.broker.delays.uncounted(about);
        let copy = self.uncounted(self.broker.topology.retry(delay), refusals);
        self.replace_with(copy).await?;
        Ok(Settlement::Retrying(delay))
    }

    /// A copy for a queue. This delivery is none of its tries.
    fn uncounted(&self, queue: &ShortString, refusals: Option<Refusals>) -> OutgoingMessage {
        let (body, trace) = (self.body.clone(), self.trace.as_ref());
        let history = History { attempts: self.earlier_attempts(), losses: self.losses, refusals };
        OutgoingMessage::uncounted(queue, body, trace, history)
    }

    fn earlier_attempts(&self) -> u32 {
        self.attempt.saturating_sub(1)
    }

    /// Has the broker deliver the message again, in the background. It may count a loss.
    pub(super) fn requeue(self) {
        let Self { broker, channel, acker, .. } = self;
        broker.runtime.spawn(async move {
            let requeue = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
            if let Err(error) = acker.nack(requeue).await {
                tracing::debug!(%error, "connection ended before a message was requeued");
            }
            drop(channel);
        });
    }

    pub(super) async fn settle(self, outcome: Outcome) -> Result<Settlement, QueueError> {
        match outcome {
            Outcome::Ack => {
                self.acknowledge().await?;
                Ok(Settlement::Acknowledged)
            }
            Outcome::DeadLetter { reason } => self.dead_letter(&reason).await,
            Outcome::Refuse { reason, limit } => self.refuse(&reason, limit).await,
            Outcome::Postpone { delay, .. } => self.deliver_again(delay, None).await,
            Outcome::Retry { reason } => match self.broker.delays.after(self.attempt) {
                None => self.dead_letter(&reason).await,
                Some(delay) => {
                    let retry = self.broker.topology.retry(delay);
                    let (body, trace) = (self.body.clone(), self.trace.as_ref());
                    let copy = OutgoingMessage::retry(retry, body, trace, self.attempt);
                    self.replace_with(copy).await?;
                    Ok(Settlement::Retrying(delay))
                }
            },
            Outcome::HandBack => {
                let copy = self.copy();
                self.replace_with(copy).await?;
                Ok(Settlement::HandedBack)
            }
        }
    }
}

/// Hands deliveries back to their queues, in order. Neither a try nor a loss is counted, unless the
/// broker takes no copies: then it is told to deliver the originals again. Those whose channel is
/// gone are delivered again anyway.
pub(super) async fn hand_back(
    broker: &Broker,
    mut deliveries: Vec<HeldDelivery>,
) -> Result<(), QueueError> {
    deliveries.retain(HeldDelivery::is_usable);
    let copies: Vec<_> = deliveries.iter().map(HeldDelivery::copy).collect();
    let publishing = broker.publisher.publish(&copies, COPY_TIMEOUT, WhileBlocked::GiveUp);
    if let Err(error) = publishing.await {
        deliveries.into_iter().for_each(HeldDelivery::requeue);
        return Err(error);
    }
    for delivery in deliveries {
        if let Err(error) = delivery.acknowledge().await {
            tracing::debug!(%error, "a message that was handed back is there twice");
        }
    }
    Ok(())
}
