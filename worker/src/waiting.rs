//! Tells a step's own work from its waiting for a turn.
//!
//! A step that waits for memory, a core or a permit is not slow. If its waiting counted as work,
//! the metrics would show it as the pipeline's bottleneck. So code that waits inside a step
//! notes it here, and the code that times the step subtracts it. Downstream: the metrics.

use std::cell::Cell;
use std::time::{Duration, Instant};

use tokio::task_local;

task_local! {
    static WAITED: Cell<Duration>;
}

/// How long a step took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StepTime {
    /// Time in which it waited for a turn.
    pub(crate) waited: Duration,
    /// All other time.
    pub(crate) worked: Duration,
}

/// Runs a step and times it.
pub(crate) async fn time_step<T>(step: impl Future<Output = T>) -> (T, StepTime) {
    let started = Instant::now();
    let step = async {
        let done = step.await;
        (done, WAITED.with(Cell::get))
    };
    let (done, waited) = WAITED.scope(Cell::default(), step).await;
    let worked = started.elapsed().saturating_sub(waited);
    (done, StepTime { waited, worked })
}

/// Awaits `turn`, and notes the time as waiting.
pub(crate) async fn wait_for_turn<T>(turn: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let done = turn.await;
    note_waited(started.elapsed());
    done
}

/// Notes that the current step waited. Does nothing outside of a step that is timed.
pub(crate) fn note_waited(waited: Duration) {
    WAITED.try_with(|sum| sum.set(sum.get() + waited)).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waiting_is_no_work() {
        let turn = Duration::from_millis(30);
        let started = Instant::now();
        let (done, time) = time_step(async {
            wait_for_turn(std::future::ready(())).await;
            note_waited(turn);
            7
        })
        .await;
        assert_eq!(done, 7);
        assert!(time.waited >= turn);
        assert!(time.worked <= started.elapsed());
        // No step is timed here.
        note_waited(turn);
    }
}
