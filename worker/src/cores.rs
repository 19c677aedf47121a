//! One pool of as many threads as cores for whatever computes: decoding, drawing and the
//! network's convolutions. Threads beyond the cores would only take turns, and each turn costs
//! the caches. Waiting is tokio's business.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use tokio::sync::oneshot;

/// Runs `work` on the pool, in the order of asking.
///
/// # Errors
/// What it panicked with.
pub(crate) async fn compute<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> thread::Result<T> {
    let (done, result) = oneshot::channel();
    rayon::spawn_fifo(move || {
        // What it owned is gone with it; nothing half done is left to be seen.
        let outcome = catch_unwind(AssertUnwindSafe(work));
        // Nobody waits where the pipeline was dropped.
        done.send(outcome).unwrap_or_default();
    });
    result.await.expect("the pool runs what it is given")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_comes_back_and_the_pool_goes_on() {
        for _ in 0..3 {
            assert!(compute(|| panic!("a bad file")).await.is_err());
        }
        assert_eq!(compute(|| 7).await.unwrap(), 7);
    }
}
