//! Tells from the names of folders what they are: classes, or splits that hold the classes.
//!
//! Pure: works on the keys of a [`Scan`]. A layout that can be read in two ways is refused: a wrong
//! guess would train a model that tells `train` from `test`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use camshaft_common::split_names::{self, Split, SplitName};

use super::scan::Scan;
use super::{DatasetError, LeftOutFolder};

/// Where the class folders are. Each is a key without a slash at its end; empty for the data set
/// itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// The folder of the classes to train on.
    pub(super) training: String,
    /// The folder of the classes to validate on, if there is one.
    pub(super) validation: Option<String>,
    /// Folders beside them, which are not used.
    pub(super) unused: Vec<LeftOutFolder>,
}

/// The folders with images directly below the folder `key`, and how many images each has.
pub(super) fn folders_with_images<'s>(scan: &'s Scan, key: &str) -> BTreeMap<&'s str, usize> {
    let mut folders = BTreeMap::new();
    for image in &scan.images {
        let Some(rest) = below(&image.key, key) else { continue };
        if let Some((folder, _)) = rest.split_once('/') {
            *folders.entry(folder).or_default() += 1;
        }
    }
    folders
}

/// The part of `key` below `folder`.
pub(super) fn below<'k>(key: &'k str, folder: &str) -> Option<&'k str> {
    if folder.is_empty() { Some(key) } else { key.strip_prefix(folder)?.strip_prefix('/') }
}

fn has_images_itself(scan: &Scan, folder: &str) -> bool {
    scan.images
        .iter()
        .any(|image| below(&image.key, folder).is_some_and(|rest| !rest.contains('/')))
}

impl Layout {
    /// Finds out which folders of the data set at `root` hold class folders.
    ///
    /// # Errors
    /// If that can't be told for certain.
    pub(super) fn of(root: &Path, scan: &Scan) -> Result<Self, DatasetError> {
        let names: Vec<_> = folders_with_images(scan, "").into_keys().collect();
        let splits = splits(&names);
        if splits.is_empty() {
            return Ok(Self { training: String::new(), validation: None, unused: Vec::new() });
        }
        let others: Vec<_> =
            names.iter().filter(|name| !splits.iter().any(|(split, _)| split == *name)).collect();
        let [training, validation, test] = [Split::Training, Split::Validation, Split::Test]
            .map(|wanted| only(root, &splits, wanted));
        let (training, validation, test) = (training?, validation?, test?);
        let ambiguous = || {
            let list = |names: &[&str]| names.join(", ");
            let splits: Vec<_> = splits.iter().map(|(name, _)| *name).collect();
            let others: Vec<_> = others.iter().map(|name| **name).collect();
            Err(DatasetError::Ambiguous {
                path: root.to_owned(),
                splits: list(&splits),
                others: list(&others),
            })
        };
        let Some(training) = training else {
            return if others.is_empty() {
                Err(DatasetError::NoTraining { path: root.to_owned() })
            } else {
                ambiguous()
            };
        };
        let holds_classes =
            !has_images_itself(scan, training) && !folders_with_images(scan, training).is_empty();
        if !others.is_empty() && !(holds_classes && (validation.is_some() || test.is_some())) {
            return ambiguous();
        }
        let unused = |name: &str, reason| LeftOutFolder { key: name.to_owned(), reason };
        let others = others.iter().map(|name| unused(name, "neither to train nor to validate on"));
        let test = test.map(|name| unused(name, "to test on: audit it with the trained model"));
        Ok(Self {
            training: without_wrappers(scan, training, Split::Training),
            validation: validation.map(|name| without_wrappers(scan, name, Split::Validation)),
            unused: test.into_iter().chain(others).collect(),
        })
    }
}

/// The folders that are splits. `dev` is one beside `train` only; `seg_train` is one if all folders
/// are called like it.
fn splits<'n>(names: &[&'n str]) -> Vec<(&'n str, Split)> {
    let read: Vec<(&str, SplitName)> =
        names.iter().filter_map(|name| Some((*name, split_names::read(name)?))).collect();
    let is_training = |name: &SplitName| name.split == Split::Training;
    if let Some((_, first)) = read.first()
        && !first.rest.is_empty()
        && read.len() == names.len()
        && read.len() > 1
        && read.iter().all(|(_, name)| name.rest == first.rest)
        && read.iter().any(|(_, name)| is_training(name))
    {
        return read.into_iter().map(|(name, split)| (name, split.split)).collect();
    }
    let plain = || read.iter().filter(|(_, name)| name.rest.is_empty());
    let has_training = plain().any(|(_, name)| is_training(name));
    let splits = plain().filter(|(_, name)| has_training || !name.is_weak);
    splits.map(|(name, split)| (*name, split.split)).collect()
}

/// The folder of a split; none if there is none.
///
/// # Errors
/// If there are two.
fn only<'n>(
    root: &Path,
    splits: &[(&'n str, Split)],
    wanted: Split,
) -> Result<Option<&'n str>, DatasetError> {
    let mut found = splits.iter().filter(|(_, split)| *split == wanted).map(|(name, _)| *name);
    match (found.next(), found.next()) {
        // Nothing is done with images to test on, so there may be any number of them.
        (Some(first), Some(second)) if wanted != Split::Test => Err(DatasetError::TwoSplits {
            path: root.to_owned(),
            purpose: wanted.purpose(),
            first: first.to_owned(),
            second: second.to_owned(),
        }),
        (first, _) => Ok(first),
    }
}

/// Some archives have `training_set/training_set/cat`: goes down to the folder of the classes.
fn without_wrappers(scan: &Scan, folder: &str, split: Split) -> String {
    let mut folder = folder.to_owned();
    loop {
        let inside: Vec<_> = folders_with_images(scan, &folder).into_keys().collect();
        match inside.as_slice() {
            [name]
                if !has_images_itself(scan, &folder)
                    && split_names::read(name).is_some_and(|read| read.split == split) =>
            {
                folder = format!("{folder}/{name}");
            }
            _ => return folder,
        }
    }
}

/// Refuses class folders in the folder `side` that hold splits: `cat/train` and `cat/val`. Their
/// images must not be mixed.
///
/// # Errors
/// If a class has such folders; the error names the first.
pub(super) fn check_no_splits_inside(
    root: &Path,
    scan: &Scan,
    side: &str,
) -> Result<(), DatasetError> {
    let mut inside: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for image in &scan.images {
        let class = below(&image.key, side).and_then(|rest| rest.split_once('/'));
        let folder = class.and_then(|(class, rest)| Some((class, rest.split_once('/')?.0)));
        if let Some((class, folder)) = folder {
            inside.entry(class).or_default().insert(folder);
        }
    }
    for (class, names) in inside {
        let inside = splits(&names.into_iter().collect::<Vec<_>>());
        let training = inside.iter().find(|(_, split)| *split == Split::Training);
        let other = inside.iter().find(|(_, split)| *split != Split::Training);
        if let (Some((training, _)), Some((other, _))) = (training, other) {
            return Err(DatasetError::SplitsInClass {
                path: root.join(side).join(class),
                training: (*training).to_owned(),
                other: (*other).to_owned(),
                class: class.to_owned(),
            });
        }
    }
    Ok(())
}
