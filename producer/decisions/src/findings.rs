//! The findings of a report, by image: what rules look at.
//!
//! Reads `OUT/report/findings.parquet`, and of `predictions.parquet` the labels of images that no finding
//! is about: the best ones of groups of duplicates. Upstream: `camshaft report`. Downstream:
//! [`rule`](super::rule), [`judge`](super::judge) and [`sample`](super::sample).

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::sync::Arc;

use camshaft_common::key::{ImageKey, ImageKeyError};
use camshaft_common::layout::REPORT;
use camshaft_common::store::{Folder, StoreError, StoreErrorKind};
use camshaft_table::{TableError, TableReader};

/// The word for an image that is the best of its group of duplicates.
pub(crate) const BEST: &str = "best";

/// Findings can't be read.
#[derive(Debug, thiserror::Error)]
pub enum FindingsError {
    /// There is no report.
    #[error("{0} has no report, and rules decide by its findings; run camshaft report {0}")]
    NoReport(String),
    /// The report is of a version that did not write a column.
    #[error("the report in {out} has no column {column}; run camshaft report {out} again")]
    OldReport {
        /// The run.
        out: String,
        /// The column.
        column: &'static str,
    },
    /// OUT can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A table is damaged.
    #[error("{0}; run camshaft report again")]
    Table(#[from] TableError),
    /// A table names no image.
    #[error("{0}; run camshaft report again")]
    Key(#[from] ImageKeyError),
    /// A bug.
    #[error("reading the findings ended with a panic")]
    Panicked,
}

type Text = Option<Arc<str>>;

/// What rules see of a finding.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) kind: Arc<str>,
    pub(crate) problem: Text,
    pub(crate) label: Text,
    pub(crate) suggested: Text,
    pub(crate) predicted: Text,
    pub(crate) verdict: Text,
    pub(crate) failure: Text,
    /// NaN if it is not known, as the others.
    pub(crate) score: f32,
    pub(crate) probability: f32,
    pub(crate) held_out_probability: f32,
    pub(crate) held_out_label_probability: f32,
    pub(crate) model_label_probability: f32,
}

impl Finding {
    /// True if the word is the finding's kind or problem.
    pub(crate) fn has(&self, word: &str) -> bool {
        &*self.kind == word || self.problem.as_deref() == Some(word)
    }

    /// In place of a finding, for an image that is the best of its group.
    fn of_best(label: Text, predicted: Text) -> Self {
        let (problem, suggested, verdict, failure) = (None, None, None, None);
        Self {
            kind: BEST.into(),
            problem,
            label,
            suggested,
            predicted,
            verdict,
            failure,
            score: f32::NAN,
            probability: f32::NAN,
            held_out_probability: f32::NAN,
            held_out_label_probability: f32::NAN,
            model_label_probability: f32::NAN,
        }
    }
}

/// An image with its findings.
#[derive(Clone, Debug)]
pub struct ImageFindings {
    pub(crate) key: ImageKey,
    pub(crate) findings: Vec<Finding>,
    /// If the image is the best of its group of duplicates.
    pub(crate) best: Option<Finding>,
}

impl ImageFindings {
    /// Whether there is a finding of this kind or problem.
    pub(crate) fn has(&self, word: &str) -> bool {
        self.findings.iter().any(|finding| finding.has(word))
    }

    /// The image.
    #[must_use]
    pub fn key(&self) -> &ImageKey {
        &self.key
    }

    /// The kinds of what was found, each once: what a person's decision has in `because`. `duplicate` also
    /// for the best of a group.
    #[must_use]
    pub fn kinds(&self) -> Vec<String> {
        let of_group = self.best.as_ref().map(|_| "duplicate");
        let mut kinds: Vec<String> = Vec::new();
        for kind in self.findings.iter().map(|finding| &*finding.kind).chain(of_group) {
            if !kinds.iter().any(|known| known == kind) {
                kinds.push(kind.to_owned());
            }
        }
        kinds
    }

    /// The label that a finding suggests, the most urgent finding's if several do.
    #[must_use]
    pub fn suggested(&self) -> Option<&str> {
        self.findings.iter().find_map(|finding| finding.suggested.as_deref())
    }
}

/// All images with findings, and the best ones of groups, in the order of their keys.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    images: Vec<ImageFindings>,
}

impl Findings {
    /// Reads the findings of the report in OUT. `with_best_labels` reads also what label the best images
    /// of groups have: their table is larger.
    ///
    /// # Errors
    /// If there is no report, or it can't be read.
    pub async fn read(out: &Folder, with_best_labels: bool) -> Result<Self, FindingsError> {
        let findings = download(out, "findings.parquet").await?;
        let predictions = match with_best_labels {
            true => Some(download(out, "predictions.parquet").await?),
            false => None,
        };
        let place = out.location().to_string();
        let reading = move || Self::of_tables(findings, predictions, &place);
        tokio::task::spawn_blocking(reading).await.map_err(|_| FindingsError::Panicked)?
    }

    /// The images, in the order of their keys.
    #[must_use]
    pub fn images(&self) -> &[ImageFindings] {
        &self.images
    }

