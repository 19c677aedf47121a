//! How many images a worker may hold: those that it does in half of the time for which the broker
//! lets it hold one.
//!
//! A broker takes a message back that is held for longer than its `consumer_timeout`, and delivers it
//! again: the image is done twice, and counted as one that loses its workers. How long an image takes
//! depends on the device and on the job, so it is measured. Owns the limit, and which images go back
//! to the queue because of it. Upstream: the stages that compute, which tell how long they took.
//! Downstream: the queue, whose prefetch follows the limit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::info;

/// Of each stage, the slowest of this many steps counts. One fast image among slow ones then changes
/// nothing.
const REMEMBERED_STEPS: usize = 8;
/// A part of the limit that the prefetch leaves free: one of four. Otherwise it would change with
/// every image that takes a little longer.
const SPARE_PART: usize = 4;
/// The prefetch grows only to this many times what it was: for a change, a worker does all that it
/// holds before it takes more.
const MIN_GROWTH: usize = 2;
/// How long a batch may take, if it has more than one image. A worker that stops can finish one.
const BATCH_TIME: Duration = Duration::from_secs(10);

/// The limit at present.
#[derive(Debug)]
pub struct HoldLimit {
    /// How long an image may be held before the model begins with it, and how long the model may
    /// take for it; `None` without a broker.
    max_time: Option<Duration>,
    state: Mutex<State>,
    prefetch: watch::Sender<u16>,
}

#[derive(Debug)]
struct State {
    /// What the stages hold: more would only wait.
    max: usize,
    /// How long all that is held may take.
    within: Option<Duration>,
    /// The limit is never lower: one, so that a worker goes on whatever an image takes; none, if it
    /// is about to end.
    least: usize,
    /// From then on no image is begun, and the model gives up what it is at.
    gives_up_at: Option<Instant>,
    /// One for each stage that computes.
    stages: Vec<RecentSteps>,
    held: usize,
    /// Taken from the queue, and not gathered into a batch yet.
    coming: usize,
}

/// How long a stage took for the last images.
#[derive(Debug, Default)]
struct RecentSteps {
    times: [Duration; REMEMBERED_STEPS],
    next: usize,
}

impl State {
    /// The time per image of the slowest stage; zero if none was measured.
    fn time_per_image(&self) -> Duration {
        self.stages.iter().flat_map(|stage| stage.times).max().unwrap_or_default()
    }

    /// How many images can be done in time.
    fn limit(&self) -> usize {
        let time = self.time_per_image();
        match self.within {
            Some(within) if !time.is_zero() => {
                let images = within.as_nanos() / time.as_nanos();
                usize::try_from(images).unwrap_or(usize::MAX).max(self.least)
            }
            _ => usize::MAX,
        }
    }

    fn gives_up(&self) -> bool {
        self.gives_up_at.is_some_and(|at| Instant::now() >= at)
    }

    /// True if an image that waits has to go back to the queue.
    fn is_too_much(&self) -> bool {
        self.held > self.limit() || (self.held > 0 && self.gives_up())
    }
}

impl HoldLimit {
    /// For stages that hold up to `max` images. An image may be held for `max_time`, and then takes
    /// the model at most as long again; without it there is no limit but `max`. With it, the first
    /// image is done alone.
    #[must_use]
    pub fn new(max: u16, max_time: Option<Duration>) -> Self {
        let first = if max_time.is_some() { 1 } else { max };
        Self {
            max_time,
            state: Mutex::new(State {
                max: max.into(),
                within: max_time,
                least: 1,
                gives_up_at: None,
                stages: Vec::new(),
                held: 0,
                coming: 0,
            }),
            prefetch: watch::Sender::new(first),
        }
    }

    /// How many images to take from the queue at most.
    #[must_use]
    pub fn prefetch(&self) -> u16 {
        *self.prefetch.borrow()
    }

    /// The prefetch, and its changes.
    #[must_use]
    pub fn prefetch_changes(&self) -> watch::Receiver<u16> {
        self.prefetch.subscribe()
    }

