//! Compares two runs: which images changed class, where attention moved most, and whether the
//! images themselves differ.
//!
//! Owns the two comparisons and the columns of `comparison.parquet`. Runs of the same images differ
//! by their predictions; runs of other images, such as last month's and this month's, by what their
//! images are like. Upstream: the tables of predictions of both runs. Downstream: the page and the
//! summary.

mod common_images;
mod drift;
mod key_hash;
mod run_comparison;

use std::fs::File;

pub(crate) use common_images::first_predicted;
pub use drift::{DriftTest, InputDrift};
pub use run_comparison::{ClassChange, ComparedImage, RunComparison};

use crate::table::{TableError, TableReader};

/// Compares two finished tables of predictions. Writes a row for each image of both to `file`.
///
/// `against` is where the other run is. Embeddings are compared if both runs are of the same model.
pub(crate) fn compare_runs(
    now: &TableReader,
    before: &TableReader,
    against: String,
    is_same_model: bool,
    file: File,
) -> Result<RunComparison, TableError> {
    let compared = common_images::compare_images(now, before, against, file)?;
    let drift = drift::find(now, before, is_same_model)?;
    Ok(RunComparison { drift, ..compared })
}
