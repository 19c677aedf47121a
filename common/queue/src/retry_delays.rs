//! How often a job is tried, and how long it waits between tries.

use std::collections::BTreeSet;
use std::time::Duration;

/// The longest wait of a message whose delivery didn't count as a try, if there is a shorter delay:
/// what keeps it may be over at any time.
const LONGEST_UNCOUNTED: Duration = Duration::from_secs(60);
/// The wait of such a message if there are no delays.
const ONLY_UNCOUNTED: Duration = Duration::from_secs(10);

/// The delays between the tries of a job. There is one more try than there are delays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryDelays(Vec<Duration>);

impl RetryDelays {
    /// One delay after each try but the last. Whole seconds; empty means a single try.
    #[must_use]
    pub fn new(delays: Vec<Duration>) -> Self {
        Self(delays)
    }

    /// The delay after the try numbered `attempt` (from 1); `None` after the last.
    #[must_use]
    pub fn after(&self, attempt: u32) -> Option<Duration> {
        self.0.get(usize::try_from(attempt.checked_sub(1)?).ok()?).copied()
    }

    /// The delay after a delivery that doesn't count as a try. It is the longest one within
    /// `about`, and the shortest if all are longer.
    #[must_use]
    pub fn uncounted(&self, about: Duration) -> Duration {
        let about = about.min(LONGEST_UNCOUNTED);
        let within = self.0.iter().filter(|delay| **delay <= about).max();
        within.or_else(|| self.0.iter().min()).copied().unwrap_or(ONLY_UNCOUNTED)
    }

    /// Every delay that a message may wait for.
    #[must_use]
    pub fn all(&self) -> BTreeSet<Duration> {
        let uncounted = self.uncounted(Duration::ZERO);
        self.0.iter().copied().chain([uncounted]).collect()
    }
}

impl Default for RetryDelays {
    /// Five tries over six minutes. A store that fails for a short time recovers meanwhile, and
    /// a person who waits for the job still learns its end.
    fn default() -> Self {
        Self([2, 10, 60, 300].map(Duration::from_secs).to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_that_does_not_count_waits_about_as_long_as_what_keeps_it() {
        let seconds = |delays: &[u64], about: u64| {
            let delays = delays.iter().copied().map(Duration::from_secs).collect();
            RetryDelays::new(delays).uncounted(Duration::from_secs(about)).as_secs()
        };
        let usual = [2, 10, 60, 300];
        for (about, delay) in [(0, 2), (9, 2), (10, 10), (59, 10), (60, 60), (1000, 60)] {
            assert_eq!(seconds(&usual, about), delay, "{about}");
        }
        assert_eq!(seconds(&[600], 0), 600);
        assert_eq!(seconds(&[5, 1], 0), 1);
        assert_eq!(seconds(&[], 1000), 10);
        assert_eq!(RetryDelays::default().all().len(), 4, "no queue but those of the delays");
        assert_eq!(RetryDelays::new(Vec::new()).all().len(), 1);
    }
}
