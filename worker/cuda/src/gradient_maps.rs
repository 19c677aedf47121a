//! What is made of a target layer's outputs and gradients: maps, or the values themselves.
//!
//! Owns which kernels a rule takes, and that overflowed gradients are seen. How gradients come
//! about is not known here. Upstream: [`backward`](crate::backward).

use crate::error::CudaError;
use crate::kernels::{MapRule, WeightRule};
use crate::layer_cut::GrowingMemory;
use crate::memory::DevicePointer;
use crate::number_format::NumberFormat;
use crate::operations::BufferShape;
use crate::pass::LaunchQueue;

/// How a map is made of activations and gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CamRule {
    /// Channels weighted by the means of their gradients.
    GradCam,
    /// Channels weighted by their positive gradients, each with a share of its own.
    GradCamPlusPlus,
    /// Channels weighted by the means of their gradients, in which activations are the weights.
    XGradCam,
    /// The sum over channels of activation times gradient.
    HiResCam,
    /// The sum over channels of activation times positive gradient.
    LayerCam,
}

/// What is wanted of a target layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GradientRequest {
    /// A map for each target.
    Maps(CamRule),
    /// The layer's output and its gradient for each target.
    Tensors,
}

/// What was asked for of a target layer, for `R` targets. All numbers are f32.
///
/// If a gradient overflows in [`NumberFormat::F16`], the target's map is NaN, or its gradients are
/// not finite; another format has the range.
#[derive(Clone, Debug, PartialEq)]
pub struct GradientOutput {
    /// Rows of the layer's output.
    pub height: usize,
    /// Columns of the layer's output.
    pub width: usize,
    /// Channels of the layer's output.
    pub channels: usize,
    /// `[R, height × width]`, rectified. Empty unless maps were asked for.
    pub maps: Vec<f32>,
    /// `[R, channels, height, width]`. Empty unless tensors were asked for.
    pub activations: Vec<f32>,
    /// As `activations`.
    pub gradients: Vec<f32>,
}

impl GradientOutput {
    /// An output for a layer of this shape, without targets yet.
    pub(crate) fn of_shape(BufferShape { height, width, channels }: BufferShape) -> Self {
        let (maps, activations, gradients) = (Vec::new(), Vec::new(), Vec::new());
        Self { height, width, channels, maps, activations, gradients }
    }
}

/// A target layer's outputs and gradients on the device, both `[R, P, C]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LayerGradients {
    pub(crate) activations: DevicePointer,
    pub(crate) gradients: DevicePointer,
    /// What the gradients were multiplied by, a power of two.
    pub(crate) scale: f32,
    /// `R`.
    pub(crate) rows: usize,
    /// Of the layer's output.
    pub(crate) shape: BufferShape,
}

/// The rule as the kernels know it.
enum KernelRule {
    /// A weight for each channel.
    Weights(WeightRule),
    /// A gradient for each value.
    Values(MapRule),
}

impl CamRule {
    fn for_kernels(self) -> KernelRule {
        match self {
            Self::GradCam => KernelRule::Weights(WeightRule::GradCam),
            Self::GradCamPlusPlus => KernelRule::Weights(WeightRule::GradCamPlusPlus),
            Self::XGradCam => KernelRule::Weights(WeightRule::XGradCam),
            Self::HiResCam => KernelRule::Values(MapRule::HiResCam),
            Self::LayerCam => KernelRule::Values(MapRule::LayerCam),
        }
    }
}

/// Memory for what comes back to the host.
pub(crate) struct ResultMemory {
    /// Weights of channels.
    weights: GrowingMemory,
    /// Maps or values.
    values: GrowingMemory,
}

impl ResultMemory {
    pub(crate) fn new() -> Self {
        Self {
            weights: GrowingMemory::new("weights of channels"),
            values: GrowingMemory::new("the values of a target layer"),
        }
    }

    /// Bytes of its memory on the device.
    pub(crate) fn bytes(&self) -> usize {
        self.weights.bytes() + self.values.bytes()
    }

