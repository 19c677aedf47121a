//! What a file decides, and which of its images the run has.
//!
//! Upstream: [`answers`](super::answers) and [`lines`](super::lines). Downstream: [`decide`](crate::decide).

use std::collections::HashSet;

use camshaft_decisions::{Decision, MergedDecision};

use crate::terminal::output::format_count;

/// Images that a message names.
const NAMED: usize = 3;

/// What a file decides, and what else is to be said of it.
#[derive(Debug, Default)]
pub(in crate::decide) struct Imported {
    pub(in crate::decide) decisions: Vec<Decision>,
    pub(in crate::decide) notes: Vec<String>,
}

/// Which images of a file the run has.
#[derive(Debug, Default)]
pub(super) struct UnknownImages {
    pub(super) keys: HashSet<String>,
    /// The first of them.
    pub(super) names: Vec<String>,
    /// How often the file says something about an image that the run has.
    pub(super) known: u64,
}

impl UnknownImages {
    pub(super) fn add(&mut self, key: String) {
        if self.names.len() < NAMED && !self.keys.contains(&key) {
            self.names.push(key.clone());
        }
        self.keys.insert(key);
    }

    pub(super) fn is_of_other_run(&self) -> bool {
        self.known == 0 && !self.keys.is_empty()
    }

    pub(super) fn note(&self, path: &str) -> Option<String> {
        let images = format_count(self.keys.len() as u64, "image");
        let names = self.names.join(", ");
        (!self.keys.is_empty()).then(|| {
            format!(
                "{path}: {images} that the run does not have, and not decided about, such as {names}"
            )
        })
    }
}

/// Whether a decision says what is known already.
pub(super) fn is_same(known: &MergedDecision<'_>, decision: &Decision) -> bool {
    *known.choice == decision.choice && known.by == decision.by
}
