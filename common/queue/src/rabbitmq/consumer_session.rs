//! Consuming over one connection, until it is lost.
//!
//! A session takes from two queues: the jobs, as many as the prefetch, and the suspects, one at a
//! time; from neither while the prefetch is zero. It keeps back messages that keep killing their
//! workers. A consumer can be replaced by one with another prefetch. Upstream:
//! [`consumer`](super::consumer), which keeps what nobody has taken yet.

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
use super::held_delivery::HeldDelivery;
use super::receipt::RabbitMqReceipt;
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
    queue: ShortString,
    /// `None` while it is cancelled.
    consumer: Option<Consumer>,
    /// What `consumer` started with, or the next one is to start with. Zero if none is to start.
    prefetch: u16,
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
    /// A consumer that was cancelled can start with its new prefetch: whatever came from its queue is
    /// settled. To be answered by [`ConsumerSession::start_consumers`].
    CanStart,
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
            let mut jobs = QueueConsumer::open(&connection, topology.jobs()).await?;
            let mut suspects = QueueConsumer::open(&connection, topology.suspects()).await?;
            for (queue, prefetch) in [(&mut jobs, prefetch), (&mut suspects, prefetch.min(1))] {
                queue.prefetch = prefetch;
                queue.start_if_it_can().await?;
            }
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
            let (jobs_wait, suspects_wait) = (jobs.waits(), suspects.waits());
            let (event, alone) = tokio::select! {
                event = next(&mut suspects.consumer) => (event, true),
                event = next(&mut jobs.consumer) => (event, false),
                () = suspects.channel.settled(), if suspects_wait => return SessionEvent::CanStart,
                () = jobs.channel.settled(), if jobs_wait => return SessionEvent::CanStart,
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
            refusals: wire::refusals(&properties),
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
        let number = self.held.keep(held);
        let receipt = RabbitMqReceipt { held: Arc::clone(&self.held), number };
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

    /// Takes messages with another prefetch, or none if it is zero. A consumer with the new one does
    /// not start before [`SessionEvent::CanStart`]: the broker counts what an earlier consumer holds
    /// beside the new one's prefetch. Returns what was under way.
    pub(super) async fn change_prefetch(&mut self, prefetch: u16) -> Vec<NewDelivery> {
        let jobs = self.jobs.change_prefetch(prefetch).await;
        let suspects = self.suspects.change_prefetch(prefetch.min(1)).await;
        let jobs = jobs.into_iter().map(|delivery| (delivery, false));
        let under_way = jobs.chain(suspects.into_iter().map(|delivery| (delivery, true)));
        under_way.filter_map(|(delivery, alone)| self.screen(delivery, alone)).collect()
    }

    /// Starts the consumers that were cancelled and whose queue's messages are settled.
    pub(super) async fn start_consumers(&mut self) -> Result<(), QueueError> {
        for queue in [&mut self.jobs, &mut self.suspects] {
            self.broker.connector.answer(queue.start_if_it_can()).await?;
        }
        Ok(())
    }

    /// Takes nothing any more. Returns what was under way.
    pub(super) async fn end(mut self) -> Vec<NewDelivery> {
        self.change_prefetch(0).await
    }
}

impl QueueConsumer {
    /// Opens a channel. Nothing is consumed yet.
    async fn open(connection: &Arc<Connection>, queue: &ShortString) -> Result<Self, lapin::Error> {
        let channel = Arc::new(ConsumerChannel::open(connection).await?);
        Ok(Self { channel, queue: queue.clone(), consumer: None, prefetch: 0 })
    }

    /// True if there is no consumer, and one is to start once all is settled.
    fn waits(&self) -> bool {
        self.consumer.is_none() && self.prefetch > 0
    }

    async fn start_if_it_can(&mut self) -> Result<(), lapin::Error> {
        if self.waits() && self.channel.unsettled() == 0 {
            self.consumer = Some(self.channel.consume(&self.queue, self.prefetch).await?);
        }
        Ok(())
    }

    /// Cancels the consumer if it has another prefetch. Returns what was under way to it.
    async fn change_prefetch(&mut self, prefetch: u16) -> Vec<lapin::message::Delivery> {
        let changes = std::mem::replace(&mut self.prefetch, prefetch) != prefetch;
        match self.consumer.take_if(|_| changes) {
            Some(consumer) => self.channel.cancel(consumer).await,
            None => Vec::new(),
        }
    }
}

/// The next delivery of a consumer; never, while there is none. A consumer that has ended is dropped:
/// it can't be cancelled, and gives no end a second time.
async fn next(
    consumer: &mut Option<Consumer>,
) -> Option<Result<lapin::message::Delivery, lapin::Error>> {
    let Some(consuming) = consumer else { return std::future::pending().await };
    let delivery = consuming.next().await;
    if !matches!(delivery, Some(Ok(_))) {
        *consumer = None;
    }
    delivery
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
