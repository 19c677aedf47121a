//! `camshaft report`: what a run found, as a page, tables and numbers. Wiring only: the report
//! crate builds it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use camshaft_common::location::Location;
use camshaft_common::store::StoreOptions;
use camshaft_report::{Condition, NotKnown, ReportOptions, Summary};

use crate::cli::ReportArgs;
use crate::terminal::output::{count, say};
use crate::terminal::progress::Progress;

/// A condition of `--fail-on` holds.
#[derive(Debug, thiserror::Error)]
#[error("the report is done, and --fail-on stops here: {0}")]
pub(crate) struct GateClosed(String);

/// Builds a report, prints it, and judges it.
///
/// # Errors
/// Where it can't be built, or a condition holds.
pub(crate) async fn report(args: ReportArgs, stores: StoreOptions) -> anyhow::Result<()> {
    let options = ReportOptions {
        csv: args.csv,
        embeddings: args.embeddings,
        thumbnails: args.thumbnails,
        against: args.against,
    };
    let summary = build(&args.out, &options, &stores).await?;
    if args.json {
        say(&serde_json::to_string(&summary)?);
    } else {
        print(&summary);
    }
    judge(&summary, &args.gate.fail_on)?.map_or(Ok(()), |closed| Err(closed.into()))
}

/// At the end of an audit. Returns whether a condition holds.
///
/// # Errors
/// Where the report can't be built, or a condition can't be judged.
#[cfg(feature = "embedded")]
pub(crate) async fn after_audit(
    out: &Location,
    embeddings: bool,
    gate: &crate::cli::GateArgs,
    stores: &StoreOptions,
) -> anyhow::Result<Option<GateClosed>> {
    let options = ReportOptions { embeddings, ..ReportOptions::default() };
    let summary = build(out, &options, stores).await?;
    print(&summary);
    Ok(judge(&summary, &gate.fail_on)?)
}

async fn build(
    out: &Location,
    options: &ReportOptions,
    stores: &StoreOptions,
) -> Result<Summary, camshaft_report::ReportError> {
    let progress = Arc::new(camshaft_report::Progress::default());
    let building = camshaft_report::build(out, options, stores, &progress);
    Progress::start("read").follow(building, || (progress.read.load(Relaxed), None, 0)).await
}

fn print(summary: &Summary) {
    let overview = &summary.overview;
    if let Some(accuracy) = overview.accuracy {
        let ece = overview.ece.unwrap_or_default();
        let labelled = overview.labelled;
        say(&format!("Accuracy {:.2} % of {labelled} labelled, ECE {ece:.3}", accuracy * 100.0));
    }
    let found = summary.measures();
    let kinds = [
        ("label-errors", "suspected label error"),
        ("duplicates", "duplicate"),
        ("image-problems", "image problem"),
        ("outliers", "outlier"),
        ("attention", "odd map"),
        ("shortcuts", "suspected shortcut"),
    ];
    let some = |(measure, noun): (&str, &str)| {
        let number = found.get(measure).map_or(0, |number| *number as u64);
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

fn judge(summary: &Summary, conditions: &[Condition]) -> Result<Option<GateClosed>, NotKnown> {
    let measures = summary.measures();
    let mut holding = Vec::new();
    for condition in conditions {
        if let Some(value) = condition.holds(&measures)? {
            holding.push(format!("{condition} ({value})"));
        }
    }
    Ok((!holding.is_empty()).then(|| GateClosed(holding.join(", "))))
}
