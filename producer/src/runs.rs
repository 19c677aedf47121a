//! `camshaft runs`: the runs whose jobs wait on a broker.
//!
//! This file is the command. [`enqueued_run`] is what an enqueue notes on the broker, and
//! [`noted_runs`] looks into the OUT that a note names. Reads no job: that would take it from the
//! workers and count as a delivery.

pub(crate) mod enqueued_run;
mod noted_runs;

use camshaft_common::store::StoreOptions;
use camshaft_queue::{JobQueue, QueueDepth, QueueError};
use futures::StreamExt;
use serde::Serialize;
use tracing::warn;

use crate::advice;
use crate::broker::{self, BrokerConfig};
use crate::terminal::output::{print_json, print_line};
use noted_runs::{NotedRun, WaitingRun};

/// OUTs that are looked into at a time. Results are many: each takes up to 54 bytes meanwhile.
const LOOKS_AT_ONCE: usize = 4;

/// What `camshaft runs` is to do.
#[derive(Clone, Debug)]
pub(crate) struct RunsConfig {
    /// The broker.
    pub(crate) broker: BrokerConfig,
    /// Print JSON, not lines for a person.
    pub(crate) json: bool,
}

/// The broker can't be asked.
#[derive(Debug, thiserror::Error)]
#[error("{}", advice::describe_queue_error(.0))]
pub struct RunsError(#[from] pub(crate) QueueError);

/// What is printed.
#[derive(Debug, Serialize)]
struct WaitingRuns {
    /// The first part of the queues' names.
    queue: String,
    /// Runs with images to do, the first enqueued first.
    runs: Vec<WaitingRun>,
    /// Messages ready for a worker.
    queued: u64,
    /// Messages waiting for another try.
    retrying: u64,
    /// Dead letters.
    dead: u64,
}

/// Prints the runs whose jobs wait, and forgets those that have ended.
///
/// # Errors
/// If the broker can't be reached, has no such queues, or lets this user read no notes.
pub(crate) async fn runs(config: RunsConfig, stores: StoreOptions) -> Result<(), RunsError> {
    let RunsConfig { broker, json } = config;
    let name = broker.queue_name();
    let queue = broker::connect_to_existing(broker).await?;
    let QueueDepth { ready: queued, retrying, dead } = queue.depth().await?;
    let noted = noted_runs::group(queue.run_notes().await?);
    let looks = noted.iter().map(|run| run.look(&stores));
    let looks: Vec<_> = futures::stream::iter(looks).buffered(LOOKS_AT_ONCE).collect().await;

    let mut waiting = WaitingRuns { queue: name, runs: Vec::new(), queued, retrying, dead };
    let mut ended = Vec::new();
    for (NotedRun { newest_note, older_notes, .. }, look) in noted.iter().zip(looks) {
        ended.extend_from_slice(older_notes);
        match look {
            Some(run) => waiting.runs.push(run),
            None => ended.push(newest_note.clone()),
        }
    }
    if json {
        print_json(&waiting.to_json());
    } else {
        print_line(&waiting.to_lines());
    }
    if !ended.is_empty()
        && let Err(error) = queue.remove_run_notes(&ended).await
    {
        warn!(%error, "the notes of runs that have ended stay on the broker");
    }
    queue.close().await;
    Ok(())
}

impl WaitingRuns {
    fn to_json(&self) -> String {
        serde_json::to_string(self).expect("runs have only texts and numbers")
    }

    fn to_lines(&self) -> String {
        let mut lines: Vec<_> = self.runs.iter().map(WaitingRun::to_line).collect();
        if lines.is_empty() {
            lines.push("No run that was enqueued here has images to do".to_owned());
        }
        let Self { queue, queued, retrying, dead, .. } = self;
        lines.push(format!(
            "{queue}: {queued} queued, {retrying} waiting for another try, {dead} dead"
        ));
        if self.runs.is_empty() && queued + retrying > 0 {
            lines.push(format!(
                "These messages are of no run that is noted: of jobs that were cancelled or superseded, \
                 which workers settle without work, or of runs that were enqueued by an earlier version, \
                 or by a user without rights to {queue}.runs"
            ));
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_no_known_run_are_explained() {
        let waiting = |queued, retrying| {
            let (queue, runs) = ("camshaft".to_owned(), Vec::new());
            WaitingRuns { queue, runs, queued, retrying, dead: 3 }.to_lines()
        };
        let none = "No run that was enqueued here has images to do";
        assert_eq!(
            waiting(0, 0),
            format!("{none}\ncamshaft: 0 queued, 0 waiting for another try, 3 dead")
        );
        for (queued, retrying) in [(1, 0), (0, 1)] {
            let lines = waiting(queued, retrying);
            assert!(lines.contains("\nThese messages are of no run that is noted"), "{lines}");
        }
    }
}
