//! A run in numbers, added up row by row.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use camshaft_common::prediction::StageTimings;
use serde::Serialize;

use crate::row::ImageRow;

/// Bins of the calibration curve, as in Guo et al. 2017 (<https://arxiv.org/abs/1706.04599>).
const CALIBRATION_BINS: usize = 15;
/// Bins of the histogram of confidence.
const CONFIDENCE_BINS: usize = 20;
/// Classes the confusion matrix shows.
const SHOWN_CLASSES: usize = 24;
/// Classes listed by themselves.
const LISTED_CLASSES: usize = 1000;
/// Failures shown of each kind.
const SHOWN_FAILURES: usize = 20;
/// A longer time without a result is a pause, not slowness.
const PAUSE_SECONDS: i64 = 60;

/// Counts and shares of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Overview {
    /// Images with a result.
    pub images: u64,
    /// Images with a prediction.
    pub predicted: u64,
    /// Images with a failure.
    pub failed: u64,
    /// Images in SOURCE, where they have been listed to the end.
    pub expected: Option<u64>,
    /// Predicted images with a given label.
    pub labelled: u64,
    /// Share of the labelled whose most probable class is the label.
    pub accuracy: Option<f64>,
    /// Wilson's 95 % interval of the accuracy.
    pub accuracy_low: Option<f64>,
    /// Its upper end.
    pub accuracy_high: Option<f64>,
    /// Expected calibration error over 15 bins.
    pub ece: Option<f64>,
    /// Wrong labels, as confident learning estimates their number.
    pub estimated_label_errors: Option<u64>,
    /// The calibration curve.
    pub calibration: Vec<CalibrationBin>,
    /// How sure the model is.
    pub confidence: Vec<ConfidenceBin>,
    /// Given labels against predicted classes.
    pub confusion: Option<Confusion>,
    /// Each class, the most frequent first.
    pub classes: Vec<ClassOverview>,
    /// Failures by kind.
    pub failures: Vec<FailureOverview>,
    /// How fast it went.
    pub throughput: Option<Throughput>,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

/// One bin of the calibration curve.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CalibrationBin {
    /// Lower end of the confidence.
    pub from: f64,
    /// Upper end.
    pub to: f64,
    /// Labelled images.
    pub count: u64,
    /// Their mean confidence.
    pub confidence: Option<f64>,
    /// Their accuracy.
    pub accuracy: Option<f64>,
}

/// One bin of the histogram of confidence.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConfidenceBin {
    /// Lower end.
    pub from: f64,
    /// Upper end.
    pub to: f64,
    /// Images predicted as labelled.
    pub right: u64,
    /// Images predicted otherwise.
    pub wrong: u64,
    /// Images with no label.
    pub unlabelled: u64,
}

/// Given labels (rows) against predicted classes (columns), of the most frequent ones.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Confusion {
    /// Names, for rows and columns.
    pub classes: Vec<String>,
    /// Images.
    pub counts: Vec<Vec<u64>>,
    /// Images of other classes.
    pub left_out: u64,
}

/// A class of the run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassOverview {
    /// Its name.
    pub label: String,
    /// Images that are given it.
    pub images: u64,
    /// Images predicted as it.
    pub predicted: u64,
    /// Share of the images given it that are predicted as it.
    pub recall: Option<f64>,
    /// Share of the labelled images predicted as it that are given it.
    pub precision: Option<f64>,
    /// Mean probability of the images predicted as it.
    pub mean_probability: Option<f64>,
    /// Mean of the maps that explain it, each divided by its sum, scaled to a largest value of 1.
    pub map: Option<MeanMap>,
}

/// A map averaged over images.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MeanMap {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Row by row, 0 to 1.
    pub values: Vec<f64>,
}

/// Failures of one kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FailureOverview {
    /// The kind.
    pub class: String,
    /// Images.
    pub count: u64,
    /// Some of them.
    pub examples: Vec<FailureExample>,
}

/// An image that failed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FailureExample {
    /// Its key.
    pub key: String,
    /// Why.
    pub message: String,
}

/// How fast a run went.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Throughput {
    /// Predictions a second, pauses aside.
    pub images_per_second: f64,
    /// From the first result to the last, pauses of over a minute aside.
    pub seconds: i64,
    /// Who did it.
    pub workers: Vec<WorkerShare>,
    /// Mean milliseconds of work for an image.
    pub timings_ms: StageTimings,
}

/// A worker's part.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkerShare {
    /// Its name.
    pub name: String,
    /// Images it predicted.
    pub images: u64,
}

