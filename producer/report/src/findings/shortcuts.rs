//! Describes the clusters of maps, and decides which of them look like a shortcut.
//!
//! A shortcut is a detail that gives a class away without being what is photographed: a watermark,
//! a border, a text. It shows as a small cluster that the model is surer of than of the rest of the
//! class, and in which it looks elsewhere than usual. Whether it is surer is tested by rank sums,
//! corrected for the number of clusters. Upstream: `map_clusters`. Downstream: the page.

use camshaft_common::shortcuts::ProofVerdict;

use super::cluster::Cluster;
use super::finding::{FindingKind, RowFinding};
use super::map_clusters::{ClassSample, MapClusters};
use crate::overview::MeanMap;
use crate::predictions::map_distribution::{self, CELLS, MapDistribution, MapRegion, SIDE};
use crate::predictions::{ImageClasses, NO_NAME};
use crate::statistics::proportion::share;
use crate::statistics::rank_sum::{self, RankSumTest, SIGNIFICANT_Q};
use crate::table::{TableError, TableReader};

/// A cluster with a larger share of its class is not a shortcut but the class's usual case.
const MAX_SHARE: f64 = 0.45;
/// The least chance that the model is surer of an image of a shortcut than of another of the class.
const MIN_SURER: f64 = 0.55;
/// The least Hellinger distance of a shortcut's mean map to that of the rest of the class.
const MIN_DISTANCE: f32 = 0.35;
/// A steady corner has at least this share of the attention in nine of ten of the cluster's maps. A
/// corner has 0.08 of the cells.
const STEADY_SHARE: f32 = 0.1;
/// The least chance that a steady corner has more attention in a map of the cluster than in another
/// map of the class.
const STEADY_EFFECT: f64 = 0.9;

/// A finding for each cluster that looks like a shortcut.
pub(super) fn find(clusters: &[Cluster]) -> impl Iterator<Item = RowFinding> {
    clusters.iter().filter(|cluster| cluster.shortcut).map(|cluster| {
        let row = *cluster.example_rows.first().expect("no cluster is empty");
        let verdict = cluster.proof.as_ref().map(|proof| proof.verdict);
        let score = score_of(cluster.surer as f32, verdict);
        let reason = cluster.reason.clone();
        let found = RowFinding::new(row as usize, FindingKind::Shortcut, score, reason);
        RowFinding { cluster: Some(cluster.id), verdict, ..found }
    })
}

/// Before all other findings, and a confirmed one before the others; a refuted one after most
/// findings.
fn score_of(surer: f32, verdict: Option<ProofVerdict>) -> f32 {
    match verdict {
        Some(ProofVerdict::Confirmed) => 1.0,
        Some(ProofVerdict::Undecided) | None => 0.95 + 0.04 * surer,
        Some(ProofVerdict::Refuted) => 0.2 + 0.1 * surer,
    }
}

/// Describes all clusters: shortcuts first, then by how much surer the model is. Their examples are
/// known by row only.
pub(super) fn describe_clusters(
    table: &TableReader,
    classes: &ImageClasses,
    clustered: &MapClusters,
) -> Result<Vec<Cluster>, TableError> {
    let margins = table.all_floats("logit_margin")?;
    let probabilities = table.all_floats("probability")?;
    let mut clusters = Vec::new();
    for (sample, map_sums) in clustered.samples.iter().zip(&clustered.map_sums) {
        if !sample.is_clustered() {
            continue;
        }
        let count = sample.cluster_count();
        let rows: Vec<usize> = (0..classes.target.len())
            .filter(|row| {
                classes.target[*row] == sample.class && clustered.cluster[*row] != NO_NAME
            })
            .collect();
        let mut totals = vec![ClusterTotals::default(); count];
        for &row in &rows {
            let totals = &mut totals[clustered.cluster[row] as usize];
            totals.images += 1;
            totals.probability += f64::from(probabilities[row]);
            totals.labelled += u64::from(classes.label[row] != NO_NAME);
            totals.right += u64::from(classes.label[row] == classes.predicted[row]);
        }
        let margins: Vec<_> = rows.iter().map(|row| margins[*row]).collect();
        let groups: Vec<_> = rows.iter().map(|row| clustered.cluster[*row]).collect();
        let tests = rank_sum::test_against_rest(&margins, &groups, count);
        let steady = steady_corners(&rows, &groups, count, &clustered.corner_shares);
        let class =
            ClusteredClass { name: classes.names.name(sample.class), sample, totals, map_sums };
        for cluster in (0..count).filter(|cluster| class.totals[*cluster].images > 0) {
            let described = class.describe(cluster, &tests[cluster]);
            clusters.extend(described.map(|described| match steady[cluster] {
                Some(corner) => Cluster { place: Some(corner.name()), steady: true, ..described },
                None => described,
            }));
        }
    }
    let q = rank_sum::q_values(&clusters.iter().map(|c| c.q).collect::<Vec<_>>());
    for (id, (cluster, q)) in clusters.iter_mut().zip(q).enumerate() {
        cluster.id = u32::try_from(id).expect("a few for each class");
        cluster.q = q;
        judge(cluster);
    }
    clusters.sort_by(|a, b| {
        b.shortcut.cmp(&a.shortcut).then(b.surer.total_cmp(&a.surer)).then(a.id.cmp(&b.id))
    });
    Ok(clusters)
}

