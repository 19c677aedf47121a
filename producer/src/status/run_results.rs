//! The results that a run has in OUT: counted by its manifest, if it has one.

use camshaft_common::manifest::{self, ManifestError};
use camshaft_common::run::RunRecord;
use camshaft_common::store::Folder;

use crate::status::result_counts::{ResultCounts, ResultTimes};

/// The results of a run.
#[derive(Debug)]
pub(crate) struct RunResults {
    /// How many there are.
    pub(crate) counts: ResultCounts,
    /// When they were written, if the run has a manifest that says which of them count.
    pub(crate) times: Option<ResultTimes>,
    /// Why the manifest that `run.json` names was not used.
    pub(crate) unusable_manifest: Option<ManifestError>,
}

impl RunResults {
    /// Counts the results of the images in the run's manifest. If it has none that can be used, all
    /// results are counted.
    ///
    /// # Errors
    /// If OUT can't be listed or read at the moment.
    pub(crate) async fn count(out: &Folder, record: &RunRecord) -> Result<Self, ManifestError> {
        let mut unusable_manifest = None;
        if let Some((generation, images)) = record.listed_manifest() {
            let times = ResultTimes::list(out, record).await?;
            let entries = manifest::read(out, generation, Some(images));
            match ResultCounts::of_manifest(&times, entries).await {
                Ok(counts) => return Ok(Self { counts, times: Some(times), unusable_manifest }),
                Err(error) if error.can_do_without() => unusable_manifest = Some(error),
                Err(error) => return Err(error),
            }
        }
        let counts = ResultCounts::list(out, record).await?;
        Ok(Self { counts, times: None, unusable_manifest })
    }
}
