//! The images of a run, with the labels that they were given.
//!
//! Upstream: the run's manifest, or the report of a run of an older version, which has none. Downstream:
//! [`plan`](super::plan).

use camshaft_common::key::ImageKey;
use camshaft_common::layout::REPORT;
use camshaft_common::manifest;
use camshaft_common::run::RunRecord;
use camshaft_common::store::{Folder, StoreErrorKind};
use camshaft_table::TableReader;
use futures::TryStreamExt;

use super::ApplyError;

/// An image of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RunImage {
    pub(super) key: ImageKey,
    pub(super) label: Option<String>,
}

/// Every image of the run, in the order of keys.
pub(super) async fn read(out: &Folder, run: &RunRecord) -> Result<Vec<RunImage>, ApplyError> {
    let Some((generation, images)) = run.listed_manifest() else { return read_report(out).await };
    let mut entries = manifest::read(out, generation, Some(images));
    let mut found = Vec::new();
    while let Some(entry) = entries.try_next().await? {
        found.push(RunImage { key: entry.key, label: entry.label });
    }
    Ok(found)
}

/// Every image in the report.
async fn read_report(out: &Folder) -> Result<Vec<RunImage>, ApplyError> {
    let opened = match out.open_object(&format!("{REPORT}/predictions.parquet"), u64::MAX).await {
        Err(error) if error.kind() == StoreErrorKind::NotFound => {
            return Err(ApplyError::UnknownImages(out.location().to_string()));
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
