//! `camshaft status`: how far a run has come, from the results in OUT and the messages in the queue.
//!
//! This file is the command. [`run_status`] is what it prints, and [`reconciliation`] finds the
//! images that are not accounted for.

pub(crate) mod reconciliation;
mod result_counts;
mod run_status;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use camshaft_common::location::Location;
use camshaft_common::manifest::{self, ManifestError};
use camshaft_common::run::{ReadRunError, RunRecord};
use camshaft_common::store::{Folder, StoreError, StoreOptions};
use camshaft_queue::{JobQueue, QueueError, RabbitMqQueue};

use crate::advice;
use crate::broker::{self, BrokerConfig};
use crate::terminal::output::{print_json, print_line};
use crate::terminal::progress::{Progress, ProgressCounts};
use reconciliation::ReconciliationError;
use result_counts::{ResultCounts, ResultTimes};
use run_status::{QueueStatus, RunStatus};

/// The shortest time between two looks. A large OUT takes longer to list and is looked at less
/// often.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// Looks at OUT during the wait for idleness. A long wait needs no more of them than a short one.
const LOOKS_WHILE_IDLE: u32 = 30;

/// What `camshaft status` is to do.
#[derive(Clone, Debug)]
pub(crate) struct StatusConfig {
    /// Where the results go.
    pub(crate) out: Location,
    /// The broker, if its numbers are wanted.
    pub(crate) broker: Option<BrokerConfig>,
    /// How long to look.
    pub(crate) watch: WatchMode,
    /// Print JSON, not lines for a person.
    pub(crate) json: bool,
}

