//! Searches for labels that are probably wrong, by confident learning (Northcutt, Jiang and Chuang
//! 2021, <https://arxiv.org/abs/1911.00068>).
//!
//! The threshold of a class is the mean probability of the class among the images labelled with it.
//! An image counts as confidently of a class if its probability of the class reaches the threshold;
//! if there are several, of the most probable one. The number of images that are labelled *i* and
//! confidently of class *j* says how many labels *i* should be *j*. That many images are reported:
//! those whose two probabilities differ most ("prune by noise rate", section 3.2).
//!
//! Results list the five most probable classes. The probabilities of all others count as zero.

use std::collections::HashMap;

use super::finding::{FindingKind, RowFinding};
use crate::predictions::{ImageClasses, NO_NAME};
use crate::table::{TableError, TableReader};

/// What confident learning finds.
pub(super) struct LabelErrors {
    pub(super) found: Vec<RowFinding>,
    /// The estimated number of wrong labels; none without labels.
    pub(super) estimated: Option<u64>,
}

/// An image whose most probable class is not its label.
struct SuspectLabel {
    row: usize,
    label_probability: f32,
    /// Of the most probable class.
    probability: f32,
}

/// Searches all labelled images.
pub(super) fn find(
    table: &TableReader,
    classes: &ImageClasses,
    notes: &mut Vec<String>,
) -> Result<LabelErrors, TableError> {
    let thresholds = thresholds(table, classes)?;
    let has_no_class = |label: u32| label == NO_NAME || thresholds[label as usize].is_none();
    let without_class = (0..classes.given.len())
        .filter(|&row| {
            classes.given[row] != NO_NAME
                && classes.predicted[row] != NO_NAME
                && has_no_class(classes.label[row])
        })
        .count();
    if without_class > 0 {
        notes.push(format!(
            "label errors were not looked for in {without_class} images: their labels are none of \
             the model's classes"
        ));
    }
    let class_count = classes.names.len();
    // By label and class, the number of images with the label that are confidently of the class.
    let mut joint: HashMap<(u32, u32), u64> = HashMap::new();
    // By label, the number of images with the label.
    let mut given = vec![0_u64; class_count];
    // By label and most probable class.
    let mut suspects: HashMap<(u32, u32), Vec<SuspectLabel>> = HashMap::new();
    for (group, start) in classes.group_starts.iter().enumerate() {
        let (labels, probabilities) = (
            table.text_lists(group, "top_labels")?,
            table.float_lists(group, "top_probabilities")?,
        );
        let of_label = table.floats(group, "label_probability")?;
        for (at, (names, chances)) in labels.iter().zip(probabilities.iter()).enumerate() {
            let row = start + at;
            let label = classes.label[row];
            if label == NO_NAME || names.is_empty() || thresholds[label as usize].is_none() {
                continue;
            }
            given[label as usize] += 1;
            let ids = names.iter().map(|name| classes.names.find(name));
            let confident = ids.zip(chances).find(|(id, chance)| {
                id.and_then(|id| thresholds[id as usize]).is_some_and(|t| f64::from(**chance) >= t)
            });
            if let Some((Some(class), _)) = confident {
                *joint.entry((label, class)).or_default() += 1;
            }
            let predicted = classes.predicted[row];
            if predicted != label {
                let label_probability = Some(of_label[at]).filter(|p| !p.is_nan()).unwrap_or(0.0);
                let suspect = SuspectLabel { row, label_probability, probability: chances[0] };
                suspects.entry((label, predicted)).or_default().push(suspect);
            }
        }
    }
    // By label, the number of images with the label that are confidently of any class.
    let mut confident = vec![0_u64; class_count];
    for ((label, _), count) in &joint {
        confident[*label as usize] += count;
    }
    let mut estimated = 0.0;
    let mut found = Vec::new();
    for ((label, class), mut suspects) in suspects {
        let of_class = joint.get(&(label, class)).copied().unwrap_or(0) as f64;
        let wrong =
            of_class * given[label as usize] as f64 / confident[label as usize].max(1) as f64;
        estimated += wrong;
        let margin = |suspect: &SuspectLabel| suspect.probability - suspect.label_probability;
        suspects.sort_by(|a, b| margin(b).total_cmp(&margin(a)).then(a.row.cmp(&b.row)));
        suspects.truncate(wrong.round() as usize);
        found.extend(suspects.iter().map(|suspect| describe(suspect, label, class, classes)));
    }
    let labelled = given.iter().sum::<u64>() > 0;
    Ok(LabelErrors { found, estimated: labelled.then(|| estimated.round() as u64) })
}

/// By class, the mean probability of the class among the images labelled with it; none if it is not
/// one of the model's classes.
fn thresholds(table: &TableReader, classes: &ImageClasses) -> Result<Vec<Option<f64>>, TableError> {
    let mut sums = vec![LabelProbabilities::default(); classes.names.len()];
    for (group, start) in classes.group_starts.iter().enumerate() {
        for (at, probability) in table.floats(group, "label_probability")?.iter().enumerate() {
            let (label, predicted) = (classes.label[start + at], classes.predicted[start + at]);
            if label == NO_NAME || predicted == NO_NAME {
                continue;
            }
            let of_label = &mut sums[label as usize];
            of_label.images += 1;
            if !probability.is_nan() {
                of_label.sum += f64::from(*probability);
                of_label.is_class = true;
            }
        }
    }
    let mean = |label: LabelProbabilities| label.is_class.then(|| label.sum / label.images as f64);
    Ok(sums.into_iter().map(mean).collect())
}

/// The probabilities of a label among the images labelled with it, added up.
#[derive(Clone, Copy, Default)]
struct LabelProbabilities {
    sum: f64,
    images: u64,
    /// Whether the label is one of the model's classes: some image has a probability of it.
    is_class: bool,
}

fn describe(suspect: &SuspectLabel, label: u32, class: u32, classes: &ImageClasses) -> RowFinding {
    let (label, class) = (classes.names.name(label), classes.names.name(class));
    let SuspectLabel { row, label_probability, probability } = *suspect;
    let reason = format!(
        "Labelled {label}, but looks like {class}: {} against {}",
        percent(probability),
        percent(label_probability)
    );
    // A score of a half says that it could be either.
    let score = 0.5 + 0.5 * (probability - label_probability).clamp(0.0, 1.0);
    let found = RowFinding::new(row, FindingKind::LabelError, score, reason);
    RowFinding { suggested: Some(class.to_owned()), ..found }
}

/// `97 %`, `0.2 %`, `over 99.9 %`: with one decimal if it is close to 0 or 100.
fn percent(share: f32) -> String {
    let percent = f64::from(share) * 100.0;
    let from_end = percent.min(100.0 - percent);
    if percent == 0.0 || percent == 100.0 || from_end >= 9.95 {
        format!("{percent:.0} %")
    } else if from_end >= 0.095 {
        format!("{percent:.1} %")
    } else if percent > 50.0 {
        "over 99.9 %".to_owned()
    } else {
        "under 0.1 %".to_owned()
    }
}