    /// Starts to measure a stage that works on `concurrency` images at once.
    #[must_use]
    pub fn stage(self: &Arc<Self>, concurrency: usize) -> StagePace {
        let mut state = self.state.lock();
        state.stages.push(RecentSteps::default());
        let stage = state.stages.len() - 1;
        let concurrency = u32::try_from(concurrency.max(1)).unwrap_or(u32::MAX);
        StagePace { limit: Arc::clone(self), stage, concurrency }
    }

    /// Counts an image as held. One that is worked on `alone` does not count and never goes back:
    /// the others are not begun before it is done.
    #[must_use]
    pub fn hold(self: &Arc<Self>, received_at: Instant, alone: bool) -> HeldImage {
        let mut state = self.state.lock();
        state.held += usize::from(!alone);
        state.coming += 1;
        HeldImage { limit: Arc::clone(self), received_at, counted: !alone, coming: true }
    }

    /// True if no image is between the queue and the batches: there is nothing to wait for.
    #[must_use]
    pub fn nothing_comes(&self) -> bool {
        self.state.lock().coming == 0
    }

    /// The stages hold this many images more from now on. The prefetch follows when an image is done.
    pub fn hold_more(&self, images: usize) {
        self.state.lock().max += images;
    }

    /// True if more is held than can be done in time.
    #[must_use]
    pub fn is_exceeded(&self) -> bool {
        self.state.lock().is_too_much()
    }

    /// The most images of a batch.
    #[must_use]
    pub fn batch(&self) -> usize {
        let time = self.state.lock().time_per_image();
        if time.is_zero() {
            return usize::MAX;
        }
        usize::try_from(BATCH_TIME.as_nanos() / time.as_nanos()).unwrap_or(usize::MAX).max(1)
    }

    /// The worker takes no further image, and ends after `time`: what can't be done by then goes
    /// back now.
    pub fn finish_within(&self, time: Duration) {
        let mut state = self.state.lock();
        state.within = Some(state.within.map_or(time, |within| within.min(time)));
        state.least = 0;
        drop(state);
        // The prefetch stays; this wakes the stage that hands back.
        self.prefetch.send_modify(|_| {});
    }

    /// As [`Self::finish_within`], and after `time` the model gives up what it is at.
    pub fn give_up_after(&self, time: Duration) {
        self.state.lock().gives_up_at = Instant::now().checked_add(time);
        self.finish_within(time);
    }

    fn note(&self, stage: usize, time_per_image: Duration) {
        let mut state = self.state.lock();
        let RecentSteps { times, next } = &mut state.stages[stage];
        times[*next] = time_per_image;
        *next = (*next + 1) % REMEMBERED_STEPS;
        let (limit, max, time) = (state.limit(), state.max, state.time_per_image());
        drop(state);
        if limit < usize::from(self.prefetch()) {
            self.set_prefetch(with_spare(limit).min(max), time);
        }
    }

    /// Raises the prefetch, if the limit allows. Called when an image is done, since then all
    /// stages are measured that it needs.
    fn note_left(&self, state: &State) {
        let (limit, max, now) = (state.limit(), state.max, usize::from(self.prefetch()));
        if now < max && with_spare(limit) >= max.min(now.saturating_mul(MIN_GROWTH)) {
            self.set_prefetch(with_spare(limit).min(max), state.time_per_image());
        }
    }

    fn set_prefetch(&self, images: usize, time_per_image: Duration) {
        let prefetch = u16::try_from(images.max(1)).unwrap_or(u16::MAX);
        let changed = self.prefetch.send_if_modified(|now| {
            let changed = *now != prefetch;
            *now = prefetch;
            changed
        });
        if changed {
            let seconds_per_image = time_per_image.as_secs_f64();
            info!(prefetch, seconds_per_image, "images to hold from now on");
        }
    }
}

/// What the prefetch takes of a limit.
fn with_spare(limit: usize) -> usize {
    limit - limit / SPARE_PART
}

