//! The images of a folder of class folders, and which of them are held back for validation.
//!
//! Owns keys, classes and the split. Files are not opened here. Upstream: a local folder.
//! Downstream: [`inputs`](super::inputs).

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Names that the folder of images to validate on may have.
const VALIDATION_FOLDERS: [&str; 3] = ["val", "validation", "valid"];
/// Name of the folder of images to train on.
const TRAINING_FOLDER: &str = "train";
/// Share of the images that are held back if there is no folder of images to validate on.
const VALIDATION_SHARE: f64 = 0.2;

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
    /// The folder has no folders in it.
    #[error(
        "{path} has no class folders; put each class's images into a folder of its own: \
         {path}/CLASS, or {path}/train/CLASS and {path}/val/CLASS"
    )]
    NoClasses {
        /// The folder.
        path: PathBuf,
    },
    /// There is one class only, so there is nothing to learn.
    #[error("{path} has one class only, {class:?}; add a folder for each further class")]
    OneClass {
        /// The folder of class folders.
        path: PathBuf,
        /// The class.
        class: String,
    },
    /// A class has no images.
    #[error("class folder {path} has no images; add some, or remove it")]
    EmptyClass {
        /// The class's folder.
        path: PathBuf,
    },
    /// A class has images to validate on and none to train on.
    #[error("{path} is a class that the images to train on don't have; add it there, or remove it")]
    UnknownClass {
        /// The class's folder.
        path: PathBuf,
    },
    /// There is a folder of images to validate on and no folder of images to train on.
    #[error("{path} has a folder to validate on and no train/; call the other one train")]
    NoTraining {
        /// The data set.
        path: PathBuf,
    },
    /// There is a folder of images to validate on, and also a share to hold back.
    #[error("{path} says which images to validate on; leave out the share of images to hold back")]
    ShareAndFolder {
        /// The folder of images to validate on.
        path: PathBuf,
    },
    /// The share is so small or so large that a class has images on one side only.
    #[error(
        "a validation share of {share} leaves class {class:?} without images to {purpose} on; \
         choose another share, or add images"
    )]
    OneSided {
        /// The share.
        share: f64,
        /// The class.
        class: String,
        /// What the class has no images for: `train` or `validate`.
        purpose: &'static str,
    },
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

/// Images to train and to validate on, in the order of their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// Class names, by index: the folders' names in alphabetical order.
    pub classes: Vec<String>,
    /// Images to train on.
    pub training: Vec<DatasetImage>,
    /// Images to validate on.
    pub validation: Vec<DatasetImage>,
}

impl Dataset {
    /// Finds the images below `root`: in `train/CLASS` and `val/CLASS`, or in `CLASS` alone. Then a
    /// `share` of them (0.2 by default) is held back for validation, chosen by a hash of each key.
    ///
    /// # Errors
    /// If a folder can't be read, or classes or images are missing.
    pub fn find(root: &Path, share: Option<f64>) -> Result<Self, DatasetError> {
        let training = root.join(TRAINING_FOLDER);
        let validation = VALIDATION_FOLDERS.map(|name| root.join(name));
        let validation = validation.into_iter().find(|path| path.is_dir());
        match (training.is_dir(), validation) {
            (true, Some(validation)) if share.is_none() => {
                Self::of_folders(root, &training, &validation)
            }
            (true, Some(path)) => Err(DatasetError::ShareAndFolder { path }),
            (false, Some(_)) => Err(DatasetError::NoTraining { path: root.to_owned() }),
            (true, None) => Self::split(root, &training, share.unwrap_or(VALIDATION_SHARE)),
            (false, None) => Self::split(root, root, share.unwrap_or(VALIDATION_SHARE)),
        }
    }

    fn of_folders(root: &Path, training: &Path, validation: &Path) -> Result<Self, DatasetError> {
        let classes = classes(training)?;
        let held_back = folders(validation)?;
        if let Some(unknown) = held_back.iter().find(|name| !classes.contains(name)) {
            return Err(DatasetError::UnknownClass { path: validation.join(unknown) });
        }
        Ok(Self {
            training: images(root, training, &classes)?,
            validation: images(root, validation, &classes)?,
            classes,
        })
    }

