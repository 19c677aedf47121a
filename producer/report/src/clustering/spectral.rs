//! Spectral clustering with the eigengap: which groups of similar points a set falls into.
//!
//! Owns the neighbour graph, the choice of the number of clusters, and the assignment of further
//! points; `laplacian` has the eigenvectors and `k_means` the last step. Upstream: maps as feature
//! vectors. Downstream: the search for shortcuts.
//!
//! The steps are those of Ng, Jordan & Weiss 2001 ("On spectral clustering") and von Luxburg 2007
//! ("A tutorial on spectral clustering"). Their use on maps is that of SpRAy (Lapuschkin et al.
//! 2019, "Unmasking Clever Hans predictors and assessing what machines really learn").
//!
//! # Features
//! Divide each map by its sum and take the square roots of its values. The distance of two such
//! points is then the Hellinger distance of the maps, times √2: it ignores how bright a map is, and
//! weak regions count for more than by the values themselves.
//!
//! # Number of clusters
//! The eigenvalues of a graph's Laplacian tell how hard it is to cut the graph. If `k` of them are
//! small and the next one is clearly larger, there are `k` clusters (von Luxburg, section 8.3).
//!
//! Maps whose centre of attention merely wanders have no clear step: along a line the eigenvalues
//! grow as 0, 1, 4, 9, …, in more dimensions more slowly, so that each is at least a quarter of the
//! next. The step from `λ_k` to `λ_{k+1}` therefore counts as clear if `λ_k < CLEAR × λ_{k+1}`, and
//! the widest clear step is taken.
//!
//! Without a clear step the answer is one cluster. If `min_clusters` asks for more, the widest step
//! from there on decides. Points in more than `max_clusters` groups have no clear step either,
//! since their eigenvalues start with more zeros.
//!
//! # Limits
//! A cluster is found if it has about as many points as `neighbours`, and lies farther from the
//! rest than the rest is long. Chance gaps are sometimes taken for clusters if there are fewer than
//! some 100 points, or if maps lie on a line without any noise.

use super::k_means::k_means;
use super::laplacian::{BLOCK, Edge, Laplacian};
use crate::similarity::nearest_neighbours::NearestSample;

/// The largest ratio of an eigenvalue to the next that counts as a clear step. A line has 0.25 (see
/// above), and samples of 100 points of a single cloud had ratios down to 0.11.
const CLEAR: f64 = 0.1;
/// The accuracy of the solver: smaller eigenvalues may be zero.
const ZERO: f64 = 1e-6;
/// The least similarity of two neighbours, so that each point is connected.
const MIN_SIMILARITY: f64 = 1e-6;
/// Random starts of k-means; the best one is kept.
const RESTARTS: usize = 20;

/// Options of the clustering.
#[derive(Debug, Clone)]
pub(crate) struct SpectralOptions {
    /// The number of nearest neighbours that each point is connected to. The graph of a single
    /// cloud is connected from about `ln N` on (von Luxburg, section 8.2); 15 is twice that for
    /// 2,000 points.
    pub(crate) neighbours: usize,
    /// The most clusters to look for, up to 14.
    pub(crate) max_clusters: usize,
    /// The fewest clusters. With 2, points without structure are cut at their thinnest place.
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
    /// By point, its cluster in 0..`count`.
    pub(crate) clusters: Vec<usize>,
    /// The number of clusters: 1 if the points show no structure, 0 without points.
    pub(crate) count: usize,
    /// The smallest eigenvalues of the normalised Laplacian, ascending, from 0 to 2. The first
    /// `max_clusters` + 1 are accurate. Empty if there are fewer points than two neighbourhoods.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests judge the steps by them"))]
    pub(crate) eigenvalues: Vec<f64>,
}

