//! Writes a table as CSV, for readers that can't open Parquet. The elements of a list are separated
//! by spaces.

use std::fs::File;
use std::io::BufWriter;

use super::column::{Cell, Column, ColumnKind, TableError};

/// A CSV table being written to a temporary file.
pub struct CsvWriter<R: 'static> {
    columns: Vec<&'static Column<R>>,
    writer: csv::Writer<BufWriter<File>>,
}

impl<R> CsvWriter<R> {
    /// Starts a table with a header line. Columns of bytes are left out: CSV has no use for them.
    ///
    /// # Errors
    /// If the file can't be written or read.
    pub fn new(columns: &'static [Column<R>]) -> Result<Self, TableError> {
        let readable =
            |column: &&Column<R>| !matches!(column.kind, ColumnKind::Bytes | ColumnKind::HalfList);
        let columns: Vec<_> = columns.iter().filter(readable).collect();
        let mut writer = csv::Writer::from_writer(BufWriter::new(tempfile::tempfile()?));
        writer.write_record(columns.iter().map(|column| column.name)).map_err(io)?;
        Ok(Self { columns, writer })
    }

    /// Adds a row.
    ///
    /// # Errors
    /// If the file can't be written or read.
    pub fn push(&mut self, row: &R) -> Result<(), TableError> {
        let cells = self.columns.iter().map(|column| text((column.cell)(row)));
        self.writer.write_record(cells).map_err(io)
    }

    /// Writes what is buffered; returns the file.
    ///
    /// # Errors
    /// If the file can't be written or read.
    pub fn finish(self) -> Result<File, TableError> {
        let buffered = self.writer.into_inner().map_err(|error| error.into_error())?;
        Ok(buffered.into_inner().map_err(|error| error.into_error())?)
    }
}

fn io(error: csv::Error) -> TableError {
    TableError::Io(error.into())
}

/// Puts an apostrophe before a text that a spreadsheet would take for a formula, and run: keys and
/// labels are whatever somebody wrote. In Parquet texts are as they are.
fn no_formula(text: String) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text }
}

fn text(cell: Cell<'_>) -> String {
    fn shown<T: ToString>(value: Option<T>) -> String {
        value.map(|value| value.to_string()).unwrap_or_default()
    }
    match cell {
        Cell::Boolean(value) => shown(value),
        Cell::Integer(value) => shown(value),
        Cell::Float(value) => shown(value),
        Cell::Text(value) => no_formula(shown(value)),
        Cell::Time(value) => shown(value.map(|time| time.format("%Y-%m-%dT%H:%M:%S%.3fZ"))),
        Cell::FloatList(list) => {
            let numbers = list.unwrap_or_default().iter().map(ToString::to_string);
            numbers.collect::<Vec<_>>().join(" ")
        }
        Cell::TextList(list) => no_formula(list.unwrap_or_default().join(" ")),
        Cell::Bytes(_) | Cell::HalfList(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_is_a_formula_and_numbers_stay_numbers() {
        for (value, expected) in
            [("=HYPERLINK(1)", "'=HYPERLINK(1)"), ("-1", "'-1"), ("a=b.jpg", "a=b.jpg"), ("", "")]
        {
            assert_eq!(text(Cell::Text(Some(value))), expected);
        }
        assert_eq!(text(Cell::Integer(Some(-1))), "-1");
    }
}
