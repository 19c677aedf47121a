//! Dead letters: read where they are, and moved back to the jobs.
//!
//! Redriving goes once through the dead letters that were there at the start. A message that dies
//! again meanwhile is left for the next time. Each is confirmed among the jobs before it leaves the
//! dead letters: a crash in between leaves it in both, never in none.

use camshaft_common::run::RunId;
use lapin::options::{BasicAckOptions, BasicGetOptions};
use lapin::{Acker, Channel};

use super::broker::Broker;
use super::hand_back::hand_back;
use super::publisher::WhileBlocked;
use super::retry::{BrokerRetries, retry};
use super::wire::{self, OutgoingMessage};
use crate::error::QueueError;
use crate::message::{DeadLetter, Message, run_of};

/// Dead letters moved at a time. The broker's channel passes up to 32 commands on to a quorum queue
/// before the queue answers the first. It keeps the others itself, and loses them when the channel
/// closes. With fewer than that, an acknowledgement reaches the queue once it was sent.
const MOVED_AT_A_TIME: u64 = 16;

/// Moves dead letters back to the jobs: all, or those of one `run`. Returns how many.
pub(super) async fn redrive(broker: &Broker, run: Option<&RunId>) -> Result<u64, QueueError> {
    let mut moved = 0;
    let mut retries = BrokerRetries::new(Some(broker.retry_limit));
    while let Err(error) = move_once(broker, run, &mut moved).await {
        retries.pause(error).await?;
    }
    Ok(moved)
}

/// Reads every dead letter and leaves it where it is. Until this is done, others don't see the
/// dead letters that were read already.
pub(super) async fn read_all(broker: &Broker) -> Result<Vec<DeadLetter>, QueueError> {
    retry(Some(broker.retry_limit), || read_once(broker)).await
}

async fn read_once(broker: &Broker) -> Result<Vec<DeadLetter>, QueueError> {
    let channel = broker.connection.channel().await?;
    let count = broker.connection.count_messages(&channel, broker.topology.dead()).await?;
    let (mut letters, mut ackers) = (Vec::new(), Vec::new());
    for taken in take(broker, &channel, count).await? {
        letters.push(DeadLetter {
            body: taken.message.body,
            reason: taken.reason,
            attempts: taken.attempts,
            trace: taken.message.trace,
        });
        ackers.push(taken.acker);
    }
    hand_back(broker, &channel, broker.topology.dead(), ackers).await?;
    broker.connector.answer(channel.close(200, "done".into())).await?;
    Ok(letters)
}

/// One try. If it fails, the end of its channel hands back every dead letter that was not moved.
async fn move_once(
    broker: &Broker,
    run: Option<&RunId>,
    moved: &mut u64,
) -> Result<(), QueueError> {
    let channel = broker.connection.channel().await?;
    let mut left = broker.connection.count_messages(&channel, broker.topology.dead()).await?;
    // Kept until the end. Otherwise the broker would deliver the same dead letters again.
    let mut of_other_runs = Vec::new();
    while left > 0 {
        let letters = take(broker, &channel, left.min(MOVED_AT_A_TIME)).await?;
        if letters.is_empty() {
            break;
        }
        left -= letters.len() as u64;
        let mut jobs = Vec::new();
        let mut originals = Vec::new();
        for letter in letters {
            if run.is_none() || run_of(&letter.message.body).as_ref() == run {
                jobs.push(OutgoingMessage::job(broker.topology.jobs(), letter.message));
                originals.push(letter.acker);
            } else {
                of_other_runs.push(letter.acker);
            }
        }
        broker.publisher.publish(&jobs, broker.retry_limit, WhileBlocked::Wait).await?;
        for original in originals {
            let sent = original.ack(BasicAckOptions::default()).await;
            if !sent.map_err(|error| broker.connector.classify(&error))? {
                return Err(QueueError::Stale);
            }
            *moved += 1;
        }
    }
    hand_back(broker, &channel, broker.topology.dead(), of_other_runs).await?;
    broker.connector.answer(channel.close(200, "done".into())).await
}

/// A dead letter that this channel holds. Nobody else sees it until it is acknowledged or handed
/// back.
struct TakenDeadLetter {
    message: Message,
    reason: String,
    attempts: u32,
    acker: Acker,
}

async fn take(
    broker: &Broker,
    channel: &Channel,
    at_most: u64,
) -> Result<Vec<TakenDeadLetter>, QueueError> {
    let mut letters = Vec::new();
    while (letters.len() as u64) < at_most {
        let getting = channel.basic_get(broker.topology.dead().clone(), BasicGetOptions::default());
        let Some(letter) = broker.connector.answer(getting).await? else { break };
        let delivery = letter.delivery;
        letters.push(TakenDeadLetter {
            reason: wire::reason(&delivery.properties),
            attempts: wire::attempts(&delivery.properties),
            message: Message {
                trace: wire::trace(&delivery.properties),
                body: delivery.data.into(),
            },
            acker: delivery.acker,
        });
    }
    Ok(letters)
}
