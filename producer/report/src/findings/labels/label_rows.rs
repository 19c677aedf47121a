//! The table `labels.parquet`: a row for each labelled image, with what both opinions say of it.

use std::fs::File;

use super::confident_learning::Opinion;
use super::folds::HELD_OUT;
use crate::predictions::{ImageClasses, NO_NAME};
use crate::table::{Cell, Column, TableError, TableReader, TableWriter, columns};

/// A labelled image.
#[derive(Debug)]
struct LabelRow {
    key: String,
    label: String,
    fold: Option<i64>,
    held_out_class: Option<String>,
    held_out: Option<Opinion>,
    model: Option<Opinion>,
    suspected: bool,
    in_holdout: bool,
}

/// What is known of all labels, by row of `predictions.parquet`.
pub(super) struct JudgedLabels<'a> {
    pub(super) classes: &'a ImageClasses,
    /// Empty if there are no folds.
    pub(super) folds: &'a [u8],
    /// In the order of `rows`.
    pub(super) held_out: &'a [Opinion],
    /// The rows that the held-out heads judge, in ascending order.
    pub(super) rows: &'a [u32],
    /// The names of the classes that opinions of held-out heads are about.
    pub(super) names: &'a [String],
    pub(super) model: &'a [Option<Opinion>],
    /// The rows that are findings, in ascending order.
    pub(super) suspected: &'a [u32],
}

/// Writes the table to a temporary file.
pub(super) fn write(table: &TableReader, judged: &JudgedLabels<'_>) -> Result<File, TableError> {
    let file = tempfile::tempfile()?;
    let writer = TableWriter::new(file.try_clone()?, COLUMNS)?;
    let mut writer = writer.with_metadata(&table.metadata());
    let mut row = 0_usize;
    for group in 0..table.groups() {
        for key in table.texts(group, "key")? {
            let at = row as u32;
            let (given, fold) = (judged.classes.given[row], judged.folds.get(row).copied());
            row += 1;
            if given == NO_NAME {
                continue;
            }
            let position = judged.rows.binary_search(&at).ok();
            let held_out = position.and_then(|position| judged.held_out.get(position)).copied();
            let in_holdout = fold == Some(HELD_OUT);
            writer.push(LabelRow {
                key: key.unwrap_or_default(),
                label: judged.classes.names.name(given).to_owned(),
                fold: fold.filter(|_| held_out.is_some()).map(i64::from),
                held_out_class: held_out.map(|opinion| judged.names[opinion.top as usize].clone()),
                held_out,
                model: judged.model[row - 1],
                suspected: judged.suspected.binary_search(&at).is_ok(),
                in_holdout,
            })?;
        }
    }
    writer.finish()?;
    Ok(file)
}

/// The columns of `labels.parquet`. `docs/report.md` describes them.
const COLUMNS: &[Column<LabelRow>] = columns! {
    "key" Text |row| Cell::Text(Some(&row.key));
    "label" Text |row| Cell::Text(Some(&row.label));
    "fold" Integer |row| Cell::Integer(row.fold);
    "held_out_class" Text |row| Cell::Text(row.held_out_class.as_deref());
    "held_out_probability" Float |row| {
        Cell::Float(row.held_out.map(|opinion| opinion.top_probability))
    };
    "held_out_label_probability" Float |row| {
        Cell::Float(row.held_out.map(|opinion| opinion.label_probability))
    };
    "model_label_probability" Float |row| {
        Cell::Float(row.model.map(|opinion| opinion.label_probability))
    };
    "suspected" Boolean |row| Cell::Boolean(Some(row.suspected));
    "holdout" Boolean |row| Cell::Boolean(Some(row.in_holdout));
};
