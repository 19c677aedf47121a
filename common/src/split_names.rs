//! Names of folders that say what their images are for: to train, to validate or to test on.
//!
//! Pure: looks at names only. Downstream: training, which tells splits from classes; the report,
//! which looks for images that are in two splits; decisions, which name an image's split.

/// What the images of a split are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Split {
    /// A network learns from it.
    Training,
    /// It tells when to stop.
    Validation,
    /// It tells how good the network is.
    Test,
}

impl Split {
    /// Completes "a folder to … on".
    #[must_use]
    pub fn purpose(self) -> &'static str {
        match self {
            Self::Training => "train",
            Self::Validation => "validate",
            Self::Test => "test",
        }
    }
}

/// A folder's name, read as a split's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitName {
    /// What its images are for.
    pub split: Split,
    /// The other words of the name: `seg` of `seg_train`. Empty for `train` and `training_set`.
    pub rest: String,
    /// True for a word that means a split only beside a folder to train on: `dev` may be a class.
    pub is_weak: bool,
}

const WORDS: [(&str, Split, bool); 15] = [
    ("train", Split::Training, false),
    ("training", Split::Training, false),
    ("trainval", Split::Training, false),
    ("val", Split::Validation, false),
    ("valid", Split::Validation, false),
    ("validate", Split::Validation, false),
    ("validation", Split::Validation, false),
    ("dev", Split::Validation, true),
    ("eval", Split::Validation, true),
    ("evaluation", Split::Validation, true),
    ("holdout", Split::Validation, true),
    ("test", Split::Test, false),
    ("tests", Split::Test, false),
    ("testing", Split::Test, false),
    ("unseen", Split::Test, true),
];

/// Words that say nothing about what the images are for: `training_set`, `test-images`. Longer ones
/// first, since they are also cut off the end of a word (`trainset`).
const FILLERS: [&str; 14] = [
    "pictures", "dataset", "images", "photos", "samples", "folder", "split", "image", "files",
    "data", "sets", "imgs", "set", "img",
];

/// Reads a name, whatever its case and whatever stands between its words. `None` if it has no
/// split's word, or several.
#[must_use]
pub fn read(name: &str) -> Option<SplitName> {
    let mut found = None;
    let mut rest = Vec::new();
    for word in words(name) {
        match split_word(&word) {
            Some(_) if found.is_some() => return None,
            Some(split) => found = Some(split),
            None if FILLERS.contains(&word.as_str()) => {}
            None => rest.push(word),
        }
    }
    let (split, is_weak) = found?;
    Some(SplitName { split, rest: rest.join(" "), is_weak })
}

/// The split that an image belongs to by its key: `train` for `train/cat/a.jpg`.
#[must_use]
pub fn of_key(key: &str) -> Option<&str> {
    let (folders, _name) = key.rsplit_once('/')?;
    folders.split('/').find(|folder| read(folder).is_some_and(|name| name.rest.is_empty()))
}

/// Runs of letters and runs of digits, in lower case.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut before = None;
    for character in name.chars().flat_map(char::to_lowercase) {
        let kind = match character {
            _ if character.is_alphabetic() => Some('a'),
            _ if character.is_numeric() => Some('0'),
            _ => None,
        };
        match (kind, words.last_mut()) {
            (Some(_), Some(word)) if kind == before => word.push(character),
            (Some(_), _) => words.push(character.to_string()),
            (None, _) => {}
        }
        before = kind;
    }
    words
}

fn split_word(word: &str) -> Option<(Split, bool)> {
    let known = |text: &str| WORDS.iter().find(|(word, ..)| *word == text);
    let cut = || FILLERS.iter().find_map(|filler| word.strip_suffix(filler).and_then(known));
    known(word).or_else(cut).map(|(_, split, is_weak)| (*split, *is_weak))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_known_by_their_usual_names_in_any_case() {
        for (names, split) in [
            ("train TRAIN Train training Training_Set train-data trainset train_images", 0),
            ("val VAL valid validation Validation-set val_data validset VALSET valid_images", 1),
            ("test TEST testing test_set Test-Data testset tests", 2),
        ] {
            for name in names.split(' ') {
                let read = read(name).unwrap();
                let split = [Split::Training, Split::Validation, Split::Test][split];
                assert_eq!((read.split, read.rest.as_str()), (split, ""), "{name}");
            }
        }
    }

    #[test]
    fn other_words_of_a_name_are_told() {
        for (name, rest) in
            [("seg_train", "seg"), ("train2017", "2017"), ("train_station", "station")]
        {
            assert_eq!(read(name).unwrap().rest, rest);
        }
    }

    #[test]
    fn names_of_classes_are_no_splits() {
        for name in ["cat", "trainer", "contest", "invalid", "trainers_set", "set", "data", ""] {
            assert_eq!(read(name), None, "{name}");
        }
        assert_eq!(read("train_test"), None);
        assert!(read("dev").unwrap().is_weak);
    }

    #[test]
    fn a_split_is_a_folder_of_that_name_not_a_file() {
        for (key, split) in [
            ("train/cat/a.jpg", Some("train")),
            ("pets/Val/cat/a.jpg", Some("Val")),
            ("cat/test", None),
            ("data/Test_Set/cat/a.jpg", Some("Test_Set")),
            ("training-set/a.jpg", Some("training-set")),
            ("train_station/a.jpg", None),
            ("a.jpg", None),
        ] {
            assert_eq!(of_key(key), split, "{key}");
        }
    }
}
