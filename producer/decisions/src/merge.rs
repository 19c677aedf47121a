//! All parts merged: of each image the last decision counts.
//!
//! The order is that of time, then of writer, number and line, so that everybody who merges the same
//! parts finds the same. `OUT/decisions.parquet` is the merge as a table; the parts are what counts.
//! Upstream: [`parts`](super::parts), and files of decisions. Downstream: rules, which leave people's
//! decisions alone, and `camshaft apply`.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::io::{Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use camshaft_common::key::ImageKey;
use camshaft_common::layout::DECISIONS_FILE;
use camshaft_common::store::{Folder, PARQUET};
use camshaft_table::{Cell, Column, TableError, columns, write_rows};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::decision::{Choice, Decision, is_by_rule};
use crate::error::MergeError;
use crate::lines::{LinesError, read_file};
use crate::reader::{DecisionReader, Place};

/// The last decision about each image. Each takes some 200 bytes and its key.
#[derive(Debug, Default)]
pub struct MergedDecisions {
    by_key: HashMap<ImageKey, Stored>,
    /// Names and reasons, which are few, once each.
    names: HashSet<Arc<str>>,
    reasons: HashSet<Arc<[String]>>,
    /// Decisions added that are in no part.
    added: u64,
}

#[derive(Clone, Debug)]
struct Stored {
    choice: Choice,
    by: Arc<str>,
    at: DateTime<Utc>,
    because: Arc<[String]>,
    line: Place,
}

/// The last decision about an image.
#[derive(Clone, Copy, Debug)]
pub struct MergedDecision<'a> {
    /// What is decided.
    pub choice: &'a Choice,
    /// Who decided.
    pub by: &'a str,
    /// When.
    pub at: DateTime<Utc>,
    /// Why.
    pub because: &'a [String],
}

impl MergedDecision<'_> {
    /// True if a rule made it, and no person.
    #[must_use]
    pub fn is_by_rule(&self) -> bool {
        is_by_rule(self.because)
    }
}

impl MergedDecisions {
    /// Reads all parts in OUT. None is no error.
    ///
    /// # Errors
    /// If OUT can't be read, or a line of a part is no decision.
    pub async fn read(out: &Folder) -> Result<Self, MergeError> {
        let mut merged = Self::default();
        let mut reader = DecisionReader::new(out.clone());
        reader.visit_new(|place, decision| merged.insert(decision, place)).await?;
        Ok(merged)
    }

    /// Reads one local file of decisions.
    ///
    /// # Errors
    /// If the file can't be read, or a line is no decision.
    pub fn read_file(path: &Path) -> Result<Self, LinesError> {
        let mut merged = Self::default();
        read_file(path, |decision| merged.add(decision))?;
        Ok(merged)
    }

    /// Adds a decision as the last of those with its time.
    pub fn add(&mut self, decision: Decision) {
        self.added += 1;
        let place = Place { writer: Uuid::max(), number: 0, line: self.added };
        self.insert(decision, place);
    }

    fn insert(&mut self, decision: Decision, line: Place) {
        let Decision { key, choice, by, at, because } = decision;
        if let Some(known) = self.by_key.get(&key)
            && (known.at, known.line).cmp(&(at, line)) == Ordering::Greater
        {
            return;
        }
        let by = shared(&mut self.names, by);
        let because = shared(&mut self.reasons, because);
        self.by_key.insert(key, Stored { choice, by, at, because, line });
    }

    /// The last decision about an image, also if it takes an earlier one back.
    #[must_use]
    pub fn last(&self, key: &ImageKey) -> Option<MergedDecision<'_>> {
        let Stored { choice, by, at, because, line: _ } = self.by_key.get(key)?;
        Some(MergedDecision { choice, by, at: *at, because })
    }

    /// What is decided about an image; `None` if nothing is, or it was taken back.
    #[must_use]
    pub fn get(&self, key: &ImageKey) -> Option<MergedDecision<'_>> {
        self.last(key).filter(|decision| *decision.choice != Choice::Undecided)
    }

    /// The images about which something is decided, in the order of their keys as texts.
    #[must_use]
    pub fn decided(&self) -> Vec<(&ImageKey, MergedDecision<'_>)> {
        let decided = self.by_key.keys().filter_map(|key| Some((key, self.get(key)?)));
        let mut decided: Vec<_> = decided.collect();
        decided.sort_unstable_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
        decided
    }

    /// The number of images about which something is decided.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.values().filter(|stored| stored.choice != Choice::Undecided).count()
    }

    /// True if nothing is decided.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.values().all(|stored| stored.choice == Choice::Undecided)
    }

    /// Writes `OUT/decisions.parquet`: a row for each image about which something is decided. Returns the
    /// same decisions.
    ///
    /// # Errors
    /// If the table can't be written.
    pub async fn write_table(self, out: &Folder) -> Result<Self, MergeError> {
        let writing = tokio::task::spawn_blocking(move || {
            // Rows are made as they are written: all at once would take as much again.
            let rows = self.decided().into_iter().map(|(key, decision)| Row {
                key: key.as_str().to_owned(),
                decision: decision.choice.word(),
                label: decision.choice.label().map(str::to_owned),
                by: decision.by.to_owned(),
                at: decision.at,
                because: decision.because.to_vec(),
            });
            let file = write_rows(rows, COLUMNS, &[])?;
            Ok::<_, TableError>((self, file))
        });
        let (this, mut file) = writing.await.map_err(|_| MergeError::Panicked)??;
        file.seek(SeekFrom::Start(0)).map_err(TableError::from)?;
        out.put_file(DECISIONS_FILE, file, PARQUET).await?;
        Ok(this)
    }
}

