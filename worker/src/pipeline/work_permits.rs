//! Decides which images may be in the pipeline at the same time.
//!
//! Most images are worked on side by side. A message that may have killed its workers is worked
//! on alone: if this worker dies as well, no other image is lost with it, and the message is
//! known to be the cause.

use std::sync::Arc;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::waiting;

/// An image's right to be in the pipeline, until it is dropped.
#[derive(Debug)]
pub enum WorkPermit {
    /// Other images may be in the pipeline.
    Shared(OwnedRwLockReadGuard<()>),
    /// No other image is in the pipeline.
    Exclusive(OwnedRwLockWriteGuard<()>),
}

impl WorkPermit {
    /// True if no other image is in the pipeline.
    #[must_use]
    pub fn is_exclusive(&self) -> bool {
        matches!(self, Self::Exclusive(_))
    }
}

/// Hands out [`WorkPermit`]s.
#[derive(Debug, Default)]
pub struct WorkPermits(Arc<RwLock<()>>);

impl WorkPermits {
    /// Waits for an exclusive permit if `alone`, else for a shared one.
    pub async fn acquire(&self, alone: bool) -> WorkPermit {
        let lock = Arc::clone(&self.0);
        if alone {
            WorkPermit::Exclusive(waiting::wait_for_turn(lock.write_owned()).await)
        } else {
            WorkPermit::Shared(waiting::wait_for_turn(lock.read_owned()).await)
        }
    }
}
