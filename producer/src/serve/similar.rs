//! Which images are most like another one, by the angle between the sketches of their embeddings.
//!
//! Pages of up to 100,000 images compare them by themselves. For larger runs this holds the sketches, 128
//! bytes an image, from the first question on. Keys are read from the table as they are needed.

use std::fs::File;
use std::sync::Arc;

use camshaft_common::measure::SKETCH_NUMBERS;
use camshaft_common::store::{Folder, Listed, StoreError};
use camshaft_table::{TableError, TableReader};
use serde::Serialize;

const TABLE: &str = "report/predictions.parquet";
/// The largest table that is copied for the questions.
const MAX_TABLE_BYTES: u64 = 256 << 30;
/// The most images in an answer.
const ANSWERED: usize = 200;

/// Why images can't be compared.
#[derive(Debug, thiserror::Error)]
pub(super) enum SimilarError {
    /// The table of the report can't be had.
    #[error("{}", crate::advice::describe_store_error(.0))]
    Store(#[from] StoreError),
    /// It can't be read.
    #[error("cannot read {TABLE}: {0}; build the report again")]
    Table(#[from] TableError),
    /// A bug.
    #[error("comparing images ended by a panic, which is a bug")]
    Panicked,
}

/// An image of an answer.
#[derive(Debug, PartialEq, Serialize)]
struct Similar {
    key: String,
    /// The cosine of the angle between the sketches, at most 1.
    similarity: f32,
}

/// The sketches of a report, once somebody has asked.
#[derive(Debug)]
pub(super) struct SimilarImages {
    out: Folder,
    read: Option<(Listed, Arc<Sketches>)>,
}

impl SimilarImages {
    /// Reads nothing yet.
    pub(super) fn new(out: Folder) -> Self {
        Self { out, read: None }
    }

    /// The images that are most like the one with this key as JSON, the most similar first; none if the
    /// report has no such image.
    ///
    /// # Errors
    /// If the table of the report can't be read.
    pub(super) async fn like(&mut self, key: &str) -> Result<Option<Vec<u8>>, SimilarError> {
        let now = self.out.head(TABLE).await?;
        let is_current = |read: &Listed| {
            read.etag == now.etag
                && read.size_bytes == now.size_bytes
                && read.last_modified == now.last_modified
        };
        let sketches = match &self.read {
            Some((read, sketches)) if is_current(read) => Arc::clone(sketches),
            _ => {
                let file = self.out.open_object(TABLE, MAX_TABLE_BYTES).await?.into_file().await?;
                let sketches = Arc::new(blocking(move || Sketches::read(file)).await?);
                self.read = Some((now, Arc::clone(&sketches)));
                sketches
            }
        };
        let key = key.to_owned();
        let similar = blocking(move || sketches.like(&key)).await?;
        let json = |similar| {
            serde_json::to_vec(&similar).expect("similar images have only texts and numbers")
        };
        Ok(similar.map(json))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TableError> + Send + 'static,
) -> Result<T, SimilarError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|_panicked| SimilarError::Panicked)??)
}

/// The sketches of all images, and the table that has their keys.
#[derive(Debug)]
struct Sketches {
    table: File,
    /// By row, [`SKETCH_NUMBERS`] signed bytes; zeros for an image without a sketch.
    numbers: Vec<u8>,
}

impl Sketches {
    fn read(table: File) -> Result<Self, TableError> {
        let reader = TableReader::open(table.try_clone()?)?;
        let mut numbers = Vec::with_capacity(reader.rows() * SKETCH_NUMBERS);
        for group in 0..reader.groups() {
            for sketch in reader.bytes(group, "sketch")? {
                match sketch.filter(|sketch| sketch.data().len() == SKETCH_NUMBERS) {
                    Some(sketch) => numbers.extend_from_slice(sketch.data()),
                    None => numbers.extend([0; SKETCH_NUMBERS]),
                }
            }
        }
        Ok(Self { table, numbers })
    }

