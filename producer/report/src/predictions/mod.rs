//! The table `predictions.parquet`, one row an image: what a row holds, and what is read back.
//!
//! Owns how a result becomes a row ([`ImageRow`], [`read_results`]), and the three things that the
//! searches read for all images: classes ([`ImageClasses`]), maps ([`map_distribution`]) and
//! sketches ([`sketches`]). Upstream: the results in OUT. Downstream: the overview, the findings
//! and the comparison.

mod image_classes;
mod image_row;
mod label_class;
pub(crate) mod map_distribution;
mod named_classes;
pub(crate) mod read_results;
pub(crate) mod sketches;

pub(crate) use image_classes::{ImageClasses, NO_NAME};
pub(crate) use image_row::{COLUMNS, ImageRow};
#[cfg(test)]
pub(crate) use image_row::{RowPrediction, SketchBytes};
pub(crate) use label_class::LabelMeaning;
pub(crate) use named_classes::NamedClasses;
