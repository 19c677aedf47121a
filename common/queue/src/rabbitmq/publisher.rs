//! Messages published in no particular order, each confirmed: the broker has taken responsibility
//! for it.
//!
//! Owns the number of channels used at a time, and publishes again what was not confirmed when the
//! connection was lost. Upstream: receipts that retry or dead-letter, redrive. The jobs of an
//! enqueue go another way, in order: [`sequence`](super::sequence).

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use lapin::message::BasicReturnMessage;
use lapin::options::BasicPublishOptions;
use lapin::{Channel, Confirmation, PublisherConfirm};
use tokio::sync::Semaphore;

use super::connection::OPERATION_TIMEOUT;
use super::retry::BrokerRetries;
use super::shared_connection::SharedConnection;
use super::wire::OutgoingMessage;
use crate::error::QueueError;

/// Messages handed to the socket at a time: enough to fill it, few enough to bound memory.
const WINDOW: usize = 256;
/// Far below the 2047 channels that a broker allows for a connection.
const MAX_CHANNELS: usize = 64;

/// Publishes to one broker, over a connection that is replaced when it is lost.
pub(super) struct Publisher {
    connection: Arc<SharedConnection>,
    channel_permits: Semaphore,
}

/// What publishing does while the broker is low on memory or disk. This can last until workers have
/// emptied its queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WhileBlocked {
    /// Goes on trying, for as long as it lasts.
    Wait,
    /// Counts it as any other error.
    GiveUp,
}

impl Publisher {
    pub(super) fn new(connection: Arc<SharedConnection>) -> Self {
        Self { connection, channel_permits: Semaphore::new(MAX_CHANNELS) }
    }

    /// Publishes all messages in order and waits until each is confirmed. Those not yet confirmed
    /// when a connection is lost are published again, so some may be there twice. Gives up once
    /// `limit` has passed without progress.
    pub(super) async fn publish(
        &self,
        messages: &[OutgoingMessage],
        limit: Duration,
        while_blocked: WhileBlocked,
    ) -> Result<(), QueueError> {
        let mut unconfirmed: Vec<usize> = (0..messages.len()).collect();
        let mut retries = BrokerRetries::new(Some(limit));
        while !unconfirmed.is_empty() {
            let before = unconfirmed.len();
            if let Err(error) = self.try_once(messages, &mut unconfirmed).await {
                let waits = while_blocked == WhileBlocked::Wait
                    && matches!(error, QueueError::Blocked { .. });
                if unconfirmed.len() < before || waits {
                    retries = BrokerRetries::new(Some(limit));
                }
                retries.pause(error).await?;
            }
        }
        Ok(())
    }

    async fn try_once(
        &self,
        messages: &[OutgoingMessage],
        unconfirmed: &mut Vec<usize>,
    ) -> Result<(), QueueError> {
        let _permit = self.channel_permits.acquire().await.expect("permits are never closed");
        let open = self.connection.get().await?;
        let result = async {
            let channel = self.connection.confirming_channel(&open).await?;
            self.send(&channel, messages, unconfirmed).await?;
            open.put_back(channel);
            Ok(())
        }
        .await;
        if result.is_err() {
            self.connection.discard(&open).await;
            // A blocked broker reads nothing more. Then a missing answer is only the consequence.
            if let Some(blocked) = self.connection.blocked_error(&open) {
                return Err(blocked);
            }
        }
        result
    }

    /// Sends the `unconfirmed` messages over a channel that nothing else uses, and removes from
    /// `unconfirmed` those that were confirmed.
    async fn send(
        &self,
        channel: &Channel,
        messages: &[OutgoingMessage],
        unconfirmed: &mut Vec<usize>,
    ) -> Result<(), QueueError> {
        let connector = self.connection.connector();
        let mut outcome = Ok(());
        let mut confirms = Vec::with_capacity(unconfirmed.len());
        for window in unconfirmed.chunks(WINDOW) {
            let sends = window.iter().map(|&index| {
                publish(channel, messages[index].clone()).map(move |sent| (index, sent))
            });
            match tokio::time::timeout(OPERATION_TIMEOUT, join_all(sends)).await {
                Err(_) => outcome = Err(connector.no_answer(OPERATION_TIMEOUT)),
                Ok(sent) => {
                    for (index, sent) in sent {
                        match sent {
                            Ok(confirm) => confirms.push((index, confirm)),
                            Err(error) => outcome = Err(connector.classify(&error)),
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
                Ok(()) => confirmed[index] = true,
                // The library may hand a returned message to a neighbour's confirm. It is not known
                // which message it was, so none of them counts as confirmed.
                Err(Unconfirmed::Returned(error)) => return Err(error),
                Err(Unconfirmed::Refused(error)) => outcome = Err(error),
                Err(Unconfirmed::NoAnswer(error)) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        unconfirmed.retain(|&index| !confirmed[index]);
        outcome
    }

    async fn confirmed(&self, confirm: PublisherConfirm) -> Result<(), Unconfirmed> {
        let connector = self.connection.connector();
        match tokio::time::timeout(OPERATION_TIMEOUT, confirm).await {
            Ok(Ok(Confirmation::Ack(None))) => Ok(()),
            Ok(Ok(Confirmation::Ack(Some(message)) | Confirmation::Nack(Some(message)))) => {
                Err(Unconfirmed::Returned(returned(&message)))
            }
            Ok(Ok(Confirmation::Nack(None))) => Err(Unconfirmed::Refused(not_stored())),
            Ok(Ok(Confirmation::NotRequested)) => {
                unreachable!("every channel of the pool has confirms on")
            }
            Ok(Err(error)) => Err(Unconfirmed::Refused(connector.classify(&error))),
            Err(_) => Err(Unconfirmed::NoAnswer(connector.no_answer(OPERATION_TIMEOUT))),
        }
    }
}

/// Why a message is not confirmed.
enum Unconfirmed {
    /// It, or another message of the same channel, has no queue to go to.
    Returned(QueueError),
    /// The broker refused it, or the channel failed.
    Refused(QueueError),
    NoAnswer(QueueError),
}

/// Hands a message to the connection. It comes back if it has no queue to go to.
pub(super) async fn publish(
    channel: &Channel,
    message: OutgoingMessage,
) -> Result<PublisherConfirm, lapin::Error> {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let OutgoingMessage { queue, body, properties } = message;
    channel.basic_publish("".into(), queue, options, &body, properties).await
}

/// The error for a message that came back because it has no queue to go to.
pub(super) fn returned(message: &BasicReturnMessage) -> QueueError {
    QueueError::Rejected {
        reason: format!("{} ({})", message.reply_text.as_str(), message.routing_key.as_str()),
    }
}

/// The error for a message that the broker refused.
pub(super) fn not_stored() -> QueueError {
    QueueError::Rejected {
        reason: "it could not store it; see the broker's log and its disk".to_owned(),
    }
}
