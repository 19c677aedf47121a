//! The lines of a list, once its format is known: which image and label each record names.
//!
//! Reads text only and no files, so that a fuzz target can call it.

use camshaft_common::key::ImageKey;
use serde_json::{Map, Value};

pub use crate::images::list_columns::{ColumnsError, ListColumns};
use crate::images::list_fields::{FieldsError, split};
pub use crate::images::list_format::ListFormat;
use crate::images::list_format::TableFormat;
pub use crate::images::list_key::{KeyBase, ListKeyError};

/// The longest line, with its end, and the longest record of several lines: the longest name of an
/// image, or a key and a label that fit into a job's message, where JSON may write one byte as six.
pub const MAX_LINE_BYTES: usize = 8 * 1024;

/// An image as a record names it.
#[derive(Debug, PartialEq, Eq)]
pub struct ListedImage {
    /// Its key.
    pub key: ImageKey,
    /// Its given class.
    pub label: Option<String>,
    /// What it is for in a training: to train, to validate or to test on.
    pub split: Option<String>,
    /// The line that the record begins in, counted from 1.
    pub line: u64,
}

/// A record names no image.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct LineError {
    /// The line that the record begins in, counted from 1.
    pub line: u64,
    /// Why.
    #[source]
    pub problem: LineProblem,
}

/// Why a record names no image.
#[derive(Debug, thiserror::Error)]
pub enum LineProblem {
    /// Its key is none that an image can have.
    #[error(transparent)]
    Key(#[from] ListKeyError),
    /// It has none.
    #[error("it has no key; fill it in, or take the line out")]
    NoKey,
    /// Its quotes don't match.
    #[error(transparent)]
    Fields(#[from] FieldsError),
    /// It has more fields than the list has columns.
    #[error(
        "it has {fields} fields, and the first line has {columns}; put quotes around a field that has a {delimiter:?}"
    )]
    TooManyFields {
        /// Fields of the record.
        fields: usize,
        /// Columns of the list.
        columns: usize,
        /// What separates fields.
        delimiter: char,
    },
    /// It is no JSON object.
    #[error("it is not a JSON object: {0}")]
    Json(#[from] serde_json::Error),
    /// A field of a JSON object is missing or of the wrong kind.
    #[error("its field {field:?} is {found} and not {wanted}")]
    JsonField {
        /// The field.
        field: String,
        /// What is there.
        found: &'static str,
        /// What has to be there.
        wanted: &'static str,
    },
    /// It has more than [`MAX_LINE_BYTES`].
    #[error("it has more than {MAX_LINE_BYTES} bytes; write one key a line")]
    TooLong,
}

/// Reads a list, line by line from the first.
#[derive(Debug)]
pub struct ListLines {
    format: ListFormat,
    base: KeyBase,
    /// Lines read so far.
    line: u64,
    /// True until the first line that is not blank has been read.
    at_start: bool,
    /// The lines of a record whose quote is still open.
    open: Option<OpenRecord>,
}

#[derive(Debug)]
struct OpenRecord {
    text: String,
    first_line: u64,
}

impl ListLines {
    /// Reads a list of this format, of images below `base`.
    #[must_use]
    pub fn new(format: ListFormat, base: KeyBase) -> Self {
        Self { format, base, line: 0, at_start: true, open: None }
    }

    /// Reads the next line, with or without its end. Returns `None` for a blank line, for the header,
    /// and for a record that goes on in the next line.
    ///
    /// # Errors
    /// If the record names no image. Reading can't go on after it.
    pub fn read(&mut self, line: &str) -> Result<Option<ListedImage>, LineError> {
        self.line += 1;
        let first_line = self.open.as_ref().map_or(self.line, |open| open.first_line);
        let read = self.read_record(line, first_line);
        read.map_err(|problem| LineError { line: first_line, problem })
    }

    /// Tells that there are no more lines.
    ///
    /// # Errors
    /// If a record is not complete.
    pub fn end(self) -> Result<(), LineError> {
        match self.open {
            Some(OpenRecord { first_line: line, .. }) => {
                Err(LineError { line, problem: FieldsError::OpenQuote.into() })
            }
            None => Ok(()),
        }
    }

