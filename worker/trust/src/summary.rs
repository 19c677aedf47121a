//! What was found of single maps, put together: means, verdicts, and what they say in words.

use camshaft_common::trust::{Faithfulness, MapTrust, OverRandom, Redrawn, Sanity, Verdict};

use super::Measured;
use super::curves::{Curve, STEPS};
use super::estimate::{is_above, is_below, mean, mean_within, proportion};
use super::sanity::HARDLY_CHANGED;

/// An image's map and a random one, measured.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) map: Measured,
    pub(super) random: Measured,
}

/// An image's maps before and after a part of the network was re-drawn, compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Change {
    pub(super) correlation: f64,
    pub(super) flat: bool,
}

/// Means of one kind of map.
fn faithfulness<'a>(measured: impl Iterator<Item = &'a Measured> + Clone) -> Faithfulness {
    let each = |value: fn(&Measured) -> f64| measured.clone().map(value).collect::<Vec<_>>();
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

fn mean_curve<'a>(curves: impl Iterator<Item = &'a Curve>) -> Vec<f64> {
    let (mut sums, mut count) = (vec![0.0; STEPS + 1], 0);
    for curve in curves {
        count += 1;
        for (sum, value) in sums.iter_mut().zip(&curve.0) {
            *sum += f64::from(*value);
        }
    }
    // No image, no curve.
    if count == 0 { Vec::new() } else { sums.iter().map(|sum| sum / f64::from(count)).collect() }
}

fn over_random(pairs: &[Pair]) -> OverRandom {
    let difference = |value: fn(&Measured) -> f64| {
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

/// Of each image's changes, one for each network drawn.
fn redrawn(changes: &[Vec<Change>]) -> Redrawn {
    let of_images = changes.iter().filter(|changes| !changes.is_empty()).map(|changes| {
        changes.iter().map(|change| change.correlation).sum::<f64>() / changes.len() as f64
    });
    let rank_correlation = mean_within(&of_images.collect::<Vec<_>>(), -1.0, 1.0);
    let all: Vec<_> = changes.iter().flatten().collect();
    let flat = all.iter().filter(|change| change.flat).count() as f64;
    Redrawn {
        rank_correlation,
        flat: flat / all.len().max(1) as f64,
        verdict: is_below(&rank_correlation, HARDLY_CHANGED),
    }
}

/// All that was found of one method at one layer. `head` and `last_stage` have each image's
/// changes.
pub(super) fn map_trust(
    (method, layer): (String, String),
    pairs: &[Pair],
    (head, last_stage): (&[Vec<Change>], &[Vec<Change>]),
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
    use crate::drop::Drop;

    fn measured(road: f64) -> Measured {
        let curve = |value: f32| Curve(vec![value; STEPS + 1]);
        let drop = Drop { drop: 0.25, increased: road > 0.0 };
        Measured { drop, deletion: curve(0.25), insertion: curve(0.75), road }
    }

    fn pairs(roads: [f64; 3]) -> Vec<Pair> {
        roads.map(|road| Pair { map: measured(road), random: measured(0.01) }).into()
    }

    fn changes(correlation: f64) -> Vec<Vec<Change>> {
        let change = |by: f64| vec![Change { correlation: correlation + by, flat: by < 0.0 }; 2];
        [-0.02, 0.0, 0.02].map(change).into()
    }

    fn trust(roads: [f64; 3], head: f64, last_stage: f64) -> MapTrust {
        let name = ("grad-cam".to_owned(), "layer4".to_owned());
        map_trust(name, &pairs(roads), (&changes(head), &changes(last_stage)))
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
