//! A consumer's channel, with its connection. Deliveries come and are settled through it.

use std::sync::Arc;

use futures::StreamExt;
use lapin::options::{BasicCancelOptions, BasicNackOptions};
use lapin::{Channel, Connection, Consumer};

use super::shared_connection::close_connection;

/// Kept while one of its deliveries is unsettled: when a channel closes, the broker delivers its
/// unsettled messages to another worker.
pub(super) struct ConsumerChannel {
    connection: Arc<Connection>,
    channel: Channel,
}

impl ConsumerChannel {
    pub(super) fn new(connection: Arc<Connection>, channel: Channel) -> Self {
        Self { connection, channel }
    }

    pub(super) fn is_open(&self) -> bool {
        self.channel.status().connected()
    }

    pub(super) async fn close(&self) {
        close_connection(&self.connection).await;
    }

    /// Cancels the consumer and hands back the messages that it holds and has not yielded.
    pub(super) async fn hand_back_buffered(self: Arc<Self>, mut consumer: Consumer) {
        if !self.is_open() {
            return;
        }
        // Once the broker has confirmed the cancel, the library ends the stream behind the last
        // message that was under way.
        let cancelling = self.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
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
}
