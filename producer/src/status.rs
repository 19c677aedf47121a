//! `camshaft status`: how far a run has come, from what lies in OUT and waits in the queue.

pub(crate) mod reconciliation;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use camshaft_common::key::ImageKey;
use camshaft_common::layout::{self, FAILURES, PREDICTIONS};
use camshaft_common::run::{RunId, RunRecord};
use camshaft_common::store::{Folder, StoreError, StoreOptions};
use camshaft_queue::{JobQueue, QueueDepth, QueueError, RabbitMqQueue};
use chrono::{DateTime, TimeDelta, Utc};
use futures::TryStreamExt;
use serde::Serialize;

use crate::cli::StatusArgs;
use crate::enqueue::connect_to;
use crate::status::reconciliation::{self, DeadJob};
use crate::terminal::output::{duration, say};
use crate::terminal::progress::{Progress, Reading};

/// The rate is counted over the results of the last minute.
const RATE_WINDOW: TimeDelta = TimeDelta::seconds(60);
/// Between two looks, at least; a large OUT takes longer to list and is looked at less.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// A longer wait for the end is no reason to list OUT more often than it takes.
const LOOKS_WHILE_IDLE: u32 = 30;

/// Keys and dead letters a person is shown.
const MAX_SHOWN: usize = 20;

/// How far a run has come. The queue's numbers are of all runs that share it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Status {
    /// The run.
    pub(crate) run: RunId,
    /// Images in SOURCE; null until they have been listed to the end.
    pub(crate) images: Option<u64>,
    /// Images with a prediction.
    pub(crate) done: u64,
    /// Images with a failure.
    pub(crate) failed: u64,
    /// Images without either; null until `images` is known.
    pub(crate) remaining: Option<u64>,
    /// Messages ready for a worker; null without a broker.
    pub(crate) queued: Option<u64>,
    /// Messages waiting for another try; null without a broker.
    pub(crate) retrying: Option<u64>,
    /// Dead letters; null without a broker.
    pub(crate) dead: Option<u64>,
    /// Workers that consume; null without a broker.
    pub(crate) workers: Option<u64>,
    /// Images in no result and no queue: in work where there are workers, else lost. Null without
    /// a broker, or until `images` is known.
    pub(crate) unaccounted: Option<u64>,
    /// The first thousand of them, once the queue is empty.
    pub(crate) unaccounted_keys: Vec<ImageKey>,
    /// Images with a prediction and a failure. At rest there are none.
    pub(crate) doubled_keys: Vec<ImageKey>,
    /// The run's dead letters.
    pub(crate) dead_letters: Vec<DeadJob>,
    /// Results a second over the last minute.
    pub(crate) images_per_second: f64,
    /// Seconds until every image is done, at this rate; null where that can't be told.
    pub(crate) seconds_left: Option<f64>,
}

/// What waits in the broker, and for how many.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    depth: QueueDepth,
    workers: u64,
}

impl Status {
    /// Whether every image has its result.
    #[must_use]
    pub(crate) fn is_complete(&self) -> bool {
        self.remaining == Some(0)
    }

    fn new(record: &RunRecord, results: Counted, waiting: Option<Waiting>) -> Self {
        let images = record.images;
        let finished = results.done + results.failed - results.doubled.len() as u64;
        let remaining = images.map(|images| images.saturating_sub(finished));
        let rate = results.rate();
        let seconds_left =
            remaining.filter(|_| rate > 0.0).map(|remaining| remaining as f64 / rate);
        let depth = waiting.map(|waiting| waiting.depth);
        let unaccounted = remaining.zip(depth).map(|(remaining, depth)| {
            remaining.saturating_sub(depth.ready + depth.retrying + depth.dead)
        });
        Self {
            run: record.run,
            images,
            done: results.done,
            failed: results.failed,
            remaining,
            queued: depth.map(|depth| depth.ready),
            retrying: depth.map(|depth| depth.retrying),
            dead: depth.map(|depth| depth.dead),
            workers: waiting.map(|waiting| waiting.workers),
            unaccounted,
            unaccounted_keys: Vec::new(),
            doubled_keys: results.doubled,
            dead_letters: Vec::new(),
            images_per_second: (rate * 100.0).round() / 100.0,
            seconds_left: seconds_left.map(f64::round),
        }
    }

