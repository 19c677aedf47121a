//! What the answers of another program's file mean for a run: what is a new label, what is none, and what is
//! decided already.
//!
//! Upstream: [`camshaft_exchange`], which reads the formats. Downstream: [`import`](super).

use std::collections::{HashMap, HashSet};

use camshaft_common::key::ImageKey;
use camshaft_decisions::{Choice, Decision, MAX_BY_BYTES, MergedDecisions};
use camshaft_exchange::{Answer, DROP, ExportFormat, Verdict};
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};

use super::imported::{UnknownImages, is_same};
use super::run_facts::RunFacts;
use crate::decide::DecideError;
use crate::terminal::output::format_count;

/// What a spreadsheet writes in place of a value that it can't compute.
const SPREADSHEET_ERRORS: [&str; 7] =
    ["#REF!", "#N/A", "#NAME?", "#VALUE!", "#DIV/0!", "#NUM!", "#NULL!"];

/// What becomes of a file's answers.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) decisions: Vec<Decision>,
    /// Answers that leave an image as it was exported.
    untouched: u64,
    /// Answers that OUT has already.
    unchanged: u64,
    /// Answers that are older than what is decided.
    older: u64,
    pub(super) unknown: UnknownImages,
}

impl Found {
    pub(super) fn notes(&self, path: &str) -> Vec<String> {
        let count = |count, what: &str| {
            (count > 0).then(|| format!("{path}: {} {what}", format_count(count, "image")))
        };
        [
            count(self.untouched, "left as they were exported, and not decided about"),
            count(self.unchanged, "had the same decision already"),
            count(self.older, "decided about later in OUT, which stays"),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Turns the answers of a file into decisions about the images of the run.
pub(super) fn decisions_of(
    path: &str,
    format: ExportFormat,
    answers: Vec<Answer>,
    facts: &RunFacts,
    decided: &MergedDecisions,
    now: DateTime<Utc>,
) -> Result<Found, DecideError> {
    let mut found = Found::default();
    let answers = last_answers(answers);
    // Of each image the decision and its item, since the times of those that are left don't tell which of two
    // counts.
    let mut seen: HashMap<ImageKey, (Choice, String)> = HashMap::new();
    for Answer { key, verdict, by, at, item } in answers {
        let known = ImageKey::parse(&*key).ok().and_then(|key| facts.given.get_key_value(&key));
        let Some((key, given)) = known else {
            found.unknown.add(key);
            continue;
        };
        found.unknown.known += 1;
        let refused =
            |reason| DecideError::Item { path: path.to_owned(), item: item.clone(), reason };
        if format == ExportFormat::Csv
            && let Some(error) = spreadsheet_error(&verdict, &facts.labels)
        {
            return Err(refused(format!(
                "its new_label is {error}, a formula's error; write the label, or nothing"
            )));
        }
        let Some(choice) = choice_of(verdict, given.as_deref(), &facts.labels).map_err(refused)?
        else {
            found.untouched += 1;
            continue;
        };
        match seen.get(key) {
            Some((before, _)) if *before == choice => continue,
            Some((_, other)) if *other == item => {
                let reason =
                    format!("it has two decisions about {key}, and no later one; leave one");
                return Err(refused(reason));
            }
            Some((_, other)) => {
                let reason = format!("it decides otherwise about {key} than {other}; leave one");
                return Err(refused(reason));
            }
            None => drop(seen.insert(key.clone(), (choice.clone(), item.clone()))),
        }
        if let Some(by) = by.as_ref().filter(|by| by.len() > MAX_BY_BYTES) {
            let bytes = by.len();
            return Err(refused(format!(
                "its annotator's name has {bytes} bytes; the most is {MAX_BY_BYTES}"
            )));
        }
        let last = decided.last(key);
        let mut decision = Decision {
            key: key.clone(),
            choice,
            by: by.unwrap_or_else(|| format.name().to_owned()),
            at: at.unwrap_or(now).trunc_subsecs(3),
            because: facts.kinds.get(key).cloned().unwrap_or_default(),
        };
        match (&last, at) {
            (Some(last), Some(_)) if last.at > decision.at => {
                found.older += 1;
                continue;
            }
            (Some(last), Some(_)) if last.at == decision.at && is_same(last, &decision) => {
                found.unchanged += 1;
                continue;
            }
            // A person's word counts for more than a rule's, also if it is the same.
            (Some(last), None) if *last.choice == decision.choice && !last.is_by_rule() => {
                found.unchanged += 1;
                continue;
            }
            (None, None) if decision.choice == Choice::Undecided => {
                found.unchanged += 1;
                continue;
            }
            // Later than what it replaces, also if that was decided by a clock ahead of this one.
            (Some(last), None) => {
                decision.at = decision.at.max(last.at + TimeDelta::milliseconds(1));
            }
            _ => {}
        }
        // A time may be out of what a line can have, and a part with such a line would end every reading.
        if let Err(error) = Decision::parse(&decision.to_line()) {
            return Err(refused(error.to_string()));
        }
        found.decisions.push(decision);
    }
    Ok(found)
}

/// The error of a spreadsheet among labels, unless the run has a label of that name.
fn spreadsheet_error<'a>(verdict: &'a Verdict, known: &HashSet<String>) -> Option<&'a str> {
    let Verdict::Labels { labels, .. } = verdict else { return None };
    let is_error = |label: &&String| SPREADSHEET_ERRORS.contains(&label.as_str());
    labels.iter().find(|label| is_error(label) && !known.contains(*label)).map(String::as_str)
}

/// The answers of a file without those that a later one about the same image replaces, by their times.
fn last_answers(answers: Vec<Answer>) -> Vec<Answer> {
    let mut last: HashMap<String, DateTime<Utc>> = HashMap::new();
    for answer in &answers {
        if let Some(at) = answer.at {
            let known = last.entry(answer.key.clone()).or_insert(at);
            *known = at.max(*known);
        }
    }
    let is_last = |answer: &Answer| answer.at.is_none_or(|at| last.get(&answer.key) == Some(&at));
    answers.into_iter().filter(is_last).collect()
}

/// What an answer means for an image with this label; `None` if it leaves the image as it is.
fn choice_of(
    verdict: Verdict,
    given: Option<&str>,
    known: &HashSet<String>,
) -> Result<Option<Choice>, String> {
    let (labels, chosen) = match verdict {
        Verdict::Keep => return Ok(Some(Choice::Keep)),
        Verdict::Drop => return Ok(Some(Choice::Drop)),
        Verdict::Undecided => return Ok(Some(Choice::Undecided)),
        Verdict::Labels { labels, chosen } => (labels, chosen),
    };
    // A class may have that name.
    let is_drop = |label: &&String| label.eq_ignore_ascii_case(DROP) && !known.contains(*label);
    let is_given = |label: &&String| given.is_some_and(|given| given.trim() == *label);
    let drops = labels.iter().any(|label| is_drop(&label));
    let others: Vec<&String> = labels.iter().filter(|label| !is_drop(label)).collect();
    match others.as_slice() {
        [] if drops => Ok(Some(Choice::Drop)),
        [label] if drops && is_given(label) => Ok(Some(Choice::Drop)),
        [] => Ok(None),
        [label] if !drops && is_given(label) => Ok(chosen.then_some(Choice::Keep)),
        [label] if !drops => Choice::relabel(label).map(Some).map_err(|error| error.to_string()),
        _ => {
            let (number, names) = (labels.len(), labels.join(", "));
            Err(format!("it has {number} labels, {names}; leave the right one"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::run_facts::tests::facts;
    use super::*;

    fn answer(key: &str, labels: &[&str], chosen: bool, at: Option<i64>) -> Answer {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        Answer {
            key: key.to_owned(),
            verdict: Verdict::Labels { labels, chosen },
            by: None,
            at: at.map(millis),
            item: format!("image {key}"),
        }
    }

    fn millis(at: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(at).unwrap()
    }

    fn found(answers: Vec<Answer>, decided: &MergedDecisions) -> Result<Found, DecideError> {
        decisions_of("file", ExportFormat::Coco, answers, &facts(), decided, millis(100))
    }

    #[test]
    fn labels_mean_what_the_given_label_makes_of_them() {
        let known = HashSet::from(["cat".to_owned()]);
        let choice = |labels: &[&str], chosen| {
            choice_of(answer("", labels, chosen, None).verdict, Some("cat"), &known)
        };
        let relabel = || Some(Choice::Relabel("dog".to_owned()));
        for (labels, chosen, expected) in [
            (&["cat"][..], false, None),
            (&["cat"], true, Some(Choice::Keep)),
            (&["dog"], false, relabel()),
            (&["dog"], true, relabel()),
            (&["Drop"], true, Some(Choice::Drop)),
            (&["cat", "drop"], false, Some(Choice::Drop)),
        ] {
            assert_eq!(choice(labels, chosen), Ok(expected), "{labels:?}");
        }
        for labels in [&["cat", "dog"][..], &["dog", "drop"]] {
            assert!(choice(labels, false).unwrap_err().contains("2 labels"), "{labels:?}");
        }
        // A class of that name is a class.
        let known = HashSet::from(["Drop".to_owned()]);
        let drop = choice_of(answer("", &["Drop"], true, None).verdict, Some("cat"), &known);
        assert_eq!(drop, Ok(Some(Choice::Relabel("Drop".to_owned()))));
    }

    #[test]
    fn the_same_file_again_changes_nothing() {
        for at in [None, Some(50)] {
            let answers =
                || vec![answer("cat/a.jpg", &["dog"], true, at), answer("x", &["y"], true, at)];
            let mut decided = MergedDecisions::default();
            let first = found(answers(), &decided).unwrap();
            assert_eq!((first.decisions.len(), first.unknown.keys.len()), (1, 1));
            assert_eq!(first.decisions[0].by, "coco");
            first.decisions.into_iter().for_each(|decision| decided.add(decision));
            let again = found(answers(), &decided).unwrap();
            assert_eq!((again.decisions.len(), again.unchanged), (0, 1), "{at:?}");
        }
    }

    #[test]
    fn a_later_decision_stays_and_a_clock_ahead_is_caught_up_with() {
        let mut decided = MergedDecisions::default();
        let line = r#"{"schema":1,"key":"cat/a.jpg","decision":"keep","by":"","at":"1970-01-01T00:00:01Z"}"#;
        decided.add(Decision::parse(line).unwrap());
        let older = found(vec![answer("cat/a.jpg", &["dog"], true, Some(50))], &decided).unwrap();
        assert_eq!((older.decisions.len(), older.older), (0, 1));
        let new = found(vec![answer("cat/a.jpg", &["dog"], true, None)], &decided).unwrap();
        assert_eq!(new.decisions[0].at, millis(1001));
    }

    #[test]
    fn of_two_people_the_later_counts() {
        let both = vec![
            answer("cat/a.jpg", &["dog"], true, Some(50)),
            answer("cat/a.jpg", &["cow"], true, Some(40)),
        ];
        let found = found(both, &MergedDecisions::default()).unwrap();
        let choices: Vec<_> = found.decisions.iter().map(|decision| &decision.choice).collect();
        assert_eq!(choices, [&Choice::Relabel("dog".to_owned())]);
    }

    #[test]
    fn a_file_of_another_run_and_contradictions_are_told() {
        let none = MergedDecisions::default();
        assert!(
            found(vec![answer("x", &["y"], true, None)], &none).unwrap().unknown.is_of_other_run()
        );
        let twice = vec![
            answer("cat/a.jpg", &["dog"], true, None),
            answer("cat/a.jpg", &["cow"], true, None),
        ];
        let error = found(twice, &none).unwrap_err().to_string();
        assert!(error.contains("it has two decisions about cat/a.jpg"), "{error}");
    }

    #[test]
    fn verdicts_of_the_same_time_contradict_each_other_and_equal_ones_are_one_decision() {
        let none = MergedDecisions::default();
        let task = |number: u64, label: &str, at| Answer {
            item: format!("task {number}"),
            ..answer("cat/a.jpg", &[label], true, at)
        };
        for times in [[Some(50), Some(50)], [Some(50), None], [None, Some(50)], [None, None]] {
            let [first, second] = times;
            let both = vec![task(1, "dog", first), task(2, "cow", second)];
            let error = found(both, &none).unwrap_err().to_string();
            assert!(error.contains("task 2: it decides otherwise about cat/a.jpg than task 1"));
            let same = vec![task(1, "dog", first), task(2, "dog", second)];
            assert_eq!(found(same, &none).unwrap().decisions.len(), 1, "{times:?}");
        }
        // A later one settles it.
        let many =
            (1..50).map(|number| task(number, ["dog", "cow"][number as usize % 2], Some(50)));
        let settled = many.chain([task(50, "pig", Some(51))]).collect();
        let settled = found(settled, &none).unwrap().decisions;
        assert_eq!(settled.len(), 1);
        assert_eq!(settled[0].choice, Choice::Relabel("pig".to_owned()));
    }

    #[test]
    fn what_could_not_be_read_again_or_is_no_label_is_refused_with_its_place() {
        let none = MergedDecisions::default();
        let by = |bytes: usize| {
            let answer = answer("cat/a.jpg", &["dog"], true, None);
            found(vec![Answer { by: Some("a".repeat(bytes)), ..answer }], &none)
        };
        assert_eq!(by(1024).unwrap().decisions.len(), 1);
        let error = by(1025).unwrap_err().to_string();
        assert!(error.contains("image cat/a.jpg: its annotator's name has 1025 bytes"), "{error}");

        let far = DateTime::from_timestamp(400_000_000_000, 0).unwrap();
        let late = Answer { at: Some(far), ..answer("cat/a.jpg", &["dog"], true, None) };
        let error = found(vec![late], &none).unwrap_err().to_string();
        assert!(error.contains("image cat/a.jpg: its time"), "{error}");

        let sheet = |facts: &RunFacts| {
            let line =
                Answer { item: "line 7".to_owned(), ..answer("cat/a.jpg", &["#N/A"], true, None) };
            decisions_of("file", ExportFormat::Csv, vec![line], facts, &none, millis(100))
        };
        let error = sheet(&facts()).unwrap_err().to_string();
        assert!(error.contains("file, line 7: its new_label is #N/A"), "{error}");
        let mut facts = facts();
        facts.labels.insert("#N/A".to_owned());
        assert_eq!(sheet(&facts).unwrap().decisions.len(), 1);
    }
}
