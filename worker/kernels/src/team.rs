//! Threads that share the steps of a forward pass, so that a batch of fewer images than threads
//! uses all threads. Does not know what a step computes.

use std::ops::Range;

/// Most members of a team. Each member needs a pixel of its own for discarded results, and with
/// more members a step gets too short to divide.
pub(crate) const MAX_MEMBERS: usize = 16;

/// One member's part of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WorkPart {
    pub(crate) index: usize,
    /// Parts of the step.
    pub(crate) parts: usize,
}

impl WorkPart {
    /// A step that is not divided.
    pub(crate) const WHOLE: Self = Self { index: 0, parts: 1 };

    /// This part of `count` items. All parts together cover each item once, as evenly as
    /// possible.
    pub(crate) fn range(self, count: usize) -> Range<usize> {
        self.index * count / self.parts..(self.index + 1) * count / self.parts
    }
}

/// A number of the pool's threads, the calling thread among them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Team {
    members: usize,
}

impl Team {
    /// A team of `members`, but at least 1 and at most [`MAX_MEMBERS`].
    pub(crate) fn of(members: usize) -> Self {
        Self { members: members.clamp(1, MAX_MEMBERS) }
    }

    pub(crate) fn members(self) -> usize {
        self.members
    }

    /// Runs `task` once for each part and waits for all of them. Parts run at the same time if
    /// threads are free.
    pub(crate) fn run(self, task: &(impl Fn(WorkPart) + Sync)) {
        if self.members == 1 {
            return task(WorkPart::WHOLE);
        }
        rayon::scope(|scope| {
            for index in 1..self.members {
                scope.spawn(move |_| task(WorkPart { index, parts: self.members }));
            }
            task(WorkPart { index: 0, parts: self.members });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_everything_once() {
        for parts in 1..7 {
            for count in 0..20 {
                let covered = (0..parts).flat_map(|index| WorkPart { index, parts }.range(count));
                assert!(covered.eq(0..count));
            }
        }
    }
}
