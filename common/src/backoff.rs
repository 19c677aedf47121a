//! How long to wait before the next try of something that failed.

use std::time::Duration;

const FIRST_DELAY: Duration = Duration::from_millis(200);
const LONGEST_DELAY: Duration = Duration::from_secs(15);

/// Growing delays with jitter, so that workers that lost the same broker or store don't return
/// at once.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The delay after one more failure.
    pub fn next_delay(&mut self) -> Duration {
        let delay = FIRST_DELAY.saturating_mul(2u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        delay.min(LONGEST_DELAY).mul_f64(rand::random_range(0.5..1.0))
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.failures = 0;
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
}
