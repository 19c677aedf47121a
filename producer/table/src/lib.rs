//! Tables on disk: Parquet files, written and read a row group at a time, and CSV.
//!
//! Knows nothing of images: whoever writes a table says what its columns are. Uses the low-level
//! interface of the parquet crate, because Arrow would be most of the program's build. Upstream and
//! downstream: `camshaft-report`, whose tables these are, and `camshaft-decisions`, which reads findings
//! and writes decisions.

mod column;
mod csv_writer;
mod reader;
mod writer;

pub use column::{Cell, Column, ColumnKind, TableError};
pub use csv_writer::CsvWriter;
pub use reader::{ListColumn, TableReader};
pub use writer::TableWriter;

use std::fs::File;

/// Writes rows to a temporary file, with names and values that all of them have in common.
///
/// # Errors
/// If the file can't be written or read.
pub fn write_rows<R>(
    rows: impl IntoIterator<Item = R>,
    columns: &'static [Column<R>],
    metadata: &[(String, String)],
) -> Result<File, TableError> {
    let file = tempfile::tempfile()?;
    let mut writer = TableWriter::new(file.try_clone()?, columns)?.with_metadata(metadata);
    for row in rows {
        writer.push(row)?;
    }
    writer.finish()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::column::GROUP_ROWS;
    use super::*;

    #[derive(Debug)]
    struct Row {
        name: Option<String>,
        number: Option<f32>,
        yes: Option<bool>,
        map: Option<Vec<f32>>,
        words: Vec<String>,
        halves: Option<Vec<[u8; 2]>>,
        address: Option<String>,
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
        Column {
            name: "address",
            kind: ColumnKind::PrefixedText,
            cell: |r| Cell::Text(r.address.as_deref()),
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
            address: some.then(|| format!("s3://bucket/prefix/{index:09}.jpg")),
        }
    }

    #[test]
    fn what_is_written_is_read_in_every_group() {
        let file = tempfile::tempfile().unwrap();
        let metadata = [("camshaft.run".to_owned(), "7".to_owned())];
        let writer = TableWriter::new(file.try_clone().unwrap(), COLUMNS).unwrap();
        let mut writer = writer.with_metadata(&metadata);
        let rows = 2 * GROUP_ROWS + 5;
        for index in 0..rows {
            writer.push(row(index)).unwrap();
        }
        assert_eq!(writer.finish().unwrap(), rows as u64);

        let reader = TableReader::open(file).unwrap();
        assert_eq!((reader.groups(), reader.rows()), (3, rows));
        assert_eq!(reader.metadata(), metadata);
        let mut at = 0;
        for group in 0..reader.groups() {
            let (names, numbers) =
                (reader.texts(group, "name").unwrap(), reader.floats(group, "number").unwrap());
            let addresses = reader.texts(group, "address").unwrap();
            let maps = reader.float_lists(group, "map").unwrap();
            let words = reader.text_lists(group, "words").unwrap();
            let mut halves = Vec::new();
            let read = |lists: &ListColumn<f32>| {
                halves.extend(lists.iter().map(<[f32]>::len));
                true
            };
            reader.half_lists(group, "halves", 1000, 0, read).unwrap();
            for index in 0..names.len() {
                let row = row(at);
                assert_eq!(names[index], row.name);
                assert_eq!(addresses[index], row.address);
                assert_eq!(Some(numbers[index]).filter(|x| !x.is_nan()), row.number);
                assert_eq!(maps.get(index), row.map.unwrap_or_default());
                assert_eq!(words.get(index), row.words);
                assert_eq!(halves[index], row.halves.map_or(0, |halves| halves.len()));
                at += 1;
            }
        }
        assert_eq!(at, rows);
    }
}