    fn read_record(
        &mut self,
        line: &str,
        first_line: u64,
    ) -> Result<Option<ListedImage>, LineProblem> {
        let open = self.open.take();
        if line.len() > MAX_LINE_BYTES {
            return Err(LineProblem::TooLong);
        }
        let line = if self.line == 1 { line.trim_start_matches('\u{feff}') } else { line };
        if open.is_none() && line.trim().is_empty() {
            return Ok(None);
        }
        let is_first = std::mem::take(&mut self.at_start);
        let text = match &open {
            Some(open) => format!("{}{line}", open.text),
            None => line.to_owned(),
        };
        let record = text.trim_end_matches(['\n', '\r']);
        let Fields { key, label, split } = match &self.format {
            ListFormat::Keys => Fields { key: record.to_owned(), label: None, split: None },
            ListFormat::JsonLines { key, label, split, .. } => {
                json_fields(record, key, label.as_deref(), split.as_deref())?
            }
            ListFormat::Table(table) if is_first && table.has_header => return Ok(None),
            ListFormat::Table(table) => match table_fields(record, table) {
                Err(LineProblem::Fields(FieldsError::OpenQuote))
                    if text.len() <= MAX_LINE_BYTES =>
                {
                    self.open = Some(OpenRecord { text, first_line });
                    return Ok(None);
                }
                // The quote that looks misplaced here may close one that was left open before.
                Err(LineProblem::Fields(_)) if open.is_some() => {
                    return Err(FieldsError::OpenQuote.into());
                }
                fields => fields?,
            },
        };
        if key.is_empty() {
            return Err(LineProblem::NoKey);
        }
        let key = self.base.key(&key)?;
        Ok(Some(ListedImage { key, label, split, line: first_line }))
    }
}

/// What is read of a record.
struct Fields {
    key: String,
    label: Option<String>,
    split: Option<String>,
}

/// The fields of a record of a table.
fn table_fields(record: &str, table: &TableFormat) -> Result<Fields, LineProblem> {
    let TableFormat { delimiter, width, columns, .. } = table;
    let mut fields = split(record, *delimiter)?;
    let used = fields.iter().rposition(|field| !field.is_empty()).map_or(0, |last| last + 1);
    if let (Some(delimiter), true) = (*delimiter, used > *width) {
        let fields = fields.len();
        return Err(LineProblem::TooManyFields { fields, columns: *width, delimiter });
    }
    let mut take = |at: usize| fields.get_mut(at).map(std::mem::take).unwrap_or_default();
    // The same column may be named for both.
    let label = columns.label.filter(|label| *label != columns.key).map(&mut take);
    let split = columns.split.map(&mut take).filter(|split| !split.is_empty());
    let key = take(columns.key);
    Ok(Fields { key, label: label.filter(|label| !label.is_empty()), split })
}

/// The fields of a JSON object.
fn json_fields(
    record: &str,
    key: &str,
    label: Option<&str>,
    split: Option<&str>,
) -> Result<Fields, LineProblem> {
    let object: Map<String, Value> = serde_json::from_str(record)?;
    let wrong = |field: &str, value: Option<&Value>, wanted| LineProblem::JsonField {
        field: field.to_owned(),
        found: kind_of(value),
        wanted,
    };
    let key = match object.get(key) {
        Some(Value::String(key)) => key.clone(),
        other => return Err(wrong(key, other, "a text")),
    };
    // Only trainings read it. What is no text is none there, and nothing elsewhere.
    let split = split.and_then(|split| object.get(split)).and_then(Value::as_str);
    let split = split.map(|split| split.trim().to_owned()).filter(|split| !split.is_empty());
    let Some(label_field) = label else { return Ok(Fields { key, label: None, split }) };
    let label = match object.get(label_field) {
        None | Some(Value::Null) => None,
        Some(Value::String(label)) => Some(label.trim().to_owned()),
        Some(Value::Number(label)) => Some(label.to_string()),
        other => return Err(wrong(label_field, other, "a text or a number")),
    };
    Ok(Fields { key, label: label.filter(|label| !label.is_empty()), split })
}

fn kind_of(value: Option<&Value>) -> &'static str {
    match value {
        None => "missing",
        Some(Value::Null) => "null",
        Some(Value::Bool(_)) => "true or false",
        Some(Value::Number(_)) => "a number",
        Some(Value::String(_)) => "a text",
        Some(Value::Array(_)) => "a list",
        Some(Value::Object(_)) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Listed = Vec<(String, Option<String>, u64)>;

    fn read(content: &str) -> Result<Listed, LineError> {
        let format = ListFormat::recognise(content, false, &ListColumns::default()).unwrap();
        let base = KeyBase::new(&"/data".parse().unwrap());
        let mut lines = ListLines::new(format, base);
        let mut listed = Vec::new();
        for line in content.split_inclusive('\n') {
            if let Some(ListedImage { key, label, line, .. }) = lines.read(line)? {
                listed.push((key.into(), label, line));
            }
        }
        lines.end()?;
        Ok(listed)
    }

    fn listed(key: &str, label: &str, line: u64) -> (String, Option<String>, u64) {
        (key.to_owned(), Some(label.to_owned()).filter(|label| !label.is_empty()), line)
    }

    #[test]
    fn fields_are_trimmed_like_the_header() {
        for (content, expected) in [
            ("key, label\na.jpg, cat\n b.jpg ,\n", &[("a.jpg", "cat", 2), ("b.jpg", "", 3)][..]),
            (
                "key;label\r\na, b.jpg;cat\r\n\r\nc.jpg\r\n",
                &[("a, b.jpg", "cat", 2), ("c.jpg", "", 4)],
            ),
            ("path\tclass\na b.jpg\tbig cat\n", &[("a b.jpg", "big cat", 2)]),
            ("key,label\na.jpg,cat,,\n", &[("a.jpg", "cat", 2)]),
            ("key\na, b.jpg\n\"c, d.jpg\"\n", &[("a, b.jpg", "", 2), ("c, d.jpg", "", 3)]),
            (
                "key,label\n/data/cat/a.jpg,cat\n./b.jpg,dog\n",
                &[("cat/a.jpg", "cat", 2), ("b.jpg", "dog", 3)],
            ),
        ] {
            let expected: Vec<_> = expected.iter().map(|&(k, l, n)| listed(k, l, n)).collect();
            assert_eq!(read(content).unwrap(), expected, "{content:?}");
        }
    }

    #[test]
    fn a_column_of_splits_is_read_for_trainings() {
        for content in [
            "key,label,split\na.jpg,cat, train\nb.jpg,dog,\n",
            "Subset;Label;Filename\ntrain;cat;a.jpg\n;dog;b.jpg\n",
            "{\"key\": \"a.jpg\", \"label\": 1, \"split\": \"train\"}\n{\"key\": \"b.jpg\", \"split\": \"\"}\n",
        ] {
            let format = ListFormat::recognise(content, false, &ListColumns::default()).unwrap();
            let mut lines = ListLines::new(format, KeyBase::new(&"/data".parse().unwrap()));
            let images = content.lines().filter_map(|line| lines.read(line).unwrap());
            let splits: Vec<_> = images.map(|image| image.split).collect();
            assert_eq!(splits, [Some("train".to_owned()), None], "{content}");
        }
    }

    #[test]
    fn a_quoted_field_may_have_line_ends_and_an_open_quote_is_named() {
        let content = "key,label,note\na.jpg,cat,\"two\nlines\"\nb.jpg,\"a\n\nb\",\n";
        let expected = [listed("a.jpg", "cat", 2), listed("b.jpg", "a\n\nb", 4)];
        assert_eq!(read(content).unwrap(), expected);
        for content in [
            "key,label\na.jpg,cat\nb.jpg,\"dog\nc.jpg,cat\n",
            "key,label\na.jpg,cat\nb.jpg,\"dog\nc.jpg,\"cat\"\n",
            "key,label\na.jpg,cat\n\"b.jpg,dog\n\"c.jpg\",cat\n",
        ] {
            let error = read(content).unwrap_err().to_string();
            assert!(error.contains("line 3") && error.contains("not closed"), "{error}");
        }
        let long = format!("key,label\na.jpg,\"{}", "cat\n".repeat(MAX_LINE_BYTES));
        let error = read(&long).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("not closed"), "{error}");
    }

