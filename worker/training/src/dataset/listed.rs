//! A data set as a list: images below a folder, with labels and, if the list says so, splits.
//!
//! Owns which listed images are trained and which are validated on. The list has been read already.
//! Files are not decoded here. Upstream: a list of keys, such as decisions leave. Downstream:
//! [`inputs`](super::super::inputs), as for a folder of class folders.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use camshaft_common::key::ImageKey;
use camshaft_common::split_names::{self, Split};

use super::{
    Dataset, DatasetError, DatasetImage, DatasetOptions, LeftOut, MIN_CLASS_IMAGES, SplitRule,
    VALIDATION_SHARE, first, split_stratified,
};

/// An image as a list names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedExample {
    /// The image below the folder.
    pub key: ImageKey,
    /// Its class.
    pub label: Option<String>,
    /// What it is for: a name as folders of splits have it. Without one it is to train on.
    pub split: Option<String>,
    /// Its line, counted from 1.
    pub line: u64,
}

/// Why a list is no data set.
#[derive(Debug, thiserror::Error)]
pub enum ListedError {
    /// An image has no label.
    #[error("line {line} of the list: {key} has no label; give it one, or take the line out")]
    NoLabel {
        /// The image.
        key: ImageKey,
        /// Its line.
        line: u64,
    },
    /// A split is none.
    #[error(
        "line {line} of the list: {split:?} is no split; use train, val or test, or leave it empty to train \
         on the image"
    )]
    UnknownSplit {
        /// The name.
        split: String,
        /// Its line.
        line: u64,
    },
    /// A file is not there, or can't be read.
    #[error(
        "line {line} of the list: {path} can't be read: {source}; take the line out, or check the folder"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Its line.
        line: u64,
        /// What the system says.
        source: std::io::Error,
    },
    /// There is nothing to learn.
    #[error("the list has {} to train on; it needs images of two labels or more", match class {
        Some(class) => format!("one label only, {class:?},"),
        None => "no image".to_owned(),
    })]
    OneClass {
        /// The only class.
        class: Option<String>,
    },
    /// A class has too few images to be split.
    #[error(
        "the label {class:?} has {images} image; it needs at least {MIN_CLASS_IMAGES}, one to train on and one \
         to validate on: add images, or take it out"
    )]
    TooFewImages {
        /// The class.
        class: String,
        /// Its number of images.
        images: usize,
    },
    /// A label is only to validate on.
    #[error(
        "line {line} of the list: no image to train on has the label {class:?} ({classes}); add some, or take \
         the line out"
    )]
    UnknownClass {
        /// The class.
        class: String,
        /// The line of an image to validate on.
        line: u64,
        /// The first classes to train on.
        classes: String,
    },
    /// A class has images to train on and none to validate on.
    #[error("the label {class:?} has no image to validate on; add one, or take it out")]
    NoValidation {
        /// The class.
        class: String,
    },
    /// The list says which images to validate on, and there is also a share to hold back.
    #[error(
        "the list says which images to validate on; leave out the share of images to hold back"
    )]
    ShareAndSplit,
}

/// An example whose purpose is known.
struct Sorted<'a> {
    example: &'a ListedExample,
    label: &'a str,
    split: Split,
}

