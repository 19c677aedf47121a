//! Lets more tasks of a stage work as its store needs to be asked for more at once.
//!
//! Owns how a number of [`request_pace`](super::request_pace) takes effect: tasks that wait for nothing
//! else begin to work, the worker may hold as many more images, and the metrics show it. Upstream: the
//! tasks of a stage. Downstream: [`hold_limit`](super::hold_limit), which the queue's prefetch follows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tracing::info;

use super::hold_limit::HoldLimit;
use super::request_pace::RequestPace;
use crate::metrics::Metrics;

/// The gate before the further tasks of one stage.
#[derive(Debug)]
pub(super) struct RequestGate {
    stage: &'static str,
    first: usize,
    /// Grows with the number of requests at once. Each task that begins takes a permit for good.
    further: Semaphore,
    pace: Mutex<RequestPace>,
    hold: Arc<HoldLimit>,
    metrics: Metrics,
}

impl RequestGate {
    /// Lets `first` tasks work, and up to `most` as time goes on.
    pub(super) fn new(
        stage: &'static str,
        first: usize,
        most: usize,
        hold: Arc<HoldLimit>,
        metrics: Metrics,
    ) -> Self {
        let (further, pace) = (Semaphore::new(0), Mutex::new(RequestPace::new(first, most)));
        Self { stage, first, further, pace, hold, metrics }
    }

    /// Waits until the task with this number, counted from 0, is needed. False if the stage has ended
    /// before.
    pub(super) async fn enter(&self, number: usize) -> bool {
        if number < self.first {
            return true;
        }
        match self.further.acquire().await {
            Ok(permit) => {
                permit.forget();
                true
            }
            Err(_closed) => false,
        }
    }

    /// Ends the waiting of tasks that have not begun when it is dropped, for instance by a panic.
    pub(super) fn close_at_end(&self) -> ClosesGate<'_> {
        ClosesGate(self)
    }

    /// Notes that an image was done, after its requests took this long.
    pub(super) fn observe(&self, took: Duration) {
        let mut pace = self.pace.lock();
        let before = pace.now();
        let Some(now) = pace.observe(Instant::now(), took) else { return };
        let more = now - before;
        drop(pace);
        // They are needed before the tasks that take them.
        self.hold.hold_more(more);
        self.metrics.show_concurrency(self.stage, now);
        self.further.add_permits(more);
        info!(stage = self.stage, requests = now, "requests to a store at once from now on");
    }
}

/// Closes the gate when it is dropped.
#[must_use = "dropping it closes the gate"]
pub(super) struct ClosesGate<'g>(&'g RequestGate);

impl Drop for ClosesGate<'_> {
    fn drop(&mut self) {
        self.0.further.close();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn further_tasks_begin_when_they_are_needed_and_images_may_be_held_for_them() {
        let hold = Arc::new(HoldLimit::new(74, None));
        let gate = RequestGate::new("fetch", 2, 64, Arc::clone(&hold), Metrics::default());
        assert!(gate.enter(1).now_or_never().unwrap());
        let mut third = pin!(gate.enter(2));
        assert!(third.as_mut().now_or_never().is_none());
        // Two requests at once of 2 s each can't keep up with all that comes.
        let started = Instant::now();
        while third.as_mut().now_or_never() != Some(true) {
            assert!(started.elapsed() < Duration::from_secs(60), "it begins");
            gate.observe(Duration::from_secs(2));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(hold.hold(Instant::now(), false));
        assert!(hold.prefetch() > 74);
    }

    #[tokio::test]
    async fn no_task_waits_for_a_stage_that_has_ended() {
        let hold = Arc::new(HoldLimit::new(74, None));
        let gate = RequestGate::new("fetch", 1, 64, hold, Metrics::default());
        let mut second = pin!(gate.enter(1));
        assert!(second.as_mut().now_or_never().is_none());
        drop(gate.close_at_end());
        assert_eq!(second.now_or_never(), Some(false));
    }
}
