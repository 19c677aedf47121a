//! Waits for a condition with a deadline, instead of sleeping for a fixed time.

use std::time::{Duration, Instant};

/// The shortest pause between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(20);
/// A pause is at least four times as long as the look before it. A look may list a folder or start a
/// program, and what is waited for needs the cores.
const PAUSE_PER_LOOK: u32 = 4;

/// Waits until `condition` holds.
///
/// # Panics
/// If it does not hold within `limit`. The message names `what`.
pub fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    loop {
        let looked = Instant::now();
        if condition() {
            return;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(PAUSE.max(looked.elapsed() * PAUSE_PER_LOOK));
    }
}
