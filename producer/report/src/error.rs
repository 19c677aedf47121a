//! Why there is no report.

use camshaft_common::store::StoreError;

use crate::table::TableError;

/// A report can't be built.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// No run lies in OUT.
    #[error("{0} holds no run: there is no run.json; is the path right, and was a run started?")]
    NoRun(String),
    /// `run.json` is not one.
    #[error("{place}/run.json can't be read: {source}")]
    RunUnreadable {
        /// OUT.
        place: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// Nothing is done yet.
    #[error("{0} holds no results yet; run the audit first, or wait for the workers")]
    NoResults(String),
    /// `--embeddings` for a run that recorded none.
    #[error(
        "no result holds an embedding; run the audit with --embeddings (and --out elsewhere), or \
         leave --embeddings out here"
    )]
    NoEmbeddings,
    /// The store's error.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A table's error.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The temporary files' error.
    #[error("cannot use a temporary file: {0}; is TMPDIR full?")]
    Temporary(#[from] std::io::Error),
    /// A bug.
    #[error("building the report ended by a panic, which is a bug; the results are untouched")]
    Panicked,
}
