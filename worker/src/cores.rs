//! The threads that compute: as many as cores for drawing and the network's convolutions, and
//! as many for decoding. Waiting is tokio's business.
//!
//! Decoders run on threads of their own because they are the one thing here that strangers'
//! bytes steer: a thread that doesn't come back from one is given up and replaced, and
//! nothing else ever waits for it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::sync::{oneshot, watch};

use crate::waiting;

/// Runs `work` on the pool, in the order of asking.
///
/// # Errors
/// What it panicked with.
pub(crate) async fn compute<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> thread::Result<T> {
    let (done, result) = oneshot::channel();
    let asked = Instant::now();
    rayon::spawn_fifo(move || {
        let waited = asked.elapsed();
        // What it owned is gone with it; nothing half done is left to be seen.
        let outcome = catch_unwind(AssertUnwindSafe(work));
        // Nobody waits where the pipeline was dropped.
        done.send((outcome, waited)).unwrap_or_default();
    });
    let (outcome, waited) = result.await.expect("the pool runs what it is given");
    waiting::note(waited);
    outcome
}

/// Work on a stranger's bytes gave no result.
#[derive(Debug)]
pub(crate) enum Astray {
    /// It panicked.
    Panicked,
    /// It was not done within its limit, and may never be. Its thread was given up.
    Overran,
}

impl From<Box<dyn Any + Send>> for Astray {
    fn from(_panic: Box<dyn Any + Send>) -> Self {
        Self::Panicked
    }
}

/// Runs `work` on the decoders' threads, for at most `limit` from when it starts.
///
/// # Errors
/// Where it panicked or took longer. What it owns is freed when it ends, if it ever does.
pub(crate) async fn decode_within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Astray> {
    static DECODERS: LazyLock<Decoders> = LazyLock::new(Decoders::start);
    DECODERS.run(limit, work).await
}

/// A pool that is replaced when one of its threads is lost.
struct Decoders {
    /// With its number, which grows with each replacement.
    pool: Mutex<(u64, Arc<ThreadPool>)>,
    /// The present pool's number.
    number: watch::Sender<u64>,
}

impl Decoders {
    fn start() -> Self {
        Self { pool: Mutex::new((0, Arc::new(new_pool()))), number: watch::channel(0).0 }
    }

    async fn run<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Astray> {
        let (starting, mut started) = oneshot::channel();
        let (done, result) = oneshot::channel();
        // Whichever pool gets to it first takes it out.
        let unstarted = Arc::new(Mutex::new(Some((work, starting, done))));
        let mut replaced = self.number.subscribe();
        let asked = Instant::now();
        let number = loop {
            let number = *replaced.borrow_and_update();
            let slot = Arc::clone(&unstarted);
            self.present().spawn_fifo(move || {
                let taken = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
                let Some((work, starting, done)) = taken else { return };
                // Nobody waits where the pipeline was dropped.
                starting.send(()).unwrap_or_default();
                done.send(catch_unwind(AssertUnwindSafe(work))).unwrap_or_default();
            });
            tokio::select! {
                _ = &mut started => break number,
                // All of the old pool's threads may be lost: ask the new one as well.
                Ok(()) = replaced.changed() => {}
            }
        };
        waiting::note(asked.elapsed());
        match tokio::time::timeout(limit, result).await {
            Ok(outcome) => Ok(outcome.expect("what was started sends its outcome")?),
            Err(_late) => {
                self.replace(number);
                Err(Astray::Overran)
            }
        }
    }

    fn present(&self) -> Arc<ThreadPool> {
        Arc::clone(&self.pool.lock().unwrap_or_else(PoisonError::into_inner).1)
    }

    /// Replaces the pool numbered `number`, unless that has happened. The old one's threads end
    /// when they have nothing left to do.
    fn replace(&self, number: u64) {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.0 == number {
            *pool = (number + 1, Arc::new(new_pool()));
            self.number.send_replace(number + 1);
        }
    }
}

fn new_pool() -> ThreadPool {
    let named = ThreadPoolBuilder::new().thread_name(|index| format!("decode-{index}"));
    named.build().expect("the system has room for a few more threads")
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
            assert!(matches!(decoded, Err::<(), _>(Astray::Panicked)));
        }
        assert_eq!(compute(|| 7).await.unwrap(), 7);
        assert_eq!(decode_within(LONG, || 7).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn runaways_hold_up_nobody_else() {
        let decoders = Decoders::start();
        // More than there are threads, all at once, and never to end before the test does.
        let runaways = 2 * rayon::current_num_threads() + 1;
        let (_held, forever) = mpsc::channel::<()>();
        let forever = Arc::new(Mutex::new(forever));
        let astray = (0..runaways).map(|_| {
            let forever = Arc::clone(&forever);
            decoders.run(Duration::from_millis(100), move || {
                // It ends with an error once the test drops the sender.
                let ended = forever.lock().unwrap_or_else(PoisonError::into_inner).recv();
                assert!(ended.is_err());
            })
        });
        for lost in futures::future::join_all(astray).await {
            assert!(matches!(lost, Err(Astray::Overran)));
        }
        assert_eq!(decoders.run(LONG, || 7).await.unwrap(), 7);
    }
}
