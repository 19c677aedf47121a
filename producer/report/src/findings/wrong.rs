//! Lists the images that are wrong without any other finding, if the model is sure of its class.
//!
//! The model is sure if the probability reaches the mean probability of that class among the images
//! labelled with it, as in confident learning (Northcutt, Jiang and Chuang 2021, section 3.1): as
//! sure as it usually is when the class is right. A fixed limit would list everything of a model
//! that is too sure, and nothing of one that has many classes.

use std::collections::HashSet;

use super::finding::{FindingKind, RowFinding};
use crate::predictions::{ImageClasses, NO_NAME};
use crate::table::{TableError, TableReader};

/// The images that are listed, the surest ones. A bad model is wrong about half of a million.
const MAX_LISTED: usize = 100_000;
/// The highest score: below that of a label that could be either. Nothing else speaks against the
/// image.
const MAX_SCORE: f32 = 0.45;

/// The images labelled with a class, and the sum of their probabilities of it.
#[derive(Clone, Copy, Debug, Default)]
struct LabelledImages {
    images: u64,
    sum: f64,
}

/// Finds the wrong images of which `others` say nothing.
pub(super) fn find(
    table: &TableReader,
    classes: &ImageClasses,
    others: &[RowFinding],
    notes: &mut Vec<String>,
) -> Result<Vec<RowFinding>, TableError> {
    let usual = usual_probabilities(table, classes)?;
    let has_other: HashSet<u32> =
        others.iter().flat_map(|found| [Some(found.row), found.other]).flatten().collect();
    let probability = table.all_floats("probability")?;
    let mut sure: Vec<usize> = (0..classes.label.len())
        .filter(|&row| {
            let (label, predicted) = (classes.label[row], classes.predicted[row]);
            label != NO_NAME
                && predicted != NO_NAME
                && label != predicted
                && usual[predicted as usize].is_some_and(|mean| f64::from(probability[row]) >= mean)
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
            usual[predicted as usize].unwrap_or_default() * 100.0
        );
        RowFinding::new(row, FindingKind::Wrong, MAX_SCORE * probability[row], reason)
    };
    Ok(sure.into_iter().map(describe).collect())
}

/// By class, the mean probability of the class among the images labelled with it; without such
/// images, of all labels; none without labels.
fn usual_probabilities(
    table: &TableReader,
    classes: &ImageClasses,
) -> Result<Vec<Option<f64>>, TableError> {
    let mut sums = vec![LabelledImages::default(); classes.names.len()];
    for (group, start) in classes.group_starts.iter().enumerate() {
        for (at, probability) in table.floats(group, "label_probability")?.iter().enumerate() {
            let row = start + at;
            if classes.label[row] != NO_NAME && classes.predicted[row] != NO_NAME {
                let of_class = &mut sums[classes.label[row] as usize];
                of_class.images += 1;
                // The label's class is listed in every result but the oldest ones.
                of_class.sum +=
                    f64::from(Some(*probability).filter(|p| !p.is_nan()).unwrap_or(0.0));
            }
        }
    }
    let mean = |of: &LabelledImages| (of.images > 0).then(|| of.sum / of.images as f64);
    let all = sums.iter().fold(LabelledImages::default(), |all, of| LabelledImages {
        images: all.images + of.images,
        sum: all.sum + of.sum,
    });
    // For a class that no image is labelled with, as sure as the model usually is of a label.
    Ok(sums.iter().map(|of| mean(of).or_else(|| mean(&all))).collect())
}
