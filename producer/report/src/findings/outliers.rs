//! Searches for images that look like no other: their embeddings point elsewhere than all others.
//!
//! Measures how far each image is from its 20th nearest in a sample of the data set (Ramaswamy,
//! Rastogi and Shim 2000): up to twenty outliers that look like each other are still far from
//! everything else. With many classes a nearer one counts. A sample keeps the time in proportion to the number of images. The distance is
//! 1 − cosine of the sketches as they are: less their mean, an image with little in it would be as
//! near to the others as they are to each other. An image is an outlier if the logarithm of its
//! distance is far above the usual.

use rayon::prelude::*;

use super::finding::{FindingKind, RowFinding};
use crate::predictions::sketches::{CentredSketches, SketchVector};
use crate::predictions::{ImageClasses, NO_NAME};
use crate::statistics::robust_spread::RobustSpread;
use crate::table::{TableError, TableReader};

/// The number of images in the sample, about.
const SAMPLE_IMAGES: usize = 2000;
/// The nearest image of the sample that counts, if there are few classes.
const MAX_NEIGHBOUR: usize = 20;
/// And if there are many. With fewer, a pair of outliers that look alike would hide each other.
const MIN_NEIGHBOUR: usize = 3;
/// A smaller sample has no usual distance.
const MIN_IMAGES: usize = 50;
/// The most deviations by which a distance may be above the usual. Tuned on eight screenshots,
/// charts and patterns among 600 photographs; of 1,400 photographs without them, three are above.
const MAX_DEVIATIONS: f64 = 3.5;
/// Nearer images are copies, or the image itself.
const MIN_DISTANCE: f32 = 1e-4;

/// Searches all images with an embedding.
pub(super) fn find(
    table: &TableReader,
    classes: &ImageClasses,
    notes: &mut Vec<String>,
) -> Result<Vec<RowFinding>, TableError> {
    let sample = sample_images(table)?;
    if sample.is_empty() {
        notes.push("outliers were not looked for: no result holds an embedding".to_owned());
        return Ok(Vec::new());
    }
    if sample.len() < MIN_IMAGES {
        notes.push(format!("outliers were not looked for in fewer than {MIN_IMAGES} images"));
        return Ok(Vec::new());
    }
    let neighbour = neighbour(sample.len(), classes);
    let mut distances = Vec::with_capacity(table.rows());
    for group in 0..table.groups() {
        let points = directions(table, group)?;
        let of_group: Vec<f32> = points
            .par_iter()
            .map(|point| {
                point.as_ref().map_or(f32::NAN, |point| distance(point, &sample, neighbour).ln())
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

/// The sketches of the rows of a row group, with length 1; none for a row without, or with zeros
/// alone.
fn directions(table: &TableReader, group: usize) -> Result<Vec<Option<SketchVector>>, TableError> {
    let normalised = |point: SketchVector| {
        let length = point.iter().map(|value| value * value).sum::<f32>().sqrt();
        (length > 0.0).then(|| point.map(|value| value / length))
    };
    let points = CentredSketches::uncentred().of_group(table, group)?;
    Ok(points.into_iter().map(|point| point.and_then(normalised)).collect())
}

/// The directions of images that are evenly spread over the table.
fn sample_images(table: &TableReader) -> Result<Vec<SketchVector>, TableError> {
    let step = table.rows().div_ceil(SAMPLE_IMAGES).max(1);
    let (mut sample, mut row) = (Vec::new(), 0);
    for group in 0..table.groups() {
        for point in directions(table, group)? {
            if row % step == 0 {
                sample.extend(point);
            }
            row += 1;
        }
    }
    Ok(sample)
}

/// Which nearest image of the sample counts: one that is still of the image's own class. With a hundred
/// classes, a sample of 2,000 has 20 images of each.
fn neighbour(sample: usize, classes: &ImageClasses) -> usize {
    let has_labels = classes.given.iter().any(|label| *label != NO_NAME);
    let of_row = if has_labels { &classes.given } else { &classes.predicted };
    let mut counts = vec![0_u64; classes.names.len()];
    let known = of_row.iter().filter(|class| **class != NO_NAME);
    known.for_each(|class| counts[*class as usize] += 1);
    let all = counts.iter().sum::<u64>() as f64;
    let shares = counts.iter().filter(|count| **count > 0).map(|count| *count as f64 / all);
    // The number of equally large classes that would have the same entropy.
    let effective = (-shares.map(|share| share * share.ln()).sum::<f64>()).exp();
    ((sample as f64 / (2.0 * effective)) as usize).clamp(MIN_NEIGHBOUR, MAX_NEIGHBOUR)
}

/// The distance, 1 − cosine, to this nearest image of the sample, or to the farthest of fewer, without
/// itself and its copies; NaN if there are none.
fn distance(point: &SketchVector, sample: &[SketchVector], neighbour: usize) -> f32 {
    let mut nearest = [f32::INFINITY; MAX_NEIGHBOUR];
    let nearest = &mut nearest[..neighbour];
    for other in sample {
        // Eight sums side by side, so that the compiler adds them with one instruction.
        let mut sums = [0.0_f32; 8];
        for (a, b) in point.as_chunks::<8>().0.iter().zip(other.as_chunks::<8>().0) {
            for lane in 0..8 {
                sums[lane] += a[lane] * b[lane];
            }
        }
        let distance = 1.0 - sums.iter().sum::<f32>();
        if distance < nearest[neighbour - 1] && distance > MIN_DISTANCE {
            let at = nearest.partition_point(|nearer| *nearer <= distance);
            nearest[at..].rotate_right(1);
            nearest[at] = distance;
        }
    }
    nearest.iter().rev().find(|distance| distance.is_finite()).copied().unwrap_or(f32::NAN)
}
