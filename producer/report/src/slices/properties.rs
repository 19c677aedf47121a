//! The properties that slices are made of, as a small number for each image: the bin of a number,
//! or the id of a name.
//!
//! Two bytes for each image and property. Numbers are cut where certain shares of the images lie
//! below, so that slices have the same sizes in every data set.

use std::collections::HashMap;

use rayon::prelude::*;

use super::MIN_IMAGES;
use super::folders::{DEPTH, LabelNames, folders_of};
use crate::predictions::{ImageClasses, ImageFeature, NO_NAME};
use crate::table::{TableError, TableReader};

/// The code of a row that lacks the property.
pub(super) const NO_CODE: u16 = u16::MAX;
/// The shares of images below the edges of bins: fifths, and the tails, where faults are.
const EDGES: [f64; 8] = [0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95];
/// The most names of a property, the most frequent ones.
const MAX_NAMES: usize = 500;
/// The name of the images without one, for properties whose absence says something.
const NOT_RECORDED: &str = "not recorded";

/// A property of all images.
#[derive(Debug)]
pub(super) struct Property {
    pub(super) name: String,
    /// By row, the bin or the id; [`NO_CODE`] without.
    pub(super) codes: Vec<u16>,
    pub(super) values: PropertyValues,
    /// Whether a label may be asked for it: not if it is where the label comes from.
    pub(super) is_nuisance: bool,
}

/// What the codes of a property mean.
#[derive(Debug)]
pub(super) enum PropertyValues {
    /// Bin *n* holds the values from edge *n* − 1, included, to edge *n*.
    Bins { feature: ImageFeature, edges: Vec<f32>, values: Vec<f32> },
    /// The names, by id.
    Names(Vec<String>),
}

impl Property {
    /// The number of codes.
    pub(super) fn code_count(&self) -> usize {
        match &self.values {
            PropertyValues::Bins { edges, .. } => edges.len() + 1,
            PropertyValues::Names(names) => names.len(),
        }
    }

    /// The ranges of codes that are slices: each name; of bins, those below an edge, those above
    /// one, and each in the middle. A range without its end.
    pub(super) fn ranges(&self) -> Vec<(u16, u16)> {
        let count = u16::try_from(self.code_count()).expect("a property has few codes");
        match &self.values {
            PropertyValues::Names(_) => (0..count).map(|code| (code, code + 1)).collect(),
            PropertyValues::Bins { .. } => {
                let below = (1..count).map(|end| (0, end));
                let above = (1..count).map(|start| (start, count));
                let middle = (1..count.saturating_sub(1)).map(|code| (code, code + 1));
                below.chain(above).chain(middle).collect()
            }
        }
    }

    /// A range of codes in words: `brightness below 0.21`, `camera make Canon`.
    pub(super) fn describe(&self, (start, end): (u16, u16)) -> String {
        match &self.values {
            PropertyValues::Names(names) => format!("{} {}", self.name, names[start as usize]),
            PropertyValues::Bins { feature, edges, .. } => {
                let edge = |at: u16| feature.text(edges[at as usize]);
                let name = &self.name;
                match (start.checked_sub(1), (end as usize <= edges.len()).then(|| end - 1)) {
                    (Some(from), Some(to)) => format!("{name} {} to {}", edge(from), edge(to)),
                    (Some(from), None) => format!("{name} of {} or more", edge(from)),
                    (None, Some(to)) => format!("{name} below {}", edge(to)),
                    (None, None) => format!("any {name}"),
                }
            }
        }
    }

    /// The ends of a range of bins.
    pub(super) fn ends(&self, (start, end): (u16, u16)) -> (Option<f32>, Option<f32>) {
        let PropertyValues::Bins { edges, .. } = &self.values else { return (None, None) };
        let from = start.checked_sub(1).map(|at| edges[at as usize]);
        (from, edges.get(end as usize - 1).copied())
    }

    /// The value of a range that is a name.
    pub(super) fn value(&self, (start, _): (u16, u16)) -> Option<String> {
        match &self.values {
            PropertyValues::Names(names) => Some(names[start as usize].clone()),
            PropertyValues::Bins { .. } => None,
        }
    }
}

/// Reads every property that tells images apart.
pub(super) fn read(
    table: &TableReader,
    classes: &ImageClasses,
) -> Result<Vec<Property>, TableError> {
    let mut properties = Vec::new();
    for feature in ImageFeature::ALL {
        if let Some(values) = feature.read(table)? {
            properties.extend(bins(feature, values, classes));
        }
    }
    let mut labels = LabelNames::new(classes);
    let mut splits = NameCodes::default();
    for &split in &classes.split {
        let name = (split != NO_NAME).then(|| classes.splits.name(split));
        splits.add(name.filter(|name| !labels.contain(name)));
    }
    properties.extend(splits.into_property("split", None));
    for column in ["camera_make", "camera_model"] {
        if table.has_column(column) {
            let mut names = NameCodes::default();
            for group in 0..table.groups() {
                table.texts(group, column)?.iter().for_each(|name| names.add(name.as_deref()));
            }
            properties.extend(names.into_property(&column.replace('_', " "), Some(NOT_RECORDED)));
        }
    }
    properties.extend(read_folders(table, &mut labels)?);
    Ok(properties)
}

