//! Which points are to lie near each other, and how much so: UMAP's fuzzy graph of nearest neighbours
//! (McInnes, Healy and Melville 2018, section 3.1).

use std::collections::BTreeMap;

use crate::similarity::nearest_neighbours::NearestSample;

/// Neighbours of each point: UMAP's default.
const NEIGHBOURS: usize = 15;
/// Halvings in the search for a point's scale.
const HALVINGS: usize = 40;

/// An edge of the graph, once for each of its two directions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Edge {
    pub(super) from: u32,
    pub(super) to: u32,
    /// Above 0, at most 1.
    pub(super) weight: f32,
}

/// The graph of points, [N, width] and row-major. Edges come in the order of their points.
pub(super) fn neighbour_graph(points: &[f32], width: usize) -> Vec<Edge> {
    let count = points.len() / width;
    let near = NearestSample::new(points, width).neighbours(points, NEIGHBOURS);
    if near.is_empty() {
        return Vec::new();
    }
    let mut weights = BTreeMap::new();
    for (from, near) in near.chunks_exact(near.len() / count).enumerate() {
        let row = |at: usize| &points[at * width..][..width];
        let distances: Vec<f32> =
            near.iter().map(|&to| distance(row(from), row(to as usize))).collect();
        for (&to, weight) in near.iter().zip(memberships(&distances)) {
            weights.insert((from as u32, to), weight);
        }
    }
    // An edge is there if either of its ends holds the other for a neighbour.
    let mut edges = BTreeMap::new();
    for (&(from, to), &weight) in &weights {
        let back = weights.get(&(to, from)).copied().unwrap_or(0.0);
        let weight = weight + back - weight * back;
        edges.insert((from, to), weight);
        edges.insert((to, from), weight);
    }
    edges.into_iter().map(|((from, to), weight)| Edge { from, to, weight }).collect()
}

/// How much of a neighbour each one is, by its distance: 1 for the nearest, and log2 of their number in
/// all. The distances are in their order.
fn memberships(distances: &[f32]) -> Vec<f32> {
    let Some(nearest) = distances.first() else { return Vec::new() };
    let wanted = (distances.len() as f32).log2();
    let with = |scale: f32| distances.iter().map(move |far| (-(far - nearest) / scale).exp());
    let (mut low, mut high) = (0.0_f32, 1e3_f32);
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        if with(middle).sum::<f32>() < wanted {
            low = middle;
        } else {
            high = middle;
        }
    }
    // If all are equally far, any scale would do.
    with(high.max(1e-6)).map(|weight| weight.max(1e-6)).collect()
}

/// The distance of two points.
pub(super) fn distance(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(one, other)| (one - other).powi(2)).sum::<f32>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memberships_are_one_for_the_nearest_and_log2_in_all() {
        let all = memberships(&[0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 1.0]);
        assert_eq!(all[0], 1.0);
        assert!((all.iter().sum::<f32>() - 3.0).abs() < 1e-3, "{all:?}");
        assert!(all.is_sorted_by(|a, b| a >= b));
        assert_eq!(memberships(&[0.5; 4]), [1.0; 4]);
    }

    #[test]
    fn edges_go_both_ways_with_one_weight() {
        let points: Vec<f32> = (0..60).map(|at| ((at * 37) % 60) as f32).collect();
        let edges = neighbour_graph(&points, 1);
        for edge in &edges {
            let back = edges.iter().find(|other| (other.from, other.to) == (edge.to, edge.from));
            assert_eq!(back.unwrap().weight, edge.weight);
            assert!(edge.weight > 0.0 && edge.weight <= 1.0 && edge.from != edge.to);
        }
        assert!(neighbour_graph(&[1.0], 1).is_empty());
    }
}
