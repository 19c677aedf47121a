//! A classifier two-sample test: whether a linear classifier tells the points of one sample from
//! those of another (Lopez-Paz and Oquab 2017, "Revisiting classifier two-sample tests").
//!
//! The classifier is Fisher's linear discriminant (1936), fitted to half of the points of each
//! sample and tested on the other half: what it has learnt by heart does not count. Upstream: one
//! point an image, of two runs.

use super::rank_sum;

/// The least points of each sample.
pub(crate) const MIN_POINTS: usize = 50;
/// The share of the mean variance that is added to every direction, so that few points suffice. The
/// test stays valid with any share, since the points it is tested on are others.
const SHRINKAGE: f64 = 0.1;
/// The standard normal distribution's 97.5th percentile.
const Z: f64 = 1.959_963_984_540_054;

/// How well the classifier tells two samples apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SeparationTest {
    /// The chance that it ranks a point of the first sample above one of the other: the area under
    /// the ROC curve. 0.5 if it can't tell them apart.
    pub(crate) effect: f64,
    /// The 95 % interval of the effect (Hanley and McNeil 1982).
    pub(crate) interval: (f64, f64),
    /// The two-sided p-value.
    pub(crate) p: f64,
}

/// Tests two samples whose points are in no particular order. None with fewer than [`MIN_POINTS`]
/// points in one of them.
pub(crate) fn separate<const N: usize>(
    one: &[[f32; N]],
    other: &[[f32; N]],
) -> Option<SeparationTest> {
    if one.len().min(other.len()) < MIN_POINTS {
        return None;
    }
    let (fit_one, test_one) = one.split_at(one.len() / 2);
    let (fit_other, test_other) = other.split_at(other.len() / 2);
    let direction = discriminant(fit_one, fit_other);
    let score = |point: &[f32; N]| {
        point.iter().zip(&direction).map(|(a, b)| f64::from(*a) * b).sum::<f64>() as f32
    };
    let scores: Vec<f32> = test_one.iter().chain(test_other).map(score).collect();
    let group_of: Vec<u32> = (0..scores.len()).map(|at| u32::from(at >= test_one.len())).collect();
    let test = rank_sum::test_against_rest(&scores, &group_of, 1)[0];
    let interval = auc_interval(test.effect, test_one.len() as f64, test_other.len() as f64);
    Some(SeparationTest { effect: test.effect, interval, p: test.p })
}

/// The direction along which the means of two samples are farthest apart, measured by the spread
/// within the samples.
fn discriminant<const N: usize>(one: &[[f32; N]], other: &[[f32; N]]) -> Vec<f64> {
    let (mean_one, mean_other) = (mean(one), mean(other));
    let mut spread = vec![0.0; N * N];
    for (points, mean) in [(one, &mean_one), (other, &mean_other)] {
        for point in points {
            let centred: [f64; N] = std::array::from_fn(|at| f64::from(point[at]) - mean[at]);
            for (row, a) in centred.iter().enumerate() {
                for (sum, b) in spread[row * N..=row * N + row].iter_mut().zip(&centred) {
                    *sum += a * b;
                }
            }
        }
    }
    let trace: f64 = (0..N).map(|at| spread[at * N + at]).sum();
    // The least number above 0 keeps equal points from dividing by 0.
    let added = (SHRINKAGE * trace / N as f64).max(f64::MIN_POSITIVE);
    (0..N).for_each(|at| spread[at * N + at] += added);
    let difference = mean_one.iter().zip(&mean_other).map(|(a, b)| a - b).collect();
    solve(spread, difference)
}

fn mean<const N: usize>(points: &[[f32; N]]) -> [f64; N] {
    let mut sums = [0.0; N];
    for point in points {
        sums.iter_mut().zip(point).for_each(|(sum, value)| *sum += f64::from(*value));
    }
    sums.map(|sum| sum / points.len() as f64)
}

/// Solves `matrix · x = right` by Cholesky's decomposition. The lower half of the positive definite
/// matrix is read.
fn solve(mut matrix: Vec<f64>, mut right: Vec<f64>) -> Vec<f64> {
    let n = right.len();
    for row in 0..n {
        for column in 0..=row {
            let (a, b) = (&matrix[row * n..][..column], &matrix[column * n..][..column]);
            let rest = matrix[row * n + column] - a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            matrix[row * n + column] = if row == column {
                rest.max(f64::MIN_POSITIVE).sqrt()
            } else {
                rest / matrix[column * n + column]
            };
        }
    }
    for row in 0..n {
        let known: f64 = (0..row).map(|at| matrix[row * n + at] * right[at]).sum();
        right[row] = (right[row] - known) / matrix[row * n + row];
    }
    for row in (0..n).rev() {
        let known: f64 = (row + 1..n).map(|at| matrix[at * n + row] * right[at]).sum();
        right[row] = (right[row] - known) / matrix[row * n + row];
    }
    right
}

fn auc_interval(auc: f64, one: f64, other: f64) -> (f64, f64) {
    let (q1, q2) = (auc / (2.0 - auc), 2.0 * auc * auc / (1.0 + auc));
    let squared = auc * auc;
    let variance =
        (auc * (1.0 - auc) + (one - 1.0) * (q1 - squared) + (other - 1.0) * (q2 - squared))
            / (one * other);
    let half = Z * variance.max(0.0).sqrt();
    ((auc - half).max(0.0), (auc + half).min(1.0))
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_pcg::Pcg64;

    use super::*;

    fn points(count: usize, shift: f32, random: &mut Pcg64) -> Vec<[f32; 16]> {
        let mut point = || std::array::from_fn(|_| random.random::<f32>());
        let mut points: Vec<[f32; 16]> = (0..count).map(|_| point()).collect();
        points.iter_mut().for_each(|point| point[3] += shift);
        points
    }

    #[test]
    fn equations_are_solved() {
        let solved = solve(vec![4.0, 0.0, 2.0, 3.0], vec![8.0, 8.0]);
        assert!((solved[0] - 1.0).abs() < 1e-12 && (solved[1] - 2.0).abs() < 1e-12, "{solved:?}");
    }

    #[test]
    fn samples_of_one_distribution_are_told_apart_no_oftener_than_by_chance() {
        let mut random = Pcg64::seed_from_u64(1);
        let trials = (0..200).map(|_| {
            separate(&points(80, 0.0, &mut random), &points(60, 0.0, &mut random)).unwrap()
        });
        let found = trials.filter(|test| test.p < 0.05).count();
        // The binomial distribution's 99.9th percentile.
        assert!(found <= 20, "{found} of 200");
    }

    #[test]
    fn a_shift_in_one_of_many_directions_is_found() {
        let mut random = Pcg64::seed_from_u64(2);
        let test =
            separate(&points(500, 0.5, &mut random), &points(500, 0.0, &mut random)).unwrap();
        assert!(test.effect > 0.8 && test.p < 1e-20, "{test:?}");
        assert!(test.interval.0 < test.effect && test.effect < test.interval.1, "{test:?}");
    }

    #[test]
    fn equal_points_and_few_points_are_no_error() {
        let equal = [[1.0_f32; 4]; 100];
        let test = separate(&equal, &equal).unwrap();
        assert_eq!((test.effect, test.p), (0.5, 1.0));
        assert_eq!(separate(&equal[..20], &equal), None);
    }
}
