//! How long, and how often, workers have refused a message: when is it the job's own fault?
//!
//! A worker refuses a job that it can't do for a reason of its own, or of the job's: its
//! credentials have expired, or nobody may write to the job's OUT. One worker can't tell which. So
//! the message keeps a record of its refusals, until a worker tries the job.

use std::time::{Duration, SystemTime};

/// Refusals for each worker that consumes, after which every one of them has most likely had the
/// message: if one of *w* workers can do it, it misses *n* deliveries in a row with a probability
/// of `(1 - 1/w)^n`, which is below 1 in 20,000.
const REFUSALS_PER_WORKER: u64 = 10;

/// The refusals of a message, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusals {
    /// When it was first refused.
    pub(crate) since: SystemTime,
    /// How often it was refused.
    pub(crate) count: u32,
}

impl Refusals {
    /// The refusals of a message that is refused now, after those `before`.
    pub(crate) fn one_more(before: Option<Self>) -> Self {
        let first = Self { since: SystemTime::now(), count: 0 };
        let before = before.unwrap_or(first);
        Self { count: before.count.saturating_add(1), ..before }
    }

    /// How long ago it was first refused. Zero if the clock of the worker that did was ahead.
    pub(crate) fn age(self) -> Duration {
        self.since.elapsed().unwrap_or_default()
    }

    /// True if it was refused for `limit` by all of as many `workers` as consume. A limit of zero
    /// makes the first refusal the last.
    pub(crate) fn are_by_all(self, limit: Duration, workers: u64) -> bool {
        let enough = REFUSALS_PER_WORKER.saturating_mul(workers.max(1));
        limit.is_zero() || (self.age() >= limit && u64::from(self.count) >= enough)
    }

    /// The reason of a dead letter, after these refusals.
    pub(crate) fn reason(self, last: &str) -> String {
        match self.count {
            1 => last.to_owned(),
            count => {
                format!("{last}; workers refused it {count} times in {} s", self.age().as_secs())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(600);

    fn refused(count: u32, ago: Duration) -> Refusals {
        Refusals { since: SystemTime::now() - ago, count }
    }

    #[test]
    fn all_have_refused_it_after_the_limit_and_ten_times_for_each() {
        assert!(refused(10, LIMIT).are_by_all(LIMIT, 1));
        assert!(!refused(9, LIMIT).are_by_all(LIMIT, 1), "one of them may not have had it");
        assert!(!refused(1000, LIMIT / 2).are_by_all(LIMIT, 1), "it may be mended soon");
        assert!(!refused(10, LIMIT).are_by_all(LIMIT, 2));
        assert!(refused(20, LIMIT).are_by_all(LIMIT, 2));
        // This worker may have stopped consuming meanwhile.
        assert!(refused(10, LIMIT).are_by_all(LIMIT, 0));
        assert!(refused(1, Duration::ZERO).are_by_all(Duration::ZERO, 7));
    }

    #[test]
    fn the_first_refusal_counts_from_now_and_later_ones_from_the_first() {
        let first = Refusals::one_more(None);
        assert_eq!(first.count, 1);
        assert!(first.age() < Duration::from_secs(60));
        assert_eq!(first.reason("no bucket"), "no bucket");
        let before = refused(4, LIMIT);
        let more = Refusals::one_more(Some(before));
        assert_eq!((more.since, more.count), (before.since, 5));
        assert_eq!(more.reason("no bucket"), "no bucket; workers refused it 5 times in 600 s");
        let ahead = Refusals { since: SystemTime::now() + LIMIT, count: 3 };
        assert_eq!(ahead.age(), Duration::ZERO);
    }
}
