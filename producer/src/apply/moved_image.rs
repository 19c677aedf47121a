//! An image that was moved, and the move of its file.
//!
//! Upstream: [`folder`](super::folder), which moves images away from SOURCE. Downstream: [`undo`](super::undo),
//! which moves them back.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use camshaft_common::key::ImageKey;
use serde::{Deserialize, Serialize};

use super::ApplyError;

/// An image that was moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MovedImage {
    /// Its key below the source.
    pub(super) key: ImageKey,
    /// Its key below the place of the data set.
    pub(super) to: ImageKey,
}

/// Moves a file to a place where nothing is.
pub(super) fn move_file(from: &Path, to: &Path) -> Result<(), ApplyError> {
    let moving = || {
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::rename(from, to)
    };
    moving().map_err(|source| {
        let advice = match source.kind() {
            ErrorKind::CrossesDevices => "; use --link copy, and delete what you don't need then",
            _ => "",
        };
        let [from, to] = [from, to].map(|path| path.display().to_string());
        ApplyError::Place { action: "move", from, to, source, advice }
    })
}
