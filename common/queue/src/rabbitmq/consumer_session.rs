//! Consuming over one connection, until it is lost.
//!
//! A session takes from two queues: the jobs, as many as the prefetch, and the suspects, one at a
//! time; from neither while the prefetch is zero. It keeps back messages that keep killing their
//! workers. Takes a message from the library's buffer only when asked for one, so the prefetch
//! bounds all that is held here. What is still in that buffer at the end is handed back.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use lapin::types::ShortString;
use lapin::{Connection, Consumer};
use tokio::sync::watch;
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
    prefetch: Prefetch,
    jobs: QueueConsumer,
    suspects: QueueConsumer,
}

/// How many unsettled deliveries a consumer may hold. It can change at any time.
#[derive(Debug)]
pub(super) struct Prefetch {
    /// The most that it is ever.
    pub(super) most: u16,
    /// A lower number, if there is one for now. With zero, no message is taken.
    pub(super) limit: watch::Receiver<Option<u16>>,
}

impl Prefetch {
    fn now(&mut self) -> u16 {
        let limit = *self.limit.borrow_and_update();
        limit.map_or(self.most, |limit| limit.min(self.most))
    }
}

/// The consumer of one queue. It has a channel of its own, since a prefetch is a channel's.
struct QueueConsumer {
    channel: Arc<ConsumerChannel>,
    queue: ShortString,
    /// `None` while it consumes nothing, and once the session has ended.
    consumer: Option<Consumer>,
    /// The prefetch that `consumer` was started with: the broker never changes it.
    prefetch: u16,
    /// True if `consumer` is cancelled, and yields only what was on its way to it.
    ends: bool,
}

impl ConsumerSession {
    pub(super) async fn open(
        broker: &Arc<Broker>,
        moves: TaskTracker,
        mut prefetch: Prefetch,
    ) -> Result<Self, QueueError> {
        let connection = Arc::new(broker.connector.connect().await?);
        let topology = &broker.topology;
        let now = prefetch.now();
        let opening = async {
            topology.declare(&connection).await?;
            let mut jobs = QueueConsumer::open(&connection, topology.jobs()).await?;
            let mut suspects = QueueConsumer::open(&connection, topology.suspects()).await?;
            jobs.adapt(now).await?;
            suspects.adapt(now.min(1)).await?;
            Ok((jobs, suspects))
        };
        let (jobs, suspects) = broker.connector.answer(opening).await?;
        Ok(Self { broker: Arc::clone(broker), moves, prefetch, jobs, suspects })
    }

    pub(super) fn channels(&self) -> [&Arc<ConsumerChannel>; 2] {
        [&self.jobs.channel, &self.suspects.channel]
    }

    /// The next delivery; `None` if there will be no more over this connection.
    pub(super) async fn next(&mut self) -> Option<Delivery> {
        loop {
            if let Err(error) = self.adapt().await {
                self.warn_of_loss(&error);
                return None;
            }
            let (event, alone) = tokio::select! {
                // There is always a sender: the queue that this is a consumer of.
                Ok(()) = self.prefetch.limit.changed() => continue,
                event = self.suspects.next() => (event, true),
                event = self.jobs.next() => (event, false),
            };
            let consumer = if alone { &mut self.suspects } else { &mut self.jobs };
            let address = self.broker.connector.address();
            let delivery = match event {
                Some(Ok(delivery)) => delivery,
                Some(Err(error)) => {
                    self.warn_of_loss(&error);
                    return None;
                }
                None if consumer.ends => {
                    consumer.consumer = None;
                    continue;
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

    /// Takes more or fewer messages, or none, as is wanted now.
    async fn adapt(&mut self) -> Result<(), lapin::Error> {
        let prefetch = self.prefetch.now();
        self.jobs.adapt(prefetch).await?;
        self.suspects.adapt(prefetch.min(1)).await
    }

    fn warn_of_loss(&self, error: &lapin::Error) {
        let connector = &self.broker.connector;
        let error = connector.classify(error);
        tracing::warn!(address = connector.address(), %error, "connection lost");
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
            refusals: wire::refusals(&properties),
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
    /// Opens a channel. Nothing is consumed yet.
    async fn open(connection: &Arc<Connection>, queue: &ShortString) -> Result<Self, lapin::Error> {
        let channel = connection.create_channel().await?;
        let channel = Arc::new(ConsumerChannel::new(Arc::clone(connection), channel));
        Ok(Self { channel, queue: queue.clone(), consumer: None, prefetch: 0, ends: false })
    }

    /// What the consumer yields next. Nothing comes while there is none.
    async fn next(&mut self) -> Option<Result<lapin::message::Delivery, lapin::Error>> {
        match &mut self.consumer {
            Some(consumer) => consumer.next().await,
            None => std::future::pending().await,
        }
    }

    /// Consumes with this prefetch. A consumer with another one is cancelled first, and what is on
    /// its way to it is still yielded: handed back, it would count as a delivery that killed its
    /// worker. Then this must be called again.
    async fn adapt(&mut self, prefetch: u16) -> Result<(), lapin::Error> {
        if let Some(consumer) = &self.consumer {
            if self.ends || self.prefetch == prefetch {
                return Ok(());
            }
            let tag = consumer.tag();
            self.ends = true;
            return self.channel.cancel(tag).await;
        }
        if prefetch > 0 {
            let consumer = self.channel.consume(&self.queue, prefetch).await?;
            (self.consumer, self.prefetch, self.ends) = (Some(consumer), prefetch, false);
        }
        Ok(())
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