/// The counts and sums of a cluster's images.
#[derive(Clone, Copy, Default)]
struct ClusterTotals {
    images: u64,
    labelled: u64,
    /// Images whose prediction is their label.
    right: u64,
    /// Sum of the images' probabilities.
    probability: f64,
}

/// A class and what was added up of its clusters.
struct ClusteredClass<'a> {
    name: &'a str,
    sample: &'a ClassSample,
    /// By cluster.
    totals: Vec<ClusterTotals>,
    /// By cluster, the sum of the maps.
    map_sums: &'a [[f64; CELLS]],
}

impl ClusteredClass<'_> {
    /// A cluster of the class, before all tests are known: its `q` is the p-value of its own test.
    /// None if no sampled image is in the cluster.
    fn describe(&self, cluster: usize, test: &RankSumTest) -> Option<Cluster> {
        let all: u64 = self.totals.iter().map(|totals| totals.images).sum();
        let ClusterTotals { images, labelled, right, probability } = self.totals[cluster];
        let rest_probability: f64 =
            self.totals.iter().map(|totals| totals.probability).sum::<f64>() - probability;
        let example_rows = self.sample.examples(cluster);
        let mut rest = [0.0; CELLS];
        for (_, sum) in self.map_sums.iter().enumerate().filter(|(other, _)| *other != cluster) {
            rest.iter_mut().zip(sum).for_each(|(rest, value)| *rest += value);
        }
        let (own, rest) = (mean_map(&self.map_sums[cluster]), mean_map(&rest));
        let [own_roots, rest_roots] = [&own, &rest].map(map_distribution::square_roots);
        (!example_rows.is_empty()).then(|| Cluster {
            id: 0,
            class: self.name.to_owned(),
            images,
            share: images as f64 / all as f64,
            accuracy: share(right, labelled),
            mean_probability: probability / images as f64,
            rest_mean_probability: rest_probability / (all - images).max(1) as f64,
            surer: test.effect,
            q: test.p,
            distance: map_distribution::hellinger(&own_roots, &rest_roots),
            shortcut: false,
            place: main_region(&own).map(MapRegion::name),
            map: MeanMap::from_sums(SIDE, SIDE, &self.map_sums[cluster]),
            reason: String::new(),
            steady: false,
            proof: None,
            refit: None,
            examples: Vec::new(),
            example_rows,
        })
    }
}

/// By cluster of a class, the corner where all of its maps have attention and hardly any other map
/// of the class has, if there is one.
///
/// `rows` are those of the class, `clusters` has the cluster of each.
fn steady_corners(
    rows: &[usize],
    clusters: &[u32],
    count: usize,
    corner_shares: &[[f32; 4]],
) -> Vec<Option<MapRegion>> {
    let mut steady = vec![None; count];
    for (index, corner) in MapRegion::CORNERS.into_iter().enumerate() {
        let shares: Vec<f32> = rows.iter().map(|row| corner_shares[*row][index]).collect();
        let tests = rank_sum::test_against_rest(&shares, clusters, count);
        for (cluster, _) in tests.iter().enumerate().filter(|(_, test)| test.effect > STEADY_EFFECT)
        {
            let own = shares.iter().zip(clusters).filter(|(_, of)| **of as usize == cluster);
            let mut own: Vec<f32> = own.map(|(share, _)| *share).collect();
            let tenth = own.len() / 10;
            if *own.select_nth_unstable_by(tenth, f32::total_cmp).1 > STEADY_SHARE {
                steady[cluster] = Some(corner);
            }
        }
    }
    steady
}

/// Decides whether a cluster is a shortcut, and writes the sentence about it.
fn judge(cluster: &mut Cluster) {
    let is_odd =
        cluster.surer > MIN_SURER && cluster.q < SIGNIFICANT_Q && cluster.share < MAX_SHARE;
    cluster.shortcut = is_odd && (cluster.steady || cluster.distance > MIN_DISTANCE);
    let looks = match cluster.place {
        Some(place) if cluster.steady => format!("always looks at the {place} as well"),
        Some(place) => format!("looks at the {place}"),
        None => "looks at much the same place".to_owned(),
    };
    let sure = if cluster.q >= SIGNIFICANT_Q {
        "as sure as of the others".to_owned()
    } else {
        let than = if cluster.surer > 0.5 { "surer" } else { "less sure" };
        let chance = cluster.surer.max(1.0 - cluster.surer) * 100.0;
        format!("{than} than of another in {chance:.0} of 100 pairs")
    };
    cluster.reason = format!(
        "In {:.1} % of the images explained as {} the model {looks}; it is {sure}",
        cluster.share * 100.0,
        cluster.class
    );
}

/// The smallest region that holds most of the attention: a corner, else an edge.
fn main_region(map: &MapDistribution) -> Option<MapRegion> {
    let corner = MapRegion::CORNERS.into_iter().find(|corner| corner.share(map) > 0.4);
    corner.or_else(|| MapRegion::EDGES.into_iter().find(|edge| edge.share(map) > 0.6))
}

/// The mean of maps as a distribution, by the sums of their cells.
fn mean_map(sums: &[f64; CELLS]) -> MapDistribution {
    let whole: f64 = sums.iter().sum();
    sums.map(|value| (value / whole.max(f64::MIN_POSITIVE)) as f32)
}
