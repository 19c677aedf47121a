//! Why a report can't be built.

use camshaft_common::manifest::ManifestError;
use camshaft_common::run::ReadRunError;
use camshaft_common::store::StoreError;

use crate::table::TableError;

/// A report can't be built.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// There is no run in OUT, or its record can't be read.
    #[error(transparent)]
    Run(#[from] ReadRunError),
    /// The run has no results yet.
    #[error("{0} holds no results yet; run the audit first, or wait for the workers")]
    NoResults(String),
    /// The run has results, and all of them are left out.
    #[error("{out} holds no results that count: {}", .reasons.join(". "))]
    AllLeftOut {
        /// OUT.
        out: String,
        /// What is left out, and why.
        reasons: Vec<String>,
    },
    /// Images can't be grouped by a folder that none has.
    #[error(
        "no image lies in {part} folders, so the {part}. can't group them ({example} is one); count \
         the folders of a key from 1, as in 2 for train/patient-7/a.jpg"
    )]
    NoSuchFolder {
        /// The folder's place in the key, from 1.
        part: usize,
        /// The key of an image.
        example: String,
    },
    /// Embeddings were asked for, and the run recorded none.
    #[error("no result holds an embedding")]
    NoEmbeddings,
    /// A store can't be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The run's manifest can't be read at the moment.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A table can't be written or read.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A temporary file can't be written or read.
    #[error("cannot use a temporary file: {0}; is TMPDIR full?")]
    Temporary(#[from] std::io::Error),
    /// A task panicked: a bug.
    #[error("building the report ended by a panic, which is a bug; the results are untouched")]
    Panicked,
}
