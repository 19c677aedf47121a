//! Groups the images of each class by where the model looks, as SpRAy does (Lapuschkin et al. 2019,
//! <https://arxiv.org/abs/1902.10178>).
//!
//! A sample of each class's maps is clustered. Every other image of the class joins the cluster of
//! the sampled map that is nearest to its own. Upstream: the first map of each image. Downstream:
//! `shortcuts`, which decides what a cluster means.

use rayon::prelude::*;

use crate::clustering::spectral::{self, Clustering, SpectralOptions};
use crate::predictions::map_distribution::{self, CELLS, MapRegion};
use crate::predictions::{ImageClasses, NO_NAME};
use crate::similarity::nearest_neighbours::NearestSample;
use crate::table::{TableError, TableReader};

/// The most maps of a class that are clustered. A cluster of a hundredth of the class has some
/// twenty of them.
const CLASS_SAMPLE: usize = 2000;
/// The most maps that are clustered in all classes together: 80 MB.
const ALL_SAMPLES: usize = 400_000;
/// Classes with fewer maps are not clustered.
const MIN_MAPS: usize = 50;
/// The fewest and the most clusters of a class. Two, even if the maps have no clear clusters: a
/// small group that the model is surer of may lie at the end of a continuum.
const CLUSTERS: std::ops::RangeInclusive<usize> = 2..=8;
/// Images of a cluster that are shown.
const EXAMPLES: usize = 12;

/// The clusters of all classes, and which images belong to them.
pub(super) struct MapClusters {
    /// The classes with at least [`MIN_MAPS`] maps, in the order of their ids.
    pub(super) samples: Vec<ClassSample>,
    /// By row, the number of its cluster in its class; [`NO_NAME`] without.
    pub(super) cluster: Vec<u32>,
    /// By class as in `samples`, and by cluster: the sum of the maps.
    pub(super) map_sums: Vec<Vec<[f64; CELLS]>>,
    /// By row, the share of the attention in each of [`MapRegion::CORNERS`]; NaN without a cluster.
    pub(super) corner_shares: Vec<[f32; 4]>,
}

/// Some maps of a class, and their clusters.
pub(super) struct ClassSample {
    pub(super) class: u32,
    /// The sample is every `step`-th map of the class.
    step: usize,
    rows: Vec<u32>,
    /// The square roots of the maps, one after the other: [rows, CELLS].
    points: Vec<f32>,
    clustering: Clustering,
}

impl ClassSample {
    /// The number of clusters.
    pub(super) fn cluster_count(&self) -> usize {
        self.clustering.count
    }

    /// Whether the class has fallen into several clusters.
    pub(super) fn is_clustered(&self) -> bool {
        self.clustering.count > 1
    }

    /// The sampled rows nearest to the mean of a cluster, nearest first.
    pub(super) fn examples(&self, cluster: usize) -> Vec<u32> {
        let members: Vec<usize> =
            (0..self.rows.len()).filter(|at| self.clustering.clusters[*at] == cluster).collect();
        let point = |at: usize| &self.points[at * CELLS..(at + 1) * CELLS];
        let mut mean = [0.0_f32; CELLS];
        for &member in &members {
            for (sum, value) in mean.iter_mut().zip(point(member)) {
                *sum += value / members.len() as f32;
            }
        }
        let distance = |at: usize| -> f32 {
            point(at).iter().zip(&mean).map(|(a, b)| (a - b) * (a - b)).sum()
        };
        let mut members: Vec<_> =
            members.into_iter().map(|at| (distance(at), self.rows[at])).collect();
        members.sort_by(|a, b| a.0.total_cmp(&b.0));
        members.into_iter().take(EXAMPLES).map(|(_, row)| row).collect()
    }

    fn cluster(mut self) -> Self {
        let options = SpectralOptions {
            min_clusters: *CLUSTERS.start(),
            max_clusters: *CLUSTERS.end(),
            ..SpectralOptions::default()
        };
        self.clustering = spectral::cluster(&self.points, CELLS, &options);
        self
    }
}

