//! Reads a label map: CSV with the columns label and class, with or without a header, or a JSON
//! object.

use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use camshaft_common::label::fold;

use crate::images::list_fields::{FieldsError, split};
use crate::images::list_format::DELIMITERS;

/// The largest label map; `run.json` has a copy of it.
const MAX_BYTES: u64 = 4 << 20;

/// A label map can't be read. The text begins with the place in the file.
#[derive(Debug, thiserror::Error)]
pub enum LabelMapFileError {
    /// The file can't be read.
    #[error(": {0}")]
    Read(#[from] io::Error),
    /// It has more than 4 MiB.
    #[error(": it has more than 4 MiB")]
    TooLong,
    /// It has no labels.
    #[error(": it maps no label; write label,class on a line for each")]
    Empty,
    /// Its quotes don't match.
    #[error(", line {line}: {source}")]
    Fields {
        /// Counted from 1.
        line: u64,
        /// Why.
        #[source]
        source: FieldsError,
    },
    /// A line has not two fields.
    #[error(
        ", line {line}: it has {fields} fields instead of 2, label and class; put quotes around a name \
         with a comma"
    )]
    FieldCount {
        /// Counted from 1.
        line: u64,
        /// Its fields.
        fields: usize,
    },
    /// A label or class is empty.
    #[error(", line {line}: the label or the class is empty")]
    EmptyField {
        /// Counted from 1.
        line: u64,
    },
    /// It is not the JSON of a label map.
    #[error(": it is not a JSON object of labels with a class name or index each: {0}")]
    Json(#[from] serde_json::Error),
}

/// A label of the map, and its class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MappedLabel {
    pub(super) label: String,
    pub(super) class: MappedClass,
    /// Counted from 1.
    pub(super) line: u64,
}

/// A class as the map names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MappedClass {
    /// A name, or an index as text.
    Name(String),
    /// An index.
    Index(usize),
}

impl fmt::Display for MappedClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name:?}"),
            Self::Index(index) => write!(f, "class {index}"),
        }
    }
}

/// Reads the file at `path`.
pub(super) fn read(path: &Path) -> Result<Vec<MappedLabel>, LabelMapFileError> {
    let mut content = String::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut content)?;
    if content.len() as u64 > MAX_BYTES {
        return Err(LabelMapFileError::TooLong);
    }
    let content = content.trim_start_matches('\u{feff}');
    let labels = if content.trim_start().starts_with('{') {
        parse_json(content)?
    } else {
        parse_table(content)?
    };
    if labels.is_empty() { Err(LabelMapFileError::Empty) } else { Ok(labels) }
}

fn parse_table(content: &str) -> Result<Vec<MappedLabel>, LabelMapFileError> {
    let lines = content.lines().zip(1_u64..).filter(|(line, _)| !line.trim().is_empty());
    let mut lines = lines.peekable();
    let Some(&(first, _)) = lines.peek() else { return Ok(Vec::new()) };
    // The delimiter that makes two fields of most lines. If two do, the last: the rarest in names.
    let two = |delimiter: &char| {
        let lines = lines.clone();
        lines.filter(|(line, _)| split(line, Some(*delimiter)).is_ok_and(|f| f.len() == 2)).count()
    };
    let delimiter = DELIMITERS.into_iter().max_by_key(two).unwrap_or(',');
    let mut order = [0, 1];
    if let Ok(fields) = split(first, Some(delimiter))
        && let Some(found) = header_order(&fields)
    {
        order = found;
        lines.next();
    }
    let mut labels = Vec::new();
    for (text, line) in lines {
        let fields = split(text, Some(delimiter));
        let fields = fields.map_err(|source| LabelMapFileError::Fields { line, source })?;
        let count = fields.len();
        let Ok(fields) = <[String; 2]>::try_from(fields) else {
            return Err(LabelMapFileError::FieldCount { line, fields: count });
        };
        let [label, class] = order.map(|at| fields[at].clone());
        if label.is_empty() || class.is_empty() {
            return Err(LabelMapFileError::EmptyField { line });
        }
        labels.push(MappedLabel { label, class: MappedClass::Name(class), line });
    }
    Ok(labels)
}

/// The positions of label and class if these are the names of the two columns.
fn header_order(fields: &[String]) -> Option<[usize; 2]> {
    let is_class = |name: &str| matches!(name, "class" | "class name" | "class index");
    match fields.iter().map(|field| fold(field)).collect::<Vec<_>>().as_slice() {
        [label, class] if label == "label" && is_class(class) => Some([0, 1]),
        [class, label] if label == "label" && is_class(class) => Some([1, 0]),
        _ => None,
    }
}

