//! Adds up the numbers of a run, row by row.
//!
//! Owns the counting and the limits on what is listed, not what an [`Overview`] holds. Upstream:
//! the rows on their way to the table.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use camshaft_common::label::LabelProblem;
use camshaft_common::prediction::StageTimings;

use super::run_overview::{
    CalibrationBin, ClassOverview, ConfidenceBin, Confusion, FailureExample, FailureOverview,
    MeanMap, Overview, Throughput, UnknownLabel, UnknownLabels, WorkerImages,
};
use crate::predictions::ImageRow;
use crate::statistics::proportion::{share, wilson_interval};

/// Bins of the calibration curve, as in Guo et al. 2017 (<https://arxiv.org/abs/1706.04599>).
const CALIBRATION_BINS: usize = 15;
/// Bins of the histogram of confidence.
const CONFIDENCE_BINS: usize = 20;
/// Classes that the confusion matrix shows.
const SHOWN_CLASSES: usize = 24;
/// Classes that are listed.
const LISTED_CLASSES: usize = 1000;
/// Labels that mean no class that are listed.
const LISTED_UNKNOWN_LABELS: usize = 20;
/// Failures of each kind that are shown.
const SHOWN_FAILURES: usize = 20;
/// The longest time between two results that counts as work; the rest of a longer one is a pause.
const MAX_GAP_SECONDS: i64 = 60;

/// The counts and sums of the rows so far. They make an [`Overview`].
#[derive(Debug, Default)]
pub(crate) struct OverviewTotals {
    predicted: u64,
    failed: u64,
    labelled: u64,
    correct: u64,
    calibration: [CalibrationTotals; CALIBRATION_BINS],
    confidence: [ConfidenceTotals; CONFIDENCE_BINS],
    classes: HashMap<String, ClassTotals>,
    /// By label that means no class.
    unknown_labels: HashMap<String, UnknownLabelTotals>,
    /// By the label's class and predicted class.
    confusion: HashMap<String, HashMap<String, u64>>,
    /// By kind of failure.
    failures: BTreeMap<String, FailureTotals>,
    /// By worker, the images it predicted.
    workers: BTreeMap<String, u64>,
    /// The seconds in which a result was finished.
    seconds: BTreeSet<i64>,
    /// Sums over the predicted images.
    timings: StageTimings,
}

/// Labelled images whose probability falls into one bin.
#[derive(Clone, Copy, Debug, Default)]
struct CalibrationTotals {
    images: u64,
    right: u64,
    /// Sum of the images' probabilities.
    probability: f64,
}