/// Clusters the first maps of all images.
pub(super) fn cluster_maps(
    table: &TableReader,
    classes: &ImageClasses,
    notes: &mut Vec<String>,
) -> Result<MapClusters, TableError> {
    let samples = sample_classes(table, classes)?;
    let samples: Vec<_> = samples.into_par_iter().map(ClassSample::cluster).collect();
    if let Some(largest) = samples.iter().map(|sample| sample.step).max().filter(|step| *step > 1) {
        notes.push(format!(
            "clusters of maps were looked for in every {largest}th map of the largest class: a \
             cluster of fewer than {} images there may be missed one time in twenty",
            // Ten sampled maps make a cluster. A Poisson distribution of mean 17 falls below ten
            // one time in twenty.
            17 * largest
        ));
    }
    assign_images(table, classes, samples)
}

/// Samples the maps of each class evenly.
fn sample_classes(
    table: &TableReader,
    classes: &ImageClasses,
) -> Result<Vec<ClassSample>, TableError> {
    let class_count = classes.names.len();
    let mut counts = vec![0_usize; class_count];
    for target in classes.target.iter().filter(|target| **target != NO_NAME) {
        counts[*target as usize] += 1;
    }
    let of_class = CLASS_SAMPLE.min(ALL_SAMPLES / class_count.max(1)).max(MIN_MAPS);
    let steps: Vec<_> = counts.iter().map(|count| count.div_ceil(of_class).max(1)).collect();
    let mut samples: Vec<_> = (0..class_count)
        .map(|class| ClassSample {
            class: u32::try_from(class).expect("fewer classes than rows"),
            step: steps[class],
            rows: Vec::new(),
            points: Vec::new(),
            clustering: Clustering::default(),
        })
        .collect();
    let mut seen = vec![0_usize; class_count];
    for (group, start) in classes.group_starts.iter().enumerate() {
        for (at, map) in map_distribution::read(table, group)?.iter().enumerate() {
            let (Some(map), target) = (map, classes.target[start + at] as usize) else { continue };
            if seen[target].is_multiple_of(steps[target]) {
                let row = u32::try_from(start + at).expect("fewer than four billion rows");
                samples[target].rows.push(row);
                samples[target].points.extend(map_distribution::square_roots(map));
            }
            seen[target] += 1;
        }
    }
    samples.retain(|sample| sample.rows.len() >= MIN_MAPS);
    Ok(samples)
}

/// Gives every image with a map to the cluster of the sampled map nearest to its own.
fn assign_images(
    table: &TableReader,
    classes: &ImageClasses,
    samples: Vec<ClassSample>,
) -> Result<MapClusters, TableError> {
    let mut sample_of_class = vec![None; classes.names.len()];
    for (index, sample) in samples.iter().enumerate().filter(|(_, sample)| sample.is_clustered()) {
        sample_of_class[sample.class as usize] = Some(index);
    }
    let nearest: Vec<_> = samples
        .iter()
        .map(|sample| sample.is_clustered().then(|| NearestSample::new(&sample.points, CELLS)))
        .collect();
    let rows = classes.target.len();
    let mut cluster_of_row = vec![NO_NAME; rows];
    let mut map_sums: Vec<_> =
        samples.iter().map(|sample| vec![[0.0; CELLS]; sample.cluster_count()]).collect();
    let mut corner_shares = vec![[f32::NAN; 4]; rows];
    for (group, start) in classes.group_starts.iter().enumerate() {
        let maps = map_distribution::read(table, group)?;
        let mut of_sample: Vec<(Vec<usize>, Vec<f32>)> = vec![Default::default(); samples.len()];
        for (at, map) in maps.iter().enumerate() {
            let Some(map) = map else { continue };
            let target = classes.target[start + at] as usize;
            let Some(index) = sample_of_class[target] else { continue };
            of_sample[index].0.push(at);
            of_sample[index].1.extend(map_distribution::square_roots(map));
        }
        for (index, (rows, points)) in of_sample.into_iter().enumerate() {
            let Some(nearest) = &nearest[index] else { continue };
            let clusters = samples[index].clustering.nearest_cluster(nearest, &points);
            for (at, cluster) in rows.into_iter().zip(clusters) {
                cluster_of_row[start + at] = cluster as u32;
                let map = maps[at].as_ref().expect("only rows with a map are assigned");
                corner_shares[start + at] = MapRegion::CORNERS.map(|corner| corner.share(map));
                for (sum, value) in map_sums[index][cluster].iter_mut().zip(map) {
                    *sum += f64::from(*value);
                }
            }
        }
    }
    Ok(MapClusters { samples, cluster: cluster_of_row, map_sums, corner_shares })
}