    fn of_tables(
        findings: File,
        predictions: Option<File>,
        out: &str,
    ) -> Result<Self, FindingsError> {
        let table = TableReader::open(findings)?;
        let lacks = TEXTS.iter().chain(&NUMBERS).find(|column| !table.has_column(column));
        if let Some(column) = lacks {
            return Err(FindingsError::OldReport { out: out.to_owned(), column });
        }
        let mut by_key: HashMap<String, Vec<Finding>> = HashMap::new();
        let mut best = HashSet::new();
        let mut texts = Texts::default();
        for group in 0..table.groups() {
            let [kind, problem, label, suggested, predicted, verdict, failure, key, best_keys] =
                read_texts(&table, group, &TEXTS, &mut texts)?;
            let mut numbers = Vec::new();
            for column in NUMBERS {
                numbers.push(table.floats(group, column)?);
            }
            for row in 0..key.len() {
                let (Some(key), Some(kind)) = (&key[row], &kind[row]) else { continue };
                let number = |column: usize| numbers[column][row];
                by_key.entry(key.to_string()).or_default().push(Finding {
                    kind: Arc::clone(kind),
                    problem: problem[row].clone(),
                    label: label[row].clone(),
                    suggested: suggested[row].clone(),
                    predicted: predicted[row].clone(),
                    verdict: verdict[row].clone(),
                    failure: failure[row].clone(),
                    score: number(0),
                    probability: number(1),
                    held_out_probability: number(2),
                    held_out_label_probability: number(3),
                    model_label_probability: number(4),
                });
                best.extend(best_keys[row].as_deref().map(str::to_owned));
            }
        }
        let labels = match predictions {
            Some(predictions) => labels_of(&TableReader::open(predictions)?, &best, &mut texts)?,
            None => HashMap::new(),
        };
        let without_findings: Vec<_> =
            best.iter().filter(|key| !by_key.contains_key(*key)).cloned().collect();
        let all = by_key.into_iter().chain(without_findings.into_iter().map(|key| (key, vec![])));
        let images = all.map(|(key, findings)| {
            let best = best.contains(&key).then(|| {
                let (label, predicted) = labels.get(&key).cloned().unwrap_or_default();
                Finding::of_best(label, predicted)
            });
            Ok(ImageFindings { key: ImageKey::parse(key)?, findings, best })
        });
        let mut images = images.collect::<Result<Vec<_>, ImageKeyError>>()?;
        images.sort_unstable_by(|a, b| a.key.as_str().cmp(b.key.as_str()));
        Ok(Self { images })
    }

    /// Findings of tests.
    #[cfg(test)]
    pub(crate) fn of(images: Vec<ImageFindings>) -> Self {
        Self { images }
    }
}

const TEXTS: [&str; 9] =
    ["kind", "problem", "label", "suggested", "predicted", "verdict", "failure", "key", "best"];
const NUMBERS: [&str; 5] = [
    "score",
    "probability",
    "held_out_probability",
    "held_out_label_probability",
    "model_label_probability",
];

/// Texts that many findings have, once each.
#[derive(Default)]
struct Texts(HashSet<Arc<str>>);

impl Texts {
    fn shared(&mut self, text: String) -> Arc<str> {
        if let Some(known) = self.0.get(text.as_str()) {
            return Arc::clone(known);
        }
        let text: Arc<str> = text.into();
        self.0.insert(Arc::clone(&text));
        text
    }
}

fn read_texts<const N: usize>(
    table: &TableReader,
    group: usize,
    columns: &[&str; N],
    texts: &mut Texts,
) -> Result<[Vec<Text>; N], TableError> {
    let mut all = [const { Vec::new() }; N];
    for (column, name) in all.iter_mut().zip(columns) {
        let cells = table.texts(group, name)?.into_iter();
        *column = cells.map(|cell| cell.map(|cell| texts.shared(cell))).collect();
    }
    Ok(all)
}

/// The labels and the predicted classes of these images.
fn labels_of(
    table: &TableReader,
    keys: &HashSet<String>,
    texts: &mut Texts,
) -> Result<HashMap<String, (Text, Text)>, TableError> {
    let mut labels = HashMap::new();
    for group in 0..table.groups() {
        let found = table.texts(group, "key")?;
        let [label, predicted] = read_texts(table, group, &["label", "predicted"], texts)?;
        for (row, key) in found.into_iter().enumerate() {
            if let Some(key) = key.filter(|key| keys.contains(key)) {
                labels.insert(key, (label[row].clone(), predicted[row].clone()));
            }
        }
    }
    Ok(labels)
}

/// The images of the run that have a label and a prediction, so that a finding could be about it.
///
/// # Errors
/// If there is no report, or OUT can't be read.
pub async fn read_judged_images(out: &Folder) -> Result<Vec<ImageKey>, FindingsError> {
    let predictions = download(out, "predictions.parquet").await?;
    let reading = move || {
        let table = TableReader::open(predictions)?;
        let mut keys = Vec::new();
        for group in 0..table.groups() {
            let [found, labels, predicted] =
                ["key", "label", "predicted"].map(|column| table.texts(group, column));
            for ((key, label), predicted) in found?.into_iter().zip(labels?).zip(predicted?) {
                if let (Some(key), Some(_), Some(_)) = (key, label, predicted) {
                    keys.push(ImageKey::parse(key)?);
                }
            }
        }
        Ok(keys)
    };
    tokio::task::spawn_blocking(reading).await.map_err(|_| FindingsError::Panicked)?
}

/// A table of the report, in a temporary file.
async fn download(out: &Folder, name: &str) -> Result<File, FindingsError> {
    let opened = match out.open_object(&format!("{REPORT}/{name}"), u64::MAX).await {
        Err(error) if error.kind() == StoreErrorKind::NotFound => {
            return Err(FindingsError::NoReport(out.location().to_string()));
        }
        opened => opened?,
    };
    Ok(opened.into_file().await?)
}
