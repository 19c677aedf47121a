//! Runs work that computes, the most urgent first. Work that only waits belongs to tokio.
//!
//! There are three kinds of it, each with a thread for each core:
//!
//! - The network runs on rayon's shared pool, where no other work is.
//! - Drawing runs on a pool of its own, with a lower priority.
//! - Decoding runs on a third pool, with the lowest priority.
//!
//! So no task of the network ever waits behind an overlay, which a batch on all cores would have to
//! wait for, and the kernel divides the cores by priority. Nothing starves: a thread of any priority
//! runs on a core that no other wants, and gets its part of one that others want, too. If the network
//! has too few images, its threads sleep and decoders have all cores. If it is ahead of drawing, the
//! bounded channel and the memory budget behind it hold it back.
//!
//! Decoders have their own pool also because untrusted files control what they do. If a decoder does
//! not end, its thread is given up and the pool is replaced. No other work ever waits for it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock, Once};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::sync::{oneshot, watch};
use tracing::debug;

use crate::thread_times::{BusyThread, Work};
use crate::waiting;

/// How many steps below the network drawing and decoding are, as `nice` counts them. The weights of
/// the kernel's scheduler are 1024 for the network, 423 for four steps and 172 for eight: on a core
/// that all three want, drawing gets a quarter and decoding a tenth; on one that decoding and the
/// network want, decoding gets a seventh. That is about what an image takes beside the network on a
/// CPU, so the next batch is ready when one is done. With much less, the network would compute
/// alone, then wait for its next batch. Drawing goes before decoding, since it frees memory that
/// decoding takes. <https://docs.kernel.org/scheduler/sched-nice-design.html>
const DRAWING_STEPS: i32 = 4;
const DECODING_STEPS: i32 = 8;

/// A decoder stops by itself once its processor time is over. After this many times that time on the
/// clock it is given up: it waits for something, or never looks at its time.
const GIVEN_UP_AFTER: u32 = 2;

/// Starts the threads of the network, if there are none yet, and returns their number. They have
/// names, by which the system's tools and the metrics tell them.
pub(crate) fn network_threads() -> usize {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let named = ThreadPoolBuilder::new().thread_name(|index| Work::Network.thread_name(index));
        if let Err(error) = named.build_global() {
            debug!(%error, "the network's threads have no names");
        }
    });
    rayon::current_num_threads()
}

