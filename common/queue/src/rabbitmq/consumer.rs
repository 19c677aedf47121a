//! Deliveries as they come, across lost connections.
//!
//! Owns the consumers' connections and the endless reconnecting. Takes a message from the
//! library's buffer only when asked for one, so the prefetch bounds all that is held here;
//! what is still in that buffer at the end is handed back. Downstream: the worker's intake.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use futures::{StreamExt, stream};
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, Consumer};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::connection::warn_of;
use super::publisher::close_connection;
use super::receipt::RabbitMqReceipt;
use super::topology::{ISOLATED_TRIES, SUSPECT_AFTER};
use super::wire;
use crate::{Deliveries, Delivery, QueueError, Receipt};
use camshaft_common::backoff::Backoff;

/// A consumer's connection and channel. Kept as long as one of its deliveries is unsettled:
/// a channel that is closed gives them to someone else.
pub(super) struct Line {
    connection: Arc<Connection>,
    channel: Channel,
}

impl Line {
    pub(super) fn is_open(&self) -> bool {
        self.channel.status().connected()
    }

    pub(super) async fn close(&self) {
        close_connection(&self.connection).await;
    }
}

/// Starts consuming. Errors that no further try can mend are told here; where the broker
/// can't be reached, the stream goes on trying.
pub(super) async fn deliveries(
    shared: Arc<Shared>,
    prefetch: u16,
    stop: CancellationToken,
) -> Result<Deliveries, QueueError> {
    let mut intake = Intake { shared, prefetch, stop, session: None, backoff: Backoff::default() };
    match Session::open(&intake.shared, prefetch).await {
        Ok(session) => intake.session = Some(session),
        Err(error) if error.is_transient() => intake.rest(&error).await,
        Err(error) => return Err(error),
    }
    let deliveries = stream::unfold(intake, |mut intake| async {
        intake.next().await.map(|delivery| (delivery, intake))
    });
    Ok(deliveries.boxed())
}

struct Intake {
    shared: Arc<Shared>,
    prefetch: u16,
    stop: CancellationToken,
    session: Option<Session>,
    backoff: Backoff,
}

