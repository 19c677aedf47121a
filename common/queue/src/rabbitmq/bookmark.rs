//! The bookmark of a sequence: its queue on the broker, and how a publisher takes it.
//!
//! The queue holds one message, the newest of the sequence. A publisher consumes the queue
//! exclusively over the channel that it publishes by, so only one publisher has it, until its
//! channel ends. What a bookmark means is told in [`sequence`](super::sequence).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::protocol::AMQPSoftError;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Consumer};

use super::broker::Broker;
use super::connection::OPERATION_TIMEOUT;
use super::shared_connection::OpenConnection;
use super::topology::is_soft;
use super::wire;
use crate::error::QueueError;

/// A message that is in the queue is delivered at once. Later it is not coming.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// The broker deletes the queue after a week in which nobody continued the sequence.
const EXPIRES_MS: i32 = 7 * 24 * 3600 * 1000;

/// Where a sequence was when its last publisher ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bookmark {
    /// The last message.
    pub body: Bytes,
    /// The note it was published with.
    pub note: String,
    /// The number of last messages, this one included, that may not have arrived. All earlier ones
    /// have arrived.
    pub unconfirmed: usize,
}

/// A channel to publish a sequence by. Nobody else can publish the sequence while it is open.
pub(super) struct SequenceChannel {
    pub(super) connection: Arc<OpenConnection>,
    pub(super) channel: Channel,
    _bookmark_queue: Option<BookmarkQueue>,
}

/// A bookmark's queue that nobody else can take before the channel's end.
struct BookmarkQueue {
    _exclusive: Consumer,
    /// Never acknowledged, so that the next publisher finds it.
    message: Option<Delivery>,
}

/// Why a sequence's channel can't be had.
pub(super) enum AttachError {
    /// Another publisher has the sequence, or the broker has not yet noticed that it is gone.
    InUse,
    /// This user may not have the bookmark's queue. The broker's words.
    NoRight(String),
    Failed(QueueError),
}

impl From<QueueError> for AttachError {
    fn from(error: QueueError) -> Self {
        Self::Failed(error)
    }
}

/// One try to get a channel, and the bookmark that an earlier publisher left in `queue`. Without
/// a queue there is no bookmark, and nothing keeps other publishers away.
pub(super) async fn attach(
    broker: &Broker,
    queue: Option<&ShortString>,
) -> Result<(SequenceChannel, Option<Bookmark>), AttachError> {
    let connection = broker.connection.get().await?;
    let channel = broker.connection.new_confirming_channel(&connection).await?;
    let Some(queue) = queue else {
        return Ok((SequenceChannel { connection, channel, _bookmark_queue: None }, None));
    };
    match take(broker, &channel, queue).await {
        Ok(taken) => {
            let bookmark = taken.message.as_ref().and_then(read);
            let _bookmark_queue = Some(taken);
            Ok((SequenceChannel { connection, channel, _bookmark_queue }, bookmark))
        }
        Err(error) => {
            // The library would leave the channel open until the connection ends.
            let closing = channel.close(200, "not now".into());
            if let Ok(Err(error)) = tokio::time::timeout(OPERATION_TIMEOUT, closing).await {
                tracing::debug!(%error, "the channel was closed already");
            }
            Err(error)
        }
    }
}

fn read(message: &Delivery) -> Option<Bookmark> {
    let (note, unconfirmed) = wire::bookmark(&message.properties)?;
    Some(Bookmark { body: message.data.clone().into(), note, unconfirmed })
}

/// Takes a bookmark's queue, and creates it if it doesn't exist. If another publisher has it, the
/// channel usually stays open. If this user may not have it, the broker closes the channel.
async fn take(
    broker: &Broker,
    channel: &Channel,
    queue: &ShortString,
) -> Result<BookmarkQueue, AttachError> {
    broker.connector.answer(channel.basic_qos(1, BasicQosOptions::default())).await?;
    let options = QueueDeclareOptions::durable();
    let declared =
        answer(broker, channel.queue_declare(queue.clone(), options, arguments())).await?;
    if declared.consumer_count() > 0 {
        return Err(AttachError::InUse);
    }
    let options = BasicConsumeOptions { exclusive: true, ..BasicConsumeOptions::default() };
    let consuming =
        channel.basic_consume(queue.clone(), queue.clone(), options, FieldTable::default());
    let mut consumer = answer(broker, consuming).await?;
    let message = if declared.message_count() == 0 {
        None
    } else {
        let coming = tokio::time::timeout(MESSAGE_TIMEOUT, consumer.next()).await;
        coming.ok().flatten().and_then(Result::ok)
    };
    Ok(BookmarkQueue { _exclusive: consumer, message })
}

/// Waits for an answer about a bookmark's queue, which this user may have no right to.
async fn answer<T>(
    broker: &Broker,
    asking: impl Future<Output = Result<T, lapin::Error>>,
) -> Result<T, AttachError> {
    match tokio::time::timeout(OPERATION_TIMEOUT, asking).await {
        Err(_) => Err(broker.connector.no_answer(OPERATION_TIMEOUT).into()),
        Ok(Err(error)) if is_soft(&error, &AMQPSoftError::ACCESSREFUSED) => {
            let reason = error.to_string();
            // Another publisher was quicker, between the count of consumers and this.
            Err(if reason.contains("exclusive use") {
                AttachError::InUse
            } else {
                AttachError::NoRight(reason)
            })
        }
        Ok(answer) => answer.map_err(|error| broker.connector.classify(&error).into()),
    }
}

fn arguments() -> FieldTable {
    let mut arguments = FieldTable::default();
    let mut insert = |key: &str, value| {
        arguments.insert(key.into(), value);
    };
    // A virtual host may have another type as its default.
    insert("x-queue-type", AMQPValue::LongString("classic".into()));
    insert("x-max-length", AMQPValue::LongInt(1));
    insert("x-expires", AMQPValue::LongInt(EXPIRES_MS));
    arguments
}
