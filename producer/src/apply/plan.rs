//! What becomes of each image of a run: it is left out, gets another label, or stays as it is.
//!
//! Pure. Upstream: [`run_images`](crate::run_images), and the merged decisions. Downstream: the list or the
//! folder that is written.

use camshaft_common::key::ImageKey;
use camshaft_common::split_names;
use camshaft_decisions::{Choice, MergedDecisions};
use serde::{Deserialize, Serialize};

use crate::run_images::RunImage;

/// The data set that decisions leave, and what they change.
#[derive(Debug)]
pub(super) struct Plan {
    left: Vec<PlannedImage>,
    changes: Vec<Change>,
    counts: PlanCounts,
}

/// An image of the clean data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PlannedImage {
    pub(super) key: ImageKey,
    pub(super) label: Option<String>,
    /// The label that it was given, if that is another.
    pub(super) former_label: Option<String>,
}

impl PlannedImage {
    /// The folder of its key that names a split.
    pub(super) fn split(&self) -> Option<&str> {
        split_names::of_key(self.key.as_str())
    }
}

/// A change of the data set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "lowercase")]
pub(super) enum Change {
    /// An image is left out.
    Drop {
        key: ImageKey,
        /// The label that it had.
        label: Option<String>,
    },
    /// An image has another label.
    Relabel {
        key: ImageKey,
        /// The label that it had.
        label: Option<String>,
        new_label: String,
    },
}

/// A plan in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PlanCounts {
    /// Images of the run.
    pub(super) images: u64,
    pub(super) dropped: u64,
    pub(super) relabelled: u64,
    /// Images that are decided to stay as they are.
    pub(super) kept: u64,
    /// Decisions about images that the run does not have.
    pub(super) foreign: u64,
}

impl Plan {
    pub(super) fn new(images: Vec<RunImage>, decided: &MergedDecisions) -> Self {
        let mut counts = PlanCounts { images: images.len() as u64, ..PlanCounts::default() };
        let (mut left, mut changes) = (Vec::with_capacity(images.len()), Vec::new());
        let mut known = 0;
        for RunImage { key, label } in images {
            let decision = decided.get(&key);
            known += usize::from(decision.is_some());
            let new_label = match decision.map_or(&Choice::Undecided, |decision| decision.choice) {
                Choice::Drop => {
                    counts.dropped += 1;
                    changes.push(Change::Drop { key, label });
                    continue;
                }
                Choice::Relabel(new_label) if label.as_ref() != Some(new_label) => {
                    counts.relabelled += 1;
                    let (key, label) = (key.clone(), label.clone());
                    changes.push(Change::Relabel { key, label, new_label: new_label.clone() });
                    Some(new_label.clone())
                }
                Choice::Keep => {
                    counts.kept += 1;
                    None
                }
                Choice::Relabel(_) | Choice::Undecided => None,
            };
            left.push(match new_label {
                Some(new_label) => {
                    PlannedImage { key, label: Some(new_label), former_label: label }
                }
                None => PlannedImage { key, label, former_label: None },
            });
        }
        counts.foreign = decided.len().saturating_sub(known) as u64;
        Self { left, changes, counts }
    }

    /// The images of the clean data set, in the order of keys.
    pub(super) fn left(&self) -> &[PlannedImage] {
        &self.left
    }

    /// What is changed, in the order of keys.
    pub(super) fn changes(&self) -> &[Change] {
        &self.changes
    }

    pub(super) fn counts(&self) -> PlanCounts {
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use camshaft_decisions::Decision;

    use super::*;

    #[test]
    fn decisions_drop_relabel_and_leave() {
        let mut decided = MergedDecisions::default();
        for (key, fields) in [
            ("train/cat/a", r#""decision":"drop""#),
            ("train/cat/b", r#""decision":"relabel","label":"dog""#),
            ("train/cat/c", r#""decision":"relabel","label":"cat""#),
            ("train/cat/d", r#""decision":"keep""#),
            ("train/cat/e", r#""decision":"undecided""#),
            ("elsewhere", r#""decision":"drop""#),
        ] {
            let line = format!(
                r#"{{"schema":1,"key":"{key}",{fields},"by":"","at":"2026-01-01T00:00:00Z"}}"#
            );
            decided.add(Decision::parse(&line).unwrap());
        }
        let images = ["a", "b", "c", "d", "e", "f"].map(|name| RunImage {
            key: ImageKey::parse(format!("train/cat/{name}")).unwrap(),
            label: Some("cat".to_owned()),
        });
        let plan = Plan::new(images.to_vec(), &decided);
        let counts = PlanCounts { images: 6, dropped: 1, relabelled: 1, kept: 1, foreign: 1 };
        assert_eq!(plan.counts(), counts);
        let left: Vec<_> = plan
            .left()
            .iter()
            .map(|image| (image.key.as_str(), image.label.as_deref(), image.split()))
            .collect();
        let cat = |key| (key, Some("cat"), Some("train"));
        let dog = ("train/cat/b", Some("dog"), Some("train"));
        let expected = ["c", "d", "e", "f"].map(|name| format!("train/cat/{name}"));
        let expected = expected.iter().map(|key| cat(key.as_str()));
        assert_eq!(left, [dog].into_iter().chain(expected).collect::<Vec<_>>());
        assert_eq!(plan.left()[0].former_label.as_deref(), Some("cat"));
        let json = serde_json::to_string(plan.changes()).unwrap();
        assert_eq!(
            json,
            r#"[{"decision":"drop","key":"train/cat/a","label":"cat"},{"decision":"relabel","key":"train/cat/b","label":"cat","new_label":"dog"}]"#
        );
    }
}
