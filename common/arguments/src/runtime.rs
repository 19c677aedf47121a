//! The threads of a program that waits for stores and brokers.

use tokio::runtime::{Builder, Runtime};

/// Threads that may wait for files at a time. Each request to a local folder takes one, and there
/// may be hundreds on their way; a thread's stack and its allocator's pools are 2 MiB and more.
const WAITING_THREADS: usize = 32;

/// Starts a runtime of a thread for each core, and 32 beside them.
///
/// # Errors
/// Where the system gives no threads.
pub fn start() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().enable_all().max_blocking_threads(WAITING_THREADS).build()
}
