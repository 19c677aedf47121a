//! Why an enqueue or audit can't start or go on.

use camshaft_common::key::ImageKey;
use camshaft_common::manifest::ManifestError;
use camshaft_common::run::ReadRunError;
use camshaft_common::skipped::SkippedCounts;
use camshaft_common::store::StoreError;
use camshaft_queue::QueueError;

use crate::advice;
use crate::enqueue::generation_watch::JobsSuperseded;
use crate::enqueue::prune::PruneError;
use crate::enqueue::run_record::OtherRun;
use crate::images::source_error::SourceError;

/// Why a run can't start or go on.
#[derive(Debug, thiserror::Error)]
pub enum EnqueuePlanError {
    /// Images can't be found.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// OUT can't be read or written.
    #[error("{}", advice::describe_store_error(.0))]
    Out(#[from] StoreError),
    /// Jobs can't be published.
    #[error("{}", advice::describe_queue_error(.0))]
    Queue(#[from] QueueError),
    /// OUT holds the results of another run.
    #[error(transparent)]
    OtherRun(#[from] OtherRun),
    /// Options of the results in OUT don't go with `--labels none`.
    #[error(
        "the results in OUT were made with --target label, which explains the class of each image's \
         label, and --labels none reads none; leave out --labels none, or choose another --out"
    )]
    TargetWithoutLabels,
    /// `run.json` can't be read.
    #[error("{}", advice::describe_run_record_error(.0))]
    Run(#[from] ReadRunError),
    /// The manifest can't be read or written.
    #[error(transparent)]
    Manifest(ManifestError),
    /// The run was cancelled, or another enqueue or audit has taken OUT.
    #[error("{}", describe_superseded(.0))]
    Superseded(JobsSuperseded),
    /// Images come in another order than that of their keys. Nothing then tells which of them an
    /// earlier process enqueued.
    #[error(
        "SOURCE's store doesn't list objects in the order of their names ({key} came late), so an \
         enqueue can't be gone on with; start again to enqueue every image without a result"
    )]
    OutOfOrder {
        /// The first image that came late.
        key: ImageKey,
    },
    /// SOURCE has no images at all.
    #[error("no images in {source_name}{}", advice_on_none(.skipped))]
    NoImages {
        /// SOURCE.
        source_name: String,
        /// What else lies there.
        skipped: SkippedCounts,
    },
    /// Results of images that have gone can't be removed.
    #[error(transparent)]
    Prune(#[from] PruneError),
}

impl From<ManifestError> for EnqueuePlanError {
    fn from(error: ManifestError) -> Self {
        match error {
            ManifestError::Store(error) => Self::Out(error),
            error => Self::Manifest(error),
        }
    }
}

fn describe_superseded(superseded: &JobsSuperseded) -> String {
    let advice = match superseded {
        JobsSuperseded::Cancelled => "; the same command again does the rest",
        JobsSuperseded::ByAnother { .. } => ": those of the other count",
    };
    format!("{superseded}; jobs of this one that were published are settled without work{advice}")
}

fn advice_on_none(skipped: &SkippedCounts) -> String {
    if skipped.is_empty() {
        return ": is the path or prefix right?".to_owned();
    }
    format!(
        ": left out {skipped}; --list-skipped names them, and --include 'GLOB' says which files are \
         images"
    )
}
