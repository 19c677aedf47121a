//! Consuming over one connection, until it is lost.
//!
//! A session takes from two queues: the jobs, as many as the prefetch, and the suspects, one at a
//! time. It keeps back messages that keep killing their workers. The jobs' consumer can be replaced
//! by one with another prefetch. Upstream: [`consumer`](super::consumer), which keeps what nobody
//! has taken yet.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::StreamExt;
use lapin::types::ShortString;
use lapin::{Connection, Consumer};
use tokio_util::task::TaskTracker;

use super::broker::Broker;
use super::consumer_channel::ConsumerChannel;
use super::held_deliveries::HeldDeliveries;
use super::receipt::HeldDelivery;
use super::topology::{ISOLATED_TRIES, SUSPECT_AFTER};
use super::wire;
use crate::delivery::{Delivery, Receipt};
use crate::error::QueueError;

/// The consumers of one connection.
pub(super) struct ConsumerSession {
    broker: Arc<Broker>,
    held: Arc<HeldDeliveries>,
    /// Runs the moves of messages that are kept back.
    moves: TaskTracker,
    jobs: QueueConsumer,
    suspects: QueueConsumer,
}

/// The consumer of one queue. It has a channel of its own, since a prefetch is a channel's.
struct QueueConsumer {
    channel: Arc<ConsumerChannel>,
    /// `None` while it is cancelled.
    consumer: Option<Consumer>,
}

/// A delivery that nobody has taken yet.
pub(super) struct NewDelivery {
    /// Its number among the [`HeldDeliveries`].
    pub(super) number: u64,
    pub(super) delivery: Delivery,
}

/// What happens over a connection.
pub(super) enum SessionEvent {
    Delivered(NewDelivery),
    /// Every job is settled, after [`ConsumerSession::pause_jobs`].
    JobsSettled,
    /// There will be no more deliveries. Says why.
    Lost(String),
}

impl ConsumerSession {
    pub(super) async fn open(
        broker: &Arc<Broker>,
        held: &Arc<HeldDeliveries>,
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
        Ok(Self { broker: Arc::clone(broker), held: Arc::clone(held), moves, jobs, suspects })
    }

    pub(super) fn channels(&self) -> [&Arc<ConsumerChannel>; 2] {
        [&self.jobs.channel, &self.suspects.channel]
    }

    /// Waits for the next event.
    pub(super) async fn next(&mut self) -> SessionEvent {
        loop {
            let Self { jobs, suspects, .. } = self;
            let paused = jobs.consumer.is_none();
            let (event, alone) = tokio::select! {
                event = next(&mut suspects.consumer) => (event, true),
                event = next(&mut jobs.consumer) => (event, false),
                () = jobs.channel.settled(), if paused => return SessionEvent::JobsSettled,
            };
            match event {
                Some(Ok(delivery)) => {
                    if let Some(delivery) = self.screen(delivery, alone) {
                        return SessionEvent::Delivered(delivery);
                    }
                }
                Some(Err(error)) => {
                    let error = self.broker.connector.classify(&error);
                    let address = self.broker.connector.address();
                    if let QueueError::HeldTooLong { .. } = error {
                        tracing::error!("{error}");
                    } else {
                        tracing::warn!(address, %error, "connection lost");
                    }
                    return SessionEvent::Lost(error.to_string());
                }
                None => {
                    let reason = "the broker cancelled the consumer: its queue was deleted or moved, \
                                  or (RabbitMQ 4.3 and later) a message was held for longer than \
                                  its consumer_timeout";
                    tracing::warn!(address = self.broker.connector.address(), "{reason}");
                    return SessionEvent::Lost(reason.to_owned());
                }
            }
        }
    }

