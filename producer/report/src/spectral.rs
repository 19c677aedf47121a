//! Spectral clustering with the eigengap: which kinds of attention a set of maps falls into.
//!
//! Owns the neighbour graph, the choice of the number of clusters, and the assignment of further
//! points; `laplacian` has the eigenvectors and `k_means` the last step. Upstream: maps as feature
//! vectors. Downstream: the findings. The use is that of SpRAy (Lapuschkin et al. 2019, "Unmasking
//! Clever Hans predictors and assessing what machines really learn"); the steps are those of Ng,
//! Jordan & Weiss 2001 ("On spectral clustering") and von Luxburg 2007 ("A tutorial on spectral
//! clustering").
//!
//! # Features
//! Give each map as the square roots of its values over their sum, so that distances are Hellinger
//! distances: maps of different brightness compare, and weak regions count for more than by the
//! values themselves.
//!
//! # Number of clusters
//! The eigenvalues of a graph's Laplacian tell how hard it is to cut: `k` small ones and then a clear
//! step to the next mean `k` clusters (von Luxburg, section 8.3). Maps whose centre of attention
//! merely wanders have no step to speak of: along a line the eigenvalues grow as 0, 1, 4, 9, …, in more
//! dimensions more slowly, so that each is at least a quarter of the next. The step from `λ_k` to
//! `λ_{k+1}` is therefore clear when `λ_k < CLEAR × λ_{k+1}`, and of the clear steps the widest is
//! taken. Without one the answer is one cluster (or, where `min_clusters` asks for more, as many as
//! the widest step says), and so it is for points that fall into more than
//! `max_clusters`: the eigenvalues then start with more zeros.
//!
//! # Limits
//! A cluster needs about as many points as `neighbours` to be found, and must be more separate than
//! the longest axis of the rest is long. Chance gaps are taken for clusters now and then below some 100
//! points, and where maps lie on a line without any noise.

use crate::k_means::k_means;
use crate::laplacian::{BLOCK, Laplacian};
use crate::nearest::NearestSample;

/// The largest ratio of an eigenvalue to the next that counts as a step between clusters. 0.25 is
/// that of a line (see above); samples of 100 points of one cloud came down to 0.11.
const CLEAR: f64 = 0.1;
/// Eigenvalues below this are not told from zero: the solver's accuracy.
const ZERO: f64 = 1e-6;
/// Least similarity of two neighbours, so that each point has some.
const LEAST_SIMILARITY: f64 = 1e-6;
/// Starts of k-means, of which the best is kept.
const RESTARTS: usize = 20;

/// What the clustering may be told.
#[derive(Debug, Clone)]
pub(crate) struct SpectralOptions {
    /// Nearest neighbours that each point is joined to. The graph of a single cloud holds together
    /// from about `ln N` on (von Luxburg, section 8.2); 15 is twice that for 2,000 points.
    pub(crate) neighbours: usize,
    /// Most clusters to look for, at most 14.
    pub(crate) max_clusters: usize,
    /// Fewest clusters: with 2, points without structure are cut where they are thinnest.
    pub(crate) min_clusters: usize,
    /// The same seed gives the same clusters.
    pub(crate) seed: u64,
}

impl Default for SpectralOptions {
    fn default() -> Self {
        Self { neighbours: 15, max_clusters: 8, min_clusters: 1, seed: 0 }
    }
}

/// Points in clusters, the largest cluster first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clustering {
    /// The cluster of each point, in 0..`count`.
    pub(crate) clusters: Vec<usize>,
    /// How many clusters; 1 where the points show no structure, 0 without points.
    pub(crate) count: usize,
    /// The smallest eigenvalues of the normalised Laplacian, ascending and within 0..=2; the first
    /// `max_clusters` + 1 are accurate. Empty for fewer points than two neighbourhoods.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests judge the steps by them"))]
    pub(crate) eigenvalues: Vec<f64>,
}

impl Clustering {
    /// The cluster of the nearest clustered point for each of `points` [M, dimensions]. `sample`
    /// holds the points that were clustered. Runs on rayon's threads.
    pub(crate) fn nearest_cluster(&self, sample: &NearestSample, points: &[f32]) -> Vec<usize> {
        let nearest = sample.nearest(points).into_iter();
        nearest.map(|point| self.clusters.get(point as usize).copied().unwrap_or(0)).collect()
    }
}

