//! Results that a report leaves out: why, how many, and the first of them.
//!
//! Owns the reasons, the counting and the texts. Does not judge results: that is `run_images`.
//! Upstream: the results as they are read. Downstream: the summary, the page's notes, and the note
//! for `status`, `enqueue` and `audit`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;

use camshaft_common::key::ImageKey;
use camshaft_common::run::RunRecord;
use camshaft_common::unusable_results::{UnusableResult, UnusableResultsWriter};
use chrono::{DateTime, Utc};
use serde::Serialize;

/// Results of each reason that the summary lists.
const LISTED_RESULTS: usize = 100;
/// Results that a text names.
const NAMED_RESULTS: usize = 3;

/// Why a result is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeftOutReason {
    /// Its file can't be read as a result: it is empty, cut off, or something else.
    Unreadable,
    /// Its file is archived, or encrypted with a key that can't be used.
    Archived,
    /// Its image is no longer in SOURCE.
    Gone,
    /// It is older than a request to redo its image.
    ToBeRedone,
    /// Another run wrote it after this one asked for it.
    Run,
    /// A job wrote it that a later enqueue or audit has superseded.
    Generation,
    /// It is of another model than the run's.
    Model,
    /// It has maps of other methods or layers than the run's.
    Options,
    /// Its image had another content when it was listed.
    Content,
    /// Its image has another label.
    Label,
}

impl LeftOutReason {
    /// The reason in one word.
    fn name(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Archived => "archived",
            Self::Gone => "gone",
            Self::ToBeRedone => "to-be-redone",
            Self::Run => "run",
            Self::Generation => "generation",
            Self::Model => "model",
            Self::Options => "options",
            Self::Content => "content",
            Self::Label => "label",
        }
    }

    /// What an outdated result is of; `None` if the result is left out for another reason.
    fn outdated(self) -> Option<&'static str> {
        match self {
            Self::Run => Some("of another run"),
            Self::Generation => Some("of a superseded job"),
            Self::Model => Some("of another model"),
            Self::Options => Some("of other methods or layers"),
            Self::Content => Some("of another content"),
            Self::Label => Some("of another label"),
            Self::Unreadable | Self::Archived | Self::Gone | Self::ToBeRedone => None,
        }
    }

    /// True if only who reads the result can tell. An archived result may be right.
    fn is_noted(self) -> bool {
        self == Self::Unreadable || self.outdated().is_some()
    }
}

/// A result that is left out.
#[derive(Clone, Debug, Serialize)]
pub struct LeftOutResult {
    /// Why.
    #[serde(skip)]
    pub(crate) reason: LeftOutReason,
    /// Its image, if that is known.
    pub key: Option<ImageKey>,
    /// Its path below OUT.
    pub path: String,
    /// Why its file can't be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The file's entity tag, if the store has them.
    #[serde(skip)]
    pub(crate) etag: Option<String>,
    /// When the file was last written.
    #[serde(skip)]
    pub(crate) written: DateTime<Utc>,
}

impl LeftOutResult {
    /// As a text names it: an unreadable one by its path, since somebody may have to delete it.
    fn name(&self) -> String {
        match (&self.detail, &self.key) {
            (Some(detail), _) => detail.clone(),
            (None, Some(key)) => key.to_string(),
            (None, None) => self.path.clone(),
        }
    }
}

/// The results that are left out for one reason.
#[derive(Clone, Debug, Serialize)]
pub struct LeftOutGroup {
    /// The reason.
    pub reason: LeftOutReason,
    /// The number of results.
    pub results: u64,
    /// The first of them.
    pub listed: Vec<LeftOutResult>,
}

impl LeftOutGroup {
    /// The names of the first of them.
    fn names(&self) -> String {
        named(self.results, &self.listed)
    }
}

/// What a report leaves out.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct LeftOut {
    groups: Vec<LeftOutGroup>,
}

impl LeftOut {
    fn count(&self, is_counted: impl Fn(LeftOutReason) -> bool) -> u64 {
        let counted = self.groups.iter().filter(|group| is_counted(group.reason));
        counted.map(|group| group.results).sum()
    }

    /// The number of result files that can't be read.
    #[must_use]
    pub fn unreadable(&self) -> u64 {
        self.count(|reason| matches!(reason, LeftOutReason::Unreadable | LeftOutReason::Archived))
    }

    /// The number of results that are not of the images, model and options of the run.
    #[must_use]
    pub fn outdated(&self) -> u64 {
        self.count(|reason| reason.outdated().is_some())
    }

    /// A text for each kind of reason: how many, what to do, and which are the first.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        let group = |reason| self.groups.iter().find(|group| group.reason == reason);
        let unreadable = group(LeftOutReason::Unreadable).map(|group| {
            let (files, names) = (count(group.results, "result file"), group.names());
            let (are, them) = words(group.results);
            format!("{files} that can't be read {are} left out; {AGAIN} {them}: {names}")
        });
        let archived = group(LeftOutReason::Archived).map(|group| {
            let (files, names) = (count(group.results, "result file"), group.names());
            let (are, them) = words(group.results);
            format!("{files} {are} archived or encrypted, and left out; restore {them}: {names}")
        });
        let gone = group(LeftOutReason::Gone).map(|group| match group.results {
            1 => "1 result of an image that is no longer in SOURCE is left out".to_owned(),
            many => format!("{many} results of images that are no longer in SOURCE are left out"),
        });
        let to_be_redone = group(LeftOutReason::ToBeRedone).map(|group| {
            let (are, them) = words(group.results);
            format!(
                "{} that {are} to be redone {are} left out; wait for the workers, or {AGAIN} {them}",
                count(group.results, "result")
            )
        });
        let texts = [unreadable, archived, gone, self.outdated_text(), to_be_redone];
        texts.into_iter().flatten().collect()
    }

    fn outdated_text(&self) -> Option<String> {
        let groups: Vec<_> =
            self.groups.iter().filter(|group| group.reason.outdated().is_some()).collect();
        let kinds: Vec<_> = groups
            .iter()
            .filter_map(|group| Some(format!("{} {}", group.results, group.reason.outdated()?)))
            .collect();
        let first = groups.iter().flat_map(|group| &group.listed).take(NAMED_RESULTS);
        let outdated = self.outdated();
        (outdated > 0).then(|| {
            let (results, names) = (count(outdated, "outdated result"), named(outdated, first));
            let ((are, them), kinds) = (words(outdated), kinds.join(", "));
            format!("{results} {are} left out: {kinds}; {AGAIN} {them}: {names}")
        })
    }
}

