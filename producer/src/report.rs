//! `camshaft report`: builds OUT/report, prints what was found, and checks conditions on it.
//!
//! Wiring only: the crate `camshaft-report` builds the report.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use camshaft_common::label::LabelProblem;
use camshaft_common::location::Location;
use camshaft_common::printable::printable;
use camshaft_common::store::StoreOptions;
use camshaft_report::{
    Condition, JudgedCheck, Judgements, LabelAudit, LabelErrorsLeft, MeasuredShare, Overview,
    ReadProgress, ReportError, ReportOptions, RunComparison, Summary, UnknownLabel, UnknownLabels,
    UnknownNumber,
};

use crate::advice;
use crate::terminal::output::{format_count, print_json, print_line};
use crate::terminal::progress::{Progress, ProgressCounts};

/// What `camshaft report` is to do.
#[derive(Debug)]
pub(crate) struct ReportConfig {
    /// Where the results lie.
    pub(crate) out: Location,
    /// What to build.
    pub(crate) options: ReportOptions,
    /// Print the overview as JSON, not as lines for a person.
    pub(crate) json: bool,
    /// The conditions of `--fail-on`.
    pub(crate) fail_on: Vec<Condition>,
}

/// Conditions of `--fail-on` hold.
#[derive(Debug, thiserror::Error)]
#[error("the report is done, and a condition of --fail-on holds: {0}")]
pub struct ConditionsHold(String);