    #[test]
    fn records_of_another_shape_are_refused() {
        for (content, expected) in [
            ("key,label\na, b.jpg,cat\n", "3 fields, and the first line has 2"),
            ("key,label\n\"a\"b.jpg,cat\n", "closing quote"),
            ("key,label\n/other/a.jpg,cat\n", "not below --base, /data"),
            ("{\"key\": \"a.jpg\"}\n{\"key\": 3}\n", "is a number and not a text"),
            ("{\"key\": \"a.jpg\"}\n{\"path\": \"b.jpg\"}\n", "is missing"),
            ("{\"key\": \"a.jpg\", \"label\": [1]}\n", "is a list"),
        ] {
            let error = read(content).unwrap_err().to_string();
            assert!(error.contains(expected), "{content:?}: {error}");
        }
    }

    #[test]
    fn json_lines_have_text_and_number_labels() {
        let content = "{\"file_name\": \"a, b.jpg\", \"label\": \" cat\"}\n\n\
            {\"label\": 281, \"file_name\": \"./b.jpg\"}\n{\"file_name\": \"c.jpg\", \"label\": null}\n";
        assert_eq!(
            read(content).unwrap(),
            [listed("a, b.jpg", "cat", 1), listed("b.jpg", "281", 3), listed("c.jpg", "", 4)]
        );
    }
}
