//! Files of decisions and of other programs, as decisions.
//!
//! Owns what a file's answers mean for this run: what is a new label, what is none, and what is decided
//! already. Upstream: files, whose formats [`camshaft_exchange`] and [`camshaft_decisions`] read. Downstream:
//! [`decide`](super), which writes the decisions.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use camshaft_common::key::ImageKey;
use camshaft_common::run::RunRecord;
use camshaft_common::store::Folder;
use camshaft_decisions::{
    Choice, Decision, Findings, FindingsError, LinesError, MergedDecision, MergedDecisions,
    read_lines,
};
use camshaft_exchange::{Answer, DROP, ExportFormat, FileFormat, Verdict};
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};

use super::DecideError;
use crate::run_images;
use crate::terminal::output::format_count;

/// Images that a message names.
const NAMED: usize = 3;
/// The part of a file that tells its format.
const HEAD_BYTES: usize = 64 << 10;

/// What a file decides, and what else is to be said of it.
#[derive(Debug, Default)]
pub(super) struct Imported {
    pub(super) decisions: Vec<Decision>,
    pub(super) notes: Vec<String>,
}

/// A file's content.
enum Content {
    Decisions(Vec<Decision>),
    Answers(ExportFormat, Vec<Answer>),
}

/// What a run says about its images.
struct RunFacts {
    given: HashMap<ImageKey, Option<String>>,
    labels: HashSet<String>,
    /// The kinds of findings about an image.
    kinds: HashMap<ImageKey, Vec<String>>,
}

