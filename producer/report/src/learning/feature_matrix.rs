//! The features of all images, one row an image, in 16 bits a number: a million rows of 256 numbers
//! take 512 MB.

use super::products::ROW_BLOCK;

/// The largest number that is stored.
const LARGEST: f32 = i16::MAX as f32;

/// Rows of features. Each row has a scale of its own; a number is a 16-bit integer times the scale.
#[derive(Debug)]
pub(crate) struct FeatureMatrix {
    width: usize,
    /// The width with zeros up to a multiple of [`ROW_BLOCK`].
    stored_width: usize,
    values: Vec<i16>,
    scales: Vec<f32>,
}

/// A matrix that rows are added to.
#[derive(Debug)]
pub(crate) struct FeatureMatrixBuilder(FeatureMatrix);

impl FeatureMatrixBuilder {
    /// An empty matrix of rows of `width` numbers, with room for `rows`.
    pub(crate) fn new(width: usize, rows: usize) -> Self {
        let stored_width = width.next_multiple_of(ROW_BLOCK);
        let values = Vec::with_capacity(rows * stored_width);
        let scales = Vec::with_capacity(rows);
        Self(FeatureMatrix { width, stored_width, values, scales })
    }

    /// Adds a row. Numbers that are not finite count as 0.
    pub(crate) fn push(&mut self, row: &[f32]) {
        let matrix = &mut self.0;
        assert_eq!(row.len(), matrix.width, "rows have one width");
        let finite = |value: &f32| if value.is_finite() { *value } else { 0.0 };
        let largest = row.iter().map(|value| finite(value).abs()).fold(0.0, f32::max);
        let scale = if largest > 0.0 { largest / LARGEST } else { 1.0 };
        matrix.values.extend(row.iter().map(|value| (finite(value) / scale).round() as i16));
        matrix.scales.push(scale);
        matrix.values.resize(matrix.scales.len() * matrix.stored_width, 0);
    }

    /// The matrix of the rows so far.
    pub(crate) fn finish(self) -> FeatureMatrix {
        self.0
    }
}

impl FeatureMatrix {
    /// The number of rows.
    #[cfg(test)]
    pub(crate) fn rows(&self) -> usize {
        self.scales.len()
    }

    /// The numbers of a row.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// The numbers of a row and the zeros after them.
    pub(super) fn stored_width(&self) -> usize {
        self.stored_width
    }

    /// Writes a row, with the zeros after it.
    #[inline(always)]
    pub(super) fn read(&self, row: u32, into: &mut [f32]) {
        let scale = self.scales[row as usize];
        let stored = &self.values[row as usize * self.stored_width..][..self.stored_width];
        let into = &mut into[..stored.len()];
        let mut at = 0;
        while at < stored.len() {
            into[at] = stored[at] as f32 * scale;
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_as_they_were_added_within_a_thirty_thousandth() {
        let mut builder = FeatureMatrixBuilder::new(3, 2);
        builder.push(&[0.5, -2.0, 1e-3]);
        builder.push(&[0.0, f32::NAN, 0.0]);
        let matrix = builder.finish();
        assert_eq!((matrix.rows(), matrix.width()), (2, 3));
        let mut row = vec![9.0; matrix.stored_width()];
        matrix.read(0, &mut row);
        let expected = [0.5, -2.0, 1e-3, 0.0];
        assert!(row.iter().zip(expected).all(|(a, b)| (a - b).abs() < 4e-5), "{row:?}");
        matrix.read(1, &mut row);
        assert_eq!(row, [0.0; 4]);
    }
}
