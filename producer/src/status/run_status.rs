//! The status of a run, in numbers for a script and in lines for a person.

use camshaft_common::key::ImageKey;
use camshaft_common::run::{RunId, RunRecord};
use camshaft_common::skipped::SkippedCounts;
use camshaft_queue::QueueDepth;
use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::status::reconciliation::DeadJob;
use crate::status::result_counts::ResultCounts;
use crate::terminal::output::{format_count, format_duration, format_rate, format_time};

/// Keys and dead letters that a person is shown.
const MAX_SHOWN: usize = 20;

/// How far a run has come. The queue's numbers are of all runs that share it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct RunStatus {
    /// The run.
    pub(crate) run: RunId,
    /// When it was cancelled; null if it was not, or was gone on with since.
    pub(crate) cancelled_at: Option<DateTime<Utc>>,
    /// Images in SOURCE; null until they have been listed to the end.
    pub(crate) images: Option<u64>,
    /// Files in SOURCE that are no images; null until they are known.
    pub(crate) not_images: Option<u64>,
    /// What else lies in SOURCE, by reason and extension.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) skipped: Option<SkippedCounts>,
    /// Images with a prediction.
    pub(crate) done: u64,
    /// Images with a failure.
    pub(crate) failed: u64,
    /// Results that do not count by the last report: damaged ones, and outdated ones. Their images are
    /// to do.
    pub(crate) unusable: u64,
    /// Images without a result; null until `images` is known.
    pub(crate) remaining: Option<u64>,
    /// Messages ready for a worker; null without a broker.
    pub(crate) queued: Option<u64>,
    /// Messages waiting for another try; null without a broker.
    pub(crate) retrying: Option<u64>,
    /// Dead letters; null without a broker.
    pub(crate) dead: Option<u64>,
    /// Workers that consume; null without a broker.
    pub(crate) workers: Option<u64>,
    /// Images with no result and in no queue. If there are workers they may be in work, otherwise
    /// they are lost. Null without a broker, until `images` is known, and of a cancelled run.
    pub(crate) unaccounted: Option<u64>,
    /// The first thousand of them, once the queue is empty.
    pub(crate) unaccounted_keys: Vec<ImageKey>,
    /// Images with a prediction and a failure. When nothing is in work there should be none.
    pub(crate) doubled_keys: Vec<ImageKey>,
    /// The run's dead letters.
    pub(crate) dead_letters: Vec<DeadJob>,
    /// Results a second over the last minute.
    pub(crate) images_per_second: f64,
    /// Seconds until every image is done at this rate; null if that is not known.
    pub(crate) seconds_left: Option<f64>,
    /// How many seconds ago the last result was written; for lines only.
    #[serde(skip)]
    pub(crate) seconds_since_last: Option<f64>,
}

/// What the broker says about the queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueStatus {
    /// Messages, by where they wait.
    pub(crate) depth: QueueDepth,
    /// Workers that consume.
    pub(crate) workers: u64,
}

impl RunStatus {
    /// Puts together what `run.json`, the results in OUT and the broker say.
    #[must_use]
    pub(crate) fn new(
        record: &RunRecord,
        results: ResultCounts,
        queue: Option<QueueStatus>,
    ) -> Self {
        let images = record.images;
        let remaining = images.map(|images| images.saturating_sub(results.finished));
        let rate = results.rate();
        // Nothing is to come of a run that was cancelled, so nothing of it is lost.
        let to_come = remaining.filter(|_| record.cancelled_at.is_none());
        let seconds_left = to_come.filter(|_| rate > 0.0).map(|images| images as f64 / rate);
        let depth = queue.map(|queue| queue.depth);
        let unaccounted = to_come.zip(depth).map(|(images, depth)| {
            images.saturating_sub(depth.ready + depth.retrying + depth.dead)
        });
        Self {
            run: record.run,
            cancelled_at: record.cancelled_at,
            images,
            not_images: record.skipped.as_ref().map(SkippedCounts::not_images),
            skipped: record.skipped.clone().filter(|skipped| !skipped.is_empty()),
            done: results.done,
            failed: results.failed,
            unusable: results.unusable,
            remaining,
            queued: depth.map(|depth| depth.ready),
            retrying: depth.map(|depth| depth.retrying),
            dead: depth.map(|depth| depth.dead),
            workers: queue.map(|queue| queue.workers),
            unaccounted,
            unaccounted_keys: Vec::new(),
            doubled_keys: results.doubled,
            dead_letters: Vec::new(),
            images_per_second: (rate * 100.0).round() / 100.0,
            seconds_left: seconds_left.map(f64::round),
            seconds_since_last: results.newest.map(|newest| (Utc::now() - newest).as_seconds_f64()),
        }
    }

