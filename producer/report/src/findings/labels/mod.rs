//! Searches for labels that are probably wrong.
//!
//! A model that was trained on these very images may have learnt their labels by heart. So labels are
//! judged by heads that have not seen the image (`cross_fit`), on what the network sees in it
//! (`features`); and that works for labels that the model does not know, too. The model's own
//! probabilities are the second opinion, and the only one for labels with too few images to learn from.
//!
//! Owns the order of the steps and which opinion counts. Confident learning chooses the labels, from
//! either.

mod confident_learning;
mod cross_fit;
mod features;
mod folds;
mod given_labels;
mod label_errors;
mod label_rows;
mod model_opinions;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fs::File;

pub(crate) use confident_learning::EstimatedErrors;
pub(super) use model_opinions::usual_probabilities;

use self::confident_learning::{Opinion, Suspects};
use self::cross_fit::{CrossFit, LabelledImages};
use self::features::ImageFeatures;
use self::folds::{FOLDS, Folds, HELD_OUT};
use self::given_labels::GivenLabels;
use self::label_rows::JudgedLabels;
use super::finding::{LabelOpinions, RowFinding};
use crate::error::ReportError;
use crate::overview::{HoldoutAccuracy, LabelAudit, MeasuredShare, ModelAgainstHeads};
use crate::predictions::{ImageClasses, NO_NAME};
use crate::table::TableReader;

/// The fewest images of a label that heads learn from. With five folds a head then sees 16 of them.
const MIN_CLASS_IMAGES: usize = 20;
/// The fewest suspected labels that tell whether the model has learnt them by heart.
const MIN_SUSPECTS: usize = 5;

/// How labels are judged.
#[derive(Clone, Copy, Debug, Default)]
pub struct LabelOptions {
    /// The share of images that no finding is about, 0 to 1 without both; none for no hold-out.
    pub holdout: Option<f64>,
    /// The folder of an image's key, counted from 1, whose images are judged together: they are never
    /// in two folds.
    pub group_by: Option<usize>,
}

/// What the search finds.
pub(super) struct LabelErrors {
    pub(super) found: Vec<RowFinding>,
    /// The estimated number of wrong labels; none without labels.
    pub(super) estimated: Option<EstimatedErrors>,
    /// How labels were judged; none if by the model alone.
    pub(super) audit: Option<LabelAudit>,
    /// The table `labels.parquet`; none without labels.
    pub(super) table: Option<File>,
    /// By row, whether the image is in the hold-out. Empty if there is none.
    pub(super) in_holdout: Vec<bool>,
}

/// Searches all labelled images. `duplicates` are those found before.
pub(super) fn find(
    table: &TableReader,
    classes: &ImageClasses,
    options: LabelOptions,
    duplicates: &[RowFinding],
    notes: &mut Vec<String>,
) -> Result<LabelErrors, ReportError> {
    let holdout = options.holdout.unwrap_or(0.0);
    let folds = Folds::assign(table, duplicates, holdout, options.group_by)?;
    let model = model_opinions::read(table, classes)?;
    let labels = GivenLabels::read(classes);
    let features = match labels.len() {
        0 | 1 => None,
        _ => ImageFeatures::read(table)?,
    };
    let judged = features.and_then(|features| JudgedByHeads::judge(&features, &labels, &folds));
    let mut search = Search { classes, labels: &labels, folds: &folds, model: &model, judged };
    search.note(notes);
    let mut found = search.by_heads();
    let (of_model, estimate) = search.by_model();
    found.extend(of_model);
    found.sort_by_key(|finding| finding.row);
    let suspected: Vec<u32> = found.iter().map(|finding| finding.row).collect();
    let (held_out, rows, names) = match &mut search.judged {
        Some(judged) => (&judged.fit.opinions[..], &judged.rows[..], &judged.names[..]),
        None => (&[][..], &[][..], &[][..]),
    };
    let judged = JudgedLabels {
        classes,
        folds: &folds.of_row,
        held_out,
        rows,
        names,
        model: &model,
        suspected: &suspected,
    };
    let has_labels = labels.len() > 0;
    let file = if has_labels { Some(label_rows::write(table, &judged)?) } else { None };
    let in_holdout = match options.holdout {
        Some(_) => folds.of_row.iter().map(|fold| *fold == HELD_OUT).collect(),
        None => Vec::new(),
    };
    let audit = search.judged.map(|judged| judged.audit);
    Ok(LabelErrors { found, estimated: estimate, audit, table: file, in_holdout })
}

/// What heads that have not seen the images say of them.
struct JudgedByHeads {
    /// The rows that were judged, in ascending order.
    rows: Vec<u32>,
    /// By number of the heads' class.
    names: Vec<String>,
    /// What the heads say that were fitted to all labels.
    first: Vec<Opinion>,
    fit: CrossFit,
    suspects: Suspects,
    audit: LabelAudit,
}