impl RunFacts {
    async fn read(out: &Folder, run: &RunRecord) -> Result<Self, DecideError> {
        let mut facts = Self::of(
            run_images::read(out, run).await?.into_iter().map(|image| (image.key, image.label)),
        );
        // A run without a report has no findings, and can be decided about all the same.
        match Findings::read(out, false).await {
            Ok(findings) => {
                let images = findings.images().iter();
                facts.kinds = images.map(|image| (image.key().clone(), image.kinds())).collect();
            }
            Err(FindingsError::NoReport(_) | FindingsError::OldReport { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(facts)
    }

    fn of(images: impl Iterator<Item = (ImageKey, Option<String>)>) -> Self {
        let given: HashMap<_, _> = images.collect();
        let labels = given.values().flatten().cloned().collect();
        Self { given, labels, kinds: HashMap::new() }
    }
}

/// Reads all files. Decisions that OUT has already are left out.
pub(super) async fn read(
    files: &[impl AsRef<Path>],
    out: &Folder,
    run: &RunRecord,
    decided: &MergedDecisions,
    now: DateTime<Utc>,
) -> Result<Imported, DecideError> {
    let mut contents = Vec::new();
    for file in files {
        contents.push((file.as_ref().display().to_string(), read_file(file.as_ref())?));
    }
    let needs_run = contents.iter().any(|(_, content)| matches!(content, Content::Answers(..)));
    let facts = if needs_run { Some(RunFacts::read(out, run).await?) } else { None };
    let mut imported = Imported::default();
    for (path, content) in contents {
        let Imported { mut decisions, notes } = match (content, &facts) {
            (Content::Answers(format, answers), Some(facts)) => {
                let found = decisions_of(&path, format, answers, facts, decided, now)?;
                if found.is_of_other_run {
                    let (out, names) = (out.location().to_string(), found.unknown.join(", "));
                    return Err(DecideError::OtherRun { path, out, names });
                }
                Imported { notes: found.notes(&path), decisions: found.decisions }
            }
            (Content::Decisions(decisions), _) => new_lines(&path, decisions, decided),
            (Content::Answers(..), None) => Imported::default(),
        };
        imported.decisions.append(&mut decisions);
        imported.notes.extend(notes);
    }
    Ok(imported)
}

fn read_file(path: &Path) -> Result<Content, DecideError> {
    let shown = path.display().to_string();
    let cannot_read = |source| LinesError::Read { path: shown.clone(), source };
    let file = File::open(path).map_err(cannot_read)?;
    let mut reader = BufReader::with_capacity(HEAD_BYTES, file);
    let failed = |source| DecideError::Exchange { path: shown.clone(), source };
    let head = reader.fill_buf().map_err(cannot_read)?;
    match camshaft_exchange::recognise(head).map_err(failed)? {
        FileFormat::Decisions => {
            let mut decisions = Vec::new();
            read_lines(&shown, reader, |_, decision| decisions.push(decision))?;
            Ok(Content::Decisions(decisions))
        }
        FileFormat::Exchanged(format) => {
            let mut answers = Vec::new();
            camshaft_exchange::read(format, reader, &mut |answer| answers.push(answer))
                .map_err(failed)?;
            Ok(Content::Answers(format, answers))
        }
    }
}

/// The decisions of a file of lines that change something. An image whose last decision stays what it is
/// gets none: the same file again changes nothing.
fn new_lines(path: &str, decisions: Vec<Decision>, decided: &MergedDecisions) -> Imported {
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
    Imported { decisions: decisions.into_iter().filter(is_new).collect(), notes }
}

fn is_same(known: &MergedDecision<'_>, decision: &Decision) -> bool {
    *known.choice == decision.choice && known.by == decision.by
}

/// What becomes of a file's answers.
#[derive(Debug, Default)]
struct Found {
    decisions: Vec<Decision>,
    /// Answers that leave an image as it was exported.
    untouched: u64,
    /// Answers that OUT has already.
    unchanged: u64,
    /// Answers that are older than what is decided.
    older: u64,
    unknown: Vec<String>,
    unknown_images: u64,
    is_of_other_run: bool,
}

impl Found {
    fn notes(&self, path: &str) -> Vec<String> {
        let count = |count, what: &str| {
            (count > 0).then(|| format!("{path}: {} {what}", format_count(count, "image")))
        };
        let names = self.unknown.join(", ");
        [
            count(self.untouched, "left as they were exported, and not decided about"),
            count(self.unchanged, "had the same decision already"),
            count(self.older, "decided about later in OUT, which stays"),
            count(
                self.unknown_images,
                &format!("that the run does not have, and not decided about, such as {names}"),
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Turns the answers of a file into decisions about the images of the run.
fn decisions_of(
    path: &str,
    format: ExportFormat,
    answers: Vec<Answer>,
    facts: &RunFacts,
    decided: &MergedDecisions,
    now: DateTime<Utc>,
) -> Result<Found, DecideError> {
    let mut found = Found::default();
    let answers = last_answers(answers);
    // Of each image the place of its decision and its item, since a file without times can't say which of
    // two counts.
    let mut seen: HashMap<ImageKey, (Choice, String)> = HashMap::new();
    let mut known_images = 0_u64;
    for Answer { key, verdict, by, at, item } in answers {
        let known = ImageKey::parse(&*key).ok().and_then(|key| facts.given.get_key_value(&key));
        let Some((key, given)) = known else {
            found.unknown_images += 1;
            if found.unknown.len() < NAMED {
                found.unknown.push(key);
            }
            continue;
        };
        known_images += 1;
        let refused =
            |reason| DecideError::Item { path: path.to_owned(), item: item.clone(), reason };
        let Some(choice) = choice_of(verdict, given.as_deref(), &facts.labels).map_err(refused)?
        else {
            found.untouched += 1;
            continue;
        };
        if at.is_none() {
            match seen.get(key) {
                Some((before, other)) if *before != choice => {
                    let reason =
                        format!("it decides otherwise about {key} than {other}; leave one");
                    return Err(refused(reason));
                }
                Some(_) => continue,
                None => drop(seen.insert(key.clone(), (choice.clone(), item.clone()))),
            }
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
        found.decisions.push(decision);
    }
    found.is_of_other_run = known_images == 0 && found.unknown_images > 0;
    Ok(found)
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
    use super::*;

    fn facts() -> RunFacts {
        RunFacts::of(
            ["cat/a.jpg", "cat/b.jpg", "cat/c.jpg"]
                .into_iter()
                .map(|key| (ImageKey::parse(key).unwrap(), Some("cat".to_owned()))),
        )
    }

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
            assert_eq!((first.decisions.len(), first.unknown_images), (1, 1));
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
        assert!(found(vec![answer("x", &["y"], true, None)], &none).unwrap().is_of_other_run);
        let twice = vec![
            answer("cat/a.jpg", &["dog"], true, None),
            answer("cat/a.jpg", &["cow"], true, None),
        ];
        let error = found(twice, &none).unwrap_err().to_string();
        assert!(error.contains("decides otherwise about cat/a.jpg"), "{error}");
    }

    #[test]
    fn lines_that_count_already_are_not_written_again() {
        let line = |decision: &str, at: &str| {
            let line = format!(
                r#"{{"schema":1,"key":"a","decision":"{decision}","by":"","at":"2026-01-01T00:00:0{at}Z"}}"#
            );
            Decision::parse(&line).unwrap()
        };
        let mut decided = MergedDecisions::default();
        let lines = || vec![line("keep", "1"), line("drop", "1")];
        let first = new_lines("file", lines(), &decided);
        assert_eq!((first.decisions.len(), first.notes.len()), (2, 0));
        first.decisions.into_iter().for_each(|decision| decided.add(decision));
        let again = new_lines("file", lines(), &decided);
        assert_eq!((again.decisions.len(), again.notes.len()), (0, 1));
        assert_eq!(new_lines("file", vec![line("keep", "2")], &decided).decisions.len(), 1);
    }
}
