//! Whether this worker is of any use: which of the jobs that it took it could not even try.
//!
//! A job is refused if a worker can't do it for a reason of its own, or of the job's, or put off
//! while its model can't be read. If that happens to all of a worker's recent jobs, the worker
//! takes them from others who could do them. Refused jobs leave the pipeline early and others late,
//! so jobs count in the order in which they were taken, and none before all earlier ones are
//! settled. Upstream: `admit` begins a job, `settle` says how it ended. Downstream: the service,
//! which stops taking jobs for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use camshaft_common::run::RunId;
use parking_lot::Mutex;
use tokio::sync::watch;

/// Whose fault it is that a worker can't try a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This worker's: it can do no job of any run.
    Worker,
    /// This worker's or the run's, which one worker alone can't tell: a place that it may not use is
    /// its own mistake or a mistyped one.
    WorkerOrRun,
}

/// Refused jobs that are remembered while an earlier job is still in work. A worker holds fewer
/// jobs, but takes new ones while one takes long.
const MOST_WAITING: usize = 4096;

/// The recent jobs of one worker.
#[derive(Debug, Default)]
pub struct RecentJobs {
    state: Mutex<State>,
    refused: watch::Sender<RefusedInARow>,
}

#[derive(Debug, Default)]
struct State {
    taken: u64,
    in_work: BTreeSet<u64>,
    /// Refused jobs that were taken after one that is still in work.
    waiting: BTreeMap<u64, RefusedJob>,
}

#[derive(Clone, Copy, Debug)]
struct RefusedJob {
    run: Option<RunId>,
    fault: Fault,
}

/// The jobs that were refused one after the other, since the last one that was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefusedInARow {
    /// Their number.
    pub jobs: usize,
    /// How many of them were refused by this worker's own fault.
    pub own_faults: usize,
    /// True if they are of several runs.
    pub several_runs: bool,
    /// How many jobs were not refused since the worker started.
    pub others: u64,
    run: Option<RunId>,
}

impl RefusedInARow {
    /// True if no job of any run could be done: the worker's own settings are at fault.
    #[must_use]
    pub fn are_own_faults(&self) -> bool {
        self.jobs > 0 && self.own_faults == self.jobs
    }

    fn add(&mut self, job: RefusedJob) {
        if self.jobs == 0 {
            self.run = job.run;
        }
        self.jobs += 1;
        self.own_faults += usize::from(job.fault == Fault::Worker);
        self.several_runs |= self.run != job.run;
    }

    fn begin_anew(&mut self) {
        *self = Self { others: self.others, ..Self::default() };
    }
}

impl RecentJobs {
    /// Takes the next job.
    #[must_use]
    pub fn take(self: &Arc<Self>) -> TakenJob {
        let mut state = self.state.lock();
        let number = state.taken;
        state.taken += 1;
        state.in_work.insert(number);
        TakenJob { jobs: Arc::clone(self), number, run: None }
    }

    /// The jobs that were refused in a row, now and whenever that changes.
    #[must_use]
    pub fn refused(&self) -> watch::Receiver<RefusedInARow> {
        self.refused.subscribe()
    }

    /// Counts the refused jobs from zero.
    pub fn begin_anew(&self) {
        let mut state = self.state.lock();
        state.waiting.clear();
        self.refused.send_modify(RefusedInARow::begin_anew);
    }

    fn refuse(&self, number: u64, job: RefusedJob) {
        let mut state = self.state.lock();
        state.waiting.insert(number, job);
        if state.waiting.len() > MOST_WAITING {
            state.waiting.pop_first();
        }
        self.settle(&mut state, number);
    }

    fn do_other(&self, number: u64) {
        let mut state = self.state.lock();
        state.waiting = state.waiting.split_off(&number);
        self.refused.send_modify(|refused| {
            refused.begin_anew();
            refused.others += 1;
        });
        self.settle(&mut state, number);
    }