impl JudgedByHeads {
    /// None if there are too few images of two labels.
    fn judge(features: &ImageFeatures, labels: &GivenLabels, folds: &Folds) -> Option<Self> {
        let mut counts = vec![[0; FOLDS as usize]; labels.len()];
        let usable = |row: &usize| labels.of_row[*row] != NO_NAME && features.exists[*row];
        let rows = || (0..labels.of_row.len()).filter(usable);
        let in_folds = |row: &usize| folds.of_row[*row] != HELD_OUT;
        for row in rows().filter(in_folds) {
            counts[labels.of_row[row] as usize][usize::from(folds.of_row[row])] += 1;
        }
        let enough: Vec<u32> = (0..labels.len() as u32)
            .filter(|label| has_enough_images(&counts[*label as usize]))
            .collect();
        if enough.len() < 2 {
            return None;
        }
        let number = |label: u32| enough.binary_search(&label).map_or(NO_NAME, |at| at as u32);
        let class = |row: usize| if usable(&row) { number(labels.of_row[row]) } else { NO_NAME };
        let classes: Vec<u32> = (0..labels.of_row.len()).map(class).collect();
        let has_class = |row: &usize| classes[*row] != NO_NAME;
        let (judged, unseen): (Vec<usize>, Vec<usize>) =
            rows().filter(has_class).partition(in_folds);
        let [judged, unseen]: [Vec<u32>; 2] =
            [judged, unseen].map(|rows| rows.into_iter().map(|row| row as u32).collect());
        let examples = LabelledImages {
            features: &features.matrix,
            class_count: enough.len(),
            folds: &folds.of_row,
            draws: &folds.draws,
            rows: judged,
            classes,
        };
        let first = examples.cross_fit();
        // Of the first heads: which labels the second ones are fitted without depends on the labels that
        // they are asked about.
        let accuracy = agreement(first.opinions.iter())?;
        if accuracy.low <= largest_share(&examples) {
            return None;
        }
        let by_first = confident_learning::suspects(&first.opinions);
        let doubted = rows_of(&examples.rows, &by_first.positions);
        let fit = examples.fit_again(&first, &|row| doubted.contains(&row));
        // The first heads say how many labels are wrong: the second ones know which were suspected, and
        // count too many. They say better which ones.
        let suspects = confident_learning::most_suspected(&fit.opinions, by_first.estimate);
        let suspected = rows_of(&examples.rows, &suspects.positions);
        let audit = LabelAudit {
            features: features.kind,
            dimensions: features.matrix.width(),
            folds: FOLDS,
            strength: fit.strength,
            images: examples.rows.len() as u64,
            classes: enough.len() as u64,
            accuracy,
            model: None,
            all_layers_trained: false,
            holdout: holdout_accuracy(&examples, &fit, &unseen, &suspected),
        };
        let names = enough.iter().map(|label| labels.name(*label).to_owned()).collect();
        Some(Self { rows: examples.rows, names, first: first.opinions, fit, suspects, audit })
    }
}

/// Whether heads can learn a label, by the number of its images in each fold: groups of images may
/// all be in one fold, which its own head does not see.
fn has_enough_images(by_fold: &[usize; FOLDS as usize]) -> bool {
    let all: usize = by_fold.iter().sum();
    let most = by_fold.iter().max().copied().unwrap_or(0);
    all >= MIN_CLASS_IMAGES && all - most >= MIN_CLASS_IMAGES / 2
}

/// The share of the most frequent label: always to guess it is right that often.
fn largest_share(examples: &LabelledImages<'_>) -> f64 {
    let mut counts = vec![0_u64; examples.class_count];
    for row in &examples.rows {
        counts[examples.classes[*row as usize] as usize] += 1;
    }
    let most = counts.iter().max().copied().unwrap_or(0);
    most as f64 / examples.rows.len().max(1) as f64
}

fn rows_of(rows: &[u32], positions: &[usize]) -> HashSet<u32> {
    positions.iter().map(|at| rows[*at]).collect()
}

/// How often the most probable class is the label; none without opinions.
fn agreement<'a>(opinions: impl Iterator<Item = &'a Opinion>) -> Option<MeasuredShare> {
    let (mut right, mut all) = (0, 0);
    for opinion in opinions {
        all += 1;
        right += u64::from(opinion.top == opinion.label);
    }
    MeasuredShare::of(right, all)
}

/// The accuracy on images that no head has seen, before and after the suspected labels are left out.
fn holdout_accuracy(
    examples: &LabelledImages<'_>,
    fit: &CrossFit,
    unseen: &[u32],
    suspected: &HashSet<u32>,
) -> Option<HoldoutAccuracy> {
    if unseen.is_empty() {
        return None;
    }
    let accuracy = |without: &dyn Fn(u32) -> bool| {
        let head = examples.fit_all(fit.strength, without);
        let right = head.map_rows(examples.features, unseen, |row, probabilities| {
            let label = examples.classes[row as usize] as usize;
            probabilities.iter().all(|other| *other <= probabilities[label])
        });
        let count = right.iter().filter(|right| **right).count();
        MeasuredShare::of(count as u64, right.len() as u64)
    };
    let before = accuracy(&|_| false)?;
    Some(HoldoutAccuracy { before, after: accuracy(&|row| suspected.contains(&row))? })
}

