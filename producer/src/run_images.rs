//! The images of a run, with the labels that they were given.
//!
//! Upstream: the run's manifest, or the report of a run of an older version, which has none. Downstream:
//! `apply`, and `decide`, which takes over what other programs say of them.

use camshaft_common::key::ImageKey;
use camshaft_common::layout::REPORT;
use camshaft_common::manifest::{self, ManifestError};
use camshaft_common::run::RunRecord;
use camshaft_common::store::{Folder, StoreError, StoreErrorKind};
use camshaft_table::{TableError, TableReader};
use futures::TryStreamExt;

use crate::advice;

/// It can't be told which images a run has.
#[derive(Debug, thiserror::Error)]
pub enum RunImagesError {
    /// OUT can't be read.
    #[error("{}", advice::describe_store_error(.0))]
    Store(#[from] StoreError),
    /// The images of the run can't be read.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The images of an older run can't be read from its report.
    #[error(transparent)]
    Table(#[from] TableError),
    /// It is not known which images the run has.
    #[error("it is not known which images the run in {0} has; run camshaft report {0} first")]
    Unknown(String),
}

/// An image of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunImage {
    pub(crate) key: ImageKey,
    pub(crate) label: Option<String>,
}

/// Every image of the run, in the order of keys.
pub(crate) async fn read(out: &Folder, run: &RunRecord) -> Result<Vec<RunImage>, RunImagesError> {
    let Some((generation, images)) = run.listed_manifest() else { return read_report(out).await };
    let mut entries = manifest::read(out, generation, Some(images));
    let mut found = Vec::new();
    while let Some(entry) = entries.try_next().await? {
        found.push(RunImage { key: entry.key, label: entry.label });
    }
    Ok(found)
}

/// Every image in the report.
async fn read_report(out: &Folder) -> Result<Vec<RunImage>, RunImagesError> {
    let opened = match out.open_object(&format!("{REPORT}/predictions.parquet"), u64::MAX).await {
        Err(error) if error.kind() == StoreErrorKind::NotFound => {
            return Err(RunImagesError::Unknown(out.location().to_string()));
        }
        opened => opened?,
    };
    let table = TableReader::open(opened.into_file().await?)?;
    let mut found = Vec::new();
    for group in 0..table.groups() {
        let (keys, labels) = (table.texts(group, "key")?, table.texts(group, "label")?);
        for (key, label) in keys.into_iter().zip(labels) {
            let key = key.and_then(|key| ImageKey::parse(key).ok());
            found.extend(key.map(|key| RunImage { key, label }));
        }
    }
    found.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    Ok(found)
}
