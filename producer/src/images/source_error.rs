//! Why the images of SOURCE can't be found.

use camshaft_common::key::ImageKeyError;
use camshaft_common::location::LocationError;
use camshaft_common::store::StoreError;

use crate::images::list_file::ListFileError;
use crate::images::source_config::SourceConfigError;

/// Why images can't be found.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The list can't be read.
    #[error(transparent)]
    List(#[from] ListFileError),
    /// The single image has a name that can't be a key.
    #[error("SOURCE can't be audited: {0}; rename it")]
    Key(#[from] ImageKeyError),
    /// `run.json` names a SOURCE that can't be read.
    #[error("the run's SOURCE can't be listed again: {0}")]
    Recorded(#[from] LocationError),
    /// `run.json` names a list without its base, or a base without a list.
    #[error("the run's SOURCE can't be listed again: {0}")]
    RecordedBase(#[from] SourceConfigError),
    /// No such folder.
    #[error("SOURCE {0} doesn't exist; is the path right?")]
    Missing(String),
    /// A pipe, a socket or a device.
    #[error("SOURCE {0} is no folder and no image; for a list of images, write list:{0}")]
    NotAFolder(String),
    /// No such folder, of a list's keys.
    #[error("--base {0} doesn't exist; is the path right?")]
    BaseMissing(String),
    /// The keys of a list would be below a file.
    #[error("--base {0} is no folder; name the one that the list's keys are below")]
    BaseIsNoFolder(String),
    /// SOURCE and OUT are one place.
    #[error("OUT is SOURCE itself; choose another --out, a folder below it for instance")]
    OutIsSource,
    /// The folder of a list's keys and OUT are one place.
    #[error("OUT is --base itself; choose another --out, a folder below it for instance")]
    OutIsBase,
    /// SOURCE is a single image, and globs choose among several.
    #[error(
        "--include and --exclude choose files of a folder, and SOURCE {0} is one file; leave them out"
    )]
    GlobsForOneImage(String),
}
