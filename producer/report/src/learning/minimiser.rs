//! Finds the minimum of a smooth convex function by L-BFGS (Nocedal 1980; Nocedal and Wright 2006,
//! algorithm 7.5).

use std::collections::VecDeque;

/// The steps that the curvature is estimated from.
const MEMORY: usize = 10;
/// The most steps. Weak strengths on separable classes never end.
const MAX_STEPS: usize = 60;
/// The search ends if the gradient is shorter than this share of its length at the start.
const GRADIENT_TOLERANCE: f64 = 1e-3;
/// The search ends if a step lowers the value by less than this share, which is what sums of `f32`
/// can tell.
const VALUE_TOLERANCE: f64 = 1e-6;
/// Sufficient decrease: the usual constant of Armijo's condition.
const DECREASE: f64 = 1e-4;
/// The most halvings of one step.
const MAX_HALVINGS: usize = 20;

/// A step and how the gradient changed along it.
struct Curvature {
    step: Vec<f64>,
    change: Vec<f64>,
    /// 1 / (step · change).
    inverse: f64,
}

/// Returns the point with the smallest value. `evaluate` returns the value at a point and writes the
/// gradient there.
pub(super) fn minimise(
    start: Vec<f64>,
    mut evaluate: impl FnMut(&[f64], &mut [f64]) -> f64,
) -> Vec<f64> {
    let (mut point, mut gradient) = (start, Vec::new());
    gradient.resize(point.len(), 0.0);
    let mut value = evaluate(&point, &mut gradient);
    let short_enough = dot(&gradient, &gradient).sqrt() * GRADIENT_TOLERANCE;
    let mut curvatures: VecDeque<Curvature> = VecDeque::new();
    for _ in 0..MAX_STEPS {
        let length = dot(&gradient, &gradient).sqrt();
        if length <= short_enough || length == 0.0 {
            break;
        }
        let direction = direction(&gradient, &curvatures);
        let slope = dot(&gradient, &direction);
        // Without curvatures nothing says how far to go.
        let mut share = if curvatures.is_empty() { (1.0 / length).min(1.0) } else { 1.0 };
        let (mut next, mut next_gradient) = (point.clone(), gradient.clone());
        let mut next_value = value;
        let mut went = false;
        for _ in 0..MAX_HALVINGS {
            for ((next, at), direction) in next.iter_mut().zip(&point).zip(&direction) {
                *next = at + share * direction;
            }
            next_value = evaluate(&next, &mut next_gradient);
            went = next_value <= value + DECREASE * share * slope;
            if went {
                break;
            }
            share *= 0.5;
        }
        if !went {
            break;
        }
        let step: Vec<f64> = next.iter().zip(&point).map(|(new, old)| new - old).collect();
        let change: Vec<f64> =
            next_gradient.iter().zip(&gradient).map(|(new, old)| new - old).collect();
        let product = dot(&step, &change);
        if product > 0.0 {
            if curvatures.len() == MEMORY {
                curvatures.pop_front();
            }
            curvatures.push_back(Curvature { step, change, inverse: 1.0 / product });
        }
        let gained = value - next_value;
        (point, gradient, value) = (next, next_gradient, next_value);
        if gained <= VALUE_TOLERANCE * value.abs() {
            break;
        }
    }
    point
}

/// The direction of the next step: the gradient times the estimated inverse of the curvature.
fn direction(gradient: &[f64], curvatures: &VecDeque<Curvature>) -> Vec<f64> {
    let mut direction: Vec<f64> = gradient.iter().map(|value| -value).collect();
    let mut weights = Vec::with_capacity(curvatures.len());
    for curvature in curvatures.iter().rev() {
        let weight = curvature.inverse * dot(&curvature.step, &direction);
        add(&mut direction, -weight, &curvature.change);
        weights.push(weight);
    }
    if let Some(last) = curvatures.back() {
        let scale = 1.0 / (last.inverse * dot(&last.change, &last.change));
        direction.iter_mut().for_each(|value| *value *= scale);
    }
    for (curvature, weight) in curvatures.iter().zip(weights.into_iter().rev()) {
        let correction = curvature.inverse * dot(&curvature.change, &direction);
        add(&mut direction, weight - correction, &curvature.step);
    }
    direction
}

fn dot(one: &[f64], other: &[f64]) -> f64 {
    one.iter().zip(other).map(|(a, b)| a * b).sum()
}

fn add(sums: &mut [f64], factor: f64, values: &[f64]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += factor * value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_valley_is_followed_to_its_lowest_point() {
        let weights = [1.0, 100.0, 0.01, 30.0];
        let lowest = [3.0, -1.0, 20.0, 0.5];
        let found = minimise(vec![0.0; 4], |point, gradient| {
            let mut value = 1.0;
            let terms = gradient.iter_mut().zip(point).zip(weights).zip(lowest);
            for (((slope, at), weight), lowest) in terms {
                *slope = weight * (at - lowest);
                value += 0.5 * weight * (at - lowest).powi(2);
            }
            value
        });
        for (found, lowest) in found.iter().zip(lowest) {
            assert!((found - lowest).abs() < 0.3, "{found} {lowest}");
        }
    }
}
