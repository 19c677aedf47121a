//! Notes of the runs whose jobs were published: they tell which runs' jobs may wait.
//!
//! Jobs can't be looked at without taking them from the workers, and a look would count as a delivery.
//! So every enqueue leaves a note in a queue beside them, `NAME.runs`, and whoever wants to know reads
//! the notes and leaves them there. The queue keeps the newest [`MAX_NOTES`]. It is a quorum queue as
//! those of jobs are, so notes last as long. Older sets of rights don't have it: then nothing is noted.
//!
//! Upstream: enqueue. Downstream: `camshaft runs`, which knows what a note says and when it can go.

use std::collections::HashSet;

use lapin::options::{BasicAckOptions, BasicGetOptions, QueueDeclareOptions};
use lapin::protocol::AMQPSoftError;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Acker, Channel, Error};

use super::broker::Broker;
use super::hand_back::hand_back;
use super::publisher::WhileBlocked;
use super::retry::{BrokerRetries, retry};
use super::topology::{NO_DELIVERY_LIMIT, insert, is_soft, look, quorum, text};
use super::wire::OutgoingMessage;
use crate::error::QueueError;
use crate::message::RunNote;

/// Notes that are kept: the newest. They are read one by one, some milliseconds each at most.
const MAX_NOTES: i32 = 4096;

/// Leaves a note. Creates the queue if there is none yet.
pub(super) async fn leave(broker: &Broker, note: RunNote) -> Result<(), QueueError> {
    let mut retries = BrokerRetries::new(Some(broker.retry_limit));
    while let Err(error) = ensure_queue(broker).await {
        let Some(blocked) = broker.connection.blocked() else {
            retries.pause(error).await?;
            continue;
        };
        // It reads nothing from a connection that publishes jobs, too. It may last for long.
        retries = BrokerRetries::new(Some(broker.retry_limit));
        retries.pause(blocked).await?;
    }
    let note = OutgoingMessage::note(broker.topology.run_notes(), note.body);
    broker.publisher.publish(&[note], broker.retry_limit, WhileBlocked::Wait).await
}

/// Reads every note and leaves it where it is. Until this is done, others don't see the notes that
/// were read already.
pub(super) async fn read_all(broker: &Broker) -> Result<Vec<RunNote>, QueueError> {
    retry(Some(broker.retry_limit), || read_once(broker)).await
}

/// Removes notes: those that equal one of `notes`. Others stay.
pub(super) async fn remove(broker: &Broker, notes: &[RunNote]) -> Result<(), QueueError> {
    let wanted: HashSet<_> = notes.iter().collect();
    retry(Some(broker.retry_limit), || remove_once(broker, &wanted)).await
}

async fn ensure_queue(broker: &Broker) -> Result<(), QueueError> {
    let (connector, connection) = (&broker.connector, &broker.connection);
    let channel = connection.channel().await?;
    let options = QueueDeclareOptions::durable();
    let declaring =
        channel.queue_declare(broker.topology.run_notes().clone(), options, arguments());
    let refused = match connector.answer(declaring).await {
        Ok(_) => return connector.answer(channel.close(200, "done".into())).await,
        Err(error) if error.is_transient() => return Err(error),
        Err(refused) => refused,
    };
    // A user who may not create it may leave notes once another has. The broker has closed the channel.
    let channel = connection.channel_after_refusal().await?;
    let Some((channel, _)) = find(broker, channel).await? else { return Err(refused) };
    connector.answer(channel.close(200, "done".into())).await?;
    match refused {
        QueueError::AccessRefused { .. } => Ok(()),
        refused => Err(refused),
    }
}

async fn read_once(broker: &Broker) -> Result<Vec<RunNote>, QueueError> {
    let Some((channel, taken)) = take_all(broker).await? else { return Ok(Vec::new()) };
    let (notes, ackers) = taken.into_iter().map(|TakenNote { note, acker }| (note, acker)).unzip();
    hand_back(broker, &channel, broker.topology.run_notes(), ackers).await?;
    broker.connector.answer(channel.close(200, "done".into())).await?;
    Ok(notes)
}

async fn remove_once(broker: &Broker, wanted: &HashSet<&RunNote>) -> Result<(), QueueError> {
    let Some((channel, taken)) = take_all(broker).await? else { return Ok(()) };
    let mut kept = Vec::new();
    for TakenNote { note, acker } in taken {
        if !wanted.contains(&note) {
            kept.push(acker);
            continue;
        }
        // A note whose acknowledgement is lost with the channel is removed the next time.
        let sent = acker.ack(BasicAckOptions::default()).await;
        if !sent.map_err(|error| broker.connector.classify(&error))? {
            return Err(QueueError::Stale);
        }
    }
    hand_back(broker, &channel, broker.topology.run_notes(), kept).await?;
    broker.connector.answer(channel.close(200, "done".into())).await
}

/// A note that this channel holds.
struct TakenNote {
    note: RunNote,
    acker: Acker,
}

/// Takes every note. `None` if there is no queue: nobody has left a note yet.
async fn take_all(broker: &Broker) -> Result<Option<(Channel, Vec<TakenNote>)>, QueueError> {
    let channel = broker.connection.channel().await?;
    let Some((channel, count)) = find(broker, channel).await? else { return Ok(None) };
    let mut taken = Vec::new();
    while (taken.len() as u64) < count {
        let queue = broker.topology.run_notes().clone();
        let getting = channel.basic_get(queue, BasicGetOptions::default());
        let Some(message) = broker.connector.answer(getting).await? else { break };
        let delivery = message.delivery;
        let note = RunNote { body: delivery.data.into() };
        taken.push(TakenNote { note, acker: delivery.acker });
    }
    Ok(Some((channel, taken)))
}

/// Looks for the queue of notes by a channel that nobody else uses. Gives the channel back with the
/// number of notes, or nothing if there is no queue. This needs no rights.
async fn find(broker: &Broker, channel: Channel) -> Result<Option<(Channel, u64)>, QueueError> {
    if let Some(notes) =
        broker.connector.answer(count(&channel, broker.topology.run_notes())).await?
    {
        return Ok(Some((channel, notes)));
    }
    // The broker has closed the channel. The next one is opened here, so that nobody else gets its error.
    let channel = broker.connection.channel_after_refusal().await?;
    broker.connector.answer(channel.close(200, "done".into())).await?;
    Ok(None)
}

/// How many notes there are; `None` if there is no queue of them.
async fn count(channel: &Channel, queue: &ShortString) -> Result<Option<u64>, Error> {
    match look(channel, queue).await {
        Err(error) if is_soft(&error, &AMQPSoftError::NOTFOUND) => Ok(None),
        looked => Ok(Some(u64::from(looked?.message_count()))),
    }
}

fn arguments() -> FieldTable {
    let mut arguments = quorum();
    insert(&mut arguments, "x-max-length", AMQPValue::LongInt(MAX_NOTES));
    insert(&mut arguments, "x-overflow", text("drop-head"));
    insert(&mut arguments, "x-delivery-limit", AMQPValue::LongInt(NO_DELIVERY_LIMIT));
    arguments
}
