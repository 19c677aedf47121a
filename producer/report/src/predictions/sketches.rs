//! The sketches of all images' embeddings, with or without their mean: vectors that say which images
//! look alike.
//!
//! The features of a network are zero or more, so the embeddings of any two images point in much
//! the same direction. If the mean of the data set is subtracted from each, directions differ.

use std::collections::{HashMap, HashSet};

use camshaft_common::measure::SKETCH_NUMBERS;

use crate::table::{TableError, TableReader};

/// The numbers of a sketch.
pub(crate) type SketchVector = [f32; SKETCH_NUMBERS];

/// Reads sketches and subtracts the mean of all of them.
#[derive(Debug)]
pub(crate) struct CentredSketches {
    mean: SketchVector,
}

impl CentredSketches {
    /// Reads all sketches and computes their mean; none if fewer than two images have a sketch.
    pub(crate) fn new(table: &TableReader) -> Result<Option<Self>, TableError> {
        let (mut sums, mut count) = ([0.0_f64; SKETCH_NUMBERS], 0_u64);
        let uncentred = Self::uncentred();
        for group in 0..table.groups() {
            for point in uncentred.of_group(table, group)?.into_iter().flatten() {
                count += 1;
                for (sum, value) in sums.iter_mut().zip(point) {
                    *sum += f64::from(value);
                }
            }
        }
        let mean = sums.map(|sum| (sum / count.max(1) as f64) as f32);
        Ok((count > 1).then_some(Self { mean }))
    }

    /// Subtracts nothing.
    pub(crate) fn uncentred() -> Self {
        Self { mean: [0.0; SKETCH_NUMBERS] }
    }

    /// The sketches of the rows of a row group; none for a row without.
    pub(crate) fn of_group(
        &self,
        table: &TableReader,
        group: usize,
    ) -> Result<Vec<Option<SketchVector>>, TableError> {
        let scales = table.floats(group, "sketch_scale")?;
        let sketches = table.bytes(group, "sketch")?;
        let points = sketches.iter().zip(scales).map(|(bytes, scale)| {
            let bytes: &[u8; SKETCH_NUMBERS] = bytes.as_ref()?.data().try_into().ok()?;
            let number = |at: usize| f32::from(bytes[at].cast_signed()) * scale - self.mean[at];
            Some(std::array::from_fn(number))
        });
        Ok(points.collect())
    }

    /// The sketches of these rows, by row; rows without a sketch are absent.
    pub(crate) fn of_rows(
        &self,
        table: &TableReader,
        rows: &HashSet<u32>,
    ) -> Result<HashMap<u32, SketchVector>, TableError> {
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

    /// The mean that is subtracted.
    pub(crate) fn mean(&self) -> SketchVector {
        self.mean
    }
}
