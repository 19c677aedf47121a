//! The data that the page is drawn from, and which pictures each part of it can show.
//!
//! Owns the JSON inside the page. The scripts beside this file read it; `docs/report.md` describes
//! the tables, which hold the same and more.

use std::collections::{BTreeMap, HashSet};

use camshaft_common::key::ImageKey;
use camshaft_common::location::Location;
use camshaft_common::run::RunRecord;
use camshaft_common::trust::{Estimate, MapTrust, TrustRecord, Verdict};
use camshaft_decisions::Sample;
use chrono::{DateTime, Utc};
use serde::Serialize;

use super::thumbnails::{PagePicture, Thumbnails};
use crate::comparison::{ComparedImage, RunComparison};
use crate::findings::{
    AttentionTest, ClassMaps, Cluster, DuplicateGroup, Finding, FindingKind, Problem,
};
use crate::overview::{ConfusedCell, Overview};
use crate::predictions::ImageExample;
use crate::slices::{Slice, Slices};

/// The most findings that the page lists; all of them are in `findings.parquet`.
pub(crate) const LISTED_FINDINGS: usize = 100_000;

/// Everything that the page is drawn from.
#[derive(Debug, Serialize)]
pub(crate) struct PageData<'a> {
    pub(crate) schema: u32,
    pub(crate) title: String,
    pub(crate) built_at: DateTime<Utc>,
    pub(crate) camshaft: &'static str,
    pub(crate) run: RunFacts,
    pub(crate) overview: &'a Overview,
    pub(crate) trust: Option<TrustFacts<'a>>,
    pub(crate) findings: ListedFindings<'a>,
    pub(crate) clusters: Vec<ListedCluster<'a>>,
    pub(crate) tests: &'a [AttentionTest],
    pub(crate) comparison: Option<ListedComparison<'a>>,
    pub(crate) slices: ListedSlices<'a>,
    pub(crate) confused: Vec<ListedConfusion<'a>>,
    /// What was drawn at random for people to judge.
    pub(crate) samples: &'a [Sample],
}

/// The facts about the run in the page's header.
#[derive(Debug, Serialize)]
pub(crate) struct RunFacts {
    pub(crate) id: String,
    pub(crate) source: String,
    pub(crate) out: String,
    pub(crate) model: String,
    pub(crate) model_digest: String,
    pub(crate) method: String,
    pub(crate) layer: String,
    pub(crate) target: String,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
}

impl RunFacts {
    /// The facts about a run whose results are in `out`.
    pub(crate) fn new(run: &RunRecord, out: &Location) -> Self {
        let list = |items: Vec<String>| items.join(", ");
        let explain = &run.explain;
        Self {
            id: run.run.to_string(),
            source: run.source.clone(),
            out: out.to_string(),
            model: run.model.name.clone(),
            model_digest: run.model.digest.to_string(),
            method: list(explain.method.iter().map(ToString::to_string).collect()),
            layer: list(explain.layer.iter().map(ToString::to_string).collect()),
            target: explain.target.to_string(),
            created_at: run.created_at,
            updated_at: run.updated_at,
        }
    }
}

/// Whether the maps can be trusted, as far as the page says it. `trust.json` has more.
#[derive(Debug, Serialize)]
pub(crate) struct TrustFacts<'a> {
    /// Images measured.
    images: u64,
    maps: Vec<TrustedMaps<'a>>,
}

/// The verdicts on the maps of one method at one layer, and the numbers behind them.
#[derive(Debug, Serialize)]
struct TrustedMaps<'a> {
    method: &'a str,
    layer: &'a str,
    road: ShortEstimate,
    random_road: ShortEstimate,
    road_verdict: Verdict,
    /// Rank correlation with the maps of a network with a re-drawn head.
    head: ShortEstimate,
    head_verdict: Verdict,
    /// The same with a re-drawn last stage.
    last_stage: ShortEstimate,
    last_stage_verdict: Verdict,
    warnings: &'a [String],
}

/// A mean and its confidence interval.
#[derive(Debug, Serialize)]
struct ShortEstimate {
    mean: Option<f64>,
    low: Option<f64>,
    high: Option<f64>,
}

impl From<Estimate> for ShortEstimate {
    fn from(Estimate { mean, low, high, .. }: Estimate) -> Self {
        Self { mean, low, high }
    }
}

impl<'a> TrustFacts<'a> {
    /// What the page says of a measurement.
    pub(crate) fn new(record: &'a TrustRecord) -> Self {
        let maps = record.maps.iter().map(|map: &MapTrust| TrustedMaps {
            method: &map.method,
            layer: &map.layer,
            road: map.faithfulness.road.into(),
            random_road: map.random_maps.road.into(),
            road_verdict: map.over_random.verdict,
            head: map.sanity.head.rank_correlation.into(),
            head_verdict: map.sanity.head.verdict,
            last_stage: map.sanity.last_stage.rank_correlation.into(),
            last_stage_verdict: map.sanity.last_stage.verdict,
            warnings: &map.warnings,
        });
        Self { images: record.sample.measured, maps: maps.collect() }
    }
}

