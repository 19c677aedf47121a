//! Steps of a pass shared out among threads: how a batch of fewer images than threads uses them
//! all. What a step does is not known here.

use std::ops::Range;

/// Members at most: each needs a place of its own for what is thrown away, and steps get too
/// short to share out.
pub(crate) const LARGEST_TEAM: usize = 16;

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

/// So many threads of the pool, this one among them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Team {
    members: usize,
}

impl Team {
    /// Of as many as asked for, within bounds.
    pub(crate) fn of(members: usize) -> Self {
        Self { members: members.clamp(1, LARGEST_TEAM) }
    }

    pub(crate) fn members(self) -> usize {
        self.members
    }

    /// Runs `task` once for each part, at the same time as far as threads are free, and waits
    /// for all of them.
    pub(crate) fn run(self, task: &(impl Fn(Part) + Sync)) {
        if self.members == 1 {
            return task(Part::WHOLE);
        }
        rayon::scope(|scope| {
            for index in 1..self.members {
                scope.spawn(move |_| task(Part { index, of: self.members }));
            }
            task(Part { index: 0, of: self.members });
        });
    }
}

#[cfg(test)]
mod tests {
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
}