/// Predicted images whose probability falls into one bin.
#[derive(Clone, Copy, Debug, Default)]
struct ConfidenceTotals {
    right: u64,
    wrong: u64,
    unlabelled: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct UnknownLabelTotals {
    images: u64,
    is_ambiguous: bool,
}

#[derive(Debug, Default)]
struct ClassTotals {
    /// Images with this label.
    images: u64,
    /// Images predicted as this class.
    predicted: u64,
    /// Labelled images predicted as this class.
    labelled_predicted: u64,
    /// Images predicted as this class that have this label.
    right: u64,
    /// Sum of the probabilities of the images predicted as this class.
    probability: f64,
    map: Option<MapTotals>,
}

/// The maps that explain a class, added up cell by cell.
#[derive(Debug)]
struct MapTotals {
    height: usize,
    width: usize,
    sums: Vec<f64>,
}

#[derive(Debug, Default)]
struct FailureTotals {
    images: u64,
    examples: Vec<FailureExample>,
}

impl OverviewTotals {
    /// Adds one image.
    pub(crate) fn add(&mut self, row: &ImageRow) {
        if let Some(failure) = &row.failure {
            self.failed += 1;
            let failures = self.failures.entry(failure.class.clone()).or_default();
            failures.images += 1;
            if failures.examples.len() < SHOWN_FAILURES {
                let (key, message) = (row.key.clone(), failure.message.clone());
                failures.examples.push(FailureExample { key, message });
            }
        }
        let (Some(class), Some(probability)) = (row.class(), row.probability()) else { return };
        self.predicted += 1;
        *self.workers.entry(row.worker.clone()).or_default() += 1;
        self.seconds.insert(row.finished_at.timestamp());
        self.add_timings(row);
        let probability = f64::from(probability);
        let correct = row.correct();
        let confidence = &mut self.confidence[bin(probability, CONFIDENCE_BINS)];
        match correct {
            Some(true) => confidence.right += 1,
            Some(false) => confidence.wrong += 1,
            None => confidence.unlabelled += 1,
        }
        let of_class = self.classes.entry(class.to_owned()).or_default();
        of_class.predicted += 1;
        of_class.probability += probability;
        if let (Some(label), None) = (&row.label, correct) {
            let unknown = self.unknown_labels.entry(label.clone()).or_default();
            unknown.images += 1;
            unknown.is_ambiguous |= row.is_ambiguous;
        }
        if let (Some(label), Some(correct)) = (row.label_class(), correct) {
            of_class.labelled_predicted += 1;
            of_class.right += u64::from(correct);
            self.classes.entry(label.to_owned()).or_default().images += 1;
            self.labelled += 1;
            self.correct += u64::from(correct);
            let calibration = &mut self.calibration[bin(probability, CALIBRATION_BINS)];
            calibration.images += 1;
            calibration.right += u64::from(correct);
            calibration.probability += probability;
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
        let totals = of_class.map.get_or_insert_with(|| MapTotals {
            height: map.height,
            width: map.width,
            sums: vec![0.0; map.values.len()],
        });
        if (totals.height, totals.width) == (map.height, map.width) {
            for (sum, value) in totals.sums.iter_mut().zip(&map.values) {
                *sum += f64::from(*value / explanation.mass);
            }
        }
    }

    /// The overview of the rows so far. `expected` is the number of images in SOURCE, if it is
    /// known.
    pub(crate) fn into_overview(self, expected: Option<u64>) -> Overview {
        let accuracy = share(self.correct, self.labelled);
        let interval = accuracy.map(|accuracy| wilson_interval(accuracy, self.labelled));
        Overview {
            images: self.predicted + self.failed,
            predicted: self.predicted,
            failed: self.failed,
            expected,
            labelled: self.labelled,
            unknown_labels: self.unknown_labels(),
            accuracy,
            accuracy_low: interval.map(|(low, _)| low),
            accuracy_high: interval.map(|(_, high)| high),
            ece: self.ece(),
            estimated_label_errors: None,
            estimated_label_errors_low: None,
            estimated_label_errors_high: None,
            label_audit: None,
            judgements: None,
            decision_problems: Vec::new(),
            calibration: self.calibration_bins(),
            confidence: self.confidence_bins(),
            confusion: self.confusion(),
            failures: self.failures(),
            throughput: self.throughput(),
            notes: Vec::new(),
            classes: self.into_classes(),
        }
    }

    fn unknown_labels(&self) -> UnknownLabels {
        let listed = self.unknown_labels.iter().map(|(label, totals)| UnknownLabel {
            label: label.clone(),
            images: totals.images,
            problem: match totals.is_ambiguous {
                true => LabelProblem::Ambiguous,
                false => LabelProblem::Unknown,
            },
        });
        let mut listed: Vec<_> = listed.collect();
        let (images, labels) = (listed.iter().map(|label| label.images).sum(), listed.len());
        listed.sort_by(|a, b| b.images.cmp(&a.images).then_with(|| a.label.cmp(&b.label)));
        listed.truncate(LISTED_UNKNOWN_LABELS);
        UnknownLabels { images, labels: labels as u64, listed }
    }

    /// The expected calibration error: the mean gap between confidence and accuracy, weighted by
    /// the bins' counts.
    fn ece(&self) -> Option<f64> {
        let gaps = self.calibration.iter().map(|bin| (bin.probability - bin.right as f64).abs());
        (self.labelled > 0).then(|| gaps.sum::<f64>() / self.labelled as f64)
    }

    fn calibration_bins(&self) -> Vec<CalibrationBin> {
        let bins = self.calibration.iter().enumerate().map(|(index, totals)| {
            let &CalibrationTotals { images: count, right, probability } = totals;
            let (from, to) = bin_ends(index, CALIBRATION_BINS);
            let confidence = (count > 0).then(|| probability / count as f64);
            CalibrationBin { from, to, count, confidence, accuracy: share(right, count) }
        });
        bins.collect()
    }

    fn confidence_bins(&self) -> Vec<ConfidenceBin> {
        let bins = self.confidence.iter().enumerate().map(|(index, totals)| {
            let &ConfidenceTotals { right, wrong, unlabelled } = totals;
            let (from, to) = bin_ends(index, CONFIDENCE_BINS);
            ConfidenceBin { from, to, right, wrong, unlabelled }
        });
        bins.collect()
    }

    fn confusion(&self) -> Option<Confusion> {
        let count = |given: &str, predicted: &str| {
            self.confusion.get(given).and_then(|row| row.get(predicted)).copied().unwrap_or(0)
        };
        let mut classes: Vec<_> = self.classes.iter().collect();
        classes.sort_by_key(|(label, totals)| {
            (std::cmp::Reverse(totals.images + totals.predicted), (*label).clone())
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
        let failures = self.failures.iter().map(|(class, totals)| FailureOverview {
            class: class.clone(),
            count: totals.images,
            examples: totals.examples.clone(),
        });
        failures.collect()
    }

    fn throughput(&self) -> Option<Throughput> {
        let seconds: Vec<_> = self.seconds.iter().collect();
        let gaps = seconds.windows(2).map(|pair| (pair[1] - pair[0]).min(MAX_GAP_SECONDS));
        // When the first result was begun is not known; its second counts in full.
        let active = 1 + gaps.sum::<i64>();
        let workers = self.workers.iter();
        let workers = workers.map(|(name, &images)| WorkerImages { name: name.clone(), images });
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
            .map(|(label, totals)| ClassOverview {
                recall: share(
                    self.confusion
                        .get(&label)
                        .and_then(|row| row.get(&label))
                        .copied()
                        .unwrap_or(0),
                    totals.images,
                ),
                precision: share(totals.right, totals.labelled_predicted),
                mean_probability: (totals.predicted > 0)
                    .then(|| totals.probability / totals.predicted as f64),
                images: totals.images,
                predicted: totals.predicted,
                map: totals.map.map(|map| MeanMap::from_sums(map.height, map.width, &map.sums)),
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

/// The bin of a probability; 1 belongs to the last bin.
fn bin(probability: f64, bins: usize) -> usize {
    ((probability * bins as f64) as usize).min(bins - 1)
}

/// The lower and upper end of a bin.
fn bin_ends(index: usize, bins: usize) -> (f64, f64) {
    (index as f64 / bins as f64, (index + 1) as f64 / bins as f64)
}
