//! The label, the classes and the split of every image, as numbers: small enough to hold for all
//! images at once.
//!
//! Owns the numbering. Downstream: the searches and the comparison, which know images by their row.

use std::collections::HashMap;

use crate::table::{TableError, TableReader};

/// The id that stands for no class or no split.
pub(crate) const NO_NAME: u32 = u32::MAX;

/// Names and their ids: 0, 1, 2, … in the order of their first use.
#[derive(Debug, Default)]
pub(crate) struct NameIds {
    ids: HashMap<String, u32>,
    names: Vec<String>,
}

impl NameIds {
    /// The id of a name, which is added if it is new; [`NO_NAME`] without a name.
    fn id_of(&mut self, name: Option<String>) -> u32 {
        let Some(name) = name else { return NO_NAME };
        if let Some(id) = self.ids.get(&name) {
            return *id;
        }
        let id = u32::try_from(self.names.len()).expect("fewer names than rows");
        self.ids.insert(name.clone(), id);
        self.names.push(name);
        id
    }

    /// The name with this id.
    pub(crate) fn name(&self, id: u32) -> &str {
        &self.names[id as usize]
    }

    /// The id of a name; none if no row has the name.
    pub(crate) fn find(&self, name: &str) -> Option<u32> {
        self.ids.get(name).copied()
    }

    /// The number of names.
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }
}

/// Labels, classes and splits of all rows.
#[derive(Debug)]
pub(crate) struct ImageClasses {
    /// The names of labels and classes.
    pub(crate) names: NameIds,
    /// By row, the label as it is given; [`NO_NAME`] without.
    pub(crate) given: Vec<u32>,
    /// By row, the class that the label means; [`NO_NAME`] without.
    pub(crate) label: Vec<u32>,
    /// By row, the most probable class; [`NO_NAME`] without.
    pub(crate) predicted: Vec<u32>,
    /// By row, the class that the first map explains; [`NO_NAME`] without.
    pub(crate) target: Vec<u32>,
    /// The names of splits.
    pub(crate) splits: NameIds,
    /// By row, the split; [`NO_NAME`] without.
    pub(crate) split: Vec<u32>,
    /// The first row of each row group.
    pub(crate) group_starts: Vec<usize>,
}

impl ImageClasses {
    /// Reads the five columns of a finished `predictions.parquet`.
    pub(crate) fn read(table: &TableReader) -> Result<Self, TableError> {
        let rows = table.rows();
        let column = || Vec::with_capacity(rows);
        let (names, splits) = (NameIds::default(), NameIds::default());
        let (given, label, predicted) = (column(), column(), column());
        let (target, split) = (column(), column());
        let group_starts = Vec::new();
        let mut classes =
            Self { names, given, label, predicted, target, splits, split, group_starts };
        for group in 0..table.groups() {
            classes.group_starts.push(classes.label.len());
            let Self { names, given, label, predicted, target, splits, split, .. } = &mut classes;
            given.extend(table.texts(group, "label")?.into_iter().map(|name| names.id_of(name)));
            label.extend(table.texts(group, "label_class")?.into_iter().map(|n| names.id_of(n)));
            predicted.extend(table.texts(group, "predicted")?.into_iter().map(|n| names.id_of(n)));
            target.extend(table.texts(group, "target")?.into_iter().map(|name| names.id_of(name)));
            split.extend(table.texts(group, "split")?.into_iter().map(|name| splits.id_of(name)));
        }
        Ok(classes)
    }
}
