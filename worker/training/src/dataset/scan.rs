//! Lists the files below a data set: its images, and what is left out of them.
//!
//! Owns which files are images and which folders are never looked into. Upstream: a local folder.
//! Downstream: [`layout`](super::layout), which tells classes from splits.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use camshaft_common::image_files::ImageFiles;
use camshaft_common::key::ImageKey;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{DatasetError, LeftOutFolder};

/// Files that make a folder a training's, or another model's.
const MODEL_FILES: [&str; 2] = ["checkpoint.safetensors", "model.safetensors"];
/// The record of a training.
const TRAINING_FILE: &str = "training.json";
/// The image that a training writes.
const CURVE_FILE: &str = "learning-curve.png";
/// Folders of an audit's results, beside `run.json`.
const RESULT_FOLDERS: [&str; 4] = ["predictions", "failures", "overlays", "report"];
/// A folder that macOS adds to ZIP archives, with a small file for each image.
const MACOS_FOLDER: &str = "__MACOSX";
/// Bytes that tell a format, of a file without extension.
const SIGNATURE_BYTES: u64 = 32;

/// The files below a data set, in the order of their paths.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) images: Vec<ScannedImage>,
    /// Keys of the other files, apart from hidden ones.
    pub(super) other_files: Vec<String>,
    /// Keys of all folders that were looked into.
    pub(super) folders: Vec<String>,
    /// Folders that were not looked into, apart from hidden ones.
    pub(super) excluded: Vec<LeftOutFolder>,
}

#[derive(Debug)]
pub(super) struct ScannedImage {
    pub(super) key: String,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
}

impl Scan {
    /// Lists what is below `root`. `out`, the folder that the model goes to, is left out. With
    /// `every_file` all files count as images, as they did in earlier versions.
    ///
    /// # Errors
    /// If a folder can't be read, or `out` is one of the data set's own folders.
    pub(super) fn of(
        root: &Path,
        out: Option<&Path>,
        every_file: bool,
    ) -> Result<Self, DatasetError> {
        let scanner = Scanner { out: out.and_then(canonical), every_file };
        let mut scan = Self::default();
        scanner.scan(root, "", &mut Vec::new(), &mut scan)?;
        Ok(scan)
    }
}

struct Scanner {
    out: Option<PathBuf>,
    every_file: bool,
}

impl Scanner {
    /// `above` are the folders on the way down, without links.
    fn scan(
        &self,
        folder: &Path,
        key: &str,
        above: &mut Vec<PathBuf>,
        scan: &mut Scan,
    ) -> Result<(), DatasetError> {
        above.extend(folder.canonicalize());
        let depth = above.len();
        for (path, name) in self.entries(folder)? {
            let key = if key.is_empty() { name.clone() } else { format!("{key}/{name}") };
            if path.is_dir() {
                match self.reason_to_exclude(&path, &name, above)? {
                    Some(reason) => scan.excluded.push(LeftOutFolder { key, reason }),
                    None => {
                        scan.folders.push(key.clone());
                        self.scan(&path, &key, above, scan)?;
                        above.truncate(depth);
                    }
                }
            } else if !path.is_file() {
                // A link to nothing, or a pipe, which would be waited for.
                scan.other_files.push(key);
            } else if self.every_file || is_image(&path, &key)? {
                let failed = |source| DatasetError::Unreadable { path: path.clone(), source };
                let bytes = fs::metadata(&path).map_err(failed)?.len();
                scan.images.push(ScannedImage { key, path, bytes });
            } else {
                scan.other_files.push(key);
            }
        }
        Ok(())
    }

    /// Paths and names of what a folder holds, by name, without hidden files.
    fn entries(&self, folder: &Path) -> Result<Vec<(PathBuf, String)>, DatasetError> {
        let failed = |source| DatasetError::Unreadable { path: folder.to_owned(), source };
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if !name.as_bytes().starts_with(b".") {
                found.push((entry.path(), self.key_segment(&name)));
            }
        }
        found.sort();
        Ok(found)
    }

    /// A file's name as the last segment of a key: as in an audit, so that a class is called as its
    /// label, and two names that aren't UTF-8 stay two.
    fn key_segment(&self, name: &OsStr) -> String {
        match ImageKey::from_name(name.as_bytes()) {
            Ok(key) if !self.every_file => key.as_str().to_owned(),
            _ => name.to_string_lossy().into_owned(),
        }
    }

    fn reason_to_exclude(
        &self,
        folder: &Path,
        name: &str,
        above: &[PathBuf],
    ) -> Result<Option<&'static str>, DatasetError> {
        let leads_back = || folder.canonicalize().is_ok_and(|folder| above.contains(&folder));
        if folder.is_symlink() && leads_back() {
            return Ok(Some("a link that leads back"));
        }
        if name == MACOS_FOLDER {
            return Ok(Some("made by macOS"));
        }
        let is_out = self.out.is_some() && canonical(folder) == self.out;
        if is_training(folder) {
            return Ok(Some(if is_out { "where the model goes" } else { "a model's files" }));
        }
        if is_run(folder) {
            return Ok(Some("an audit's results"));
        }
        if !is_out {
            return Ok(None);
        }
        // Nothing but a training's files may be left out: the images of a class would be missing.
        let mut inside = Scan::default();
        let scanner = Self { out: None, every_file: false };
        scanner.scan(folder, "", &mut above.to_vec(), &mut inside)?;
        match inside.images.is_empty() {
            true => Ok(Some("where the model goes")),
            false => Err(DatasetError::OutHasImages { path: folder.to_owned() }),
        }
    }
}

/// True if a training or another program wrote a model into the folder.
fn is_training(folder: &Path) -> bool {
    MODEL_FILES.iter().any(|name| folder.join(name).is_file())
        || has_training_record(&folder.join(TRAINING_FILE))
}

/// True for the record of a training. Annotations may have the same name.
fn has_training_record(path: &Path) -> bool {
    /// What every version of the record has.
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "they only have to be there")]
    struct Record {
        schema: u32,
        settings: IgnoredAny,
        history: IgnoredAny,
    }
    File::open(path)
        .is_ok_and(|file| serde_json::from_reader::<_, Record>(BufReader::new(file)).is_ok())
}

/// True if the folder holds the results of an audit.
fn is_run(folder: &Path) -> bool {
    folder.join("run.json").is_file()
        && RESULT_FOLDERS.iter().any(|name| folder.join(name).is_dir())
}

/// The path without links, of a folder that need not exist.
fn canonical(path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok().or_else(|| {
        let parent = path.parent()?.canonicalize().ok()?;
        Some(parent.join(path.file_name()?))
    })
}

/// True if a file counts as an image by its name, as in an audit, or without an extension by its first
/// bytes. Those that can't be decoded count: each gets a warning with its reason, and a class of them
/// an error.
fn is_image(path: &Path, key: &str) -> Result<bool, DatasetError> {
    if path.file_name().is_some_and(|name| name == CURVE_FILE)
        && path.parent().is_some_and(is_training)
    {
        return Ok(false);
    }
    let is_by_name = ImageKey::parse(key).is_ok_and(|key| ImageFiles::default().selects(&key));
    if !is_by_name || path.extension().is_some() {
        return Ok(is_by_name);
    }
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(SIGNATURE_BYTES).read_to_end(&mut start));
    read.map_err(|source| DatasetError::Unreadable { path: path.to_owned(), source })?;
    Ok(camshaft_decoding::begins_as_image(&start))
}
