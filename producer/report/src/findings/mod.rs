//! Searches for what is wrong with a data set, or with where its model looks.
//!
//! Owns which searches run and in which order. Each search reads only the columns it needs and
//! knows images by their row; `name_images` adds keys and labels, and ranks. Upstream: a finished
//! `predictions.parquet`. Downstream: `findings.parquet` and the page.

mod class_attention;
mod cluster;
mod duplicates;
mod finding;
mod image_problems;
mod label_errors;
mod map_clusters;
mod name_images;
mod odd_maps;
mod outliers;
mod shortcuts;
#[cfg(test)]
mod tests;

pub(crate) use class_attention::AttentionTest;
pub(crate) use cluster::{Cluster, ClusterExample};
pub(crate) use finding::{COLUMNS, DuplicateGroup, Finding, FindingKind, Problem};

use crate::predictions::ImageClasses;
use crate::table::{TableError, TableReader};

/// Everything that the searches found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Ranked, the most urgent first.
    pub(crate) list: Vec<Finding>,
    pub(crate) clusters: Vec<Cluster>,
    pub(crate) tests: Vec<AttentionTest>,
    /// The number of wrong labels, as confident learning estimates it; none without labels.
    pub(crate) estimated_label_errors: Option<u64>,
    /// What was not looked for, and why.
    pub(crate) notes: Vec<String>,
}

/// Runs all searches on a finished `predictions.parquet`.
pub(crate) fn find(table: &TableReader) -> Result<Findings, TableError> {
    let classes = ImageClasses::read(table)?;
    let (mut found, mut notes) = (Vec::new(), Vec::new());
    let labels = label_errors::find(table, &classes, &mut notes)?;
    found.extend(labels.found);
    found.extend(duplicates::find(table, &classes, &mut notes)?);
    found.extend(image_problems::find(table, &mut notes)?);
    found.extend(outliers::find(table, &mut notes)?);
    found.extend(odd_maps::find(table, &classes, &mut notes)?);
    let tests = class_attention::test_classes(table, &classes)?;
    let clustered = map_clusters::cluster_maps(table, &classes, &mut notes)?;
    let mut clusters = shortcuts::describe_clusters(table, &classes, &clustered)?;
    found.extend(shortcuts::find(&clusters));
    let list = name_images::rank_and_name(table, found, &mut clusters)?;
    let estimated_label_errors = labels.estimated;
    Ok(Findings { list, clusters, tests, estimated_label_errors, notes })
}
