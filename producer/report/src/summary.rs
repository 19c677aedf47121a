//! A report in numbers: what the program prints, and what conditions are about.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use crate::comparison::RunComparison;
use crate::findings::{Finding, FindingKind, Problem};
use crate::left_out::LeftOut;
use crate::overview::Overview;
use crate::slices::{Question, Slices};

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
    /// The number of slices; a part is absent if it could not be looked for.
    pub slices: SliceCounts,
    /// Where the page is.
    pub page: String,
    /// The number of result files that can't be read.
    pub unreadable: u64,
    /// The number of results that are not of the images, model and options of the run.
    pub outdated: u64,
    /// All results that are left out, by reason.
    pub left_out: LeftOut,
}

/// How many slices there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SliceCounts {
    /// Slices with a lower accuracy; none if no label means a class of the model.
    pub slices: Option<u64>,
    /// Labels that a property gives away; none without two labels.
    pub nuisances: Option<u64>,
}

impl SliceCounts {
    pub(crate) fn of(found: &Slices) -> Self {
        let count = |question, is_known: bool| {
            let of_question = found.list.iter().filter(|slice| slice.question == question);
            is_known.then(|| of_question.count() as u64)
        };
        Self {
            slices: count(Question::Accuracy, found.compared_accuracy),
            nuisances: count(Question::Nuisance, found.compared_labels),
        }
    }
}

impl Summary {
    /// The numbers that conditions may be about, by name; those that this report lacks are absent.
    #[must_use]
    pub fn numbers(&self) -> BTreeMap<&'static str, f64> {
        let Overview { images, predicted, failed, accuracy, ece, estimated_label_errors, .. } =
            self.overview;
        // Without a common image, a condition as broken>0 would never hold.
        let in_common = self.comparison.as_ref().filter(|comparison| comparison.both > 0);
        let found = |name| self.findings.get(name).copied().unwrap_or(0);
        let all_findings = FindingKind::ALL.iter().map(|kind| found(kind.name())).sum::<u64>();
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
            ("changed", in_common.map(|comparison| comparison.changed)),
            ("fixed", in_common.map(|comparison| comparison.fixed)),
            ("broken", in_common.map(|comparison| comparison.broken)),
            ("drift", self.comparison.as_ref().map(RunComparison::drifted)),
            ("slices", self.slices.slices),
            ("nuisances", self.slices.nuisances),
        ];
        let counts =
            counts.into_iter().map(|(name, count)| (name, count.map(|count| count as f64)));
        // Labels that nobody could judge have no number: a condition on it would never hold.
        let labels = self.overview.labelled + self.overview.unknown_labels.images;
        let is_unknown = |kind| {
            kind == FindingKind::LabelError && labels > 0 && estimated_label_errors.is_none()
        };
        let kinds = kind_numbers()
            .map(|(name, kind)| (name, (!is_unknown(kind)).then(|| found(kind.name()) as f64)));
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
    let kinds = names.into_iter().zip(FindingKind::ALL.iter().copied());
    // Failures have the number `failed`.
    kinds.chain([("wrong", FindingKind::Wrong)])
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
    let mut duplicates = HashSet::new();
    for finding in list {
        // An image whose copy has another label and is in another split has two findings.
        if finding.kind != FindingKind::Duplicate || duplicates.insert(&finding.key) {
            *counts.entry(finding.kind.name()).or_default() += 1;
        }
        if let Some(problem) = finding.problem {
            *counts.entry(problem.name()).or_default() += 1;
        }
    }
    counts
}
