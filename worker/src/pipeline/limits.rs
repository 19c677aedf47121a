//! How many images each stage works on at once, and how much memory they hold.

use std::time::Duration;

use camshaft_decoding::ImageLimits;

/// What each stage does at once. The sum is what the pipeline holds.
#[derive(Clone, Copy, Debug)]
pub struct PipelineLimits {
    /// Images that `fetch` reads at once at first.
    pub fetches: usize,
    /// Images that `decode` works on at once; `render` as well.
    pub cores: usize,
    /// The most images in a batch.
    pub batch: usize,
    /// How long a batch's first image waits for further ones.
    pub batch_wait: Duration,
    /// Images that `store` writes at once at first; `settle` works on as many, and on no more later.
    pub stores: usize,
    /// The most images that `fetch` may come to read at once, and `store` to write.
    pub most_requests: usize,
    /// Bytes of files that are read and not yet decoded, over all stages.
    pub file_bytes: u64,
    /// Bytes of decoded pixels and encoded overlays, over all stages.
    pub pixel_bytes: u64,
    /// The size that one image may have, and how long its decoding may take.
    pub image: ImageLimits,
}

impl PipelineLimits {
    /// How many unsettled deliveries to hold at first: what the stages and the channels behind them
    /// hold, with three batches: one in the model, one ready and one being gathered. With fewer
    /// a stage would have nothing to do; with more, messages would wait here while other
    /// workers have nothing to do.
    #[must_use]
    pub fn prefetch(&self) -> u16 {
        u16::try_from(self.held()).unwrap_or(u16::MAX)
    }

    /// The prefetch once `fetch` and `store` make as many requests as they may.
    #[must_use]
    pub fn max_prefetch(&self) -> u16 {
        // What waits behind them stays the same.
        let more = self.most_requests.saturating_sub(self.fetches)
            + self.most_requests.saturating_sub(self.stores);
        u16::try_from(self.held() + more).unwrap_or(u16::MAX)
    }

    fn held(&self) -> usize {
        // A message that is worked on alone is not counted: its queue has a prefetch of its own.
        2 // admit and its channel
            + 2 * self.fetches
            + 2 * self.cores
            + 3 * self.batch
            + 2 * self.cores
            + 2 * self.stores
            + self.stores // settle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefetch_is_what_the_stages_hold() {
        let limits = PipelineLimits {
            fetches: 8,
            cores: 2,
            batch: 8,
            batch_wait: Duration::ZERO,
            stores: 8,
            most_requests: 256,
            file_bytes: 0,
            pixel_bytes: 0,
            image: ImageLimits::default(),
        };
        assert_eq!(limits.prefetch(), 2 + 16 + 4 + 24 + 4 + 16 + 8);
        assert_eq!(limits.max_prefetch(), limits.prefetch() + 2 * (256 - 8));
        let fixed = PipelineLimits { most_requests: 8, ..limits };
        assert_eq!(fixed.max_prefetch(), fixed.prefetch());
    }
}
