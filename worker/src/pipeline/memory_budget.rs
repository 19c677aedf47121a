//! Limits the memory that images in the pipeline hold, in bytes, over all stages together.
//!
//! Also knows what is lost of it: to decoders that were given up and hold it for as long as they run.

use std::pin::pin;
use std::sync::{Arc, Weak};

use camshaft_arguments::size::format_bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::waiting;

/// Memory is counted in KiB: a semaphore holds fewer permits than a large budget has bytes.
const UNIT_BYTES: u64 = 1024;

/// A number of bytes that images may hold. Requests are served in the order they are made.
#[derive(Debug)]
pub struct MemoryBudget {
    units: u32,
    free: Arc<Semaphore>,
    lost: Mutex<Vec<Loss>>,
    lost_more: Notify,
}

/// Memory that a decoder holds that was given up.
#[derive(Debug)]
struct Loss {
    /// Dropped when the decoder ends after all.
    running: Weak<()>,
    units: u32,
}

/// What decoders hold that were given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostDecoders {
    /// Their number.
    pub decoders: usize,
    /// Bytes that they hold.
    pub bytes: u64,
    /// Bytes of the whole budget.
    pub limit_bytes: u64,
}

impl LostDecoders {
    /// What to tell the user if more than half of the `cores` or of the memory are lost. The process
    /// then can't go on for long.
    #[must_use]
    pub fn problem(&self, cores: usize) -> Option<String> {
        let Self { decoders, bytes, limit_bytes } = *self;
        (2 * decoders > cores || 2 * bytes > limit_bytes).then(|| {
            format!(
                "{decoders} decoders have not come back, and hold {} of {}; the files that they work on \
                 have failed as undecodable; please report them, for that is a bug",
                format_bytes(bytes),
                format_bytes(limit_bytes),
            )
        })
    }
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
        let free = Arc::new(Semaphore::new(permits));
        Self { units, free, lost: Mutex::default(), lost_more: Notify::new() }
    }

    /// Waits until `bytes` are free, and takes them. A request for more than the whole budget, or
    /// than what is left of it, waits for all of that, and is then the only one.
    pub async fn reserve(&self, bytes: u64) -> ImageMemoryPermit {
        let take = async {
            loop {
                // Before the look at what is lost, so that no loss is missed.
                let mut lost_more = pin!(self.lost_more.notified());
                lost_more.as_mut().enable();
                let (_, lost) = self.count_lost();
                let there = self.units.saturating_sub(lost).max(1);
                let turn = Arc::clone(&self.free).acquire_many_owned(units(bytes).min(there));
                tokio::select! {
                    biased;
                    permit = turn => return permit,
                    () = lost_more => {}
                }
            }
        };
        let permit = waiting::wait_for_turn(take).await;
        ImageMemoryPermit(permit.expect("the semaphore is never closed"))
    }

    /// Counts `bytes` as lost for as long as the decoder that holds them keeps `running`.
    pub fn lose(&self, running: &Arc<()>, bytes: u64) {
        let units = if bytes == 0 { 0 } else { units(bytes).min(self.units) };
        self.lost.lock().push(Loss { running: Arc::downgrade(running), units });
        self.lost_more.notify_waiters();
    }

    /// What is lost now.
    #[must_use]
    pub fn lost(&self) -> LostDecoders {
        let (decoders, units) = self.count_lost();
        let bytes = u64::from(units) * UNIT_BYTES;
        LostDecoders { decoders, bytes, limit_bytes: self.limit_bytes() }
    }

    /// Lost decoders, and the units that they hold.
    fn count_lost(&self) -> (usize, u32) {
        let mut lost = self.lost.lock();
        lost.retain(|loss| loss.running.strong_count() > 0);
        (lost.len(), lost.iter().fold(0, |sum, loss| sum.saturating_add(loss.units)))
    }

    /// Bytes of the whole budget.
    #[must_use]
    pub fn limit_bytes(&self) -> u64 {
        u64::from(self.units) * UNIT_BYTES
    }

    /// How much is in use now.
    #[must_use]
    pub fn usage(&self) -> BudgetUse {
        let limit_bytes = self.limit_bytes();
        let free_bytes = self.free.available_permits() as u64 * UNIT_BYTES;
        BudgetUse { held_bytes: limit_bytes.saturating_sub(free_bytes), limit_bytes }
    }
}

impl ImageMemoryPermit {
    /// Gives `bytes` back.
    pub fn give_back(&mut self, bytes: u64) {
        let given = usize::try_from(bytes / UNIT_BYTES).unwrap_or(usize::MAX);
        drop(self.0.split(given.min(self.0.num_permits())));
    }

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
    #[tokio::test]
    async fn what_is_lost_blocks_nobody_and_counts_until_it_comes_back() {
        let budget = MemoryBudget::new(10 * UNIT_BYTES);
        let held = budget.reserve(3 * UNIT_BYTES).await;
        // It waits for all of the budget.
        let mut all = pin!(budget.reserve(100 * UNIT_BYTES));
        assert!(all.as_mut().now_or_never().is_none());
        let running = Arc::new(());
        budget.lose(&running, 3 * UNIT_BYTES);
        let all = all.now_or_never().expect("what is left is free");
        let lost = budget.lost();
        assert_eq!((lost.decoders, lost.bytes), (1, 4 * UNIT_BYTES));
        assert_eq!((lost.problem(1).is_some(), lost.problem(4)), (true, None));
        drop(all);
        drop((held, running));
        assert_eq!(budget.lost().decoders, 0);
        assert!(budget.reserve(100 * UNIT_BYTES).now_or_never().is_some());
    }
}