/// Adds rows up to an [`Overview`].
#[derive(Debug, Default)]
pub(crate) struct Tally {
    predicted: u64,
    failed: u64,
    labelled: u64,
    correct: u64,
    /// Count, right ones, sum of confidence.
    calibration: [(u64, u64, f64); CALIBRATION_BINS],
    confidence: [[u64; 3]; CONFIDENCE_BINS],
    classes: HashMap<String, ClassTally>,
    confusion: HashMap<String, HashMap<String, u64>>,
    failures: BTreeMap<String, (u64, Vec<FailureExample>)>,
    workers: BTreeMap<String, u64>,
    /// Seconds in which a result was finished.
    seconds: BTreeSet<i64>,
    timings: StageTimings,
}

#[derive(Debug, Default)]
struct ClassTally {
    images: u64,
    predicted: u64,
    labelled_predicted: u64,
    right: u64,
    probability: f64,
    map: Option<(usize, usize, Vec<f64>)>,
}

impl Tally {
    /// Adds one image.
    pub(crate) fn add(&mut self, row: &ImageRow) {
        if let Some(failure) = &row.failure {
            self.failed += 1;
            let (count, examples) = self.failures.entry(failure.class.clone()).or_default();
            *count += 1;
            if examples.len() < SHOWN_FAILURES {
                let (key, message) = (row.key.clone(), failure.message.clone());
                examples.push(FailureExample { key, message });
            }
        }
        let (Some(class), Some(probability)) = (row.class(), row.probability()) else { return };
        self.predicted += 1;
        *self.workers.entry(row.worker.clone()).or_default() += 1;
        self.seconds.insert(row.finished_at.timestamp());
        self.add_timings(row);
        let probability = f64::from(probability);
        let correct = row.correct();
        let column = match correct {
            Some(true) => 0,
            Some(false) => 1,
            None => 2,
        };
        self.confidence[bin(probability, CONFIDENCE_BINS)][column] += 1;
        let of_class = self.classes.entry(class.to_owned()).or_default();
        of_class.predicted += 1;
        of_class.probability += probability;
        if let (Some(label), Some(correct)) = (row.label.as_deref(), correct) {
            of_class.labelled_predicted += 1;
            of_class.right += u64::from(correct);
            self.classes.entry(label.to_owned()).or_default().images += 1;
            self.labelled += 1;
            self.correct += u64::from(correct);
            let (count, right, sum) = &mut self.calibration[bin(probability, CALIBRATION_BINS)];
            (*count, *right) = (*count + 1, *right + u64::from(correct));
            *sum += probability;
            let given = self.confusion.entry(label.to_owned()).or_default();
            *given.entry(class.to_owned()).or_default() += 1;
        }
        self.add_map(row);
    }

    fn add_timings(&mut self, row: &ImageRow) {
        let Some(predicted) = &row.predicted else { return };
        let (sum, one) = (&mut self.timings, &predicted.timings);
        sum.fetch += one.fetch;
        sum.decode += one.decode;
        sum.model += one.model;
        sum.overlay += one.overlay;
        sum.store += one.store;
    }

    fn add_map(&mut self, row: &ImageRow) {
        let Some(explanation) = row.explanation().filter(|map| map.mass > 0.0) else { return };
        let map = &explanation.map;
        let of_class = self.classes.entry(explanation.label.clone()).or_default();
        let (height, width, sums) = of_class
            .map
            .get_or_insert_with(|| (map.height, map.width, vec![0.0; map.values.len()]));
        if (*height, *width) == (map.height, map.width) {
            for (sum, value) in sums.iter_mut().zip(&map.values) {
                *sum += f64::from(*value / explanation.mass);
            }
        }
    }

    /// What it adds up to.
    pub(crate) fn overview(self, expected: Option<u64>) -> Overview {
        let accuracy = share(self.correct, self.labelled);
        let interval = accuracy.map(|accuracy| wilson(accuracy, self.labelled));
        Overview {
            images: self.predicted + self.failed,
            predicted: self.predicted,
            failed: self.failed,
            expected,
            labelled: self.labelled,
            accuracy,
            accuracy_low: interval.map(|(low, _)| low),
            accuracy_high: interval.map(|(_, high)| high),
            ece: self.ece(),
            estimated_label_errors: None,
            calibration: self.calibration_bins(),
            confidence: self.confidence_bins(),
            confusion: self.confusion(),
            failures: self.failures(),
            throughput: self.throughput(),
            notes: Vec::new(),
            classes: self.into_classes(),
        }
    }

    /// The mean gap between confidence and accuracy, weighted by the bins' counts.
    fn ece(&self) -> Option<f64> {
        let gaps = self.calibration.iter().map(|&(_, right, sum)| (sum - right as f64).abs());
        (self.labelled > 0).then(|| gaps.sum::<f64>() / self.labelled as f64)
    }

    fn calibration_bins(&self) -> Vec<CalibrationBin> {
        let bins = self.calibration.iter().enumerate().map(|(index, &(count, right, sum))| {
            let (from, to) = ends(index, CALIBRATION_BINS);
            let confidence = (count > 0).then(|| sum / count as f64);
            CalibrationBin { from, to, count, confidence, accuracy: share(right, count) }
        });
        bins.collect()
    }