/// Clusters `points`, [N, dimensions] row-major. Numbers that are not finite count as zero.
pub(crate) fn cluster(points: &[f32], dimensions: usize, options: &SpectralOptions) -> Clustering {
    let count = points.len() / dimensions;
    let neighbours = options.neighbours.max(1);
    if count <= 2 * (neighbours + 1) {
        return Clustering {
            clusters: vec![0; count],
            count: count.min(1),
            eigenvalues: Vec::new(),
        };
    }
    let max_clusters = options.max_clusters.min(BLOCK - 2);
    let edges = neighbour_graph(points, dimensions, neighbours);
    let pairs = Laplacian::new(count, &edges).smallest(max_clusters + 1, options.seed);
    let found = number_of_clusters(&pairs.values, options.min_clusters, max_clusters);
    let rows: Vec<[f64; BLOCK]> = pairs.vectors.iter().map(|row| unit_row(row, found)).collect();
    let clusters = k_means(&rows, found, RESTARTS, options.seed);
    let (clusters, found) = largest_first(&clusters, found);
    Clustering { clusters, count: found, eigenvalues: pairs.values }
}

/// The number of clusters by eigenvalues in ascending order; without a clear step, the widest from
/// `min_clusters` on.
fn number_of_clusters(eigenvalues: &[f64], min_clusters: usize, max_clusters: usize) -> usize {
    let clear = widest_clear_step(eigenvalues, max_clusters);
    if clear >= min_clusters {
        return clear;
    }
    let steps = eigenvalues.windows(2).enumerate().take(max_clusters).skip(min_clusters - 1);
    let widest = steps.max_by(|(_, a), (_, b)| (a[1] - a[0]).total_cmp(&(b[1] - b[0])));
    widest.map_or(1, |(index, _)| index + 1)
}

/// The number of clusters (see the module's documentation) where a step is clear, else 1.
fn widest_clear_step(eigenvalues: &[f64], max_clusters: usize) -> usize {
    let steps = eigenvalues.windows(2).enumerate().take(max_clusters).skip(1);
    let clear = steps.filter(|(_, pair)| pair[0] + ZERO < CLEAR * (pair[1] + ZERO));
    let widest = clear.max_by(|(_, a), (_, b)| (a[1] - a[0]).total_cmp(&(b[1] - b[0])));
    widest.map_or(1, |(index, _)| index + 1)
}

/// Edges of the graph that joins each point to its nearest: (lower, higher, similarity).
///
/// The similarity is that of Zelnik-Manor & Perona 2004 ("Self-tuning spectral clustering"):
/// distances relative to how far the two points' own neighbours are, which lets tight and wide
/// clusters keep to themselves. It is halved where only one of two points is near to the other: the
/// mean of the two directions.
fn neighbour_graph(points: &[f32], dimensions: usize, neighbours: usize) -> Vec<(u32, u32, f64)> {
    let nearest = NearestSample::new(points, dimensions).neighbours(points, neighbours);
    let point = |index: u32| &points[index as usize * dimensions..][..dimensions];
    let nearest_of = |index: u32| &nearest[index as usize * neighbours..][..neighbours];
    let radii: Vec<f64> = nearest
        .chunks_exact(neighbours)
        .zip(0..)
        .map(|(nearest, index)| {
            squared_distance(point(index), point(nearest[neighbours - 1])).sqrt()
        })
        .collect();
    let mut edges = Vec::with_capacity(nearest.len());
    for (nearest, a) in nearest.chunks_exact(neighbours).zip(0..) {
        for &b in nearest {
            let mutual = nearest_of(b).contains(&a);
            // A mutual edge is seen from both ends and kept from the lower one.
            if mutual && b < a {
                continue;
            }
            let square = squared_distance(point(a), point(b));
            let scale = radii[a as usize] * radii[b as usize];
            // Equal points are alike however small their neighbourhoods.
            let similarity = if square > 0.0 { (-2.0 * square / scale).exp() } else { 1.0 };
            let share = if mutual { 1.0 } else { 0.5 };
            edges.push((a.min(b), a.max(b), share * similarity.max(LEAST_SIMILARITY)));
        }
    }
    edges
}

fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    let finite = |value: f32| if value.is_finite() { f64::from(value) } else { 0.0 };
    a.iter().zip(b).map(|(&a, &b)| (finite(a) - finite(b)).powi(2)).sum()
}

/// The first `length` numbers of a row of eigenvectors, made a unit vector; zeros after them.
fn unit_row(row: &[f64; BLOCK], length: usize) -> [f64; BLOCK] {
    let norm = row[..length].iter().map(|value| value * value).sum::<f64>().sqrt();
    let mut unit = [0.0; BLOCK];
    if norm > 0.0 {
        unit.iter_mut().zip(&row[..length]).for_each(|(unit, value)| *unit = value / norm);
    }
    unit
}

