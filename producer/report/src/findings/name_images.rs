//! Ranks the findings, and adds the keys, labels and overlays of their images.
//!
//! Owns the order of the list. Upstream: the findings of the searches, by row. Downstream:
//! `findings.parquet`.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::class_maps::{ClassMapColumns, ClassMaps};
use super::cluster::Cluster;
use super::finding::{Finding, RowFinding};
use crate::predictions::ImageExample;
use crate::table::{TableError, TableReader};

/// What a finding says about an image.
struct NamedImage {
    key: String,
    label: Option<String>,
    label_class: Option<String>,
    predicted: Option<String>,
    probability: Option<f32>,
    overlay: Option<String>,
    given_overlay: Option<String>,
    uri: Option<String>,
    class_maps: Option<ClassMaps>,
    finished_at: DateTime<Utc>,
}

/// Ranks findings, the most urgent first, and names their images and those of clusters.
pub(super) fn rank_and_name(
    table: &TableReader,
    mut found: Vec<RowFinding>,
    clusters: &mut [Cluster],
) -> Result<Vec<Finding>, TableError> {
    let rows = found.iter().flat_map(|found| [Some(found.row), found.other]).flatten();
    let examples = clusters.iter().flat_map(|cluster| &cluster.example_rows).copied();
    let mut rows: Vec<u32> = rows.chain(examples).collect();
    rows.sort_unstable();
    rows.dedup();
    let named = read_images(table, &rows)?;
    for cluster in clusters {
        let example = |row| {
            let NamedImage { key, overlay, finished_at, .. } = &named[row];
            let (key, overlay) = (key.clone(), overlay.clone());
            ImageExample { key, overlay, finished_at: *finished_at }
        };
        cluster.examples = cluster.example_rows.iter().map(example).collect();
    }
    // Ties are ordered by key, so that the order does not depend on that of the store's listing.
    found.sort_by(|a, b| {
        let key = |found: &RowFinding| &named[&found.row].key;
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
            label_class: image.label_class.clone(),
            suggested: found.suggested,
            predicted: image.predicted.clone(),
            probability: image.probability,
            reason: found.reason,
            cluster: found.cluster,
            verdict: found.verdict,
            overlay: image.overlay.clone(),
            given_overlay: image.given_overlay.clone(),
            uri: image.uri.clone(),
            held_out_probability: found.opinions.held_out,
            held_out_label_probability: found.opinions.held_out_label,
            model_label_probability: found.opinions.model_label,
            model_agrees: found.opinions.model_agrees,
            other_overlay: other.and_then(|other| other.overlay.clone()),
            other_label: other.and_then(|other| other.label.clone()),
            class_maps: image.class_maps.clone(),
            failure: found.failure,
            group: found.group,
            best: found.group.and_then(|_| other.map(|other| other.key.clone())),
            finished_at: image.finished_at.max(other.map_or(image.finished_at, |o| o.finished_at)),
        }
    });
    Ok(findings.collect())
}

/// Reads the images of `rows`, which are in ascending order.
fn read_images(table: &TableReader, rows: &[u32]) -> Result<HashMap<u32, NamedImage>, TableError> {
    let mut named = HashMap::with_capacity(rows.len());
    for rows in table.groups_of(rows) {
        let group = rows.group;
        let (mut keys, mut labels) = (table.texts(group, "key")?, table.texts(group, "label")?);
        let mut label_classes = table.texts(group, "label_class")?;
        let mut predicted = table.texts(group, "predicted")?;
        let probabilities = table.floats(group, "probability")?;
        let mut overlays = table.texts(group, "overlay")?;
        let mut given = table.texts(group, "label_overlay")?;
        let mut uris = table.texts(group, "uri")?;
        let maps = ClassMapColumns::read(table, group)?;
        let finished = table.integers(group, "finished_at")?;
        for (row, at) in rows.iter() {
            let image = NamedImage {
                key: keys[at].take().unwrap_or_default(),
                label: labels[at].take(),
                label_class: label_classes[at].take(),
                predicted: predicted[at].take(),
                probability: Some(probabilities[at]).filter(|p| !p.is_nan()),
                overlay: overlays[at].take(),
                given_overlay: given[at].take(),
                uri: uris[at].take(),
                class_maps: maps.of_row(at),
                finished_at: finished[at]
                    .and_then(DateTime::from_timestamp_millis)
                    .unwrap_or_default(),
            };
            named.insert(row, image);
        }
    }
    Ok(named)
}
