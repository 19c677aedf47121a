//! Memory held by images on their way, counted in bytes and shared by all stages.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::waiting;

/// Counted in KiB: a semaphore holds fewer permits than a large budget has bytes.
const UNIT_BYTES: u64 = 1024;

/// So many bytes and no more, handed out in the order of asking.
#[derive(Debug)]
pub struct Budget {
    units: u32,
    free: Arc<Semaphore>,
}

/// A part of a [`Budget`], given back when it is dropped.
#[derive(Debug)]
#[must_use = "what is dropped is given back"]
pub struct Share(OwnedSemaphorePermit);

impl Budget {
    /// All of it free.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let units = u32::try_from(bytes / UNIT_BYTES).unwrap_or(u32::MAX).max(1);
        let permits = usize::try_from(units).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { units, free: Arc::new(Semaphore::new(permits)) }
    }

    /// Waits until so many bytes are free. Who needs more than there are gets all, and so is
    /// alone.
    pub async fn reserve(&self, bytes: u64) -> Share {
        let wanted = units(bytes).min(self.units);
        let turn = Arc::clone(&self.free).acquire_many_owned(wanted);
        let permit = waiting::for_turn(turn).await;
        Share(permit.expect("the semaphore is never closed"))
    }

    /// All there is.
    #[must_use]
    pub fn limit_bytes(&self) -> u64 {
        u64::from(self.units) * UNIT_BYTES
    }

    /// What is handed out.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.limit_bytes().saturating_sub(self.free.available_permits() as u64 * UNIT_BYTES)
    }
}

impl Share {
    /// Gives back all but so many bytes.
    pub fn shrink(&mut self, bytes: u64) {
        let kept = usize::try_from(units(bytes)).unwrap_or(usize::MAX);
        // Dropped, what is split off is free.
        drop(self.0.split(self.0.num_permits().saturating_sub(kept)));
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes / UNIT_BYTES).unwrap_or(u32::MAX).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn no_more_is_handed_out_than_there_is() {
        let budget = Budget::new(10 * UNIT_BYTES);
        let mut first = budget.reserve(8 * UNIT_BYTES).await;
        assert_eq!((budget.held_bytes(), budget.limit_bytes()), (9 * UNIT_BYTES, 10 * UNIT_BYTES));
        let mut second = pin!(budget.reserve(4 * UNIT_BYTES));
        assert!(second.as_mut().now_or_never().is_none());
        first.shrink(2 * UNIT_BYTES);
        let second = second.now_or_never().unwrap();
        drop((first, second));
        // More than there is: everything.
        let all = budget.reserve(u64::MAX).await;
        assert!(budget.reserve(0).now_or_never().is_none());
        drop(all);
        assert!(budget.reserve(0).now_or_never().is_some());
    }
}
