//! Messages before they are published and after they are dead: a job as JSON, and what the queue
//! keeps beside it. Nothing here reads a job, but for the run it belongs to.

use std::sync::Arc;

use bytes::Bytes;

use camshaft_common::run::RunId;
use camshaft_telemetry::TraceContext;

/// The queue that messages are in, in the words of OpenTelemetry's conventions for messaging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueName {
    /// What kind of queue it is: `messaging.system`.
    pub system: &'static str,
    /// Its name there: `messaging.destination.name`.
    pub name: Arc<str>,
}

/// A message to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The job as JSON.
    pub body: Bytes,
    /// The image's trace.
    pub trace: Option<TraceContext>,
}

/// A message that will not be tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The job as JSON, unread.
    pub body: Bytes,
    /// Why it is dead.
    pub reason: String,
    /// How many tries it had.
    pub attempts: u32,
    /// The image's trace.
    pub trace: Option<TraceContext>,
}

/// What an enqueue says of its run to whoever asks which runs' jobs wait.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RunNote {
    /// JSON, unread.
    pub body: Bytes,
}

/// The run that a message belongs to. Ignores the rest of the message: many dead letters can't be
/// read as a job.
pub(super) fn run_of(body: &[u8]) -> Option<RunId> {
    #[derive(serde::Deserialize)]
    struct RunField {
        run: RunId,
    }
    serde_json::from_slice::<RunField>(body).ok().map(|RunField { run }| run)
}
