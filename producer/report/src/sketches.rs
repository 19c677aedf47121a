//! Embeddings' sketches, taken from their mean: what is like what.
//!
//! All of a network's features are zero or more, so that every two images point in much the same
//! direction; from the data set's mean they don't.

use std::collections::{HashMap, HashSet};

use camshaft_common::measure::SKETCH_NUMBERS;

use crate::table::{TableError, TableReader};

/// A sketch as numbers.
pub(crate) type Point = [f32; SKETCH_NUMBERS];

/// The mean of all sketches.
#[derive(Debug)]
pub(crate) struct Centred {
    mean: Point,
}

impl Centred {
    /// Reads all sketches for their mean; none where fewer than two images have one.
    pub(crate) fn measure(table: &TableReader) -> Result<Option<Self>, TableError> {
        let (mut sums, mut count) = ([0.0_f64; SKETCH_NUMBERS], 0_u64);
        let whole = Self { mean: [0.0; SKETCH_NUMBERS] };
        for group in 0..table.groups() {
            for point in whole.of_group(table, group)?.into_iter().flatten() {
                count += 1;
                for (sum, value) in sums.iter_mut().zip(point) {
                    *sum += f64::from(value);
                }
            }
        }
        let mean = sums.map(|sum| (sum / count.max(1) as f64) as f32);
        Ok((count > 1).then_some(Self { mean }))
    }

    /// Each row's of a group; none where it has none.
    pub(crate) fn of_group(
        &self,
        table: &TableReader,
        group: usize,
    ) -> Result<Vec<Option<Point>>, TableError> {
        let scales = table.floats(group, "sketch_scale")?;
        let sketches = table.bytes(group, "sketch")?;
        let points = sketches.iter().zip(scales).map(|(bytes, scale)| {
            let bytes: &[u8; SKETCH_NUMBERS] = bytes.as_ref()?.data().try_into().ok()?;
            let number = |at: usize| f32::from(bytes[at].cast_signed()) * scale - self.mean[at];
            Some(std::array::from_fn(number))
        });
        Ok(points.collect())
    }

    /// Those of some rows.
    pub(crate) fn of_rows(
        &self,
        table: &TableReader,
        rows: &HashSet<u32>,
    ) -> Result<HashMap<u32, Point>, TableError> {
        let (mut points, mut row) = (HashMap::new(), 0);
        for group in 0..table.groups() {
            for point in self.of_group(table, group)? {
                if let Some(point) = point.filter(|_| rows.contains(&row)) {
                    points.insert(row, point);
                }
                row += 1;
            }
        }
        Ok(points)
    }

    /// The signs of the first 64 numbers of each row's, and whether it has one.
    pub(crate) fn signs(&self, table: &TableReader) -> Result<(Vec<u64>, Vec<bool>), TableError> {
        let (mut signs, mut there) = (Vec::new(), Vec::new());
        for group in 0..table.groups() {
            for point in self.of_group(table, group)? {
                there.push(point.is_some());
                let bits = point.iter().flat_map(|point| &point[..64]).enumerate();
                signs.push(bits.fold(0, |all, (bit, value)| all | u64::from(*value > 0.0) << bit));
            }
        }
        Ok((signs, there))
    }
}

/// Cosine of the angle between two, 0 where one is all zero.
pub(crate) fn cosine(one: &Point, other: &Point) -> f32 {
    let dot = |a: &Point, b: &Point| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let norms = (dot(one, one) * dot(other, other)).sqrt();
    if norms > 0.0 { (dot(one, other) / norms) as f32 } else { 0.0 }
}
