//! Fits a head without a cluster's images, to see whether they teach anything about the others.
//!
//! Owns the comparison: two linear heads on sketches that tell the class from other classes, one
//! fitted with the cluster's images and one without, both judged on images that neither has seen
//! and that lie outside the cluster. Upstream: clusters with a proof. Downstream: the finding.

use std::collections::HashSet;

use camshaft_common::measure::SKETCH_NUMBERS;

use super::cluster::{Cluster, HeadRefit};
use super::hashed_choice::{SmallestHashes, hash_of};
use super::map_clusters::MapClusters;
use crate::learning::{FeatureMatrix, FeatureMatrixBuilder, MultinomialHead};
use crate::predictions::sketches::CentredSketches;
use crate::predictions::{ImageClasses, NO_NAME};
use crate::table::{TableError, TableReader};

/// The most images of each part: the cluster, the rest of the class, and other classes.
const MOST_IMAGES: usize = 5000;
/// The fewest images of each part.
const FEWEST_IMAGES: usize = 20;
/// Parts of the images; each is judged by heads fitted to the others.
const FOLDS: u64 = 5;
/// Keeps the weights small; features have a mean square of 1.
const STRENGTH: f64 = 0.01;

/// Refits heads for each cluster with a proof, and says it in the cluster's reason. Without labels or
/// sketches it does nothing.
pub(super) fn refit_proved(
    table: &TableReader,
    classes: &ImageClasses,
    clustered: &MapClusters,
    clusters: &mut [Cluster],
) -> Result<(), TableError> {
    if clusters.iter().all(|cluster| cluster.proof.is_none()) {
        return Ok(());
    }
    let Some(sketches) = CentredSketches::new(table)? else { return Ok(()) };
    for cluster in clusters.iter_mut().filter(|cluster| cluster.proof.is_some()) {
        let row = cluster.example_rows[0] as usize;
        let place = (classes.target[row], clustered.cluster[row]);
        let parts = Parts::choose(table, classes, clustered, place)?;
        if let Some(refit) = parts.refit(table, &sketches)? {
            cluster.reason = format!("{}. {}", cluster.reason, refit.describe());
            cluster.refit = Some(refit);
        }
    }
    Ok(())
}

/// What an image is to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// In the cluster, with the class's label.
    Cluster,
    /// With the class's label, outside the cluster.
    Rest,
    /// With another class's label.
    Other,
}

/// The chosen images: hash of the key, row and part.
struct Parts(Vec<(u64, u32, Part)>);

impl Parts {
    /// Chooses labelled images by the hash of their keys; of other classes as many as of the rest.
    fn choose(
        table: &TableReader,
        classes: &ImageClasses,
        clustered: &MapClusters,
        (class, number): (u32, u32),
    ) -> Result<Self, TableError> {
        let mut chosen = [(); 3].map(|()| SmallestHashes::new(MOST_IMAGES));
        for (group, start) in classes.group_starts.iter().enumerate() {
            for (at, key) in table.texts(group, "key")?.into_iter().enumerate() {
                let row = start + at;
                let label = classes.label[row];
                let Some(key) = key.filter(|_| label != NO_NAME) else { continue };
                let is_in_cluster =
                    classes.target[row] == class && clustered.cluster[row] == number;
                let part = match (label == class, is_in_cluster) {
                    (true, true) => Part::Cluster,
                    (true, false) => Part::Rest,
                    (false, _) => Part::Other,
                };
                let row = u32::try_from(row).expect("a table has fewer than four billion rows");
                chosen[part as usize].add(hash_of(&key), row);
            }
        }
        let [cluster, rest, other] = chosen.map(SmallestHashes::into_rows);
        let balanced = rest.len();
        let part = |rows: Vec<(u64, u32)>, part| {
            rows.into_iter().map(move |(hash, row)| (hash, row, part))
        };
        let mut all: Vec<_> = part(cluster, Part::Cluster)
            .chain(part(rest, Part::Rest))
            .chain(part(other, Part::Other).take(balanced))
            .collect();
        // In the order of the hashes, which does not depend on the order of the rows.
        all.sort_unstable_by_key(|(hash, row, _)| (*hash, *row));
        Ok(Self(all))
    }

