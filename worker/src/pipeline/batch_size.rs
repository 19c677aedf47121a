//! How many images the model takes at once: so many, or as many as are worth it.
//!
//! Owns the search behind `--batch auto`. A larger batch keeps a processor busier, up to a size
//! that depends on the device, the network and its precision; past it a batch only holds more
//! memory and lets the first image wait longer. Upstream: the model thread, which tells how long
//! batches took. Downstream: `batch`, which gathers so many.

use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tracing::info;

/// The size asked for: `--batch`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchChoice {
    /// As many as the device is faster with.
    #[default]
    Auto,
    /// So many.
    Fixed(u16),
}

/// The most that can be asked for.
const MOST: u16 = 1024;

/// A text that is no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a batch size; use auto, or a number from 1 to {MOST}")]
pub struct ParseBatchChoiceError(String);

impl FromStr for BatchChoice {
    type Err = ParseBatchChoiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            _ if text == "auto" => Ok(Self::Auto),
            Ok(images) if (1..=MOST).contains(&images) => Ok(Self::Fixed(images)),
            _ => Err(ParseBatchChoiceError(text.to_owned())),
        }
    }
}

/// Full batches timed at each size. The median of so few is not moved by one that was disturbed.
const BATCHES: usize = 9;
/// Twice the images are worth their memory if they come so many times as fast. Below it lies
/// what timing in a busy machine gets wrong.
const WORTH_IT: f64 = 1.05;

/// The present size, and the search for a better one.
#[derive(Debug)]
pub struct BatchSize {
    now: AtomicUsize,
    most: usize,
    search: Mutex<Search>,
}

#[derive(Debug, Default)]
struct Search {
    settled: bool,
    /// The best size so far, and its images a second.
    best: Option<(usize, f64)>,
    /// Images a second of the batches at the present size.
    rates: Vec<f64>,
}

impl BatchSize {
    /// Always so many.
    #[must_use]
    pub fn fixed(images: usize) -> Self {
        let search = Mutex::new(Search { settled: true, ..Search::default() });
        Self { now: AtomicUsize::new(images), most: images, search }
    }

    /// Starts at `first` and doubles while that is worth it, up to `most`.
    #[must_use]
    pub fn searched(first: usize, most: usize) -> Self {
        Self { now: AtomicUsize::new(first), most, search: Mutex::default() }
    }

    /// Images to gather now.
    #[must_use]
    pub fn now(&self) -> usize {
        self.now.load(Relaxed)
    }

    /// Images it may come to.
    #[must_use]
    pub fn most(&self) -> usize {
        self.most
    }

    /// A batch took so long. One that was not full says nothing.
    pub fn observe(&self, images: usize, worked: Duration) {
        let mut search = self.search.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.now();
        if search.settled || images != now {
            return;
        }
        search.rates.push(images as f64 / worked.as_secs_f64().max(f64::MIN_POSITIVE));
        if search.rates.len() < BATCHES {
            return;
        }
        let rate = median(std::mem::take(&mut search.rates));
        match search.best {
            Some((best, rate_there)) if rate < rate_there * WORTH_IT => search.settle(self, best),
            _ if now * 2 > self.most => search.settle(self, now),
            _ => {
                search.best = Some((now, rate));
                self.now.store(now * 2, Relaxed);
            }
        }
    }

    /// The device failed on so many, as it does where its memory doesn't reach.
    pub fn shrink_below(&self, images: usize) {
        let mut search = self.search.lock().unwrap_or_else(PoisonError::into_inner);
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
        for _ in 0..BATCHES * 12 {
            let now = size.now();
            size.observe(now, Duration::from_secs_f64(seconds(now)));
        }
        size.now()
    }

    #[test]
    fn it_doubles_while_that_is_worth_it() {
        // A launch of 10 ms, then 1 ms an image: 8, 16, 32, 64 and 128 images come at
        // 444, 615, 762, 865 and 928 a second, 256 only 3.7 % faster.
        let launch = |images: usize| 0.010 + 0.001 * images as f64;
        assert_eq!(settled(&BatchSize::searched(8, 1024), launch), 128);
        assert_eq!(settled(&BatchSize::searched(8, 64), launch), 64);
        // Nothing is gained.
        assert_eq!(settled(&BatchSize::searched(8, 64), |images| 0.001 * images as f64), 8);
        assert_eq!(settled(&BatchSize::fixed(20), launch), 20);
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
        // A smaller part of the same batch, told later.
        size.shrink_below(16);
        assert_eq!(size.now(), 4);
        size.shrink_below(1);
        assert_eq!(size.now(), 1);
        assert_eq!(size.most(), 64);
    }
}
