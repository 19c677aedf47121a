//! CSV for a spreadsheet: a line for each image, with empty columns for what people decide; and back.
//!
//! It begins with a byte order mark, without which Excel takes UTF-8 for another encoding. A text that a
//! spreadsheet would take for a formula has an apostrophe before it, which is taken away again. Label Studio's
//! own CSV is read, too: it has the columns of the tasks' data beside those of the annotation.

use std::collections::HashSet;
use std::io::{BufRead, Write};

use crate::answer::{Answer, Verdict, time};
use crate::byte_order_mark::BOM;
use crate::error::{ReadError, WriteError};
use crate::image::ExportImage;
use crate::line_numbers::LineNumbers;

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
/// The columns that are read, for messages.
pub(crate) const READ_COLUMNS: &str = "key, and decision or new_label";
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
    fn of(names: &[String]) -> Option<Self> {
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

    /// The name of one of them that another column has, too.
    fn twice<'a>(&self, names: &'a [String]) -> Option<&'a str> {
        let Self { key, decision, new_label, by, at } = *self;
        let read: HashSet<_> = [Some(key), decision, new_label, by, at].into_iter().collect();
        let mut numbered = names.iter().enumerate();
        let twice = numbered.find(|(number, name)| {
            read.contains(&Some(*number)) && names.iter().filter(|other| other == name).count() > 1
        });
        twice.map(|(_, name)| name.as_str())
    }
}

fn plain_names<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    names.map(|name| name.trim().to_ascii_lowercase()).collect()
}

/// The delimiter of a header line: the one that is there most often.
fn delimiter(line: &[u8]) -> u8 {
    let count = |delimiter: &u8| line.iter().filter(|byte| *byte == delimiter).count();
    // Of several with the same count the first.
    DELIMITERS.into_iter().rev().max_by_key(count).unwrap_or(b',')
}

fn first_line(text: &[u8]) -> &[u8] {
    text.split(|byte| matches!(byte, b'\n' | b'\r')).next().unwrap_or_default()
}

/// The delimiter that the first line tells Excel, such as `sep=;`, and the bytes of that line with its end.
fn told_delimiter(head: &[u8]) -> Option<(u8, usize)> {
    let line = first_line(head);
    let text = str::from_utf8(line).ok()?.trim_matches('"');
    let (name, delimiter) = text.split_at_checked(4)?;
    let &[delimiter] = delimiter.as_bytes() else { return None };
    let is_told = name.eq_ignore_ascii_case("sep=") && !delimiter.is_ascii_alphanumeric();
    let end = match head.get(line.len()..).unwrap_or_default() {
        [b'\r', b'\n', ..] => 2,
        [] => 0,
        _ => 1,
    };
    is_told.then_some((delimiter, line.len() + end))
}

/// What the beginning of a file tells of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// It has the columns that are read.
    Header,
    /// It has others, or no header.
    OtherTable,
    /// It seems to be no table.
    NoTable,
}

/// What a file begins with.
pub(crate) fn start(head: &[u8]) -> Start {
    let told = told_delimiter(head);
    let (line, delimiter) = match told {
        Some((delimiter, bytes)) => (first_line(&head[bytes..]), delimiter),
        None => (first_line(head), delimiter(first_line(head))),
    };
    let Ok(text) = str::from_utf8(line) else { return Start::NoTable };
    let names = text.split(char::from(delimiter)).map(|name| name.trim().trim_matches('"'));
    if ReadColumns::of(&plain_names(names)).is_some() {
        Start::Header
    } else if told.is_some() || line.contains(&delimiter) {
        Start::OtherTable
    } else {
        Start::NoTable
    }
}

/// Reads a file, one line at a time.
pub(crate) fn read(
    mut reader: impl BufRead,
    visit: &mut dyn FnMut(Answer),
) -> Result<(), ReadError> {
    crate::byte_order_mark::skip_bom(&mut reader)?;
    let head = reader.fill_buf()?;
    let (delimiter, first) = match told_delimiter(head) {
        Some((delimiter, bytes)) => {
            reader.consume(bytes);
            (delimiter, 2)
        }
        None => (delimiter(first_line(head)), 1),
    };
    let reader = LineNumbers::from(reader, first);
    let mut csv = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(reader);
    let names = match csv.headers() {
        Ok(names) => plain_names(names.iter()),
        Err(error) => return Err(refused(error, csv.get_mut())),
    };
    let header = || format!("line {first}");
    let Some(columns) = ReadColumns::of(&names) else {
        return Err(ReadError::item(header(), format!("it names no columns {READ_COLUMNS}")));
    };
    if let Some(name) = columns.twice(&names) {
        let reason = format!("it names two columns {name}; take one out, or give it another name");
        return Err(ReadError::item(header(), reason));
    }
    let mut record = csv::StringRecord::new();
    loop {
        match csv.read_record(&mut record) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) => return Err(refused(error, csv.get_mut())),
        }
        let byte = record.position().map_or(0, csv::Position::byte);
        let item = format!("line {}", csv.get_mut().at(byte));
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
}

/// What is wrong with a line.
fn refused<R>(error: csv::Error, lines: &mut LineNumbers<R>) -> ReadError {
    let reason = match error.kind() {
        csv::ErrorKind::Utf8 { .. } => {
            "it is not UTF-8; save the file as UTF-8, in Excel as CSV UTF-8".to_owned()
        }
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("its number of cells is {len}, and that of the columns {expected_len}")
        }
        _ => return error.into(),
    };
    match error.position() {
        Some(position) => ReadError::item(format!("line {}", lines.at(position.byte())), reason),
        None => error.into(),
    }
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
