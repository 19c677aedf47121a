//! The record of what a data set changed, `PLACE.undo.json`, and the way back from a move.
//!
//! Upstream: `camshaft apply`, which writes the record before it moves the first image. Downstream: people,
//! and `camshaft apply --undo`, which can be stopped and run again.

use std::fs;
use std::path::{Path, PathBuf};

use camshaft_common::location::Location;
use camshaft_common::model::FileDigest;
use camshaft_common::store::{Folder, JSON, StoreError, StoreErrorKind, StoreOptions};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::folder::METADATA;
use super::moved_image::{MovedImage, move_file};
use super::plan::Change;
use super::{ApplyError, ApplyForm, FileLink};
use crate::terminal::output::format_count;

/// The version of the record.
pub(super) const SCHEMA: u32 = 1;
/// The largest record that is read: that of some ten million changes.
const MAX_BYTES: u64 = 2 << 30;
const SUFFIX: &str = ".undo.json";
/// The record's name in a bucket, which has nothing beside it.
const IN_BUCKET: &str = "undo.json";

/// What was changed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct UndoRecord {
    pub(super) schema: u32,
    /// The run.
    pub(super) out: Location,
    /// Where the images were.
    pub(super) source: Option<Location>,
    /// Where the data set is.
    pub(super) place: Location,
    #[serde(rename = "as")]
    pub(super) form: ApplyForm,
    pub(super) link: FileLink,
    pub(super) written_at: DateTime<Utc>,
    /// What the data set has no more, or under another label.
    pub(super) changes: Vec<Change>,
    /// Images that were moved.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(super) moved: Vec<MovedImage>,
    /// The SHA-256 that a list has, and that of the one that it replaces: another list is somebody's work.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(super) lists: Vec<FileDigest>,
}

/// Where the record of a data set is.
pub(super) struct UndoFile {
    folder: Folder,
    name: String,
}

impl UndoFile {
    /// The record beside a data set.
    pub(super) fn beside(to: &Location, stores: &StoreOptions) -> Result<Self, StoreError> {
        let (folder, name) = match to.split_last() {
            Some((folder, name)) => (folder, format!("{name}{SUFFIX}")),
            None => (to.clone(), IN_BUCKET.to_owned()),
        };
        Ok(Self { folder: Folder::open(&folder, stores)?, name })
    }

    pub(super) fn place(&self) -> String {
        format!("{}/{}", self.folder.location().to_string().trim_end_matches('/'), self.name)
    }

    /// The digests of the lists that the record is of; none if there is no record.
    pub(super) async fn digests(&self) -> Result<Option<Vec<FileDigest>>, ApplyError> {
        let content = match self.folder.get(&self.name, MAX_BYTES).await {
            Ok(content) => content.bytes,
            Err(error) if error.kind() == StoreErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let record: Result<UndoRecord, _> = serde_json::from_slice(&content);
        Ok(record.ok().map(|record| record.lists))
    }

    pub(super) async fn write(&self, record: &UndoRecord) -> Result<(), StoreError> {
        let json = serde_json::to_vec(record).expect("a record has only texts and numbers");
        self.folder.put(&self.name, json, JSON).await
    }
}

/// Moves images back to where they were. Returns what to print.
pub(super) fn undo(file: &Path, dry_run: bool) -> Result<Vec<String>, ApplyError> {
    let record = read(file)?;
    if record.moved.is_empty() {
        return Err(ApplyError::NothingMoved(file.display().to_string(), record.place));
    }
    let local = |place: Option<&Location>| place.and_then(Location::local_path);
    let roots = local(record.source.as_ref()).zip(local(Some(&record.place)));
    let (source, place) = roots.ok_or(ApplyError::LinkNeedsDisk("move"))?;
    let (mut moved, mut back, mut lost) = (0, 0, Vec::new());
    for MovedImage { key, to } in &record.moved {
        let paths = key.local_path().zip(to.local_path());
        let Some((from, to)) = paths.map(|(from, to)| (source.join(from), place.join(to))) else {
            lost.push(key.to_string());
            continue;
        };
        match (from.symlink_metadata().is_ok(), to.symlink_metadata().is_ok()) {
            (true, false) => back += 1,
            (false, true) => {
                if !dry_run {
                    move_file(&to, &from)?;
                }
                moved += 1;
            }
            (true, true) | (false, false) => lost.push(key.to_string()),
        }
    }
    if let Some(first) = lost.first() {
        let (left, first) = (lost.len() as u64, first.clone());
        return Err(ApplyError::NotUndone { moved, left, first });
    }
    let images = format_count(moved, "image");
    if dry_run {
        return Ok(vec![format!("Would move {images} from {} back", place.display())]);
    }
    remove_rest(&record.moved, &place, file)?;
    let mut lines = vec![format!("Moved {images} back to {}", source.display())];
    if back > 0 {
        lines.push(format!("{} were there already", format_count(back, "image")));
    }
    Ok(lines)
}

fn read(file: &Path) -> Result<UndoRecord, ApplyError> {
    let failed = |reason: String| ApplyError::UndoFile { path: file.display().to_string(), reason };
    let bytes = fs::read(file).map_err(|error| failed(error.to_string()))?;
    let record: UndoRecord =
        serde_json::from_slice(&bytes).map_err(|error| failed(error.to_string()))?;
    match record.schema {
        SCHEMA => Ok(record),
        other => Err(failed(format!("its schema is {other}, and this version reads {SCHEMA}"))),
    }
}

/// Removes what is left of the data set: its metadata, empty folders, and the record itself.
fn remove_rest(moved: &[MovedImage], place: &Path, file: &Path) -> Result<(), ApplyError> {
    // What can't be removed does no harm.
    fs::remove_file(place.join(METADATA)).unwrap_or_default();
    let mut folders: Vec<PathBuf> = Vec::new();
    for path in moved.iter().filter_map(|image| image.to.local_path()) {
        folders.extend(path.ancestors().skip(1).map(|folder| place.join(folder)));
    }
    folders.sort_unstable_by_key(|folder| std::cmp::Reverse(folder.components().count()));
    folders.dedup();
    for folder in folders {
        // A folder with something else in it stays.
        fs::remove_dir(folder).unwrap_or_default();
    }
    fs::remove_file(file).map_err(|error| ApplyError::UndoFile {
        path: file.display().to_string(),
        reason: error.to_string(),
    })
}
