//! Settling a delivery. At every moment, some queue has its message.
//!
//! A retry and a dead letter are copies: they are confirmed in their new queue before the original
//! is acknowledged. A crash in between leaves the job twice, never not at all. A message that is to
//! come again without a try counted is a copy, too: handed back, it would count as a delivery that
//! killed its worker (by RabbitMQ before 4.3).

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use camshaft_telemetry::TraceContext;
use lapin::Acker;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use tokio::time::timeout;

use super::broker::Broker;
use super::consumer_channel::ConsumerChannel;
use super::publisher::WhileBlocked;
use super::wire::OutgoingMessage;
use crate::delivery::{Outcome, Settle, Settlement};
use crate::error::QueueError;
use crate::refusals::Refusals;

/// How long to try to publish a copy. Then the original is handed back: the broker still has it.
const COPY_TIMEOUT: Duration = Duration::from_secs(10);

/// How often to check whether the channel of a slow acknowledgement is still open.
const CHANNEL_CHECK_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct RabbitMqReceipt {
    pub(super) broker: Arc<Broker>,
    /// The channel that the delivery came through.
    pub(super) channel: Arc<ConsumerChannel>,
    pub(super) acker: Acker,
    pub(super) body: Bytes,
    pub(super) attempt: u32,
    /// Set while nobody has tried it since it was refused.
    pub(super) refusals: Option<Refusals>,
    pub(super) trace: Option<TraceContext>,
}

impl RabbitMqReceipt {
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
    async fn replace_with(&self, copy: OutgoingMessage) -> Result<(), QueueError> {
        if !self.is_usable() {
            return Err(QueueError::Stale);
        }
        let copies = [copy];
        let publishing = self.broker.publisher.publish(&copies, COPY_TIMEOUT, WhileBlocked::GiveUp);
        if let Err(error) = publishing.await {
            self.hand_back_in_background();
            return Err(error);
        }
        self.acknowledge().await
    }

    /// The number of its tries, if this delivery is none.
    fn tries_before(&self) -> u32 {
        self.attempt.saturating_sub(1)
    }

    /// Moves the message to the suspects, after `losses` deliveries without an answer.
    pub(super) async fn move_to_suspects(&self, losses: u32) -> Result<(), QueueError> {
        let suspects = self.broker.topology.suspects();
        let (body, trace) = (self.body.clone(), self.trace.as_ref());
        let attempts = self.tries_before();
        self.replace_with(OutgoingMessage::suspect(suspects, body, trace, attempts, losses)).await
    }

    pub(super) async fn dead_letter(&self, reason: &str) -> Result<Settlement, QueueError> {
        self.dead_letter_after(self.attempt, reason).await
    }

    async fn dead_letter_after(
        &self,
        attempts: u32,
        reason: &str,
    ) -> Result<Settlement, QueueError> {
        let dead = self.broker.topology.dead();
        let (body, trace) = (self.body.clone(), self.trace.as_ref());
        let letter = OutgoingMessage::dead_letter(dead, body, trace, attempts, reason);
        self.replace_with(letter).await?;
        Ok(Settlement::DeadLettered)
    }

    async fn refuse(&self, reason: &str, limit: Duration) -> Result<Settlement, QueueError> {
        let refusals = Refusals::one_more(self.refusals);
        // The workers are counted only for a message that has been refused for long enough.
        let by_all = refusals.are_by_all(limit, 1)
            && (limit.is_zero() || {
                let workers = self.broker.connection.count_workers().await;
                workers.is_ok_and(|workers| refusals.are_by_all(limit, workers))
            });
        if by_all {
            return self.dead_letter_after(self.tries_before(), &refusals.reason(reason)).await;
        }
        self.deliver_again(refusals.age(), Some(refusals)).await
    }

    /// Delivers the message again after a delay that is near `about`, without counting a try.
    async fn deliver_again(
        &self,
        about: Duration,
        refusals: Option<Refusals>,
    ) -> Result<Settlement, QueueError> {
        let delay = self.broker.delays.uncounted(about);
        let waiting = self.broker.topology.retry(delay);
        let (body, trace) = (self.body.clone(), self.trace.as_ref());
        let attempts = self.tries_before();
        let copy = OutgoingMessage::uncounted(waiting, body, trace, attempts, refusals);
        self.replace_with(copy).await?;
        Ok(Settlement::Retrying(delay))
    }

    fn hand_back_in_background(&self) {
        let (acker, channel) = (self.acker.clone(), Arc::clone(&self.channel));
        self.broker.runtime.spawn(async move {
            let requeue = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
            if let Err(error) = acker.nack(requeue).await {
                tracing::debug!(%error, "connection ended before a message was handed back");
            }
            drop(channel);
        });
    }
}

#[async_trait]
impl Settle for RabbitMqReceipt {
    async fn settle(self: Box<Self>, outcome: Outcome) -> Result<Settlement, QueueError> {
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
        }
    }

    fn hand_back(self: Box<Self>) {
        self.hand_back_in_background();
    }
}
