//! Lines of decisions, as decisions of this run.
//!
//! Upstream: `decisions.jsonl`. Downstream: [`import`](super).

use std::collections::{HashMap, HashSet};

use camshaft_common::key::ImageKey;
use camshaft_decisions::{Decision, MergedDecisions};

use super::imported::{Imported, UnknownImages, is_same};
use super::run_facts::RunFacts;
use crate::terminal::output::format_count;

/// The decisions of a file of lines that change something, each once. An image whose last decision stays what
/// it is gets none: the same file again changes nothing.
pub(super) fn new_lines(
    path: &str,
    decisions: Vec<Decision>,
    facts: &RunFacts,
    decided: &MergedDecisions,
) -> (Imported, UnknownImages) {
    let mut unknown = UnknownImages::default();
    let mut known = Vec::with_capacity(decisions.len());
    for decision in decisions {
        if facts.given.contains_key(&decision.key) {
            known.push(decision);
        } else {
            unknown.add(decision.key.as_str().to_owned());
        }
    }
    unknown.known = known.len() as u64;
    let decisions = each_once(known);
    let mut last: HashMap<&ImageKey, &Decision> = HashMap::new();
    for decision in &decisions {
        if last.get(&decision.key).is_none_or(|before| before.at <= decision.at) {
            last.insert(&decision.key, decision);
        }
    }
    let stays = |decision: &&Decision| {
        decided.last(&decision.key).is_some_and(|known| {
            known.at > decision.at || (is_same(&known, decision) && known.at == decision.at)
        })
    };
    let stay: HashSet<ImageKey> =
        last.into_values().filter(stays).map(|decision| decision.key.clone()).collect();
    let notes = if stay.is_empty() {
        Vec::new()
    } else {
        vec![format!(
            "{path}: {} had this decision already, or a later one",
            format_count(stay.len() as u64, "image")
        )]
    };
    let is_new = |decision: &Decision| !stay.contains(&decision.key);
    let decisions = decisions.into_iter().filter(is_new).collect();
    (Imported { decisions, notes }, unknown)
}

/// Of equal decisions the last one: of those about an image at the same time, the last counts.
fn each_once(decisions: Vec<Decision>) -> Vec<Decision> {
    let mut seen = HashSet::new();
    let mut is_last: Vec<bool> = decisions
        .iter()
        .rev()
        .map(|Decision { key, choice, by, at, .. }| seen.insert((key, choice, by, at)))
        .collect();
    decisions.into_iter().filter(|_| is_last.pop().unwrap_or(true)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::run_facts::tests::facts;
    use super::*;

    fn line(key: &str, decision: &str, second: u64) -> Decision {
        let line = format!(
            r#"{{"schema":1,"key":"{key}","decision":"{decision}","by":"","at":"2026-01-01T00:00:0{second}Z"}}"#
        );
        Decision::parse(&line).unwrap()
    }

    fn lines(decisions: Vec<Decision>, decided: &MergedDecisions) -> (Imported, UnknownImages) {
        new_lines("file", decisions, &facts(), decided)
    }

    #[test]
    fn lines_that_count_already_are_not_written_again() {
        let mut decided = MergedDecisions::default();
        let key = "cat/a.jpg";
        let both = || vec![line(key, "keep", 1), line(key, "drop", 1)];
        let (first, _) = lines(both(), &decided);
        assert_eq!((first.decisions.len(), first.notes.len()), (2, 0));
        first.decisions.into_iter().for_each(|decision| decided.add(decision));
        let (again, _) = lines(both(), &decided);
        assert_eq!((again.decisions.len(), again.notes.len()), (0, 1));
        assert_eq!(lines(vec![line(key, "keep", 2)], &decided).0.decisions.len(), 1);
    }

    #[test]
    fn equal_lines_are_one_decision_and_the_last_still_counts() {
        let key = "cat/a.jpg";
        let same = vec![line(key, "keep", 1), line(key, "keep", 1), line(key, "keep", 1)];
        assert_eq!(lines(same, &MergedDecisions::default()).0.decisions.len(), 1);
        let back = vec![line(key, "keep", 1), line(key, "drop", 1), line(key, "keep", 1)];
        let (back, _) = lines(back, &MergedDecisions::default());
        let words: Vec<_> = back.decisions.iter().map(|line| line.choice.word()).collect();
        assert_eq!(words, ["drop", "keep"]);
    }

    #[test]
    fn lines_about_images_of_another_run_are_counted_and_named() {
        let none = MergedDecisions::default();
        let other = |name: &str| line(name, "keep", 1);
        let all = ["w", "x", "x", "y", "z"].map(other);
        let (imported, unknown) = lines(all.to_vec(), &none);
        assert!(unknown.is_of_other_run() && imported.decisions.is_empty());
        let note = unknown.note("file").unwrap();
        assert!(note.contains("4 images") && note.ends_with("such as w, x, y"), "{note}");
        let (imported, unknown) = lines(vec![other("x"), other("cat/b.jpg")], &none);
        assert_eq!((imported.decisions.len(), unknown.keys.len()), (1, 1));
        assert!(!unknown.is_of_other_run());
        assert!(!lines(Vec::new(), &none).1.is_of_other_run());
    }
}