/// The page's title: the model and the images.
pub(crate) fn title(run: &RunRecord) -> String {
    let images = run.base.as_ref().map_or(&*run.source, |base| base.as_url().as_str());
    format!("{} on {images}", run.model.name)
}

/// The list of findings, and their counts.
#[derive(Debug, Serialize)]
pub(crate) struct ListedFindings<'a> {
    /// Findings in all.
    total: usize,
    /// Findings in `rows`.
    listed: usize,
    /// Groups of duplicates in all.
    duplicate_groups: usize,
    counts: Vec<FindingCount>,
    rows: Vec<ListedFinding<'a>>,
}

#[derive(Debug, Serialize)]
struct FindingCount {
    kind: FindingKind,
    problem: Option<Problem>,
    count: u64,
}

/// A finding, and which of its pictures have thumbnails. Absent fields are not written, because a
/// page may hold a hundred thousand findings.
#[derive(Debug, Serialize)]
struct ListedFinding<'a> {
    rank: u64,
    kind: FindingKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Problem>,
    score: f32,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    other: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    /// The class that the label means, if it has another name.
    #[serde(skip_serializing_if = "Option::is_none")]
    label_class: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    suggested: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    predicted: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    probability: Option<f32>,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<DuplicateGroup>,
    #[serde(skip_serializing_if = "Option::is_none")]
    best: Option<&'a str>,
    #[serde(skip_serializing_if = "is_false")]
    thumbnail: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    overlay: Option<&'a str>,
    #[serde(skip_serializing_if = "is_false")]
    overlay_thumbnail: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    given_overlay: Option<&'a str>,
    #[serde(skip_serializing_if = "is_false")]
    given_overlay_thumbnail: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    other_label: Option<&'a str>,
    #[serde(skip_serializing_if = "is_false")]
    other_thumbnail: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    other_overlay: Option<&'a str>,
    #[serde(skip_serializing_if = "is_false")]
    other_overlay_thumbnail: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    class_maps: Option<&'a ClassMaps>,
    /// The address of the original image.
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<String>,
    /// The address of the other original image.
    #[serde(skip_serializing_if = "Option::is_none")]
    other_image: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// A cluster and its examples.
#[derive(Debug, Serialize)]
pub(crate) struct ListedCluster<'a> {
    #[serde(flatten)]
    cluster: &'a Cluster,
    examples: Vec<ListedExample<'a>>,
}

#[derive(Debug, Serialize)]
struct ListedExample<'a> {
    key: &'a str,
    thumbnail: bool,
    overlay: Option<&'a str>,
    overlay_thumbnail: bool,
}

/// The slices, and what was looked for.
#[derive(Debug, Serialize)]
pub(crate) struct ListedSlices<'a> {
    tested_accuracy: bool,
    compared_labels: bool,
    notes: &'a [String],
    list: Vec<ListedSlice<'a>>,
}

/// A slice and its examples.
#[derive(Debug, Serialize)]
struct ListedSlice<'a> {
    #[serde(flatten)]
    slice: &'a Slice,
    examples: Vec<ListedExample<'a>>,
}

/// A wrong cell of the confusion matrix and its examples.
#[derive(Debug, Serialize)]
pub(crate) struct ListedConfusion<'a> {
    row: usize,
    column: usize,
    examples: Vec<ListedExample<'a>>,
}

/// A comparison and the images whose attention moved most.
#[derive(Debug, Serialize)]
pub(crate) struct ListedComparison<'a> {
    #[serde(flatten)]
    comparison: &'a RunComparison,
    moved: Vec<ListedComparedImage<'a>>,
}

#[derive(Debug, Serialize)]
struct ListedComparedImage<'a> {
    #[serde(flatten)]
    image: &'a ComparedImage,
    thumbnail: bool,
    overlay_thumbnail: bool,
}

/// Which pictures the page can show. Turns findings, clusters and a comparison into the page's
/// data.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AvailablePictures<'a> {
    pub(crate) thumbnails: &'a Thumbnails,
    /// The `file://` URL of SOURCE, without a slash at its end; none if SOURCE is not on a local
    /// disk.
    pub(crate) originals: Option<&'a str>,
}