const AGAIN: &str = "run the same audit or enqueue again to redo";

fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// The verb and the pronoun for a number of results.
fn words(number: u64) -> (&'static str, &'static str) {
    if number == 1 { ("is", "it") } else { ("are", "them") }
}

/// The names of the first of `number` results.
fn named<'a>(number: u64, listed: impl IntoIterator<Item = &'a LeftOutResult>) -> String {
    let names: Vec<_> = listed.into_iter().take(NAMED_RESULTS).map(LeftOutResult::name).collect();
    let more = number.saturating_sub(names.len() as u64);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    names.join("; ") + &more
}

/// Counts what is left out, and notes it for `status`, `enqueue` and `audit`.
#[derive(Debug)]
pub(crate) struct LeftOutTotals {
    groups: BTreeMap<LeftOutReason, LeftOutGroup>,
    note: UnusableResultsWriter,
}

impl LeftOutTotals {
    /// Nothing is left out yet.
    ///
    /// # Errors
    /// If there can be no temporary file.
    pub(crate) fn new(run: &RunRecord) -> io::Result<Self> {
        let note = UnusableResultsWriter::new(tempfile::tempfile()?, run)?;
        Ok(Self { groups: BTreeMap::new(), note })
    }

    /// Adds a result.
    ///
    /// # Errors
    /// If the temporary file can't be written.
    pub(crate) fn add(&mut self, result: LeftOutResult) -> io::Result<()> {
        let reason = result.reason;
        if reason.is_noted() {
            self.note.push(&UnusableResult {
                path: result.path.clone(),
                key: result.key.clone(),
                reason: reason.name().to_owned(),
                etag: result.etag.clone(),
                written: result.written,
            })?;
        }
        let empty = || LeftOutGroup { reason, results: 0, listed: Vec::new() };
        let group = self.groups.entry(reason).or_insert_with(empty);
        group.results += 1;
        if group.listed.len() < LISTED_RESULTS {
            group.listed.push(result);
        }
        Ok(())
    }

    /// What is left out, and the note about it; no note if there is nothing to note.
    ///
    /// # Errors
    /// If the temporary file can't be written.
    pub(crate) fn finish(self) -> io::Result<(LeftOut, Option<File>)> {
        let groups = self.groups.into_values().collect();
        Ok((LeftOut { groups }, self.note.finish()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left_out(results: &[(LeftOutReason, &str)]) -> LeftOut {
        let run = crate::run_images::tests::run();
        let mut totals = LeftOutTotals::new(&run).unwrap();
        for (reason, key) in results {
            let path = format!("predictions/{key}.json");
            let detail = (*reason == LeftOutReason::Unreadable).then(|| format!("{path}: no"));
            totals
                .add(LeftOutResult {
                    reason: *reason,
                    key: Some(ImageKey::parse(*key).unwrap()),
                    path,
                    detail,
                    etag: None,
                    written: DateTime::UNIX_EPOCH,
                })
                .unwrap();
        }
        let (left_out, note) = totals.finish().unwrap();
        let noted = results.iter().filter(|(reason, _)| reason.is_noted()).count();
        assert_eq!(note.is_some(), noted > 0);
        left_out
    }

    #[test]
    fn outdated_results_are_counted_by_reason_and_the_first_are_named() {
        assert!(left_out(&[]).texts().is_empty());
        let left_out = left_out(&[
            (LeftOutReason::Label, "d.jpg"),
            (LeftOutReason::Content, "a.jpg"),
            (LeftOutReason::Content, "b.jpg"),
            (LeftOutReason::Model, "c.jpg"),
            (LeftOutReason::Gone, "e.jpg"),
            (LeftOutReason::Unreadable, "f.jpg"),
            (LeftOutReason::ToBeRedone, "g.jpg"),
        ]);
        assert_eq!((left_out.outdated(), left_out.unreadable()), (4, 1));
        assert_eq!(
            left_out.texts(),
            [
                "1 result file that can't be read is left out; run the same audit or enqueue again to \
                 redo it: predictions/f.jpg.json: no",
                "1 result of an image that is no longer in SOURCE is left out",
                "4 outdated results are left out: 1 of another model, 2 of another content, 1 of \
                 another label; run the same audit or enqueue again to redo them: c.jpg; a.jpg; b.jpg; \
                 and 1 more",
                "1 result that is to be redone is left out; wait for the workers, or run the same audit \
                 or enqueue again to redo it",
            ]
        );
        let json = serde_json::to_value(&left_out).unwrap();
        assert_eq!(json[0]["reason"], "unreadable");
        assert_eq!(json[0]["listed"][0]["key"], "f.jpg");
        let reasons = json.as_array().unwrap().iter().map(|group| &group["reason"]);
        let names = left_out.groups.iter().map(|group| group.reason.name());
        assert!(reasons.eq(names), "{json}");
    }
}