    /// Appends to `output` what is wanted of some targets.
    ///
    /// # Errors
    /// If memory is short, or the device fails.
    pub(crate) fn take(
        &mut self,
        queue: LaunchQueue<'_>,
        layer: LayerGradients,
        request: GradientRequest,
        output: &mut GradientOutput,
    ) -> Result<(), CudaError> {
        match request {
            GradientRequest::Maps(rule) => {
                output.maps.extend(self.maps(queue, layer, rule)?);
            }
            GradientRequest::Tensors => {
                output.activations.extend(self.values(queue, layer, layer.activations)?);
                let gradients = self.values(queue, layer, layer.gradients)?;
                // Exact: the scale is a power of two.
                output.gradients.extend(gradients.into_iter().map(|value| value / layer.scale));
            }
        }
        Ok(())
    }

    fn maps(
        &mut self,
        queue: LaunchQueue<'_>,
        layer: LayerGradients,
        rule: CamRule,
    ) -> Result<Vec<f32>, CudaError> {
        let LayerGradients { activations, gradients, scale, rows, shape } = layer;
        let LaunchQueue { kernels, stream, format, .. } = queue;
        let (positions, channels, unscale) = (shape.positions(), shape.channels, 1.0 / scale);
        let maps_bytes = rows * positions * size_of::<f32>();
        let maps = self.values.with_room(stream, maps_bytes)?;
        let (weight_rule, map_rule) = match rule.for_kernels() {
            KernelRule::Weights(rule) => (Some(rule), None),
            // The weights then only show whether the gradients are finite.
            KernelRule::Values(rule) => {
                ((format == NumberFormat::F16).then_some(WeightRule::GradCam), Some(rule))
            }
        };
        let mut weights = None;
        if let Some(rule) = weight_rule {
            let bytes = rows * channels * size_of::<f32>();
            let memory = self.weights.with_room(stream, bytes)?;
            let to = memory.pointer();
            kernels.channel_weights(
                stream,
                format,
                activations,
                gradients,
                rule,
                unscale,
                to,
                rows,
                positions,
                channels,
            )?;
            weights = Some(memory);
        }
        match (map_rule, weights) {
            (Some(rule), _) => kernels.gradient_maps(
                stream,
                format,
                activations,
                gradients,
                rule,
                unscale,
                maps.pointer(),
                rows,
                positions,
                channels,
            )?,
            (None, Some(weights)) => {
                let (from, to) = (weights.pointer(), maps.pointer());
                kernels.weighted_maps(
                    stream,
                    format,
                    activations,
                    from,
                    to,
                    rows,
                    positions,
                    channels,
                )?;
            }
            (None, None) => unreachable!("a rule weights channels or values"),
        }
        let mut values = maps.read_f32(stream, rows * positions)?;
        if format == NumberFormat::F16
            && let Some(weights) = weights
        {
            let weights = weights.read_f32(stream, rows * channels)?;
            mark_overflows(&mut values, positions, &weights, channels);
        }
        Ok(values)
    }

    /// Values `[R, P, C]` on the device as f32 `[R, C, P]`.
    fn values(
        &mut self,
        queue: LaunchQueue<'_>,
        LayerGradients { rows, shape, .. }: LayerGradients,
        from: DevicePointer,
    ) -> Result<Vec<f32>, CudaError> {
        let LaunchQueue { kernels, stream, format, .. } = queue;
        let values = rows * shape.values();
        let memory = self.values.with_room(stream, values * size_of::<f32>())?;
        let (to, positions) = (memory.pointer(), shape.positions());
        kernels.export(stream, format, from, to, rows, positions, shape.channels)?;
        memory.read_f32(stream, values)
    }
}

/// Makes a row's map NaN if a weight of its channels is not finite. The map alone may not show it:
/// a channel of minus infinity is rectified to zero.
fn mark_overflows(maps: &mut [f32], positions: usize, weights: &[f32], channels: usize) {
    let rows = maps.chunks_exact_mut(positions).zip(weights.chunks_exact(channels));
    for (map, weights) in rows {
        if weights.iter().any(|weight| !weight.is_finite()) {
            map.fill(f32::NAN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_with_an_overflowed_channel_is_marked() {
        let mut maps = [1.0, 2.0, 3.0, 4.0, 0.0, 0.0];
        let weights = [0.5, -2.0, 1.0, f32::INFINITY, f32::NEG_INFINITY, 0.0];
        mark_overflows(&mut maps, 2, &weights, 2);
        assert_eq!(maps[..2], [1.0, 2.0]);
        assert!(maps[2..].iter().all(|value| value.is_nan()));
    }
}
