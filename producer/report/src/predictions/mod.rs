//! The table `predictions.parquet`, one row an image: what a row holds, and what is read back.
//!
//! Owns how a result becomes a row ([`ImageRow`], [`read_results`]), and the three things that the
//! searches read for all images: classes ([`ImageClasses`]), maps ([`map_distribution`]) and
//! sketches ([`sketches`]). Upstream: the results in OUT. Downstream: the overview, the findings
//! and the comparison.

mod file_digests;
mod image_classes;
mod image_examples;
mod image_features;
mod image_row;
mod label_class;
pub(crate) mod map_distribution;
mod named_classes;
pub(crate) mod read_results;
pub(crate) mod sketches;

pub(crate) use file_digests::read_file_digests;
pub(crate) use image_classes::{ImageClasses, NO_NAME};
pub(crate) use image_examples::{ImageExample, read_examples};
pub(crate) use image_features::ImageFeature;
pub(crate) use image_row::{COLUMNS, ImageRow};
#[cfg(test)]
pub(crate) use image_row::{RowFailure, RowPrediction, SketchBytes};
pub(crate) use label_class::LabelMeaning;
pub(crate) use named_classes::NamedClasses;

/// What is usual of a photograph.
#[cfg(test)]
pub(crate) fn usual_measures() -> camshaft_common::measure::ImageMeasures {
    use camshaft_common::measure::{ImageMeasures, MEASURES_VERSION, PerceptualHash};
    ImageMeasures {
        version: MEASURES_VERSION,
        brightness: 0.5,
        contrast: 0.2,
        dark_percentile: 0.2,
        bright_percentile: 0.8,
        information: 0.9,
        blur: 0.3,
        chroma: 0.2,
        perceptual_hash: PerceptualHash(0),
        border: Some([0.0; 4]),
        blocking: Some(0.0),
    }
}