    fn split(root: &Path, folder: &Path, share: f64) -> Result<Self, DatasetError> {
        let classes = classes(folder)?;
        let all = images(root, folder, &classes)?;
        let (validation, training): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|image| position(&image.key) < share);
        for (side, purpose) in [(&training, "train"), (&validation, "validate")] {
            for (index, class) in classes.iter().enumerate() {
                if !side.iter().any(|image| image.class == index) {
                    let class = class.clone();
                    return Err(DatasetError::OneSided { share, class, purpose });
                }
            }
        }
        Ok(Self { classes, training, validation })
    }

    /// `sha256:…` of keys, sizes and sides. A copy of the data set in another folder has the same
    /// digest.
    #[must_use]
    pub fn digest(&self) -> String {
        use std::fmt::Write;
        let mut hash = Sha256::new();
        for (side, images) in [("train", &self.training), ("validate", &self.validation)] {
            for DatasetImage { key, bytes, .. } in images {
                hash.update(format!("{side}\0{key}\0{bytes}\n"));
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

fn classes(folder: &Path) -> Result<Vec<String>, DatasetError> {
    let classes = folders(folder)?;
    match classes.as_slice() {
        [] => Err(DatasetError::NoClasses { path: folder.to_owned() }),
        [class] => Err(DatasetError::OneClass { path: folder.to_owned(), class: class.clone() }),
        _ => Ok(classes),
    }
}

fn folders(folder: &Path) -> Result<Vec<String>, DatasetError> {
    let entries = entries(folder)?.into_iter();
    Ok(entries.filter(|(path, _)| path.is_dir()).map(|(_, name)| name).collect())
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

/// The images of every class below `side`, in the order of classes and names.
fn images(root: &Path, side: &Path, classes: &[String]) -> Result<Vec<DatasetImage>, DatasetError> {
    let mut images = Vec::new();
    for (class, name) in classes.iter().enumerate() {
        let (before, folder) = (images.len(), side.join(name));
        if folder.is_dir() {
            collect(root, &folder, class, &mut images)?;
        }
        if images.len() == before {
            return Err(DatasetError::EmptyClass { path: folder });
        }
    }
    Ok(images)
}

fn collect(
    root: &Path,
    folder: &Path,
    class: usize,
    images: &mut Vec<DatasetImage>,
) -> Result<(), DatasetError> {
    for (path, _) in entries(folder)? {
        if path.is_dir() {
            collect(root, &path, class, images)?;
            continue;
        }
        let metadata = fs::metadata(&path);
        let bytes = metadata
            .map_err(|source| DatasetError::Unreadable { path: path.clone(), source })?
            .len();
        let below = path.strip_prefix(root).expect("it was found below the root");
        let parts: Vec<_> = below.iter().map(|part| part.to_string_lossy()).collect();
        images.push(DatasetImage { key: parts.join("/"), path, class, bytes });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"x").unwrap();
        }
        root
    }

    fn keys(images: &[DatasetImage]) -> Vec<&str> {
        images.iter().map(|image| image.key.as_str()).collect()
    }

    #[test]
    fn folders_say_what_is_validated_on() {
        for name in VALIDATION_FOLDERS {
            let val = [format!("{name}/dog/c.jpg"), format!("{name}/cat/d.jpg")];
            let root = folder(&["train/dog/a.jpg", "train/cat/deep/b.jpg", &val[0], &val[1]]);
            let found = Dataset::find(root.path(), None).unwrap();
            assert_eq!(found.classes, ["cat", "dog"]);
            assert_eq!(keys(&found.training), ["train/cat/deep/b.jpg", "train/dog/a.jpg"]);
            assert_eq!(keys(&found.validation), [val[1].as_str(), val[0].as_str()]);
            assert_eq!(found.validation[1].class, 1);
            let error = Dataset::find(root.path(), Some(0.5)).unwrap_err();
            assert!(matches!(error, DatasetError::ShareAndFolder { .. }));
        }
    }

    #[test]
    fn a_split_depends_on_nothing_but_each_images_key() {
        let files: Vec<_> = (0..400).map(|n| format!("{}/{n}.jpg", ["a", "b"][n % 2])).collect();
        let files: Vec<_> = files.iter().map(String::as_str).collect();
        let all = Dataset::find(folder(&files).path(), None).unwrap();
        assert!((60..100).contains(&all.validation.len()), "{}", all.validation.len());
        let fewer = Dataset::find(folder(&files[..200]).path(), None).unwrap();
        for key in keys(&fewer.validation) {
            assert!(keys(&all.validation).contains(&key), "{key} changed sides");
        }
        assert_ne!(fewer.digest(), all.digest());
    }

    #[test]
    fn what_is_no_data_set_is_told_apart() {
        let find = |files: &[&str], share| {
            Dataset::find(folder(files).path(), share).unwrap_err().to_string()
        };
        assert!(find(&["a.jpg"], None).contains("has no class folders"));
        assert!(find(&["a/1.jpg", ".hidden/1.jpg"], None).contains("one class only, \"a\""));
        assert!(find(&["a/1.jpg", "b/.hidden"], None).contains("/b has no images"));
        assert!(find(&["val/a/1.jpg"], None).contains("no train/"));
        let unknown = ["train/a/1", "train/b/1", "val/a/1", "val/b/1", "val/c/1"];
        assert!(find(&unknown, None).contains("val/c is a class that"));
        assert!(find(&unknown[..3], None).contains("val/b has no images"));
        assert!(find(&["a/1", "b/1"], Some(0.0)).contains("without images to validate on"));
        let missing = Dataset::find(Path::new("/nowhere/at/all"), None).unwrap_err().to_string();
        assert!(missing.starts_with("/nowhere/at/all can't be read"), "{missing}");
    }
}
