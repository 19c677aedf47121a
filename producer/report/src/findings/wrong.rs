//! Lists the images that are wrong without any other finding, if the model is sure of its class.
//!
//! The model is sure if the probability reaches the class's threshold of confident learning
//! (Northcutt, Jiang and Chuang 2021, section 3.1): as sure as it usually is when the class is right. A
//! fixed limit would list everything of a model that is too sure, and nothing of one that has many
//! classes.

use std::collections::HashSet;

use super::finding::{FindingKind, RowFinding};
use super::labels::usual_probabilities;
use crate::predictions::{ImageClasses, NO_NAME};
use crate::table::{TableError, TableReader};

/// The images that are listed, the surest ones. A bad model is wrong about half of a million.
const MAX_LISTED: usize = 100_000;
/// The highest score: below that of a label that could be either. Nothing else speaks against the
/// image.
const MAX_SCORE: f32 = 0.45;

/// Finds the wrong images of which `others` say nothing.
pub(super) fn find(
    table: &TableReader,
    classes: &ImageClasses,
    others: &[RowFinding],
    notes: &mut Vec<String>,
) -> Result<Vec<RowFinding>, TableError> {
    let usual = usual_probabilities(classes, &table.all_floats("label_probability")?);
    let has_other: HashSet<u32> =
        others.iter().flat_map(|found| [Some(found.row), found.other]).flatten().collect();
    let probability = table.all_floats("probability")?;
    let mut sure: Vec<usize> = (0..classes.label.len())
        .filter(|&row| {
            let (label, predicted) = (classes.label[row], classes.predicted[row]);
            label != NO_NAME
                && predicted != NO_NAME
                && label != predicted
                && probability[row] >= usual[predicted as usize]
                && !has_other.contains(&(row as u32))
        })
        .collect();
    sure.sort_by(|&a, &b| probability[b].total_cmp(&probability[a]).then(a.cmp(&b)));
    if sure.len() > MAX_LISTED {
        notes.push(format!(
            "{} images are surely wrong without another finding; the surest {MAX_LISTED} are \
             findings, predictions.parquet has all",
            sure.len()
        ));
        sure.truncate(MAX_LISTED);
    }
    let describe = |row: usize| {
        let predicted = classes.predicted[row];
        let name = classes.names.name(predicted);
        let reason = format!(
            "Labelled {}, but surely predicted as {name}: {:.1} %, {:.1} % is usual for images of \
             {name}",
            classes.names.name(classes.label[row]),
            probability[row] * 100.0,
            usual[predicted as usize] * 100.0
        );
        RowFinding::new(row, FindingKind::Wrong, MAX_SCORE * probability[row], reason)
    };
    Ok(sure.into_iter().map(describe).collect())
}
