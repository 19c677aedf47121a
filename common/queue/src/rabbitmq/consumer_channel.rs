//! A consumer's channel, with its connection. Deliveries come and are settled through it.
//!
//! Knows how many of its deliveries are not settled: a consumer with another prefetch may start only
//! when none is left.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, Consumer};
use tokio::sync::watch;
use tokio::time::timeout;

use super::shared_connection::close_connection;

/// How long to wait for each of the last deliveries of a consumer that is cancelled. They are here
/// already, in the library.
const LAST_DELIVERY_TIMEOUT: Duration = Duration::from_secs(5);

/// Kept while one of its deliveries is unsettled: when a channel closes, the broker delivers its
/// unsettled messages to another worker.
pub(super) struct ConsumerChannel {
    connection: Arc<Connection>,
    channel: Channel,
    unsettled: watch::Sender<usize>,
}

/// Counts one delivery of a channel as unsettled, until it is dropped.
pub(super) struct Unsettled(Arc<ConsumerChannel>);

impl ConsumerChannel {
    pub(super) async fn open(connection: &Arc<Connection>) -> Result<Self, lapin::Error> {
        let channel = connection.create_channel().await?;
        Ok(Self { connection: Arc::clone(connection), channel, unsettled: watch::Sender::new(0) })
    }

    pub(super) fn is_open(&self) -> bool {
        self.channel.status().connected()
    }

    pub(super) async fn close(&self) {
        close_connection(&self.connection).await;
    }

    /// Starts a consumer. Its prefetch is not zero: that would be no limit. A quorum queue
    /// keeps the prefetch that a consumer starts with, and counts only that consumer's own
    /// deliveries. The broker names each one anew: under an old name, RabbitMQ before 3.10.9 would
    /// deliver what is unsettled a second time.
    pub(super) async fn consume(
        &self,
        queue: &ShortString,
        prefetch: u16,
    ) -> Result<Consumer, lapin::Error> {
        self.channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions::default();
        self.channel.basic_consume(queue.clone(), "".into(), options, FieldTable::default()).await
    }

    /// Cancels a consumer. Returns the deliveries that it has not yielded.
    pub(super) async fn cancel(&self, mut consumer: Consumer) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        if !self.is_open() {
            return deliveries;
        }
        // Once the broker has confirmed the cancel, the library ends the stream behind the last
        // message that was under way.
        let cancelling = self.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
        if let Err(error) = cancelling.await {
            tracing::debug!(%error, "consumer was gone before it was cancelled");
            return deliveries;
        }
        // If the broker cancelled it at the same time, the stream has ended before, and does not again.
        while let Ok(Some(Ok(delivery))) = timeout(LAST_DELIVERY_TIMEOUT, consumer.next()).await {
            deliveries.push(delivery);
        }
        deliveries
    }

    /// Counts one more delivery as unsettled.
    pub(super) fn count(self: &Arc<Self>) -> Unsettled {
        self.unsettled.send_modify(|unsettled| *unsettled += 1);
        Unsettled(Arc::clone(self))
    }

    /// How many of its deliveries are not settled.
    pub(super) fn unsettled(&self) -> usize {
        *self.unsettled.borrow()
    }

    /// Waits until all of its deliveries are settled.
    pub(super) async fn settled(&self) {
        let mut unsettled = self.unsettled.subscribe();
        unsettled.wait_for(|unsettled| *unsettled == 0).await.expect("its sender is here");
    }
}

impl Unsettled {
    pub(super) fn is_open(&self) -> bool {
        self.0.is_open()
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        self.0.unsettled.send_modify(|unsettled| *unsettled -= 1);
    }
}
