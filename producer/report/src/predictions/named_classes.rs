//! The classes that results name: all that is known of a model's classes without the model.

use std::collections::HashMap;

use camshaft_common::label::{LabelMatcher, NamedClass};

use super::image_row::ImageRow;

/// The classes that results name, by index.
#[derive(Debug, Default)]
pub(crate) struct NamedClasses(HashMap<usize, String>);

impl NamedClasses {
    /// Adds the classes of a row.
    pub(crate) fn add(&mut self, row: &ImageRow) {
        let Some(predicted) = &row.predicted else { return };
        for (&index, name) in predicted.classes.iter().zip(&predicted.labels) {
            self.0.entry(index).or_insert_with(|| name.clone());
        }
    }

    /// Finds the classes that labels mean.
    pub(crate) fn matcher(&self) -> LabelMatcher {
        let classes = self.0.iter();
        LabelMatcher::new(classes.map(|(&index, name)| NamedClass { index, name, aliases: &[] }))
    }
}