    /// Keeps back a message that keeps killing its workers. From the jobs it goes to the suspects.
    /// From the suspects, where its workers do nothing else meanwhile, it goes to the dead letters.
    /// The broker counts a loss for every message that a worker held, so among the jobs a loss
    /// proves nothing yet.
    fn screen(&self, delivery: lapin::message::Delivery, alone: bool) -> Option<NewDelivery> {
        let lapin::message::Delivery { data, acker, properties, redelivered, .. } = delivery;
        let consumer = if alone { &self.suspects } else { &self.jobs };
        let losses = wire::losses(&properties, alone);
        let held = HeldDelivery {
            broker: Arc::clone(&self.broker),
            channel: consumer.channel.count(),
            acker,
            body: Bytes::from(data),
            attempt: wire::attempts(&properties).saturating_add(1),
            trace: wire::trace(&properties),
            losses,
            is_suspect: alone,
        };
        let kills = match alone {
            true => losses.among_suspects >= ISOLATED_TRIES,
            false => losses.among_jobs >= SUSPECT_AFTER,
        };
        if kills {
            self.moves.spawn_on(keep_back(held), &self.broker.runtime);
            return None;
        }
        let (body, attempt, trace) = (held.body.clone(), held.attempt, held.trace.clone());
        let receipt = self.held.keep(held);
        let number = receipt.number;
        let delivery = Delivery {
            body,
            queue: self.broker.topology.name(alone),
            attempt,
            redelivered: redelivered || alone || wire::is_republished(&properties),
            alone,
            trace,
            published_at: wire::published_at(&properties),
            received_at: Instant::now(),
            receipt: Receipt::new(Box::new(receipt)),
        };
        Some(NewDelivery { number, delivery })
    }

    /// How many jobs are not settled.
    pub(super) fn unsettled_jobs(&self) -> usize {
        self.jobs.channel.unsettled()
    }

    /// True after [`ConsumerSession::pause_jobs`].
    pub(super) fn is_paused(&self) -> bool {
        self.jobs.consumer.is_none()
    }

    /// Takes no further job. Returns those that were under way.
    pub(super) async fn pause_jobs(&mut self) -> Vec<NewDelivery> {
        self.stop(false).await
    }

    /// Takes jobs again, with another prefetch. Only after [`SessionEvent::JobsSettled`]: the broker
    /// counts what an earlier consumer holds beside the new one's prefetch.
    pub(super) async fn resume_jobs(&mut self, prefetch: u16) -> Result<(), QueueError> {
        let consuming = self.jobs.channel.consume(self.broker.topology.jobs(), prefetch);
        self.jobs.consumer = Some(self.broker.connector.answer(consuming).await?);
        Ok(())
    }

    /// Takes nothing any more. Returns what was under way.
    pub(super) async fn end(mut self) -> Vec<NewDelivery> {
        let mut under_way = self.stop(false).await;
        under_way.extend(self.stop(true).await);
        under_way
    }

    async fn stop(&mut self, suspects: bool) -> Vec<NewDelivery> {
        let queue = if suspects { &mut self.suspects } else { &mut self.jobs };
        let Some(consumer) = queue.consumer.take() else { return Vec::new() };
        let under_way = queue.channel.cancel(consumer).await;
        under_way.into_iter().filter_map(|delivery| self.screen(delivery, suspects)).collect()
    }
}

impl QueueConsumer {
    async fn open(
        connection: &Arc<Connection>,
        queue: &ShortString,
        prefetch: u16,
    ) -> Result<Self, lapin::Error> {
        let channel = Arc::new(ConsumerChannel::open(connection).await?);
        let consumer = Some(channel.consume(queue, prefetch).await?);
        Ok(Self { channel, consumer })
    }
}

/// The next delivery of a consumer; never, while there is none.
async fn next(
    consumer: &mut Option<Consumer>,
) -> Option<Result<lapin::message::Delivery, lapin::Error>> {
    match consumer {
        Some(consumer) => consumer.next().await,
        None => std::future::pending().await,
    }
}

/// Moves a message that killed its workers to where it does less harm.
async fn keep_back(held: HeldDelivery) {
    let moved = match held.is_suspect {
        true => dead_letter_killer(held).await,
        false => held.move_to_suspects().await,
    };
    if let Err(error) = moved {
        tracing::debug!(%error, "not moved; it will be delivered again");
    }
}

/// Dead-letters a message whose workers died while they did nothing else.
async fn dead_letter_killer(held: HeldDelivery) -> Result<(), QueueError> {
    let wire::Losses { among_jobs, among_suspects } = held.losses;
    let reason = format!(
        "workers were lost {} times while they held this message, the last {among_suspects} times \
         with nothing beside it: it ends them; look at its image (does it take too much memory?) \
         before a redrive",
        among_jobs.saturating_add(among_suspects)
    );
    held.dead_letter(&reason).await?;
    tracing::error!(reason, "dead-lettered");
    Ok(())
}
