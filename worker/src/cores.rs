//! Runs work that computes, on two thread pools with a thread for each core: one for drawing and
//! the network's convolutions, one for decoding. Work that only waits belongs to tokio.
//!
//! Decoders have their own pool because untrusted files control what they do. If a decoder does
//! not end, its thread is given up and the pool is replaced. No other work ever waits for it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::sync::{oneshot, watch};

use crate::waiting;

/// Runs `work` on the shared pool. Work starts in the order of these calls.
///
/// # Errors
/// The payload of the panic, if `work` panicked.
pub(crate) async fn compute<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> thread::Result<T> {
    let (done, result) = oneshot::channel();
    let asked = Instant::now();
    rayon::spawn_fifo(move || {
        let waited = asked.elapsed();
        // A panic drops everything that `work` owned, so no other code sees it half done.
        let outcome = catch_unwind(AssertUnwindSafe(work));
        // There is no receiver if the pipeline was dropped.
        done.send((outcome, waited)).unwrap_or_default();
    });
    let (outcome, waited) = result.await.expect("the pool runs what it is given");
    waiting::note_waited(waited);
    outcome
}

/// Why decoding gave no result at all.
#[derive(Debug)]
pub(crate) enum DecoderFailure {
    /// It panicked.
    Panicked,
    /// It was not done in time, and may never be. Its thread was given up.
    TimedOut,
}

impl From<Box<dyn Any + Send>> for DecoderFailure {
    fn from(_panic: Box<dyn Any + Send>) -> Self {
        Self::Panicked
    }
}

/// Runs `work` on the decoders' pool, for at most `limit` from its start.
///
/// # Errors
/// If it panicked or took longer. What it owns is freed when it ends, which may be never.
pub(crate) async fn decode_within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, DecoderFailure> {
    static DECODERS: LazyLock<DecoderPool> = LazyLock::new(DecoderPool::start);
    DECODERS.run(limit, work).await
}

/// A thread pool that is replaced when one of its threads is given up.
struct DecoderPool {
    present: Mutex<NumberedPool>,
    /// The number of the present pool.
    number: watch::Sender<u64>,
}

struct NumberedPool {
    /// Grows with each replacement.
    number: u64,
    pool: Arc<ThreadPool>,
}

impl NumberedPool {
    fn new(number: u64) -> Self {
        let named = ThreadPoolBuilder::new().thread_name(|index| format!("decode-{index}"));
        let pool = named.build().expect("the system has room for a few more threads");
        Self { number, pool: Arc::new(pool) }
    }
}

impl DecoderPool {
    fn start() -> Self {
        Self { present: Mutex::new(NumberedPool::new(0)), number: watch::channel(0).0 }
    }

    async fn run<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, DecoderFailure> {
        let (starting, mut started) = oneshot::channel();
        let (done, result) = oneshot::channel();
        // Several pools may be asked for the same work. The first one that gets to it takes it.
        let unstarted = Arc::new(Mutex::new(Some((work, starting, done))));
        let mut replaced = self.number.subscribe();
        let asked = Instant::now();
        let number = loop {
            let number = *replaced.borrow_and_update();
            let slot = Arc::clone(&unstarted);
            self.pool().spawn_fifo(move || {
                let taken = slot.lock().take();
                let Some((work, starting, done)) = taken else { return };
                // There is no receiver if the pipeline was dropped.
                starting.send(()).unwrap_or_default();
                done.send(catch_unwind(AssertUnwindSafe(work))).unwrap_or_default();
            });
            tokio::select! {
                _ = &mut started => break number,
                // The old pool may have no thread left that works: ask the new one as well.
                Ok(()) = replaced.changed() => {}
            }
        };
        waiting::note_waited(asked.elapsed());
        match tokio::time::timeout(limit, result).await {
            Ok(outcome) => Ok(outcome.expect("work that was started sends its outcome")?),
            Err(_elapsed) => {
                self.replace(number);
                Err(DecoderFailure::TimedOut)
            }
        }
    }

    fn pool(&self) -> Arc<ThreadPool> {
        Arc::clone(&self.present.lock().pool)
    }

    /// Replaces the pool with this number, unless it was replaced already. The old pool's threads
    /// end when they have no work left.
    fn replace(&self, number: u64) {
        let mut present = self.present.lock();
        if present.number == number {
            *present = NumberedPool::new(number + 1);
            self.number.send_replace(number + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_panic_comes_back_and_the_pool_goes_on() {
        for _ in 0..3 {
            assert!(compute(|| panic!("a bad file")).await.is_err());
            let decoded = decode_within(LONG, || panic!("a bad file")).await;
            assert!(matches!(decoded, Err::<(), _>(DecoderFailure::Panicked)));
        }
        assert_eq!(compute(|| 7).await.unwrap(), 7);
        assert_eq!(decode_within(LONG, || 7).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn runaways_hold_up_nobody_else() {
        let decoders = DecoderPool::start();
        // More decoders than threads, all at once. None ends before the test does.
        let runaways = 2 * rayon::current_num_threads() + 1;
        let (_held, forever) = mpsc::channel::<()>();
        let forever = Arc::new(Mutex::new(forever));
        let lost = (0..runaways).map(|_| {
            let forever = Arc::clone(&forever);
            decoders.run(Duration::from_millis(100), move || {
                // It ends with an error once the test drops the sender.
                let ended = forever.lock().recv();
                assert!(ended.is_err());
            })
        });
        for lost in futures::future::join_all(lost).await {
            assert!(matches!(lost, Err(DecoderFailure::TimedOut)));
        }
        assert_eq!(decoders.run(LONG, || 7).await.unwrap(), 7);
    }
}
