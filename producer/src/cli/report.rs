//! The arguments of `camshaft report`, its conditions, which `camshaft audit` has too, and the config made
//! of them.

use camshaft_common::location::Location;
use camshaft_report::{Condition, ReportOptions};
use clap::Args;
use clap::builder::BoolishValueParser;

use super::UsageError;
use super::label_audit::LabelAuditArgs;
use crate::report::ReportConfig;

/// `camshaft report`.
#[derive(Args, Debug)]
pub(crate) struct ReportArgs {
    /// Where the results are, and the report goes: a folder or URL
    #[arg(value_name = "OUT")]
    pub(crate) out: Location,
    /// Another run, of another model or another version of the data, to compare this one with
    #[arg(long, env = "CAMSHAFT_AGAINST", value_name = "OUT")]
    pub(crate) against: Option<Location>,
    /// Write predictions.csv as well
    #[arg(long, env = "CAMSHAFT_CSV", value_parser = BoolishValueParser::new())]
    pub(crate) csv: bool,
    /// Put embeddings into predictions.parquet, if the audit recorded them
    #[arg(long, env = "CAMSHAFT_EMBEDDINGS", value_parser = BoolishValueParser::new())]
    pub(crate) embeddings: bool,
    /// Make thumbnails for the N most urgent findings. camshaft serve makes the others when they are
    /// looked at
    #[arg(long, env = "CAMSHAFT_THUMBNAILS", value_name = "N", default_value = "10000")]
    pub(crate) thumbnails: usize,
    /// Print the overview as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Conditions on the report.
    #[command(flatten)]
    pub(crate) fail_on: FailOnArgs,
    /// How labels are judged.
    #[command(flatten)]
    pub(crate) label_audit: LabelAuditArgs,
}

/// Conditions on the report.
#[derive(Args, Clone, Debug)]
pub(crate) struct FailOnArgs {
    /// Exit with status 4 if one of these conditions on the report holds, such as label-errors>10 or accuracy<0.9.
    /// Names: images, predicted, failed, failure-rate, accuracy, ece, findings, label-errors,
    /// estimated-label-errors, duplicates, duplicate-groups, leaks, conflicts, image-problems,
    /// outliers, attention, shortcuts, wrong, slices, nuisances, unreadable, outdated,
    /// unknown-labels, and with --against changed, fixed, broken, drift
    #[arg(long, env = "CAMSHAFT_FAIL_ON", value_name = "CONDITION,…", value_delimiter = ',')]
    pub(crate) fail_on: Vec<Condition>,
}

impl ReportArgs {
    pub(crate) fn resolve(self) -> Result<ReportConfig, UsageError> {
        let Self { out, against, csv, embeddings, thumbnails, json, fail_on, label_audit } = self;
        let labels = label_audit.resolve();
        fail_on.check(against.is_some(), "give the other one with --against")?;
        if against.as_ref() == Some(&out) {
            return Err(UsageError::AgainstItself(out));
        }
        let compare_with = against;
        let options = ReportOptions { csv, embeddings, thumbnails, compare_with, labels };
        Ok(ReportConfig { out, options, json, fail_on: fail_on.fail_on })
    }
}

impl FailOnArgs {
    /// Refuses conditions that can't be judged, before anything is done.
    pub(super) fn check(&self, compares: bool, advice: &'static str) -> Result<(), UsageError> {
        let of_comparison = self.fail_on.iter().find(|condition| condition.is_of_comparison());
        match of_comparison.filter(|_| !compares) {
            Some(condition) => {
                let condition = condition.to_string();
                Err(UsageError::NothingToCompare { condition, advice })
            }
            None => Ok(()),
        }
    }
}
