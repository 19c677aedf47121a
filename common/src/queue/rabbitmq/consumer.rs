//! Deliveries as they come, across lost connections.
//!
//! Owns the consumers' connections and the endless reconnecting. Takes a message from the
//! library's buffer only when asked for one, so the prefetch bounds all that is held here;
//! what is still in that buffer at the end is handed back. Downstream: the worker's intake.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use futures::{StreamExt, stream};
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Consumer};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::connection::{Backoff, warn_of};
use super::publisher::close_connection;
use super::receipt::RabbitMqReceipt;
use super::wire;
use crate::queue::{Deliveries, Delivery, QueueError, Receipt};

/// A consumer's connection and channel. Kept as long as one of its deliveries is unsettled:
/// a channel that is closed gives them to someone else.
pub(super) struct Line {
    connection: Connection,
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
                        Some(None) => self.session = None,
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
    line: Arc<Line>,
    /// Taken out when the session ends.
    consumer: Option<Consumer>,
}

impl Session {
    async fn open(shared: &Arc<Shared>, prefetch: u16) -> Result<Self, QueueError> {
        let connection = shared.connector.connect().await?;
        let opening = async {
            shared.topology.declare(&connection).await?;
            let channel = connection.create_channel().await?;
            channel.basic_qos(prefetch.max(1), BasicQosOptions::default()).await?;
            let (jobs, options) = (shared.topology.jobs(), BasicConsumeOptions::default());
            let consumer = channel
                .basic_consume(jobs.clone(), "".into(), options, FieldTable::default())
                .await?;
            Ok((channel, consumer))
        };
        let (channel, consumer) = shared.publisher.answer(opening).await?;
        let line = Arc::new(Line { connection, channel });
        let mut lines = shared.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.retain(|line| line.strong_count() > 0);
        lines.push(Arc::downgrade(&line));
        drop(lines);
        Ok(Self { shared: Arc::clone(shared), line, consumer: Some(consumer) })
    }

    /// The next delivery; `None` where there will be none over this connection.
    async fn next(&mut self) -> Option<Delivery> {
        let address = self.shared.connector.address();
        match self.consumer.as_mut()?.next().await {
            Some(Ok(delivery)) => Some(self.delivery(delivery)),
            Some(Err(error)) => {
                let error = self.shared.connector.classify(&error);
                tracing::warn!(address, %error, "connection lost");
                None
            }
            None => {
                tracing::warn!(address, "broker cancelled the consumer");
                None
            }
        }
    }

    fn delivery(&self, delivery: lapin::message::Delivery) -> Delivery {
        let body = Bytes::from(delivery.data);
        let attempt = wire::attempts(&delivery.properties).saturating_add(1);
        let traceparent = wire::traceparent(&delivery.properties);
        Delivery {
            body: body.clone(),
            attempt,
            redelivered: delivery.redelivered,
            traceparent: traceparent.clone(),
            receipt: Receipt::new(Box::new(RabbitMqReceipt {
                shared: Arc::clone(&self.shared),
                line: Arc::clone(&self.line),
                acker: delivery.acker,
                body,
                attempt,
                traceparent,
            })),
        }
    }

    /// Takes no further message and hands back what was not yielded.
    async fn end(mut self) {
        if let Some(consumer) = self.consumer.take() {
            hand_back_buffered(Arc::clone(&self.line), consumer).await;
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(consumer) = self.consumer.take() {
            let line = Arc::clone(&self.line);
            self.shared.runtime.spawn(hand_back_buffered(line, consumer));
        }
    }
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
