//! Writes a table as Parquet. Holds at most one row group in memory.

use std::fs::File;
use std::sync::Arc;

use parquet::basic::{Compression, Encoding};
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, FixedLenByteArray, FixedLenByteArrayType,
    FloatType, Int64Type,
};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::ColumnPath;

use super::column::{Cell, Column, ColumnKind, GROUP_ROWS, TableError, schema};

/// Values of lists that are given to Parquet at once, about.
const BATCH_VALUES: usize = 1 << 18;

/// A table being written.
pub struct TableWriter<R: 'static> {
    columns: &'static [Column<R>],
    file: SerializedFileWriter<File>,
    group: Vec<R>,
    rows: u64,
}

impl<R> TableWriter<R> {
    /// Starts a table in an empty file.
    ///
    /// # Errors
    /// If the file can't be written or read.
    pub fn new(file: File, columns: &'static [Column<R>]) -> Result<Self, TableError> {
        let mut properties = WriterProperties::builder()
            // Snappy is the one codec that every reader supports.
            .set_compression(Compression::SNAPPY)
            .set_created_by(concat!("camshaft ", env!("CARGO_PKG_VERSION")).to_owned());
        // Nobody looks for a half by its value, and a dictionary of halves saves nothing.
        for column in columns.iter().filter(|column| column.kind == ColumnKind::HalfList) {
            let path = ["list", "element"].map(str::to_owned);
            let path = ColumnPath::new([vec![column.name.to_owned()], path.to_vec()].concat());
            properties = properties
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_statistics_enabled(path, EnabledStatistics::None);
        }
        for column in columns.iter().filter(|column| column.kind == ColumnKind::PrefixedText) {
            let path = ColumnPath::new(vec![column.name.to_owned()]);
            properties = properties
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path, Encoding::DELTA_BYTE_ARRAY);
        }
        let properties = Arc::new(properties.build());
        let file = SerializedFileWriter::new(file, schema(columns)?, properties)?;
        Ok(Self { columns, file, group: Vec::new(), rows: 0 })
    }

    /// Adds names and values to the file's metadata: what all rows have in common.
    #[must_use]
    pub fn with_metadata(mut self, metadata: &[(String, String)]) -> Self {
        for (name, value) in metadata {
            self.file.append_key_value_metadata(KeyValue::new(name.clone(), value.clone()));
        }
        self
    }

    /// Adds a row.
    ///
    /// # Errors
    /// If the file can't be written or read.
    pub fn push(&mut self, row: R) -> Result<(), TableError> {
        self.group.push(row);
        self.rows += 1;
        if self.group.len() >= GROUP_ROWS {
            self.write_group()?;
        }
        Ok(())
    }

    /// Writes the last row group and the file's end; returns the number of rows.
    ///
    /// # Errors
    /// If the file can't be written or read.
    pub fn finish(mut self) -> Result<u64, TableError> {
        self.write_group()?;
        self.file.close()?;
        Ok(self.rows)
    }

    fn write_group(&mut self) -> Result<(), TableError> {
        if self.group.is_empty() {
            return Ok(());
        }
        let mut group = self.file.next_row_group()?;
        for column in self.columns {
            let mut writer = group.next_column()?.expect("the schema has each column once");
            write_column(&mut writer, column, &self.group)?;
            writer.close()?;
        }
        group.close()?;
        self.group.clear();
        Ok(())
    }
}

fn write_column<R>(
    writer: &mut SerializedColumnWriter<'_>,
    column: &Column<R>,
    rows: &[R],
) -> Result<(), TableError> {
    let cells = || rows.iter().map(|row| (column.cell)(row));
    let name = column.name;
    // A cell whose kind is not its column's is a bug in the list of columns.
    macro_rules! plain {
        ($physical:ty, $pattern:pat => $value:expr) => {{
            let values = cells().map(|cell| match cell {
                $pattern => $value,
                other => unreachable!("{name} holds {other:?}"),
            });
            write_values::<$physical>(writer, values)
        }};
    }
    macro_rules! list {
        ($physical:ty, $variant:ident, $value:expr) => {{
            let lists = cells().map(|cell| match cell {
                Cell::$variant(list) => list.map(|list| list.iter().map($value)),
                other => unreachable!("{name} holds {other:?}"),
            });
            write_lists::<$physical, _>(writer, lists)
        }};
    }
    match column.kind {
        ColumnKind::Boolean => plain!(BoolType, Cell::Boolean(value) => value),
        ColumnKind::Integer => plain!(Int64Type, Cell::Integer(value) => value),
        ColumnKind::Float => plain!(FloatType, Cell::Float(value) => value),
        ColumnKind::Text | ColumnKind::PrefixedText => {
            plain!(ByteArrayType, Cell::Text(value) => value.map(ByteArray::from))
        }
        ColumnKind::Bytes => {
            plain!(ByteArrayType, Cell::Bytes(value) => value.map(|bytes| bytes.to_vec().into()))
        }
        ColumnKind::Time => {
            plain!(Int64Type, Cell::Time(value) => value.map(|time| time.timestamp_millis()))
        }
        ColumnKind::FloatList => list!(FloatType, FloatList, |&value| value),
        ColumnKind::TextList => {
            list!(ByteArrayType, TextList, |text: &String| ByteArray::from(text.as_str()))
        }
        ColumnKind::HalfList => list!(FixedLenByteArrayType, HalfList, |half: &[u8; 2]| {
            FixedLenByteArray::from(half.to_vec())
        }),
    }
}

/// Writes optional values. Definition level 0 is null, 1 a value.
fn write_values<T: DataType>(
    writer: &mut SerializedColumnWriter<'_>,
    cells: impl Iterator<Item = Option<T::T>>,
) -> Result<(), TableError> {
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    for cell in cells {
        levels.push(i16::from(cell.is_some()));
        values.extend(cell);
    }
    writer.typed::<T>().write_batch(&values, Some(&levels), None)?;
    Ok(())
}

/// Writes optional lists. Definition level 0 is null, 1 an empty list, 2 an element. Repetition
/// level 0 starts a row, 1 continues its list.
fn write_lists<T: DataType, L: Iterator<Item = T::T>>(
    writer: &mut SerializedColumnWriter<'_>,
    lists: impl Iterator<Item = Option<L>>,
) -> Result<(), TableError> {
    let writer = writer.typed::<T>();
    let (mut values, mut definitions, mut repetitions) = (Vec::new(), Vec::new(), Vec::new());
    for list in lists {
        // Parquet's values are larger than numbers: a row group of embeddings would take gigabytes.
        if values.len() >= BATCH_VALUES {
            writer.write_batch(&values, Some(&definitions), Some(&repetitions))?;
            values.clear();
            definitions.clear();
            repetitions.clear();
        }
        let before = values.len();
        let is_null = list.is_none();
        values.extend(list.into_iter().flatten());
        let elements = values.len() - before;
        repetitions.push(0);
        if elements == 0 {
            definitions.push(i16::from(!is_null));
            continue;
        }
        definitions.extend(std::iter::repeat_n(2, elements));
        repetitions.extend(std::iter::repeat_n(1, elements - 1));
    }
    writer.write_batch(&values, Some(&definitions), Some(&repetitions))?;
    Ok(())
}