    fn lines(&self) -> String {
        let images = self.images.map_or("?".to_owned(), |images| images.to_string());
        let mut text = format!(
            "run      {}\nimages   {images}\ndone     {}\nfailed   {}",
            self.run, self.done, self.failed
        );
        if let Some(remaining) = self.remaining {
            text.push_str(&format!("\nto do    {remaining}"));
        }
        if let (Some(queued), Some(retrying), Some(dead)) = (self.queued, self.retrying, self.dead)
        {
            text.push_str(&format!("\nqueued   {queued}"));
            if retrying > 0 {
                text.push_str(&format!(", and {retrying} waiting for another try"));
            }
            text.push_str(&format!("\ndead     {dead}"));
            let described = self.dead_letters.iter().map(|letter| match &letter.key {
                Some(key) => format!("{key}: {}", letter.reason),
                None => letter.reason.clone(),
            });
            push_list(&mut text, described);
        }
        self.push_accounts(&mut text);
        text.push_str(&format!("\nrate     {:.1} images/s", self.images_per_second));
        if let Some(seconds) = self.seconds_left.filter(|_| !self.is_complete()) {
            text.push_str(&format!("\nleft     {}", duration(seconds)));
        }
        text
    }

    /// What doesn't add up, and what to do about it.
    fn push_accounts(&self, text: &mut String) {
        if let Some(unaccounted) = self.unaccounted.filter(|unaccounted| *unaccounted > 0) {
            text.push_str(&match self.workers {
                Some(0) => format!(
                    "\nlost     {unaccounted}: in no result and no queue; when the queue is empty, \
                     repair it with the same enqueue and --only missing"
                ),
                _ => format!(
                    "\nin work  {unaccounted}, unless lost: look again once nothing happens any more"
                ),
            });
            push_list(text, self.unaccounted_keys.iter().map(ToString::to_string));
        }
        if !self.doubled_keys.is_empty() {
            text.push_str(&format!(
                "\ntwice    {} with a prediction and a failure; do them again with --only failed",
                self.doubled_keys.len()
            ));
            push_list(text, self.doubled_keys.iter().map(ToString::to_string));
        }
    }
}

/// Appends the first few, one a line.
fn push_list(text: &mut String, items: impl ExactSizeIterator<Item = String>) {
    let left_out = items.len().saturating_sub(MAX_SHOWN);
    for item in items.take(MAX_SHOWN) {
        text.push_str(&format!("\n           {item}"));
    }
    if left_out > 0 {
        text.push_str(&format!("\n           and {left_out} more (--json has them)"));
    }
}

/// What lies in OUT.
#[derive(Debug, Default)]
struct Counted {
    done: u64,
    failed: u64,
    doubled: Vec<ImageKey>,
    recent: u64,
    first_recent: Option<DateTime<Utc>>,
    newest: Option<DateTime<Utc>>,
}

impl Counted {
    async fn list(out: &Folder) -> Result<Self, StoreError> {
        let mut counted = Self::default();
        let since = Utc::now() - RATE_WINDOW;
        // Failures are few: they are remembered, predictions only counted.
        let mut failed = HashSet::new();
        for folder in [FAILURES, PREDICTIONS] {
            let mut objects = out.list_in_order(folder);
            while let Some(object) = objects.try_next().await? {
                let Some(key) = layout::image_of_result(&object.path) else { continue };
                if folder == FAILURES {
                    counted.failed += 1;
                    failed.insert(key);
                } else {
                    counted.done += 1;
                    if failed.contains(&key) {
                        counted.doubled.push(key);
                    }
                }
                let written = object.last_modified;
                if written >= since {
                    counted.recent += 1;
                    counted.first_recent =
                        Some(counted.first_recent.map_or(written, |first| first.min(written)));
                }
                counted.newest = Some(counted.newest.map_or(written, |newest| newest.max(written)));
            }
        }
        Ok(counted)
    }

    /// Results a second: over the last minute, or since the first of them.
    fn rate(&self) -> f64 {
        let (Some(first), Some(newest)) = (self.first_recent, self.newest) else { return 0.0 };
        let seconds = (newest - first).as_seconds_f64();
        if self.recent < 2 { 0.0 } else { (self.recent - 1) as f64 / seconds.max(1.0) }
    }
}

struct Watched {
    out: Folder,
    queue: Option<RabbitMqQueue>,
    stores: StoreOptions,
}

