//! Images that look like no other: far from their nearest neighbours among the embeddings.
//!
//! The mean distance to the ten nearest of a sample of the data set (Ramaswamy, Rastogi and Shim
//! 2000), so that a million images cost a million times the sample. An image is an outlier where
//! the logarithm of its distance is far above what is usual.

use rayon::prelude::*;

use super::{FindingKind, Found};
use crate::robust;
use crate::sketches::{Centred, Point};
use crate::table::{TableError, TableReader};

/// Images that others are compared with.
const SAMPLE: usize = 2000;
/// Nearest ones that count.
const NEIGHBOURS: usize = 10;
/// Fewer images have no usual distance.
const FEWEST: usize = 50;
/// Robust standard deviations that make an outlier.
const ODD: f64 = 4.0;

/// Looks at all images with an embedding.
pub(super) fn find(table: &TableReader, notes: &mut Vec<String>) -> Result<Vec<Found>, TableError> {
    let Some(centre) = Centred::measure(table)? else {
        notes.push("outliers were not looked for: no result holds an embedding".to_owned());
        return Ok(Vec::new());
    };
    let rows = table.rows();
    let sample = sample(table, &centre)?;
    if sample.len() < FEWEST {
        notes.push(format!("outliers were not looked for in fewer than {FEWEST} images"));
        return Ok(Vec::new());
    }
    let mut distances = Vec::with_capacity(rows);
    for group in 0..table.groups() {
        let points = centre.of_group(table, group)?;
        let of_group: Vec<f32> = points
            .par_iter()
            .map(|point| point.as_ref().map_or(f32::NAN, |point| distance(point, &sample).ln()))
            .collect();
        distances.extend(of_group);
    }
    let spread = robust::Spread::of(&distances);
    let mut found = Vec::new();
    for (row, distance) in distances.iter().enumerate() {
        let odd = spread.above(*distance);
        if odd > ODD {
            let times = (f64::from(*distance) - spread.median).exp();
            let reason = format!(
                "Looks like no other image: {times:.1} times as far from its nearest as is usual"
            );
            let score = (0.3 + 0.05 * (odd - ODD)).min(0.65) as f32;
            found.push(Found::new(row, FindingKind::Outlier, score, reason));
        }
    }
    Ok(found)
}

/// Every so many-th image's.
fn sample(table: &TableReader, centre: &Centred) -> Result<Vec<Point>, TableError> {
    let step = table.rows().div_ceil(SAMPLE).max(1);
    let (mut sample, mut row) = (Vec::new(), 0);
    for group in 0..table.groups() {
        for point in centre.of_group(table, group)? {
            if row % step == 0 {
                sample.extend(point);
            }
            row += 1;
        }
    }
    Ok(sample)
}

/// Mean distance to the nearest of the sample, itself and its copies aside.
fn distance(point: &Point, sample: &[Point]) -> f32 {
    let mut nearest = [f32::INFINITY; NEIGHBOURS];
    for other in sample {
        // Eight sums side by side, so that they can be added at once.
        let mut sums = [0.0_f32; 8];
        for (a, b) in point.as_chunks::<8>().0.iter().zip(other.as_chunks::<8>().0) {
            for lane in 0..8 {
                let difference = a[lane] - b[lane];
                sums[lane] += difference * difference;
            }
        }
        let squared: f32 = sums.iter().sum();
        if squared < nearest[NEIGHBOURS - 1] && squared > 1e-6 {
            let at = nearest.partition_point(|known| *known <= squared);
            nearest[at..].rotate_right(1);
            nearest[at] = squared;
        }
    }
    let found = nearest.iter().filter(|squared| squared.is_finite());
    let (count, sum) =
        found.fold((0.0, 0.0), |(count, sum), squared| (count + 1.0, sum + squared.sqrt()));
    if count > 0.0 { sum / count } else { f32::NAN }
}
