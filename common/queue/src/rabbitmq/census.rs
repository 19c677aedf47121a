//! Counting the jobs, so that an enqueue that goes on knows which of its last ones have arrived.
//!
//! Of the jobs that are on their way when their channel goes, a quorum queue takes the first so many
//! and forgets the rest, since it takes those of one channel strictly in order. How many it took
//! shows in its length, as long as nobody else changes that. So each bookmark says how many jobs
//! there are to be once it has arrived.
//!
//! Too few only mean that some are published twice, and a worker that takes a second one finds
//! its result there. Too many would mean images without a job. So a count holds only where nothing
//! can have been added by others:
//! - Whoever adds jobs without having the count to itself puts a word into `NAME.enqueue` before
//!   (other enqueues, redrive, workers that retry: [`addition`]). Who has it puts a token of
//!   its own there, which the next word drops, and names it in its bookmarks.
//! - It is taken where nobody consumes, since then nobody holds a job that could come back (the
//!   broker counts as a consumer who has cancelled and still holds some), and where none rests
//!   before a retry.
//! - It is taken right after a job that was confirmed, and so behind everything that earlier
//!   channels have left in the broker.
//!
//! Who puts jobs there by other means than Camshaft, or limits the queue's length, takes that away.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use lapin::Channel;
use lapin::options::{BasicAckOptions, QueuePurgeOptions};
use tokio::time::Instant;
use uuid::Uuid;

use super::Shared;
use super::publisher;
use super::small_queue::{self, Held, Obstacle};
use super::topology::Topology;
use super::wire::Outgoing;
use crate::QueueError;

/// What the word of an addition is; no token is like it.
const ADDITION: &str = "added";
/// The broker may still be taking what was sent to it: a count that stays the same for so long is
/// the last.
const SETTLE: Duration = Duration::from_millis(300);
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

/// What was known of the messages up to one, when that was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// So many, it being the last of them, were not confirmed.
    pub(super) on_their_way: usize,
    /// The jobs there are to be once all of them have arrived, and whose count that is.
    pub(super) expected: Option<(String, u64)>,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.on_their_way)?;
        let Some((token, jobs)) = &self.expected else { return Ok(()) };
        write!(f, " {token} {jobs}")
    }
}

impl FromStr for Standing {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut words = text.split(' ');
        let on_their_way = words.next().unwrap_or_default().parse()?;
        let expected = match (words.next(), words.next()) {
            (Some(token), Some(jobs)) => Some((token.to_owned(), jobs.parse()?)),
            _ => None,
        };
        Ok(Self { on_their_way, expected })
    }
}

/// The right to count, which one enqueue has at a time.
pub(super) struct Census {
    token: String,
    jobs: Jobs,
    _held: Held,
}

enum Jobs {
    /// To be counted after the first that is published and confirmed.
    Unknown,
    /// To be counted once that is confirmed.
    Due,
    /// So many once all that were published have arrived.
    Known(u64),
    /// Somebody works on them.
    Changing,
}

impl Census {
    /// Takes the right to count, over a channel whose prefetch is 1 and whose confirms are on. Where
    /// an earlier publisher left a `standing` that still holds, says how many of the last messages
    /// up to there have not arrived.
    pub(super) async fn open(
        shared: &Shared,
        channel: &Channel,
        standing: Option<&Standing>,
    ) -> Result<(Self, Option<usize>), Obstacle> {
        let name = shared.topology.additions();
        let mut held = small_queue::take(shared, channel, name).await?;
        let missing = match (standing, &held.message) {
            (Some(Standing { on_their_way, expected: Some((token, jobs)) }), Some(message))
                if held.count == 1 && message.data == token.as_bytes() =>
            {
                let missing = missing(shared, channel, *jobs).await?;
                missing.filter(|missing| missing <= on_their_way)
            }
            _ => None,
        };
        let resting = shared.publisher.resting(channel).await?;
        let jobs = if resting == 0 { Jobs::Unknown } else { Jobs::Changing };
        let answer = &shared.publisher;
        answer.answer(channel.queue_purge(name.clone(), QueuePurgeOptions::default())).await?;
        if let Some(message) = held.message.take() {
            answer.answer(message.ack(BasicAckOptions::default())).await?;
        }
        // Nothing that waits for an answer may follow: a broker that is low on memory reads no more
        // from those that publish.
        let token = Uuid::now_v7().to_string();
        let word = Outgoing::word(name, &token);
        answer.answer(publisher::publish(channel, word, true)).await?;
        Ok((Self { token, jobs, _held: held }, missing))
    }

    /// Whether [`Census::count`] is to be called as soon as all is confirmed.
    pub(super) fn is_due(&self) -> bool {
        matches!(self.jobs, Jobs::Due)
    }

    /// Counts the jobs. All that were published under this right are confirmed, one at least.
    pub(super) async fn count(&mut self, shared: &Shared, channel: &Channel) {
        let looked = shared.publisher.look_at(channel, shared.topology.jobs()).await;
        self.jobs = match looked {
            // None at all is what a broker says that can't tell.
            Ok(queue) if queue.consumer_count() == 0 && queue.message_count() > 0 => {
                Jobs::Known(queue.message_count().into())
            }
            Ok(_) => Jobs::Changing,
            Err(error) => {
                tracing::debug!(%error, "the jobs could not be counted");
                Jobs::Changing
            }
        };
    }

    /// Says that a job is published: what there is to be once it has arrived.
    pub(super) fn expect_one_more(&mut self) -> Option<(String, u64)> {
        match &mut self.jobs {
            Jobs::Known(jobs) => {
                *jobs += 1;
                Some((self.token.clone(), *jobs))
            }
            jobs @ Jobs::Unknown => {
                *jobs = Jobs::Due;
                None
            }
            Jobs::Due | Jobs::Changing => None,
        }
    }
}

/// How many of the jobs expected are not there, where that can be told.
async fn missing(
    shared: &Shared,
    channel: &Channel,
    expected: u64,
) -> Result<Option<usize>, QueueError> {
    let (publisher, topology) = (&shared.publisher, &shared.topology);
    let deadline = Instant::now() + SETTLE_TIMEOUT;
    let mut before = None;
    let jobs = loop {
        let queue = publisher.look_at(channel, topology.jobs()).await?;
        let jobs = u64::from(queue.message_count());
        if queue.consumer_count() > 0 || Instant::now() > deadline {
            return Ok(None);
        }
        if before.replace(jobs) == Some(jobs) {
            break jobs;
        }
        tokio::time::sleep(SETTLE).await;
    };
    // The word of whoever added one that was counted is there by now, behind the token that is
    // held.
    if publisher.count(channel, topology.additions()).await? > 0 {
        return Ok(None);
    }
    Ok(expected.checked_sub(jobs).and_then(|missing| usize::try_from(missing).ok()))
}

/// What goes before jobs that are published without the right to count.
pub(super) fn addition(topology: &Topology) -> Outgoing {
    Outgoing::word(topology.additions(), ADDITION)
}
