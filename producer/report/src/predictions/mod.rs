//! The table `predictions.parquet`, one row an image: what a row holds, and what is read back.
//!
//! Owns how a result becomes a row ([`ImageRow`], [`read_results`]), and the three things that the
//! searches read for all images: classes ([`ImageClasses`]), maps ([`map_distribution`]) and
//! sketches ([`sketches`]). Upstream: the results in OUT. Downstream: the overview, the findings
//! and the comparison.

mod image_classes;
mod image_row;
pub(crate) mod map_distribution;
pub(crate) mod read_results;
pub(crate) mod sketches;

pub(crate) use image_classes::{ImageClasses, NO_NAME};
#[cfg(test)]
pub(crate) use image_row::RowPrediction;
pub(crate) use image_row::{COLUMNS, ImageRow};
