//! Why there is no report.

use camshaft_common::run::ReadRunError;
use camshaft_common::store::StoreError;

use crate::table::TableError;

/// A report can't be built.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// No run lies in OUT, or its record can't be read.
    #[error(transparent)]
    Run(#[from] ReadRunError),
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
