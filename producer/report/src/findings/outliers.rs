//! Searches for images that look like no other: their embeddings are far from all others.
//!
//! Measures the mean distance of each image to the ten nearest of a sample of the data set
//! (Ramaswamy, Rastogi and Shim 2000). A sample keeps the time in proportion to the number of
//! images. An image is an outlier if the logarithm of its distance is far above the usual.

use rayon::prelude::*;

use super::finding::{FindingKind, RowFinding};
use crate::predictions::sketches::{CentredSketches, SketchVector};
use crate::statistics::robust_spread::RobustSpread;
use crate::table::{TableError, TableReader};

/// The number of images in the sample, about.
const SAMPLE_IMAGES: usize = 2000;
/// The nearest images of the sample that count.
const NEIGHBOURS: usize = 10;
/// A smaller sample has no usual distance.
const MIN_IMAGES: usize = 50;
/// The most deviations by which a distance may be above the usual.
const MAX_DEVIATIONS: f64 = 4.0;

/// Searches all images with an embedding.
pub(super) fn find(
    table: &TableReader,
    notes: &mut Vec<String>,
) -> Result<Vec<RowFinding>, TableError> {
    let Some(sketches) = CentredSketches::new(table)? else {
        notes.push("outliers were not looked for: no result holds an embedding".to_owned());
        return Ok(Vec::new());
    };
    let rows = table.rows();
    let sample = sample_images(table, &sketches)?;
    if sample.len() < MIN_IMAGES {
        notes.push(format!("outliers were not looked for in fewer than {MIN_IMAGES} images"));
        return Ok(Vec::new());
    }
    let mut distances = Vec::with_capacity(rows);
    for group in 0..table.groups() {
        let points = sketches.of_group(table, group)?;
        let of_group: Vec<f32> = points
            .par_iter()
            .map(|point| {
                point.as_ref().map_or(f32::NAN, |point| mean_distance(point, &sample).ln())
            })
            .collect();
        distances.extend(of_group);
    }
    let spread = RobustSpread::of(&distances);
    let mut found = Vec::new();
    for (row, distance) in distances.iter().enumerate() {
        let deviations = spread.deviations_above(*distance);
        if deviations > MAX_DEVIATIONS {
            let times = (f64::from(*distance) - spread.median).exp();
            let reason = format!(
                "Looks like no other image: {times:.1} times as far from its nearest as is usual"
            );
            let score = (0.3 + 0.05 * (deviations - MAX_DEVIATIONS)).min(0.65) as f32;
            found.push(RowFinding::new(row, FindingKind::Outlier, score, reason));
        }
    }
    Ok(found)
}

/// The sketches of images that are evenly spread over the table.
fn sample_images(
    table: &TableReader,
    sketches: &CentredSketches,
) -> Result<Vec<SketchVector>, TableError> {
    let step = table.rows().div_ceil(SAMPLE_IMAGES).max(1);
    let (mut sample, mut row) = (Vec::new(), 0);
    for group in 0..table.groups() {
        for point in sketches.of_group(table, group)? {
            if row % step == 0 {
                sample.extend(point);
            }
            row += 1;
        }
    }
    Ok(sample)
}

/// The mean distance to the nearest images of the sample, without itself and its copies; NaN if
/// there are none.
fn mean_distance(point: &SketchVector, sample: &[SketchVector]) -> f32 {
    let mut nearest = [f32::INFINITY; NEIGHBOURS];
    for other in sample {
        // Eight sums side by side, so that the compiler adds them with one instruction.
        let mut sums = [0.0_f32; 8];
        for (a, b) in point.as_chunks::<8>().0.iter().zip(other.as_chunks::<8>().0) {
            for lane in 0..8 {
                let difference = a[lane] - b[lane];
                sums[lane] += difference * difference;
            }
        }
        let squared: f32 = sums.iter().sum();
        if squared < nearest[NEIGHBOURS - 1] && squared > 1e-6 {
            let at = nearest.partition_point(|nearer| *nearer <= squared);
            nearest[at..].rotate_right(1);
            nearest[at] = squared;
        }
    }
    let found = nearest.iter().filter(|squared| squared.is_finite());
    let (count, sum) =
        found.fold((0.0, 0.0), |(count, sum), squared| (count + 1.0, sum + squared.sqrt()));
    if count > 0.0 { sum / count } else { f32::NAN }
}
