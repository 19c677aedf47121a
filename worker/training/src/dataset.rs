//! The images of a folder of class folders or of a list, and which of them are held back for
//! validation.
//!
//! Owns classes and the split. [`scan`] lists the files, and [`layout`] tells classes from folders
//! to train and to validate on; [`listed`] takes a list. Files are not decoded here. Upstream: a local
//! folder. Downstream: [`inputs`](super::inputs).

mod layout;
mod listed;
mod scan;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use listed::{ListedError, ListedExample};

use layout::{Layout, below, folders_with_images};
use scan::Scan;

/// Share of the images that are held back if there is no folder of images to validate on.
const VALIDATION_SHARE: f64 = 0.2;
/// The fewest images of a class that is split: one to train on, and one to validate on.
const MIN_CLASS_IMAGES: usize = 2;

/// Why a folder is no data set.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// A file or folder can't be read.
    #[error("{path} can't be read: {source}; a data set is a local folder of class folders")]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The folder has no folders with images in it.
    #[error(
        "{path} has no class folders with images{empty}; put each class's images into a folder of \
         its own: {path}/CLASS, or {path}/train/CLASS and {path}/val/CLASS"
    )]
    NoClasses {
        /// The folder.
        path: PathBuf,
        /// Which folders it has instead, in brackets; or empty.
        empty: String,
    },
    /// There is one class only, so there is nothing to learn.
    #[error("{path} has one class only, {class:?}{empty}; {advice}")]
    OneClass {
        /// The folder of class folders.
        path: PathBuf,
        /// The class.
        class: String,
        /// Which other folders it has, in brackets; or empty.
        empty: String,
        /// What to do.
        advice: String,
    },
    /// A class has no images to train or to validate on.
    #[error("class folder {path} has no images; add some, or remove the class")]
    EmptyClass {
        /// The class's folder.
        path: PathBuf,
    },
    /// A class has too few images to be split.
    #[error(
        "class {class:?} has {images} image; a class needs at least {MIN_CLASS_IMAGES}, one to \
         train on and one to validate on: add images to {path}, or remove it"
    )]
    TooFewImages {
        /// The class.
        class: String,
        /// Its folder.
        path: PathBuf,
        /// Its number of images.
        images: usize,
    },
    /// A class has images to validate on and none to train on.
    #[error(
        "{path} is a class that the images to train on don't have ({classes}); add it there, \
         rename it, or remove it"
    )]
    UnknownClass {
        /// The class's folder.
        path: PathBuf,
        /// The first classes to train on.
        classes: String,
    },
    /// There is a folder of images to validate or test on and no folder of images to train on.
    #[error(
        "{path} has a folder to validate or test on and no train/; call the other one train. If \
         its folders are classes, move them to {path}/train"
    )]
    NoTraining {
        /// The data set.
        path: PathBuf,
    },
    /// Folders called as splits are beside other folders.
    #[error(
        "{path} can be read in two ways: {splits} beside {others}. If all of them are classes, \
         move them to {path}/train; if not, move {others} out of {path}, or into the folder to \
         train on"
    )]
    Ambiguous {
        /// The data set.
        path: PathBuf,
        /// The folders called as splits.
        splits: String,
        /// The other folders.
        others: String,
    },
    /// There are two folders with the same purpose.
    #[error(
        "{path} has two folders to {purpose} on, {first} and {second}; move one of them away, or \
         its class folders into the other"
    )]
    TwoSplits {
        /// The data set.
        path: PathBuf,
        /// `train` or `validate`.
        purpose: &'static str,
        /// One folder.
        first: String,
        /// The other.
        second: String,
    },
    /// A class folder holds folders to train and to validate on.
    #[error(
        "{path} holds {training} and {other}; put the classes into them, not them into the \
         classes: {training}/{class} and {other}/{class}"
    )]
    SplitsInClass {
        /// The class's folder.
        path: PathBuf,
        /// The folder to train on.
        training: String,
        /// The folder to validate or test on.
        other: String,
        /// The class.
        class: String,
    },
    /// The model would go to one of the data set's folders of images.
    #[error(
        "the model can't go to {path}, which holds images of the data set; choose another folder"
    )]
    OutHasImages {
        /// The folder.
        path: PathBuf,
    },
    /// A list is no data set.
    #[error(transparent)]
    Listed(#[from] ListedError),
    /// There is a folder of images to validate on, and also a share to hold back.
    #[error("{path} says which images to validate on; leave out the share of images to hold back")]
    ShareAndFolder {
        /// The folder of images to validate on.
        path: PathBuf,
    },
}

