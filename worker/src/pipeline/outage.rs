//! Detects that a whole store is out, and makes its users wait until it is back.
//!
//! A request can fail because of one object, or because the store does not answer at all. If
//! requests for several objects fail and none succeeds in between, the store counts as out.
//! Then every user waits. One of them at a time probes the store, after growing delays; the first
//! success ends the outage for all. Images that wait fill the stages, so no more messages are
//! taken from the queue meanwhile. Downstream: [`RetryingFolder`](super::retrying_folder).

use std::collections::BTreeSet;
use std::time::Duration;

use camshaft_common::backoff::Backoff;
use camshaft_common::store::{StoreError, StoreErrorKind};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::{info, warn};

/// Requests for this many objects must fail in a row before the store counts as out. One or two
/// objects may have faults of their own.
const FAILING_OBJECTS: usize = 3;

/// How long one request may be retried, in total.
#[derive(Clone, Copy, Debug)]
pub struct OutagePolicy {
    /// If the store does not answer.
    pub max_outage: Duration,
    /// If the store has no space left.
    pub max_no_space: Duration,
}

impl OutagePolicy {
    /// For a worker: it waits for an outage of minutes to end. The limit is well below the 30
    /// minutes after which RabbitMQ takes a message away from its consumer, if nobody changed that.
    pub const WORKER: Self =
        Self { max_outage: Duration::from_secs(600), max_no_space: Duration::from_secs(600) };
    /// For a command with a person in front of it, who prefers an error to a long wait.
    pub const INTERACTIVE: Self =
        Self { max_outage: Duration::from_secs(60), max_no_space: Duration::ZERO };

    /// The same, with no wait longer than `limit`.
    #[must_use]
    pub fn within(self, limit: Duration) -> Self {
        let Self { max_outage, max_no_space } = self;
        Self { max_outage: max_outage.min(limit), max_no_space: max_no_space.min(limit) }
    }

    /// How long a request that failed with `error` may be retried.
    #[must_use]
    pub fn limit_for(self, error: &StoreError) -> Duration {
        match error.kind() {
            StoreErrorKind::NoSpace => self.max_no_space,
            _ => self.max_outage,
        }
    }
}

/// Whether a store is out.
#[derive(Debug, Default)]
pub struct Outage {
    state: Mutex<State>,
    /// Wakes those who wait, when the store is back or when a probe failed.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Objects whose requests failed since the last success. Not extended during an outage.
    failing: BTreeSet<String>,
    /// The error that made the store count as out.
    reason: Option<String>,
    /// True while somebody probes the store.
    probing: bool,
    /// The delay before the next probe.
    backoff: Backoff,
}

/// What a request does while the store is out.
enum NextStep {
    /// Somebody else probes: wait for the result.
    Wait,
    /// Probe the store after this delay.
    Probe(Duration),
}

impl Outage {
    /// Why the store counts as out; `None` if it does not.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        self.state.lock().reason.clone()
    }

    /// Notes that the store answered. This ends an outage.
    pub(super) fn note_answer(&self) {
        let mut state = self.state.lock();
        let was_out = state.reason.is_some();
        *state = State::default();
        drop(state);
        if was_out {
            info!("the store is back");
            self.changed.notify_waiters();
        }
    }

    /// Notes a failed request. Returns whether the store is out now.
    pub(super) fn note_failure(&self, path: &str, error: &StoreError) -> bool {
        let mut state = self.state.lock();
        if state.reason.is_none() {
            state.failing.insert(path.to_owned());
        }
        if state.reason.is_none() && state.failing.len() >= FAILING_OBJECTS {
            warn!(%error, "the store doesn't answer; waiting for it");
            state.reason = Some(error.to_string());
        }
        state.reason.is_some()
    }

    /// Returns at once if the store is not out. Else waits until it is back, or until it is this
    /// caller's turn to probe it.
    pub(super) async fn wait(&self) -> Option<Probe<'_>> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // It listens before it looks at the state, so that it misses no change.
            changed.as_mut().enable();
            match self.next_step() {
                None => return None,
                Some(NextStep::Wait) => changed.await,
                Some(NextStep::Probe(delay)) => {
                    let probe = Probe(self);
                    sleep(delay).await;
                    return Some(probe);
                }
            }
        }
    }

    /// `None` if the store is not out.
    fn next_step(&self) -> Option<NextStep> {
        let mut state = self.state.lock();
        state.reason.as_ref()?;
        if state.probing {
            return Some(NextStep::Wait);
        }
        state.probing = true;
        Some(NextStep::Probe(state.backoff.next_delay()))
    }
}

/// The right to probe a store that is out. One caller at a time has it; dropping it gives it to
/// the next.
pub(super) struct Probe<'o>(&'o Outage);

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.0.state.lock().probing = false;
        self.0.changed.notify_waiters();
    }
}
