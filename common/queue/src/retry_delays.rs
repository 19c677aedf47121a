//! How often a job is tried, and how long it waits between tries.

use std::time::Duration;

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

    /// Every delay, in order.
    pub fn iter(&self) -> impl Iterator<Item = Duration> + '_ {
        self.0.iter().copied()
    }
}

impl Default for RetryDelays {
    /// Five tries over six minutes. A store that fails for a short time recovers meanwhile, and
    /// a person who waits for the job still learns its end.
    fn default() -> Self {
        Self([2, 10, 60, 300].map(Duration::from_secs).to_vec())
    }
}
