//! `camshaft status`: how far a run has come, from what lies in OUT and waits in the queue.

use std::time::{Duration, Instant};

use camshaft_common::layout::{FAILURES, PREDICTIONS};
use camshaft_common::queue::{JobQueue, QueueDepth, RabbitMqQueue};
use camshaft_common::run::{RunId, RunRecord};
use camshaft_common::store::{Folder, StoreError, StoreOptions};
use chrono::{DateTime, TimeDelta, Utc};
use futures::TryStreamExt;
use serde::Serialize;

use crate::cli::StatusArgs;
use crate::enqueue::connect_to;
use crate::output::{duration, say};
use crate::plan::read_run;
use crate::progress::{Progress, Reading};

/// The rate is counted over the results of the last minute.
const RATE_WINDOW: TimeDelta = TimeDelta::seconds(60);
/// Between two looks, at least; a large OUT takes longer to list and is looked at less.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// No run lies in OUT.
#[derive(Debug, thiserror::Error)]
#[error("{0} holds no run: there is no run.json; is the path right, and was a run started?")]
pub(crate) struct NoRun(String);

/// How far a run has come.
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
    /// Results a second over the last minute.
    pub(crate) images_per_second: f64,
    /// Seconds until every image is done, at this rate; null where that can't be told.
    pub(crate) seconds_left: Option<f64>,
}

impl Status {
    /// Whether every image has its result.
    #[must_use]
    pub(crate) fn is_complete(&self) -> bool {
        self.remaining == Some(0)
    }

    fn new(record: &RunRecord, results: &Counted, depth: Option<QueueDepth>) -> Self {
        let images = record.images;
        let finished = results.done + results.failed;
        let remaining = images.map(|images| images.saturating_sub(finished));
        let rate = results.rate();
        let seconds_left =
            remaining.filter(|_| rate > 0.0).map(|remaining| remaining as f64 / rate);
        Self {
            run: record.run,
            images,
            done: results.done,
            failed: results.failed,
            remaining,
            queued: depth.map(|depth| depth.ready),
            retrying: depth.map(|depth| depth.retrying),
            dead: depth.map(|depth| depth.dead),
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
            text.push_str(&format!("\nmissing  {remaining}"));
        }
        if let (Some(queued), Some(retrying), Some(dead)) = (self.queued, self.retrying, self.dead)
        {
            text.push_str(&format!("\nqueued   {queued}"));
            if retrying > 0 {
                text.push_str(&format!(", and {retrying} waiting for another try"));
            }
            text.push_str(&format!("\ndead     {dead}"));
        }
        text.push_str(&format!("\nrate     {:.1} images/s", self.images_per_second));
        if let Some(seconds) = self.seconds_left.filter(|_| !self.is_complete()) {
            text.push_str(&format!("\nleft     {}", duration(seconds)));
        }
        text
    }
}

/// What lies in OUT.
#[derive(Debug, Default)]
struct Counted {
    done: u64,
    failed: u64,
    recent: u64,
    first_recent: Option<DateTime<Utc>>,
    newest: Option<DateTime<Utc>>,
}

impl Counted {
    async fn list(out: &Folder) -> Result<Self, StoreError> {
        let mut counted = Self::default();
        let since = Utc::now() - RATE_WINDOW;
        for folder in [PREDICTIONS, FAILURES] {
            let mut objects = out.list(folder);
            while let Some(object) = objects.try_next().await? {
                if !object.path.ends_with(".json") {
                    continue;
                }
                if folder == PREDICTIONS {
                    counted.done += 1;
                } else {
                    counted.failed += 1;
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
}

impl Watched {
    async fn look(&self) -> anyhow::Result<Status> {
        let record = read_run(&self.out).await?;
        let record = record.ok_or_else(|| NoRun(self.out.location().to_string()))?;
        let results = Counted::list(&self.out).await?;
        let depth = match &self.queue {
            Some(queue) => Some(queue.depth().await?),
            None => None,
        };
        Ok(Status::new(&record, &results, depth))
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
    let watched = Watched { out, queue };
    let last = if args.watch { watch(&watched, args.json).await? } else { watched.look().await? };
    if !(args.json && args.watch) {
        say(&if args.json { serde_json::to_string(&last)? } else { last.lines() });
    }
    if let Some(queue) = watched.queue {
        queue.close().await;
    }
    Ok(())
}

/// Looks again and again until every image is done; returns the last look.
async fn watch(watched: &Watched, json: bool) -> anyhow::Result<Status> {
    let (sender, receiver) = tokio::sync::watch::channel::<Reading>((0, None, 0));
    let looking = async {
        loop {
            let started = Instant::now();
            let status = watched.look().await?;
            if json {
                say(&serde_json::to_string(&status)?);
            }
            sender.send_replace((status.done + status.failed, status.images, status.failed));
            if status.is_complete() {
                return Ok(status);
            }
            tokio::time::sleep(WATCH_INTERVAL.max(started.elapsed() * 4)).await;
        }
    };
    if json {
        return looking.await;
    }
    Progress::start("done").follow(looking, || *receiver.borrow()).await
}
