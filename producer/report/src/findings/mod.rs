//! Searches for what is wrong with a data set, or with where its model looks.
//!
//! Owns which searches run and in which order. Each search reads only the columns it needs and
//! knows images by their row; `name_images` adds keys and labels, and ranks. Upstream: a finished
//! `predictions.parquet`. Downstream: `findings.parquet` and the page.

mod class_attention;
mod class_maps;
mod cluster;
mod duplicates;
mod failures;
mod finding;
mod hashed_choice;
mod image_problems;
mod labels;
mod map_clusters;
mod name_images;
mod odd_maps;
mod outliers;
mod proofs;
mod refit;
#[cfg(test)]
pub(crate) mod shortcut_tests;
mod shortcuts;
mod suspects;
#[cfg(test)]
mod tests;
mod wrong;

pub(crate) use class_attention::AttentionTest;
pub(crate) use class_maps::ClassMaps;
pub(crate) use cluster::Cluster;
pub use finding::finding_words;
pub(crate) use finding::{COLUMNS, DuplicateGroup, Finding, FindingKind, Problem};
pub(crate) use hashed_choice::{SmallestHashes, hash_of};
pub(crate) use labels::EstimatedErrors;
pub use labels::LabelOptions;
pub use suspects::{ControlImage, ShortcutSuspect, SuspectPatch};

use camshaft_common::shortcuts::ShortcutProof;

use std::fs::File;

use crate::error::ReportError;
use crate::overview::LabelAudit;
use crate::predictions::ImageClasses;
use crate::table::{TableError, TableReader};

/// Everything that the searches found.
#[derive(Debug)]
pub(crate) struct Findings {
    /// Ranked, the most urgent first.
    pub(crate) list: Vec<Finding>,
    pub(crate) clusters: Vec<Cluster>,
    pub(crate) tests: Vec<AttentionTest>,
    /// The number of wrong labels, as confident learning estimates it; none without labels.
    pub(crate) estimated_label_errors: Option<EstimatedErrors>,
    /// How labels were judged; none if by the model alone.
    pub(crate) label_audit: Option<LabelAudit>,
    /// The table `labels.parquet`; none without labels.
    pub(crate) labels: Option<File>,
    /// What was not looked for, and why.
    pub(crate) notes: Vec<String>,
}

/// Runs all searches on a finished `predictions.parquet`. `proofs` are those of `shortcuts.json`.
pub(crate) fn find(
    table: &TableReader,
    classes: &ImageClasses,
    options: LabelOptions,
    proofs: &[ShortcutProof],
) -> Result<Findings, ReportError> {
    let (mut found, mut notes) = (Vec::new(), Vec::new());
    // Duplicates come first: heads that judge an image must not have seen its copy.
    let mut duplicate_notes = Vec::new();
    let duplicates = duplicates::find(table, classes, &mut duplicate_notes)?;
    let labels = labels::find(table, classes, options, &duplicates, &mut notes)?;
    notes.extend(duplicate_notes);
    found.extend(labels.found);
    found.extend(duplicates);
    found.extend(image_problems::find(table, &mut notes)?);
    found.extend(outliers::find(table, classes, &mut notes)?);
    found.extend(odd_maps::find(table, classes, &mut notes)?);
    let tests = class_attention::test_classes(table, classes)?;
    let clustered = map_clusters::cluster_maps(table, classes, &mut notes)?;
    let mut clusters = shortcuts::describe_clusters(table, classes, &clustered)?;
    proofs::attach(table, classes, &clustered, &mut clusters, proofs, &mut notes)?;
    refit::refit_proved(table, classes, &clustered, &mut clusters)?;
    found.extend(shortcuts::find(&clusters));
    found.extend(failures::find(table, &mut notes)?);
    // The last search: it leaves out what any other has found.
    found.extend(wrong::find(table, classes, &found, &mut notes)?);
    // Nothing is found in the hold-out, whatever searched for it.
    if !labels.in_holdout.is_empty() {
        found.retain(|found| !labels.in_holdout[found.row as usize]);
    }
    let list = name_images::rank_and_name(table, found, &mut clusters)?;
    let estimated_label_errors = labels.estimated;
    Ok(Findings {
        list,
        clusters,
        tests,
        estimated_label_errors,
        label_audit: labels.audit,
        labels: labels.table,
        notes,
    })
}

/// The clusters that look like shortcuts, each with up to `images` images to prove it on.
pub(crate) fn suspects(
    table: &TableReader,
    images: usize,
) -> Result<Vec<ShortcutSuspect>, TableError> {
    let classes = ImageClasses::read(table)?;
    let clustered = map_clusters::cluster_maps(table, &classes, &mut Vec::new())?;
    let clusters = shortcuts::describe_clusters(table, &classes, &clustered)?;
    suspects::describe(table, &classes, &clustered, &clusters, images)
}
