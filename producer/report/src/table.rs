//! The tables that a report reads and writes: those of [`camshaft_table`].
//!
//! Owns nothing but what the report's tests make tables with.

pub use camshaft_table::TableError;
pub(crate) use camshaft_table::{
    Cell, Column, CsvWriter, ListColumn, TableReader, TableWriter, columns, write_rows,
};

/// A finished table of these rows.
#[cfg(test)]
pub(crate) fn table_of<R>(
    rows: impl IntoIterator<Item = R>,
    columns: &'static [Column<R>],
) -> TableReader {
    TableReader::open(write_rows(rows, columns, &[]).unwrap()).unwrap()
}
