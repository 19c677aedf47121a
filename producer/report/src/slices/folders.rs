//! The folders of an image's key as properties: those that neither give the label nor the split.

use std::collections::{HashMap, HashSet};

use camshaft_common::label::fold;
use camshaft_common::split_names;

use crate::predictions::{ImageClasses, NO_NAME};

/// The folders of a key that count, from the top down: at most [`DEPTH`].
pub(super) const DEPTH: usize = 3;

/// The names of all labels and of the classes that they mean, however they are spelt. Those of all
/// images, not only of the one in the folder: an image of a dog in the folder of cats is a wrong
/// label, and the folder no property.
#[derive(Debug)]
pub(super) struct LabelNames {
    folded: HashSet<String>,
    /// The names that were asked for, and whether they are labels.
    asked: HashMap<String, bool>,
}

impl LabelNames {
    pub(super) fn new(classes: &ImageClasses) -> Self {
        let ids: HashSet<u32> = classes.given.iter().chain(&classes.label).copied().collect();
        let ids = ids.into_iter().filter(|id| *id != NO_NAME);
        Self::of(ids.map(|id| classes.names.name(id)))
    }

    fn of<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut folded = HashSet::new();
        for name in names.map(fold) {
            // A class may have several names: `tabby, tabby cat`.
            folded.extend(name.split(',').map(str::to_owned));
            folded.insert(name);
        }
        Self { folded, asked: HashMap::new() }
    }

    /// Whether a folder or split is named like a label.
    pub(super) fn contain(&mut self, name: &str) -> bool {
        if let Some(is_label) = self.asked.get(name) {
            return *is_label;
        }
        let is_label = self.folded.contains(&fold(name));
        self.asked.insert(name.to_owned(), is_label);
        is_label
    }
}

/// The folders of one key.
#[derive(Debug, PartialEq)]
pub(super) struct Folders<'a> {
    pub(super) names: Vec<&'a str>,
    /// The number of those above the folder that gives the label. Folders below it belong to one
    /// label by nature.
    pub(super) above_label: usize,
}

/// The folders of a key, less those that are named like a label or like a split.
pub(super) fn folders_of<'a>(key: &'a str, labels: &mut LabelNames) -> Folders<'a> {
    let (folders, _name) = key.rsplit_once('/').unwrap_or_default();
    let (mut names, mut above_label) = (Vec::new(), None);
    for folder in folders.split('/').filter(|folder| !folder.is_empty()) {
        if labels.contain(folder) {
            above_label.get_or_insert(names.len());
        } else if split_names::read(folder).is_none_or(|name| !name.rest.is_empty()) {
            names.push(folder);
        }
    }
    names.truncate(DEPTH);
    let above_label = above_label.unwrap_or(names.len()).min(names.len());
    Folders { names, above_label }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folders_of_the_label_and_the_split_are_left_out() {
        for (key, label, names, above_label) in [
            ("train/cat/a.jpg", "cat", &[][..], 0),
            ("site-1/train/cat/day-2/a.jpg", "Cat", &["site-1", "day-2"], 1),
            ("site-1/Great_Dane/a.jpg", "great dane", &["site-1"], 1),
            ("site-1/tabby/a.jpg", "tabby, tabby cat", &["site-1"], 1),
            ("site-1/dog/a.jpg", "cat", &["site-1", "dog"], 2),
            ("site-1/x/y/z/a.jpg", "cat", &["site-1", "x", "y"], 3),
            ("a.jpg", "cat", &[], 0),
        ] {
            let expected = Folders { names: names.to_vec(), above_label };
            let mut labels = LabelNames::of(std::iter::once(label));
            assert_eq!(folders_of(key, &mut labels), expected, "{key}");
        }
    }
}
