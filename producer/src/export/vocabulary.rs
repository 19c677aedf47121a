//! The labels that images may get, and which label means which of the model's classes.
//!
//! A data set's labels and a model's classes are often two languages: `n02123045` and `tabby`. People label in
//! the data set's, so a class that one given label means is exported as that label. Upstream: the report's
//! tables. Downstream: [`exported_images`](super::exported_images), and the head of the file.

use std::collections::{BTreeSet, HashMap};

use camshaft_table::{TableError, TableReader};

use super::chosen_images::{ChosenImages, FindingNotes};

/// All labels of a run.
#[derive(Debug, Default)]
pub(super) struct Vocabulary {
    labels: BTreeSet<String>,
    /// The label of a class; none if several mean it.
    label_of_class: HashMap<String, Option<String>>,
}

/// What there is among the images that are exported.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SeenOverlays {
    pub(super) overlays: bool,
    pub(super) given_overlays: bool,
}

impl Vocabulary {
    /// Reads the labels and classes of all images, exported or not.
    pub(super) fn read(
        predictions: &TableReader,
        notes: &FindingNotes,
        chosen: &ChosenImages,
    ) -> Result<(Self, SeenOverlays), TableError> {
        let (mut vocabulary, mut classes) = (Self::default(), BTreeSet::new());
        let mut seen = SeenOverlays::default();
        for group in 0..predictions.groups() {
            let keys = predictions.texts(group, "key")?;
            let labels = predictions.texts(group, "label")?;
            let label_classes = predictions.texts(group, "label_class")?;
            for (label, class) in labels.into_iter().zip(&label_classes) {
                let Some(label) = label else { continue };
                if let Some(class) = class {
                    vocabulary.note(class, &label);
                }
                vocabulary.labels.insert(label);
            }
            let top = predictions.text_lists(group, "top_labels")?;
            for class in top.iter().flatten() {
                if !classes.contains(class) {
                    classes.insert(class.clone());
                }
            }
            let targets = predictions.texts(group, "target")?;
            let overlays = predictions.texts(group, "overlay")?;
            let given = predictions.texts(group, "label_overlay")?;
            for (row, key) in keys.iter().enumerate() {
                if !key.as_ref().is_some_and(|key| chosen.has(key, notes)) {
                    continue;
                }
                seen.overlays |= overlays[row].is_some();
                let is_given = targets[row].is_some() && targets[row] == label_classes[row];
                seen.given_overlays |=
                    given[row].is_some() || (is_given && overlays[row].is_some());
            }
        }
        let suggested = notes.suggested().map(str::to_owned);
        let words: Vec<_> =
            classes.into_iter().chain(suggested).map(|word| vocabulary.label_of(&word)).collect();
        vocabulary.labels.extend(words);
        Ok((vocabulary, seen))
    }

    fn note(&mut self, class: &str, label: &str) {
        match self.label_of_class.get_mut(class) {
            Some(known) if known.as_deref() != Some(label) => *known = None,
            Some(_) => {}
            None => drop(self.label_of_class.insert(class.to_owned(), Some(label.to_owned()))),
        }
    }

    /// A class in the words of the data set, if these have one word for it. A label stays what it is.
    pub(super) fn label_of(&self, word: &str) -> String {
        if self.labels.contains(word) {
            return word.to_owned();
        }
        self.label_of_class.get(word).cloned().flatten().unwrap_or_else(|| word.to_owned())
    }

    /// All labels, in order.
    pub(super) fn labels(&self) -> Vec<String> {
        self.labels.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_called_what_the_data_set_calls_it() {
        let mut vocabulary = Vocabulary::default();
        for (class, label) in
            [("tabby", "n02123045"), ("tabby", "n02123045"), ("beagle", "b"), ("beagle", "B")]
        {
            vocabulary.note(class, label);
            vocabulary.labels.insert(label.to_owned());
        }
        let words = ["tabby", "beagle", "b", "cow"].map(|word| vocabulary.label_of(word));
        assert_eq!(words, ["n02123045", "beagle", "b", "cow"]);
    }
}
