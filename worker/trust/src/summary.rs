//! Summarises the measures of all images for one method at one layer: means, verdicts and warnings.
//!
//! Upstream: [`examination`](super::examination). Downstream: `trust.json`.

use camshaft_common::trust::{Faithfulness, MapTrust, OverRandom, Redrawn, Sanity, Verdict};

use super::MapMeasures;
use super::curves::{ProbabilityCurve, STEPS};
use super::estimate::{is_above, is_below, mean, mean_within, proportion};
use super::sanity::HARDLY_CHANGED;

/// The measures of an image's map, and of a random map of its size.
#[derive(Clone, Debug)]
pub(super) struct MapWithRandom {
    pub(super) map: MapMeasures,
    pub(super) random: MapMeasures,
}

/// Compares an image's map with the map of a network of which one part was re-drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct RedrawComparison {
    /// Rank correlation of both maps' cells.
    pub(super) correlation: f64,
    /// True if the re-drawn network's map has the same value everywhere.
    pub(super) flat: bool,
}

/// Means over images.
fn faithfulness<'a>(measured: impl Iterator<Item = &'a MapMeasures> + Clone) -> Faithfulness {
    let each = |value: fn(&MapMeasures) -> f64| measured.clone().map(value).collect::<Vec<_>>();
    let increased: Vec<_> = measured.clone().map(|measured| measured.drop.increased).collect();
    Faithfulness {
        average_drop: mean_within(&each(|measured| measured.drop.drop), 0.0, 1.0),
        average_increase: proportion(&increased),
        deletion_auc: mean_within(&each(|measured| measured.deletion.area()), 0.0, 1.0),
        insertion_auc: mean_within(&each(|measured| measured.insertion.area()), 0.0, 1.0),
        road: mean_within(&each(|measured| measured.road), -0.5, 0.5),
        deletion_curve: mean_curve(measured.clone().map(|measured| &measured.deletion)),
        insertion_curve: mean_curve(measured.map(|measured| &measured.insertion)),
    }
}

fn mean_curve<'a>(curves: impl Iterator<Item = &'a ProbabilityCurve>) -> Vec<f64> {
    let (mut sums, mut count) = (vec![0.0; STEPS + 1], 0);
    for curve in curves {
        count += 1;
        for (sum, value) in sums.iter_mut().zip(&curve.0) {
            *sum += f64::from(*value);
        }
    }
    // Without images there is no curve.
    if count == 0 { Vec::new() } else { sums.iter().map(|sum| sum / f64::from(count)).collect() }
}

/// The mean differences between maps and random maps, image by image.
fn over_random(pairs: &[MapWithRandom]) -> OverRandom {
    let difference = |value: fn(&MapMeasures) -> f64| {
        let differences = pairs.iter().map(|pair| value(&pair.map) - value(&pair.random));
        mean(&differences.collect::<Vec<_>>())
    };
    let road = difference(|measured| measured.road);
    OverRandom {
        average_drop: difference(|measured| measured.drop.drop),
        deletion_auc: difference(|measured| measured.deletion.area()),
        insertion_auc: difference(|measured| measured.insertion.area()),
        road,
        verdict: is_above(&road, 0.0),
    }
}

/// Summarises each image's comparisons, one for each re-drawn network.
fn redrawn(comparisons: &[Vec<RedrawComparison>]) -> Redrawn {
    let of_images =
        comparisons.iter().filter(|comparisons| !comparisons.is_empty()).map(|comparisons| {
            comparisons.iter().map(|comparison| comparison.correlation).sum::<f64>()
                / comparisons.len() as f64
        });
    let rank_correlation = mean_within(&of_images.collect::<Vec<_>>(), -1.0, 1.0);
    let all: Vec<_> = comparisons.iter().flatten().collect();
    let flat = all.iter().filter(|comparison| comparison.flat).count() as f64;
    Redrawn {
        rank_correlation,
        flat: flat / all.len().max(1) as f64,
        verdict: is_below(&rank_correlation, HARDLY_CHANGED),
    }
}

