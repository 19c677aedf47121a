//! Turns what a run has left in OUT into an answer: a table of every image, a ranked list of
//! findings, and a page.
//!
//! Reads results and nothing else: no model, no queue, and of images only thumbnails for the page.
//! Upstream: the workers' results in OUT. Downstream: people, DuckDB, and scheduled jobs.

mod comparison;
mod conditions;
mod csv_file;
mod disjoint_sets;
mod error;
mod findings;
mod gather;
mod hamming;
mod k_means;
mod laplacian;
mod nearest;
mod overview;
mod page;
mod rank_test;
mod report;
mod robust;
mod row;
mod sketches;
mod spectral;
mod summary;
mod table;
mod thumbnails;

pub use comparison::{Comparison, Flow, Moved};
pub use conditions::{Condition, MEASURES, NotKnown, ParseConditionError};
pub use error::ReportError;
pub use gather::Progress;
pub use overview::{
    CalibrationBin, ClassOverview, ConfidenceBin, Confusion, FailureExample, FailureOverview,
    MeanMap, Overview, Throughput, WorkerShare,
};
pub use report::{ReportOptions, build};
pub use summary::Summary;
pub use table::TableError;