/// A value that others may have, too, once for all.
fn shared<T, V>(known: &mut HashSet<Arc<T>>, value: V) -> Arc<T>
where
    T: ?Sized + Eq + std::hash::Hash,
    V: Into<Arc<T>> + std::borrow::Borrow<T>,
{
    if let Some(known) = known.get(value.borrow()) {
        return Arc::clone(known);
    }
    let value = value.into();
    known.insert(Arc::clone(&value));
    value
}

/// A row of `decisions.parquet`.
struct Row {
    key: String,
    decision: &'static str,
    label: Option<String>,
    by: String,
    at: DateTime<Utc>,
    because: Vec<String>,
}

/// The columns of `decisions.parquet`. `docs/decisions.md` describes them.
const COLUMNS: &[Column<Row>] = columns! {
    "key" Text |row| Cell::Text(Some(&row.key));
    "decision" Text |row| Cell::Text(Some(row.decision));
    "label" Text |row| Cell::Text(row.label.as_deref());
    "by" Text |row| Cell::Text(Some(&row.by));
    "at" Time |row| Cell::Time(Some(row.at));
    "because" TextList |row| Cell::TextList(Some(&row.because));
};

#[cfg(test)]
mod tests {
    use camshaft_common::layout::DECISIONS;
    use camshaft_common::store::StoreOptions;
    use camshaft_table::TableReader;
    use proptest::prelude::*;

    use super::*;
    use crate::parts::DecisionWriter;

    fn decision(key: &str, choice: Choice, millis: i64) -> Decision {
        Decision {
            key: ImageKey::parse(key).unwrap(),
            choice,
            by: "ana".to_owned(),
            at: DateTime::from_timestamp_millis(millis).unwrap(),
            because: Vec::new(),
        }
    }

    fn out() -> (tempfile::TempDir, Folder) {
        let directory = tempfile::tempdir().unwrap();
        let location = directory.path().to_str().unwrap().parse().unwrap();
        (directory, Folder::open(&location, &StoreOptions::default()).unwrap())
    }

    #[tokio::test]
    async fn the_last_decision_of_all_writers_counts() {
        let (directory, out) = out();
        assert!(MergedDecisions::read(&out).await.unwrap().is_empty());
        let [one, other] = [(); 2].map(|()| DecisionWriter::new(out.clone()));
        let dog = Choice::relabel("dog").unwrap();
        other
            .write(&[decision("a", Choice::Keep, 3), decision("b", Choice::Drop, 1)])
            .await
            .unwrap();
        one.write(&[decision("a", Choice::Drop, 2), decision("c", Choice::Drop, 1)]).await.unwrap();
        one.write(&[decision("b", dog.clone(), 1), decision("c", Choice::Undecided, 1)])
            .await
            .unwrap();
        std::fs::write(directory.path().join("decisions/sample.json"), "{}").unwrap();

        let merged = MergedDecisions::read(&out).await.unwrap();
        let found: Vec<_> = merged.decided();
        let found = found.iter().map(|(key, decision)| (key.as_str(), decision.choice));
        // The same time: the later writer's counts, whoever wrote first.
        assert_eq!(found.collect::<Vec<_>>(), [("a", &Choice::Keep), ("b", &Choice::Drop)]);
        assert_eq!(merged.last(&ImageKey::parse("c").unwrap()).unwrap().choice, &Choice::Undecided);

        let merged = merged.write_table(&out).await.unwrap();
        assert!(!merged.is_empty());
        let file = std::fs::File::open(directory.path().join("decisions.parquet")).unwrap();
        let table = TableReader::open(file).unwrap();
        let words = table.texts(0, "decision").unwrap();
        assert_eq!(words, [Some("keep".to_owned()), Some("drop".to_owned())]);
        assert_eq!(table.texts(0, "key").unwrap(), [Some("a".to_owned()), Some("b".to_owned())]);
    }

    #[tokio::test]
    async fn a_damaged_part_is_named_with_its_line() {
        let (directory, out) = out();
        let writer = DecisionWriter::new(out.clone());
        let two = [decision("a", Choice::Keep, 3), decision("b", Choice::Drop, 1)];
        writer.write(&two).await.unwrap();
        let folder = std::fs::read_dir(directory.path().join(DECISIONS)).unwrap().next().unwrap();
        let part = folder.unwrap().path().join("00000001.jsonl");
        let text = std::fs::read_to_string(&part).unwrap();
        std::fs::write(&part, &text[..text.len() - 9]).unwrap();
        let error = MergedDecisions::read(&out).await.unwrap_err().to_string();
        assert!(error.contains("00000001.jsonl, line 2"), "{error}");
    }

    proptest! {
        #[test]
        fn the_order_of_reading_does_not_matter(
            times in proptest::collection::vec((0_i64..3, 0_u64..3, 0_u64..3), 1..12),
            seed in proptest::num::u64::ANY,
        ) {
            let place = |(number, line): (u64, u64)| Place { writer: Uuid::nil(), number, line };
            let merge = |order: &[usize]| {
                let mut merged = MergedDecisions::default();
                for at in order {
                    let (time, number, line) = times[*at];
                    let label = format!("{time} {number} {line}");
                    let choice = Choice::relabel(&label).unwrap();
                    merged.insert(decision("a", choice, time), place((number, line)));
                }
                merged.get(&ImageKey::parse("a").unwrap()).unwrap().choice.clone()
            };
            let mut order: Vec<_> = (0..times.len()).collect();
            let last = times.iter().max().unwrap();
            let expected = Choice::relabel(&format!("{} {} {}", last.0, last.1, last.2)).unwrap();
            prop_assert_eq!(merge(&order), expected.clone());
            order.sort_by_key(|at| (*at as u64 + 1).wrapping_mul(seed | 1));
            prop_assert_eq!(merge(&order), expected);
        }
    }
}
