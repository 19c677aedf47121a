//! Queues of one message, which an enqueue has to itself while it runs: the properties that make
//! them so, and how one is taken. Whose they are: [`bookmark`](super::bookmark) and
//! [`census`](super::census).

use std::time::Duration;

use futures::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, QueueDeclareOptions};
use lapin::protocol::AMQPSoftError;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Consumer};

use super::Shared;
use super::connection::OPERATION_TIMEOUT;
use super::topology::is_soft;
use crate::QueueError;

/// What is there comes at once.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// The broker forgets one that nobody came back for: a week.
const EXPIRES_MS: i32 = 7 * 24 * 3600 * 1000;

/// A small queue that nobody else can take before the channel's end.
pub(super) struct Held {
    _exclusive: Consumer,
    /// Its message. Not acknowledged, it is there for the next one.
    pub(super) message: Option<Delivery>,
    /// How many there were: a message that was held is back beside one that came meanwhile.
    pub(super) count: u32,
}

/// Why a small queue can't be taken.
pub(super) enum Obstacle {
    /// Somebody else has it, or the broker has not yet noticed that its client is gone.
    Held,
    /// This user may not have that one, in the broker's words.
    NoRight {
        queue: ShortString,
        reason: String,
    },
    Failed(QueueError),
}

impl From<QueueError> for Obstacle {
    fn from(error: QueueError) -> Self {
        Self::Failed(error)
    }
}

/// Takes a small queue, over a channel whose prefetch is 1. Where somebody else has it the channel
/// is left as it is, but for a narrow race; where this user may not, it is closed.
pub(super) async fn take(
    shared: &Shared,
    channel: &Channel,
    name: &ShortString,
) -> Result<Held, Obstacle> {
    let options = QueueDeclareOptions::durable();
    let declaring = channel.queue_declare(name.clone(), options, arguments());
    let declared = asked(shared, name, declaring).await?;
    if declared.consumer_count() > 0 {
        return Err(Obstacle::Held);
    }
    let options = BasicConsumeOptions { exclusive: true, ..BasicConsumeOptions::default() };
    let consuming =
        channel.basic_consume(name.clone(), name.clone(), options, FieldTable::default());
    let mut consumer = asked(shared, name, consuming).await?;
    let count = declared.message_count();
    let message = if count == 0 {
        None
    } else {
        let coming = tokio::time::timeout(MESSAGE_TIMEOUT, consumer.next()).await;
        coming.ok().flatten().and_then(Result::ok)
    };
    Ok(Held { _exclusive: consumer, message, count })
}

/// Waits for an answer about a small queue, which this user may have no right to.
async fn asked<T>(
    shared: &Shared,
    queue: &ShortString,
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
                Obstacle::NoRight { queue: queue.clone(), reason }
            })
        }
        Ok(answer) => answer.map_err(|error| shared.connector.classify(&error).into()),
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
