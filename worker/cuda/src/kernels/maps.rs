//! Kernels of the gradient methods: channel weights and maps of activations and gradients.
//!
//! Owns the rules' numbers and the blocks. The formulas are in `kernels_maps.h`. Upstream: the
//! backward pass.

use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::Kernels;
use super::launch::Argument::{Number, Pointer, Size};
use super::launch::{THREADS, groups_of};
use crate::error::CudaError;
use crate::memory::DevicePointer;
use crate::number_format::NumberFormat;

/// Groups of channels of one block of `channel_weights`, as in the source of the kernel.
const WEIGHT_GROUPS: usize = 4;
/// Most threads that divide the channels of one position of a map.
const MOST_LANES: usize = 32;

/// How gradients become the weights of channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WeightRule {
    /// Their mean over space.
    GradCam,
    /// The sum of positive gradients, each with a share of its own.
    GradCamPlusPlus,
    /// Their mean over space with the activations as weights.
    XGradCam,
}

/// How activations and gradients become a map, position by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MapRule {
    /// The sum of their products.
    HiResCam,
    /// The sum of activations times positive gradients.
    LayerCam,
}

/// Threads that divide the channels of one position: a power of two, so that blocks are full.
fn lanes(format: NumberFormat, channels: usize) -> usize {
    groups_of(format, channels).next_power_of_two().min(MOST_LANES)
}

#[expect(clippy::too_many_arguments, reason = "a kernel takes pointers and sizes")]
impl Kernels {
    /// Weights of channels, f32 `[R, C]`, of activations and gradients `[R, P, C]`. The gradients
    /// are multiplied by `inverse_scale` first.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn channel_weights(
        &self,
        stream: &Arc<CudaStream>,
        format: NumberFormat,
        activations: DevicePointer,
        gradients: DevicePointer,
        rule: WeightRule,
        inverse_scale: f32,
        output: DevicePointer,
        rows: usize,
        positions: usize,
        channels: usize,
    ) -> Result<(), CudaError> {
        let arguments = [
            Pointer(activations),
            Pointer(gradients),
            Pointer(output),
            Size(rule as usize),
            Number(inverse_scale),
            Size(positions),
            Size(channels),
        ];
        let blocks = rows * groups_of(format, channels).div_ceil(WEIGHT_GROUPS);
        self.of(format).channel_weights.launch(stream, blocks, &arguments)
    }

    /// Rectified maps, f32 `[R, P]`, of activations `[R, P, C]` and the weights of their channels,
    /// f32 `[R, C]`.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn weighted_maps(
        &self,
        stream: &Arc<CudaStream>,
        format: NumberFormat,
        activations: DevicePointer,
        weights: DevicePointer,
        output: DevicePointer,
        rows: usize,
        positions: usize,
        channels: usize,
    ) -> Result<(), CudaError> {
        let lanes = lanes(format, channels);
        let arguments = [
            Pointer(activations),
            Pointer(weights),
            Pointer(output),
            Size(lanes),
            Size(positions),
            Size(channels),
        ];
        let blocks = rows * positions.div_ceil(THREADS / lanes);
        self.of(format).weighted_maps.launch(stream, blocks, &arguments)
    }

    /// Rectified maps, f32 `[R, P]`, of activations and gradients `[R, P, C]`. The gradients are
    /// multiplied by `inverse_scale` first.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn gradient_maps(
        &self,
        stream: &Arc<CudaStream>,
        format: NumberFormat,
        activations: DevicePointer,
        gradients: DevicePointer,
        rule: MapRule,
        inverse_scale: f32,
        output: DevicePointer,
        rows: usize,
        positions: usize,
        channels: usize,
    ) -> Result<(), CudaError> {
        let lanes = lanes(format, channels);
        let arguments = [
            Pointer(activations),
            Pointer(gradients),
            Pointer(output),
            Size(rule as usize),
            Number(inverse_scale),
            Size(lanes),
            Size(positions),
            Size(channels),
        ];
        let blocks = rows * positions.div_ceil(THREADS / lanes);
        self.of(format).gradient_maps.launch(stream, blocks, &arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_have_the_numbers_of_the_kernels() {
        let source = include_str!("../kernels_maps.h");
        let rules = [
            ("GRAD_CAM", WeightRule::GradCam as usize),
            ("GRAD_CAM_PLUS_PLUS", WeightRule::GradCamPlusPlus as usize),
            ("X_GRAD_CAM", WeightRule::XGradCam as usize),
            ("HI_RES_CAM", MapRule::HiResCam as usize),
            ("LAYER_CAM", MapRule::LayerCam as usize),
        ];
        for (name, number) in rules {
            assert!(source.contains(&format!("const int {name} = {number};")), "{name}");
        }
    }

    #[test]
    fn lanes_divide_a_block() {
        for channels in [1, 3, 8, 64, 100, 2048] {
            for format in [NumberFormat::F32, NumberFormat::F16] {
                assert_eq!(THREADS % lanes(format, channels), 0, "{channels} channels");
            }
        }
        assert_eq!(lanes(NumberFormat::F16, 64), 8);
    }
}
