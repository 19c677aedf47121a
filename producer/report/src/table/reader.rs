//! Reads single columns of a table, a row group at a time.

use std::collections::HashMap;
use std::fs::File;

use parquet::column::reader::get_typed_column_reader;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, FloatType, Int64Type};
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::TableError;

/// A table to read. Asking for a column it has not, or of another kind, is a bug and panics.
pub(crate) struct TableReader {
    file: SerializedFileReader<File>,
    columns: HashMap<String, usize>,
}

/// The lists of a group's rows, one after the other. A null is an empty list.
#[derive(Debug)]
pub(crate) struct Lists<T> {
    values: Vec<T>,
    /// Where each list ends.
    ends: Vec<usize>,
}

impl<T> Lists<T> {
    /// The list of a row of the group.
    pub(crate) fn get(&self, row: usize) -> &[T] {
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.values[start..self.ends[row]]
    }

    /// The lists, in the order of rows.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[T]> {
        (0..self.ends.len()).map(|row| self.get(row))
    }
}

impl TableReader {
    /// Opens a finished table.
    pub(crate) fn open(file: File) -> Result<Self, TableError> {
        let file = SerializedFileReader::new(file)?;
        let schema = file.metadata().file_metadata().schema_descr();
        let columns = schema.columns().iter().enumerate();
        let columns =
            columns.map(|(index, column)| (column.path().parts()[0].clone(), index)).collect();
        Ok(Self { file, columns })
    }

    /// Number of row groups.
    pub(crate) fn groups(&self) -> usize {
        self.file.num_row_groups()
    }

    /// Number of rows of all groups.
    pub(crate) fn rows(&self) -> usize {
        (0..self.groups()).map(|group| self.rows_of(group)).sum()
    }

    /// Number of rows of one group.
    pub(crate) fn rows_of(&self, group: usize) -> usize {
        usize::try_from(self.file.metadata().row_group(group).num_rows()).unwrap_or(0)
    }

    /// Numbers, NaN for null.
    pub(crate) fn floats(&self, group: usize, name: &str) -> Result<Vec<f32>, TableError> {
        let column = self.column::<FloatType>(group, name)?;
        Ok(column.cells().map(|cell| cell.unwrap_or(f32::NAN)).collect())
    }

    /// A column of numbers of all groups, NaN for null.
    pub(crate) fn all_floats(&self, name: &str) -> Result<Vec<f32>, TableError> {
        let mut all = Vec::with_capacity(self.rows());
        for group in 0..self.groups() {
            all.extend(self.floats(group, name)?);
        }
        Ok(all)
    }

    /// Whole numbers.
    pub(crate) fn integers(
        &self,
        group: usize,
        name: &str,
    ) -> Result<Vec<Option<i64>>, TableError> {
        Ok(self.column::<Int64Type>(group, name)?.cells().collect())
    }

    /// Texts.
    pub(crate) fn texts(
        &self,
        group: usize,
        name: &str,
    ) -> Result<Vec<Option<String>>, TableError> {
        Ok(self.column::<ByteArrayType>(group, name)?.cells().map(|cell| cell.map(text)).collect())
    }

    /// Bytes.
    pub(crate) fn bytes(
        &self,
        group: usize,
        name: &str,
    ) -> Result<Vec<Option<ByteArray>>, TableError> {
        Ok(self.column::<ByteArrayType>(group, name)?.cells().collect())
    }

    /// Lists of numbers.
    pub(crate) fn float_lists(&self, group: usize, name: &str) -> Result<Lists<f32>, TableError> {
        Ok(self.column::<FloatType>(group, name)?.lists())
    }

    /// Lists of texts.
    pub(crate) fn text_lists(&self, group: usize, name: &str) -> Result<Lists<String>, TableError> {
        let Lists { values, ends } = self.column::<ByteArrayType>(group, name)?.lists();
        Ok(Lists { values: values.into_iter().map(text).collect(), ends })
    }

    fn column<T: DataType>(&self, group: usize, name: &str) -> Result<Raw<T::T>, TableError> {
        let index = *self.columns.get(name).expect("the table has this column");
        let reader = self.file.get_row_group(group)?.get_column_reader(index)?;
        let mut reader = get_typed_column_reader::<T>(reader);
        let mut raw = Raw { values: Vec::new(), definitions: Vec::new(), repetitions: Vec::new() };
        let mut left = self.rows_of(group);
        while left > 0 {
            let (rows, ..) = reader.read_records(
                left,
                Some(&mut raw.definitions),
                Some(&mut raw.repetitions),
                &mut raw.values,
            )?;
            if rows == 0 {
                break;
            }
            left -= rows;
        }
        Ok(raw)
    }
}

/// A column as it is stored.
struct Raw<V> {
    values: Vec<V>,
    definitions: Vec<i16>,
    repetitions: Vec<i16>,
}

impl<V> Raw<V> {
    fn cells(self) -> impl Iterator<Item = Option<V>> {
        let mut values = self.values.into_iter();
        self.definitions.into_iter().map(move |level| if level == 1 { values.next() } else { None })
    }

    fn lists(self) -> Lists<V> {
        let (mut ends, mut read) = (Vec::new(), 0);
        for (at, definition) in self.definitions.iter().enumerate() {
            // A row starts here, so the one before ends.
            if self.repetitions[at] == 0 && at > 0 {
                ends.push(read);
            }
            read += usize::from(*definition == 2);
        }
        if !self.definitions.is_empty() {
            ends.push(read);
        }
        Lists { values: self.values, ends }
    }
}

fn text(bytes: ByteArray) -> String {
    String::from_utf8_lossy(bytes.data()).into_owned()
}
