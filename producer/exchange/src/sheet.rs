//! CSV for a spreadsheet: a line for each image, with empty columns for what people decide; and back.
//!
//! It begins with a byte order mark, without which Excel takes UTF-8 for another encoding. A text that a
//! spreadsheet would take for a formula has an apostrophe before it, which is taken away again. Label Studio's
//! own CSV is read, too: it has the columns of the tasks' data beside those of the annotation.

use std::io::{BufRead, Write};

use crate::answer::{Answer, Verdict, time};
use crate::byte_order_mark::BOM;
use crate::error::{ReadError, WriteError};
use crate::image::ExportImage;

const COLUMNS: [&str; 11] = [
    "key",
    "image",
    "label",
    "predicted",
    "probability",
    "suggested",
    "findings",
    "reasons",
    "decided",
    "decision",
    "new_label",
];
const DELIMITERS: [u8; 3] = [b',', b';', b'\t'];
/// What a formula begins with, and the apostrophe itself.
const GUARDED: [char; 7] = ['=', '+', '-', '@', '\t', '\r', '\''];

pub(crate) struct SheetWriter<W: Write> {
    csv: csv::Writer<W>,
}

impl<W: Write> SheetWriter<W> {
    pub(crate) fn new(mut out: W) -> Result<Self, WriteError> {
        out.write_all(BOM)?;
        let mut csv = csv::Writer::from_writer(out);
        csv.write_record(COLUMNS)?;
        Ok(Self { csv })
    }

    pub(crate) fn push(&mut self, image: &ExportImage) -> Result<(), WriteError> {
        let text = |text: &Option<String>| guarded(text.as_deref().unwrap_or_default());
        self.csv.write_record([
            guarded(&image.key),
            guarded(&image.address),
            text(&image.label),
            text(&image.predicted),
            image.probability.map(|probability| probability.to_string()).unwrap_or_default(),
            text(&image.suggested),
            image.finding_names().join(", "),
            guarded(&image.reasons().join(" ")),
            text(&image.decided),
            String::new(),
            String::new(),
        ])?;
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Result<(), WriteError> {
        Ok(self.csv.flush()?)
    }
}

fn guarded(text: &str) -> String {
    if text.starts_with(GUARDED) { format!("'{text}") } else { text.to_owned() }
}

fn unguarded(text: &str) -> &str {
    text.strip_prefix('\'').filter(|rest| rest.starts_with(GUARDED)).unwrap_or(text)
}

/// Where the columns are that are read.
struct ReadColumns {
    key: usize,
    decision: Option<usize>,
    new_label: Option<usize>,
    by: Option<usize>,
    at: Option<usize>,
}

impl ReadColumns {
    fn of<'a>(names: impl Iterator<Item = &'a str>) -> Option<Self> {
        let names: Vec<_> = names.map(|name| name.trim().to_ascii_lowercase()).collect();
        let find = |wanted: &[&str]| {
            let find = |wanted: &&str| names.iter().position(|name| name == wanted);
            wanted.iter().find_map(find)
        };
        let columns = Self {
            key: find(&["camshaft_key", "key"])?,
            decision: find(&["decision"]),
            new_label: find(&["new_label"]),
            by: find(&["by", "annotator"]),
            at: find(&["at", "updated_at"]),
        };
        (columns.decision.is_some() || columns.new_label.is_some()).then_some(columns)
    }
}

/// The delimiter of a header line: the one that is there most often.
fn delimiter(line: &[u8]) -> u8 {
    let count = |delimiter: &u8| line.iter().filter(|byte| *byte == delimiter).count();
    // Of several with the same count the first.
    DELIMITERS.into_iter().rev().max_by_key(count).unwrap_or(b',')
}

/// Whether a file begins with the names of our columns.
pub(crate) fn is_header(head: &[u8]) -> bool {
    let line = head.split(|byte| matches!(byte, b'\n' | b'\r')).next().unwrap_or_default();
    let Ok(text) = str::from_utf8(line) else { return false };
    let names = text.split(char::from(delimiter(line))).map(|name| name.trim().trim_matches('"'));
    ReadColumns::of(names).is_some()
}

/// Reads a file, one line at a time.
pub(crate) fn read(
    mut reader: impl BufRead,
    visit: &mut dyn FnMut(Answer),
) -> Result<(), ReadError> {
    crate::byte_order_mark::skip_bom(&mut reader)?;
    let start = reader.fill_buf()?;
    let line = start.split(|byte| matches!(byte, b'\n' | b'\r')).next().unwrap_or_default();
    let delimiter = delimiter(line);
    let mut csv = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(reader);
    let Some(columns) = ReadColumns::of(csv.headers()?.iter()) else {
        let reason = "it has no column key, or neither new_label nor decision";
        return Err(ReadError::item("line 1", reason));
    };
    let mut record = csv::StringRecord::new();
    while csv.read_record(&mut record)? {
        let line = record.position().map_or(0, csv::Position::line);
        let item = format!("line {line}");
        let cell = |column: Option<usize>| {
            let cell = column.and_then(|column| record.get(column)).unwrap_or_default();
            unguarded(cell).trim()
        };
        let verdict = verdict(cell(columns.decision), cell(columns.new_label))
            .map_err(|reason| ReadError::item(&item, reason))?;
        let Some(verdict) = verdict else { continue };
        // Not trimmed: a key may end with a space.
        let key = unguarded(record.get(columns.key).unwrap_or_default()).to_owned();
        let at = match cell(columns.at) {
            "" => None,
            text => Some(time(text).ok_or_else(|| {
                ReadError::item(
                    &item,
                    format!("its time {text:?} is not like 2026-11-29T07:00:00Z"),
                )
            })?),
        };
        let by = Some(cell(columns.by)).filter(|by| !by.is_empty()).map(str::to_owned);
        visit(Answer { key, verdict, by, at, item });
    }
    Ok(())
}

/// What two cells say together.
fn verdict(decision: &str, new_label: &str) -> Result<Option<Verdict>, String> {
    // Label Studio's CSV has several choices as JSON.
    let labels = match new_label.strip_prefix('{') {
        Some(_) => serde_json::from_str::<SeveralChoices>(new_label).map(|several| several.choices),
        None => Ok(vec![new_label.to_owned()]),
    };
    let labels = Verdict::labels(labels.unwrap_or_else(|_| vec![new_label.to_owned()]), true);
    let is_relabel = decision.eq_ignore_ascii_case("relabel");
    let word = if is_relabel { None } else { Verdict::of_word(decision)? };
    match (word, labels) {
        (None, None) if is_relabel => {
            Err("its decision is to relabel, and new_label is empty; fill it in".to_owned())
        }
        (None, labels) => Ok(labels),
        (Some(word), None) => Ok(Some(word)),
        (Some(_), Some(_)) => Err(format!(
            "its decision is {decision} and its new_label {new_label}; leave one of them empty"
        )),
    }
}

#[derive(serde::Deserialize)]
struct SeveralChoices {
    choices: Vec<String>,
}
