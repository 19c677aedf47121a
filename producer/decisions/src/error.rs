//! Why decisions can't be read or merged, or samples not read.

use camshaft_common::store::StoreError;
use camshaft_table::TableError;

use crate::lines::LinesError;

/// Decisions can't be merged.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// OUT can't be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file or part is damaged.
    #[error(transparent)]
    Lines(#[from] LinesError),
    /// The table can't be written.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A bug.
    #[error("writing the table of decisions ended with a panic")]
    Panicked,
}

/// A file is no sample.
#[derive(Debug, thiserror::Error)]
#[error("{path} is no sample: {source}; draw it again with camshaft decide --sample")]
pub struct SampleError {
    /// Its path below OUT.
    pub(crate) path: String,
    /// What is wrong with it.
    pub(crate) source: serde_json::Error,
}
