//! Labels that are probably wrong, by confident learning (Northcutt, Jiang and Chuang 2021,
//! <https://arxiv.org/abs/1911.00068>).
//!
//! A class's threshold is the mean probability that images given it have of it. An image counts
//! as surely of the class whose threshold it reaches (of several, the most probable). How many
//! images given class i are surely of class j tells how many of them are to be named: those with
//! the largest difference of the two probabilities ("prune by noise rate", section 3.2).
//!
//! Results list the five most probable classes; the others' probabilities count as zero.

use std::collections::HashMap;

use super::known::{Known, NONE};
use super::{FindingKind, Found};
use crate::table::{TableError, TableReader};

/// What confident learning says.
pub(super) struct LabelErrors {
    pub(super) found: Vec<Found>,
    /// How many labels are wrong, as far as can be told; none without labels.
    pub(super) estimated: Option<u64>,
}

/// An image whose most probable class is not its label.
struct Suspect {
    row: usize,
    label_probability: f32,
    probability: f32,
}

/// Looks through all labelled images.
pub(super) fn find(
    table: &TableReader,
    known: &Known,
    notes: &mut Vec<String>,
) -> Result<LabelErrors, TableError> {
    let thresholds = thresholds(table, known)?;
    let strangers: u64 = known
        .label
        .iter()
        .zip(&known.predicted)
        .filter(|(label, predicted)| {
            **label != NONE && **predicted != NONE && thresholds[**label as usize].is_none()
        })
        .count() as u64;
    if strangers > 0 {
        notes.push(format!(
            "label errors were not looked for in {strangers} images: their labels are none of the \
             model's classes"
        ));
    }
    let classes = known.names.len();
    // Surely given i and of j, by (i, j); all given i; suspects by (i, most probable).
    let mut joint: HashMap<(u32, u32), u64> = HashMap::new();
    let mut given = vec![0_u64; classes];
    let mut suspects: HashMap<(u32, u32), Vec<Suspect>> = HashMap::new();
    for (group, start) in known.starts.iter().enumerate() {
        let (labels, probabilities) = (
            table.text_lists(group, "top_labels")?,
            table.float_lists(group, "top_probabilities")?,
        );
        let of_label = table.floats(group, "label_probability")?;
        for (at, (names, chances)) in labels.iter().zip(probabilities.iter()).enumerate() {
            let row = start + at;
            let label = known.label[row];
            if label == NONE || names.is_empty() || thresholds[label as usize].is_none() {
                continue;
            }
            given[label as usize] += 1;
            let ids = names.iter().map(|name| known.names.find(name));
            let sure = ids.zip(chances).find(|(id, chance)| {
                id.and_then(|id| thresholds[id as usize]).is_some_and(|t| f64::from(**chance) >= t)
            });
            if let Some((Some(class), _)) = sure {
                *joint.entry((label, class)).or_default() += 1;
            }
            let predicted = known.predicted[row];
            if predicted != label {
                let label_probability = Some(of_label[at]).filter(|p| !p.is_nan()).unwrap_or(0.0);
                let suspect = Suspect { row, label_probability, probability: chances[0] };
                suspects.entry((label, predicted)).or_default().push(suspect);
            }
        }
    }
    let mut sure = vec![0_u64; classes];
    for ((label, _), count) in &joint {
        sure[*label as usize] += count;
    }
    let mut estimated = 0.0;
    let mut found = Vec::new();
    for ((label, class), mut suspects) in suspects {
        let confident = joint.get(&(label, class)).copied().unwrap_or(0) as f64;
        let wrong = confident * given[label as usize] as f64 / sure[label as usize].max(1) as f64;
        estimated += wrong;
        let margin = |suspect: &Suspect| suspect.probability - suspect.label_probability;
        suspects.sort_by(|a, b| margin(b).total_cmp(&margin(a)).then(a.row.cmp(&b.row)));
        suspects.truncate(wrong.round() as usize);
        found.extend(suspects.iter().map(|suspect| describe(suspect, label, class, known)));
    }
    let labelled = given.iter().sum::<u64>() > 0;
    Ok(LabelErrors { found, estimated: labelled.then(|| estimated.round() as u64) })
}

/// By class id: the mean probability of the class among images given it, where the model has it.
fn thresholds(table: &TableReader, known: &Known) -> Result<Vec<Option<f64>>, TableError> {
    let mut sums = vec![(0.0, 0_u64, false); known.names.len()];
    for (group, start) in known.starts.iter().enumerate() {
        for (at, probability) in table.floats(group, "label_probability")?.iter().enumerate() {
            let (label, predicted) = (known.label[start + at], known.predicted[start + at]);
            if label == NONE || predicted == NONE {
                continue;
            }
            let (sum, count, is_class) = &mut sums[label as usize];
            *count += 1;
            if !probability.is_nan() {
                *sum += f64::from(*probability);
                *is_class = true;
            }
        }
    }
    let mean = |(sum, count, is_class): (f64, u64, bool)| is_class.then(|| sum / count as f64);
    Ok(sums.into_iter().map(mean).collect())
}

fn describe(suspect: &Suspect, label: u32, class: u32, known: &Known) -> Found {
    let (label, class) = (known.names.name(label), known.names.name(class));
    let Suspect { row, label_probability, probability } = *suspect;
    let reason = format!(
        "Labelled {label}, but looks like {class}: {} against {}",
        percent(probability),
        percent(label_probability)
    );
    // A half says that it could be either.
    let score = 0.5 + 0.5 * (probability - label_probability).clamp(0.0, 1.0);
    let found = Found::new(row, FindingKind::LabelError, score, reason);
    Found { suggested: Some(class.to_owned()), ..found }
}

/// `97 %`, `0.2 %`, `99.98 %`: as many digits as tell it from none and all.
pub(super) fn percent(share: f32) -> String {
    let percent = f64::from(share) * 100.0;
    let far = percent.min(100.0 - percent);
    if percent == 0.0 || percent == 100.0 || far >= 9.95 {
        format!("{percent:.0} %")
    } else if far >= 0.095 {
        format!("{percent:.1} %")
    } else if percent > 50.0 {
        "over 99.9 %".to_owned()
    } else {
        "under 0.1 %".to_owned()
    }
}
