//! The model parameter randomisation test: Adebayo et al. 2018, Sanity Checks for Saliency
//! Maps, <https://arxiv.org/abs/1810.03292>, section 3, randomising one part at a time.
//!
//! A map that shows what the network has learnt must change where that is replaced by chance.
//! How much it does is Spearman's rank correlation of both maps' cells. Networks with re-drawn
//! parts come from [`camshaft_model::redraw()`].

/// Networks drawn for each part, an image's correlation being the mean over them: one draw of a
/// head with two classes may by chance resemble the trained one, or its opposite.
pub const REDRAWS: usize = 3;

/// From this rank correlation on, more than half of the variance of a map's ranks is there
/// without what was re-drawn (0.7² = 0.49): what it shows is the image and the rest of the
/// network rather than that. Adebayo et al. set no threshold; in their figures methods that
/// pass are near 0 and those that fail stay well above this.
pub const HARDLY_CHANGED: f64 = 0.7;

/// Spearman's rank correlation of two maps' cells, -1 to 1; equal values share their mean rank.
/// Of two maps that are both the same everywhere 1, of one such map and another 0.
///
/// # Panics
/// Where the maps have different sizes.
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

/// Whether all of a map's values are the same, as where nothing speaks for the class.
#[must_use]
pub fn is_flat(values: &[f32]) -> bool {
    values.iter().all(|value| *value == values[0])
}

/// Ranks from 0; equal values share the mean of theirs.
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
