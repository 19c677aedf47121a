//! Parts of a data set that share a property: where the model is wrong more often than elsewhere,
//! and which properties give a label away.
//!
//! Owns the properties, the two searches and the columns of `slices.parquet`. A slice is about many
//! images; what is about one image is a finding. Upstream: a finished `predictions.parquet`.
//! Downstream: the page and the summary.

mod accuracy;
mod folders;
mod nuisances;
mod properties;
mod slice;
#[cfg(test)]
mod tests;

pub(crate) use slice::{COLUMNS, Question, Slice};

use crate::predictions::{ImageClasses, read_examples};
use crate::table::{TableError, TableReader};

/// The least images of a slice, and of what it is compared with.
const MIN_IMAGES: u64 = 20;

/// What both searches found.
#[derive(Debug, Default)]
pub(crate) struct Slices {
    /// Slices with a lower accuracy first, then labels that a property gives away; the most
    /// significant of each first.
    pub(crate) list: Vec<Slice>,
    /// Whether accuracy was compared: some labels mean a class of the model.
    pub(crate) compared_accuracy: bool,
    /// Whether labels were compared: there are at least two with enough images.
    pub(crate) compared_labels: bool,
    /// What was not looked for, and why.
    pub(crate) notes: Vec<String>,
}

/// Searches a finished `predictions.parquet`.
pub(crate) fn find(table: &TableReader) -> Result<Slices, TableError> {
    let classes = ImageClasses::read(table)?;
    let mut notes = Vec::new();
    let properties = properties::read(table, &classes)?;
    let weak = accuracy::find(table, &classes, &properties)?;
    let given_away = nuisances::find(&classes, properties)?;
    if weak.is_none() && given_away.is_some() {
        notes.push(
            "slices with a lower accuracy were not looked for: no label is one of the model's \
             classes. Properties that give a label away were"
                .to_owned(),
        );
    }
    let (compared_accuracy, compared_labels) = (weak.is_some(), given_away.is_some());
    let mut list: Vec<Slice> = weak.into_iter().chain(given_away).flatten().collect();
    let named = read_examples(table, list.iter().flat_map(|slice| &slice.example_rows).copied())?;
    for slice in &mut list {
        slice.examples = slice.example_rows.iter().map(|row| named[row].clone()).collect();
        slice.example_keys = slice.examples.iter().map(|example| example.key.clone()).collect();
    }
    Ok(Slices { list, compared_accuracy, compared_labels, notes })
}
