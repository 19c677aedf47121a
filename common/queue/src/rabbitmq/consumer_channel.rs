//! A consumer's channel, with its connection. Deliveries come and are settled through it.

use std::sync::Arc;

use futures::StreamExt;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
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

    /// Starts to consume a queue, with up to `prefetch` unsettled deliveries.
    pub(super) async fn consume(
        &self,
        queue: &ShortString,
        prefetch: u16,
    ) -> Result<Consumer, lapin::Error> {
        self.channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions::default();
        let consuming =
            self.channel.basic_consume(queue.clone(), "".into(), options, FieldTable::default());
        consuming.await
    }

    /// Cancels a consumer. Its stream ends behind the last message that was on its way.
    pub(super) async fn cancel(&self, tag: ShortString) -> Result<(), lapin::Error> {
        self.channel.basic_cancel(tag, BasicCancelOptions::default()).await
    }

    /// Cancels the consumer and hands back the messages that it holds and has not yielded.
    pub(super) async fn hand_back_buffered(self: Arc<Self>, mut consumer: Consumer) {
        if !self.is_open() {
            return;
        }
        if let Err(error) = self.cancel(consumer.tag()).await {
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