/// Summarises one method at one layer. `head` and `last_stage` have each image's comparisons.
pub(super) fn map_trust(
    (method, layer): (String, String),
    pairs: &[MapWithRandom],
    (head, last_stage): (&[Vec<RedrawComparison>], &[Vec<RedrawComparison>]),
) -> MapTrust {
    let over_random = over_random(pairs);
    let sanity = Sanity { head: redrawn(head), last_stage: redrawn(last_stage) };
    let name = format!("{method} at {layer}");
    let warnings = [
        random_warning(&name, over_random.verdict),
        redrawn_warning(&name, "head", &sanity.head),
        redrawn_warning(&name, "last stage", &sanity.last_stage),
    ];
    MapTrust {
        method,
        layer,
        faithfulness: faithfulness(pairs.iter().map(|pair| &pair.map)),
        random_maps: faithfulness(pairs.iter().map(|pair| &pair.random)),
        over_random,
        sanity,
        warnings: warnings.into_iter().flatten().collect(),
    }
}

fn random_warning(name: &str, verdict: Verdict) -> Option<String> {
    match verdict {
        Verdict::Passed => None,
        Verdict::Failed => Some(format!(
            "{name}: these maps name the pixels that matter no better than random maps do; don't \
             read them as reasons for the answers"
        )),
        Verdict::Unclear => Some(format!(
            "{name}: this sample can't tell these maps from random ones; use a larger \
             --trust-sample"
        )),
    }
}

fn redrawn_warning(name: &str, part: &str, redrawn: &Redrawn) -> Option<String> {
    let correlation = redrawn.rank_correlation.mean?;
    match redrawn.verdict {
        Verdict::Passed => None,
        Verdict::Failed => Some(format!(
            "{name}: the maps hardly change where the network's {part} is replaced by chance \
             (rank correlation {correlation:.2}); they show the image more than what the {part} \
             has learnt"
        )),
        Verdict::Unclear => Some(format!(
            "{name}: this sample can't tell whether the maps depend on the network's {part} \
             (rank correlation {correlation:.2}); use a larger --trust-sample"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::confidence_drop::ConfidenceDrop;

    fn measured(road: f64) -> MapMeasures {
        let curve = |value: f32| ProbabilityCurve(vec![value; STEPS + 1]);
        let drop = ConfidenceDrop { drop: 0.25, increased: road > 0.0 };
        MapMeasures { drop, deletion: curve(0.25), insertion: curve(0.75), road }
    }

    fn pairs(roads: [f64; 3]) -> Vec<MapWithRandom> {
        roads.map(|road| MapWithRandom { map: measured(road), random: measured(0.01) }).into()
    }

    fn comparisons(correlation: f64) -> Vec<Vec<RedrawComparison>> {
        let comparison =
            |by: f64| vec![RedrawComparison { correlation: correlation + by, flat: by < 0.0 }; 2];
        [-0.02, 0.0, 0.02].map(comparison).into()
    }

    fn trust(roads: [f64; 3], head: f64, last_stage: f64) -> MapTrust {
        let name = ("grad-cam".to_owned(), "layer4".to_owned());
        map_trust(name, &pairs(roads), (&comparisons(head), &comparisons(last_stage)))
    }

    #[test]
    fn good_maps_have_no_warning() {
        let trust = trust([0.3, 0.31, 0.32], 0.1, -0.2);
        assert!(trust.warnings.is_empty(), "{:?}", trust.warnings);
        assert_eq!(trust.over_random.verdict, Verdict::Passed);
        assert_eq!(trust.faithfulness.deletion_curve, vec![0.25; STEPS + 1]);
        assert!((trust.sanity.head.flat - 1.0 / 3.0).abs() < 1e-12);
        assert!((trust.over_random.road.mean.unwrap() - 0.3).abs() < 1e-12);
    }

    #[test]
    fn maps_that_do_not_need_the_head_are_told() {
        let trust = trust([0.3, 0.31, 0.32], 0.97, 0.2);
        assert_eq!(trust.sanity.head.verdict, Verdict::Failed);
        assert_eq!(trust.warnings.len(), 1);
        assert!(trust.warnings[0].contains("hardly change where the network's head"));
    }

    #[test]
    fn maps_no_better_than_chance_are_told() {
        let failed = trust([-0.3, -0.31, -0.32], 0.1, 0.1);
        assert!(failed.warnings[0].contains("no better than random"), "{:?}", failed.warnings);
        let unclear = trust([-0.3, 0.01, 0.32], 0.1, 0.1);
        assert!(unclear.warnings[0].contains("a larger --trust-sample"));
    }

    #[test]
    fn no_image_is_no_number() {
        let nothing = map_trust(("a".into(), "b".into()), &[], (&[], &[]));
        assert_eq!(nothing.faithfulness.road.n, 0);
        assert!(nothing.faithfulness.deletion_curve.is_empty());
    }
}
