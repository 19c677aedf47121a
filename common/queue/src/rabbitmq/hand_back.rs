//! Hands back messages that were taken only to be read: dead letters, and notes of runs.

use std::time::Duration;

use lapin::options::BasicNackOptions;
use lapin::types::ShortString;
use lapin::{Acker, Channel};
use tokio::time::Instant;

use super::broker::Broker;
use crate::error::QueueError;

/// How long messages that were handed back may take to be ready again.
const TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// Hands back the messages of `queue` that this channel holds. Returns once they are ready again, so
/// that the next reader finds them.
pub(super) async fn hand_back(
    broker: &Broker,
    channel: &Channel,
    queue: &ShortString,
    messages: Vec<Acker>,
) -> Result<(), QueueError> {
    let expected = messages.len() as u64;
    for message in messages {
        let requeue = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
        message.nack(requeue).await.map_err(|error| broker.connector.classify(&error))?;
    }
    let deadline = Instant::now() + TIMEOUT;
    // Another reader may have taken them already. Then the deadline ends this, without harm.
    while broker.connection.count_messages(channel, queue).await? < expected
        && Instant::now() < deadline
    {
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}
