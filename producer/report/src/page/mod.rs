//! `index.html`: one file that holds everything but the pictures, and works from a disk or a
//! bucket. What it looks like is in the files beside this one.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, Utc};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::comparison::{Comparison, Moved};
use crate::findings::{AttentionTest, Cluster, ClusterExample, Finding, FindingKind, Problem};
use crate::overview::Overview;
use crate::thumbnails::{Picture, Thumbnails};

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
/// In the order in which they build on each other.
const SCRIPTS: [&str; 9] = [
    include_str!("base.js"),
    include_str!("pictures.js"),
    include_str!("charts.js"),
    include_str!("overview.js"),
    include_str!("findings-index.js"),
    include_str!("findings-card.js"),
    include_str!("findings.js"),
    include_str!("groups.js"),
    include_str!("page.js"),
];

/// Findings on the page; all of them are in `findings.parquet`.
pub(crate) const LISTED: usize = 100_000;

/// What the page is drawn from.
#[derive(Debug, Serialize)]
pub(crate) struct PageData<'a> {
    pub(crate) schema: u32,
    pub(crate) title: String,
    pub(crate) built_at: DateTime<Utc>,
    pub(crate) camshaft: &'static str,
    pub(crate) run: RunFacts,
    pub(crate) overview: &'a Overview,
    pub(crate) findings: ListedFindings<'a>,
    pub(crate) clusters: Vec<ListedCluster<'a>>,
    pub(crate) tests: &'a [AttentionTest],
    pub(crate) comparison: Option<ListedComparison<'a>>,
}

/// What the run was.
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

/// The work list.
#[derive(Debug, Serialize)]
pub(crate) struct ListedFindings<'a> {
    total: usize,
    listed: usize,
    counts: Vec<CountOf>,
    rows: Vec<ListedFinding<'a>>,
}

#[derive(Debug, Serialize)]
struct CountOf {
    kind: FindingKind,
    problem: Option<Problem>,
    count: u64,
}

/// A finding, and which of its pictures have thumbnails. What is absent is not written: there are
/// a hundred thousand of them.
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
    #[serde(skip_serializing_if = "Option::is_none")]
    suggested: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    predicted: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    probability: Option<f32>,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<u32>,
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
    #[serde(skip_serializing_if = "is_false")]
    other_thumbnail: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    other_overlay: Option<&'a str>,
    #[serde(skip_serializing_if = "is_false")]
    other_overlay_thumbnail: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(value: &bool) -> bool {
    !value
}

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

#[derive(Debug, Serialize)]
pub(crate) struct ListedComparison<'a> {
    #[serde(flatten)]
    comparison: &'a Comparison,
    moved: Vec<ListedMoved<'a>>,
}

#[derive(Debug, Serialize)]
struct ListedMoved<'a> {
    #[serde(flatten)]
    moved: &'a Moved,
    thumbnail: bool,
    overlay_thumbnail: bool,
}

/// Knows which pictures are there, and how a browser gets at them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pictures<'a> {
    pub(crate) thumbnails: &'a Thumbnails,
    /// A `file://` URL of SOURCE, without a slash at its end.
    pub(crate) originals: Option<&'a str>,
}