/// How long to look.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WatchMode {
    /// Look once.
    Once,
    /// Look until every image is done.
    UntilDone {
        /// End also if the queue has been empty this long and no result has come.
        max_idle: Option<Duration>,
    },
}

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// OUT can't be read.
    #[error(transparent)]
    Out(#[from] StoreError),
    /// OUT holds no run.
    #[error("{}", advice::describe_run_record_error(.0))]
    Run(#[from] ReadRunError),
    /// The broker can't be asked.
    #[error("{}", advice::describe_queue_error(.0))]
    Queue(#[from] QueueError),
    /// The run's manifest can't be read at the moment.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// SOURCE and OUT can't be compared.
    #[error(transparent)]
    Reconciliation(#[from] ReconciliationError),
}

/// Prints a run's status, once or until it is complete.
///
/// # Errors
/// If OUT holds no run, or if OUT or the broker can't be reached.
pub(crate) async fn status(config: StatusConfig, stores: StoreOptions) -> Result<(), StatusError> {
    let StatusConfig { out, broker, watch, json } = config;
    let out = Folder::open(&out, &stores)?;
    let queue = match broker {
        Some(broker) => connect(broker, &out, watch).await?,
        None => None,
    };
    let watched = WatchedRun { out, queue, stores, warned: AtomicBool::new(false) };
    match watch {
        WatchMode::Once => {
            let mut look = watched.look().await?;
            watched.add_names(&mut look).await?;
            print_status(&look.status, json);
        }
        // Prints each look itself.
        WatchMode::UntilDone { max_idle } if json => {
            watched.look_until_done(max_idle, |status| print_status(status, true)).await?;
        }
        WatchMode::UntilDone { max_idle } => {
            let mut look = watched.follow(max_idle).await?;
            if !look.status.is_complete() {
                watched.add_names(&mut look).await?;
            }
            print_status(&look.status, false);
        }
    }
    if let Some(queue) = watched.queue {
        queue.close().await;
    }
    Ok(())
}

/// Connects to the broker: to the run's own queues, unless the user names others. A run that was never
/// enqueued, such as an audit's, has no queues; one look at it needs none.
async fn connect(
    mut broker: BrokerConfig,
    out: &Folder,
    watch: WatchMode,
) -> Result<Option<RabbitMqQueue>, StatusError> {
    // Before OUT is read: a wrong URL is wrong usage, whatever is there.
    broker::check(&broker)?;
    if broker.queue.is_none() {
        broker.queue = RunRecord::read_existing(out).await?.queue;
    }
    let is_usual = broker.queue.is_none();
    match broker::connect_to_existing(broker).await {
        Err(error @ QueueError::NoQueue { .. }) if is_usual && matches!(watch, WatchMode::Once) => {
            tracing::warn!(%error, "only the results are counted");
            Ok(None)
        }
        connected => Ok(Some(connected?)),
    }
}

fn print_status(status: &RunStatus, json: bool) {
    if json {
        print_json(&status.to_json());
    } else {
        print_line(&status.to_lines());
    }
}

/// The places that tell how far a run is.
struct WatchedRun {
    out: Folder,
    queue: Option<RabbitMqQueue>,
    stores: StoreOptions,
    /// Whether it was told that the run's manifest can't be read.
    warned: AtomicBool,
}

/// What one look at a run finds.
struct Look {
    record: RunRecord,
    status: RunStatus,
    /// When results were written, if the run has a manifest that says which of them count.
    times: Option<ResultTimes>,
}

impl WatchedRun {
    async fn look(&self) -> Result<Look, StatusError> {
        let record = RunRecord::read_existing(&self.out).await?;
        // The queue first: an image that is done in between then counts twice, and not never.
        let queue = match &self.queue {
            Some(queue) => {
                Some(QueueStatus { depth: queue.depth().await?, workers: queue.workers().await? })
            }
            None => None,
        };
        let counted = self.count_by_manifest(&record).await?;
        let (results, times) = match counted {
            Some((results, times)) => (results, Some(times)),
            None => (ResultCounts::list(&self.out, &record).await?, None),
        };
        let status = RunStatus::new(&record, results, queue);
        Ok(Look { record, status, times })
    }

    /// Counts the results of the images in the run's manifest; `None` if it has none.
    async fn count_by_manifest(
        &self,
        record: &RunRecord,
    ) -> Result<Option<(ResultCounts, ResultTimes)>, StatusError> {
        let Some((generation, images)) = record.listed_manifest() else { return Ok(None) };
        let times = ResultTimes::list(&self.out, record).await?;
        let entries = manifest::read(&self.out, generation, Some(images));
        match ResultCounts::of_manifest(&times, entries).await {
            Ok(counts) => Ok(Some((counts, times))),
            Err(error) if error.can_do_without() => {
                if !self.warned.swap(true, Relaxed) {
                    tracing::warn!(%error, "result files are counted, whatever image they are of");
                }
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Adds names to the numbers: the dead letters, and the images that are not accounted for.
    /// Those can be told only while the queue is empty: reading its messages would take them from
    /// the workers.
    async fn add_names(&self, look: &mut Look) -> Result<(), StatusError> {
        let Some(queue) = &self.queue else { return Ok(()) };
        let Look { record, status, times } = look;
        if status.dead.is_some_and(|dead| dead > 0) {
            status.dead_letters = match reconciliation::dead_jobs(queue, record).await {
                // A user who may only look at the queues still sees the number.
                Err(QueueError::AccessRefused { reason, .. }) => {
                    tracing::warn!(reason, "the dead letters can't be read");
                    return Ok(());
                }
                letters => letters?,
            };
        }
        let dead_of_run = status.dead_letters.len() as u64;
        let may_lack = status.remaining.is_some_and(|remaining| remaining > dead_of_run);
        if status.has_empty_queue() && may_lack {
            let dead = &status.dead_letters;
            let found = match (times, record.listed_manifest()) {
                (Some(times), Some((generation, images))) => {
                    let entries = manifest::read(&self.out, generation, Some(images));
                    reconciliation::unaccounted_of_manifest(times, entries, dead).await?
                }
                _ => reconciliation::unaccounted(record, &self.out, dead, &self.stores).await?,
            };
            status.unaccounted = Some(found.count);
            status.unaccounted_keys = found.keys;
        }
        Ok(())
    }

    /// Looks again and again until every image is done, or the run has been idle for `max_idle`.
    /// Calls `show` after each look and returns the last one.
    async fn look_until_done(
        &self,
        max_idle: Option<Duration>,
        mut show: impl FnMut(&RunStatus),
    ) -> Result<Look, StatusError> {
        let mut idle = IdleTime { since: Instant::now(), finished: 0 };
        let interval = WATCH_INTERVAL.max(max_idle.unwrap_or_default() / LOOKS_WHILE_IDLE);
        loop {
            let started = Instant::now();
            let look = self.look().await?;
            show(&look.status);
            let idle = idle.update(&look.status);
            if look.status.is_complete() || max_idle.is_some_and(|max_idle| idle >= max_idle) {
                return Ok(look);
            }
            // Results are many, and the next look has its own.
            drop(look);
            tokio::time::sleep(interval.max(started.elapsed() * 4)).await;
        }
    }

    /// As [`Self::look_until_done`], with a progress bar.
    async fn follow(&self, max_idle: Option<Duration>) -> Result<Look, StatusError> {
        let (sender, receiver) = tokio::sync::watch::channel(ProgressCounts::default());
        let looking = self.look_until_done(max_idle, |status| {
            sender.send_replace(ProgressCounts {
                done: status.done + status.failed,
                total: status.images,
                failed: status.failed,
            });
        });
        Progress::start("done").follow(looking, || *receiver.borrow()).await
    }
}

/// How long the queue has been empty while no result came.
struct IdleTime {
    since: Instant,
    /// Results at that time.
    finished: u64,
}

impl IdleTime {
    fn update(&mut self, status: &RunStatus) -> Duration {
        let finished = status.done + status.failed;
        if !status.has_empty_queue() || finished != self.finished {
            *self = Self { since: Instant::now(), finished };
        }
        self.since.elapsed()
    }
}