impl Dataset {
    /// The data set that a list of images below `root` is. If some are to validate on, the others are to
    /// train on; else a share of each class is held back, chosen by a hash of each key. Images to test on
    /// are left out.
    ///
    /// # Errors
    /// If an image has no label or can't be read, or if classes or images are missing.
    pub fn of_list(
        root: &Path,
        examples: &[ListedExample],
        options: &DatasetOptions,
    ) -> Result<Self, DatasetError> {
        let mut sorted = Vec::with_capacity(examples.len());
        for example in examples {
            sorted.push(sort(example)?);
        }
        let to_test = sorted.iter().filter(|image| image.split == Split::Test).count();
        sorted.retain(|image| image.split != Split::Test);
        sorted.sort_by(|a, b| a.example.key.as_str().cmp(b.example.key.as_str()));
        let has_validation = sorted.iter().any(|image| image.split == Split::Validation);
        if has_validation && options.share.is_some() {
            return Err(ListedError::ShareAndSplit.into());
        }
        let mut counts: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
        for image in &sorted {
            counts.entry(image.label).or_default()
                [usize::from(image.split == Split::Validation)] += 1;
        }
        let classes: Vec<_> = counts
            .iter()
            .filter(|(_, [training, _])| *training > 0)
            .map(|(class, _)| *class)
            .collect();
        check_classes(&classes, &counts, &sorted, has_validation)?;
        let (mut training, mut validation) = (Vec::new(), Vec::new());
        for image in &sorted {
            let side =
                if image.split == Split::Validation { &mut validation } else { &mut training };
            // Every class is among them: that was checked.
            if let Ok(class) = classes.binary_search(&image.label) {
                side.push(found(root, image.example, class)?);
            }
        }
        if !has_validation {
            let share = options.share.unwrap_or(VALIDATION_SHARE);
            (training, validation) = split_stratified(training, classes.len(), share);
        }
        Ok(Self {
            classes: classes.into_iter().map(str::to_owned).collect(),
            training,
            validation,
            split: SplitRule::Stratified,
            left_out: LeftOut { listed_to_test: to_test as u64, ..LeftOut::default() },
            is_listed: true,
        })
    }
}

fn sort(example: &ListedExample) -> Result<Sorted<'_>, ListedError> {
    let line = example.line;
    let label = example.label.as_deref();
    let label = label.ok_or_else(|| ListedError::NoLabel { key: example.key.clone(), line })?;
    let split = match example.split.as_deref() {
        None => Split::Training,
        Some(name) => match split_names::read(name) {
            Some(name) if name.rest.is_empty() => name.split,
            _ => return Err(ListedError::UnknownSplit { split: name.to_owned(), line }),
        },
    };
    Ok(Sorted { example, label, split })
}