    /// True if every image has a result.
    #[must_use]
    pub(crate) fn is_complete(&self) -> bool {
        self.remaining == Some(0)
    }

    /// True if the run was cancelled before every image had a result.
    #[must_use]
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled_at.is_some() && !self.is_complete()
    }

    /// True if no message waits, now or for another try. False without a broker.
    #[must_use]
    pub(crate) fn has_empty_queue(&self) -> bool {
        (self.queued, self.retrying) == (Some(0), Some(0))
    }

    /// The status as one line of JSON.
    #[must_use]
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a status has only texts and numbers")
    }

    /// The status for a person.
    #[must_use]
    pub(crate) fn to_lines(&self) -> String {
        let images = match self.images {
            Some(images) => images.to_string(),
            // So does `report`.
            None => {
                "? until SOURCE is listed; results of images that have gone count, too".to_owned()
            }
        };
        let mut text = format!(
            "run      {}\nimages   {images}\ndone     {}\nfailed   {}",
            self.run, self.done, self.failed
        );
        if let Some(skipped) = &self.skipped {
            text.push_str(&format!("\nleft out {skipped}"));
        }
        if self.unusable > 0 {
            text.push_str(&format!(
                "\nunusable {} by the last report: repeat the audit or enqueue to have them redone",
                self.unusable
            ));
        }
        if let Some(remaining) = self.remaining {
            text.push_str(&format!("\nto do    {remaining}"));
        }
        self.push_cancelled(&mut text);
        self.push_queue(&mut text);
        self.push_unaccounted(&mut text);
        self.push_doubled(&mut text);
        self.push_time(&mut text);
        text
    }

    fn push_cancelled(&self, text: &mut String) {
        let Some(at) = self.cancelled_at.filter(|_| self.is_cancelled()) else { return };
        let not_done = match self.remaining {
            Some(remaining) => format!("{} not done", format_count(remaining, "image")),
            None => "before SOURCE was listed to its end".to_owned(),
        };
        let at = format_time(at);
        text.push_str(&format!("\ncancelled at {at}, {not_done}; enqueue again to go on"));
    }

    /// The rate and the time left, or when the last result came if there is no rate: a complete run
    /// has none.
    fn push_time(&self, text: &mut String) {
        let since_last = self.seconds_since_last.map(format_duration);
        if self.is_complete() {
            if let Some(since_last) = since_last {
                text.push_str(&format!("\nended    {since_last} ago"));
            }
        } else if self.images_per_second > 0.0 {
            let rate = format_rate(self.images_per_second);
            text.push_str(&format!("\nrate     {rate} images/s"));
            if let Some(seconds) = self.seconds_left {
                text.push_str(&format!("\nleft     {}", format_duration(seconds)));
            }
        } else if let Some(since_last) = since_last {
            text.push_str(&format!("\nrate     none: the last result came {since_last} ago"));
        }
    }

    fn push_queue(&self, text: &mut String) {
        let (Some(queued), Some(retrying), Some(dead)) = (self.queued, self.retrying, self.dead)
        else {
            return;
        };
        text.push_str(&format!("\nqueued   {queued}"));
        if retrying > 0 {
            text.push_str(&format!(", and {retrying} waiting for another try"));
        }
        text.push_str(&format!("\ndead     {dead}"));
        let letters = self.dead_letters.iter().map(|letter| match &letter.key {
            Some(key) => format!("{key}: {}", letter.reason),
            None => letter.reason.clone(),
        });
        push_list(text, letters);
    }

    fn push_unaccounted(&self, text: &mut String) {
        let Some(unaccounted) = self.unaccounted.filter(|unaccounted| *unaccounted > 0) else {
            return;
        };
        text.push_str(&match self.workers {
            Some(0) => format!(
                "\nlost     {unaccounted}: no result and no message; when the queue is empty, \
                 repeat the enqueue with --only missing"
            ),
            _ => format!(
                "\nin work  {unaccounted}, unless lost: look again when the workers have nothing to do"
            ),
        });
        push_list(text, self.unaccounted_keys.iter().map(ToString::to_string));
    }

    fn push_doubled(&self, text: &mut String) {
        if self.doubled_keys.is_empty() {
            return;
        }
        text.push_str(&format!(
            "\ntwice    {} with a prediction and a failure; do them again with --only failed",
            self.doubled_keys.len()
        ));
        push_list(text, self.doubled_keys.iter().map(ToString::to_string));
    }
}

