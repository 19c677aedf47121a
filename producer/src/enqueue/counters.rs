//! What an enqueue has done so far, for the progress bar and the last line.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use crate::images::skipped_log::SkippedLog;

/// Counters that change while jobs are published.
#[derive(Debug, Default)]
pub(crate) struct EnqueueCounters {
    /// Images found in SOURCE.
    pub(crate) found: AtomicU64,
    /// What else lies in SOURCE.
    pub(crate) left_out: Arc<SkippedLog>,
    /// Jobs that the queue has taken.
    pub(crate) published: AtomicU64,
    /// Images that got no job because of their result.
    pub(crate) skipped: AtomicU64,
    /// Skipped images whose result is a failure.
    pub(crate) skipped_failed: AtomicU64,
    /// Images without a result whose job an earlier process published.
    pub(crate) enqueued_before: AtomicU64,
    /// True once SOURCE has been listed to its end.
    pub(crate) listed: AtomicBool,
}
