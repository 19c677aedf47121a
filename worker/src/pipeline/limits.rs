//! How many images each stage works on at once, and how much memory they hold.

use std::time::Duration;

use camshaft_decoding::ImageLimits;

/// What each stage does at once. The sum is what the pipeline holds.
#[derive(Clone, Copy, Debug)]
pub struct PipelineLimits {
    /// Images that `fetch` reads at once.
    pub fetches: usize,
    /// Images that `decode` works on at once; `render` as well.
    pub cores: usize,
    /// The most images in a batch.
    pub batch: usize,
    /// How long a batch's first image waits for further ones.
    pub batch_wait: Duration,
    /// Images that `store` writes at once; `settle` works on as many.
    pub stores: usize,
    /// Bytes of files that are read and not yet decoded, over all stages.
    pub file_bytes: u64,
    /// Bytes of decoded pixels and encoded overlays, over all stages.
    pub pixel_bytes: u64,
    /// The size that one image may have, and how long its decoding may take.
    pub image: ImageLimits,
}

impl PipelineLimits {
    /// How many unsettled deliveries to hold: what the stages and the channels behind them
    /// hold, with three batches: one in the model, one ready and one being gathered. With fewer
    /// a stage would have nothing to do; with more, messages would wait here while other
    /// workers have nothing to do.
    #[must_use]
    pub fn prefetch(&self) -> u16 {
        // A message that is worked on alone is not counted: its queue has a prefetch of its own.
        let held = 2 // admit and its channel
            + 2 * self.fetches
            + 2 * self.cores
            + 3 * self.batch
            + 2 * self.cores
            + 2 * self.stores
            + self.stores; // settle
        u16::try_from(held).unwrap_or(u16::MAX)
    }
}
