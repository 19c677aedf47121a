//! What a table's columns and cells are, and how each kind of column is stored in Parquet.
//!
//! Owns the column kinds, their schema and the tables' errors. Writing and reading are next door.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use parquet::basic::{LogicalType, Repetition, TimeUnit, Type as PhysicalType};
use parquet::errors::ParquetError;
use parquet::schema::types::{Type, TypePtr};

/// Rows of a row group. The writer holds one row group in memory.
pub(crate) const GROUP_ROWS: usize = 16 * 1024;

/// A table can't be written or read.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The temporary file can't be written or read.
    #[error("cannot use the temporary file of a table: {0}; is TMPDIR full?")]
    Io(#[from] std::io::Error),
    /// The Parquet library's error.
    #[error("cannot write or read a table: {0}")]
    Parquet(#[from] ParquetError),
}

/// What a column's cells hold. Every cell may be null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    Boolean,
    Integer,
    Float,
    Text,
    /// Texts that begin as the one before does, such as addresses: each is stored as its difference.
    PrefixedText,
    Bytes,
    /// Milliseconds, UTC.
    Time,
    FloatList,
    TextList,
    /// IEEE 754 binary16.
    HalfList,
}

/// One cell of a row.
#[derive(Clone, Copy, Debug)]
pub enum Cell<'a> {
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

/// Columns with a name, a kind and a cell: `columns! { "key" Text |row| Cell::Text(Some(&row.key)); }`.
#[macro_export]
macro_rules! columns {
    ($($name:literal $kind:ident $cell:expr;)+) => {
        &[$($crate::Column {
            name: $name,
            kind: $crate::ColumnKind::$kind,
            cell: $cell,
        }),+]
    };
}

/// A column of a table whose rows are of type `R`.
#[derive(Debug)]
pub struct Column<R> {
    pub name: &'static str,
    pub kind: ColumnKind,
    /// Returns the row's cell, which is of the kind `kind`.
    pub cell: for<'a> fn(&'a R) -> Cell<'a>,
}

impl ColumnKind {
    fn physical(self) -> PhysicalType {
        match self {
            Self::Boolean => PhysicalType::BOOLEAN,
            Self::Integer | Self::Time => PhysicalType::INT64,
            Self::Float | Self::FloatList => PhysicalType::FLOAT,
            Self::Text | Self::PrefixedText | Self::Bytes | Self::TextList => {
                PhysicalType::BYTE_ARRAY
            }
            Self::HalfList => PhysicalType::FIXED_LEN_BYTE_ARRAY,
        }
    }

    fn logical(self) -> Option<LogicalType> {
        match self {
            Self::Text | Self::PrefixedText | Self::TextList => Some(LogicalType::String),
            Self::HalfList => Some(LogicalType::Float16),
            Self::Time => Some(LogicalType::timestamp(true, TimeUnit::MILLIS)),
            Self::Boolean | Self::Integer | Self::Float | Self::Bytes | Self::FloatList => None,
        }
    }

    fn is_list(self) -> bool {
        matches!(self, Self::FloatList | Self::TextList | Self::HalfList)
    }

    /// The column's part of the schema: optional, and for a list a group of required elements.
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

/// The Parquet schema of a table with these columns.
pub(crate) fn schema<R>(columns: &[Column<R>]) -> Result<TypePtr, ParquetError> {
    let fields: Result<Vec<_>, _> =
        columns.iter().map(|column| column.kind.schema(column.name)).collect();
    Ok(Arc::new(Type::group_type_builder("schema").with_fields(fields?).build()?))
}
