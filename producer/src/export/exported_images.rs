//! The images that are exported, with what the report and the decisions say of them.
//!
//! Images are read a row group at a time. Upstream: the report's tables. Downstream: the writer of the format.

use camshaft_common::key::ImageKey;
use camshaft_decisions::{Choice, MergedDecisions};
use camshaft_exchange::{AddressRoot, ExportImage};
use camshaft_table::{TableError, TableReader};

use super::ExportError;
use super::chosen_images::{ChosenImages, FindingNotes, lacks};
use super::vocabulary::Vocabulary;

/// Columns of `predictions.parquet`.
const COLUMNS: [&str; 11] = [
    "key",
    "label",
    "predicted",
    "probability",
    "target",
    "overlay",
    "label_overlay",
    "width",
    "height",
    "label_class",
    "top_labels",
];

/// An error if the report lacks a column of `predictions.parquet`.
pub(super) fn check_columns(table: &TableReader, out: &str) -> Result<(), ExportError> {
    lacks(table, &COLUMNS, out)
}

/// Where another program finds files.
#[derive(Debug)]
pub(super) struct Addresses {
    /// None if the run does not tell where its images are.
    pub(super) images: Option<AddressRoot>,
    pub(super) out: AddressRoot,
}

impl Addresses {
    fn of_image(&self, key: &str) -> String {
        match (&self.images, ImageKey::parse(key)) {
            (Some(root), Ok(key)) => root.of(&key.name()),
            _ => key.to_owned(),
        }
    }
}

/// The images that are exported, and what is known of them.
pub(super) struct Selected<'a> {
    pub(super) notes: &'a FindingNotes,
    pub(super) chosen: &'a ChosenImages,
    pub(super) decided: &'a MergedDecisions,
    pub(super) vocabulary: &'a Vocabulary,
}

impl Selected<'_> {
    /// For each exported image, in the order of the table, its place in the order of keys. With `sized` only
    /// images of a known size count: CVAT numbers the files that it can open.
    pub(super) fn numbers(&self, table: &TableReader, sized: bool) -> Result<Vec<u64>, TableError> {
        let mut keys = Vec::new();
        let mut count = 0_usize;
        for group in 0..table.groups() {
            let widths = table.integers(group, "width")?;
            for (key, width) in table.texts(group, "key")?.into_iter().zip(widths) {
                let Some(key) = key.filter(|key| self.chosen.has(key, self.notes)) else {
                    continue;
                };
                if !sized || width.is_some() {
                    keys.push((key, count));
                }
                count += 1;
            }
        }
        keys.sort_unstable();
        let mut numbers = vec![0; count];
        for (number, (_, place)) in (0..).zip(keys) {
            numbers[place] = number;
        }
        Ok(numbers)
    }

    /// Calls `visit` with each image, in the order of the table.
    pub(super) fn visit(
        &self,
        table: &TableReader,
        addresses: &Addresses,
        numbers: &[u64],
        mut visit: impl FnMut(ExportImage) -> Result<(), ExportError>,
    ) -> Result<(), ExportError> {
        let mut numbers = numbers.iter();
        for group in 0..table.groups() {
            let texts = |name| table.texts(group, name);
            let keys = texts("key")?;
            let [mut labels, mut predicted, mut targets, overlays, given, label_classes] = [
                texts("label")?,
                texts("predicted")?,
                texts("target")?,
                texts("overlay")?,
                texts("label_overlay")?,
                texts("label_class")?,
            ];
            let probabilities = table.floats(group, "probability")?;
            let (widths, heights) =
                (table.integers(group, "width")?, table.integers(group, "height")?);
            for (row, key) in keys.into_iter().enumerate() {
                let Some(key) = key.filter(|key| self.chosen.has(key, self.notes)) else {
                    continue;
                };
                let target = targets[row].take();
                let is_given = target.is_some() && target == label_classes[row];
                let of_given = if is_given { &overlays[row] } else { &given[row] };
                let overlay = |path: &Option<String>| {
                    path.as_ref().map(|path| addresses.out.of(path.as_bytes()))
                };
                let side = |sides: &[Option<i64>]| sides[row].and_then(|side| side.try_into().ok());
                let notes = self.notes.of(&key);
                let suggested = notes.and_then(|notes| notes.suggested.clone());
                let in_labels = |class: String| self.vocabulary.label_of(&class);
                visit(ExportImage {
                    number: numbers.next().copied().unwrap_or_default(),
                    address: addresses.of_image(&key),
                    label: labels[row].take(),
                    predicted: predicted[row].take().map(in_labels),
                    probability: Some(probabilities[row]).filter(|p| !p.is_nan()),
                    suggested_probability: suggested.as_ref().and_then(|(_, p)| *p),
                    suggested: suggested.map(|(label, _)| in_labels(label)),
                    findings: notes.map(|notes| notes.findings.clone()).unwrap_or_default(),
                    overlay: overlay(&overlays[row]),
                    overlay_class: target.map(in_labels),
                    given_overlay: overlay(of_given),
                    size: side(&widths).zip(side(&heights)).map(|(width, height)| [width, height]),
                    decided: self.decided_about(&key),
                    key,
                })?;
            }
        }
        Ok(())
    }

    fn decided_about(&self, key: &str) -> Option<String> {
        let key = ImageKey::parse(key).ok()?;
        let choice = self.decided.get(&key)?.choice;
        Some(match choice {
            Choice::Relabel(label) => format!("relabel: {label}"),
            Choice::Keep | Choice::Drop | Choice::Undecided => choice.word().to_owned(),
        })
    }
}
