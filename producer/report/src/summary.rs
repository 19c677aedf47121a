//! A report in numbers: what the program prints, and what conditions are about.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::comparison::RunComparison;
use crate::findings::{Finding, FindingKind, Problem};
use crate::left_out::LeftOut;
use crate::overview::Overview;

/// The numbers of a report. Its fields are those of the JSON summary.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The id of the run.
    pub run: String,
    /// The numbers of the run.
    #[serde(flatten)]
    pub overview: Overview,
    /// Files in SOURCE that are no images; none if they were not counted.
    pub not_images: Option<u64>,
    /// The number of findings, by kind and by problem.
    pub findings: BTreeMap<&'static str, u64>,
    /// What changed since the other run, if there is one.
    pub comparison: Option<RunComparison>,
    /// Where the page is.
    pub page: String,
    /// The number of result files that can't be read.
    pub unreadable: u64,
    /// The number of results that are not of the images, model and options of the run.
    pub outdated: u64,
    /// All results that are left out, by reason.
    pub left_out: LeftOut,
}

impl Summary {
    /// The numbers that conditions may be about, by name; those that this report lacks are absent.
    #[must_use]
    pub fn numbers(&self) -> BTreeMap<&'static str, f64> {
        let Overview { images, predicted, failed, accuracy, ece, estimated_label_errors, .. } =
            self.overview;
        let found = |name| self.findings.get(name).copied().unwrap_or(0);
        let all_findings = kind_numbers().map(|(_, kind)| found(kind.name())).sum::<u64>();
        let counts = [
            ("images", Some(images)),
            ("predicted", Some(predicted)),
            ("failed", Some(failed)),
            ("unreadable", Some(self.unreadable)),
            ("outdated", Some(self.outdated)),
            ("unknown-labels", Some(self.overview.unknown_labels.images)),
            ("findings", Some(all_findings)),
            (DUPLICATE_GROUPS, Some(found(DUPLICATE_GROUPS))),
            ("leaks", Some(found(Problem::Leak.name()))),
            ("conflicts", Some(found(Problem::Conflict.name()))),
            ("estimated-label-errors", estimated_label_errors),
            ("changed", self.comparison.as_ref().map(|comparison| comparison.changed)),
            ("fixed", self.comparison.as_ref().map(|comparison| comparison.fixed)),
            ("broken", self.comparison.as_ref().map(|comparison| comparison.broken)),
        ];
        let counts =
            counts.into_iter().map(|(name, count)| (name, count.map(|count| count as f64)));
        let kinds = kind_numbers().map(|(name, kind)| (name, Some(found(kind.name()) as f64)));
        let rate = (images > 0).then(|| failed as f64 / images as f64);
        let shares = [("accuracy", accuracy), ("ece", ece), ("failure-rate", rate)];
        let all = counts.chain(kinds).chain(shares);
        all.filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// The kinds of findings, and the names of their numbers in conditions.
fn kind_numbers() -> impl Iterator<Item = (&'static str, FindingKind)> {
    let names =
        ["label-errors", "duplicates", "image-problems", "outliers", "attention", "shortcuts"];
    names.into_iter().zip(FindingKind::ALL.iter().copied())
}

/// The number of groups of duplicates, among the counts of findings.
const DUPLICATE_GROUPS: &str = "duplicate-groups";

/// The number of findings by kind and by problem, and that of groups of duplicates, zeros included.
pub(crate) fn count_findings(list: &[Finding]) -> BTreeMap<&'static str, u64> {
    let kinds = FindingKind::ALL.iter().map(|kind| kind.name());
    let problems = Problem::ALL.iter().map(|problem| problem.name());
    let mut counts: BTreeMap<_, _> = kinds.chain(problems).map(|name| (name, 0)).collect();
    // Ids are counted from 1, without gaps.
    let groups = list.iter().filter_map(|finding| finding.group).map(|group| group.id).max();
    counts.insert(DUPLICATE_GROUPS, groups.map_or(0, u64::from));
    for finding in list {
        *counts.entry(finding.kind.name()).or_default() += 1;
        if let Some(problem) = finding.problem {
            *counts.entry(problem.name()).or_default() += 1;
        }
    }
    counts
}
