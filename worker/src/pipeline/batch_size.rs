//! How many images the model takes at once: a fixed number, or one found by a search.
//!
//! Owns the search behind `--batch auto`. A larger batch keeps a processor busier, up to a size
//! that depends on the device, the network and its precision. Beyond that size a batch only holds
//! more memory, and its first image waits longer. Upstream: the model's thread, which tells how
//! long batches took. Downstream: `batch`, which gathers batches of this size.

use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tracing::info;

/// The batch size that was asked for: `--batch`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchChoice {
    /// The largest batch that still speeds up the device.
    #[default]
    Auto,
    /// This number of images.
    Fixed(u16),
}

/// The largest batch that can be asked for.
const MAX_CHOICE: u16 = 1024;

/// A text that is not a batch size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a batch size; use auto, or a number from 1 to {MAX_CHOICE}")]
pub struct ParseBatchChoiceError(String);

impl FromStr for BatchChoice {
    type Err = ParseBatchChoiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            _ if text == "auto" => Ok(Self::Auto),
            Ok(images) if (1..=MAX_CHOICE).contains(&images) => Ok(Self::Fixed(images)),
            _ => Err(ParseBatchChoiceError(text.to_owned())),
        }
    }
}

/// How many full batches are timed at each size. Their median does not change much if one of them
/// was disturbed.
const TIMED_BATCHES: usize = 9;
/// By default images must be this many times as fast with twice the batch. Smaller gains can't be told
/// from timing errors on a busy machine.
const MIN_SPEEDUP: f64 = 1.05;

/// The present size, and the search for a better one.
#[derive(Debug)]
pub struct BatchSize {
    now: AtomicUsize,
    first: usize,
    max: usize,
    /// A batch of twice the size is worth its memory if images are this many times as fast.
    min_speedup: f64,
    search: Mutex<Search>,
}

#[derive(Debug, Default)]
struct Search {
    settled: bool,
    /// The best size so far.
    best: Option<TimedSize>,
    /// Images per second of the batches at the present size.
    rates: Vec<f64>,
}

#[derive(Clone, Copy, Debug)]
struct TimedSize {
    images: usize,
    images_per_second: f64,
}

impl BatchSize {
    /// Stays at this size, unless the device fails.
    #[must_use]
    pub fn fixed(images: usize) -> Self {
        let settled = Search { settled: true, ..Search::default() };
        Self { search: Mutex::new(settled), ..Self::searched(images, images) }
    }

    /// Starts at `first`, and doubles up to `max` while that makes images faster.
    #[must_use]
    pub fn searched(first: usize, max: usize) -> Self {
        let now = AtomicUsize::new(first);
        Self { now, first, max, min_speedup: MIN_SPEEDUP, search: Mutex::default() }
    }

    /// The same, but doubles if images are `ratio` times as fast.
    #[must_use]
    pub fn if_faster(self, ratio: f64) -> Self {
        Self { min_speedup: ratio, ..self }
    }

    /// How many images to gather now.
    #[must_use]
    pub fn now(&self) -> usize {
        self.now.load(Relaxed)
    }

    /// The size that it began with.
    #[must_use]
    pub fn first(&self) -> usize {
        self.first
    }

    /// The largest size that it may reach.
    #[must_use]
    pub fn max(&self) -> usize {
        self.max
    }

    /// Notes how long the model worked on a batch. A batch that was not full is ignored.
    pub fn observe(&self, images: usize, worked: Duration) {
        let mut search = self.search.lock();
        let now = self.now();
        if search.settled || images != now {
            return;
        }
        search.rates.push(images as f64 / worked.as_secs_f64().max(f64::MIN_POSITIVE));
        if search.rates.len() < TIMED_BATCHES {
            return;
        }
        let rate = median(std::mem::take(&mut search.rates));
        match search.best {
            Some(best) if rate < best.images_per_second * self.min_speedup => {
                search.settle(self, best.images);
            }
            _ if now * 2 > self.max => search.settle(self, now),
            _ => {
                search.best = Some(TimedSize { images: now, images_per_second: rate });
                self.now.store(now * 2, Relaxed);
            }
        }
    }

    /// Notes that the device ran out of memory, or failed, with `images` in the batch.
    pub fn shrink_below(&self, images: usize) {
        let mut search = self.search.lock();
        let fewer = (images / 2).max(1);
        if fewer < self.now() {
            search.settle(self, fewer);
        }
    }
}

impl Search {
    fn settle(&mut self, size: &BatchSize, images: usize) {
        *self = Self { settled: true, ..Self::default() };
        size.now.store(images, Relaxed);
        info!(batch = images, "images in a batch from now on");
    }
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds full batches that take as long as `seconds` says, until the size has settled.
    fn settled(size: &BatchSize, seconds: impl Fn(usize) -> f64) -> usize {
        for _ in 0..TIMED_BATCHES * 12 {
            let now = size.now();
            size.observe(now, Duration::from_secs_f64(seconds(now)));
        }
        size.now()
    }

    #[test]
    fn it_doubles_while_that_makes_images_faster() {
        // A launch takes 10 ms and each image 1 ms. Batches of 8, 16, 32, 64 and 128 images give
        // 444, 615, 762, 865 and 928 images per second; 256 are only 3.7 % faster.
        let launch = |images: usize| 0.010 + 0.001 * images as f64;
        assert_eq!(settled(&BatchSize::searched(8, 1024), launch), 128);
        assert_eq!(settled(&BatchSize::searched(8, 64), launch), 64);
        // A larger batch is no faster.
        assert_eq!(settled(&BatchSize::searched(8, 64), |images| 0.001 * images as f64), 8);
        assert_eq!(settled(&BatchSize::fixed(20), launch), 20);
        // Where a smaller gain counts, 256 are worth it, and 512, 1.9 % faster, are not.
        let size = BatchSize::searched(8, 1024).if_faster(1.02);
        assert_eq!(settled(&size, launch), 256);
        assert_eq!(size.first(), 8);
    }

    #[test]
    fn a_choice_is_auto_or_a_number_in_range() {
        assert_eq!("auto".parse(), Ok(BatchChoice::Auto));
        assert_eq!("16".parse(), Ok(BatchChoice::Fixed(16)));
        for text in ["0", "1025", "-1", "many", ""] {
            let error = text.parse::<BatchChoice>().unwrap_err();
            assert!(error.to_string().contains("use auto, or a number from 1 to 1024"), "{error}");
        }
    }

    #[test]
    fn batches_that_are_not_full_say_nothing() {
        let size = BatchSize::searched(8, 64);
        for _ in 0..100 {
            size.observe(3, Duration::from_secs(1));
        }
        assert_eq!(size.now(), 8);
    }

    #[test]
    fn what_the_device_fails_on_is_halved_for_good() {
        let size = BatchSize::searched(8, 64);
        size.observe(8, Duration::from_secs(1));
        size.shrink_below(8);
        assert_eq!(settled(&size, |_| 0.001), 4);
        // A larger batch failed before, and is noted later.
        size.shrink_below(16);
        assert_eq!(size.now(), 4);
        size.shrink_below(1);
        assert_eq!(size.now(), 1);
        assert_eq!(size.max(), 64);
    }
}
