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

use std::collections::HashSet;

use crate::predictions::{ImageClasses, NO_NAME, read_examples, read_file_digests};
use crate::table::{TableError, TableReader};

/// The least images of a slice, and of what it is compared with.
const MIN_IMAGES: u64 = 20;

/// What both searches found.
#[derive(Debug, Default)]
pub(crate) struct Slices {
    /// Slices with a lower accuracy first, then labels that a property gives away; the most
    /// significant of each first.
    pub(crate) list: Vec<Slice>,
    /// Whether accuracy is known: some labels mean a class of the model.
    pub(crate) compared_accuracy: bool,
    /// Whether there was a slice to compare with others.
    pub(crate) tested_accuracy: bool,
    /// Whether labels were compared: there are at least two with enough images.
    pub(crate) compared_labels: bool,
    /// What was not looked for, and why.
    pub(crate) notes: Vec<String>,
}

/// Searches a finished `predictions.parquet`.
pub(crate) fn find(table: &TableReader, mut classes: ImageClasses) -> Result<Slices, TableError> {
    leave_out_copies(table, &mut classes)?;
    let properties = properties::read(table, &classes)?;
    let weak = accuracy::find(table, &classes, &properties)?;
    let given_away = nuisances::find(&classes, properties);
    let (compared_accuracy, compared_labels) = (weak.is_some(), given_away.is_some());
    let had_tests = weak.as_ref().map(|weak| weak.compared);
    let tested_accuracy = had_tests == Some(true);
    let notes = what_was_not_looked_for(&classes, had_tests, compared_labels);
    let weak = weak.map(|weak| weak.slices);
    let mut list: Vec<Slice> = weak.into_iter().chain(given_away).flatten().collect();
    let named = read_examples(table, list.iter().flat_map(|slice| &slice.example_rows).copied())?;
    for slice in &mut list {
        slice.examples = slice.example_rows.iter().map(|row| named[row].clone()).collect();
        slice.example_keys = slice.examples.iter().map(|example| example.key.clone()).collect();
    }
    Ok(Slices { list, compared_accuracy, tested_accuracy, compared_labels, notes })
}

/// Takes the labels and predictions of images whose file came before: copies are no evidence of
/// their own. Of each file the first image counts that has both. Images of unknown digests are taken
/// to be of different files.
fn leave_out_copies(table: &TableReader, classes: &mut ImageClasses) -> Result<(), TableError> {
    let mut seen = HashSet::new();
    for (row, file) in read_file_digests(table)?.into_iter().enumerate() {
        let counts = classes.given[row] != NO_NAME && classes.predicted[row] != NO_NAME;
        if file.filter(|_| counts).is_some_and(|file| !seen.insert(file)) {
            classes.given[row] = NO_NAME;
            classes.label[row] = NO_NAME;
            classes.predicted[row] = NO_NAME;
        }
    }
    Ok(())
}

/// Notes on what was not looked for. `had_tests` is none without a known accuracy.
fn what_was_not_looked_for(
    classes: &ImageClasses,
    had_tests: Option<bool>,
    compared_labels: bool,
) -> Vec<String> {
    if classes.given.iter().all(|label| *label == NO_NAME) {
        return vec!["slices were not looked for: no image has a label".to_owned()];
    }
    let accuracy = match had_tests {
        Some(true) => None,
        Some(false) => Some(format!(
            "slices with a lower accuracy were not looked for: no property parts the images with \
             a known label into {MIN_IMAGES} and {MIN_IMAGES} others"
        )),
        None => {
            let rest = ". Properties that give a label away were";
            let rest = if compared_labels { rest } else { "" };
            Some(format!(
                "slices with a lower accuracy were not looked for: no label is one of the model's \
                 classes{rest}"
            ))
        }
    };
    let labels = (!compared_labels).then(|| {
        format!(
            "properties that give a label away were not looked for: fewer than two labels have \
             {MIN_IMAGES} images"
        )
    });
    accuracy.into_iter().chain(labels).collect()
}
