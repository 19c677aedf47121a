//! Waiting for conditions instead of for time to pass.

use std::time::{Duration, Instant};

/// Waits until `condition` holds.
///
/// # Panics
/// With `what`, where it doesn't within `limit`.
pub fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
