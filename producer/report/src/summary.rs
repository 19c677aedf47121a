//! A report in numbers, for `--json` and for conditions.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::comparison::Comparison;
use crate::findings::{Finding, FindingKind, Problem};
use crate::overview::Overview;

/// A report in numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The run.
    pub run: String,
    /// Counts and shares.
    #[serde(flatten)]
    pub overview: Overview,
    /// Findings by kind, and by problem.
    pub findings: BTreeMap<&'static str, u64>,
    /// What changed.
    pub comparison: Option<Comparison>,
    /// Where the page is.
    pub page: String,
    /// Result files that are none.
    pub unreadable: u64,
}

impl Summary {
    /// The numbers that conditions may name; those this report hasn't are absent.
    #[must_use]
    pub fn measures(&self) -> BTreeMap<&'static str, f64> {
        let Overview { images, predicted, failed, accuracy, ece, estimated_label_errors, .. } =
            self.overview;
        let found = |name| self.findings.get(name).copied().unwrap_or(0);
        let kinds = found_kinds().map(|(_, kind)| found(kind.name())).sum::<u64>();
        let whole = [
            ("images", Some(images)),
            ("predicted", Some(predicted)),
            ("failed", Some(failed)),
            ("unreadable", Some(self.unreadable)),
            ("findings", Some(kinds)),
            ("leaks", Some(found(Problem::Leak.name()))),
            ("conflicts", Some(found(Problem::Conflict.name()))),
            ("estimated-label-errors", estimated_label_errors),
            ("changed", self.comparison.as_ref().map(|comparison| comparison.changed)),
            ("fixed", self.comparison.as_ref().map(|comparison| comparison.fixed)),
            ("broken", self.comparison.as_ref().map(|comparison| comparison.broken)),
        ];
        let whole = whole.into_iter().map(|(name, count)| (name, count.map(|count| count as f64)));
        let kinds = found_kinds().map(|(name, kind)| (name, Some(found(kind.name()) as f64)));
        let rate = (images > 0).then(|| failed as f64 / images as f64);
        let shares = [("accuracy", accuracy), ("ece", ece), ("failure-rate", rate)];
        let all = whole.chain(kinds).chain(shares);
        all.filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// Kinds of finding, as conditions name them.
fn found_kinds() -> impl Iterator<Item = (&'static str, FindingKind)> {
    let names =
        ["label-errors", "duplicates", "image-problems", "outliers", "attention", "shortcuts"];
    names.into_iter().zip(FindingKind::ALL.iter().copied())
}

/// By kind and by problem, those that there are none of included.
pub(crate) fn counts(list: &[Finding]) -> BTreeMap<&'static str, u64> {
    let kinds = FindingKind::ALL.iter().map(|kind| kind.name());
    let problems = Problem::ALL.iter().map(|problem| problem.name());
    let mut counts: BTreeMap<_, _> = kinds.chain(problems).map(|name| (name, 0)).collect();
    for finding in list {
        *counts.entry(finding.kind.name()).or_default() += 1;
        if let Some(problem) = finding.problem {
            *counts.entry(problem.name()).or_default() += 1;
        }
    }
    counts
}