/// Both opinions, on their way to findings.
struct Search<'a> {
    classes: &'a ImageClasses,
    labels: &'a GivenLabels,
    folds: &'a Folds,
    model: &'a [Option<Opinion>],
    judged: Option<JudgedByHeads>,
}

impl Search<'_> {
    /// The labels that the heads suspect. Also compares the heads with the model.
    fn by_heads(&mut self) -> Vec<RowFinding> {
        let Some(judged) = &mut self.judged else { return Vec::new() };
        let names = &self.classes.names;
        let (mut found, mut sides) = (Vec::new(), Vec::new());
        for at in &judged.suspects.positions {
            let (row, opinion) = (judged.rows[*at] as usize, &judged.fit.opinions[*at]);
            let [label, top] =
                [opinion.label, opinion.top].map(|class| &judged.names[class as usize]);
            let model = self.model[row].map(|model| {
                let class = names.name(model.top);
                (class, self.labels.find(class) == self.labels.find(top))
            });
            if let Some(model) = self.model[row] {
                sides.push(model.top == model.label);
            }
            let opinions = LabelOpinions {
                held_out: Some(opinion.top_probability),
                held_out_label: Some(opinion.label_probability),
                model_label: self.model[row].map(|model| model.label_probability),
                model_agrees: model.map(|(_, agrees)| agrees),
            };
            let words = [label.as_str(), top.as_str()];
            found.push(label_errors::describe(row, opinion, words, model, opinions));
        }
        let known = |at: &usize| self.model[judged.rows[*at] as usize].is_some();
        let positions: Vec<usize> = (0..judged.rows.len()).filter(known).collect();
        let of_heads = agreement(positions.iter().map(|at| &judged.first[*at]));
        let of_model =
            agreement(positions.iter().flat_map(|at| &self.model[judged.rows[*at] as usize]));
        judged.audit.model = of_model.zip(of_heads).map(|(model, heads)| {
            // An honest model sides with the heads on most labels that are wrong.
            let with_label = sides.iter().filter(|side| **side).count();
            let sides_with_labels = sides.len() >= MIN_SUSPECTS && 2 * with_label > sides.len();
            let memorised = sides_with_labels && model.low > heads.high;
            ModelAgainstHeads { model, heads, memorised }
        });
        found
    }

    /// Whether no head judges the image, which is not in the hold-out.
    fn is_left_to_model(&self, row: usize) -> bool {
        let is_judged = self
            .judged
            .as_ref()
            .is_some_and(|judged| judged.rows.binary_search(&(row as u32)).is_ok());
        !is_judged && self.folds.of_row[row] != HELD_OUT
    }

    /// The labels that the model suspects, of images that no head has judged; and the estimate of
    /// both.
    fn by_model(&self) -> (Vec<RowFinding>, Option<EstimatedErrors>) {
        let names = &self.classes.names;
        let counts = |row: &usize| self.model[*row].is_some() && self.is_left_to_model(*row);
        let rows: Vec<usize> = (0..self.model.len()).filter(counts).collect();
        let opinions: Vec<Opinion> = rows.iter().flat_map(|row| self.model[*row]).collect();
        let suspects = confident_learning::suspects(&opinions);
        let describe = |at: &usize| {
            let opinion = &opinions[*at];
            let words = [opinion.label, opinion.top].map(|class| names.name(class));
            let opinions = LabelOpinions {
                model_label: Some(opinion.label_probability),
                model_agrees: Some(true),
                ..LabelOpinions::default()
            };
            label_errors::describe(rows[*at], opinion, words, None, opinions)
        };
        let found = suspects.positions.iter().map(describe).collect();
        let of_model = (!opinions.is_empty()).then_some(suspects.estimate);
        let of_heads = self.judged.as_ref().map(|judged| judged.suspects.estimate);
        let estimates = [of_heads, of_model];
        let sum = estimates.into_iter().flatten().reduce(|one, other| EstimatedErrors {
            count: one.count + other.count,
            low: one.low + other.low,
            high: one.high + other.high,
        });
        (found, sum)
    }

    /// Says what was not judged by heads, and why.
    fn note(&self, notes: &mut Vec<String>) {
        let (mut by_model, mut by_none) = (0_u64, 0_u64);
        for (row, label) in self.labels.of_row.iter().enumerate() {
            let has_prediction = self.classes.predicted[row] != NO_NAME;
            if *label == NO_NAME || !has_prediction || !self.is_left_to_model(row) {
                continue;
            }
            match self.model[row] {
                Some(_) => by_model += 1,
                None => by_none += 1,
            }
        }
        if by_none > 0 {
            notes.push(format!(
                "label errors were not looked for in {by_none} images: their labels are none of the \
                 model's classes, and heads could not learn them: that takes embeddings, at least \
                 {MIN_CLASS_IMAGES} images of each of two labels, not all in one group, and labels that \
                 the embeddings tell apart"
            ));
        }
        if by_model > 0 {
            notes.push(format!(
                "the labels of {by_model} images were judged by the model alone, which may have \
                 learnt them: heads that have not seen the images need embeddings, at least \
                 {MIN_CLASS_IMAGES} images of each of two labels, not all in one group, and labels that \
                 the embeddings tell apart"
            ));
        }
    }
}
