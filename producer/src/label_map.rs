//! `--label-map`: a file that says which of the model's classes a label means.
//!
//! A label is replaced before its job is made: by the name of the class, or by its index if another
//! class has the same name. So workers need not know the map. Workers of older versions write that
//! word as the image's label, since they don't know that another was given. [`file`] reads the file.
//! Upstream: the command line and the model's classes. Downstream: [`enqueue`](crate::enqueue), and
//! `run.json`.

mod file;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use camshaft_common::label::{LabelMatcher, LabelProblem, fold};

use file::{LabelMapFileError, MappedClass, MappedLabel};

/// A label map can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LabelMapError {
    /// The file can't be read.
    #[error("the label map {path}{source}")]
    File {
        /// The file.
        path: String,
        /// Where and why.
        #[source]
        source: LabelMapFileError,
    },
    /// A label is mapped to something that is no class.
    #[error(
        "the label map {path}, line {line}: {label:?} is mapped to {class}, which {problem}; name one \
         of them, or give its index"
    )]
    Class {
        /// The file.
        path: String,
        /// Counted from 1.
        line: u64,
        /// The label.
        label: String,
        /// What should be a class.
        class: String,
        /// Why it is none.
        problem: LabelProblem,
    },
    /// A class has no name of its own, and another class is called by its index.
    #[error(
        "the label map {path}, line {line}: several classes are called as class {class} is; give them \
         different names in config.json"
    )]
    NoNameOfItsOwn {
        /// The file.
        path: String,
        /// Counted from 1.
        line: u64,
        /// Class index.
        class: usize,
    },
    /// The label map of the results in OUT is for another model.
    #[error(
        "the label map of the results in OUT maps {label:?} to {word:?}, which is no class of the model; \
         give --label-map with another file, or --label-map none"
    )]
    Recorded {
        /// The label.
        label: String,
        /// What should be a class.
        word: String,
    },
    /// A label is mapped to two classes.
    #[error(
        "the label map {path}: lines {first} and {second} map {label:?} to different classes; keep one"
    )]
    TwoClasses {
        /// The file.
        path: String,
        /// The first line, counted from 1.
        first: u64,
        /// The other.
        second: u64,
        /// The label.
        label: String,
    },
}

/// Where a label map comes from.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum LabelMapSource {
    /// There is none.
    #[default]
    Absent,
    /// The file of `--label-map`.
    File(PathBuf),
    /// What `run.json` records: see [`LabelMap::words`].
    Recorded(BTreeMap<String, String>),
}

impl LabelMapSource {
    /// What `--label-map` says: a file, or `none`.
    pub(crate) fn of_argument(argument: Option<PathBuf>) -> Self {
        match argument {
            Some(path) if path.as_os_str() != "none" => Self::File(path),
            _ => Self::Absent,
        }
    }
}

/// Which labels are replaced, and by what.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LabelMap {
    /// By given label, the label for workers.
    words: BTreeMap<String, String>,
    /// By folded label, the same; `None` if several labels of the map differ only in spelling.
    folded: HashMap<String, Option<String>>,
}

/// A label as a job has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct JobLabel {
    /// What the model is asked for.
    pub(crate) label: Option<String>,
    /// The given label, if it is another.
    pub(crate) given: Option<String>,
}

impl LabelMap {
    /// The label map from `source`. The model's classes are those of `classes`.
    ///
    /// # Errors
    /// If a file can't be read, or if it names a class that the model does not have.
    #[cfg_attr(
        not(feature = "embedded"),
        expect(dead_code, reason = "it needs the model's classes")
    )]
    pub(crate) fn read(
        source: &LabelMapSource,
        classes: &LabelMatcher,
    ) -> Result<Self, LabelMapError> {
        match source {
            LabelMapSource::Absent => Ok(Self::default()),
            LabelMapSource::File(path) => Self::read_file(path, classes),
            LabelMapSource::Recorded(words) => {
                match words.iter().find(|(_, word)| classes.find(word).is_err()) {
                    // Every image is redone with another model at the same place.
                    Some((label, word)) => {
                        Err(LabelMapError::Recorded { label: label.clone(), word: word.clone() })
                    }
                    None => Ok(Self::from_words(words.clone())),
                }
            }
        }
    }

    fn read_file(path: &Path, classes: &LabelMatcher) -> Result<Self, LabelMapError> {
        let shown = path.display().to_string();
        let labels = file::read(path)
            .map_err(|source| LabelMapError::File { path: shown.clone(), source })?;
        Self::resolve(&shown, labels, classes)
    }

    fn resolve(
        path: &str,
        labels: Vec<MappedLabel>,
        classes: &LabelMatcher,
    ) -> Result<Self, LabelMapError> {
        let path = || path.to_owned();
        let mut lines: HashMap<String, (u64, usize)> = HashMap::new();
        let mut words = BTreeMap::new();
        for MappedLabel { label, class, line } in labels {
            let found = match &class {
                MappedClass::Name(name) => classes.find(name),
                MappedClass::Index(index) => match classes.name(*index) {
                    Some(_) => Ok(*index),
                    None => Err(LabelProblem::Unknown),
                },
            };
            let index = found.map_err(|problem| LabelMapError::Class {
                path: path(),
                line,
                label: label.clone(),
                class: class.to_string(),
                problem,
            })?;
            let &mut (first, other) = lines.entry(label.clone()).or_insert((line, index));
            if other != index {
                return Err(LabelMapError::TwoClasses { path: path(), first, second: line, label });
            }
            let word = classes.label_of(index);
            let word = word.ok_or_else(|| LabelMapError::NoNameOfItsOwn {
                path: path(),
                line,
                class: index,
            })?;
            words.insert(label, word);
        }
        Ok(Self::from_words(words))
    }

    /// The label map with these [words](Self::words).
    pub(crate) fn from_words(words: BTreeMap<String, String>) -> Self {
        let mut folded = HashMap::new();
        for (label, word) in &words {
            let known = folded.entry(fold(label)).or_insert_with(|| Some(word.clone()));
            if known.as_ref() != Some(word) {
                *known = None;
            }
        }
        Self { words, folded }
    }

    /// What `run.json` records: by given label, the label in jobs.
    pub(crate) fn words(&self) -> &BTreeMap<String, String> {
        &self.words
    }

    /// The label as a job has it. A label that the map does not have stays as it is.
    pub(crate) fn apply(&self, given: Option<String>) -> JobLabel {
        let word = given.as_ref().and_then(|given| {
            if self.words.is_empty() {
                return None;
            }
            self.words.get(given).or_else(|| self.folded.get(&fold(given))?.as_ref())
        });
        match (word, given) {
            (Some(word), Some(given)) if *word != given => {
                JobLabel { label: Some(word.clone()), given: Some(given) }
            }
            (_, given) => JobLabel { label: given, given: None },
        }
    }
}

