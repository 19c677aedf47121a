//! From rows to names: ranks findings and fills in their images' keys, labels and overlays.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::clusters::{Cluster, ClusterExample};
use super::{Finding, Found, Problem};
use crate::table::{Cell, Column, ColumnKind, TableError, TableReader};

/// What findings say of an image.
#[derive(Default)]
struct Named {
    key: String,
    label: Option<String>,
    predicted: Option<String>,
    probability: Option<f32>,
    overlay: Option<String>,
    given_overlay: Option<String>,
    finished_at: DateTime<Utc>,
}

/// Ranked, the most urgent first.
pub(super) fn resolve(
    table: &TableReader,
    mut found: Vec<Found>,
    clusters: &mut [Cluster],
) -> Result<Vec<Finding>, TableError> {
    let rows = found.iter().flat_map(|found| [Some(found.row), found.other]).flatten();
    let examples = clusters.iter().flat_map(|cluster| &cluster.example_rows).copied();
    let mut rows: Vec<u32> = rows.chain(examples).collect();
    rows.sort_unstable();
    rows.dedup();
    let named = names(table, &rows)?;
    for cluster in clusters {
        let example = |row| {
            let Named { key, overlay, finished_at, .. } = &named[row];
            let (key, overlay) = (key.clone(), overlay.clone());
            ClusterExample { key, overlay, finished_at: *finished_at }
        };
        cluster.examples = cluster.example_rows.iter().map(example).collect();
    }
    // By key in the end, so that the order doesn't depend on the store's.
    found.sort_by(|a, b| {
        let key = |found: &Found| &named[&found.row].key;
        b.score.total_cmp(&a.score).then_with(|| (a.kind, key(a)).cmp(&(b.kind, key(b))))
    });
    let findings = found.into_iter().zip(1..).map(|(found, rank)| {
        let image = &named[&found.row];
        let other = found.other.map(|row| &named[&row]);
        Finding {
            rank,
            kind: found.kind,
            problem: found.problem,
            score: found.score,
            key: image.key.clone(),
            other: other.map(|other| other.key.clone()),
            label: image.label.clone(),
            suggested: found.suggested,
            predicted: image.predicted.clone(),
            probability: image.probability,
            reason: found.reason,
            cluster: found.cluster,
            overlay: image.overlay.clone(),
            given_overlay: image.given_overlay.clone(),
            other_overlay: other.and_then(|other| other.overlay.clone()),
            finished_at: image.finished_at.max(other.map_or(image.finished_at, |o| o.finished_at)),
        }
    });
    Ok(findings.collect())
}

/// Reads what is to be said of `rows`, which are sorted.
fn names(table: &TableReader, rows: &[u32]) -> Result<HashMap<u32, Named>, TableError> {
    let mut named = HashMap::with_capacity(rows.len());
    let (mut start, mut left) = (0_usize, rows);
    for group in 0..table.groups() {
        let end = start + table.rows_of(group);
        let (here, later) = left.split_at(left.partition_point(|row| (*row as usize) < end));
        left = later;
        if !here.is_empty() {
            let (mut keys, mut labels) = (table.texts(group, "key")?, table.texts(group, "label")?);
            let mut predicted = table.texts(group, "predicted")?;
            let probabilities = table.floats(group, "probability")?;
            let mut overlays = table.texts(group, "overlay")?;
            let mut given = table.texts(group, "label_overlay")?;
            let finished = table.integers(group, "finished_at")?;
            for &row in here {
                let at = row as usize - start;
                let one = Named {
                    key: keys[at].take().unwrap_or_default(),
                    label: labels[at].take(),
                    predicted: predicted[at].take(),
                    probability: Some(probabilities[at]).filter(|p| !p.is_nan()),
                    overlay: overlays[at].take(),
                    given_overlay: given[at].take(),
                    finished_at: finished[at]
                        .and_then(DateTime::from_timestamp_millis)
                        .unwrap_or_default(),
                };
                named.insert(row, one);
            }
        }
        start = end;
    }
    Ok(named)
}

/// Of `findings.parquet`, as `docs/report.md` describes them.
pub(crate) const COLUMNS: &[Column<Finding>] = &[
    Column {
        name: "rank",
        kind: ColumnKind::Integer,
        cell: |finding| Cell::Integer(finding.rank.try_into().ok()),
    },
    text("kind", |finding| Cell::Text(Some(finding.kind.name()))),
    text("problem", |finding| Cell::Text(finding.problem.map(Problem::name))),
    Column {
        name: "score",
        kind: ColumnKind::Float,
        cell: |finding| Cell::Float(Some(finding.score)),
    },
    text("key", |finding| Cell::Text(Some(&finding.key))),
    text("other", |finding| Cell::Text(finding.other.as_deref())),
    text("label", |finding| Cell::Text(finding.label.as_deref())),
    text("suggested", |finding| Cell::Text(finding.suggested.as_deref())),
    text("predicted", |finding| Cell::Text(finding.predicted.as_deref())),
    Column {
        name: "probability",
        kind: ColumnKind::Float,
        cell: |finding| Cell::Float(finding.probability),
    },
    text("reason", |finding| Cell::Text(Some(&finding.reason))),
    Column {
        name: "cluster",
        kind: ColumnKind::Integer,
        cell: |finding| Cell::Integer(finding.cluster.map(i64::from)),
    },
    text("overlay", |finding| Cell::Text(finding.overlay.as_deref())),
    text("label_overlay", |finding| Cell::Text(finding.given_overlay.as_deref())),
    text("other_overlay", |finding| Cell::Text(finding.other_overlay.as_deref())),
];

const fn text(name: &'static str, cell: for<'a> fn(&'a Finding) -> Cell<'a>) -> Column<Finding> {
    Column { name, kind: ColumnKind::Text, cell }
}
