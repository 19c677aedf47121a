//! Builds the table of all images, `predictions.parquet`, in a temporary file.
//!
//! Owns the second reading that labels of older results may need. Upstream: results in OUT. Downstream:
//! the wiring, which searches the table.

use std::collections::HashSet;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use camshaft_common::key::ImageKey;
use camshaft_common::label::LabelMatcher;
use camshaft_common::manifest::ManifestImages;
use camshaft_common::run::RunRecord;
use camshaft_common::store::Folder;
use tokio::sync::mpsc;

use super::blocking::blocking;
use super::metadata::table_metadata;
use super::options::ReportOptions;
use crate::error::ReportError;
use crate::left_out::{LeftOut, LeftOutTotals};
use crate::overview::OverviewTotals;
use crate::predictions::read_results::{ReadProgress, ResultReader, RowChunk};
use crate::predictions::{self, LabelMeaning, NamedClasses};
use crate::run_images::RunImages;
use crate::table::{CsvWriter, TableError, TableWriter};

/// Chunks of rows that may wait for the table's writer.
const WAITING_CHUNKS: usize = 4;

/// The finished table of all images, and what was counted on the way.
pub(super) struct BuiltTable {
    pub(super) table: File,
    pub(super) csv: Option<File>,
    pub(super) totals: OverviewTotals,
    pub(super) has_embeddings: bool,
    /// The classes that results name.
    pub(super) named_classes: NamedClasses,
    /// The labels of older results whose class is not known.
    pub(super) open_labels: HashSet<String>,
    /// The results without a row.
    pub(super) left_out: LeftOut,
    /// The note about those that only a report can tell; none if there are none.
    pub(super) unusable: Option<File>,
    /// Why results of images that have gone may have rows, if that is so.
    pub(super) manifest_note: Option<String>,
}

/// Builds the table of all images. Reads results a second time if older ones have labels whose
/// classes only other results name.
pub(super) async fn build_table(
    out: &Folder,
    run: &RunRecord,
    options: &ReportOptions,
    progress: &Arc<ReadProgress>,
) -> Result<BuiltTable, ReportError> {
    let (listed, reason) = match ManifestImages::read(out, run).await {
        Ok(Some(listed)) => (Some(listed), None),
        Ok(None) => (None, why_not_listed(run).map(str::to_owned)),
        Err(error) if error.can_do_without() => (None, Some(error.to_string())),
        Err(error) => return Err(error.into()),
    };
    let manifest_note = reason
        .map(|reason| format!("results of images that have gone may be among these: {reason}"));
    let images = Arc::new(RunImages::new(run, listed));
    let mut built = read_table(out, &images, options, progress, None).await?;
    let classes = built.named_classes.matcher();
    if built.open_labels.iter().any(|label| classes.find(label).is_ok()) {
        progress.read.store(0, Relaxed);
        built = read_table(out, &images, options, progress, Some(&Arc::new(classes))).await?;
    }
    Ok(BuiltTable { manifest_note, ..built })
}

/// Why the run has no manifest of its images, unless an older version or a user without the right to
/// write one has started it: their reports never told.
fn why_not_listed(run: &RunRecord) -> Option<&'static str> {
    run.generation?;
    Some(match run.images {
        None => "SOURCE has not been listed to its end",
        Some(_) => "the run's manifest could not be written",
    })
}

async fn read_table(
    out: &Folder,
    images: &Arc<RunImages>,
    options: &ReportOptions,
    progress: &Arc<ReadProgress>,
    classes: Option<&Arc<LabelMatcher>>,
) -> Result<BuiltTable, ReportError> {
    let (rows, received) = mpsc::channel(WAITING_CHUNKS);
    let (csv, run) = (options.csv, images.run().clone());
    let writing = blocking(move || write_table(received, csv, &run));
    let reading = async {
        let embeddings = options.embeddings;
        let reader = ResultReader { out, images, embeddings, classes, progress, rows: &rows };
        let read = reader.send_results().await;
        drop(rows);
        read
    };
    let (read, written) = tokio::join!(reading, writing);
    read?;
    written
}

/// Where an image is: below this place by its name, if that is text.
fn address(images: &str, key: &str) -> Option<String> {
    let key = ImageKey::parse(key).ok()?;
    Some(format!("{images}/{}", str::from_utf8(&key.name()).ok()?))
}

/// Writes all rows that come to the table, and to a CSV file if `csv` is true.
fn write_table(
    mut rows: mpsc::Receiver<RowChunk>,
    csv: bool,
    run: &RunRecord,
) -> Result<BuiltTable, TableError> {
    let table = tempfile::tempfile()?;
    let writer = TableWriter::new(table.try_clone()?, predictions::COLUMNS)?;
    let mut writer = writer.with_metadata(&table_metadata(run));
    let images = run.images_place().map(|place| place.plain_text());
    let mut csv = if csv { Some(CsvWriter::new(predictions::COLUMNS)?) } else { None };
    let (mut totals, mut has_embeddings) = (OverviewTotals::default(), false);
    let (mut named_classes, mut open_labels) = (NamedClasses::default(), HashSet::new());
    let mut left_out = LeftOutTotals::new(run)?;
    while let Some(chunk) = rows.blocking_recv() {
        for row in chunk {
            let mut row = match row {
                Ok(row) => row,
                Err(result) => {
                    left_out.add(result)?;
                    continue;
                }
            };
            row.uri = images.as_deref().and_then(|images| address(images, &row.key));
            totals.add(&row);
            named_classes.add(&row);
            if let (LabelMeaning::Open, Some(label)) = (&row.meaning, &row.label)
                && !open_labels.contains(label)
            {
                open_labels.insert(label.clone());
            }
            has_embeddings |= row.predicted.as_ref().is_some_and(|p| p.embedding.is_some());
            if let Some(csv) = &mut csv {
                csv.push(&row)?;
            }
            writer.push(row)?;
        }
    }
    writer.finish()?;
    let csv = csv.map(CsvWriter::finish).transpose()?;
    let (left_out, unusable) = left_out.finish()?;
    Ok(BuiltTable {
        table,
        csv,
        totals,
        has_embeddings,
        named_classes,
        open_labels,
        left_out,
        unusable,
        manifest_note: None,
    })
}