fn parse_json(content: &str) -> Result<Vec<MappedLabel>, LabelMapFileError> {
    let line = Cell::new(1);
    let reader = LineCounter { rest: content.as_bytes(), line: &line };
    let mut json = serde_json::Deserializer::from_reader(reader);
    let labels = json.deserialize_map(LabelsVisitor { line: &line })?;
    json.end()?;
    Ok(labels)
}

/// Gives a parser one byte after the other, and counts their lines. serde_json reads no byte before
/// it needs it.
struct LineCounter<'a> {
    rest: &'a [u8],
    line: &'a Cell<u64>,
}

impl Read for LineCounter<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (Some((&byte, rest)), Some(first)) = (self.rest.split_first(), buffer.first_mut())
        else {
            return Ok(0);
        };
        *first = byte;
        self.rest = rest;
        if byte == b'\n' {
            self.line.set(self.line.get() + 1);
        }
        Ok(1)
    }
}

/// Reads the entries of an object in their order, those with the same label among them.
struct LabelsVisitor<'a> {
    line: &'a Cell<u64>,
}

impl<'de> Visitor<'de> for LabelsVisitor<'_> {
    type Value = Vec<MappedLabel>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of labels")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut labels = Vec::new();
        while let Some(label) = map.next_key::<String>()? {
            let line = self.line.get();
            let class: MappedClass = map.next_value()?;
            let label = label.trim().to_owned();
            if label.is_empty() {
                return Err(A::Error::custom("a label is empty"));
            }
            labels.push(MappedLabel { label, class, line });
        }
        Ok(labels)
    }
}

impl<'de> Deserialize<'de> for MappedClass {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ClassVisitor;
        impl Visitor<'_> for ClassVisitor {
            type Value = MappedClass;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a class name or index")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
                match name.trim() {
                    "" => Err(E::custom("a class is empty")),
                    name => Ok(MappedClass::Name(name.to_owned())),
                }
            }

            fn visit_u64<E: Error>(self, index: u64) -> Result<Self::Value, E> {
                usize::try_from(index).map(MappedClass::Index).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(ClassVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(label: &str, class: &str, line: u64) -> MappedLabel {
        let class = MappedClass::Name(class.to_owned());
        MappedLabel { label: label.to_owned(), class, line }
    }

    #[test]
    fn tables_may_have_a_header_and_any_delimiter() {
        for (content, expected) in [
            ("a,cat\nb, dog \n", vec![named("a", "cat", 1), named("b", "dog", 2)]),
            ("label,class\r\na,cat\r\n", vec![named("a", "cat", 2)]),
            ("Class;Label\ncat;a\n", vec![named("a", "cat", 2)]),
            ("\nlabel\tclass\n\na\ttabby, tabby cat\n", vec![named("a", "tabby, tabby cat", 4)]),
            ("a,\"tabby, tabby cat\"\n", vec![named("a", "tabby, tabby cat", 1)]),
            ("class,cat\n", vec![named("class", "cat", 1)]),
        ] {
            assert_eq!(parse_table(content).unwrap(), expected, "{content:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (content, expected) in [
            ("a,cat\nb\n", ", line 2: it has 1 fields"),
            ("a,cat\nb,tabby, tabby cat\n", ", line 2: it has 3 fields"),
            ("a,cat\n,dog\n", ", line 2: the label or the class is empty"),
            ("a,cat\n\"b,dog\n", ", line 2: a quote is not closed"),
        ] {
            let error = parse_table(content).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{content:?}: {error}");
        }
        for content in ["{\"a\": }", "{\"a\": [1]}", "{\"a\": -1}", "{\"a\": \"\"}", "{\"a\": 1} x"]
        {
            assert!(parse_json(content).is_err(), "{content}");
        }
    }

    #[test]
    fn json_entries_keep_their_lines_and_order() {
        let labels = parse_json("{\n \"b\": \"cat\",\n\n \"a\":\n 1,\n \"b\": \"dog\"\n}").unwrap();
        let index = MappedLabel { label: "a".into(), class: MappedClass::Index(1), line: 4 };
        assert_eq!(labels, [named("b", "cat", 2), index, named("b", "dog", 6)]);
        assert_eq!(parse_json("{}").unwrap(), []);
    }
}
