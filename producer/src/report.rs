//! `camshaft report`: builds the report of a run, prints its numbers, and judges its conditions.
//!
//! Owns what is printed, and the messages that name options. The report crate builds the report.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use camshaft_common::location::Location;
use camshaft_common::store::StoreOptions;
use camshaft_report::{
    Condition, ReadProgress, ReportError, ReportOptions, Summary, UnknownNumber, UnknownReason,
};

use crate::cli::ReportArgs;
use crate::output::{count, say};
use crate::progress::Progress;

/// A condition of `--fail-on` holds.
#[derive(Debug, thiserror::Error)]
#[error("the report is done, and --fail-on stops here: {0}")]
pub(crate) struct GateClosed(String);

/// Why there is no report, or why its conditions can't be judged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReportFailure {
    /// The run recorded no embeddings, and the report was to hold them.
    #[error(
        "{}; run the audit with --embeddings (and --out elsewhere), or leave --embeddings out here",
        ReportError::NoEmbeddings
    )]
    NoEmbeddings,
    /// The report can't be built.
    #[error(transparent)]
    Report(ReportError),
    /// A condition is about a number that the report lacks.
    #[error("--fail-on {}: {} is not known, since {}", .0.condition, .0.number, reason(.0.reason))]
    UnknownNumber(#[from] UnknownNumber),
}

impl From<ReportError> for ReportFailure {
    fn from(error: ReportError) -> Self {
        match error {
            ReportError::NoEmbeddings => Self::NoEmbeddings,
            error => Self::Report(error),
        }
    }
}

fn reason(reason: UnknownReason) -> String {
    match reason {
        UnknownReason::NoComparison => "there is no --against".to_owned(),
        UnknownReason::NoLabels => reason.to_string(),
    }
}

/// Builds a report, prints it, and judges it.
///
/// # Errors
/// If the report can't be built, or a condition holds or can't be judged.
pub(crate) async fn report(args: ReportArgs, stores: StoreOptions) -> anyhow::Result<()> {
    let options = ReportOptions {
        csv: args.csv,
        embeddings: args.embeddings,
        thumbnails: args.thumbnails,
        compare_with: args.against,
    };
    let summary = build(&args.out, &options, &stores).await?;
    if args.json {
        say(&serde_json::to_string(&summary)?);
    } else {
        print(&summary);
    }
    let closed = judge(&summary, &args.gate.fail_on).map_err(ReportFailure::from)?;
    closed.map_or(Ok(()), |closed| Err(closed.into()))
}

/// Builds and prints the report at the end of an audit. Returns the conditions that hold, if any.
///
/// # Errors
/// If the report can't be built, or a condition can't be judged.
#[cfg(feature = "embedded")]
pub(crate) async fn after_audit(
    out: &Location,
    embeddings: bool,
    conditions: &[Condition],
    stores: &StoreOptions,
) -> Result<Option<GateClosed>, ReportFailure> {
    let options = ReportOptions { embeddings, ..ReportOptions::default() };
    let summary = build(out, &options, stores).await?;
    print(&summary);
    Ok(judge(&summary, conditions)?)
}

async fn build(
    out: &Location,
    options: &ReportOptions,
    stores: &StoreOptions,
) -> Result<Summary, ReportFailure> {
    let progress = Arc::new(ReadProgress::default());
    let building = camshaft_report::build(out, options, stores, &progress);
    let read = || (progress.read.load(Relaxed), None, 0);
    Ok(Progress::start("read").follow(building, read).await?)
}

fn print(summary: &Summary) {
    let overview = &summary.overview;
    if let Some(accuracy) = overview.accuracy {
        let ece = overview.ece.unwrap_or_default();
        let labelled = overview.labelled;
        say(&format!("Accuracy {:.2} % of {labelled} labelled, ECE {ece:.3}", accuracy * 100.0));
    }
    let numbers = summary.numbers();
    let kinds = [
        ("label-errors", "suspected label error"),
        ("duplicates", "duplicate"),
        ("image-problems", "image problem"),
        ("outliers", "outlier"),
        ("attention", "odd map"),
        ("shortcuts", "suspected shortcut"),
    ];
    let some = |(name, noun): (&str, &str)| {
        let number = numbers.get(name).map_or(0, |number| *number as u64);
        (number > 0).then(|| count(number, noun))
    };
    let found: Vec<_> = kinds.into_iter().filter_map(some).collect();
    if found.is_empty() {
        say("Nothing was found");
    } else {
        say(&format!("Found {}", found.join(", ")));
    }
    if let Some(comparison) = &summary.comparison {
        say(&format!(
            "Of {} in both runs, {} changed class: {} fixed, {} broken",
            count(comparison.both, "image"),
            comparison.changed,
            comparison.fixed,
            comparison.broken
        ));
    }
    say(&format!("The report is {}", summary.page));
}

/// The conditions that hold, if any.
fn judge(summary: &Summary, conditions: &[Condition]) -> Result<Option<GateClosed>, UnknownNumber> {
    let numbers = summary.numbers();
    let mut holding = Vec::new();
    for condition in conditions {
        if let Some(value) = condition.value_if_true(&numbers)? {
            holding.push(format!("{condition} ({value})"));
        }
    }
    Ok((!holding.is_empty()).then(|| GateClosed(holding.join(", "))))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn messages_name_the_options_that_help() {
        let unknown = |text: &str| {
            let condition: Condition = text.parse().unwrap();
            let error = condition.value_if_true(&BTreeMap::new()).unwrap_err();
            ReportFailure::from(error).to_string()
        };
        assert_eq!(
            unknown("changed>0"),
            "--fail-on changed>0: changed is not known, since there is no --against"
        );
        assert_eq!(
            unknown("accuracy<0.9"),
            "--fail-on accuracy<0.9: accuracy is not known, since no image has both a label and a \
             prediction"
        );
        assert_eq!(
            ReportFailure::from(ReportError::NoEmbeddings).to_string(),
            "no result holds an embedding; run the audit with --embeddings (and --out elsewhere), \
             or leave --embeddings out here"
        );
    }
}
