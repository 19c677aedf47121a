//! Parquet files, a column at a time: what a column is, [`write`](writer) and [`read`](reader).
//!
//! Knows nothing of images. The low-level interface of the parquet crate is used, since Arrow
//! would be most of the program's build.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use parquet::basic::{LogicalType, Repetition, TimeUnit, Type as PhysicalType};
use parquet::errors::ParquetError;
use parquet::schema::types::{Type, TypePtr};

mod reader;
mod writer;

pub(crate) use reader::TableReader;
pub(crate) use writer::TableWriter;

/// Rows of a row group: what is held in memory at once.
pub(crate) const GROUP_ROWS: usize = 16 * 1024;

/// A table can't be written or read.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The disk's error.
    #[error("cannot use the temporary file of a table: {0}; is TMPDIR full?")]
    Io(#[from] std::io::Error),
    /// The format's error.
    #[error("cannot write or read a table: {0}")]
    Parquet(#[from] ParquetError),
}

/// What a column's cells hold. Every one may be null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ColumnKind {
    Boolean,
    Integer,
    Float,
    Text,
    Bytes,
    /// Milliseconds, UTC.
    Time,
    FloatList,
    TextList,
    /// IEEE 754 binary16.
    HalfList,
}

/// One cell.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cell<'a> {
    Boolean(Option<bool>),
    Integer(Option<i64>),
    Float(Option<f32>),
    Text(Option<&'a str>),
    Bytes(Option<&'a [u8]>),
    Time(Option<DateTime<Utc>>),
    FloatList(Option<&'a [f32]>),
    TextList(Option<&'a [String]>),
    HalfList(Option<&'a [[u8; 2]]>),
}

/// A column of a table of `R`.
#[derive(Debug)]
pub(crate) struct Column<R> {
    pub(crate) name: &'static str,
    pub(crate) kind: ColumnKind,
    /// The row's cell; of this kind.
    pub(crate) cell: for<'a> fn(&'a R) -> Cell<'a>,
}

impl ColumnKind {
    fn physical(self) -> PhysicalType {
        match self {
            Self::Boolean => PhysicalType::BOOLEAN,
            Self::Integer | Self::Time => PhysicalType::INT64,
            Self::Float | Self::FloatList => PhysicalType::FLOAT,
            Self::Text | Self::Bytes | Self::TextList => PhysicalType::BYTE_ARRAY,
            Self::HalfList => PhysicalType::FIXED_LEN_BYTE_ARRAY,
        }
    }

    fn logical(self) -> Option<LogicalType> {
        match self {
            Self::Text | Self::TextList => Some(LogicalType::String),
            Self::HalfList => Some(LogicalType::Float16),
            Self::Time => Some(LogicalType::timestamp(true, TimeUnit::MILLIS)),
            Self::Boolean | Self::Integer | Self::Float | Self::Bytes | Self::FloatList => None,
        }
    }

    fn is_list(self) -> bool {
        matches!(self, Self::FloatList | Self::TextList | Self::HalfList)
    }

    fn schema(self, name: &str) -> Result<TypePtr, ParquetError> {
        let value = |name: &str, repetition| {
            Type::primitive_type_builder(name, self.physical())
                .with_repetition(repetition)
                .with_logical_type(self.logical())
                .with_length(if self == Self::HalfList { 2 } else { -1 })
                .build()
                .map(Arc::new)
        };
        if !self.is_list() {
            return value(name, Repetition::OPTIONAL);
        }
        let element = value("element", Repetition::REQUIRED)?;
        let list = Type::group_type_builder("list")
            .with_repetition(Repetition::REPEATED)
            .with_fields(vec![element])
            .build()?;
        let whole = Type::group_type_builder(name)
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type(Some(LogicalType::List))
            .with_fields(vec![Arc::new(list)])
            .build()?;
        Ok(Arc::new(whole))
    }
}

fn schema<R>(columns: &[Column<R>]) -> Result<TypePtr, ParquetError> {
    let fields: Result<Vec<_>, _> =
        columns.iter().map(|column| column.kind.schema(column.name)).collect();
    Ok(Arc::new(Type::group_type_builder("schema").with_fields(fields?).build()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Row {
        name: Option<String>,
        number: Option<f32>,
        yes: Option<bool>,
        map: Option<Vec<f32>>,
        words: Vec<String>,
        halves: Option<Vec<[u8; 2]>>,
    }

    const COLUMNS: &[Column<Row>] = &[
        Column { name: "name", kind: ColumnKind::Text, cell: |r| Cell::Text(r.name.as_deref()) },
        Column { name: "number", kind: ColumnKind::Float, cell: |r| Cell::Float(r.number) },
        Column { name: "yes", kind: ColumnKind::Boolean, cell: |r| Cell::Boolean(r.yes) },
        Column {
            name: "map",
            kind: ColumnKind::FloatList,
            cell: |r| Cell::FloatList(r.map.as_deref()),
        },
        Column {
            name: "words",
            kind: ColumnKind::TextList,
            cell: |r| Cell::TextList(Some(&r.words)),
        },
        Column {
            name: "halves",
            kind: ColumnKind::HalfList,
            cell: |r| Cell::HalfList(r.halves.as_deref()),
        },
    ];

    fn row(index: usize) -> Row {
        let some = !index.is_multiple_of(3);
        Row {
            name: some.then(|| format!("row {index}")),
            number: some.then_some(index as f32),
            yes: some.then_some(index.is_multiple_of(2)),
            map: some.then(|| vec![index as f32; index % 4]),
            words: (0..index % 3).map(|word| word.to_string()).collect(),
            halves: some.then(|| vec![[1, 2]; 2]),
        }
    }

    #[test]
    fn what_is_written_is_read_in_every_group() {
        let file = tempfile::tempfile().unwrap();
        let mut writer = TableWriter::new(file.try_clone().unwrap(), COLUMNS).unwrap();
        let rows = 2 * GROUP_ROWS + 5;
        for index in 0..rows {
            writer.push(row(index)).unwrap();
        }
        assert_eq!(writer.finish().unwrap(), rows as u64);

        let reader = TableReader::open(file).unwrap();
        assert_eq!((reader.groups(), reader.rows()), (3, rows));
        let mut at = 0;
        for group in 0..reader.groups() {
            let (names, numbers) =
                (reader.texts(group, "name").unwrap(), reader.floats(group, "number").unwrap());
            let maps = reader.float_lists(group, "map").unwrap();
            let words = reader.text_lists(group, "words").unwrap();
            for index in 0..names.len() {
                let row = row(at);
                assert_eq!(names[index], row.name);
                assert_eq!(Some(numbers[index]).filter(|x| !x.is_nan()), row.number);
                assert_eq!(maps.get(index), row.map.unwrap_or_default());
                assert_eq!(words.get(index), row.words);
                at += 1;
            }
        }
        assert_eq!(at, rows);
    }
}
