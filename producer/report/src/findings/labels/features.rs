//! What heads see of each image: its embedding, or the sketch of it that every result has.
//!
//! Features are centred and brought to one length, so that the strength of a regularisation means the
//! same for every network. Long embeddings are projected onto the axes along which they vary most.

use camshaft_common::measure::SKETCH_NUMBERS;

use crate::learning::{FeatureMatrix, FeatureMatrixBuilder, Projection};
use crate::predictions::sketches::CentredSketches;
use crate::table::{TableError, TableReader};

/// The most numbers of an embedding that are kept. Of 2,048 numbers of a ResNet-50, heads on 64, 128
/// and 256 axes are equally accurate for two classes; many classes need more.
const MAX_AXES: usize = 256;
/// Images that the axes come from, about.
const SAMPLE_IMAGES: usize = 8192;
/// Neighbouring images of the sample; those between are skipped without decoding them.
const SAMPLE_ROWS: usize = 32;
/// Embeddings that are read and projected at once. On the way 1,024 of 2,048 numbers take 100 MB.
const BATCH_ROWS: usize = 1024;
/// The squared length of each row of features.
const SQUARED_LENGTH: f32 = 128.0;

/// Features of all images.
pub(super) struct ImageFeatures {
    /// By row of the table; zeros for images without features.
    pub(super) matrix: FeatureMatrix,
    /// By row, whether the image has features.
    pub(super) exists: Vec<bool>,
    /// `embeddings` or `sketches`.
    pub(super) kind: &'static str,
}

impl ImageFeatures {
    /// Reads embeddings if the table has them, or else sketches; none if there are neither.
    pub(super) fn read(table: &TableReader) -> Result<Option<Self>, TableError> {
        match Embeddings::find(table)? {
            Some(embeddings) => embeddings.read(table).map(Some),
            None => Self::of_sketches(table),
        }
    }

    fn of_sketches(table: &TableReader) -> Result<Option<Self>, TableError> {
        let Some(sketches) = CentredSketches::new(table)? else { return Ok(None) };
        let mut matrix = FeatureMatrixBuilder::new(SKETCH_NUMBERS, table.rows());
        let mut exists = Vec::with_capacity(table.rows());
        for group in 0..table.groups() {
            for point in sketches.of_group(table, group)? {
                exists.push(point.is_some());
                let mut point = point.unwrap_or([0.0; SKETCH_NUMBERS]);
                bring_to_length(&mut point);
                matrix.push(&point);
            }
        }
        Ok(Some(Self { matrix: matrix.finish(), exists, kind: "sketches" }))
    }
}

/// The embeddings of a table.
struct Embeddings {
    /// The numbers of one. Embeddings of another length don't count.
    width: usize,
}

impl Embeddings {
    /// The embeddings of the table, if at least one image has one.
    fn find(table: &TableReader) -> Result<Option<Self>, TableError> {
        let mut width = 0;
        for group in 0..table.groups() {
            table.half_lists(group, "embedding", BATCH_ROWS, 0, |lists| {
                width = lists.iter().map(<[f32]>::len).max().unwrap_or(0);
                false
            })?;
            if width > 0 {
                return Ok(Some(Self { width }));
            }
        }
        Ok(None)
    }

    fn read(self, table: &TableReader) -> Result<ImageFeatures, TableError> {
        let sample = self.sample(table)?;
        let axes = MAX_AXES.min(self.width).min(sample.len() / self.width);
        let projection = Projection::of_sample(&sample, self.width, axes);
        drop(sample);
        let mut matrix = FeatureMatrixBuilder::new(projection.axes(), table.rows());
        let mut exists = Vec::with_capacity(table.rows());
        let mut batch = Vec::with_capacity(BATCH_ROWS * self.width);
        for group in 0..table.groups() {
            table.half_lists(group, "embedding", BATCH_ROWS, 0, |lists| {
                batch.clear();
                let first = exists.len();
                for embedding in lists.iter() {
                    let fits = embedding.len() == self.width;
                    exists.push(fits);
                    batch.extend_from_slice(if fits { embedding } else { &[] });
                    batch.resize((exists.len() - first) * self.width, 0.0);
                }
                let mut projected = projection.project(&batch);
                let rows = projected.chunks_exact_mut(projection.axes());
                for (row, exists) in rows.zip(&exists[first..]) {
                    if *exists {
                        bring_to_length(row);
                    } else {
                        row.fill(0.0);
                    }
                    matrix.push(row);
                }
                true
            })?;
        }
        Ok(ImageFeatures { matrix: matrix.finish(), exists, kind: "embeddings" })
    }

    /// The embeddings of images that are spread over the table, one after the other.
    fn sample(&self, table: &TableReader) -> Result<Vec<f32>, TableError> {
        let step = table.rows().div_ceil(SAMPLE_IMAGES).max(1);
        let mut sample = Vec::new();
        for group in 0..table.groups() {
            let skipped = SAMPLE_ROWS * (step - 1);
            table.half_lists(group, "embedding", SAMPLE_ROWS, skipped, |lists| {
                let fitting = lists.iter().filter(|embedding| embedding.len() == self.width);
                fitting.for_each(|embedding| sample.extend_from_slice(embedding));
                true
            })?;
        }
        Ok(sample)
    }
}

/// Scales a row to the length that all have.
fn bring_to_length(row: &mut [f32]) {
    let squared: f32 = row.iter().map(|value| value * value).sum();
    if squared > 0.0 && squared.is_finite() {
        let scale = (SQUARED_LENGTH / squared).sqrt();
        row.iter_mut().for_each(|value| *value *= scale);
    }
}
