//! The numbers of a run, as the page and the program show them. Describes them only; `totals`
//! counts.

use camshaft_common::label::LabelProblem;
use camshaft_common::prediction::StageTimings;
use serde::Serialize;

use super::label_audit::LabelAudit;
use crate::judgements::Judgements;

/// Counts and shares of a run. Its fields are those of the page's data and of the JSON
/// summary.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Overview {
    /// Images with a result.
    pub images: u64,
    /// Images with a prediction.
    pub predicted: u64,
    /// Images with a failure.
    pub failed: u64,
    /// Images in SOURCE; none if it has not been listed to the end.
    pub expected: Option<u64>,
    /// Predicted images with a label that means one of the model's classes.
    pub labelled: u64,
    /// Predicted images with another label. No number about labels counts them.
    pub unknown_labels: UnknownLabels,
    /// Share of the labelled images whose most probable class is the label's.
    pub accuracy: Option<f64>,
    /// Lower end of Wilson's 95 % interval of the accuracy.
    pub accuracy_low: Option<f64>,
    /// Upper end of Wilson's 95 % interval of the accuracy.
    pub accuracy_high: Option<f64>,
    /// Expected calibration error over 15 bins.
    pub ece: Option<f64>,
    /// The number of wrong labels, as confident learning estimates it.
    pub estimated_label_errors: Option<u64>,
    /// Lower end of the bootstrap's 95 % interval of that number.
    pub estimated_label_errors_low: Option<u64>,
    /// Upper end of the interval.
    pub estimated_label_errors_high: Option<u64>,
    /// How labels were judged; none if by the model alone.
    pub label_audit: Option<LabelAudit>,
    /// What people's decisions say of the findings; none if they say nothing yet.
    pub judgements: Option<Judgements>,
    /// Which decisions or samples could not be read, and why.
    pub decision_problems: Vec<String>,
    /// The calibration curve.
    pub calibration: Vec<CalibrationBin>,
    /// The histogram of confidence.
    pub confidence: Vec<ConfidenceBin>,
    /// Given labels against predicted classes.
    pub confusion: Option<Confusion>,
    /// The classes, the most frequent first.
    pub classes: Vec<ClassOverview>,
    /// Failures by kind.
    pub failures: Vec<FailureOverview>,
    /// How fast the run went.
    pub throughput: Option<Throughput>,
    /// What the report leaves out, and why.
    pub notes: Vec<String>,
}

/// Labels that mean none of the model's classes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct UnknownLabels {
    /// Predicted images with such a label.
    pub images: u64,
    /// The number of different labels.
    pub labels: u64,
    /// The most frequent ones.
    pub listed: Vec<UnknownLabel>,
}

/// A label that means none of the model's classes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UnknownLabel {
    /// The label.
    pub label: String,
    /// Predicted images with this label.
    pub images: u64,
    /// Why it means no class.
    pub problem: LabelProblem,
}

/// One bin of the calibration curve.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CalibrationBin {
    /// Lower end of the confidence.
    pub from: f64,
    /// Upper end.
    pub to: f64,
    /// Labelled images in the bin.
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
    /// Images whose prediction is their label.
    pub right: u64,
    /// Images whose prediction is not their label.
    pub wrong: u64,
    /// Images without a label.
    pub unlabelled: u64,
}

/// Given labels (rows) against predicted classes (columns), for the most frequent classes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Confusion {
    /// The classes, both of rows and of columns.
    pub classes: Vec<String>,
    /// By row and column, the number of images.
    pub counts: Vec<Vec<u64>>,
    /// Images of classes that the matrix does not show.
    pub left_out: u64,
}

/// A class of the run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassOverview {
    /// Its name.
    pub label: String,
    /// Images with this label.
    pub images: u64,
    /// Images predicted as this class.
    pub predicted: u64,
    /// Share of the images with this label that are predicted as this class.
    pub recall: Option<f64>,
    /// Share of the labelled images predicted as this class that have this label.
    pub precision: Option<f64>,
    /// Mean probability of the images predicted as this class.
    pub mean_probability: Option<f64>,
    /// Mean of the maps that explain this class, each divided by its sum.
    pub map: Option<MeanMap>,
}

/// A map averaged over images, scaled to a largest value of 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MeanMap {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Row by row, 0 to 1.
    pub values: Vec<f64>,
}

impl MeanMap {
    /// The mean of maps, by the sums of their values, row by row.
    pub(crate) fn from_sums(height: usize, width: usize, sums: &[f64]) -> Self {
        let max = sums.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let rounded = |value: &f64| (value / max * 1000.0).round() / 1000.0;
        Self { height, width, values: sums.iter().map(rounded).collect() }
    }
}

/// Failures of one kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FailureOverview {
    /// The kind of failure, such as `undecodable`.
    pub class: String,
    /// Images that failed in this way.
    pub count: u64,
    /// Some of them.
    pub examples: Vec<FailureExample>,
}

/// An image that failed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FailureExample {
    /// Its key.
    pub key: String,
    /// Why it failed.
    pub message: String,
}

/// How fast a run went.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Throughput {
    /// Predictions a second, without pauses.
    pub images_per_second: f64,
    /// The time from the first result to the last. A pause counts as a minute at most.
    pub seconds: i64,
    /// How many images each worker predicted.
    pub workers: Vec<WorkerImages>,
    /// Mean milliseconds of work for an image, by stage.
    pub timings_ms: StageTimings,
}

/// The images of a worker.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkerImages {
    /// Its name.
    pub name: String,
    /// Images it predicted.
    pub images: u64,
}
