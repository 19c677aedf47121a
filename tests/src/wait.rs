//! Waits for a condition with a deadline, instead of sleeping for a fixed time.

use std::time::{Duration, Instant};

/// Waits until `condition` holds.
///
/// # Panics
/// If it does not hold within `limit`. The message names `what`.
pub fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
