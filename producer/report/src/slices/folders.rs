//! The folders of an image's key as properties: those that neither give the label nor the split.

use camshaft_common::split_names;

/// The folders of a key that count, from the top down: at most [`DEPTH`].
pub(super) const DEPTH: usize = 3;

/// The folders of one key.
#[derive(Debug, PartialEq)]
pub(super) struct Folders<'a> {
    pub(super) names: Vec<&'a str>,
    /// The number of those above the folder that gives the label. Folders below it belong to one
    /// label by nature.
    pub(super) above_label: usize,
}

/// The folders of a key, less those that are named like its label or like a split.
pub(super) fn folders_of<'a>(key: &'a str, label: Option<&str>) -> Folders<'a> {
    let (folders, _name) = key.rsplit_once('/').unwrap_or_default();
    let (mut names, mut above_label) = (Vec::new(), None);
    for folder in folders.split('/').filter(|folder| !folder.is_empty()) {
        if label.is_some_and(|label| label.eq_ignore_ascii_case(folder)) {
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
            ("train/cat/a.jpg", Some("cat"), &[][..], 0),
            ("site-1/train/cat/day-2/a.jpg", Some("Cat"), &["site-1", "day-2"], 1),
            ("site-1/x/y/z/a.jpg", Some("cat"), &["site-1", "x", "y"], 3),
            ("site-1/a.jpg", None, &["site-1"], 1),
            ("a.jpg", Some("cat"), &[], 0),
        ] {
            let expected = Folders { names: names.to_vec(), above_label };
            assert_eq!(folders_of(key, label), expected, "{key}");
        }
    }
}