fn check_classes(
    classes: &[&str],
    counts: &BTreeMap<&str, [usize; 2]>,
    sorted: &[Sorted<'_>],
    has_validation: bool,
) -> Result<(), ListedError> {
    if classes.len() < 2 {
        return Err(ListedError::OneClass {
            class: classes.first().map(|class| (*class).to_owned()),
        });
    }
    // A label that is only to validate on is a mistake in a line; it comes before what a label lacks.
    if let Some((class, _)) = counts.iter().find(|(_, [training, _])| *training == 0) {
        let image = sorted.iter().find(|image| image.label == *class);
        let line = image.map_or(0, |image| image.example.line);
        let classes = first(classes);
        return Err(ListedError::UnknownClass { class: (*class).to_owned(), line, classes });
    }
    for (class, [training, validation]) in counts {
        let class = || (*class).to_owned();
        if has_validation && *validation == 0 {
            return Err(ListedError::NoValidation { class: class() });
        }
        if !has_validation && *training < MIN_CLASS_IMAGES {
            return Err(ListedError::TooFewImages { class: class(), images: *training });
        }
    }
    Ok(())
}

fn found(root: &Path, example: &ListedExample, class: usize) -> Result<DatasetImage, ListedError> {
    let unreadable =
        |path: PathBuf, source| ListedError::Unreadable { path, line: example.line, source };
    let Some(path) = example.key.local_path() else {
        let source = std::io::Error::from(std::io::ErrorKind::InvalidInput);
        return Err(unreadable(root.join(example.key.as_str()), source));
    };
    let path = root.join(path);
    let facts = fs::metadata(&path).and_then(|facts| match facts.is_file() {
        true => Ok(facts),
        false => Err(std::io::Error::other("it is no file")),
    });
    let bytes = facts.map_err(|source| unreadable(path.clone(), source))?.len();
    Ok(DatasetImage { key: example.key.as_str().to_owned(), path, class, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(line: u64, key: &str, label: &str, split: &str) -> ListedExample {
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let key = ImageKey::parse(key).unwrap();
        ListedExample { key, label: text(label), split: text(split), line }
    }

    fn listed(lines: &[(&str, &str, &str)], share: Option<f64>) -> Result<Dataset, DatasetError> {
        let root = tempfile::tempdir().unwrap();
        let mut examples = Vec::new();
        for (line, (key, label, split)) in (2..).zip(lines) {
            if !key.contains("missing") {
                fs::write(root.path().join(key), key).unwrap();
            }
            examples.push(example(line, key, label, split));
        }
        let options = DatasetOptions { share, ..DatasetOptions::default() };
        Dataset::of_list(root.path(), &examples, &options)
    }

    fn keys(images: &[DatasetImage]) -> Vec<&str> {
        images.iter().map(|image| image.key.as_str()).collect()
    }

    #[test]
    fn a_list_says_what_is_validated_on_or_a_share_is_held_back() {
        let lines = [
            ("d", "dog", "train"),
            ("a", "cat", ""),
            ("b", "cat", "Validation"),
            ("c", "dog", "val"),
            ("e", "cow", "test"),
        ];
        let found = listed(&lines, None).unwrap();
        assert_eq!(
            (keys(&found.training), keys(&found.validation)),
            (vec!["a", "d"], vec!["b", "c"])
        );
        assert_eq!((found.classes.join(" "), found.left_out.listed_to_test), ("cat dog".into(), 1));
        assert_eq!(found.training[1].class, 1);
        assert!(matches!(
            listed(&lines, Some(0.5)),
            Err(DatasetError::Listed(ListedError::ShareAndSplit))
        ));
        let names: Vec<_> = (0..20).map(|number| format!("{number:02}")).collect();
        let lines = names.iter().enumerate();
        let lines: Vec<_> = lines.map(|(at, name)| (&**name, ["cat", "dog"][at % 2], "")).collect();
        let found = listed(&lines, Some(0.3)).unwrap();
        assert_eq!(found.class_counts(), [[7, 3], [7, 3]]);
    }

    #[test]
    fn another_label_is_another_data_set() {
        let lines = [("a", "cat", ""), ("b", "cat", ""), ("c", "dog", ""), ("d", "dog", "")];
        let mut other = lines;
        (other[1].1, other[2].1) = ("dog", "cat");
        let val = |lines: [(&'static str, &'static str, &'static str); 4]| {
            let lines = [("x", "cat", "val"), ("y", "dog", "val")].into_iter().chain(lines);
            listed(&lines.collect::<Vec<_>>(), None).unwrap()
        };
        assert_ne!(val(lines).digest(), val(other).digest());
        assert_eq!(val(lines).digest(), val(lines).digest());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let cats = [("a", "cat", ""), ("b", "cat", "")];
        let with = |line: (&'static str, &'static str, &'static str)| {
            let lines = cats.into_iter().chain([("c", "dog", ""), ("d", "dog", ""), line]);
            listed(&lines.collect::<Vec<_>>(), None).unwrap_err().to_string()
        };
        for (line, parts) in [
            (("e", "", ""), ["line 6", "no label"]),
            (("e", "cat", "later"), ["line 6", "\"later\" is no split"]),
            (("missing", "cat", ""), ["line 6", "can't be read"]),
            (("e", "cow", ""), ["\"cow\" has 1 image", "at least 2"]),
            (("e", "cow", "val"), ["line 6", "no image to train on has the label \"cow\""]),
            (("e", "cat", "val"), ["\"dog\"", "no image to validate on"]),
        ] {
            let error = with(line);
            assert!(parts.iter().all(|part| error.contains(part)), "{line:?}: {error}");
        }
        let error = listed(&cats, None).unwrap_err().to_string();
        assert!(error.contains("one label only, \"cat\""), "{error}");
        assert!(listed(&[], None).unwrap_err().to_string().contains("no image"));
    }
}