/// A report can't be built or checked.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// It can't be built.
    #[error("{}", advice::describe_report_error(.0))]
    Report(#[from] ReportError),
    /// A condition is on a number that this report doesn't have.
    #[error("{}", advice::describe_condition_error(.0))]
    Condition(#[from] UnknownNumber),
}

/// Why `camshaft report` is not a success.
#[derive(Debug, thiserror::Error)]
pub enum ReportCommandError {
    /// The report can't be built or checked.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The report is done, and conditions hold.
    #[error(transparent)]
    ConditionsHold(#[from] ConditionsHold),
}

/// Builds a report, prints it, and checks it.
///
/// # Errors
/// If the report can't be built, or if a condition holds.
pub(crate) async fn report(
    config: ReportConfig,
    stores: StoreOptions,
) -> Result<(), ReportCommandError> {
    let summary = build(&config.out, &config.options, &stores).await?;
    if config.json {
        print_json(&serde_json::to_string(&summary).expect("a summary has only texts and numbers"));
    } else {
        print_summary(&summary);
    }
    match conditions_that_hold(&summary, &config.fail_on)? {
        Some(conditions) => Err(conditions.into()),
        None => Ok(()),
    }
}

/// Builds and prints the report at the end of an audit. Returns the conditions that hold.
///
/// # Errors
/// If the report can't be built or checked.
#[cfg(feature = "embedded")]
pub(crate) async fn report_audit(
    out: &Location,
    options: &ReportOptions,
    fail_on: &[Condition],
    stores: &StoreOptions,
) -> Result<Option<ConditionsHold>, BuildError> {
    let summary = build(out, options, stores).await?;
    print_summary(&summary);
    conditions_that_hold(&summary, fail_on)
}

async fn build(
    out: &Location,
    options: &ReportOptions,
    stores: &StoreOptions,
) -> Result<Summary, BuildError> {
    let progress = Arc::new(ReadProgress::default());
    let building = camshaft_report::build(out, options, stores, &progress);
    let counts = || ProgressCounts { done: progress.read.load(Relaxed), total: None, failed: 0 };
    Ok(Progress::start("read").follow(building, counts).await?)
}

fn print_summary(summary: &Summary) {
    let overview = &summary.overview;
    summary.left_out.texts().iter().for_each(|text| print_line(text));
    print_unknown_labels(overview);
    if let Some(accuracy) = overview.accuracy {
        let ece = overview.ece.unwrap_or_default();
        let labelled = overview.labelled;
        let accuracy = accuracy * 100.0;
        print_line(&format!("Accuracy {accuracy:.2} % of {labelled} labelled, ECE {ece:.3}"));
    }
    let numbers = summary.numbers();
    let kinds = [
        ("label-errors", "suspected label error"),
        ("duplicates", "duplicate"),
        ("image-problems", "image problem"),
        ("outliers", "outlier"),
        ("attention", "odd map"),
        ("shortcuts", "suspected shortcut"),
        ("failed", "failure"),
        ("wrong", "sure mistake"),
        ("slices", "weak slice"),
        ("nuisances", "nuisance"),
    ];
    let describe = |(name, noun): (&str, &str)| {
        let number = numbers.get(name).map_or(0, |number| *number as u64);
        (number > 0).then(|| format_count(number, noun))
    };
    print_label_audit(overview);
    print_judgements(overview);
    let found: Vec<_> = kinds.into_iter().filter_map(describe).collect();
    if found.is_empty() {
        print_line("Nothing was found");
    } else {
        print_line(&format!("Found {}", found.join(", ")));
    }
    if let Some(comparison) = &summary.comparison {
        print_drift(comparison);
    }
    if let Some(comparison) = summary.comparison.as_ref().filter(|compared| compared.both > 0) {
        print_line(&format!(
            "Of {} in both runs, {} changed class: {} fixed, {} broken",
            format_count(comparison.both, "image"),
            comparison.changed,
            comparison.fixed,
            comparison.broken
        ));
        if comparison.relabelled > 0 {
            print_line(&format!(
                "{} had another label there; each run is judged by its own labels",
                format_count(comparison.relabelled, "image")
            ));
        }
    }
    print_line(&format!("The report is {}", summary.page));
}

/// Says how labels were judged, and how many are probably wrong.
fn print_label_audit(overview: &Overview) {
    let percent = |share: &MeasuredShare| format!("{:.1} %", share.share * 100.0);
    if let (Some(count), Some(low), Some(high)) = (
        overview.estimated_label_errors,
        overview.estimated_label_errors_low,
        overview.estimated_label_errors_high,
    ) {
        print_line(&format!("Estimated label errors: {count} ({low} to {high})"));
    }
    let Some(audit) = &overview.label_audit else { return };
    let LabelAudit { features, folds, strength, accuracy, .. } = audit;
    print_line(&format!(
        "Labels were judged by heads that had not seen the image: {} with {}, {folds} folds, {features} \
         of {} numbers, strength {strength}; they give {} of the images their labels",
        format_count(audit.images, "image"),
        format_count(audit.classes, "label"),
        audit.dimensions,
        percent(accuracy),
    ));
    if let Some(holdout) = &audit.holdout {
        let range = |share: &MeasuredShare| {
            let [low, high] = [share.low, share.high].map(|end| end * 100.0);
            format!("{} ({low:.1} to {high:.1})", percent(share))
        };
        print_line(&format!(
            "Accuracy on {} held out: {}, and {} without the suspected labels",
            format_count(holdout.before.images, "image"),
            range(&holdout.before),
            range(&holdout.after),
        ));
    }
    if audit.all_layers_trained {
        print_line(
            "All layers of this model were trained, says its configuration. If that was on these \
             images, few of their wrong labels can be found: audit them with a model of other images",
        );
    }
    if let Some(model) = audit.model.as_ref().filter(|model| model.memorised) {
        print_line(&format!(
            "The model has probably learnt these labels by heart: it gives {} of these images their \
             labels, heads that have not seen them {}, and it sides with most labels that they suspect",
            percent(&model.model),
            percent(&model.heads),
        ));
    }
}

/// Says how many findings people found right, and how many wrong labels are left.
fn print_judgements(overview: &Overview) {
    overview.decision_problems.iter().for_each(|problem| print_line(problem));
    let Some(Judgements { checks, label_errors_left }) = &overview.judgements else { return };
    for check in checks {
        let JudgedCheck { kind, findings, judged, right, precision, low, high } = check;
        let [precision, low, high] = [precision, low, high].map(|share| share * 100.0);
        let range = match judged == findings {
            true => String::new(),
            false => format!(" ({low:.0} to {high:.0})"),
        };
        print_line(&format!(
            "People found {right} of {judged} {kind} findings right: {precision:.0} %{range}"
        ));
    }
    if let Some(left) = label_errors_left {
        let LabelErrorsLeft { at_most, judged, wrong, of, undecided } = left;
        let undecided = match undecided {
            0 => String::new(),
            some => format!(", and {} nobody decided about", format_count(*some, "finding")),
        };
        print_line(&format!(
            "At most {} left (95 %): {wrong} of {judged} drawn from {of} without a label finding{undecided}",
            format_count(*at_most, "label error"),
        ));
    }
}

/// Says which inputs differ from those of the other run.
fn print_drift(comparison: &RunComparison) {
    if comparison.both == 0 {
        print_line("No image is predicted in both runs, so that only their inputs are compared");
    }
    let drifted = comparison.drift.iter().filter(|input| input.drifted);
    let reasons: Vec<_> = drifted.map(|input| input.reason.as_str()).collect();
    if !reasons.is_empty() {
        print_line(&format!("Inputs differ: {}", reasons.join(", ")));
    } else if !comparison.drift.is_empty() {
        print_line("Inputs do not differ");
    }
}

/// Labels of unknown meaning that are named.
const NAMED_LABELS: usize = 5;

/// Says which labels mean none of the model's classes, if there are any.
fn print_unknown_labels(overview: &Overview) {
    let UnknownLabels { images, labels, listed } = &overview.unknown_labels;
    if *images == 0 {
        return;
    }
    let named = listed.iter().take(NAMED_LABELS).map(|UnknownLabel { label, images, problem }| {
        let label = printable(label);
        match problem {
            LabelProblem::Unknown => format!("{label} ({images})"),
            LabelProblem::Ambiguous => format!("{label} ({images}, could be several classes)"),
        }
    });
    let mut named = named.collect::<Vec<_>>().join(", ");
    let more = labels.saturating_sub(NAMED_LABELS as u64);
    if more > 0 {
        named.push_str(&format!(" and {}", format_count(more, "other label")));
    }
    let all = overview.labelled + images;
    print_line(&format!(
        "{images} of {} have labels that mean none of the model's classes; accuracy leaves them out: \
         {named}. To say which classes they are, audit with --label-map and another --out",
        format_count(all, "labelled image"),
    ));
}

fn conditions_that_hold(
    summary: &Summary,
    conditions: &[Condition],
) -> Result<Option<ConditionsHold>, BuildError> {
    let numbers = summary.numbers();
    let mut holding = Vec::new();
    for condition in conditions {
        if let Some(value) = condition.value_if_true(&numbers)? {
            holding.push(format!("{condition} ({value})"));
        }
    }
    Ok((!holding.is_empty()).then(|| ConditionsHold(holding.join(", "))))
}