#[cfg(test)]
mod tests {
    use camshaft_common::label::NamedClass;

    use super::*;

    fn matcher(names: &[&str]) -> LabelMatcher {
        let classes = names.iter().enumerate();
        LabelMatcher::new(classes.map(|(index, name)| NamedClass { index, name, aliases: &[] }))
    }

    fn read(content: &str, classes: &[&str]) -> Result<LabelMap, LabelMapError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        LabelMap::read(&LabelMapSource::File(file.path().to_owned()), &matcher(classes))
    }

    fn applied(map: &LabelMap, given: &str) -> (String, Option<String>) {
        let JobLabel { label, given } = map.apply(Some(given.to_owned()));
        (label.unwrap(), given)
    }

    #[test]
    fn labels_are_replaced_by_names_of_classes() {
        for content in [
            "label,class\nkitty,cat\nhund,1\nCat,dog\n",
            "kitty,Cat\nhund,dog\nCat,1\n",
            "{\"kitty\": \"cat\", \"hund\": 1, \"Cat\": \"DOG\"}",
        ] {
            let map = read(content, &["cat", "dog"]).unwrap();
            assert_eq!(applied(&map, "kitty"), ("cat".into(), Some("kitty".into())), "{content}");
            assert_eq!(applied(&map, "HUND"), ("dog".into(), Some("HUND".into())), "{content}");
            assert_eq!(applied(&map, "cat"), ("dog".into(), Some("cat".into())), "{content}");
            assert_eq!(applied(&map, "whale"), ("whale".into(), None), "{content}");
            assert_eq!(map.apply(None), JobLabel::default());
            assert_eq!(map.words().len(), 3);
        }
    }

    #[test]
    fn a_class_without_a_name_of_its_own_goes_by_its_index() {
        let map = read("{\"a\": 1, \"b\": 2}", &["cat", "crane", "crane"]).unwrap();
        assert_eq!(applied(&map, "b"), ("2".into(), Some("b".into())));
        let error = read("{\"a\": 1}", &["crane", "crane", "1"]).unwrap_err().to_string();
        assert!(error.contains("line 1") && error.contains("different names"), "{error}");
    }

    #[test]
    fn what_is_no_class_is_an_error_that_names_the_line() {
        for (content, line, text) in [
            ("label,class\nkitty,cat\nhund,wolf\n", 3, "wolf"),
            ("kitty,cat\n\nhund,7\n", 3, "7"),
            ("{\n  \"kitty\": \"cat\",\n  \"hund\": \"wolf\"\n}", 3, "wolf"),
            ("{\"kitty\": \"cat\",\n\n\"hund\":\n2}", 3, "2"),
            ("crane,bird\n", 1, "several"),
        ] {
            let classes = ["cat", "dog", "bird"];
            let several = ["crane", "cat, bird", "dog, bird"];
            let classes = if text == "several" { several } else { [classes[0], classes[1], "x"] };
            let classes = if text == "2" { &classes[..2] } else { &classes[..] };
            let error = read(content, classes).unwrap_err().to_string();
            let place = format!("line {line}:");
            assert!(error.contains(&place) && error.contains(text), "{content}: {error}");
        }
        let error = read("a,cat\nb,dog\na,dog\n", &["cat", "dog"]).unwrap_err().to_string();
        assert!(error.contains("lines 1 and 3"), "{error}");
        assert!(read("a,cat\na,0\n", &["cat", "dog"]).is_ok(), "it is the same class");
    }
}
