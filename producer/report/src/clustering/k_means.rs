//! k-means (Lloyd 1982) from k-means++ starts (Arthur & Vassilvitskii 2007).
//!
//! Owns the partition of points around centres, not the choice of the number of centres. Upstream
//! and downstream: `spectral`, which gives it rows of eigenvectors.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

/// The most iterations of Lloyd's algorithm. Rows of eigenvectors need fewer than ten.
const MAX_ITERATIONS: usize = 100;

/// The cluster of each point, in 0..`clusters`. Of `restarts` random starts it takes the one with
/// the smallest sum of squared distances to the centres.
///
/// If there are fewer distinct points than clusters, some clusters stay empty. The same seed gives
/// the same clusters.
pub(crate) fn k_means<const D: usize>(
    points: &[[f64; D]],
    clusters: usize,
    restarts: usize,
    seed: u64,
) -> Vec<usize> {
    let mut random = Pcg64::seed_from_u64(seed);
    let mut best = (f64::INFINITY, vec![0; points.len()]);
    if points.is_empty() || clusters < 2 {
        return best.1;
    }
    for _ in 0..restarts {
        let (cost, assigned) = lloyd(points, draw_centres(points, clusters, &mut random));
        if cost < best.0 {
            best = (cost, assigned);
        }
    }
    best.1
}

/// The first centres, by k-means++: each one is a point, drawn with a chance in proportion to its
/// squared distance to the nearest centre before it.
fn draw_centres<const D: usize>(
    points: &[[f64; D]],
    clusters: usize,
    random: &mut Pcg64,
) -> Vec<[f64; D]> {
    let mut centres = vec![points[random.random_range(0..points.len())]];
    let mut squares = vec![f64::INFINITY; points.len()];
    while centres.len() < clusters {
        let newest = centres[centres.len() - 1];
        for (square, point) in squares.iter_mut().zip(points) {
            *square = square.min(squared_distance(point, &newest));
        }
        let mut left = random.random::<f64>() * squares.iter().sum::<f64>();
        let chosen = squares.iter().position(|&square| {
            left -= square;
            left < 0.0
        });
        // There is none if every point is a centre already, or by rounding. Then any point will do.
        centres.push(points[chosen.unwrap_or(points.len() - 1)]);
    }
    centres
}

/// Moves the centres until no point changes its cluster. Returns the sum of squared distances and
/// the cluster of each point.
fn lloyd<const D: usize>(points: &[[f64; D]], mut centres: Vec<[f64; D]>) -> (f64, Vec<usize>) {
    let mut assigned = vec![usize::MAX; points.len()];
    let mut cost = 0.0;
    for _ in 0..MAX_ITERATIONS {
        let mut moved = false;
        let mut sums = vec![([0.0; D], 0.0); centres.len()];
        cost = 0.0;
        for (point, assigned) in points.iter().zip(&mut assigned) {
            let (nearest, square) = nearest_centre(point, &centres);
            moved |= *assigned != nearest;
            *assigned = nearest;
            cost += square;
            let (sum, count) = &mut sums[nearest];
            sum.iter_mut().zip(point).for_each(|(sum, value)| *sum += value);
            *count += 1.0;
        }
        if !moved {
            break;
        }
        // The centre of an empty cluster stays where it is.
        for (centre, (sum, count)) in centres.iter_mut().zip(sums) {
            if count > 0.0 {
                *centre = sum.map(|sum| sum / count);
            }
        }
    }
    (cost, assigned)
}

fn nearest_centre<const D: usize>(point: &[f64; D], centres: &[[f64; D]]) -> (usize, f64) {
    let squares = centres.iter().map(|centre| squared_distance(point, centre));
    let nearest = squares.enumerate().min_by(|a, b| a.1.total_cmp(&b.1));
    nearest.unwrap_or((0, 0.0))
}

fn squared_distance<const D: usize>(a: &[f64; D], b: &[f64; D]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn far_groups_of_unequal_size_are_told_apart() {
        let mut random = Pcg64::seed_from_u64(5);
        let centres = [[0.0, 0.0], [9.0, 0.0], [0.0, 9.0], [9.0, 9.0]];
        let group: Vec<usize> =
            [0; 500].into_iter().chain([1; 5]).chain([2; 60]).chain([3; 7]).collect();
        let points: Vec<[f64; 2]> = group
            .iter()
            .map(|&group| centres[group].map(|x| x + random.random_range(-0.5..0.5)))
            .collect();
        for seed in 0..20 {
            let found = k_means(&points, 4, 20, seed);
            for (a, group_of_a) in group.iter().enumerate() {
                for (b, group_of_b) in group.iter().enumerate().skip(a) {
                    assert_eq!(found[a] == found[b], group_of_a == group_of_b);
                }
            }
        }
    }

    #[test]
    fn too_few_distinct_points_leave_clusters_empty() {
        assert!(k_means::<1>(&[], 3, 10, 0).is_empty());
        assert!(k_means(&[[2.0]; 9], 3, 10, 0).iter().all(|&cluster| cluster < 3));
        let two = k_means(&[[1.0], [2.0], [1.0]], 3, 10, 0);
        assert!(two[0] == two[2] && two[0] != two[1]);
    }

    #[test]
    fn same_seed_gives_the_same_clusters() {
        let points: Vec<[f64; 1]> = (0..100).map(|i| [f64::from(i * i % 37)]).collect();
        assert_eq!(k_means(&points, 5, 3, 11), k_means(&points, 5, 3, 11));
    }
}
