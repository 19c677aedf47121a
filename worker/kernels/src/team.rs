//! Threads that go through the network together, step by step: how a batch of fewer images
//! than threads uses them all. What a step does is not known here.

use std::cell::UnsafeCell;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Members at most: each needs a place of its own for what is thrown away, and steps get too
/// short to share out.
pub(crate) const LARGEST_TEAM: usize = 16;

/// Looks at the clock of steps before a waiting thread lets others have the core: some tens of
/// microseconds, longer than the others usually take to finish a step.
const SPINS: usize = 10_000;

/// One member's part of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) index: usize,
    pub(crate) of: usize,
}

impl Part {
    pub(crate) const WHOLE: Self = Self { index: 0, of: 1 };

    /// This part of `count` things, which the parts cover once and as evenly as can be.
    pub(crate) fn range(self, count: usize) -> Range<usize> {
        self.index * count / self.of..(self.index + 1) * count / self.of
    }
}

type Task<'a> = dyn Fn(Part) + Sync + 'a;

/// The leader's view of its team.
pub(crate) struct Team {
    members: usize,
    /// The step's task; none before the first. Written by the leader while no member works.
    task: UnsafeCell<Option<*const Task<'static>>>,
    /// Counts steps begun.
    step: AtomicUsize,
    /// Members still at work on this step.
    working: AtomicUsize,
    /// There are no more steps.
    over: AtomicBool,
}

// SAFETY: `task` is written before `step` is raised (release) and read after that was seen
// (acquire); it is written again only once `working` is back at zero.
unsafe impl Sync for Team {}

impl Team {
    /// Runs `lead` on this thread with a team of `members`, this thread among them. Each
    /// member holds what `prepare` makes on its own thread.
    pub(crate) fn lead<H, R>(
        members: usize,
        prepare: impl Fn() -> H + Sync,
        lead: impl FnOnce(&Self) -> R,
    ) -> R {
        let team = Self {
            members: members.clamp(1, LARGEST_TEAM),
            task: UnsafeCell::new(None),
            step: AtomicUsize::new(0),
            working: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        };
        std::thread::scope(|scope| {
            let (team, prepare) = (&team, &prepare);
            for index in 1..team.members {
                scope.spawn(move || {
                    let held = prepare();
                    team.follow(index);
                    drop(held);
                });
            }
            let _held = prepare();
            let _end = End(team);
            lead(team)
        })
    }

    /// Runs `task` once for each part, on the team's threads, and waits for all of them.
    pub(crate) fn run(&self, task: &Task<'_>) {
        if self.members == 1 {
            return task(Part::WHOLE);
        }
        // SAFETY: only the lifetime changes. Members use it during this step, which this
        // function outlasts, panics included.
        let task = unsafe { std::mem::transmute::<*const Task<'_>, *const Task<'static>>(task) };
        // SAFETY: no member reads it before `step` is raised.
        unsafe { *self.task.get() = Some(task) };
        self.working.store(self.members - 1, Ordering::Relaxed);
        self.step.fetch_add(1, Ordering::Release);
        let _wait = Wait(&self.working);
        // SAFETY: it came from a reference that lives as long as this call.
        unsafe { (*task)(Part { index: 0, of: self.members }) };
    }

    fn follow(&self, index: usize) {
        let mut seen = 0;
        loop {
            wait_until(|| self.step.load(Ordering::Acquire) != seen);
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            seen += 1;
            let _done = Done(&self.working);
            // SAFETY: written before `step` was raised; the leader waits for `_done` before it
            // writes the next or lets go of what the task borrows.
            unsafe {
                let task = (*self.task.get()).expect("a step has a task");
                (*task)(Part { index, of: self.members });
            }
        }
    }
}

fn wait_until(ready: impl Fn() -> bool) {
    for spin in 0.. {
        if ready() {
            return;
        }
        if spin < SPINS {
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
}

/// Sends the members home, however the leader ends.
struct End<'a>(&'a Team);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
        self.0.step.fetch_add(1, Ordering::Release);
    }
}

/// A member has finished its part, or panicked in it; its thread's scope then passes that on.
struct Done<'a>(&'a AtomicUsize);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// Waits until no member works.
struct Wait<'a>(&'a AtomicUsize);

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        wait_until(|| self.0.load(Ordering::Acquire) == 0);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn parts_cover_everything_once() {
        for of in 1..7 {
            for count in 0..20 {
                let parts = (0..of).flat_map(|index| Part { index, of }.range(count));
                assert!(parts.eq(0..count));
            }
        }
    }

    #[test]
    fn every_member_does_its_part_of_every_step() {
        for members in [1, 2, 5, 16] {
            let seen = Mutex::new(Vec::new());
            let steps = Team::lead(
                members,
                || (),
                |team| {
                    for step in 0..50 {
                        team.run(&|part| seen.lock().unwrap().push((step, part.index)));
                        assert_eq!(seen.lock().unwrap().len(), (step + 1) * members);
                    }
                    50
                },
            );
            let mut seen = seen.into_inner().unwrap();
            seen.sort_unstable();
            let all = (0..steps).flat_map(|step| (0..members).map(move |part| (step, part)));
            assert!(seen.into_iter().eq(all));
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_leaves_nobody_waiting() {
        for bad in [0, 2] {
            let result = std::panic::catch_unwind(|| {
                Team::lead(3, || (), |team| team.run(&|part| assert_ne!(part.index, bad)));
            });
            assert!(result.is_err());
        }
    }
}