/// Appends the first items, one a line.
fn push_list(text: &mut String, items: impl ExactSizeIterator<Item = String>) {
    let left_out = items.len().saturating_sub(MAX_SHOWN);
    for item in items.take(MAX_SHOWN) {
        text.push_str(&format!("\n           {item}"));
    }
    if left_out > 0 {
        text.push_str(&format!("\n           and {left_out} more (--json has them)"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(remaining: u64, images_per_second: f64) -> RunStatus {
        RunStatus {
            run: RunId::generate(),
            cancelled_at: None,
            images: Some(43),
            not_images: None,
            skipped: None,
            done: 43 - remaining,
            failed: 0,
            unusable: 0,
            remaining: Some(remaining),
            queued: None,
            retrying: None,
            dead: None,
            workers: None,
            unaccounted: None,
            unaccounted_keys: Vec::new(),
            doubled_keys: Vec::new(),
            dead_letters: Vec::new(),
            images_per_second,
            seconds_left: (images_per_second > 0.0).then(|| remaining as f64 / images_per_second),
            seconds_since_last: Some(7300.0),
        }
    }

    #[test]
    fn a_run_without_rate_tells_when_its_last_result_came() {
        let complete = status(0, 0.0).to_lines();
        assert!(complete.ends_with("ended    2 h 1 min ago"), "{complete}");
        let waiting = status(3, 0.0).to_lines();
        assert!(
            waiting.ends_with("rate     none: the last result came 2 h 1 min ago"),
            "{waiting}"
        );
        let running = status(30, 0.05).to_lines();
        assert!(running.ends_with("rate     0.05 images/s\nleft     10 min"), "{running}");
    }

    #[test]
    fn a_cancelled_run_says_what_is_not_done() {
        let cancelled_at = "2026-01-02T03:04:05.678Z".parse().ok();
        let cancelled = RunStatus { cancelled_at, ..status(3, 0.0) };
        assert!(cancelled.is_cancelled() && !cancelled.is_complete());
        let lines = cancelled.to_lines();
        let line =
            "\ncancelled at 2026-01-02 03:04:05 UTC, 3 images not done; enqueue again to go on\n";
        assert!(lines.contains(line), "{lines}");
        assert!(cancelled.to_json().contains(r#""cancelled_at":"2026-01-02T03:04:05.678Z""#));
        let listed = RunStatus { images: None, remaining: None, ..cancelled.clone() };
        assert!(listed.is_cancelled() && listed.to_lines().contains("before SOURCE was listed"));
        let complete = RunStatus { cancelled_at, ..status(0, 0.0) };
        assert!(!complete.is_cancelled() && !complete.to_lines().contains("cancelled"));
        assert!(status(3, 0.0).to_json().contains(r#""cancelled_at":null"#));
    }
}
