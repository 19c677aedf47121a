//! Consuming over one connection, until it is lost.
//!
//! A session takes from two queues: the jobs, as many as the prefetch, and the suspects, one at a
//! time. It keeps back messages that keep killing their workers. Takes a message from the library's
//! buffer only when asked for one, so the prefetch bounds all that is held here. What is still in
//! that buffer at the end is handed back.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Connection, Consumer};
use tokio_util::task::TaskTracker;

use super::broker::Broker;
use super::consumer_channel::ConsumerChannel;
use super::receipt::RabbitMqReceipt;
use super::topology::{ISOLATED_TRIES, SUSPECT_AFTER};
use super::wire;
use crate::delivery::{Delivery, Receipt};
use crate::error::QueueError;

/// The consumers of one connection.
pub(super) struct ConsumerSession {
    broker: Arc<Broker>,
    /// Runs the moves of messages that are kept back.
    moves: TaskTracker,
    jobs: QueueConsumer,
    suspects: QueueConsumer,
}

/// The consumer of one queue. It has a channel of its own, since a prefetch is a channel's.
struct QueueConsumer {
    channel: Arc<ConsumerChannel>,
    /// Taken out when the session ends.
    consumer: Option<Consumer>,
}

impl ConsumerSession {
    pub(super) async fn open(
        broker: &Arc<Broker>,
        moves: TaskTracker,
        prefetch: u16,
    ) -> Result<Self, QueueError> {
        let connection = Arc::new(broker.connector.connect().await?);
        let topology = &broker.topology;
        let opening = async {
            topology.declare(&connection).await?;
            let jobs = QueueConsumer::open(&connection, topology.jobs(), prefetch).await?;
            let suspects = QueueConsumer::open(&connection, topology.suspects(), 1).await?;
            Ok((jobs, suspects))
        };
        let (jobs, suspects) = broker.connector.answer(opening).await?;
        Ok(Self { broker: Arc::clone(broker), moves, jobs, suspects })
    }

    pub(super) fn channels(&self) -> [&Arc<ConsumerChannel>; 2] {
        [&self.jobs.channel, &self.suspects.channel]
    }

    /// The next delivery; `None` if there will be no more over this connection.
    pub(super) async fn next(&mut self) -> Option<Delivery> {
        loop {
            let (event, alone) = tokio::select! {
                event = self.suspects.consumer.as_mut()?.next() => (event, true),
                event = self.jobs.consumer.as_mut()?.next() => (event, false),
            };
            let address = self.broker.connector.address();
            let delivery = match event {
                Some(Ok(delivery)) => delivery,
                Some(Err(error)) => {
                    let error = self.broker.connector.classify(&error);
                    tracing::warn!(address, %error, "connection lost");
                    return None;
                }
                None => {
                    tracing::warn!(address, "broker cancelled the consumer");
                    return None;
                }
            };
            if let Some(delivery) = self.screen(delivery, alone) {
                return Some(delivery);
            }
        }
    }

    /// Keeps back a message that keeps killing its workers. From the jobs it goes to the suspects.
    /// From the suspects, where its workers do nothing else meanwhile, it goes to the dead letters.
    /// The broker counts a loss for every message that a worker held, so among the jobs a loss
    /// proves nothing yet.
    fn screen(&self, delivery: lapin::message::Delivery, alone: bool) -> Option<Delivery> {
        let lapin::message::Delivery { data, acker, properties, redelivered, .. } = delivery;
        let consumer = if alone { &self.suspects } else { &self.jobs };
        let receipt = RabbitMqReceipt {
            broker: Arc::clone(&self.broker),
            channel: Arc::clone(&consumer.channel),
            acker,
            body: Bytes::from(data),
            attempt: wire::attempts(&properties).saturating_add(1),
            trace: wire::trace(&properties),
        };
        let losses = wire::losses(&properties);
        if losses < if alone { ISOLATED_TRIES } else { SUSPECT_AFTER } {
            return Some(Delivery {
                body: receipt.body.clone(),
                queue: self.broker.topology.name(alone),
                attempt: receipt.attempt,
                redelivered: redelivered || alone || wire::is_republished(&properties),
                alone,
                trace: receipt.trace.clone(),
                published_at: wire::published_at(&properties),
                receipt: Receipt::new(Box::new(receipt)),
            });
        }
        let losses_before = wire::losses_before(&properties);
        let moving = async move {
            let moved = if alone {
                dead_letter_killer(&receipt, losses_before, losses).await
            } else {
                receipt.move_to_suspects(losses).await
            };
            if let Err(error) = moved {
                tracing::debug!(%error, "not moved; it will be delivered again");
            }
        };
        self.moves.spawn_on(moving, &self.broker.runtime);
        None
    }

    /// Takes no further message and hands back those that were not yielded.
    pub(super) async fn end(mut self) {
        for queue in [&mut self.jobs, &mut self.suspects] {
            if let Some(consumer) = queue.consumer.take() {
                Arc::clone(&queue.channel).hand_back_buffered(consumer).await;
            }
        }
    }
}

impl Drop for ConsumerSession {
    fn drop(&mut self) {
        for queue in [&mut self.jobs, &mut self.suspects] {
            if let Some(consumer) = queue.consumer.take() {
                let handing_back = Arc::clone(&queue.channel).hand_back_buffered(consumer);
                self.broker.runtime.spawn(handing_back);
            }
        }
    }
}

impl QueueConsumer {
    async fn open(
        connection: &Arc<Connection>,
        queue: &ShortString,
        prefetch: u16,
    ) -> Result<Self, lapin::Error> {
        let channel = connection.create_channel().await?;
        channel.basic_qos(prefetch.max(1), BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions::default();
        let consumer =
            channel.basic_consume(queue.clone(), "".into(), options, FieldTable::default()).await?;
        let channel = Arc::new(ConsumerChannel::new(Arc::clone(connection), channel));
        Ok(Self { channel, consumer: Some(consumer) })
    }
}

/// Dead-letters a message whose workers died `losses_before` times while it was among the jobs, and
/// `losses` times while they did nothing else.
async fn dead_letter_killer(
    receipt: &RabbitMqReceipt,
    losses_before: u32,
    losses: u32,
) -> Result<(), QueueError> {
    let reason = format!(
        "workers were lost {} times while they held this message, the last {losses} times with \
         nothing beside it: it ends them; look at its image (does it take too much memory?) before \
         a redrive",
        losses_before + losses
    );
    receipt.dead_letter(&reason).await?;
    tracing::error!(reason, "dead-lettered");
    Ok(())
}
