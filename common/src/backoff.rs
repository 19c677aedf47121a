//! How long to wait between two tries of something that fails, and when to give up.
//!
//! Owns the delays. The caller decides what is tried again and which errors allow it. Used by the
//! queue, by listings of a store and by the worker's pipeline.

use std::time::Duration;

use tokio::time::Instant;

const FIRST_DELAY: Duration = Duration::from_millis(200);
const LONGEST_DELAY: Duration = Duration::from_secs(15);

/// Growing delays with jitter. Without jitter, all workers that lost the same broker or store
/// would come back at the same moment.
#[derive(Debug)]
pub struct Backoff {
    failures: u32,
    first: Duration,
    longest: Duration,
}

impl Default for Backoff {
    /// From 0.2 to 15 s, for something that is soon back.
    fn default() -> Self {
        Self::between(FIRST_DELAY, LONGEST_DELAY)
    }
}

impl Backoff {
    /// Delays from about `first` to about `longest`.
    #[must_use]
    pub fn between(first: Duration, longest: Duration) -> Self {
        Self { failures: 0, first, longest }
    }

    /// The delay after one more failure.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.first.saturating_mul(2u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        delay.min(self.longest).mul_f64(rand::random_range(0.5..1.0))
    }

    /// Starts again with the shortest delay. To be called after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// The tries of one operation: the delay before each, and the end of them.
///
/// ```
/// # use std::time::Duration;
/// # use camshaft_common::backoff::Retries;
/// # async fn read() -> Result<String, std::io::Error> { Ok(String::new()) }
/// # async fn example() -> Result<String, std::io::Error> {
/// let mut retries = Retries::within(Duration::from_secs(60));
/// loop {
///     match read().await {
///         Ok(text) => return Ok(text),
///         Err(error) => match retries.next_delay() {
///             Some(delay) => tokio::time::sleep(delay).await,
///             None => return Err(error),
///         },
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Retries {
    backoff: Backoff,
    limit: RetryLimit,
}

#[derive(Clone, Copy, Debug)]
enum RetryLimit {
    Unlimited,
    Until(Instant),
    Count(u32),
}

impl Retries {
    /// Tries without end.
    #[must_use]
    pub fn unlimited() -> Self {
        Self::new(RetryLimit::Unlimited)
    }

    /// Tries that start before `limit` has passed, counted from now.
    #[must_use]
    pub fn within(limit: Duration) -> Self {
        // A time that the clock can't tell never comes.
        Self::new(
            Instant::now().checked_add(limit).map_or(RetryLimit::Unlimited, RetryLimit::Until),
        )
    }

    /// At most `count` tries after the first.
    #[must_use]
    pub fn at_most(count: u32) -> Self {
        Self::new(RetryLimit::Count(count))
    }

    fn new(limit: RetryLimit) -> Self {
        Self { backoff: Backoff::default(), limit }
    }

    /// The delay before the next try; `None` if there is to be none.
    pub fn next_delay(&mut self) -> Option<Duration> {
        let delay = self.backoff.next_delay();
        match &mut self.limit {
            RetryLimit::Unlimited => Some(delay),
            RetryLimit::Until(end) => (Instant::now() + delay <= *end).then_some(delay),
            RetryLimit::Count(left) => {
                *left = left.checked_sub(1)?;
                Some(delay)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_a_limit() {
        let mut backoff = Backoff::default();
        let delays: Vec<_> = (0..40).map(|_| backoff.next_delay()).collect();
        assert!(delays[0] <= FIRST_DELAY && delays[39] >= LONGEST_DELAY / 2);
        assert!(delays.iter().all(|delay| *delay <= LONGEST_DELAY));
    }

    #[test]
    fn retries_end_at_their_limit() {
        assert_eq!(Retries::within(Duration::ZERO).next_delay(), None);
        assert!(Retries::within(Duration::MAX).next_delay().is_some());
        assert!(Retries::unlimited().next_delay().is_some());
        let mut twice = Retries::at_most(2);
        let given: Vec<_> = (0..4).map(|_| twice.next_delay().is_some()).collect();
        assert_eq!(given, [true, true, false, false]);
    }
}
