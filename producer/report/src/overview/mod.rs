//! A run in numbers: accuracy, calibration, classes, failures, speed.
//!
//! Owns what is counted of the rows of a run; findings and comparison have numbers of their own.

mod confusion_examples;
mod label_audit;
mod run_overview;
mod totals;

pub(crate) use confusion_examples::{ConfusedCell, read_confused};
pub use label_audit::{HoldoutAccuracy, LabelAudit, MeasuredShare, ModelAgainstHeads};
pub use run_overview::{
    CalibrationBin, ClassOverview, ConfidenceBin, Confusion, FailureExample, FailureOverview,
    MeanMap, Overview, Throughput, UnknownLabel, UnknownLabels, WorkerImages,
};
pub(crate) use totals::OverviewTotals;
