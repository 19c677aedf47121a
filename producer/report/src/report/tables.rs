//! The finished tables of a report, and how they come into OUT.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::sync::Arc;

use camshaft_common::layout::REPORT;
use camshaft_common::store::{Folder, PARQUET};

use super::blocking::blocking;
use crate::error::ReportError;
use crate::table::{self, Column};

/// Writes rows to a temporary file, with the run's metadata.
pub(super) async fn write_rows<T: Send + 'static>(
    rows: Vec<T>,
    columns: &'static [Column<T>],
    metadata: &Arc<Vec<(String, String)>>,
) -> Result<File, ReportError> {
    let metadata = Arc::clone(metadata);
    blocking(move || table::write_rows(rows, columns, &metadata)).await
}

/// The finished tables of a report.
pub(super) struct ReportTables {
    pub(super) predictions: File,
    pub(super) findings: File,
    pub(super) csv: Option<File>,
    pub(super) labels: Option<File>,
    pub(super) comparison: Option<File>,
    pub(super) slices: File,
}

impl ReportTables {
    /// Puts the tables into OUT. Deletes an earlier report's table that this report does not have,
    /// because it would be of other results.
    pub(super) async fn put(self, out: &Folder) -> Result<(), ReportError> {
        let Self { predictions, findings, csv, labels, comparison, slices } = self;
        put_table(out, "predictions.parquet", Some(predictions), PARQUET).await?;
        put_table(out, "findings.parquet", Some(findings), PARQUET).await?;
        put_table(out, "labels.parquet", labels, PARQUET).await?;
        put_table(out, "predictions.csv", csv, "text/csv; charset=utf-8").await?;
        put_table(out, "comparison.parquet", comparison, PARQUET).await?;
        put_table(out, "slices.parquet", Some(slices), PARQUET).await
    }
}

async fn put_table(
    out: &Folder,
    name: &str,
    file: Option<File>,
    content_type: &'static str,
) -> Result<(), ReportError> {
    put_file(out, &format!("{REPORT}/{name}"), file, content_type).await
}

/// Puts a file into OUT, or deletes an earlier report's if there is none.
pub(super) async fn put_file(
    out: &Folder,
    path: &str,
    file: Option<File>,
    content_type: &'static str,
) -> Result<(), ReportError> {
    match file {
        Some(mut file) => {
            file.seek(SeekFrom::Start(0))?;
            out.put_file(path, file, content_type).await?;
        }
        None => out.delete(path).await?,
    }
    Ok(())
}
