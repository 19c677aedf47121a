//! The images that both runs predicted: which changed class, and where attention moved most.
//!
//! "Now" and "here" mean the run of the report, "before" and "there" the other run.

use std::collections::HashMap;
use std::fs::File;

use camshaft_common::label::fold;
use statrs::distribution::{Binomial, DiscreteCDF};

use super::key_hash::hash_key;
use super::run_comparison::{COLUMNS, ClassChange, ComparedImage, RunComparison};
use crate::predictions::map_distribution::{self, CELLS, MapDistribution};
use crate::predictions::{ImageClasses, NO_NAME};
use crate::statistics::proportion::share;
use crate::table::{TableError, TableReader, TableWriter};

/// The images that are shown, those whose attention moved most.
const SHOWN_IMAGES: usize = 200;
/// The changes of class that are listed, the most frequent ones.
const LISTED_CHANGES: usize = 50;

/// The images of the other run. At some 90 bytes each, they fit into memory.
struct OtherRun {
    classes: ImageClasses,
    /// By hash of the key, the row of an image with a prediction.
    rows: HashMap<u64, u32>,
    /// By row.
    probability: Vec<f32>,
    /// By row, the square roots of the first map in 255ths; all zeros without a map.
    maps: Vec<[u8; CELLS]>,
}

impl OtherRun {
    fn read(table: &TableReader) -> Result<Self, TableError> {
        let classes = ImageClasses::read(table)?;
        let mut this = Self {
            rows: HashMap::with_capacity(table.rows()),
            probability: table.all_floats("probability")?,
            maps: Vec::with_capacity(table.rows()),
            classes,
        };
        for group in 0..table.groups() {
            for (key, map) in
                table.texts(group, "key")?.iter().zip(map_distribution::read(table, group)?)
            {
                let row = u32::try_from(this.maps.len()).expect("fewer than four billion rows");
                if this.classes.predicted[row as usize] != NO_NAME {
                    this.rows.insert(hash_key(key.as_deref().unwrap_or_default()), row);
                }
                let coarse = |root: f32| (root * 255.0).round() as u8;
                this.maps.push(
                    map.map_or([0; CELLS], |map| map_distribution::square_roots(&map).map(coarse)),
                );
            }
        }
        Ok(this)
    }

    /// Whether the image has another label now, whatever class it means.
    fn is_relabelled(&self, row: u32, now: Option<&str>) -> bool {
        let before = self.classes.given[row as usize];
        let before = (before != NO_NAME).then(|| self.classes.names.name(before));
        now.zip(before).is_some_and(|(now, before)| fold(now) != fold(before))
    }

    /// The class that a row's label meant to the other run's model, which may have another name for
    /// it; `now` if the other run had no label. None if its model did not know the label.
    fn label_class<'a>(&'a self, row: u32, now: &'a str) -> Option<&'a str> {
        let name = |id: u32| (id != NO_NAME).then(|| self.classes.names.name(id));
        let row = row as usize;
        match (name(self.classes.label[row]), name(self.classes.given[row])) {
            (None, None) => Some(now),
            (class, _) => class,
        }
    }

    /// The Hellinger distance of the map of a row to another map; none if one of them is absent.
    fn distance(&self, row: u32, map: Option<&MapDistribution>) -> Option<f32> {
        let before = &self.maps[row as usize];
        let now = map_distribution::square_roots(map?);
        let mass: f32 = before.iter().map(|root| (f32::from(*root) / 255.0).powi(2)).sum();
        if mass == 0.0 {
            return None;
        }
        let norm = mass.sqrt() * 255.0;
        let squared = before.iter().zip(now).map(|(a, b)| (f32::from(*a) / norm - b).powi(2));
        Some((squared.sum::<f32>() / 2.0).sqrt())
    }
}

/// Compares the images of two finished tables of predictions. Writes a row for each image of both
/// to `file`.
///
/// `against` is where the other run is.
pub(super) fn compare_images(
    now: &TableReader,
    before: &TableReader,
    against: String,
    file: File,
) -> Result<RunComparison, TableError> {
    let before = OtherRun::read(before)?;
    let mut writer = TableWriter::new(file, COLUMNS)?.with_metadata(&now.metadata());
    let mut total = RunComparison { against, ..RunComparison::default() };
    let (mut labelled, mut right_now, mut right_before) = (0_u64, 0_u64, 0_u64);
    let mut changes: HashMap<(String, String), u64> = HashMap::new();
    let mut farthest: Vec<ComparedImage> = Vec::new();
    for group in 0..now.groups() {
        let (keys, labels) = (now.texts(group, "key")?, now.texts(group, "label")?);
        let label_classes = now.texts(group, "label_class")?;
        let (classes, overlays) = (now.texts(group, "predicted")?, now.texts(group, "overlay")?);
        let probabilities = now.floats(group, "probability")?;
        let maps = map_distribution::read(now, group)?;
        let rows = keys.into_iter().zip(labels).zip(classes).zip(overlays).enumerate();
        for (at, (((key, label), class), overlay)) in rows {
            let (Some(key), Some(class)) = (key, class) else { continue };
            let Some(&row) = before.rows.get(&hash_key(&key)) else {
                total.only_here += 1;
                continue;
            };
            total.both += 1;
            total.relabelled += u64::from(before.is_relabelled(row, label.as_deref()));
            let class_before =
                before.classes.names.name(before.classes.predicted[row as usize]).to_owned();
            if let Some(label) = &label_classes[at]
                && let Some(label_before) = before.label_class(row, label)
            {
                let (is_right, was_right) = (*label == class, label_before == class_before);
                labelled += 1;
                right_now += u64::from(is_right);
                right_before += u64::from(was_right);
                total.fixed += u64::from(is_right && !was_right);
                total.broken += u64::from(!is_right && was_right);
            }
            if class_before != class {
                total.changed += 1;
                *changes.entry((class_before.clone(), class.clone())).or_default() += 1;
            }
            let image = ComparedImage {
                distance: before.distance(row, maps[at].as_ref()),
                key,
                label,
                before: class_before,
                now: class,
                probability_before: before.probability[row as usize],
                probability_now: probabilities[at],
                overlay,
            };
            keep_farthest(&mut farthest, &image);
            writer.push(image)?;
        }
    }
    writer.finish()?;
    total.only_there = before.rows.len() as u64 - total.both;
    total.accuracy_here = share(right_now, labelled);
    total.accuracy_there = share(right_before, labelled);
    total.p = (labelled > 0).then(|| mcnemar_p(total.fixed, total.broken));
    let mut changes: Vec<_> =
        changes.into_iter().map(|((from, to), count)| ClassChange { from, to, count }).collect();
    changes.sort_by(|a, b| {
        b.count.cmp(&a.count).then_with(|| (&a.from, &a.to).cmp(&(&b.from, &b.to)))
    });
    changes.truncate(LISTED_CHANGES);
    total.flows = changes;
    keep_only_shown(&mut farthest);
    total.moved = farthest;
    Ok(total)
}

