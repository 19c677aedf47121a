//! What every search needs of every image, small enough to hold for all of them.

use std::collections::HashMap;

use crate::table::{TableError, TableReader};

/// No class, or no split.
pub(crate) const NONE: u32 = u32::MAX;

/// Names of labels and classes, each once.
#[derive(Debug, Default)]
pub(crate) struct Names {
    ids: HashMap<String, u32>,
    names: Vec<String>,
}

impl Names {
    fn id(&mut self, name: Option<String>) -> u32 {
        let Some(name) = name else { return NONE };
        if let Some(id) = self.ids.get(&name) {
            return *id;
        }
        let id = u32::try_from(self.names.len()).expect("fewer names than rows");
        self.ids.insert(name.clone(), id);
        self.names.push(name);
        id
    }

    /// The name of an id.
    pub(crate) fn name(&self, id: u32) -> &str {
        &self.names[id as usize]
    }

    /// The id of a name that occurs.
    pub(crate) fn find(&self, name: &str) -> Option<u32> {
        self.ids.get(name).copied()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }
}

/// Labels, classes and splits of all rows.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) names: Names,
    /// By row, [`NONE`] without.
    pub(crate) label: Vec<u32>,
    pub(crate) predicted: Vec<u32>,
    /// The class that the first map explains.
    pub(crate) target: Vec<u32>,
    pub(crate) splits: Names,
    pub(crate) split: Vec<u32>,
    /// Row of the first of each group.
    pub(crate) starts: Vec<usize>,
}

impl Known {
    /// Reads them.
    pub(crate) fn read(table: &TableReader) -> Result<Self, TableError> {
        let rows = table.rows();
        let column = || Vec::with_capacity(rows);
        let (names, splits) = (Names::default(), Names::default());
        let (label, predicted, target, split) = (column(), column(), column(), column());
        let starts = Vec::new();
        let mut known = Self { names, label, predicted, target, splits, split, starts };
        for group in 0..table.groups() {
            known.starts.push(known.label.len());
            let Self { names, label, predicted, target, splits, split, .. } = &mut known;
            label.extend(table.texts(group, "label")?.into_iter().map(|name| names.id(name)));
            predicted.extend(table.texts(group, "predicted")?.into_iter().map(|n| names.id(n)));
            target.extend(table.texts(group, "target")?.into_iter().map(|name| names.id(name)));
            split.extend(table.texts(group, "split")?.into_iter().map(|name| splits.id(name)));
        }
        Ok(known)
    }
}
