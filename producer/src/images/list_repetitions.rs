//! Keys that a list has twice: each image counts once, and with one label.
//!
//! A list may have a hundred million keys. If it can be read twice, eight bytes are held for each key
//! of a part of it, and more only for keys that it has twice ([`Repetitions`]). If not, some 40 bytes
//! are held for each key ([`FirstLines`]).

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use crate::images::list_lines::ListedImage;

/// A key has another label in a later line of its list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "lines {first_line} and {line} have the same key, {key}, and different labels; keep the line with the \
     right one"
)]
pub struct OtherLabel {
    /// The key.
    pub key: String,
    /// The first line with the key, counted from 1.
    pub first_line: u64,
    /// The line with another label.
    pub line: u64,
}

/// Hashes of keys, with a secret of this process, so that nobody can construct many equal ones.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyHasher(RandomState);

impl KeyHasher {
    pub(crate) fn hash(&self, image: &ListedImage) -> u64 {
        self.0.hash_one(image.key.as_str())
    }
}

/// The hashes of the keys in one part of a list.
#[derive(Debug)]
pub(crate) struct PartOfKeys {
    part: u64,
    parts: u64,
    hashes: Vec<u64>,
}

impl PartOfKeys {
    /// The keys whose hashes divided by `parts` leave `part`.
    pub(crate) fn new(part: u64, parts: u64) -> Self {
        Self { part, parts, hashes: Vec::new() }
    }

    pub(crate) fn add(&mut self, hash: u64) {
        if hash % self.parts == self.part {
            self.hashes.push(hash);
        }
    }

    /// The hashes that were added more than once.
    pub(crate) fn into_repeated(mut self) -> impl Iterator<Item = u64> {
        self.hashes.sort_unstable();
        let repeated: HashSet<u64> =
            self.hashes.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
        repeated.into_iter()
    }
}

/// The first lines of keys, with their labels. Each takes 27 to 54 bytes, whatever the length of the
/// key.
#[derive(Debug, Default)]
pub(crate) struct FirstLines {
    /// Two hashes tell keys apart: two of a billion have both in common once in 10^20 times.
    hashers: [RandomState; 2],
    by_key: HashMap<[u64; 2], FirstLine>,
}

#[derive(Clone, Copy, Debug)]
struct FirstLine {
    line: u32,
    /// Half of the hash of the label.
    label: u32,
}

impl FirstLines {
    /// Notes a line of the list. False if an earlier line has the same key.
    ///
    /// # Errors
    /// If an earlier line has the same key with another label.
    pub(crate) fn note(&mut self, image: &ListedImage) -> Result<bool, OtherLabel> {
        let label = self.hashers[0].hash_one(&image.label) as u32;
        // Of four billion lines and more the last ones share a number.
        let line = u32::try_from(image.line).unwrap_or(u32::MAX);
        let key = self.hash(image);
        let first = match self.by_key.entry(key) {
            Entry::Vacant(place) => {
                place.insert(FirstLine { line, label });
                return Ok(true);
            }
            Entry::Occupied(first) => *first.get(),
        };
        if first.label == label {
            return Ok(false);
        }
        let (key, first_line) = (image.key.to_string(), first.line.into());
        Err(OtherLabel { key, first_line, line: image.line })
    }

    fn hash(&self, image: &ListedImage) -> [u64; 2] {
        self.hashers.each_ref().map(|hasher| hasher.hash_one(image.key.as_str()))
    }
}

/// The keys that a list has twice.
#[derive(Debug, Default)]
pub(crate) struct Repetitions {
    /// Hashes of these keys, and perhaps of a few others.
    suspected: HashSet<u64>,
    hasher: KeyHasher,
    first: FirstLines,
}

impl Repetitions {
    /// Nothing is known yet of the keys with the `suspected` hashes.
    pub(crate) fn new(suspected: HashSet<u64>, hasher: KeyHasher) -> Self {
        Self { suspected, hasher, first: FirstLines::default() }
    }

    /// True if the list has no key twice.
    pub(crate) fn is_empty(&self) -> bool {
        self.suspected.is_empty()
    }

    /// Notes a line of the list. False if an earlier line has the same key.
    ///
    /// # Errors
    /// If an earlier line has the same key with another label.
    pub(crate) fn note(&mut self, image: &ListedImage) -> Result<bool, OtherLabel> {
        if self.is_empty() || !self.suspected.contains(&self.hasher.hash(image)) {
            return Ok(true);
        }
        self.first.note(image)
    }

    /// The same, before any line is noted.
    pub(crate) fn forget_lines(&mut self) {
        self.first = FirstLines::default();
    }
}

#[cfg(test)]
mod tests {
    use camshaft_common::key::ImageKey;

    use super::*;

    fn image(key: &str, label: &str, line: u64) -> ListedImage {
        let key = ImageKey::parse(key).unwrap();
        ListedImage { key, label: Some(label.to_owned()), split: None, line }
    }

    fn repetitions(images: &[ListedImage], parts: u64) -> Result<Vec<u64>, OtherLabel> {
        let hasher = KeyHasher::default();
        let mut suspected = HashSet::new();
        for part in 0..parts {
            let mut keys = PartOfKeys::new(part, parts);
            images.iter().for_each(|image| keys.add(hasher.hash(image)));
            suspected.extend(keys.into_repeated());
        }
        let mut repetitions = Repetitions::new(suspected, hasher);
        let mut first = FirstLines::default();
        let mut repeated = Vec::new();
        for image in images {
            let is_new = repetitions.note(image)?;
            assert_eq!(first.note(image), Ok(is_new));
            repeated.extend((!is_new).then_some(image.line));
        }
        Ok(repeated)
    }

    #[test]
    fn repetitions_are_found_in_any_number_of_parts() {
        let images = [("a", 1), ("b", 2), ("a", 3), ("c", 4), ("a", 6), ("c", 7)];
        let images = images.map(|(key, line)| image(key, "cat", line));
        for parts in [1, 2, 7] {
            assert_eq!(repetitions(&images, parts), Ok(vec![3, 6, 7]));
        }
        assert_eq!(repetitions(&images[..2], 1), Ok(Vec::new()));
    }

    #[test]
    fn another_label_is_an_error_that_names_both_lines() {
        let images = [image("a", "cat", 2), image("b", "cat", 3), image("a", "dog", 7)];
        let error = repetitions(&images, 1).unwrap_err().to_string();
        assert!(error.contains("lines 2 and 7") && error.contains("key, a"), "{error}");
        let unlabelled = ListedImage { label: None, ..image("a", "", 7) };
        assert!(repetitions(&[image("a", "cat", 2), unlabelled], 1).is_err());
    }
}
