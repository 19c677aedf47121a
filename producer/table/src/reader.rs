//! Reads a Parquet table: one column of one row group at a time.

use std::collections::HashMap;
use std::fs::File;

use parquet::column::reader::get_typed_column_reader;
use parquet::data_type::{
    ByteArray, ByteArrayType, DataType, FixedLenByteArray, FixedLenByteArrayType, FloatType,
    Int64Type,
};
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::column::TableError;

/// A finished table, to be read by one thread: its columns share the file's position. Asking for a column that the table lacks, or for another kind than the column
/// has, is a bug and panics.
pub struct TableReader {
    file: SerializedFileReader<File>,
    columns: HashMap<String, usize>,
}

/// A list column of rows of one row group: the lists of its rows, one after the other. A null is an empty
/// list.
#[derive(Debug)]
pub struct ListColumn<T> {
    values: Vec<T>,
    /// Where each list ends.
    ends: Vec<usize>,
}

/// Some rows of a row group.
pub struct GroupRows<'a> {
    /// The row group.
    pub group: usize,
    /// The first row of the group.
    start: usize,
    rows: &'a [u32],
}

impl GroupRows<'_> {
    /// Each row, and where it is in the group.
    pub fn iter(&self) -> impl Iterator<Item = (u32, usize)> {
        self.rows.iter().map(|row| (*row, *row as usize - self.start))
    }
}

impl<T> ListColumn<T> {
    /// The list of a row, counted from the first of the column's.
    pub fn get(&self, row: usize) -> &[T] {
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.values[start..self.ends[row]]
    }

    /// The lists in the order of the rows.
    pub fn iter(&self) -> impl Iterator<Item = &[T]> {
        (0..self.ends.len()).map(|row| self.get(row))
    }
}

impl TableReader {
    /// Opens a finished table.
    ///
    /// # Errors
    /// If the file can't be written or read.
    pub fn open(file: File) -> Result<Self, TableError> {
        let file = SerializedFileReader::new(file)?;
        let schema = file.metadata().file_metadata().schema_descr();
        let columns = schema.columns().iter().enumerate();
        let columns =
            columns.map(|(index, column)| (column.path().parts()[0].clone(), index)).collect();
        Ok(Self { file, columns })
    }

    /// The names and values of the file's metadata.
    pub fn metadata(&self) -> Vec<(String, String)> {
        let pairs = self.file.metadata().file_metadata().key_value_metadata();
        let pairs = pairs.into_iter().flatten();
        pairs.filter_map(|pair| Some((pair.key.clone(), pair.value.clone()?))).collect()
    }

    /// The number of row groups.
    pub fn groups(&self) -> usize {
        self.file.num_row_groups()
    }

    /// The number of rows in all row groups.
    pub fn rows(&self) -> usize {
        (0..self.groups()).map(|group| self.rows_in_group(group)).sum()
    }

    /// The number of rows in one row group.
    pub fn rows_in_group(&self, group: usize) -> usize {
        usize::try_from(self.file.metadata().row_group(group).num_rows()).unwrap_or(0)
    }

