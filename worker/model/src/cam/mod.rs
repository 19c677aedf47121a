//! Class activation maps: pure functions from features and gradients to heat maps and what
//! can be said of them in numbers. One file a method, each with its paper.
//!
//! Knows no network (it is handed features, gradients, and functions that run a network or
//! the rest of one), no images and no files. Upstream: [`crate`]. Downstream: overlays
//! and results.
//!
//! Methods that weigh by gradients start from [`Gradients`]. Those of the whole class give
//! the same where a global average and a linear layer follow the target layer, but for their
//! scale: `grad-cam`, `hires-cam` and `xgrad-cam` are then one map.

pub mod ablation_cam;
pub mod eigen_cam;
pub mod eigen_grad_cam;
pub mod grad_cam;
pub mod grad_cam_plus_plus;
mod gradients;
pub mod hires_cam;
pub mod layer_cam;
pub mod score_cam;
pub mod statistics;
pub mod xgrad_cam;

pub use gradients::Gradients;
pub(crate) use gradients::{classes, images};
pub use statistics::MapStatistics;

use camshaft_vision::heat_map::HeatMap;
use candle_core::{Result, Tensor};

/// What a map is asked of: one image of a batch and one of the classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CamTarget {
    /// Index of the image in the batch.
    pub image: usize,
    /// Index of the class.
    pub class: usize,
}

/// `relu(sum over C of weights * features)`: features `[P, C, H, W]` and weights `[P, C]`, f32,
/// to P maps.
fn weighted_maps(features: &Tensor, weights: &Tensor) -> Result<Vec<HeatMap>> {
    let (_, channels, height, width) = features.dims4()?;
    let features = features.reshape(((), channels, height * width))?;
    let maps = weights.contiguous()?.unsqueeze(1)?.matmul(&features)?;
    rectified(&maps.reshape(((), height, width))?)
}

/// `[P, H, W]`, any range, to P maps.
fn rectified(maps: &Tensor) -> Result<Vec<HeatMap>> {
    let (_, height, width) = maps.dims3()?;
    let maps = maps.relu()?.flatten_from(1)?.to_vec2::<f32>()?;
    Ok(maps.into_iter().map(|values| HeatMap { height, width, values }).collect())
}