impl AvailablePictures<'_> {
    fn has_image(&self, key: &str) -> bool {
        self.thumbnails.has(&PagePicture::Image(key.to_owned()))
    }

    fn has_overlay(&self, overlay: Option<&str>) -> bool {
        overlay.is_some_and(|path| self.thumbnails.has(&PagePicture::Overlay(path.to_owned())))
    }

    /// The address of an original image.
    fn original(&self, key: &str) -> Option<String> {
        let key = ImageKey::parse(key).ok()?;
        let name = key.name();
        let segment = |part| percent_encoding::percent_encode(part, ENCODED_IN_SEGMENT).to_string();
        let path: Vec<_> = name.split(|byte| *byte == b'/').map(segment).collect();
        Some(format!("{}/{}", self.originals?, path.join("/")))
    }

    /// The list of findings.
    pub(crate) fn findings<'a>(&self, all: &'a [Finding]) -> ListedFindings<'a> {
        let listed = &all[..all.len().min(LISTED_FINDINGS)];
        let mut counts = BTreeMap::new();
        for finding in all {
            *counts.entry((finding.kind, finding.problem)).or_default() += 1;
        }
        let counts = counts.into_iter();
        let groups: HashSet<u32> = all.iter().filter_map(|found| Some(found.group?.id)).collect();
        let mut with_maps = HashSet::new();
        ListedFindings {
            total: all.len(),
            listed: listed.len(),
            duplicate_groups: groups.len(),
            counts: counts
                .map(|((kind, problem), count)| FindingCount { kind, problem, count })
                .collect(),
            rows: listed.iter().map(|finding| self.finding(finding, &mut with_maps)).collect(),
        }
    }

    /// A finding for the list. The first finding of an image has its maps; `with_maps` holds the images
    /// that have some already.
    fn finding<'a>(
        &self,
        finding: &'a Finding,
        with_maps: &mut HashSet<&'a str>,
    ) -> ListedFinding<'a> {
        let has_maps = finding.class_maps.is_some() && is_of_the_model(finding.kind);
        let has_maps = has_maps && with_maps.insert(&finding.key);
        ListedFinding {
            rank: finding.rank,
            kind: finding.kind,
            problem: finding.problem,
            score: finding.score,
            key: &finding.key,
            other: finding.other.as_deref(),
            label: finding.label.as_deref(),
            label_class: finding
                .label_class
                .as_deref()
                .filter(|_| finding.label_class != finding.label),
            suggested: finding.suggested.as_deref(),
            predicted: finding.predicted.as_deref(),
            probability: finding.probability,
            reason: &finding.reason,
            cluster: finding.cluster,
            failure: finding.failure.as_deref(),
            group: finding.group,
            best: finding.best.as_deref(),
            thumbnail: self.has_image(&finding.key),
            overlay: finding.overlay.as_deref(),
            overlay_thumbnail: self.has_overlay(finding.overlay.as_deref()),
            given_overlay: finding.given_overlay.as_deref(),
            given_overlay_thumbnail: self.has_overlay(finding.given_overlay.as_deref()),
            other_label: finding.other_label.as_deref(),
            other_thumbnail: finding.other.as_ref().is_some_and(|other| self.has_image(other)),
            other_overlay: finding.other_overlay.as_deref(),
            other_overlay_thumbnail: self.has_overlay(finding.other_overlay.as_deref()),
            class_maps: finding.class_maps.as_ref().filter(|_| has_maps),
            image: self.original(&finding.key),
            other_image: finding.other.as_ref().and_then(|other| self.original(other)),
        }
    }

    /// The clusters and their examples.
    pub(crate) fn clusters<'a>(&self, clusters: &'a [Cluster]) -> Vec<ListedCluster<'a>> {
        let clusters = clusters
            .iter()
            .map(|cluster| ListedCluster { cluster, examples: self.examples(&cluster.examples) });
        clusters.collect()
    }

    fn examples<'a>(&self, examples: &'a [ImageExample]) -> Vec<ListedExample<'a>> {
        let listed = examples.iter().map(|example| ListedExample {
            key: &example.key,
            thumbnail: self.has_image(&example.key),
            overlay: example.overlay.as_deref(),
            overlay_thumbnail: self.has_overlay(example.overlay.as_deref()),
        });
        listed.collect()
    }

    /// The slices and their examples.
    pub(crate) fn slices<'a>(&self, slices: &'a Slices) -> ListedSlices<'a> {
        let list = slices.list.iter();
        let list =
            list.map(|slice| ListedSlice { slice, examples: self.examples(&slice.examples) });
        ListedSlices {
            tested_accuracy: slices.tested_accuracy,
            compared_labels: slices.compared_labels,
            notes: &slices.notes,
            list: list.collect(),
        }
    }

    /// The wrong cells of the confusion matrix and their examples.
    pub(crate) fn confused<'a>(&self, cells: &'a [ConfusedCell]) -> Vec<ListedConfusion<'a>> {
        let listed = cells.iter().map(|cell| ListedConfusion {
            row: cell.row,
            column: cell.column,
            examples: self.examples(&cell.examples),
        });
        listed.collect()
    }

    /// The comparison and the images whose attention moved most.
    pub(crate) fn comparison<'a>(&self, comparison: &'a RunComparison) -> ListedComparison<'a> {
        let moved = comparison.moved.iter().map(|image| ListedComparedImage {
            image,
            thumbnail: self.has_image(&image.key),
            overlay_thumbnail: self.has_overlay(image.overlay.as_deref()),
        });
        ListedComparison { comparison, moved: moved.collect() }
    }
}

/// Whether findings of this kind are about what the model sees. Those of other kinds are about the picture
/// or the file, which heat would only hide.
fn is_of_the_model(kind: FindingKind) -> bool {
    match kind {
        FindingKind::LabelError
        | FindingKind::Outlier
        | FindingKind::Attention
        | FindingKind::Shortcut
        | FindingKind::Wrong => true,
        FindingKind::Duplicate | FindingKind::ImageProblem | FindingKind::Failure => false,
    }
}

/// The characters that are percent-encoded in a segment of a path.
const ENCODED_IN_SEGMENT: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
