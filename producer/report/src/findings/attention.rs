//! Single images whose map lies at an odd place: on the border, in a corner, everywhere, nowhere,
//! or far from where the maps of its class usually lie.

use super::known::{Known, NONE};
use super::maps::{self, CELLS, Distribution, Place};
use super::{Found, Problem};
use crate::robust;
use crate::table::{TableError, TableReader};

/// Share of the attention in the outermost ring of cells; 0.49 of the cells are there.
const BORDER: f32 = 0.9;
/// Share of the attention in the four cells of a corner; 0.08 of the cells are there.
const CORNER: f32 = 0.75;
/// Entropy of a map that is about the same everywhere.
const FLAT: f32 = 0.995;
/// Robust standard deviations from the class's usual place.
const UNUSUAL: f64 = 5.0;
/// Fewer maps have no usual place.
const FEWEST: u64 = 30;

/// Looks at the first map of every image.
pub(super) fn find(
    table: &TableReader,
    known: &Known,
    notes: &mut Vec<String>,
) -> Result<Vec<Found>, TableError> {
    let means = means(table, known)?;
    let (mut found, mut distances) = (Vec::new(), Vec::with_capacity(table.rows()));
    for (group, start) in known.starts.iter().enumerate() {
        let entropy = table.floats(group, "map_entropy")?;
        for (at, map) in maps::read(table, group)?.iter().enumerate() {
            let (row, target) = (start + at, known.target[start + at]);
            let Some(map) = map else {
                if target != NONE {
                    let class = known.names.name(target);
                    let reason =
                        format!("Nothing in the image speaks for {class}: its map is zero");
                    found.push(Found::problem(row, Problem::Nothing, 0.6, reason));
                }
                distances.push(f32::NAN);
                continue;
            };
            judge(row, map, entropy[at], &mut found);
            let usual = means.get(target as usize).and_then(Option::as_ref);
            distances.push(usual.map_or(f32::NAN, |usual| distance(map, usual)));
        }
    }
    let spread = robust::Spread::of(&distances);
    for (row, distance) in distances.iter().enumerate() {
        let odd = spread.above(*distance);
        if odd > UNUSUAL {
            let class = known.names.name(known.target[row]);
            let reason = format!("Attention lies far from where it usually does for {class}");
            let score = (0.3 + 0.03 * (odd - UNUSUAL)).min(0.6) as f32;
            found.push(Found::problem(row, Problem::Unusual, score, reason));
        }
    }
    if distances.iter().all(|distance| distance.is_nan()) && table.rows() > 0 {
        notes.push(format!("unusual attention was not looked for: no class has {FEWEST} maps"));
    }
    Ok(found)
}

fn judge(row: usize, map: &Distribution, entropy: f32, found: &mut Vec<Found>) {
    if entropy > FLAT {
        let reason = "The map is about the same everywhere".to_owned();
        found.push(Found::problem(row, Problem::Flat, 0.45, reason));
        return;
    }
    let corner = Place::CORNERS.map(|corner| (corner, corner.share(map)));
    let most = corner.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).expect("there are four");
    if most.1 > CORNER {
        let reason =
            format!("{:.0} % of the attention lies in the {}", most.1 * 100.0, most.0.name());
        found.push(Found::problem(row, Problem::Corner, 0.35 + 0.25 * most.1, reason));
        return;
    }
    let border = Place::Border.share(map);
    if border > BORDER {
        let reason = format!("{:.0} % of the attention lies on the border", border * 100.0);
        found.push(Found::problem(row, Problem::Border, 0.3 + 0.25 * border, reason));
    }
}

/// By class id, the square roots of the mean map of the images it is explained for.
fn means(table: &TableReader, known: &Known) -> Result<Vec<Option<Distribution>>, TableError> {
    let mut sums = vec![(0_u64, [0.0_f64; CELLS]); known.names.len()];
    for (group, start) in known.starts.iter().enumerate() {
        for (at, map) in maps::read(table, group)?.iter().enumerate() {
            let Some(map) = map else { continue };
            let (count, sum) = &mut sums[known.target[start + at] as usize];
            *count += 1;
            for (sum, value) in sum.iter_mut().zip(map) {
                *sum += f64::from(*value);
            }
        }
    }
    let mean = |(count, sum): (u64, [f64; CELLS])| {
        (count >= FEWEST).then(|| sum.map(|sum| (sum / count as f64).sqrt() as f32))
    };
    Ok(sums.into_iter().map(mean).collect())
}

/// Hellinger's, 0 to 1.
fn distance(map: &Distribution, mean_roots: &Distribution) -> f32 {
    let roots = maps::roots(map);
    let squared: f32 = roots.iter().zip(mean_roots).map(|(a, b)| (a - b) * (a - b)).sum();
    (squared / 2.0).sqrt()
}
