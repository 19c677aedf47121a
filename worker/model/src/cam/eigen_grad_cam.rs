//! Eigen-Grad-CAM: the first principal component of activations times gradients, as
//! pytorch-grad-cam's `EigenGradCAM` has it. Smooth as Eigen-CAM, and different for each class.

use candle_core::Result;

use super::{Gradients, eigen_cam};
use camshaft_vision::heat_map::HeatMap;

/// One map for each target.
///
/// # Errors
/// Where the device fails.
pub fn maps(layer: &Gradients) -> Result<Vec<HeatMap>> {
    eigen_cam::maps(&layer.activations.broadcast_mul(&layer.gradients)?)
}