impl Pictures<'_> {
    fn of_image(&self, key: &str) -> bool {
        self.thumbnails.has(&Picture::Image(key.to_owned()))
    }

    fn of_overlay(&self, overlay: Option<&str>) -> bool {
        overlay.is_some_and(|path| self.thumbnails.has(&Picture::Overlay(path.to_owned())))
    }

    fn original(&self, key: &str) -> Option<String> {
        let segment = |part| percent_encoding::utf8_percent_encode(part, SEGMENT).to_string();
        let path: Vec<_> = key.split('/').map(segment).collect();
        Some(format!("{}/{}", self.originals?, path.join("/")))
    }

    /// The work list.
    pub(crate) fn findings<'a>(&self, all: &'a [Finding]) -> ListedFindings<'a> {
        let listed = &all[..all.len().min(LISTED)];
        let mut counts = BTreeMap::new();
        for finding in all {
            *counts.entry((finding.kind, finding.problem)).or_default() += 1;
        }
        let counts = counts.into_iter();
        ListedFindings {
            total: all.len(),
            listed: listed.len(),
            counts: counts
                .map(|((kind, problem), count)| CountOf { kind, problem, count })
                .collect(),
            rows: listed.iter().map(|finding| self.finding(finding)).collect(),
        }
    }

    fn finding<'a>(&self, finding: &'a Finding) -> ListedFinding<'a> {
        ListedFinding {
            rank: finding.rank,
            kind: finding.kind,
            problem: finding.problem,
            score: finding.score,
            key: &finding.key,
            other: finding.other.as_deref(),
            label: finding.label.as_deref(),
            suggested: finding.suggested.as_deref(),
            predicted: finding.predicted.as_deref(),
            probability: finding.probability,
            reason: &finding.reason,
            cluster: finding.cluster,
            thumbnail: self.of_image(&finding.key),
            overlay: finding.overlay.as_deref(),
            overlay_thumbnail: self.of_overlay(finding.overlay.as_deref()),
            given_overlay: finding.given_overlay.as_deref(),
            given_overlay_thumbnail: self.of_overlay(finding.given_overlay.as_deref()),
            other_thumbnail: finding.other.as_ref().is_some_and(|other| self.of_image(other)),
            other_overlay: finding.other_overlay.as_deref(),
            other_overlay_thumbnail: self.of_overlay(finding.other_overlay.as_deref()),
            image: self.original(&finding.key),
        }
    }

    /// Clusters and their examples.
    pub(crate) fn clusters<'a>(&self, clusters: &'a [Cluster]) -> Vec<ListedCluster<'a>> {
        let example = |example: &'a ClusterExample| ListedExample {
            key: &example.key,
            thumbnail: self.of_image(&example.key),
            overlay: example.overlay.as_deref(),
            overlay_thumbnail: self.of_overlay(example.overlay.as_deref()),
        };
        let clusters = clusters.iter().map(|cluster| ListedCluster {
            cluster,
            examples: cluster.examples.iter().map(example).collect(),
        });
        clusters.collect()
    }

    /// What changed, and the images whose attention moved most.
    pub(crate) fn comparison<'a>(&self, comparison: &'a Comparison) -> ListedComparison<'a> {
        let moved = comparison.moved.iter().map(|moved| ListedMoved {
            moved,
            thumbnail: self.of_image(&moved.key),
            overlay_thumbnail: self.of_overlay(moved.overlay.as_deref()),
        });
        ListedComparison { comparison, moved: moved.collect() }
    }
}

/// All that a path's segment can't hold as it is.
const SEGMENT: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The page. Scripts and styles are named in its policy by their digests, so that nothing else
/// runs, whatever a key or a label holds.
pub(crate) fn render(data: &PageData<'_>) -> String {
    let script = SCRIPTS.join("\n");
    let json = serde_json::to_string(data).expect("the data have only strings and numbers");
    // `</script>` and `<!--` would end it.
    let json = json.replace('<', "\\u003c");
    let digest = |text: &str| BASE64.encode(Sha256::digest(text));
    let (csp_style, csp_script) = (digest(STYLE), digest(&script));
    fill(TEMPLATE, |name| match name {
        "title" => escape(&data.title),
        "style" => STYLE.to_owned(),
        "script" => script.clone(),
        "csp_style" => csp_style.clone(),
        "csp_script" => csp_script.clone(),
        "data" => json.clone(),
        other => unreachable!("the template has a place for {other}"),
    })
}

/// Fills `{{name}}` in one pass, so that what is filled in is never read as a place.
fn fill(template: &str, value: impl Fn(&str) -> String) -> String {
    let mut page = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").expect("every place ends");
        page.push_str(before);
        page.push_str(&value(name));
        rest = after;
    }
    page.push_str(rest);
    page
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_once_and_text_is_escaped() {
        let filled = fill("<h1>{{title}}</h1>{{data}}", |name| match name {
            "title" => escape("{{data}} <b>\"&"),
            _ => "x".to_owned(),
        });
        assert_eq!(filled, "<h1>{{data}} &lt;b&gt;&quot;&amp;</h1>x");
    }
}
