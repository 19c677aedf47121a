//! Dead letters: looked at, and moved back to work.
//!
//! Redriving goes through those that were there at the start, once: letters that die again while it
//! runs are left for the next time. Each is confirmed among the jobs before it leaves the
//! dead letters, so a crash leaves it twice, never not at all.

use std::time::Duration;

use lapin::options::{BasicAckOptions, BasicGetOptions, BasicNackOptions};
use lapin::{Acker, Channel};
use tokio::time::Instant;

use super::Shared;
use super::connection::Patience;
use super::publisher::WhileBlocked;
use super::wire::{self, Outgoing};
use crate::{DeadLetter, Message, QueueError, run_of};
use camshaft_common::run::RunId;

/// Letters moved at a time. The broker's channel passes up to 32 commands on to a quorum queue
/// before the first is answered and keeps the rest to itself, where they are lost when the
/// channel closes. Below that, an acknowledgement is with the queue once it was sent.
const BATCH: u64 = 16;
/// How long letters that were passed over may take to be ready again.
const HAND_BACK_TIMEOUT: Duration = Duration::from_secs(10);
const HAND_BACK_POLL: Duration = Duration::from_millis(20);

/// Moves dead letters, of one run where `run` says so, and says how many.
pub(super) async fn redrive(shared: &Shared, run: Option<&RunId>) -> Result<u64, QueueError> {
    let mut moved = 0;
    let mut patience = Patience::new(Some(shared.patience));
    loop {
        match go_through(shared, run, &mut moved).await {
            Ok(()) => return Ok(moved),
            Err(error) => patience.pause(error).await?,
        }
    }
}

/// Reads every dead letter there is and leaves it where it is. Until it is done, others don't see
/// those already read.
pub(super) async fn look(shared: &Shared) -> Result<Vec<DeadLetter>, QueueError> {
    let mut patience = Patience::new(Some(shared.patience));
    loop {
        match look_through(shared).await {
            Err(error) => patience.pause(error).await?,
            letters => return letters,
        }
    }
}

async fn look_through(shared: &Shared) -> Result<Vec<DeadLetter>, QueueError> {
    let channel = shared.publisher.fresh_channel().await?;
    let count = shared.publisher.count(&channel, shared.topology.dead()).await?;
    let (mut letters, mut ackers) = (Vec::new(), Vec::new());
    for letter in take(shared, &channel, count).await? {
        letters.push(DeadLetter {
            body: letter.message.body,
            reason: letter.reason,
            attempts: letter.attempts,
            trace: letter.message.trace,
        });
        ackers.push(letter.acker);
    }
    hand_back(shared, &channel, ackers).await?;
    shared.publisher.answer(channel.close(200, "done".into())).await?;
    Ok(letters)
}

/// Where this fails, the channel's end hands back every letter that was not moved.
async fn go_through(
    shared: &Shared,
    run: Option<&RunId>,
    moved: &mut u64,
) -> Result<(), QueueError> {
    let channel = shared.publisher.fresh_channel().await?;
    let mut left = shared.publisher.count(&channel, shared.topology.dead()).await?;
    // Kept until the end, or the broker would hand the same letters out again.
    let mut passed_over = Vec::new();
    while left > 0 {
        let letters = take(shared, &channel, left.min(BATCH)).await?;
        if letters.is_empty() {
            break;
        }
        left -= letters.len() as u64;
        let mut jobs = Vec::new();
        let mut originals = Vec::new();
        for letter in letters {
            if run.is_none() || run_of(&letter.message.body).as_ref() == run {
                jobs.push(Outgoing::job(shared.topology.jobs(), letter.message));
                originals.push(letter.acker);
            } else {
                passed_over.push(letter.acker);
            }
        }
        shared.publisher.publish(&jobs, shared.patience, WhileBlocked::Wait).await?;
        for original in originals {
            let sent = original.ack(BasicAckOptions::default()).await;
            if !sent.map_err(|error| shared.connector.classify(&error))? {
                return Err(QueueError::Stale);
            }
            *moved += 1;
        }
    }
    hand_back(shared, &channel, passed_over).await?;
    shared.publisher.answer(channel.close(200, "done".into())).await
}

/// Returns once the letters are ready again, so that who looks next finds them.
async fn hand_back(
    shared: &Shared,
    channel: &Channel,
    letters: Vec<Acker>,
) -> Result<(), QueueError> {
    let expected = letters.len() as u64;
    for letter in letters {
        let requeue = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
        letter.nack(requeue).await.map_err(|error| shared.connector.classify(&error))?;
    }
    let deadline = Instant::now() + HAND_BACK_TIMEOUT;
    // Another redrive may have taken them already: then time ends this, and no harm is done.
    while shared.publisher.count(channel, shared.topology.dead()).await? < expected
        && Instant::now() < deadline
    {
        tokio::time::sleep(HAND_BACK_POLL).await;
    }
    Ok(())
}

struct Letter {
    message: Message,
    reason: String,
    attempts: u32,
    acker: Acker,
}

async fn take(shared: &Shared, channel: &Channel, at_most: u64) -> Result<Vec<Letter>, QueueError> {
    let mut letters = Vec::new();
    while (letters.len() as u64) < at_most {
        let getting = channel.basic_get(shared.topology.dead().clone(), BasicGetOptions::default());
        let Some(letter) = shared.publisher.answer(getting).await? else { break };
        let delivery = letter.delivery;
        letters.push(Letter {
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