impl Intake {
    async fn next(&mut self) -> Option<Delivery> {
        loop {
            if self.is_stopped() {
                if let Some(session) = self.session.take() {
                    session.end().await;
                }
                return None;
            }
            match &mut self.session {
                Some(session) => {
                    match self.shared.until_stopped(&self.stop, session.next()).await {
                        None => {}
                        Some(Some(delivery)) => {
                            self.backoff.reset();
                            return Some(delivery);
                        }
                        Some(None) => {
                            self.shared.note_trouble(Some(
                                "the connection to the broker was lost".to_owned(),
                            ));
                            self.session = None;
                        }
                    }
                }
                None => {
                    let opening = Session::open(&self.shared, self.prefetch);
                    match self.shared.until_stopped(&self.stop, opening).await {
                        None => {}
                        Some(Ok(session)) => {
                            tracing::info!(
                                address = self.shared.connector.address(),
                                "consuming again"
                            );
                            self.shared.note_trouble(None);
                            self.session = Some(session);
                        }
                        Some(Err(error)) if error.is_transient() => self.rest(&error).await,
                        Some(Err(error)) => {
                            tracing::error!(%error, "cannot consume any more");
                            let failure = self.shared.failure.lock();
                            *failure.unwrap_or_else(PoisonError::into_inner) = Some(error);
                            return None;
                        }
                    }
                }
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.is_cancelled() || self.shared.closed.is_cancelled()
    }

    /// Waits before the next try.
    async fn rest(&mut self, error: &QueueError) {
        let delay = self.backoff.next_delay();
        warn_of(error, delay);
        self.shared.note_trouble(Some(error.to_string()));
        self.shared.until_stopped(&self.stop, tokio::time::sleep(delay)).await;
    }
}

impl Shared {
    /// `None` where consuming was stopped before `work` was done.
    async fn until_stopped<T>(
        &self,
        stop: &CancellationToken,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        tokio::select! {
            biased;
            () = stop.cancelled() => None,
            () = self.closed.cancelled() => None,
            result = work => Some(result),
        }
    }
}

/// Consuming over one connection, until it is lost.
struct Session {
    shared: Arc<Shared>,
    jobs: Lane,
    suspects: Lane,
}

/// One consumer. Each has a channel of its own, since a prefetch is a channel's.
struct Lane {
    line: Arc<Line>,
    /// Taken out when the session ends.
    consumer: Option<Consumer>,
}

impl Session {
    async fn open(shared: &Arc<Shared>, prefetch: u16) -> Result<Self, QueueError> {
        let connection = Arc::new(shared.connector.connect().await?);
        let topology = &shared.topology;
        let opening = async {
            topology.declare(&connection).await?;
            let channel = connection.create_channel().await?;
            let jobs = Lane::open(&connection, channel, topology.jobs(), prefetch).await?;
            let channel = connection.create_channel().await?;
            let suspects = Lane::open(&connection, channel, topology.suspects(), 1).await?;
            Ok((jobs, suspects))
        };
        let (jobs, suspects) = shared.publisher.answer(opening).await?;
        let mut lines = shared.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.retain(|line| line.strong_count() > 0);
        lines.extend([&jobs, &suspects].map(|lane| Arc::downgrade(&lane.line)));
        drop(lines);
        Ok(Self { shared: Arc::clone(shared), jobs, suspects })
    }

    /// The next delivery; `None` where there will be none over this connection.
    async fn next(&mut self) -> Option<Delivery> {
        loop {
            let (event, alone) = tokio::select! {
                event = self.suspects.consumer.as_mut()?.next() => (event, true),
                event = self.jobs.consumer.as_mut()?.next() => (event, false),
            };
            let address = self.shared.connector.address();
            let delivery = match event {
                Some(Ok(delivery)) => delivery,
                Some(Err(error)) => {
                    let error = self.shared.connector.classify(&error);
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

    /// Keeps back a message that keeps losing its workers: one from the jobs goes to the suspects,
    /// one that did so with nothing beside it to the dead letters. The broker counts a loss
    /// for every message the worker held, so among the jobs it proves nothing yet.
    fn screen(&self, delivery: lapin::message::Delivery, alone: bool) -> Option<Delivery> {
        let lapin::message::Delivery { data, acker, properties, redelivered, .. } = delivery;
        let lane = if alone { &self.suspects } else { &self.jobs };
        let body = Bytes::from(data);
        let attempt = wire::attempts(&properties).saturating_add(1);
        let trace = wire::trace(&properties);
        let receipt = RabbitMqReceipt {
            shared: Arc::clone(&self.shared),
            line: Arc::clone(&lane.line),
            acker,
            body: body.clone(),
            attempt,
            trace: trace.clone(),
        };
        let losses = wire::losses(&properties);
        if losses < if alone { ISOLATED_TRIES } else { SUSPECT_AFTER } {
            let receipt = Receipt::new(Box::new(receipt));
            let redelivered = redelivered || alone;
            let queue = self.shared.topology.name(alone);
            let published_at = wire::published_at(&properties);
            return Some(Delivery {
                body,
                queue,
                attempt,
                redelivered,
                alone,
                trace,
                published_at,
                receipt,
            });
        }
        let before = wire::losses_before(&properties);
        let moving = async move {
            let moved = match alone {
                true => condemn(&receipt, before, losses).await,
                false => receipt.suspect(losses).await,
            };
            if let Err(error) = moved {
                tracing::debug!(%error, "not moved; it will be delivered again");
            }
        };
        self.shared.moves.spawn_on(moving, &self.shared.runtime);
        None
    }

    /// Takes no further message and hands back what was not yielded.
    async fn end(mut self) {
        for lane in [&mut self.jobs, &mut self.suspects] {
            if let Some(consumer) = lane.consumer.take() {
                hand_back_buffered(Arc::clone(&lane.line), consumer).await;
            }
        }
    }
}

impl Lane {
    async fn open(
        connection: &Arc<Connection>,
        channel: Channel,
        queue: &ShortString,
        prefetch: u16,
    ) -> Result<Self, lapin::Error> {
        channel.basic_qos(prefetch.max(1), BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions::default();
        let consumer =
            channel.basic_consume(queue.clone(), "".into(), options, FieldTable::default()).await?;
        let line = Arc::new(Line { connection: Arc::clone(connection), channel });
        Ok(Self { line, consumer: Some(consumer) })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for lane in [&mut self.jobs, &mut self.suspects] {
            if let Some(consumer) = lane.consumer.take() {
                let line = Arc::clone(&lane.line);
                self.shared.runtime.spawn(hand_back_buffered(line, consumer));
            }
        }
    }
}

/// Dead-letters a message that lost its workers `before` it was set apart and, alone, `losses`
/// times more.
async fn condemn(receipt: &RabbitMqReceipt, before: u32, losses: u32) -> Result<(), QueueError> {
    let reason = format!(
        "workers were lost {} times while they held this message, the last {losses} times with \
         nothing beside it: it ends them; look at its image (does it take too much memory?) before \
         a redrive",
        before + losses
    );
    receipt.bury(&reason).await?;
    tracing::error!(reason, "dead-lettered");
    Ok(())
}

async fn hand_back_buffered(line: Arc<Line>, mut consumer: Consumer) {
    if !line.is_open() {
        return;
    }
    // Once the broker has confirmed the cancel, the library ends the stream behind the last
    // message that was under way.
    let cancelling = line.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
    if let Err(error) = cancelling.await {
        tracing::debug!(%error, "consumer was gone before it was cancelled");
        return;
    }
    let requeue = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
    while let Some(Ok(delivery)) = consumer.next().await {
        if let Err(error) = delivery.acker.nack(requeue).await {
            tracing::debug!(%error, "connection ended before all messages were handed back");
            return;
        }
    }
}
