//! The asynchronous runtime of both programs.
//!
//! Owns the number of its threads. Upstream: both programs' `main`.

use tokio::runtime::{Builder, Runtime};

/// Threads that block on files, at most. Each request to a local folder takes one, and there may be
/// hundreds of requests. A thread takes 2 MiB or more for its stack and its allocator's pools.
const MAX_BLOCKING_THREADS: usize = 32;

/// Starts a runtime with a thread for each core, and up to 32 threads that block on files.
///
/// # Errors
/// If the system refuses to start threads.
pub fn start() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().enable_all().max_blocking_threads(MAX_BLOCKING_THREADS).build()
}
