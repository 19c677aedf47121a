//! How many requests a stage should make to a store at once, by what it measures.
//!
//! A stage that asks a store keeps up if it has as many requests under way as come due while one is
//! answered: images per second × seconds an answer takes. Owns that decision, and no clock and no
//! request: observations in, a number out. It only grows, because each change of what a worker may
//! hold costs it a pause (see [`hold_limit`](super::hold_limit)). Upstream: the times of a stage.
//! Downstream: [`request_gate`](super::request_gate).

use std::time::{Duration, Instant};

/// This many times as many requests as are under way on average: answers take now more, now less.
const SPARE: f64 = 1.5;
/// The number grows at least to this many times what it was, so that it changes seldom.
const MIN_GROWTH: usize = 2;
/// A decision is made on a window of this time, at least …
const WINDOW: Duration = Duration::from_secs(1);
/// … and of this many answers for each request at once. A wait that all of them have in common, for
/// instance for a model, is then a quarter of the answers, and does not count: their median does.
const ANSWERS_A_REQUEST: usize = 4;
/// Growth helped if images come this many times as fast since. A store that is at its limit, or a full
/// network, only answers later if it is asked for more at once.
const HELPED: f64 = 1.2;
/// If images come only this many times as fast as before the last growth, something has changed, and
/// what was learnt of it no longer counts.
const CHANGED: f64 = 0.8;

/// The number of requests at once, and what is measured.
#[derive(Debug)]
pub(super) struct RequestPace {
    now: usize,
    most: usize,
    window: Option<Window>,
    /// Images per second when the number last grew.
    rate_before: Option<f64>,
}

/// Answers since the end of the window before.
#[derive(Debug)]
struct Window {
    since: Instant,
    took: Vec<Duration>,
}

impl RequestPace {
    /// Begins with `first` requests at once, and grows up to `most`.
    pub(super) fn new(first: usize, most: usize) -> Self {
        Self { now: first.max(1), most, window: None, rate_before: None }
    }

    /// The number of requests at once.
    pub(super) fn now(&self) -> usize {
        self.now
    }

    /// Notes that an image was done at the moment `at`, after its requests took this long. Returns
    /// the number of requests at once from then on, if it grows.
    pub(super) fn observe(&mut self, at: Instant, took: Duration) -> Option<usize> {
        if self.now >= self.most {
            return None;
        }
        // The first image only opens a window: since when the stage worked is not known.
        let window = self.window.get_or_insert(Window { since: at, took: Vec::new() });
        let elapsed = at.saturating_duration_since(window.since);
        if !elapsed.is_zero() {
            window.took.push(took);
        }
        if elapsed < WINDOW || window.took.len() < ANSWERS_A_REQUEST * self.now {
            return None;
        }
        let rate = window.took.len() as f64 / elapsed.as_secs_f64();
        let seconds = median(&mut window.took).as_secs_f64();
        self.window = Some(Window { since: at, took: Vec::new() });
        self.decide(rate, seconds)
    }

    fn decide(&mut self, rate: f64, seconds: f64) -> Option<usize> {
        let wanted = (rate * seconds * SPARE).ceil() as usize;
        let has_room = |before: f64| rate >= before * HELPED || rate < before * CHANGED;
        if wanted <= self.now || !self.rate_before.is_none_or(has_room) {
            return None;
        }
        self.rate_before = Some(rate);
        self.now = wanted.max(MIN_GROWTH * self.now).min(self.most);
        Some(self.now)
    }
}

fn median(times: &mut [Duration]) -> Duration {
    let middle = times.len() / 2;
    *times.select_nth_unstable(middle).1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stage between a store and a model.
    struct Simulation {
        pace: RequestPace,
        now: Instant,
        /// Images per second that the model does.
        model: f64,
    }

    impl Simulation {
        fn new(model: f64) -> Self {
            Self { pace: RequestPace::new(8, 256), now: Instant::now(), model }
        }

        /// Works for this long with a store that answers after `seconds(requests at once)`.
        fn run(&mut self, time: Duration, seconds: impl Fn(f64) -> f64) -> usize {
            let end = self.now + time;
            while self.now < end {
                let requests = self.pace.now as f64;
                let took = seconds(requests);
                let rate = self.model.min(requests / took);
                self.now += Duration::from_secs_f64(1.0 / rate);
                let grown = self.pace.observe(self.now, Duration::from_secs_f64(took));
                assert!(grown.is_none_or(|grown| grown as f64 > requests));
            }
            self.pace.now
        }
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_small_cpu_stays_at_the_first_number() {
        // 90 images a second × 40 ms: three or four are under way.
        assert_eq!(Simulation::new(90.0).run(MINUTE, |_| 0.040), 8);
    }

    #[test]
    fn requests_follow_the_rate_and_the_answers() {
        // 2000 images a second × 40 ms: 80 are under way, and half as many more are spare.
        assert_eq!(Simulation::new(2000.0).run(MINUTE, |_| 0.040), 128);
        assert_eq!(Simulation::new(300.0).run(MINUTE, |_| 0.040), 32);
        // More than there may be.
        assert_eq!(Simulation::new(20_000.0).run(MINUTE, |_| 0.200), 256);
    }

    #[test]
    fn a_store_at_its_limit_is_not_asked_for_more_and_more() {
        // It gives 150 images a second, however many are asked for at once.
        assert_eq!(Simulation::new(2000.0).run(10 * MINUTE, |requests| requests / 150.0), 16);
    }

    #[test]
    fn a_store_that_answers_later_than_it_did_is_asked_for_more() {
        let mut simulation = Simulation::new(150.0);
        assert_eq!(simulation.run(MINUTE, |_| 0.040), 16);
        // 30 are under way.
        let requests = simulation.run(MINUTE, |_| 0.200);
        assert!((45..=96).contains(&requests), "{requests} at once");
    }

    #[test]
    fn waiting_once_for_a_model_changes_nothing() {
        let mut pace = RequestPace::new(8, 256);
        let started = Instant::now();
        let waited = Duration::from_secs(5);
        for image in 0..8 {
            let at = started + waited + Duration::from_millis(image);
            assert_eq!(pace.observe(at, waited), None);
        }
        for image in 0..1000 {
            let at = started + waited + Duration::from_millis(10 * (image + 1));
            assert_eq!(pace.observe(at, Duration::from_millis(5)), None);
        }
    }
}
