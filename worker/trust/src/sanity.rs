//! The model parameter randomisation test: Adebayo et al. 2018, Sanity Checks for Saliency
//! Maps, <https://arxiv.org/abs/1810.03292>, section 3, randomising one part at a time.
//!
//! A map that shows what the network has learnt must change if the learnt weights are replaced by
//! random ones. Spearman's rank correlation of both maps' cells tells how much it changed.
//!
//! Does not run networks. Upstream: [`examination`](super::examination), which makes the networks
//! with [`camshaft_model::redraw()`].

/// Networks drawn for each part. An image's correlation is the mean over them: a single random head
/// of two classes may by chance resemble the trained one, or its opposite.
pub const REDRAWS: usize = 3;

/// A map hardly changed if its rank correlation is at least this: half of the variance of its ranks
/// (0.7² = 0.49) does not depend on the re-drawn part. The map then shows the image and the rest of
/// the network. Adebayo et al. set no threshold. In their figures, methods that pass are near 0,
/// and methods that fail are well above 0.7.
pub const HARDLY_CHANGED: f64 = 0.7;

/// Spearman's rank correlation of two maps' cells, -1 to 1. Equal values share their mean rank. It
/// is 1 if both maps are flat, and 0 if one of them is.
///
/// # Panics
/// If the maps have different sizes.
#[must_use]
pub fn rank_correlation(one: &[f32], other: &[f32]) -> f64 {
    assert_eq!(one.len(), other.len(), "both maps are of the same layer");
    match (is_flat(one), is_flat(other)) {
        (true, true) => return 1.0,
        (false, false) => {}
        _ => return 0.0,
    }
    let [one, other] = [ranks(one), ranks(other)];
    // Ranks always have the same mean.
    let mean = (one.len() as f64 - 1.0) / 2.0;
    let product = |a: &[f64], b: &[f64]| -> f64 {
        a.iter().zip(b).map(|(a, b)| (a - mean) * (b - mean)).sum()
    };
    product(&one, &other) / (product(&one, &one) * product(&other, &other)).sqrt()
}

/// True if all of a map's values are the same, for example all zero.
#[must_use]
pub fn is_flat(values: &[f32]) -> bool {
    values.iter().all(|value| *value == values[0])
}

/// Ranks from 0; equal values share their mean rank.
fn ranks(values: &[f32]) -> Vec<f64> {
    let mut order: Vec<_> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    for equals in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = first as f64 + (equals.len() - 1) as f64 / 2.0;
        for &at in equals {
            ranks[at] = rank;
        }
        first += equals.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_order_counts() {
        let map = [0.1, 5.0, 0.3, 0.2];
        assert_eq!(rank_correlation(&map, &map.map(|v: f32| v.powi(3))), 1.0);
        assert_eq!(rank_correlation(&map, &map.map(|v| -v)), -1.0);
    }

    #[test]
    fn equal_values_share_their_rank() {
        assert_eq!(ranks(&[0.0, 2.0, 0.0, 1.0]), [0.5, 3.0, 0.5, 2.0]);
        // scipy.stats.spearmanr([0, 0, 1, 2, 3], [1, 0, 0, 2, 5]), from its definition: ranks
        // less their mean are (-1.5, -1.5, 0, 1, 2) and (0, -1.5, -1.5, 1, 2).
        let found = rank_correlation(&[0.0, 0.0, 1.0, 2.0, 3.0], &[1.0, 0.0, 0.0, 2.0, 5.0]);
        assert!((found - 7.25 / 9.5).abs() < 1e-12, "{found}");
    }

    #[test]
    fn flat_maps_have_an_answer_too() {
        assert_eq!(rank_correlation(&[0.0; 3], &[0.0; 3]), 1.0);
        assert_eq!(rank_correlation(&[0.0; 3], &[0.0, 1.0, 2.0]), 0.0);
    }
}
