//! Moves points of the plane until neighbours of the graph lie near each other and others apart: UMAP's
//! optimisation (McInnes, Healy and Melville 2018, section 3.2 and algorithm 5).
//!
//! Attraction goes along the edges, each as often as its weight says. Each time, five points of chance push
//! away. One thread moves all, in one order, so that the same graph always gives the same layout. The
//! likeness of two points of the plane is `1 / (1 + d²)`, as in t-SNE: UMAP's curve with `a = b = 1`.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::neighbour_graph::{Edge, neighbour_graph};
use super::principal_plane::principal_plane;

/// Passes over the edges: UMAP's numbers for few and for many points.
const PASSES_OF_FEW: usize = 500;
const PASSES: usize = 200;
const FEW_POINTS: usize = 10_000;
/// Points that push away, for each pull of an edge. From UMAP, as the next two.
const PUSHES: usize = 5;
/// The half width of the plane at the start.
const START: f32 = 10.0;
/// The farthest move of a point at once, by side.
const MOST_MOVED: f32 = 4.0;
/// Keeps pushes finite.
const SMALL: f32 = 1e-3;
const SEED: u64 = 0x6d_61_70;

/// Lays out points, [N, width] and row-major.
pub(super) fn lay_out(points: &[f32], width: usize) -> Vec<[f32; 2]> {
    let mut chance = Pcg64Mcg::seed_from_u64(SEED);
    let mut plane = principal_plane(points, width);
    let far = plane.iter().flatten().fold(0.0_f32, |far, value| far.max(value.abs()));
    let scale = if far > 0.0 { START / far } else { 1.0 };
    for value in plane.iter_mut().flatten() {
        // Copies would never part without a little chance.
        *value = *value * scale + chance.random_range(-SMALL..SMALL);
    }
    move_points(&mut plane, &neighbour_graph(points, width), &mut chance);
    plane
}

fn move_points(plane: &mut [[f32; 2]], edges: &[Edge], chance: &mut Pcg64Mcg) {
    let passes = if plane.len() <= FEW_POINTS { PASSES_OF_FEW } else { PASSES };
    let heaviest = edges.iter().fold(0.0_f32, |most, edge| most.max(edge.weight));
    // The passes between two pulls of an edge. One that would never be pulled is left out.
    let mut pulled: Vec<(&Edge, f32, f32)> = edges
        .iter()
        .map(|edge| (edge, heaviest / edge.weight, heaviest / edge.weight))
        .filter(|(_, every, _)| *every <= passes as f32)
        .collect();
    for pass in 0..passes {
        let step = 1.0 - pass as f32 / passes as f32;
        for (edge, every, next) in &mut pulled {
            if *next > (pass + 1) as f32 {
                continue;
            }
            *next += *every;
            let (from, to) = (edge.from as usize, edge.to as usize);
            let (apart, squared) = between(plane[from], plane[to]);
            let pull = -2.0 / (1.0 + squared);
            for side in 0..2 {
                let by = step * (pull * apart[side]).clamp(-MOST_MOVED, MOST_MOVED);
                plane[from][side] += by;
                plane[to][side] -= by;
            }
            for _ in 0..PUSHES {
                let other = chance.random_range(0..plane.len());
                let (apart, squared) = between(plane[from], plane[other]);
                let push = 2.0 / ((SMALL + squared) * (1.0 + squared));
                for side in 0..2 {
                    let by = (push * apart[side]).clamp(-MOST_MOVED, MOST_MOVED);
                    plane[from][side] += step * by;
                }
            }
        }
    }
}

/// The way from `to` to `from`, and the square of its length.
fn between(from: [f32; 2], to: [f32; 2]) -> ([f32; 2], f32) {
    let apart = [from[0] - to[0], from[1] - to[1]];
    (apart, apart[0] * apart[0] + apart[1] * apart[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points of `width` numbers around two middles that are far apart.
    fn two_clusters(count: usize, width: usize) -> Vec<f32> {
        let mut chance = Pcg64Mcg::seed_from_u64(7);
        (0..count * width)
            .map(|at| {
                let middle = if (at / width).is_multiple_of(2) { 0.0 } else { 1.0 };
                middle + chance.random_range(-0.4..0.4)
            })
            .collect()
    }

    #[test]
    fn clusters_stay_apart_and_hold_together() {
        let plane = lay_out(&two_clusters(400, 10), 10);
        let middle = |of: usize| {
            let own = plane.iter().skip(of).step_by(2);
            [0, 1].map(|side| own.clone().map(|point| point[side]).sum::<f32>() / 200.0)
        };
        let middles = [middle(0), middle(1)];
        for (at, point) in plane.iter().enumerate() {
            let own = between(*point, middles[at % 2]).1;
            let other = between(*point, middles[1 - at % 2]).1;
            assert!(4.0 * own < other, "point {at} at {point:?}: {middles:?}");
        }
    }

    #[test]
    fn the_same_points_lie_in_the_same_places() {
        let points = two_clusters(150, 6);
        assert_eq!(lay_out(&points, 6), lay_out(&points, 6));
    }

    #[test]
    fn few_points_and_copies_have_finite_places() {
        for points in [vec![], vec![1.0; 3], vec![1.0; 6], vec![0.5; 90]] {
            let plane = lay_out(&points, 3);
            assert_eq!(plane.len(), points.len() / 3);
            assert!(plane.iter().flatten().all(|value| value.is_finite()));
        }
    }
}