/// How images are chosen for validation if no folder says which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SplitRule {
    /// As in versions that recorded no rule, to go on with their trainings: by each path alone, so
    /// that a class may get any share. Every file counts as an image.
    ByPath,
    /// The share of each class, and at least one image.
    #[default]
    Stratified,
}

impl SplitRule {
    /// The rule of a record that names none.
    pub(super) fn of_older_record() -> Self {
        Self::ByPath
    }

    pub(super) fn is_of_older_record(&self) -> bool {
        *self == Self::ByPath
    }
}

/// What a user may choose about a data set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DatasetOptions {
    /// The share of the images to validate on, if no folder says which; 0.2 by default.
    pub share: Option<f64>,
    /// The folder that the model goes to. It may be in the data set, and is not a part of it.
    pub out: Option<PathBuf>,
    /// How that share is chosen.
    pub split: SplitRule,
}

/// An image of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatasetImage {
    /// Path below the data set, with slashes.
    pub key: String,
    /// Path of the file.
    pub path: PathBuf,
    /// Index of its class.
    pub class: usize,
    /// Size of the file in bytes.
    pub bytes: u64,
}

/// What is in the folder of a data set and no part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Keys of files that are of no known image type.
    pub other_files: Vec<String>,
    /// Keys of images that are beside class folders, not in one.
    pub images_beside: Vec<String>,
    /// Folders.
    pub folders: Vec<LeftOutFolder>,
    /// Images that a list names to test on.
    pub listed_to_test: u64,
}

/// A folder that is no part of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOutFolder {
    /// Its path below the data set.
    pub key: String,
    /// What it is.
    pub reason: &'static str,
}

/// Images to train and to validate on, in the order of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dataset {
    /// Class names, by index, in alphabetical order: the folders' names, or the labels of a list.
    pub classes: Vec<String>,
    /// Images to train on.
    pub training: Vec<DatasetImage>,
    /// Images to validate on.
    pub validation: Vec<DatasetImage>,
    /// How images were chosen for validation.
    pub split: SplitRule,
    /// What was left out.
    pub left_out: LeftOut,
    /// True if a list gives the labels, and not the folders of the images.
    pub is_listed: bool,
}

impl Dataset {
    /// Finds the images below `root`: in `train/CLASS` and `val/CLASS` (in other usual names, too),
    /// or in `CLASS` alone. Then a share of each class is held back for validation, chosen by a
    /// hash of each key.
    ///
    /// # Errors
    /// If a folder can't be read, if classes or images are missing, or if it can't be told for
    /// certain which folders are classes.
    pub fn find(root: &Path, options: &DatasetOptions) -> Result<Self, DatasetError> {
        let every_file = options.split == SplitRule::ByPath;
        let scan = Scan::of(root, options.out.as_deref(), every_file)?;
        let layout = Layout::of(root, &scan)?;
        let found = Found { root, scan: &scan };
        let classes = found.classes(&layout.training)?;
        let (training, validation) = match &layout.validation {
            Some(folder) if options.share.is_some() => {
                return Err(DatasetError::ShareAndFolder { path: root.join(folder) });
            }
            Some(folder) => {
                found.check_known(folder, &classes)?;
                let images = |folder| found.images(folder, &classes);
                (images(&layout.training)?, images(folder)?)
            }
            None => {
                layout::check_no_splits_inside(root, &scan, &layout.training)?;
                let share = options.share.unwrap_or(VALIDATION_SHARE);
                let images = found.images(&layout.training, &classes)?;
                match options.split {
                    SplitRule::ByPath => split_by_path(images, share),
                    SplitRule::Stratified => {
                        found.check_enough(&layout.training, &classes, &images)?;
                        split_stratified(images, classes.len(), share)
                    }
                }
            }
        };
        let left_out = found.left_out(&layout);
        let (split, is_listed) = (options.split, false);
        Ok(Self { classes, training, validation, split, left_out, is_listed })
    }