/// Renumbers clusters by size, and equal ones by their first point; drops empty ones.
fn largest_first(clusters: &[usize], count: usize) -> (Vec<usize>, usize) {
    let mut sizes = vec![(0usize, 0usize); count];
    for (index, &cluster) in clusters.iter().enumerate().rev() {
        sizes[cluster] = (sizes[cluster].0 + 1, index);
    }
    let mut order: Vec<usize> = (0..count).filter(|&cluster| sizes[cluster].0 > 0).collect();
    order.sort_by_key(|&cluster| (std::cmp::Reverse(sizes[cluster].0), sizes[cluster].1));
    let mut place = vec![0; count];
    order.iter().enumerate().for_each(|(to, &from)| place[from] = to);
    (clusters.iter().map(|&cluster| place[cluster]).collect(), order.len())
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_pcg::Pcg64;

    use super::*;

    fn normal(random: &mut Pcg64) -> f64 {
        let (u, v): (f64, f64) = (1.0 - random.random::<f64>(), random.random());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    /// Square roots of a 7×7 map over its sum: a bell with noise, cut off at zero as by Grad-CAM.
    fn bell(x: f64, y: f64, width: f64, noise: f64, random: &mut Pcg64) -> Vec<f32> {
        let map: Vec<f64> = (0..49)
            .map(|cell| {
                let square = (f64::from(cell % 7) - x).powi(2) + (f64::from(cell / 7) - y).powi(2);
                let bell = (-square / (2.0 * width * width)).exp();
                (bell - 0.05 + noise * normal(random)).max(0.0)
            })
            .collect();
        let sum: f64 = map.iter().sum();
        map.iter().map(|value| (value / sum).sqrt() as f32).collect()
    }

    fn about_the_middle(spread: f64, noise: f64, random: &mut Pcg64) -> Vec<f32> {
        let x = 3.0 + spread * normal(random);
        let y = 3.0 + spread * normal(random);
        bell(x, y, random.random_range(1.0..2.2), noise, random)
    }

    fn in_the_corner(x: f64, y: f64, noise: f64, random: &mut Pcg64) -> Vec<f32> {
        let (x, y) = (x + 0.2 * normal(random), y + 0.2 * normal(random));
        bell(x, y, random.random_range(0.7..1.0), noise, random)
    }

    /// `corner` maps in the corner at the top left, then maps about the middle.
    fn with_corner(count: usize, corner: usize, noise: f64, random: &mut Pcg64) -> Vec<f32> {
        (0..count)
            .flat_map(|index| match index < corner {
                true => in_the_corner(0.3, 0.3, noise, random),
                false => about_the_middle(0.8, noise, random),
            })
            .collect()
    }

    fn count(points: &[f32]) -> usize {
        cluster(points, 49, &SpectralOptions::default()).count
    }

    fn sizes(found: &Clustering) -> Vec<usize> {
        (0..found.count).map(|at| found.clusters.iter().filter(|c| **c == at).count()).collect()
    }

    #[test]
    fn noise_without_structure_is_one_cluster() {
        let mut random = Pcg64::seed_from_u64(1);
        for points in [100, 600] {
            let gaussian: Vec<f32> = (0..points * 49).map(|_| normal(&mut random) as f32).collect();
            assert_eq!(count(&gaussian), 1);
            let uniform: Vec<f32> = (0..points * 49).map(|_| random.random()).collect();
            assert_eq!(count(&uniform), 1);
        }
    }

    #[test]
    fn attention_that_wanders_is_one_cluster() {
        let mut random = Pcg64::seed_from_u64(2);
        for noise in [0.0, 0.05, 0.2] {
            for spread in [0.1, 0.3, 0.8, 1.5] {
                for points in [150, 600] {
                    let maps: Vec<f32> = (0..points)
                        .flat_map(|_| about_the_middle(spread, noise, &mut random))
                        .collect();
                    assert_eq!(count(&maps), 1, "noise {noise}, spread {spread}, {points} points");
                }
            }
        }
    }

    #[test]
    fn attention_along_a_line_is_one_cluster() {
        let mut random = Pcg64::seed_from_u64(3);
        let maps: Vec<f32> = (0..600)
            .flat_map(|_| bell(random.random_range(0.5..5.5), 3.0, 1.2, 0.02, &mut random))
            .collect();
        assert_eq!(count(&maps), 1);
    }

    #[test]
    fn maps_in_the_corner_are_their_own_cluster() {
        let mut random = Pcg64::seed_from_u64(4);
        for (points, corner) in [(2000, 30), (600, 60), (600, 300), (200, 40)] {
            for noise in [0.0, 0.05] {
                let maps = with_corner(points, corner, noise, &mut random);
                let found = cluster(&maps, 49, &SpectralOptions::default());
                assert_eq!(found.count, 2, "{corner} of {points}, {:?}", found.eigenvalues);
                let small = found.clusters[0];
                let right = (0..points)
                    .filter(|&index| (found.clusters[index] == small) == (index < corner))
                    .count();
                assert!(points - right <= corner / 10, "{right} of {points} are right");
            }
        }
    }

    #[test]
    fn four_corners_and_the_middle_are_five_clusters() {
        let mut random = Pcg64::seed_from_u64(5);
        let corners = [(0.3, 0.3), (5.7, 0.3), (0.3, 5.7), (5.7, 5.7)];
        let maps: Vec<f32> = (0..600)
            .flat_map(|index| match corners.get(index / 60) {
                Some(&(x, y)) => in_the_corner(x, y, 0.05, &mut random),
                None => about_the_middle(0.5, 0.05, &mut random),
            })
            .collect();
        let found = cluster(&maps, 49, &SpectralOptions::default());
        assert_eq!(found.count, 5, "{:?}", found.eigenvalues);
        assert_eq!(sizes(&found), [360, 60, 60, 60, 60]);
    }

    #[test]
    fn further_maps_join_the_cluster_they_are_nearest_to() {
        let mut random = Pcg64::seed_from_u64(6);
        let maps = with_corner(400, 100, 0.05, &mut random);
        let found = cluster(&maps, 49, &SpectralOptions::default());
        let further = with_corner(300, 50, 0.05, &mut random);
        let assigned = found.nearest_cluster(&NearestSample::new(&maps, 49), &further);
        let expected: Vec<usize> = (0..300).map(|index| usize::from(index < 50)).collect();
        assert_eq!(assigned, expected);
    }

    #[test]
    fn same_seed_gives_the_same_clusters() {
        let maps = with_corner(300, 60, 0.1, &mut Pcg64::seed_from_u64(7));
        let once = cluster(&maps, 49, &SpectralOptions::default());
        let again = cluster(&maps, 49, &SpectralOptions::default());
        assert_eq!((once.clusters, once.eigenvalues), (again.clusters, again.eigenvalues));
    }

    #[test]
    fn few_equal_or_strange_points_do_no_harm() {
        for points in [0, 1, 2, 3, 16, 32, 33, 34, 100] {
            for value in [0.0, 0.1, f32::NAN, f32::INFINITY] {
                let found = cluster(&vec![value; points * 49], 49, &SpectralOptions::default());
                assert_eq!((found.clusters, found.count), (vec![0; points], points.min(1)));
                assert!(found.eigenvalues.iter().all(|value| value.is_finite()));
            }
        }
    }

    #[test]
    fn maps_of_zeros_are_told_from_the_others() {
        let mut maps = with_corner(400, 0, 0.05, &mut Pcg64::seed_from_u64(8));
        maps[..100 * 49].fill(0.0);
        let found = cluster(&maps, 49, &SpectralOptions::default());
        assert_eq!(sizes(&found), [300, 100]);
    }

    #[test]
    fn many_copies_of_many_points_are_one_cluster() {
        let maps = with_corner(20, 0, 0.05, &mut Pcg64::seed_from_u64(9)).repeat(30);
        assert_eq!(count(&maps), 1);
        let pairs = with_corner(150, 0, 0.05, &mut Pcg64::seed_from_u64(9)).repeat(2);
        assert_eq!(count(&pairs), 1);
    }

    #[test]
    fn widest_of_the_clear_steps_is_taken() {
        assert_eq!(widest_clear_step(&[0.0, 0.1, 0.2, 0.3], 8), 1);
        assert_eq!(widest_clear_step(&[0.0, 0.001, 0.2, 0.3], 8), 2);
        assert_eq!(widest_clear_step(&[0.0, 0.0001, 0.01, 0.4, 0.9], 8), 3);
        assert_eq!(widest_clear_step(&[0.0; 10], 8), 1);
        assert_eq!(widest_clear_step(&[0.0, 0.0, 0.0, 0.5], 2), 1);
        assert_eq!(widest_clear_step(&[0.0], 8), 1);
    }
}