impl Clustering {
    /// For each of `points`, [M, dimensions], the cluster of the nearest clustered point. `sample`
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

/// The number of clusters, by eigenvalues in ascending order: that of the widest clear step if it
/// is at least `min_clusters`, else that of the widest step from `min_clusters` on.
fn number_of_clusters(eigenvalues: &[f64], min_clusters: usize, max_clusters: usize) -> usize {
    let clear = widest_clear_step(eigenvalues, max_clusters);
    if clear >= min_clusters {
        return clear;
    }
    let steps = eigenvalues.windows(2).enumerate().take(max_clusters).skip(min_clusters - 1);
    let widest = steps.max_by(|(_, a), (_, b)| (a[1] - a[0]).total_cmp(&(b[1] - b[0])));
    widest.map_or(1, |(index, _)| index + 1)
}

/// The number of clusters that the widest clear step stands for; 1 without a clear step.
fn widest_clear_step(eigenvalues: &[f64], max_clusters: usize) -> usize {
    let steps = eigenvalues.windows(2).enumerate().take(max_clusters).skip(1);
    let clear = steps.filter(|(_, pair)| pair[0] + ZERO < CLEAR * (pair[1] + ZERO));
    let widest = clear.max_by(|(_, a), (_, b)| (a[1] - a[0]).total_cmp(&(b[1] - b[0])));
    widest.map_or(1, |(index, _)| index + 1)
}

/// The graph that connects each point to its nearest neighbours; an edge weighs their similarity.
///
/// The similarity is that of Zelnik-Manor & Perona 2004 ("Self-tuning spectral clustering"): it
/// takes distances relative to how far away the neighbours of the two points are, so that tight and
/// wide clusters can lie side by side. It is halved if only one point is a neighbour of the other:
/// the mean of the two directions.
fn neighbour_graph(points: &[f32], dimensions: usize, neighbours: usize) -> Vec<Edge> {
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
            // A mutual edge comes up at both ends, and is added at the lower one.
            if mutual && b < a {
                continue;
            }
            let square = squared_distance(point(a), point(b));
            let scale = radii[a as usize] * radii[b as usize];
            // Equal points are alike, however small their neighbourhoods are.
            let similarity = if square > 0.0 { (-2.0 * square / scale).exp() } else { 1.0 };
            let directions = if mutual { 1.0 } else { 0.5 };
            let weight = directions * similarity.max(MIN_SIMILARITY);
            edges.push(Edge { a: a.min(b), b: a.max(b), weight });
        }
    }
    edges
}

fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    let finite = |value: f32| if value.is_finite() { f64::from(value) } else { 0.0 };
    a.iter().zip(b).map(|(&a, &b)| (finite(a) - finite(b)).powi(2)).sum()
}

/// The first `length` numbers of a row of eigenvectors, scaled to a unit vector; then zeros.
fn unit_row(row: &[f64; BLOCK], length: usize) -> [f64; BLOCK] {
    let norm = row[..length].iter().map(|value| value * value).sum::<f64>().sqrt();
    let mut unit = [0.0; BLOCK];
    if norm > 0.0 {
        unit.iter_mut().zip(&row[..length]).for_each(|(unit, value)| *unit = value / norm);
    }
    unit
}

/// Renumbers clusters by size, those of equal size by their first point, and drops empty ones.
/// Returns the cluster of each point, and the number of clusters.
fn largest_first(clusters: &[usize], count: usize) -> (Vec<usize>, usize) {
    let mut sizes = vec![(0usize, 0usize); count];
    for (index, &cluster) in clusters.iter().enumerate().rev() {
        sizes[cluster] = (sizes[cluster].0 + 1, index);
    }
    let mut order: Vec<usize> = (0..count).filter(|&cluster| sizes[cluster].0 > 0).collect();
    order.sort_by_key(|&cluster| (std::cmp::Reverse(sizes[cluster].0), sizes[cluster].1));
    let mut renumbered = vec![0; count];
    order.iter().enumerate().for_each(|(to, &from)| renumbered[from] = to);
    (clusters.iter().map(|&cluster| renumbered[cluster]).collect(), order.len())
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