    /// Compares both heads; none if there are too few images with a sketch.
    fn refit(
        self,
        table: &TableReader,
        sketches: &CentredSketches,
    ) -> Result<Option<HeadRefit>, TableError> {
        let rows: HashSet<u32> = self.0.iter().map(|(_, row, _)| *row).collect();
        let points = sketches.of_rows(table, &rows)?;
        let with_point: Vec<_> =
            self.0.into_iter().filter(|(_, row, _)| points.contains_key(row)).collect();
        let enough = [Part::Cluster, Part::Rest, Part::Other]
            .iter()
            .all(|part| with_point.iter().filter(|(_, _, of)| of == part).count() >= FEWEST_IMAGES);
        if !enough {
            return Ok(None);
        }
        let values = || with_point.iter().flat_map(|(_, row, _)| points[row]);
        let squares: f64 = values().map(|value| f64::from(value).powi(2)).sum();
        let numbers = with_point.len() * SKETCH_NUMBERS;
        let scale = (numbers as f64 / squares.max(f64::MIN_POSITIVE)).sqrt() as f32;
        let mut features = FeatureMatrixBuilder::new(SKETCH_NUMBERS, with_point.len());
        for (_, row, _) in &with_point {
            features.push(&points[row].map(|value| value * scale));
        }
        let examples: Vec<_> = with_point.iter().map(|(hash, _, part)| (*hash, *part)).collect();
        Ok(Some(compare_heads(&features.finish(), &examples)))
    }
}

/// Judges both heads by cross-validation. `examples` has the hash and the part of each row of the
/// features.
fn compare_heads(features: &FeatureMatrix, examples: &[(u64, Part)]) -> HeadRefit {
    let classes: Vec<u32> =
        examples.iter().map(|(_, part)| u32::from(*part != Part::Other)).collect();
    let rows = |choose: &dyn Fn(u64, Part) -> bool| -> Vec<u32> {
        let chosen = (0_u32..).zip(examples).filter(|(_, (hash, part))| choose(*hash, *part));
        chosen.map(|(row, _)| row).collect()
    };
    let (mut images, mut right) = (0_u64, [0_u64; 2]);
    for fold in 0..FOLDS {
        let judged = rows(&|hash, part| hash % FOLDS == fold && part != Part::Cluster);
        images += judged.len() as u64;
        for (with, right) in [false, true].into_iter().zip(&mut right) {
            let fitted =
                rows(&|hash, part| hash % FOLDS != fold && (with || part != Part::Cluster));
            let head = MultinomialHead::fit(features, &fitted, &classes, 2, STRENGTH);
            let is_right = head.map_rows(features, &judged, |row, found| {
                u32::from(found[1] > found[0]) == classes[row as usize]
            });
            *right += is_right.into_iter().filter(|right| *right).count() as u64;
        }
    }
    let [accuracy_without, accuracy_with] = right.map(|right| right as f64 / images.max(1) as f64);
    HeadRefit { images, accuracy_without, accuracy_with }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points on a line with noise: the class is right of the middle. The cluster lies at `at`.
    fn compared(at: f32) -> HeadRefit {
        let mut features = FeatureMatrixBuilder::new(2, 600);
        let mut examples = Vec::new();
        for index in 0..600_u64 {
            let noise = ((index * 37) % 101) as f32 / 101.0 - 0.5;
            let (part, middle) = match index % 3 {
                0 => (Part::Cluster, at),
                1 => (Part::Rest, 0.4),
                _ => (Part::Other, -0.4),
            };
            features.push(&[middle + noise, noise * 0.1]);
            examples.push((index / 3, part));
        }
        compare_heads(&features.finish(), &examples)
    }

    #[test]
    fn images_like_the_rest_change_nothing_and_misleading_ones_do_harm() {
        let alike = compared(0.4);
        assert_eq!(alike.images, 400);
        assert!(alike.accuracy_without > 0.8, "{alike:?}");
        assert!((alike.accuracy_with - alike.accuracy_without).abs() < 0.08, "{alike:?}");
        let misleading = compared(-1.2);
        assert!(misleading.accuracy_with < misleading.accuracy_without - 0.1, "{misleading:?}");
        assert!(misleading.describe().contains("of 400 others"), "{}", misleading.describe());
    }
}