    fn confidence_bins(&self) -> Vec<ConfidenceBin> {
        let bins =
            self.confidence.iter().enumerate().map(|(index, &[right, wrong, unlabelled])| {
                let (from, to) = ends(index, CONFIDENCE_BINS);
                ConfidenceBin { from, to, right, wrong, unlabelled }
            });
        bins.collect()
    }

    fn confusion(&self) -> Option<Confusion> {
        let count = |given: &str, predicted: &str| {
            self.confusion.get(given).and_then(|row| row.get(predicted)).copied().unwrap_or(0)
        };
        let mut classes: Vec<_> = self.classes.iter().collect();
        classes.sort_by_key(|(label, tally)| {
            (std::cmp::Reverse(tally.images + tally.predicted), (*label).clone())
        });
        let mut classes: Vec<String> =
            classes.into_iter().take(SHOWN_CLASSES).map(|(label, _)| label.clone()).collect();
        classes.sort();
        let row = |given: &String| classes.iter().map(|class| count(given, class)).collect();
        let counts: Vec<Vec<u64>> = classes.iter().map(row).collect();
        let shown: u64 = counts.iter().flatten().sum();
        let left_out = self.labelled - shown;
        (self.labelled > 0).then_some(Confusion { classes, counts, left_out })
    }

    fn failures(&self) -> Vec<FailureOverview> {
        let failures = self.failures.iter().map(|(class, (count, examples))| FailureOverview {
            class: class.clone(),
            count: *count,
            examples: examples.clone(),
        });
        failures.collect()
    }

    fn throughput(&self) -> Option<Throughput> {
        let seconds: Vec<_> = self.seconds.iter().collect();
        let gaps = seconds.windows(2).map(|pair| (pair[1] - pair[0]).min(PAUSE_SECONDS));
        // A result finished at the very start is not known; the first second counts whole.
        let active = 1 + gaps.sum::<i64>();
        let workers = self.workers.iter();
        let workers = workers.map(|(name, &images)| WorkerShare { name: name.clone(), images });
        let mean = |sum: f64| (sum / self.predicted as f64 * 1000.0).round() / 1000.0;
        let StageTimings { fetch, decode, model, overlay, store } = self.timings;
        (self.predicted > 0).then(|| Throughput {
            images_per_second: self.predicted as f64 / active as f64,
            seconds: active,
            workers: workers.collect(),
            timings_ms: StageTimings {
                fetch: mean(fetch),
                decode: mean(decode),
                model: mean(model),
                overlay: mean(overlay),
                store: mean(store),
            },
        })
    }

    fn into_classes(self) -> Vec<ClassOverview> {
        let mut classes: Vec<_> = self
            .classes
            .into_iter()
            .map(|(label, tally)| ClassOverview {
                recall: share(
                    self.confusion
                        .get(&label)
                        .and_then(|row| row.get(&label))
                        .copied()
                        .unwrap_or(0),
                    tally.images,
                ),
                precision: share(tally.right, tally.labelled_predicted),
                mean_probability: (tally.predicted > 0)
                    .then(|| tally.probability / tally.predicted as f64),
                images: tally.images,
                predicted: tally.predicted,
                map: tally.map.map(|(height, width, sums)| mean_map(height, width, &sums)),
                label,
            })
            .collect();
        classes.sort_by(|a, b| {
            (b.images + b.predicted).cmp(&(a.images + a.predicted)).then(a.label.cmp(&b.label))
        });
        classes.truncate(LISTED_CLASSES);
        classes
    }
}

/// Scaled to a largest value of 1.
pub(crate) fn mean_map(height: usize, width: usize, sums: &[f64]) -> MeanMap {
    let max = sums.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let rounded = |value: &f64| (value / max * 1000.0).round() / 1000.0;
    MeanMap { height, width, values: sums.iter().map(rounded).collect() }
}

pub(crate) fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Wilson's score interval at 95 % (Wilson 1927), which never leaves 0 to 1.
pub(crate) fn wilson(share: f64, count: u64) -> (f64, f64) {
    const Z: f64 = 1.959_963_984_540_054;
    let n = count as f64;
    let middle = (share + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let half = Z / (1.0 + Z * Z / n) * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    ((middle - half).max(0.0), (middle + half).min(1.0))
}

/// The bin of a probability; 1 belongs to the last.
fn bin(probability: f64, bins: usize) -> usize {
    ((probability * bins as f64) as usize).min(bins - 1)
}

fn ends(index: usize, bins: usize) -> (f64, f64) {
    (index as f64 / bins as f64, (index + 1) as f64 / bins as f64)
}
