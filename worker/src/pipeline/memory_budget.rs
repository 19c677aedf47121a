//! Limits the memory that images in the pipeline hold, in bytes, over all stages together.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::waiting;

/// Memory is counted in KiB: a semaphore holds fewer permits than a large budget has bytes.
const UNIT_BYTES: u64 = 1024;

/// A number of bytes that images may hold. Requests are served in the order they are made.
#[derive(Debug)]
pub struct MemoryBudget {
    units: u32,
    free: Arc<Semaphore>,
}

/// How much of a [`MemoryBudget`] is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetUse {
    /// Bytes that images hold now.
    pub held_bytes: u64,
    /// Bytes that images may hold.
    pub limit_bytes: u64,
}

/// The right to hold memory for one image. Its bytes return to the budget when it is dropped.
#[derive(Debug)]
#[must_use = "dropping a permit gives its bytes back"]
pub struct ImageMemoryPermit(OwnedSemaphorePermit);

impl MemoryBudget {
    /// A budget of which nothing is held yet.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let units = u32::try_from(bytes / UNIT_BYTES).unwrap_or(u32::MAX).max(1);
        let permits = usize::try_from(units).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { units, free: Arc::new(Semaphore::new(permits)) }
    }

    /// Waits until `bytes` are free, and takes them. A request for more than the whole budget
    /// waits for all of it, and is then the only one.
    pub async fn reserve(&self, bytes: u64) -> ImageMemoryPermit {
        let wanted = units(bytes).min(self.units);
        let turn = Arc::clone(&self.free).acquire_many_owned(wanted);
        let permit = waiting::wait_for_turn(turn).await;
        ImageMemoryPermit(permit.expect("the semaphore is never closed"))
    }

    /// How much is in use now.
    #[must_use]
    pub fn usage(&self) -> BudgetUse {
        let limit_bytes = u64::from(self.units) * UNIT_BYTES;
        let free_bytes = self.free.available_permits() as u64 * UNIT_BYTES;
        BudgetUse { held_bytes: limit_bytes.saturating_sub(free_bytes), limit_bytes }
    }
}

impl ImageMemoryPermit {
    /// Keeps at most `bytes`, and gives the rest back.
    pub fn shrink(&mut self, bytes: u64) {
        let kept = usize::try_from(units(bytes)).unwrap_or(usize::MAX);
        // The part that is split off is dropped, and so is free again.
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
        let budget = MemoryBudget::new(10 * UNIT_BYTES);
        let mut first = budget.reserve(8 * UNIT_BYTES).await;
        let (held_bytes, limit_bytes) = (9 * UNIT_BYTES, 10 * UNIT_BYTES);
        assert_eq!(budget.usage(), BudgetUse { held_bytes, limit_bytes });
        let mut second = pin!(budget.reserve(4 * UNIT_BYTES));
        assert!(second.as_mut().now_or_never().is_none());
        first.shrink(2 * UNIT_BYTES);
        let second = second.now_or_never().unwrap();
        drop((first, second));
        // A request for more than there is takes everything.
        let all = budget.reserve(u64::MAX).await;
        assert!(budget.reserve(0).now_or_never().is_none());
        drop(all);
        assert!(budget.reserve(0).now_or_never().is_some());
    }
}
