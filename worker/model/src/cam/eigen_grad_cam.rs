//! Eigen-Grad-CAM: the first principal component of activations times gradients, as in
//! pytorch-grad-cam's `EigenGradCAM`. As smooth as Eigen-CAM, but different for each class.

use camshaft_vision::heat_map::HeatMap;
use candle_core::Result;

use super::eigen_cam;
use super::gradients::Gradients;

/// One map for each target.
///
/// # Errors
/// If the device fails.
pub fn maps(layer: &Gradients) -> Result<Vec<HeatMap>> {
    eigen_cam::maps(&layer.activations.broadcast_mul(&layer.gradients)?)
}
