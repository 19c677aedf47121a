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

/// The longest name of who decides: lines with a longer one are not read.
const MAX_BY_BYTES: usize = 1024;
/// What a spreadsheet writes in place of a value that it can't compute.
const SPREADSHEET_ERRORS: [&str; 7] =
    ["#REF!", "#N/A", "#NAME?", "#VALUE!", "#DIV/0!", "#NUM!", "#NULL!"];

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
    /// Reads them. Only other programs' files, which don't name them, need the kinds of findings.
    async fn read(out: &Folder, run: &RunRecord, with_kinds: bool) -> Result<Self, DecideError> {
        let mut facts = Self::of(
            run_images::read(out, run).await?.into_iter().map(|image| (image.key, image.label)),
        );
        if !with_kinds {
            return Ok(facts);
        }
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
    if contents.is_empty() {
        return Ok(Imported::default());
    }
    let with_kinds = contents.iter().any(|(_, content)| matches!(content, Content::Answers(..)));
    let facts = RunFacts::read(out, run, with_kinds).await?;
    let mut imported = Imported::default();
    for (path, content) in contents {
        let (Imported { mut decisions, notes }, unknown) = match content {
            Content::Answers(format, answers) => {
                let found = decisions_of(&path, format, answers, &facts, decided, now)?;
                let notes = found.notes(&path);
                (Imported { notes, decisions: found.decisions }, found.unknown)
            }
            Content::Decisions(decisions) => new_lines(&path, decisions, &facts, decided),
        };
        if unknown.is_of_other_run() {
            let (out, names) = (out.location().to_string(), unknown.names.join(", "));
            return Err(DecideError::OtherRun { path, out, names });
        }
        imported.decisions.append(&mut decisions);
        imported.notes.extend(notes);
        imported.notes.extend(unknown.note(&path));
    }
    Ok(imported)
}

/// Which images of a file the run has.
#[derive(Debug, Default)]
struct UnknownImages {
    keys: HashSet<String>,
    /// The first of them.
    names: Vec<String>,
    /// How often the file says something about an image that the run has.
    known: u64,
}

impl UnknownImages {
    fn add(&mut self, key: String) {
        if self.names.len() < NAMED && !self.keys.contains(&key) {
            self.names.push(key.clone());
        }
        self.keys.insert(key);
    }

    fn is_of_other_run(&self) -> bool {
        self.known == 0 && !self.keys.is_empty()
    }

    fn note(&self, path: &str) -> Option<String> {
        let images = format_count(self.keys.len() as u64, "image");
        let names = self.names.join(", ");
        (!self.keys.is_empty()).then(|| {
            format!(
                "{path}: {images} that the run does not have, and not decided about, such as {names}"
            )
        })
    }
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

/// The decisions of a file of lines that change something, each once. An image whose last decision stays what
/// it is gets none: the same file again changes nothing.
fn new_lines(
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
    unknown: UnknownImages,
}

impl Found {
    fn notes(&self, path: &str) -> Vec<String> {
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