/// The key of the first image with a prediction.
pub(crate) fn first_predicted(table: &TableReader) -> Result<Option<String>, TableError> {
    for group in 0..table.groups() {
        let rows = table.texts(group, "key")?.into_iter().zip(table.texts(group, "predicted")?);
        let mut predicted = rows.filter_map(|(key, class)| class.and(key));
        if let Some(key) = predicted.next() {
            return Ok(Some(key));
        }
    }
    Ok(None)
}

/// Adds an image with a distance. Sorts out the nearer ones now and then, to bound memory.
fn keep_farthest(farthest: &mut Vec<ComparedImage>, image: &ComparedImage) {
    if image.distance.is_some() {
        farthest.push(image.clone());
        if farthest.len() > 8 * SHOWN_IMAGES {
            keep_only_shown(farthest);
        }
    }
}

/// Sorts images by distance, the farthest first, and drops those that are not shown.
fn keep_only_shown(farthest: &mut Vec<ComparedImage>) {
    farthest.sort_by(|a, b| {
        let distance = |image: &ComparedImage| image.distance.unwrap_or(0.0);
        distance(b).total_cmp(&distance(a)).then_with(|| a.key.cmp(&b.key))
    });
    farthest.truncate(SHOWN_IMAGES);
}

/// The two-sided exact p-value of McNemar's test (1947): the chance of numbers at least as unequal
/// as these if fixed and broken were equally likely.
fn mcnemar_p(fixed: u64, broken: u64) -> f64 {
    let Ok(binomial) = Binomial::new(0.5, fixed + broken) else { return 1.0 };
    (2.0 * binomial.cdf(fixed.min(broken))).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predictions::{self, ImageRow, LabelMeaning, RowPrediction};
    use crate::table::table_of;

    fn table(rows: Vec<ImageRow>) -> TableReader {
        table_of(rows, predictions::COLUMNS)
    }

    /// A row with this label, its class if the model knows it, and the predicted class.
    fn row(key: &str, label: Option<&str>, class: Option<&str>, predicted: &str) -> ImageRow {
        let meaning = match class {
            Some(name) => LabelMeaning::Class(0, name.to_owned()),
            None => LabelMeaning::NoClass,
        };
        let predicted = RowPrediction {
            labels: vec![predicted.to_owned()],
            probabilities: vec![0.9],
            ..RowPrediction::default()
        };
        ImageRow {
            key: key.to_owned(),
            label: label.map(str::to_owned),
            meaning,
            predicted: Some(predicted),
            ..ImageRow::default()
        }
    }

    #[test]
    fn each_run_is_judged_by_what_its_own_model_calls_the_label() {
        let now = table(vec![
            row("a", Some("0"), Some("cat"), "cat"),
            row("b", Some("0"), Some("cat"), "dog"),
            row("c", Some("0"), Some("cat"), "cat"),
            row("d", Some("0"), Some("cat"), "cat"),
            row("e", Some("coyote"), None, "dog"),
        ]);
        let before = table(vec![
            // The other model calls its classes otherwise.
            row("a", Some("0"), Some("tabby, cat"), "tabby, cat"),
            row("b", Some("0"), Some("tabby, cat"), "tabby, cat"),
            // It did not know the label.
            row("c", Some("0"), None, "dog"),
            // The run had no labels.
            row("d", None, None, "dog"),
            row("e", Some("wolf"), None, "dog"),
        ]);
        let file = tempfile::tempfile().unwrap();
        let compared = compare_images(&now, &before, "there".to_owned(), file).unwrap();
        assert_eq!(compared.relabelled, 1, "e; a run without labels relabels nothing");
        assert_eq!((compared.fixed, compared.broken), (1, 1));
        assert_eq!(compared.accuracy_here, Some(2.0 / 3.0));
        assert_eq!(compared.accuracy_there, Some(2.0 / 3.0));
    }

    #[test]
    fn mcnemar_is_the_exact_binomial() {
        // scipy.stats.binomtest(5, 25).pvalue
        assert!((mcnemar_p(20, 5) - 0.004_077_315_330_505_371).abs() < 1e-12);
        assert_eq!(mcnemar_p(0, 0), 1.0);
        assert_eq!(mcnemar_p(7, 7), 1.0);
    }
}
