//! Turns the results of a run into a report: a table of all images, a ranked list of findings, and
//! a page.
//!
//! Reads results and nothing else: no model and no queue. It opens images only to make thumbnails.
//! Upstream: the workers' results in OUT. Downstream: people, DuckDB, and scheduled jobs.
//!
//! Start with `report/mod.rs`, the wiring. The modules below it, from the bottom up:
//!
//! | module | what it holds |
//! |---|---|
//! | `table` | Parquet and CSV files of any rows: those of `camshaft-table` |
//! | `statistics`, `similarity`, `clustering` | the mathematics, on plain numbers |
//! | `learning` | heads that are fitted to features, on plain numbers, too |
//! | `run_images`, `left_out` | which results count, and what is left out |
//! | `stored_record` | which of `trust.json` and `shortcuts.json` is of the run |
//! | `shortcut_proofs` | proofs of shortcuts as such a record |
//! | `trust_measures` | measures of the maps as such a record |
//! | `predictions` | the row of an image, and what is read back for all images |
//! | `projection` | the map of the images |
//! | `overview` | the numbers of a run |
//! | `findings` | the searches, one file a search |
//! | `slices` | parts of the data set that are worse, and labels that a property gives away |
//! | `comparison` | this run against another one |
//! | `page` | `index.html` and its thumbnails |
//! | `summary`, `conditions` | the report in numbers, and conditions on them |

mod clustering;
mod comparison;
mod conditions;
mod error;
mod findings;
mod judgements;
mod learning;
mod left_out;
mod overview;
mod page;
mod predictions;
mod projection;
mod report;
mod run_images;
mod shortcut_proofs;
mod similarity;
mod slices;
mod statistics;
mod stored_record;
mod summary;
mod table;
mod trust_measures;

pub use comparison::{ClassChange, ComparedImage, DriftTest, InputDrift, RunComparison};
pub use conditions::{Condition, NUMBER_NAMES, ParseConditionError, UnknownNumber, UnknownReason};
pub use error::ReportError;
pub use findings::{ControlImage, LabelOptions, ShortcutSuspect, SuspectPatch, finding_words};
pub use judgements::{JudgedCheck, Judgements, LabelErrorsLeft};
pub use left_out::{LeftOut, LeftOutGroup, LeftOutReason, LeftOutResult};
pub use overview::{
    CalibrationBin, ClassOverview, ConfidenceBin, Confusion, FailureExample, FailureOverview,
    HoldoutAccuracy, LabelAudit, MeanMap, MeasuredShare, ModelAgainstHeads, Overview, Throughput,
    UnknownLabel, UnknownLabels, WorkerImages,
};
pub use page::thumbnails::ThumbnailMaker;
pub use predictions::read_results::ReadProgress;
pub use report::{ReportOptions, build, find_suspects};
pub use summary::{SliceCounts, Summary};
pub use table::TableError;