/// Tells the limit how long a stage takes.
#[derive(Clone, Debug)]
pub struct StagePace {
    limit: Arc<HoldLimit>,
    stage: usize,
    concurrency: u32,
}

impl StagePace {
    /// How long the model may take for one image.
    #[must_use]
    pub fn max_time(&self) -> Option<Duration> {
        self.limit.max_time
    }

    /// True if the model has to give up what it is at: this process is about to end.
    #[must_use]
    pub fn gives_up(&self) -> bool {
        self.limit.state.lock().gives_up()
    }

    /// Notes how long the stage worked on an image.
    pub fn observe(&self, worked: Duration) {
        self.limit.note(self.stage, worked / self.concurrency);
    }
}

/// An image that counts as held, until it is dropped or goes back to the queue.
#[derive(Debug)]
pub struct HeldImage {
    limit: Arc<HoldLimit>,
    received_at: Instant,
    counted: bool,
    coming: bool,
}

impl HeldImage {
    /// The image has come to where batches are gathered.
    pub fn has_come(&mut self) {
        if std::mem::take(&mut self.coming) {
            self.limit.state.lock().coming -= 1;
        }
    }

    /// True if the image has to go back to the queue: more is held than can be done in time, the time
    /// is over, or it has waited for so long that too little time is left for the model. From then on
    /// it does not count any more.
    pub fn has_to_go_back(&mut self) -> bool {
        if !self.counted {
            return false;
        }
        let mut state = self.limit.state.lock();
        let late = self.limit.max_time.is_some_and(|max| self.received_at.elapsed() >= max);
        if !late && !state.is_too_much() {
            return false;
        }
        state.held -= 1;
        self.counted = false;
        true
    }
}

