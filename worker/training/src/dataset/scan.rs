//! Lists the files below a data set: its images, and what is left out of them.
//!
//! Owns which files are images and which folders are never looked into. Upstream: a local folder.
//! Downstream: [`layout`](super::layout), which tells classes from splits.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use camshaft_common::image_files::is_image_extension;

use super::{DatasetError, LeftOutFolder};

/// Files that make a folder a training's, or another model's.
const MODEL_FILES: [&str; 3] = ["checkpoint.safetensors", "training.json", "model.safetensors"];
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
        scanner.scan(root, "", &mut scan)?;
        Ok(scan)
    }
}

struct Scanner {
    out: Option<PathBuf>,
    every_file: bool,
}

impl Scanner {
    fn scan(&self, folder: &Path, key: &str, scan: &mut Scan) -> Result<(), DatasetError> {
        for (path, name) in entries(folder)? {
            let key = if key.is_empty() { name.clone() } else { format!("{key}/{name}") };
            if path.is_dir() {
                match self.reason_to_exclude(folder, &path, &name)? {
                    Some(reason) => scan.excluded.push(LeftOutFolder { key, reason }),
                    None => {
                        scan.folders.push(key.clone());
                        self.scan(&path, &key, scan)?;
                    }
                }
            } else if !path.is_file() {
                // A link to nothing, or a pipe, which would be waited for.
                scan.other_files.push(key);
            } else if self.every_file || is_image(&path)? {
                let failed = |source| DatasetError::Unreadable { path: path.clone(), source };
                let bytes = fs::metadata(&path).map_err(failed)?.len();
                scan.images.push(ScannedImage { key, path, bytes });
            } else {
                scan.other_files.push(key);
            }
        }
        Ok(())
    }

    fn reason_to_exclude(
        &self,
        parent: &Path,
        folder: &Path,
        name: &str,
    ) -> Result<Option<&'static str>, DatasetError> {
        if leads_back(parent, folder) {
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
        Self { out: None, every_file: false }.scan(folder, "", &mut inside)?;
        match inside.images.is_empty() {
            true => Ok(Some("where the model goes")),
            false => Err(DatasetError::OutHasImages { path: folder.to_owned() }),
        }
    }
}

/// True if a folder is a link to one that it lies in.
fn leads_back(parent: &Path, folder: &Path) -> bool {
    folder.is_symlink()
        && match (parent.canonicalize(), folder.canonicalize()) {
            (Ok(parent), Ok(folder)) => parent.starts_with(folder),
            _ => false,
        }
}

/// True if a training or another program wrote a model into the folder.
fn is_training(folder: &Path) -> bool {
    MODEL_FILES.iter().any(|name| folder.join(name).is_file())
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

/// True if a file is of a known image type: by its extension, or without one by its first bytes.
fn is_image(path: &Path) -> Result<bool, DatasetError> {
    if path.file_name().is_some_and(|name| name == CURVE_FILE)
        && path.parent().is_some_and(is_training)
    {
        return Ok(false);
    }
    if let Some(extension) = path.extension() {
        // Those that can't be decoded count: each gets a warning with its reason, and a class of
        // them an error.
        return Ok(is_image_extension(&extension.to_string_lossy()));
    }
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(SIGNATURE_BYTES).read_to_end(&mut start));
    read.map_err(|source| DatasetError::Unreadable { path: path.to_owned(), source })?;
    // Text may also begin as a bitmap ("BM") does; no picture of these formats is only text.
    let is_text = start.iter().all(|byte| *byte >= b' ' || byte.is_ascii_whitespace());
    Ok(!is_text && image::guess_format(&start).is_ok())
}

/// Paths and names of what a folder holds, by name, without hidden files.
fn entries(folder: &Path) -> Result<Vec<(PathBuf, String)>, DatasetError> {
    let failed = |source| DatasetError::Unreadable { path: folder.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            found.push((entry.path(), name));
        }
    }
    found.sort();
    Ok(found)
}
