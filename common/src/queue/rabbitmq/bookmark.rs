//! The small queue that keeps a sequence's newest message: its properties, and how a publisher gets
//! it and the channel to publish by, both to itself. What its message means is the
//! [`sequence`](super::sequence)'s.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use lapin::options::{
    BasicConsumeOptions, BasicQosOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::protocol::AMQPSoftError;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Consumer};

use super::Shared;
use super::connection::OPERATION_TIMEOUT;
use super::publisher::Link;
use super::topology::is_soft;
use super::wire;
use crate::queue::QueueError;

/// The bookmark comes at once where there is one.
const BOOKMARK_TIMEOUT: Duration = Duration::from_secs(10);
/// The broker forgets a bookmark that nobody came back for: a week.
const EXPIRES_MS: i32 = 7 * 24 * 3600 * 1000;

/// Where a sequence was when its last publisher ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bookmark {
    /// The last message.
    pub body: Bytes,
    /// The note it was published with.
    pub note: String,
}

/// A channel to publish by, and with it the right to.
pub(super) struct Hold {
    pub(super) link: Arc<Link>,
    pub(super) channel: Channel,
    /// Never acknowledged: who has it is the one who publishes.
    _exclusive: Option<Consumer>,
}

/// One try to get a channel of one's own.
pub(super) async fn try_attach(
    shared: &Shared,
    memory: Option<&ShortString>,
) -> Result<(Hold, Option<Bookmark>), Obstacle> {
    let publisher = &shared.publisher;
    let link = publisher.link().await?;
    let channel = publisher.answer(link.create_channel()).await?;
    let Some(memory) = memory else {
        publisher.answer(channel.confirm_select(ConfirmSelectOptions::default())).await?;
        return Ok((Hold { link, channel, _exclusive: None }, None));
    };
    let options = QueueDeclareOptions::durable();
    let declared = channel.queue_declare(memory.clone(), options, arguments());
    let declared = asked(shared, declared).await?;
    if declared.consumer_count() > 0 {
        // A client that goes without a word leaves its channel to the connection's end.
        publisher.answer(channel.close(200, "held".into())).await?;
        return Err(Obstacle::Held);
    }
    let one = BasicQosOptions::default();
    publisher.answer(channel.basic_qos(1, one)).await?;
    let options = BasicConsumeOptions { exclusive: true, ..BasicConsumeOptions::default() };
    let tag = "enqueue".into();
    let consuming = channel.basic_consume(memory.clone(), tag, options, FieldTable::default());
    let mut consumer = asked(shared, consuming).await?;
    publisher.answer(channel.confirm_select(ConfirmSelectOptions::default())).await?;
    let mut bookmark = None;
    if declared.message_count() > 0 {
        let coming = tokio::time::timeout(BOOKMARK_TIMEOUT, consumer.next()).await;
        if let Ok(Some(Ok(delivery))) = coming {
            bookmark = wire::note(&delivery.properties)
                .map(|note| Bookmark { body: delivery.data.into(), note });
        }
    }
    Ok((Hold { link, channel, _exclusive: Some(consumer) }, bookmark))
}

/// Waits for an answer about the small queue, which this user may have no right to.
async fn asked<T>(
    shared: &Shared,
    asking: impl Future<Output = Result<T, lapin::Error>>,
) -> Result<T, Obstacle> {
    match tokio::time::timeout(OPERATION_TIMEOUT, asking).await {
        Err(_) => Err(shared.connector.no_answer(OPERATION_TIMEOUT).into()),
        Ok(Err(error)) if is_soft(&error, &AMQPSoftError::ACCESSREFUSED) => {
            let reason = error.to_string();
            // Another was quicker, between the count of consumers and this.
            Err(if reason.contains("exclusive use") {
                Obstacle::Held
            } else {
                Obstacle::NoRight(reason)
            })
        }
        Ok(answer) => answer.map_err(|error| shared.connector.classify(&error).into()),
    }
}

/// Whether the broker has the bookmark of a sequence that has not ended.
pub(super) async fn is_open(shared: &Shared, name: &str) -> Result<bool, QueueError> {
    let channel = shared.publisher.fresh_channel().await?;
    let options = QueueDeclareOptions::durable().passive();
    let memory = shared.topology.bookmark(name)?;
    let looking = channel.queue_declare(memory, options, FieldTable::default());
    match tokio::time::timeout(OPERATION_TIMEOUT, looking).await {
        Err(_) => Err(shared.connector.no_answer(OPERATION_TIMEOUT)),
        Ok(Ok(_)) => Ok(true),
        Ok(Err(error)) if is_soft(&error, &AMQPSoftError::NOTFOUND) => Ok(false),
        Ok(Err(error)) => Err(shared.connector.classify(&error)),
    }
}

/// Why there is no channel to publish by.
pub(super) enum Obstacle {
    /// Somebody else has it, or the broker has not yet noticed that its client is gone.
    Held,
    NoRight(String),
    Failed(QueueError),
}

impl From<QueueError> for Obstacle {
    fn from(error: QueueError) -> Self {
        Self::Failed(error)
    }
}

fn arguments() -> FieldTable {
    let mut arguments = FieldTable::default();
    let mut insert = |key: &str, value| {
        arguments.insert(key.into(), value);
    };
    // A virtual host's own default may be another.
    insert("x-queue-type", AMQPValue::LongString("classic".into()));
    insert("x-max-length", AMQPValue::LongInt(1));
    insert("x-expires", AMQPValue::LongInt(EXPIRES_MS));
    arguments
}
