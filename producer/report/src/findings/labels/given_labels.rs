//! The given labels as classes of their own, whatever the model knows.
//!
//! A label that means a class of the model is that class, so that `n02121808` and `cat` are one. Any
//! other label is its own class, by its folded spelling, so that `Cat` and `cat` are one.

use std::collections::HashMap;

use camshaft_common::label::fold;

use crate::predictions::{ImageClasses, NO_NAME};

/// The label of each row as a number: 0, 1, 2, … in the order of the first rows that have them.
#[derive(Debug)]
pub(super) struct GivenLabels {
    names: Vec<String>,
    by_spelling: HashMap<String, u32>,
    /// By row; [`NO_NAME`] without a label.
    pub(super) of_row: Vec<u32>,
}

impl GivenLabels {
    pub(super) fn read(classes: &ImageClasses) -> Self {
        let rows = classes.given.len();
        let mut labels = Self {
            names: Vec::new(),
            by_spelling: HashMap::new(),
            of_row: Vec::with_capacity(rows),
        };
        // Folding a text for each of a million rows would take longer than all else here.
        let mut known = HashMap::new();
        for (given, class) in classes.given.iter().zip(&classes.label) {
            let name = if *class == NO_NAME { *given } else { *class };
            let id = match name {
                NO_NAME => NO_NAME,
                name => *known.entry(name).or_insert_with(|| labels.add(classes.names.name(name))),
            };
            labels.of_row.push(id);
        }
        labels
    }

    fn add(&mut self, name: &str) -> u32 {
        let id = u32::try_from(self.names.len()).expect("fewer labels than rows");
        let id = *self.by_spelling.entry(fold(name)).or_insert(id);
        if id as usize == self.names.len() {
            self.names.push(name.to_owned());
        }
        id
    }

    /// The label with this number.
    pub(super) fn name(&self, label: u32) -> &str {
        &self.names[label as usize]
    }

    /// The number of different labels.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// The number of a label or class with this name; none if no row is labelled so.
    pub(super) fn find(&self, name: &str) -> Option<u32> {
        self.by_spelling.get(&fold(name)).copied()
    }
}