/// Cuts a number of each image into bins; none if the images hardly differ in it. Images without a
/// prediction count for nothing.
fn bins(feature: ImageFeature, mut values: Vec<f32>, classes: &ImageClasses) -> Option<Property> {
    let without = classes.predicted.iter().map(|class| *class == NO_NAME);
    values.iter_mut().zip(without).filter(|(_, no)| *no).for_each(|(value, _)| *value = f32::NAN);
    let mut sorted: Vec<f32> = values.iter().copied().filter(|value| !value.is_nan()).collect();
    sorted.par_sort_unstable_by(f32::total_cmp);
    let least = *sorted.first()?;
    let mut edges: Vec<f32> =
        EDGES.iter().map(|share| sorted[(share * sorted.len() as f64) as usize]).collect();
    // If most images have the least value, such as no border, the others are a slice.
    edges.extend(
        sorted
            .get(sorted.partition_point(|value| *value <= least))
            .copied()
            .filter(|_| sorted[sorted.len() / 2] <= least),
    );
    edges.retain(|edge| *edge > least);
    edges.sort_by(f32::total_cmp);
    edges.dedup();
    if edges.is_empty() {
        return None;
    }
    let code = |value: &f32| match value.is_nan() {
        true => NO_CODE,
        false => edges.partition_point(|edge| edge <= value) as u16,
    };
    Some(Property {
        name: feature.name().to_owned(),
        codes: values.iter().map(code).collect(),
        values: PropertyValues::Bins { feature, edges, values },
        is_nuisance: true,
    })
}

/// The folders of all keys, one property for each depth.
fn read_folders(table: &TableReader, labels: &mut LabelNames) -> Result<Vec<Property>, TableError> {
    let mut folders: [NameCodes; DEPTH] = Default::default();
    let mut below_label = [false; DEPTH];
    for group in 0..table.groups() {
        for key in table.texts(group, "key")? {
            let of_key = folders_of(key.as_deref().unwrap_or_default(), labels);
            for (depth, codes) in folders.iter_mut().enumerate() {
                codes.add(of_key.names.get(depth).copied());
                below_label[depth] |= (of_key.above_label..of_key.names.len()).contains(&depth);
            }
        }
    }
    let properties = folders.into_iter().zip(below_label).enumerate();
    let properties = properties.filter_map(|(depth, (codes, below))| {
        let name = if depth == 0 { "folder".to_owned() } else { format!("folder {}", depth + 1) };
        let property = codes.into_property(&name, None)?;
        Some(Property { is_nuisance: !below, ..property })
    });
    Ok(properties.collect())
}

/// The names of rows, numbered in the order of their first use.
#[derive(Debug, Default)]
struct NameCodes {
    ids: HashMap<String, u32>,
    counts: Vec<u64>,
    rows: Vec<u32>,
}

impl NameCodes {
    fn add(&mut self, name: Option<&str>) {
        let id = name.map_or(NO_NAME, |name| match self.ids.get(name) {
            Some(id) => *id,
            None => {
                let id = self.counts.len() as u32;
                self.ids.insert(name.to_owned(), id);
                self.counts.push(0);
                id
            }
        });
        if let Some(count) = self.counts.get_mut(id as usize) {
            *count += 1;
        }
        self.rows.push(id);
    }

    /// The property of the most frequent names. None if not even one has enough images, or all rows
    /// have the same. `without` is the name of rows without one.
    fn into_property(self, name: &str, without: Option<&str>) -> Option<Property> {
        let mut names: Vec<(String, u32)> = self.ids.into_iter().collect();
        let count = |id: u32| self.counts[id as usize];
        names.retain(|(_, id)| count(*id) >= MIN_IMAGES);
        names.sort_by(|a, b| count(b.1).cmp(&count(a.1)).then_with(|| a.0.cmp(&b.0)));
        names.truncate(MAX_NAMES);
        let unnamed = self.rows.iter().filter(|id| **id == NO_NAME).count() as u64;
        let common = names.first().map(|(_, id)| count(*id))?;
        if common == self.rows.len() as u64 {
            return None;
        }
        let mut code_of = vec![NO_CODE; self.counts.len()];
        names.iter().zip(0..).for_each(|((_, id), code)| code_of[*id as usize] = code);
        let mut names: Vec<String> = names.into_iter().map(|(name, _)| name).collect();
        let mut code_without = NO_CODE;
        if let Some(without) = without.filter(|_| unnamed >= MIN_IMAGES) {
            code_without = names.len() as u16;
            names.push(without.to_owned());
        }
        let code = |id: &u32| code_of.get(*id as usize).copied().unwrap_or(code_without);
        let codes = self.rows.iter().map(code).collect();
        let values = PropertyValues::Names(names);
        Some(Property { name: name.to_owned(), codes, values, is_nuisance: true })
    }
}