impl Drop for HeldImage {
    fn drop(&mut self) {
        self.has_come();
        if self.counted {
            let mut state = self.limit.state.lock();
            state.held -= 1;
            self.limit.note_left(&state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn limit(max: u16, max_time: Duration) -> Arc<HoldLimit> {
        Arc::new(HoldLimit::new(max, Some(max_time)))
    }

    /// One image passes a stage.
    fn done(limit: &Arc<HoldLimit>, pace: &StagePace, worked: Duration) {
        let image = limit.hold(Instant::now(), false);
        pace.observe(worked);
        drop(image);
    }

    /// How many images have to go back.
    fn go_back(held: &mut [HeldImage]) -> usize {
        held.iter_mut().map(|image| usize::from(image.has_to_go_back())).sum()
    }

    #[test]
    fn the_prefetch_is_what_is_done_in_time_and_never_more_than_the_stages_hold() {
        let limit = limit(74, 15 * MINUTE);
        let model = limit.stage(1);
        assert_eq!(limit.prefetch(), 1);
        // 15 minutes are 23 images of 38 s, and a quarter of them is spare.
        done(&limit, &model, Duration::from_secs(38));
        assert_eq!(limit.prefetch(), 18);
        // A fast image among them changes nothing, and a little slower one neither.
        done(&limit, &model, Duration::from_millis(20));
        done(&limit, &model, Duration::from_secs(45));
        assert_eq!(limit.prefetch(), 18);
        done(&limit, &model, Duration::from_secs(100));
        assert_eq!(limit.prefetch(), 7);
        for _ in 0..REMEMBERED_STEPS {
            done(&limit, &model, Duration::from_millis(20));
        }
        assert_eq!(limit.prefetch(), 74);
        // An image that takes longer than all of the time is held alone, and the next one, too.
        done(&limit, &model, 20 * MINUTE);
        assert_eq!(limit.prefetch(), 1);
        assert!(!limit.hold(Instant::now(), false).has_to_go_back());
    }

    #[test]
    fn the_prefetch_follows_what_the_stages_come_to_hold() {
        let limit = limit(74, 15 * MINUTE);
        let model = limit.stage(1);
        done(&limit, &model, Duration::from_millis(20));
        limit.hold_more(100);
        assert_eq!(limit.prefetch(), 74);
        done(&limit, &model, Duration::from_millis(20));
        assert_eq!(limit.prefetch(), 174);
        // 15 minutes are 150 images of 6 s, and a quarter of them is spare.
        done(&limit, &model, Duration::from_secs(6));
        assert_eq!(limit.prefetch(), 113);
    }

    #[test]
    fn images_that_need_no_stage_raise_the_prefetch() {
        let limit = limit(74, 15 * MINUTE);
        drop(limit.hold(Instant::now(), false));
        assert_eq!(limit.prefetch(), 74);
    }

    #[test]
    fn an_image_comes_until_it_is_gathered_or_left() {
        let limit = limit(74, 15 * MINUTE);
        let (mut image, alone) =
            (limit.hold(Instant::now(), false), limit.hold(Instant::now(), true));
        image.has_come();
        image.has_come();
        assert!(!limit.nothing_comes());
        drop(alone);
        assert!(limit.nothing_comes());
        drop(image);
        assert!(limit.nothing_comes());
    }

    #[test]
    fn without_a_broker_there_is_no_limit() {
        let limit = Arc::new(HoldLimit::new(74, None));
        let model = limit.stage(1);
        let mut image = limit.hold(Instant::now(), false);
        model.observe(100 * MINUTE);
        assert!(!image.has_to_go_back() && !limit.is_exceeded());
        assert_eq!((limit.prefetch(), model.max_time()), (74, None));
    }

    #[test]
    fn what_is_too_much_goes_back_and_no_more_than_that() {
        let limit = limit(74, 10 * MINUTE);
        let model = limit.stage(1);
        let mut changes = limit.prefetch_changes();
        let mut held: Vec<_> = (0..20).map(|_| limit.hold(Instant::now(), false)).collect();
        let mut suspect = limit.hold(Instant::now(), true);
        assert!(!limit.is_exceeded());
        model.observe(MINUTE);
        assert!(limit.is_exceeded() && !suspect.has_to_go_back());
        assert_eq!(go_back(&mut held), 10);
        assert!(!limit.is_exceeded());
        // The worker ends in three minutes, and then at once.
        changes.mark_unchanged();
        limit.finish_within(3 * MINUTE);
        assert!(changes.has_changed().unwrap());
        assert_eq!(go_back(&mut held), 7);
        limit.finish_within(Duration::ZERO);
        assert_eq!(go_back(&mut held), 3);
    }

    #[test]
    fn after_its_time_the_model_gives_up_and_what_waits_goes_back() {
        let limit = Arc::new(HoldLimit::new(74, None));
        let model = limit.stage(1);
        let mut held: Vec<_> = (0..3).map(|_| limit.hold(Instant::now(), false)).collect();
        // How long an image takes is not known yet.
        limit.give_up_after(MINUTE);
        assert!(!model.gives_up() && !limit.is_exceeded());
        model.observe(MINUTE / 2);
        assert_eq!(go_back(&mut held), 1);
        limit.give_up_after(Duration::ZERO);
        assert!(model.gives_up() && limit.is_exceeded());
        assert_eq!(go_back(&mut held), 2);
        assert!(!limit.is_exceeded());
    }

    #[test]
    fn an_image_that_waited_for_too_long_goes_back() {
        let limit = limit(74, 10 * MINUTE);
        let Some(long_ago) = Instant::now().checked_sub(11 * MINUTE) else { return };
        assert!(limit.hold(long_ago, false).has_to_go_back());
        assert!(!limit.hold(long_ago, true).has_to_go_back());
        assert!(!limit.hold(Instant::now(), false).has_to_go_back());
    }

    #[test]
    fn a_batch_of_slow_images_is_small() {
        let limit = limit(74, 15 * MINUTE);
        let (decode, model) = (limit.stage(2), limit.stage(1));
        assert_eq!(limit.batch(), usize::MAX);
        model.observe(Duration::from_secs(2));
        assert_eq!(limit.batch(), 5);
        decode.observe(Duration::from_secs(10));
        assert_eq!(limit.batch(), 2);
        model.observe(MINUTE);
        assert_eq!(limit.batch(), 1);
    }
}