    /// The number of images of each class to train on and to validate on.
    #[must_use]
    pub fn class_counts(&self) -> Vec<[usize; 2]> {
        let mut counts = vec![[0, 0]; self.classes.len()];
        for (side, images) in [&self.training, &self.validation].into_iter().enumerate() {
            images.iter().for_each(|image| counts[image.class][side] += 1);
        }
        counts
    }

    /// `sha256:…` of keys, sizes and sides, and of the labels that a list gives. A copy of the data set in
    /// another folder has the same digest.
    #[must_use]
    pub fn digest(&self) -> String {
        use std::fmt::Write;
        let mut hash = Sha256::new();
        for (side, images) in [("train", &self.training), ("validate", &self.validation)] {
            for DatasetImage { key, bytes, class, .. } in images {
                // A folder's labels are in its keys.
                let label = match self.is_listed {
                    true => format!("\0{}", self.classes[*class]),
                    false => String::new(),
                };
                hash.update(format!("{side}\0{key}\0{bytes}{label}\n"));
            }
        }
        hash.finalize().iter().fold("sha256:".to_owned(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to a string can't fail");
            text
        })
    }
}

/// A number from 0 to 1 that depends on the key only, evenly distributed.
fn position(key: &str) -> f64 {
    let first: [u8; 8] = *Sha256::digest(key).first_chunk().expect("a digest has 32 bytes");
    u64::from_be_bytes(first) as f64 / 2f64.powi(64)
}

/// Images to train on, and to validate on.
type Sides = (Vec<DatasetImage>, Vec<DatasetImage>);

fn split_by_path(images: Vec<DatasetImage>, share: f64) -> Sides {
    images.into_iter().partition(|image| position(&image.key) >= share)
}

/// Holds back the images of each class with the lowest positions, so that an added image moves at
/// most one other.
fn split_stratified(images: Vec<DatasetImage>, classes: usize, share: f64) -> Sides {
    let mut limits = vec![Vec::new(); classes];
    for image in &images {
        limits[image.class].push((position(&image.key), image.key.clone()));
    }
    // Of each class, the first image to train on.
    let limits = limits.into_iter().map(|mut positions| {
        positions.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
        let held_back = (share * positions.len() as f64).round() as usize;
        positions.swap_remove(held_back.clamp(1, positions.len() - 1))
    });
    let limits: Vec<_> = limits.collect();
    images.into_iter().partition(|image| {
        let (limit, key) = &limits[image.class];
        let position = position(&image.key);
        position > *limit || (position == *limit && image.key >= *key)
    })
}

/// The files of a data set.
struct Found<'a> {
    root: &'a Path,
    scan: &'a Scan,
}