/// Runs `work` on the threads for drawing, and for whatever else computes beside the network. Work
/// starts in the order of these calls.
///
/// # Errors
/// The payload of the panic, if `work` panicked.
pub(crate) async fn beside_network<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> thread::Result<T> {
    static DRAWING: LazyLock<ThreadPool> = LazyLock::new(|| pool(Work::Drawing, DRAWING_STEPS));
    let (done, result) = oneshot::channel();
    let asked = Instant::now();
    DRAWING.spawn_fifo(move || {
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

/// Starts threads for `work`, one for each core, this many steps below the network.
fn pool(work: Work, steps: i32) -> ThreadPool {
    let named = ThreadPoolBuilder::new()
        .thread_name(move |index| work.thread_name(index))
        .start_handler(move |_index| lower_priority(steps));
    named.build().expect("the system has room for a few more threads")
}

/// Lowers the priority of the calling thread. A system that refuses leaves it as it is: images take
/// as long, and only wait for each other.
#[cfg(target_os = "linux")]
fn lower_priority(steps: i32) {
    use rustix::process::{getpriority_process, setpriority_process};
    // For Linux each thread is a process here.
    let thread = Some(rustix::thread::gettid());
    let lowered =
        getpriority_process(thread).and_then(|now| setpriority_process(thread, now + steps));
    if let Err(error) = lowered {
        debug!(%error, "a thread keeps its priority");
    }
}

/// Elsewhere priorities belong to the whole process.
#[cfg(not(target_os = "linux"))]
fn lower_priority(_steps: i32) {}

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

/// Runs `work` on the decoders' pool. It should stop by itself after `max_time` of processor time. If
/// it is not back after twice that time, it is given up, unless others have taken the cores that it
/// needs: then it gets the processor time first.
///
/// # Errors
/// If it panicked or was given up. What it owns is freed when it ends, which may be never.
pub(crate) async fn decode_within<T: Send + 'static>(
    max_time: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, DecoderFailure> {
    static DECODERS: LazyLock<DecoderPool> = LazyLock::new(DecoderPool::start);
    DECODERS.run(max_time, work).await
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
        Self { number, pool: Arc::new(pool(Work::Decoding, DECODING_STEPS)) }
    }
}

impl DecoderPool {
    fn start() -> Self {
        Self { present: Mutex::new(NumberedPool::new(0)), number: watch::channel(0).0 }
    }

    async fn run<T: Send + 'static>(
        &self,
        max_time: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, DecoderFailure> {
        let (starting, mut started) = oneshot::channel();
        let (done, mut result) = oneshot::channel();
        // Several pools may be asked for the same work. The first one that gets to it takes it.
        let unstarted = Arc::new(Mutex::new(Some((work, starting, done))));
        let mut replaced = self.number.subscribe();
        let asked = Instant::now();
        let (number, thread) = loop {
            let number = *replaced.borrow_and_update();
            let slot = Arc::clone(&unstarted);
            self.pool().spawn_fifo(move || {
                let taken = slot.lock().take();
                let Some((work, starting, done)) = taken else { return };
                // There is no receiver if the pipeline was dropped.
                starting.send(BusyThread::this()).unwrap_or_default();
                done.send(catch_unwind(AssertUnwindSafe(work))).unwrap_or_default();
            });
            tokio::select! {
                thread = &mut started => {
                    break (number, thread.expect("work is taken only to be started"));
                }
                // The old pool may have no thread left that works: ask the new one as well.
                Ok(()) = replaced.changed() => {}
            }
        };
        waiting::note_waited(asked.elapsed());
        let mut limit = max_time * GIVEN_UP_AFTER;
        loop {
            match tokio::time::timeout(limit, &mut result).await {
                Ok(outcome) => {
                    return Ok(outcome.expect("work that was started sends its outcome")?);
                }
                Err(_elapsed) if thread.lacks_a_core(max_time) => limit = max_time,
                Err(_elapsed) => {
                    self.replace(number);
                    return Err(DecoderFailure::TimedOut);
                }
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
            assert!(beside_network(|| panic!("a bad file")).await.is_err());
            let decoded = decode_within(LONG, || panic!("a bad file")).await;
            assert!(matches!(decoded, Err::<(), _>(DecoderFailure::Panicked)));
        }
        assert_eq!(beside_network(|| 7).await.unwrap(), 7);
        assert_eq!(decode_within(LONG, || 7).await.unwrap(), 7);
    }

    /// Ends with an error once the sender is dropped.
    fn wait_for_end(forever: &Mutex<mpsc::Receiver<()>>) {
        let ended = forever.lock().recv();
        assert!(ended.is_err());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_network_waits_for_no_overlay_and_no_decoder() {
        let (held, forever) = mpsc::channel::<()>();
        let forever = Arc::new(Mutex::new(forever));
        let (begins, begun) = mpsc::channel();
        let waits = || {
            let (forever, begins) = (Arc::clone(&forever), begins.clone());
            move || {
                begins.send(()).unwrap();
                wait_for_end(&forever);
            }
        };
        // More of each than there are threads, and none of them ends.
        let threads = network_threads();
        let each = 2 * threads + 1;
        let drawing: Vec<_> = (0..each).map(|_| tokio::spawn(beside_network(waits()))).collect();
        let decoders = Arc::new(DecoderPool::start());
        let decoding = (0..each).map(|_| {
            let (decoders, waits) = (Arc::clone(&decoders), waits());
            tokio::spawn(async move { decoders.run(LONG, waits).await })
        });
        let decoding: Vec<_> = decoding.collect();
        for _ in 0..2 * threads {
            begun.recv_timeout(LONG).expect("every thread of both pools is busy");
        }
        let (done, results) = mpsc::channel();
        rayon::spawn(move || {
            rayon::scope(|scope| {
                for number in 0..each {
                    let done = done.clone();
                    scope.spawn(move |_| done.send(number).unwrap());
                }
            });
        });
        for _ in 0..each {
            results.recv_timeout(LONG).expect("the network computes");
        }
        drop(held);
        for drawn in drawing {
            assert!(drawn.await.unwrap().is_ok());
        }
        for decoded in decoding {
            assert!(decoded.await.unwrap().is_ok());
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn drawing_and_decoding_have_lower_priorities() {
        use rustix::process::getpriority_process;
        const LOWEST: i32 = 19;
        let priority = || getpriority_process(Some(rustix::thread::gettid())).unwrap();
        let own = priority();
        let drawing = beside_network(priority).await.unwrap();
        assert_eq!(drawing, (own + DRAWING_STEPS).min(LOWEST));
        let decoding = decode_within(LONG, priority).await.unwrap();
        assert_eq!(decoding, (own + DECODING_STEPS).min(LOWEST));
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
            decoders.run(Duration::from_millis(100), move || wait_for_end(&forever))
        });
        for lost in futures::future::join_all(lost).await {
            assert!(matches!(lost, Err(DecoderFailure::TimedOut)));
        }
        assert_eq!(decoders.run(LONG, || 7).await.unwrap(), 7);
    }
}