impl Watched {
    async fn look(&self) -> anyhow::Result<(RunRecord, Status)> {
        let record = RunRecord::read_existing(&self.out).await?;
        // The queue first: what is done in between has a result then, rather than neither.
        let waiting = match &self.queue {
            Some(queue) => {
                Some(Waiting { depth: queue.depth().await?, workers: queue.workers().await? })
            }
            None => None,
        };
        let results = Counted::list(&self.out).await?;
        let status = Status::new(&record, results, waiting);
        Ok((record, status))
    }

    /// Adds names to numbers: the dead letters, and what is unaccounted for. What waits in a queue
    /// can't be read without disturbing it, so that takes an empty one.
    async fn name(&self, record: &RunRecord, status: &mut Status) -> anyhow::Result<()> {
        let Some(queue) = &self.queue else { return Ok(()) };
        if status.dead.is_some_and(|dead| dead > 0) {
            status.dead_letters = match reconciliation::dead_jobs(queue, record.run).await {
                // Whoever may only look at the queues sees how many there are.
                Err(QueueError::AccessRefused { reason, .. }) => {
                    tracing::warn!(reason, "the dead letters can't be read");
                    return Ok(());
                }
                letters => letters?,
            };
        }
        let empty = status.queued == Some(0) && status.retrying == Some(0);
        let of_run = status.dead_letters.len() as u64;
        let may_lack = status.remaining.is_some_and(|remaining| remaining > of_run);
        if empty && may_lack {
            let dead = &status.dead_letters;
            let found = reconciliation::unaccounted(record, &self.out, dead, &self.stores).await?;
            status.unaccounted = Some(found.count);
            status.unaccounted_keys = found.keys;
        }
        Ok(())
    }
}

/// How long nothing has waited in the queue and no result has come.
struct Quiet {
    since: Instant,
    finished: u64,
}

impl Quiet {
    fn lasts_for(&mut self, status: &Status) -> Duration {
        let finished = status.done + status.failed;
        let empty = (status.queued, status.retrying) == (Some(0), Some(0));
        if !empty || finished != self.finished {
            *self = Self { since: Instant::now(), finished };
        }
        self.since.elapsed()
    }
}

/// Prints a run's state, once or until it is complete.
///
/// # Errors
/// Where OUT holds no run, or OUT or the broker can't be reached.
pub(crate) async fn status(args: StatusArgs, stores: StoreOptions) -> anyhow::Result<()> {
    let out = Folder::open(&args.out, &stores)?;
    let queue = match args.broker {
        Some(broker) => Some(connect_to(broker, args.tls, args.queue).await?),
        None => None,
    };
    let watched = Watched { out, queue, stores };
    let (record, mut last) = if args.watch {
        let idle = args.exit_when_idle.map(Duration::from_secs);
        watch(&watched, args.json, idle).await?
    } else {
        watched.look().await?
    };
    // Followed as JSON, every look was printed already.
    if !(args.json && args.watch) {
        if !(args.watch && last.is_complete()) {
            watched.name(&record, &mut last).await?;
        }
        say(&if args.json { serde_json::to_string(&last)? } else { last.lines() });
    }
    if let Some(queue) = watched.queue {
        queue.close().await;
    }
    Ok(())
}

/// Looks again and again until every image is done, or nothing has happened for as long as `idle`;
/// returns the last look.
async fn watch(
    watched: &Watched,
    json: bool,
    idle: Option<Duration>,
) -> anyhow::Result<(RunRecord, Status)> {
    let (sender, receiver) = tokio::sync::watch::channel::<Reading>((0, None, 0));
    let mut quiet = Quiet { since: Instant::now(), finished: 0 };
    let interval = WATCH_INTERVAL.max(idle.unwrap_or_default() / LOOKS_WHILE_IDLE);
    let looking = async {
        loop {
            let started = Instant::now();
            let (record, status) = watched.look().await?;
            if json {
                say(&serde_json::to_string(&status)?);
            }
            sender.send_replace((status.done + status.failed, status.images, status.failed));
            let quiet = quiet.lasts_for(&status);
            if status.is_complete() || idle.is_some_and(|idle| quiet >= idle) {
                return Ok((record, status));
            }
            tokio::time::sleep(interval.max(started.elapsed() * 4)).await;
        }
    };
    if json {
        return looking.await;
    }
    Progress::start("done").follow(looking, || *receiver.borrow()).await
}
