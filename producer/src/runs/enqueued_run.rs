//! What an enqueue notes of its run on the broker. It holds nothing secret: places have no
//! credentials.

use camshaft_common::location::Location;
use camshaft_common::run::{Generation, RunId};
use camshaft_queue::RunNote;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// A run that was enqueued. Later versions may add fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EnqueuedRun {
    /// The run.
    pub(crate) run: RunId,
    /// Where its results go.
    pub(crate) out: Location,
    /// SOURCE, as `run.json` has it.
    pub(crate) source: String,
    /// The enqueue. Absent if it has no manifest.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) generation: Option<Generation>,
    /// When it began, or was gone on with.
    pub(crate) at: DateTime<Utc>,
}

impl EnqueuedRun {
    /// The note that says so.
    #[must_use]
    pub(crate) fn to_note(&self) -> RunNote {
        let json = serde_json::to_vec(self).expect("a run has only strings");
        RunNote { body: json.into() }
    }

    /// Reads a note; `None` if it is none of ours.
    #[must_use]
    pub(crate) fn of_note(note: &RunNote) -> Option<Self> {
        serde_json::from_slice(&note.body).ok()
    }
}
