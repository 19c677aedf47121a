//! Class activation maps: pure functions from features and gradients to heat maps and what
//! can be said of them in numbers.
//!
//! Knows no network (it is handed features, and a function for the rest of the net), no
//! images and no files. Upstream: [`crate::model`]. Downstream: overlays and results.

pub mod grad_cam;
pub mod statistics;

pub use statistics::MapStatistics;

/// A rectified map at the target layer's own resolution, before any scaling, so that
/// magnitudes compare across images.
#[derive(Clone, Debug, PartialEq)]
pub struct HeatMap {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Zero or more, row by row.
    pub values: Vec<f32>,
}

impl HeatMap {
    /// Whether every value is a number. A network that overflows gives maps that are not,
    /// and those must not be drawn.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        self.values.iter().all(|value| value.is_finite())
    }
}

/// What a map is asked of: one image of a batch and one of the classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CamTarget {
    /// Index of the image in the batch.
    pub image: usize,
    /// Index of the class.
    pub class: usize,
}
