//! Searches for single images with an odd map: on the border, in a corner, the same everywhere,
//! zero, or far from the usual map of its class.

use super::finding::{Problem, RowFinding};
use crate::predictions::map_distribution::{self, CELLS, MapDistribution, MapRegion};
use crate::predictions::{ImageClasses, NO_NAME};
use crate::statistics::robust_spread::RobustSpread;
use crate::table::{TableError, TableReader};

/// The most attention that may lie on the border. The border has 0.49 of the cells.
const MAX_BORDER: f32 = 0.9;
/// The most attention that may lie in a corner. A corner has 0.08 of the cells.
const MAX_CORNER: f32 = 0.75;
/// The most entropy that a map may have. One that is the same everywhere has 1.
const MAX_ENTROPY: f32 = 0.995;
/// The most deviations by which a map may be farther from its class's mean map than usual.
const MAX_DEVIATIONS: f64 = 5.0;
/// A class with fewer maps has no mean map.
const MIN_MAPS: u64 = 30;

/// Searches the first map of every image.
pub(super) fn find(
    table: &TableReader,
    classes: &ImageClasses,
    notes: &mut Vec<String>,
) -> Result<Vec<RowFinding>, TableError> {
    let means = mean_maps(table, classes)?;
    let (mut found, mut distances) = (Vec::new(), Vec::with_capacity(table.rows()));
    for (group, start) in classes.group_starts.iter().enumerate() {
        let entropy = table.floats(group, "map_entropy")?;
        for (at, map) in map_distribution::read(table, group)?.iter().enumerate() {
            let (row, target) = (start + at, classes.target[start + at]);
            let Some(map) = map else {
                if target != NO_NAME {
                    let class = classes.names.name(target);
                    let reason =
                        format!("Nothing in the image speaks for {class}: its map is zero");
                    found.push(RowFinding::of_problem(row, Problem::Nothing, 0.6, reason));
                }
                distances.push(f32::NAN);
                continue;
            };
            judge(row, map, entropy[at], &mut found);
            let mean = means.get(target as usize).and_then(Option::as_ref);
            let distance =
                |mean| map_distribution::hellinger(&map_distribution::square_roots(map), mean);
            distances.push(mean.map_or(f32::NAN, distance));
        }
    }
    let spread = RobustSpread::of(&distances);
    for (row, distance) in distances.iter().enumerate() {
        let deviations = spread.deviations_above(*distance);
        if deviations > MAX_DEVIATIONS {
            let class = classes.names.name(classes.target[row]);
            let reason = format!("Attention lies far from where it usually does for {class}");
            let score = (0.3 + 0.03 * (deviations - MAX_DEVIATIONS)).min(0.6) as f32;
            found.push(RowFinding::of_problem(row, Problem::Unusual, score, reason));
        }
    }
    if distances.iter().all(|distance| distance.is_nan()) && table.rows() > 0 {
        notes.push(format!("unusual attention was not looked for: no class has {MIN_MAPS} maps"));
    }
    Ok(found)
}

/// Adds a finding if the map is flat, in a corner or on the border.
fn judge(row: usize, map: &MapDistribution, entropy: f32, found: &mut Vec<RowFinding>) {
    if entropy > MAX_ENTROPY {
        let reason = "The map is about the same everywhere".to_owned();
        found.push(RowFinding::of_problem(row, Problem::Flat, 0.45, reason));
        return;
    }
    let shares = MapRegion::CORNERS.map(|corner| (corner, corner.share(map)));
    let most = shares.into_iter().max_by(|a, b| a.1.total_cmp(&b.1));
    let (corner, share) = most.expect("there are four corners");
    if share > MAX_CORNER {
        let reason =
            format!("{:.0} % of the attention lies in the {}", share * 100.0, corner.name());
        found.push(RowFinding::of_problem(row, Problem::Corner, 0.35 + 0.25 * share, reason));
        return;
    }
    let border = MapRegion::Border.share(map);
    if border > MAX_BORDER {
        let reason = format!("{:.0} % of the attention lies on the border", border * 100.0);
        found.push(RowFinding::of_problem(row, Problem::Border, 0.3 + 0.25 * border, reason));
    }
}

/// By class, the square roots of the mean of the maps that explain it; none if there are too few.
fn mean_maps(
    table: &TableReader,
    classes: &ImageClasses,
) -> Result<Vec<Option<[f32; CELLS]>>, TableError> {
    let mut sums = vec![(0_u64, [0.0_f64; CELLS]); classes.names.len()];
    for (group, start) in classes.group_starts.iter().enumerate() {
        for (at, map) in map_distribution::read(table, group)?.iter().enumerate() {
            let Some(map) = map else { continue };
            let (count, sum) = &mut sums[classes.target[start + at] as usize];
            *count += 1;
            for (sum, value) in sum.iter_mut().zip(map) {
                *sum += f64::from(*value);
            }
        }
    }
    let mean = |(count, sum): (u64, [f64; CELLS])| {
        (count >= MIN_MAPS).then(|| sum.map(|sum| (sum / count as f64).sqrt() as f32))
    };
    Ok(sums.into_iter().map(mean).collect())
}
