//! The plane along which points vary most: where a layout starts, so that what lies far apart stays so.

/// Rounds of power iteration for each axis.
const ROUNDS: usize = 100;

/// Projects points, [N, width] and row-major, onto their two principal axes.
pub(super) fn principal_plane(points: &[f32], width: usize) -> Vec<[f32; 2]> {
    let rows = points.chunks_exact(width);
    let count = rows.len().max(1) as f64;
    let mut mean = vec![0.0_f64; width];
    for row in rows.clone() {
        mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
    }
    mean.iter_mut().for_each(|sum| *sum /= count);
    let mut covariance = vec![0.0_f64; width * width];
    let mut centred = vec![0.0_f64; width];
    for row in rows.clone() {
        for ((into, value), mean) in centred.iter_mut().zip(row).zip(&mean) {
            *into = f64::from(*value) - mean;
        }
        for (into, one) in covariance.chunks_exact_mut(width).zip(&centred) {
            into.iter_mut().zip(&centred).for_each(|(sum, other)| *sum += one * other);
        }
    }
    let first = main_axis(&covariance, None, width);
    let second = main_axis(&covariance, Some(&first), width);
    let along = |row: &[f32], axis: &[f64]| {
        let terms = row.iter().zip(&mean).zip(axis);
        terms.map(|((value, mean), axis)| (f64::from(*value) - mean) * axis).sum::<f64>() as f32
    };
    rows.map(|row| [along(row, &first), along(row, &second)]).collect()
}

/// The axis of the largest variance that is orthogonal to `other`. Zeros if nothing varies.
fn main_axis(covariance: &[f64], other: Option<&[f64]>, width: usize) -> Vec<f64> {
    // Any start does that is orthogonal to no axis by construction.
    let mut axis: Vec<f64> = (0..width).map(|at| 1.0 / (at + 1) as f64).collect();
    for _ in 0..ROUNDS {
        if let Some(other) = other {
            let along = dot(&axis, other);
            axis.iter_mut().zip(other).for_each(|(value, other)| *value -= along * other);
        }
        axis = covariance.chunks_exact(width).map(|row| dot(row, &axis)).collect();
        let length = dot(&axis, &axis).sqrt();
        if length < 1e-12 {
            return vec![0.0; width];
        }
        axis.iter_mut().for_each(|value| *value /= length);
    }
    axis
}

fn dot(one: &[f64], other: &[f64]) -> f64 {
    one.iter().zip(other).map(|(one, other)| one * other).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axes_are_those_of_the_largest_variance() {
        let points: Vec<f32> = (0..100)
            .flat_map(|at| {
                let (far, near) = ((at % 10) as f32, (at / 10) as f32);
                [5.0 + 0.1 * near, 3.0 * far, 7.0, near]
            })
            .collect();
        let plane = principal_plane(&points, 4);
        let spread = |side: usize| {
            let values = plane.iter().map(|point| point[side]);
            values.clone().fold(f32::MIN, f32::max) - values.fold(f32::MAX, f32::min)
        };
        assert!((spread(0) - 27.0).abs() < 0.1, "{}", spread(0));
        assert!((spread(1) - 9.05).abs() < 0.1, "{}", spread(1));
    }

    #[test]
    fn points_that_do_not_vary_lie_in_one_place() {
        assert_eq!(principal_plane(&[2.0; 12], 3), [[0.0; 2]; 4]);
    }
}
