//! What the model's own probabilities say of each label that means one of its classes.
//!
//! Results list the five most probable classes. The probabilities of all others count as zero. Classes
//! are numbered as [`ImageClasses`] names them.

use super::confident_learning::{self, Opinion};
use crate::predictions::{ImageClasses, NO_NAME};
use crate::table::{TableError, TableReader};

/// By row, the model's opinion; none for an image without a prediction, and if its label means no
/// class of the model.
pub(super) fn read(
    table: &TableReader,
    classes: &ImageClasses,
) -> Result<Vec<Option<Opinion>>, TableError> {
    let of_label = table.all_floats("label_probability")?;
    let is_known = known_labels(classes, &of_label);
    let judged = |row: usize| is_judged(classes, &is_known, row);
    let probability = |row: usize| Some(of_label[row]).filter(|p| !p.is_nan()).unwrap_or(0.0);
    let thresholds = usual_probabilities(classes, &of_label);
    let mut opinions = Vec::with_capacity(of_label.len());
    for group in 0..table.groups() {
        let (names, chances) = (
            table.text_lists(group, "top_labels")?,
            table.float_lists(group, "top_probabilities")?,
        );
        for (names, chances) in names.iter().zip(chances.iter()) {
            let row = opinions.len();
            if !judged(row) || names.is_empty() {
                opinions.push(None);
                continue;
            }
            let ids = names.iter().map(|name| classes.names.find(name));
            let confident = ids
                .zip(chances)
                .find_map(|(id, chance)| id.filter(|id| *chance >= thresholds[*id as usize]));
            opinions.push(Some(Opinion {
                label: classes.label[row],
                label_probability: probability(row),
                top: classes.predicted[row],
                top_probability: chances[0],
                confident: confident.unwrap_or(NO_NAME),
            }));
        }
    }
    Ok(opinions)
}

/// By class, how sure the model usually is of it: the mean probability of the class among the images
/// labelled with it; for a class that no image is labelled with, the mean of the other classes. NaN
/// without labels. `of_label` has each row's probability of its label.
pub(in crate::findings) fn usual_probabilities(
    classes: &ImageClasses,
    of_label: &[f32],
) -> Vec<f32> {
    let is_known = known_labels(classes, of_label);
    let labels = (0..of_label.len()).filter(|row| is_judged(classes, &is_known, *row));
    let probability = |row: usize| Some(of_label[row]).filter(|p| !p.is_nan()).unwrap_or(0.0);
    let labels = labels.map(|row| (classes.label[row], probability(row)));
    let mut usual = confident_learning::thresholds(labels, classes.names.len());
    let known: Vec<f32> = usual.iter().copied().filter(|t| !t.is_nan()).collect();
    let mean = known.iter().sum::<f32>() / known.len() as f32;
    usual.iter_mut().filter(|t| t.is_nan()).for_each(|threshold| *threshold = mean);
    usual
}

/// Whether the model can be asked about a row's label.
fn is_judged(classes: &ImageClasses, is_known: &[bool], row: usize) -> bool {
    let (label, predicted) = (classes.label[row], classes.predicted[row]);
    label != NO_NAME && predicted != NO_NAME && is_known[label as usize]
}

/// By label, whether it is one of the model's classes: some image has a probability of it.
fn known_labels(classes: &ImageClasses, of_label: &[f32]) -> Vec<bool> {
    let mut known = vec![false; classes.names.len()];
    for (label, probability) in classes.label.iter().zip(of_label) {
        if *label != NO_NAME && !probability.is_nan() {
            known[*label as usize] = true;
        }
    }
    known
}
