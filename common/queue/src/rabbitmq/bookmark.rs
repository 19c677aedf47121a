//! Where a sequence was when its last publisher ended, and how a publisher gets at it together with
//! the right to go on: both last as long as its channel. What a bookmark is worth is
//! [`sequence`](super::sequence)'s.

use std::sync::Arc;

use bytes::Bytes;
use lapin::Channel;
use lapin::options::{BasicQosOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::protocol::AMQPSoftError;
use lapin::types::{FieldTable, ShortString};

use super::Shared;
use super::census::Census;
use super::connection::OPERATION_TIMEOUT;
use super::publisher::Link;
use super::small_queue::{self, Held, Obstacle};
use super::topology::is_soft;
use super::wire;
use crate::QueueError;

/// Where a sequence was when its last publisher ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bookmark {
    /// The last message.
    pub body: Bytes,
    /// The note it was published with.
    pub note: String,
    /// Of the messages up to that one, all but so many of the last have arrived.
    pub unsure: usize,
    /// Whether those have not, for certain.
    pub is_counted: bool,
}

/// A channel to publish by, and with it the right to.
pub(super) struct Hold {
    pub(super) link: Arc<Link>,
    pub(super) channel: Channel,
    /// Where the right to count is had, too.
    pub(super) census: Option<Census>,
    /// Who has it is the one who publishes. Its message stays in it.
    _bookmark: Option<Held>,
}

/// One try to get a channel of one's own, with the bookmark kept in a small queue and, where this user
/// `counts`, the right to.
pub(super) async fn try_attach(
    shared: &Shared,
    memory: Option<&ShortString>,
    counts: bool,
) -> Result<(Hold, Option<Bookmark>), Obstacle> {
    let publisher = &shared.publisher;
    let link = publisher.link().await?;
    let channel = publisher.answer(link.create_channel()).await?;
    publisher.answer(channel.confirm_select(ConfirmSelectOptions::default())).await?;
    let Some(memory) = memory else {
        return Ok((Hold { link, channel, census: None, _bookmark: None }, None));
    };
    match take_both(shared, &channel, memory, counts).await {
        Ok((held, census, bookmark)) => {
            Ok((Hold { link, channel, census, _bookmark: Some(held) }, bookmark))
        }
        Err(obstacle) => {
            // A client that goes without a word leaves its channel to the connection's end.
            let closing = channel.close(200, "not now".into());
            if let Ok(Err(error)) = tokio::time::timeout(OPERATION_TIMEOUT, closing).await {
                tracing::debug!(%error, "the channel was closed already");
            }
            Err(obstacle)
        }
    }
}

/// The bookmark's queue, and the right to count where nobody else has it.
async fn take_both(
    shared: &Shared,
    channel: &Channel,
    memory: &ShortString,
    counts: bool,
) -> Result<(Held, Option<Census>, Option<Bookmark>), Obstacle> {
    shared.publisher.answer(channel.basic_qos(1, BasicQosOptions::default())).await?;
    let held = small_queue::take(shared, channel, memory).await?;
    let left = held.message.as_ref().and_then(|message| {
        let (note, standing) = wire::bookmark(&message.properties)?;
        Some((message.data.clone().into(), note, standing))
    });
    let mut missing = None;
    let mut census = None;
    if counts {
        let standing = left.as_ref().map(|(_, _, standing)| standing);
        match Census::open(shared, channel, standing).await {
            Ok((opened, counted)) => (census, missing) = (Some(opened), counted),
            // It goes without.
            Err(Obstacle::Held) if channel.status().connected() => {}
            Err(obstacle) => return Err(obstacle),
        }
    }
    let bookmark = left.map(|(body, note, standing)| Bookmark {
        body,
        note,
        unsure: missing.unwrap_or(standing.on_their_way),
        is_counted: missing.is_some(),
    });
    Ok((held, census, bookmark))
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
