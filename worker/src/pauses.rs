//! Stops taking jobs while this worker can do none, so that workers that can do them get them.
//!
//! Owns when a worker pauses, for how long, and how many jobs it then tries. Which jobs it refused is
//! known by [`recent_jobs`](crate::pipeline::recent_jobs). A pause costs no message anything: what
//! is worked on goes on, and what was on its way is handed back, as if it had not been delivered.

use std::time::Duration;

use camshaft_common::backoff::Backoff;
use camshaft_queue::RabbitMqQueue;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::health::Health;
use crate::pipeline::recent_jobs::{RecentJobs, RefusedInARow};

/// A worker that refused this many jobs in a row is perhaps of no use. Fewer may be chance.
const SUSPICIOUS: usize = 16;
/// The first pause, and the longest. Somebody mends a worker in minutes.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Jobs that are tried after a pause. Other workers do these if it refuses them again.
const TRIED: usize = 4;
/// The most jobs that the only worker tries after a pause.
const MOST_TRIED: usize = 1 << 16;
/// How often a worker that refuses every job, and goes on, looks whether others consume by now.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// True if a worker that refused these jobs in a row is to pause. `alone` tells that no other worker
/// consumes.
///
/// One run that no worker can do, such as one with a mistyped OUT, must not keep the jobs of other
/// runs waiting behind it. So somebody goes on to take its jobs: the only worker that consumes.
fn is_to_pause(refused: RefusedInARow, alone: bool) -> bool {
    !alone || refused.several_runs || refused.are_own_faults()
}

/// Pauses the queue's consumers while all recent jobs were refused. Never returns.
pub(crate) async fn pause_while_useless(queue: &RabbitMqQueue, jobs: &RecentJobs, health: &Health) {
    let mut refused = jobs.refused();
    loop {
        let suspicious = wait_for(&mut refused, |now| now.jobs >= SUSPICIOUS).await;
        if is_to_pause(suspicious, is_alone(queue).await) {
            let pauses = Pauses { queue, jobs, health };
            pauses.until_useful(&mut refused).await;
            info!("taking jobs again");
        } else {
            sleep(LOOK_AGAIN).await;
        }
    }
}

/// Waits until the refused jobs are what `is_met` asks for.
async fn wait_for(
    refused: &mut watch::Receiver<RefusedInARow>,
    is_met: impl Fn(&RefusedInARow) -> bool,
) -> RefusedInARow {
    let met = refused.wait_for(is_met).await.ok().map(|now| *now);
    match met {
        Some(met) => met,
        // The pipeline has ended.
        None => std::future::pending().await,
    }
}

/// True if no other worker consumes. If the broker doesn't tell, nobody else is known to.
async fn is_alone(queue: &RabbitMqQueue) -> bool {
    queue.workers().await.unwrap_or(1) <= 1
}

/// The pauses of a worker, until it can do a job.
struct Pauses<'w> {
    queue: &'w RabbitMqQueue,
    jobs: &'w RecentJobs,
    health: &'w Health,
}

impl Pauses<'_> {
    async fn until_useful(&self, refused: &mut watch::Receiver<RefusedInARow>) {
        let mut delays = Backoff::between(FIRST_PAUSE, LONGEST_PAUSE);
        let mut tried = TRIED;
        loop {
            let others = refused.borrow().others;
            let useful = |refused: &RefusedInARow| refused.others > others;
            self.queue.limit_prefetch(Some(0));
            let delay = delays.next_delay();
            let jobs = refused.borrow().jobs;
            let reason = format!(
                "it takes no jobs for {} s: it had to refuse the last {jobs}; then it tries again",
                delay.as_secs()
            );
            warn!(reason, "pausing");
            self.health.set_paused(Some(reason));
            // A job that was taken before may be done yet.
            let is_useful = timeout(delay, wait_for(refused, useful)).await.is_ok();
            self.health.set_paused(None);
            if is_useful {
                break;
            }
            self.jobs.begin_anew();
            self.queue.limit_prefetch(Some(u16::try_from(tried).unwrap_or(u16::MAX)));
            let now = wait_for(refused, |now| useful(now) || now.jobs >= tried).await;
            let alone = is_alone(self.queue).await;
            if useful(&now) || !is_to_pause(now, alone) {
                break;
            }
            // If nobody else could do them, it looks further and further ahead: behind the jobs
            // that nobody can do, there may be others.
            let ahead = alone && !now.are_own_faults();
            tried = if ahead { (2 * tried).min(MOST_TRIED) } else { TRIED };
        }
        self.queue.limit_prefetch(None);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use camshaft_common::run::RunId;

    use super::*;
    use crate::pipeline::recent_jobs::Fault;

    #[test]
    fn a_run_that_nobody_can_do_does_not_stop_the_only_worker() {
        let jobs = Arc::new(RecentJobs::default());
        let refuse = |run: RunId, fault: Fault| {
            let mut job = jobs.take();
            job.set_run(run);
            job.end_refused(fault);
            let refused = jobs.refused();
            *refused.borrow()
        };
        let mistyped = RunId::generate();
        let refused = refuse(mistyped, Fault::WorkerOrRun);
        assert!(!is_to_pause(refused, true), "other runs wait behind it");
        assert!(is_to_pause(refused, false), "another worker does these and others");
        let refused = refuse(RunId::generate(), Fault::WorkerOrRun);
        assert!(is_to_pause(refused, true), "it can do nothing of all that it gets");
        jobs.begin_anew();
        let refused = refuse(mistyped, Fault::Worker);
        assert!(is_to_pause(refused, true), "it has no credentials for whatever run");
    }
}
