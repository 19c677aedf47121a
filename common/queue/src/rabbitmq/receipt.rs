//! Settling a delivery, so that at every moment some queue has its message.
//!
//! A retry and a dead letter are copies: confirmed in their new place before the original is
//! acknowledged. A crash in between leaves the job twice, never not at all.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lapin::Acker;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use tokio::time::timeout;

use super::Shared;
use super::consumer::Line;
use super::publisher::WhileBlocked;
use super::wire::Outgoing;
use crate::{Outcome, QueueError, Settle, Settlement};
use camshaft_telemetry::TraceContext;

/// Past this the original is handed back instead: the broker still has it.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a slow acknowledgement is looked after.
const LOOK: Duration = Duration::from_secs(1);

pub(super) struct RabbitMqReceipt {
    pub(super) shared: Arc<Shared>,
    /// Keeps the channel open that the delivery came through.
    pub(super) line: Arc<Line>,
    pub(super) acker: Acker,
    pub(super) body: Bytes,
    pub(super) attempt: u32,
    pub(super) trace: Option<TraceContext>,
}

impl RabbitMqReceipt {
    async fn acknowledge(&self) -> Result<(), QueueError> {
        let mut acknowledging = pin!(self.acker.ack(BasicAckOptions::default()));
        loop {
            match timeout(LOOK, &mut acknowledging).await {
                Ok(Ok(true)) => return Ok(()),
                // Nothing was sent: the channel is gone, and the message with it.
                Ok(Ok(false) | Err(_)) => return Err(QueueError::Stale),
                // Under way, unless the connection is lost: then the library may never answer.
                Err(_) if self.is_usable() => {}
                Err(_) => return Err(QueueError::Stale),
            }
        }
    }

    fn is_usable(&self) -> bool {
        self.acker.usable() && self.line.is_open()
    }

    /// Puts a copy into another queue, then forgets the original.
    async fn replace_with(&self, copy: Outgoing) -> Result<(), QueueError> {
        if !self.is_usable() {
            return Err(QueueError::Stale);
        }
        let copies = [copy];
        let publishing = self.shared.publisher.publish(&copies, PATIENCE, WhileBlocked::GiveUp);
        if let Err(error) = publishing.await {
            self.hand_back_in_background();
            return Err(error);
        }
        self.acknowledge().await
    }

    /// Sets the message apart, after `losses` deliveries without an answer.
    pub(super) async fn suspect(&self, losses: u32) -> Result<(), QueueError> {
        let suspects = self.shared.topology.suspects();
        let (body, trace) = (self.body.clone(), self.trace.as_ref());
        // This delivery is none of its tries.
        let attempts = self.attempt.saturating_sub(1);
        self.replace_with(Outgoing::suspect(suspects, body, trace, attempts, losses)).await
    }

    pub(super) async fn bury(&self, reason: &str) -> Result<Settlement, QueueError> {
        let dead = self.shared.topology.dead();
        let (body, trace) = (self.body.clone(), self.trace.as_ref());
        let letter = Outgoing::dead_letter(dead, body, trace, self.attempt, reason);
        self.replace_with(letter).await?;
        Ok(Settlement::DeadLettered)
    }

    fn hand_back_in_background(&self) {
        let (acker, line) = (self.acker.clone(), Arc::clone(&self.line));
        self.shared.runtime.spawn(async move {
            let requeue = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
            if let Err(error) = acker.nack(requeue).await {
                tracing::debug!(%error, "connection ended before a message was handed back");
            }
            drop(line);
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
            Outcome::DeadLetter { reason } => self.bury(&reason).await,
            Outcome::Retry { reason } => match self.shared.delays.after(self.attempt) {
                None => self.bury(&reason).await,
                Some(delay) => {
                    let retry = self.shared.topology.retry(delay);
                    let (body, trace) = (self.body.clone(), self.trace.as_ref());
                    self.replace_with(Outgoing::retry(retry, body, trace, self.attempt)).await?;
                    Ok(Settlement::Retrying(delay))
                }
            },
        }
    }

    fn hand_back(self: Box<Self>) {
        self.hand_back_in_background();
    }
}