    /// Ends a job, and counts the refused ones that no earlier job is in work beside any more.
    fn settle(&self, state: &mut State, number: u64) {
        state.in_work.remove(&number);
        let later = match state.in_work.first() {
            Some(first_in_work) => state.waiting.split_off(first_in_work),
            None => BTreeMap::new(),
        };
        let counted = std::mem::replace(&mut state.waiting, later);
        if !counted.is_empty() {
            self.refused.send_modify(|refused| {
                counted.into_values().for_each(|job| refused.add(job));
            });
        }
    }
}

/// A job that a worker has taken. If it is dropped before it is said how it ended, it counts
/// neither as refused nor as done: the message could not be read, a store is out, or the broker
/// took it back.
#[derive(Debug)]
pub struct TakenJob {
    jobs: Arc<RecentJobs>,
    number: u64,
    run: Option<RunId>,
}

impl TakenJob {
    /// Says which run it is of.
    pub fn set_run(&mut self, run: RunId) {
        self.run = Some(run);
    }

    /// It was refused or put off.
    pub fn end_refused(self, fault: Fault) {
        self.jobs.refuse(self.number, RefusedJob { run: self.run, fault });
    }

    /// It has a result.
    pub fn end_done(self) {
        self.jobs.do_other(self.number);
    }
}

impl Drop for TakenJob {
    fn drop(&mut self) {
        self.jobs.settle(&mut self.jobs.state.lock(), self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(jobs: &Arc<RecentJobs>, run: RunId) -> TakenJob {
        let mut job = jobs.take();
        job.set_run(run);
        job
    }

    fn refused(jobs: &RecentJobs) -> (usize, usize, bool, u64) {
        let refused = *jobs.refused().borrow();
        (refused.jobs, refused.own_faults, refused.several_runs, refused.others)
    }

    #[test]
    fn a_job_that_is_done_ends_the_row() {
        let (jobs, run) = (Arc::new(RecentJobs::default()), RunId::generate());
        take(&jobs, run).end_refused(Fault::Worker);
        take(&jobs, run).end_refused(Fault::WorkerOrRun);
        assert_eq!(refused(&jobs), (2, 1, false, 0));
        // A message that is not a job says nothing.
        drop(jobs.take());
        assert_eq!(refused(&jobs), (2, 1, false, 0));
        take(&jobs, RunId::generate()).end_refused(Fault::Worker);
        assert_eq!(refused(&jobs), (3, 2, true, 0));
        take(&jobs, run).end_done();
        assert_eq!(refused(&jobs), (0, 0, false, 1));
        take(&jobs, run).end_refused(Fault::Worker);
        assert!(jobs.refused().borrow().are_own_faults());
        jobs.begin_anew();
        assert_eq!(refused(&jobs), (0, 0, false, 1));
        assert!(!jobs.refused().borrow().are_own_faults());
    }

    /// Otherwise a worker that does half of its jobs would seem to refuse all: those that it
    /// refuses come back within milliseconds, the others take seconds.
    #[test]
    fn refused_jobs_count_once_every_earlier_job_is_settled() {
        let (jobs, run) = (Arc::new(RecentJobs::default()), RunId::generate());
        take(&jobs, run).end_refused(Fault::Worker);
        let slow = take(&jobs, run);
        for _ in 0..20 {
            take(&jobs, run).end_refused(Fault::Worker);
        }
        assert_eq!(refused(&jobs), (1, 1, false, 0));
        let slower = take(&jobs, run);
        take(&jobs, run).end_refused(Fault::Worker);
        slow.end_refused(Fault::Worker);
        assert_eq!(refused(&jobs), (22, 22, false, 0));
        slower.end_done();
        assert_eq!(refused(&jobs), (1, 1, false, 1), "only the one that was taken after it");
    }

    #[test]
    fn a_job_that_never_ends_costs_little_memory() {
        let (jobs, run) = (Arc::new(RecentJobs::default()), RunId::generate());
        let stuck = take(&jobs, run);
        for _ in 0..2 * MOST_WAITING {
            take(&jobs, run).end_refused(Fault::WorkerOrRun);
        }
        assert_eq!(jobs.state.lock().waiting.len(), MOST_WAITING);
        drop(stuck);
        assert_eq!(refused(&jobs).0, MOST_WAITING);
    }
}