    /// Divides rows, which are in ascending order, among the row groups that have them.
    pub fn groups_of<'a>(&self, rows: &'a [u32]) -> Vec<GroupRows<'a>> {
        let (mut start, mut left, mut groups) = (0, rows, Vec::new());
        for group in 0..self.groups() {
            let end = start + self.rows_in_group(group);
            let (here, later) = left.split_at(left.partition_point(|row| (*row as usize) < end));
            if !here.is_empty() {
                groups.push(GroupRows { group, start, rows: here });
            }
            (start, left) = (end, later);
        }
        groups
    }

    /// Whether the table has a column of this name.
    pub fn has_column(&self, name: &str) -> bool {
        self.columns.contains_key(name)
    }

    /// The numbers of a column; NaN for null.
    ///
    /// # Errors
    /// If the file can't be written or read.
    pub fn floats(&self, group: usize, name: &str) -> Result<Vec<f32>, TableError> {
        let column = self.column::<FloatType>(group, name)?;
        Ok(column.cells().map(|cell| cell.unwrap_or(f32::NAN)).collect())
    }

    /// The numbers of a column in all row groups; NaN for null.
    ///
    /// # Errors
    /// If the file can't be written or read.
    pub fn all_floats(&self, name: &str) -> Result<Vec<f32>, TableError> {
        let mut all = Vec::with_capacity(self.rows());
        for group in 0..self.groups() {
            all.extend(self.floats(group, name)?);
        }
        Ok(all)
    }

    /// The whole numbers of a column.
    ///
    /// # Errors
    /// If the file can't be written or read.
    pub fn integers(&self, group: usize, name: &str) -> Result<Vec<Option<i64>>, TableError> {
        Ok(self.column::<Int64Type>(group, name)?.cells().collect())
    }

    /// The texts of a column.
    ///
    /// # Errors
    /// If the file can't be written or read.
    pub fn texts(&self, group: usize, name: &str) -> Result<Vec<Option<String>>, TableError> {
        Ok(self.column::<ByteArrayType>(group, name)?.cells().map(|cell| cell.map(text)).collect())
    }

    /// The bytes of a column.
    ///
    /// # Errors
    /// If the file can't be written or read.
    pub fn bytes(&self, group: usize, name: &str) -> Result<Vec<Option<ByteArray>>, TableError> {
        Ok(self.column::<ByteArrayType>(group, name)?.cells().collect())
    }

    /// The lists of numbers of a column.
    ///
    /// # Errors
    /// If the file can't be written or read.
    pub fn float_lists(&self, group: usize, name: &str) -> Result<ListColumn<f32>, TableError> {
        Ok(self.column::<FloatType>(group, name)?.lists())
    }

    /// The lists of texts of a column.
    ///
    /// # Errors
    /// If the file can't be written or read.
    pub fn text_lists(&self, group: usize, name: &str) -> Result<ListColumn<String>, TableError> {
        let ListColumn { values, ends } = self.column::<ByteArrayType>(group, name)?.lists();
        Ok(ListColumn { values: values.into_iter().map(text).collect(), ends })
    }

    /// Calls `read` with the lists of halves of `rows` rows, skips `skipped` rows, and so on as long as
    /// `read` returns true. A whole row group of embeddings would take gigabytes on the way.
    ///
    /// # Errors
    /// If the file can't be written or read.
    pub fn half_lists(
        &self,
        group: usize,
        name: &str,
        rows: usize,
        skipped: usize,
        mut read: impl FnMut(&ListColumn<f32>) -> bool,
    ) -> Result<(), TableError> {
        let index = *self.columns.get(name).expect("the table has this column");
        let reader = self.file.get_row_group(group)?.get_column_reader(index)?;
        let mut reader = get_typed_column_reader::<FixedLenByteArrayType>(reader);
        loop {
            let mut raw = RawColumn::default();
            let (found, ..) = reader.read_records(
                rows,
                Some(&mut raw.definitions),
                Some(&mut raw.repetitions),
                &mut raw.values,
            )?;
            if found == 0 {
                return Ok(());
            }
            let ListColumn { values, ends } = raw.lists();
            let half = |bytes: &FixedLenByteArray| {
                let bytes = bytes.data().try_into().expect("halves have two bytes");
                half::f16::from_le_bytes(bytes).to_f32()
            };
            let values = values.iter().map(half).collect();
            if !read(&ListColumn { values, ends }) {
                return Ok(());
            }
            if skipped > 0 && reader.skip_records(skipped)? == 0 {
                return Ok(());
            }
        }
    }

    fn column<T: DataType>(&self, group: usize, name: &str) -> Result<RawColumn<T::T>, TableError> {
        let index = *self.columns.get(name).expect("the table has this column");
        let reader = self.file.get_row_group(group)?.get_column_reader(index)?;
        let mut reader = get_typed_column_reader::<T>(reader);
        let mut raw = RawColumn::default();
        let mut left = self.rows_in_group(group);
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

/// A column of one row group as Parquet stores it: values, definition and repetition levels (see
/// the writer).
struct RawColumn<V> {
    values: Vec<V>,
    definitions: Vec<i16>,
    repetitions: Vec<i16>,
}

impl<V> Default for RawColumn<V> {
    fn default() -> Self {
        Self { values: Vec::new(), definitions: Vec::new(), repetitions: Vec::new() }
    }
}

impl<V> RawColumn<V> {
    fn cells(self) -> impl Iterator<Item = Option<V>> {
        let mut values = self.values.into_iter();
        self.definitions.into_iter().map(move |level| if level == 1 { values.next() } else { None })
    }

    fn lists(self) -> ListColumn<V> {
        let (mut ends, mut read) = (Vec::new(), 0);
        for (at, definition) in self.definitions.iter().enumerate() {
            // A row starts here, so the list of the row before ends.
            if self.repetitions[at] == 0 && at > 0 {
                ends.push(read);
            }
            read += usize::from(*definition == 2);
        }
        if !self.definitions.is_empty() {
            ends.push(read);
        }
        ListColumn { values: self.values, ends }
    }
}

fn text(bytes: ByteArray) -> String {
    String::from_utf8_lossy(bytes.data()).into_owned()
}