impl Found<'_> {
    /// The classes in the folder `side`.
    fn classes(&self, side: &str) -> Result<Vec<String>, DatasetError> {
        let found = folders_with_images(self.scan, side);
        let path = if side.is_empty() { self.root.to_owned() } else { self.root.join(side) };
        let empty = match self.folders_without_images(side).as_slice() {
            [] => String::new(),
            [name] => format!(" ({name} has no images)"),
            names => format!(" ({} have no images)", first(names)),
        };
        match found.keys().collect::<Vec<_>>().as_slice() {
            [] => Err(DatasetError::NoClasses { path, empty }),
            [class] => {
                let inside = folders_with_images(self.scan, &join(side, class));
                let advice = if inside.len() > 1 {
                    let inside: Vec<_> = inside.into_keys().collect();
                    let (inside, path) = (first(&inside), path.display());
                    format!("if the classes are in it ({inside}), train on {path}/{class}")
                } else {
                    "add a folder for each further class".to_owned()
                };
                let class = (**class).to_owned();
                Err(DatasetError::OneClass { path, class, empty, advice })
            }
            _ => Ok(found.into_keys().map(str::to_owned).collect()),
        }
    }

    /// Names of the folders in the folder `side` that have no images.
    fn folders_without_images(&self, side: &str) -> Vec<&str> {
        let with_images = folders_with_images(self.scan, side);
        let names = self.scan.folders.iter().filter_map(|key| below(key, side));
        names.filter(|name| !name.contains('/') && !with_images.contains_key(name)).collect()
    }

    /// Checks that a folder to validate on has no class that can't be learnt.
    fn check_known(&self, side: &str, classes: &[String]) -> Result<(), DatasetError> {
        let folders = folders_with_images(self.scan, side);
        let unknown = folders.keys().find(|name| !classes.iter().any(|class| class == *name));
        match unknown {
            Some(name) => {
                let path = self.root.join(side).join(name);
                Err(DatasetError::UnknownClass { path, classes: first(classes) })
            }
            None => Ok(()),
        }
    }

    /// Checks that each class can be split.
    fn check_enough(
        &self,
        side: &str,
        classes: &[String],
        images: &[DatasetImage],
    ) -> Result<(), DatasetError> {
        let mut counts = vec![0_usize; classes.len()];
        images.iter().for_each(|image| counts[image.class] += 1);
        match counts.iter().position(|count| *count < MIN_CLASS_IMAGES) {
            Some(index) => Err(DatasetError::TooFewImages {
                class: classes[index].clone(),
                path: self.root.join(side).join(&classes[index]),
                images: counts[index],
            }),
            None => Ok(()),
        }
    }

    /// The images of every class in the folder `side`, in the order of classes and names.
    fn images(&self, side: &str, classes: &[String]) -> Result<Vec<DatasetImage>, DatasetError> {
        let mut images = Vec::new();
        for scanned in &self.scan.images {
            let folder = below(&scanned.key, side).and_then(|rest| rest.split_once('/'));
            let Some((name, _)) = folder else { continue };
            let Ok(class) = classes.binary_search_by(|class| class.as_str().cmp(name)) else {
                continue;
            };
            let (key, path) = (scanned.key.clone(), scanned.path.clone());
            images.push(DatasetImage { key, path, class, bytes: scanned.bytes });
        }
        let mut counts = vec![0_usize; classes.len()];
        images.iter().for_each(|image| counts[image.class] += 1);
        match counts.iter().position(|count| *count == 0) {
            Some(class) => {
                Err(DatasetError::EmptyClass { path: self.root.join(side).join(&classes[class]) })
            }
            None => Ok(images),
        }
    }

    fn left_out(&self, layout: &Layout) -> LeftOut {
        let sides = [Some(&layout.training), layout.validation.as_ref()];
        let sides: Vec<_> = sides.into_iter().flatten().collect();
        let is_unused =
            |key: &str| layout.unused.iter().any(|folder| below(key, &folder.key).is_some());
        let is_used = |key: &str| {
            sides.iter().any(|side| below(key, side).is_some_and(|rest| rest.contains('/')))
        };
        let beside = self.scan.images.iter().map(|image| &image.key);
        let beside = beside.filter(|key| !is_used(key) && !is_unused(key));
        // Beside the sides, too: an empty val/ is not validated on.
        let top = String::new();
        let parents = if sides.contains(&&top) { vec![] } else { vec![&top] };
        let empty = parents.iter().chain(&sides).flat_map(|side| {
            let names = self.folders_without_images(side);
            names
                .into_iter()
                .map(|name| LeftOutFolder { key: join(side, name), reason: "no images" })
        });
        let excluded = self.scan.excluded.iter().cloned();
        LeftOut {
            other_files: self
                .scan
                .other_files
                .iter()
                .filter(|key| !is_unused(key))
                .cloned()
                .collect(),
            images_beside: beside.cloned().collect(),
            folders: layout.unused.iter().cloned().chain(excluded).chain(empty).collect(),
            listed_to_test: 0,
        }
    }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// The first names of a list, for a message.
fn first(names: &[impl AsRef<str>]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<_> = names.iter().take(SHOWN).map(AsRef::as_ref).collect();
    let more = if names.len() > SHOWN { ", …" } else { "" };
    shown.join(", ") + more
}

#[cfg(test)]
mod tests;