    fn like(&self, key: &str) -> Result<Option<Vec<Similar>>, TableError> {
        let table = TableReader::open(self.table.try_clone()?)?;
        let (mut start, mut found) = (0, None);
        for group in 0..table.groups() {
            let keys = table.texts(group, "key")?;
            found = keys.iter().position(|other| other.as_deref() == Some(key));
            if found.is_some() {
                break;
            }
            start += keys.len();
        }
        let Some(row) = found.map(|at| start + at) else { return Ok(None) };
        let nearest = self.nearest(row);
        let mut rows: Vec<u32> = nearest.iter().map(|(_, row)| *row).collect();
        rows.sort_unstable();
        let mut keys = std::collections::HashMap::new();
        for of_group in table.groups_of(&rows) {
            let mut texts = table.texts(of_group.group, "key")?;
            keys.extend(of_group.iter().map(|(row, at)| (row, texts[at].take())));
        }
        let similar = nearest
            .into_iter()
            .filter_map(|(similarity, row)| Some(Similar { key: keys.remove(&row)??, similarity }));
        Ok(Some(similar.collect()))
    }

    /// The rows that are most like this one, the most similar first.
    fn nearest(&self, row: usize) -> Vec<(f32, u32)> {
        let all = || self.numbers.chunks_exact(SKETCH_NUMBERS);
        let Some(own) = all().nth(row).filter(|own| own.iter().any(|number| *number != 0)) else {
            return Vec::new();
        };
        let own_length = dot(own, own) as f32;
        let others = (0..).zip(all()).filter(|(other, _)| *other as usize != row);
        let mut similar: Vec<(f32, u32)> = others
            .filter_map(|(other, sketch)| {
                let length = dot(sketch, sketch) as f32;
                let cosine = dot(own, sketch) as f32 / (own_length * length).sqrt();
                (length > 0.0).then_some((cosine, other))
            })
            .collect();
        let order = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        if similar.len() > ANSWERED {
            similar.select_nth_unstable_by(ANSWERED, order);
            similar.truncate(ANSWERED);
        }
        similar.sort_unstable_by(order);
        similar
    }
}

/// The sum of the products of two sketches. It fits: 128 · 128² is far below the largest number.
fn dot(one: &[u8], other: &[u8]) -> i32 {
    let products = one.iter().zip(other);
    products.map(|(a, b)| i32::from(a.cast_signed()) * i32::from(b.cast_signed())).sum()
}

#[cfg(test)]
mod tests {
    use camshaft_table::{Cell, Column, columns, write_rows};

    use super::*;

    type Row = (&'static str, Option<Vec<u8>>);

    const COLUMNS: &[Column<Row>] = columns! {
        "key" Text |row| Cell::Text(Some(row.0));
        "sketch" Bytes |row| Cell::Bytes(row.1.as_deref());
    };

    fn sketch(first: i8, second: i8) -> Option<Vec<u8>> {
        let mut numbers = vec![0; SKETCH_NUMBERS];
        (numbers[0], numbers[1]) = (first.cast_unsigned(), second.cast_unsigned());
        Some(numbers)
    }

    #[test]
    fn the_most_similar_come_first_whatever_their_scale() {
        let rows = [
            ("a", sketch(127, 0)),
            ("opposite", sketch(-100, 0)),
            ("none", None),
            ("near", sketch(30, 40)),
            ("same", sketch(1, 0)),
        ];
        let sketches = Sketches::read(write_rows(rows, COLUMNS, &[]).unwrap()).unwrap();
        let like = |key| sketches.like(key).unwrap();
        let similar = |key: &str, similarity| Similar { key: key.to_owned(), similarity };
        let wanted = [similar("same", 1.0), similar("near", 0.6), similar("opposite", -1.0)];
        assert_eq!(like("a").unwrap(), wanted);
        assert_eq!(like("none").unwrap(), []);
        assert_eq!(like("absent"), None);
    }
}
