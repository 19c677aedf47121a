//! Telling work from waiting: what a stage does in its own time, and what it only waits for.
//!
//! A step that waits for memory, a core or its turn is not slow, and would look like the
//! bottleneck of a pipeline if that counted. Whoever waits inside a step says so here, and
//! whoever times the step takes it off. Downstream: the metrics.

use std::cell::Cell;
use std::time::{Duration, Instant};

use tokio::task_local;

task_local! {
    static WAITED: Cell<Duration>;
}

/// How long a step took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spent {
    /// Waiting for its turn.
    pub(crate) waited: Duration,
    /// All else.
    pub(crate) worked: Duration,
}

/// Times a step.
pub(crate) async fn timed<T>(step: impl Future<Output = T>) -> (T, Spent) {
    let started = Instant::now();
    let step = async {
        let done = step.await;
        (done, WAITED.with(Cell::get))
    };
    let (done, waited) = WAITED.scope(Cell::default(), step).await;
    let worked = started.elapsed().saturating_sub(waited);
    (done, Spent { waited, worked })
}

/// Waits for its turn, inside a step that is timed or outside.
pub(crate) async fn for_turn<T>(turn: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let come = turn.await;
    note(started.elapsed());
    come
}

/// Inside a step: so much of it was waiting. Outside of one nobody asks.
pub(crate) fn note(waited: Duration) {
    WAITED.try_with(|sum| sum.set(sum.get() + waited)).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waiting_is_no_work() {
        let turn = Duration::from_millis(30);
        let started = Instant::now();
        let (done, spent) = timed(async {
            for_turn(std::future::ready(())).await;
            note(turn);
            7
        })
        .await;
        assert_eq!(done, 7);
        assert!(spent.waited >= turn);
        assert!(spent.worked <= started.elapsed());
        // Nobody times this one.
        note(turn);
    }
}
