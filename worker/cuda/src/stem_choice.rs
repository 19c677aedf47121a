//! Which form the stem takes on this device. Its three input channels suit no tensor core: they are
//! padded to 8 or 4, or every 2×2 pixels become one with 16, and which is fastest differs between
//! devices.
//!
//! Owns the trial, at load. The forms themselves are [`weight_layout`](crate::weight_layout)'s.
//! Upstream: cuDNN's plans. Downstream: [`engine`](crate::engine).

use std::sync::Arc;

use camshaft_kernels::ConvolutionWeights;
use cudarc::driver::CudaStream;
use cudarc::driver::sys::CUevent_flags;

use crate::cudnn::{ConvolutionOperands, ConvolutionProblem, Cudnn, Planner};
use crate::error::CudaError;
use crate::kernels::InputLayout;
use crate::memory::DeviceMemory;
use crate::network::{DeviceNetwork, DeviceStem};
use crate::number_format::NumberFormat;
use crate::pass::ForwardConvolution;
use crate::weight_layout::input_shape;

/// Calls in a measurement.
const CALLS: usize = 4;

/// What the stem is tried with.
pub(crate) struct StemTrial<'a> {
    pub(crate) cudnn: &'a Cudnn,
    pub(crate) stream: &'a Arc<CudaStream>,
    /// Memory for cuDNN.
    pub(crate) workspace: &'a DeviceMemory,
    /// The network, with any stem.
    pub(crate) network: &'a DeviceNetwork,
    /// The stem's weights.
    pub(crate) weights: &'a ConvolutionWeights<'a>,
    /// Images of the largest batch.
    pub(crate) images: usize,
    /// Channels of the only form to take, if it is decided.
    pub(crate) channels: Option<usize>,
}

impl StemTrial<'_> {
    /// The form that takes the least time, of those that cuDNN can compute with bias and ReLU in
    /// one call.
    ///
    /// # Errors
    /// If the device has too little memory, or fails.
    pub(crate) fn fastest(&self, planner: &mut Planner) -> Result<DeviceStem, CudaError> {
        let &DeviceNetwork { format, height, width, .. } = self.network;
        let mut layouts = layouts(format, height, width);
        if let Some(channels) = self.channels {
            let wanted = |layout: &InputLayout| input_shape(*layout, height, width)[2] == channels;
            layouts.retain(wanted);
        }
        if let [only] = layouts[..] {
            return self.upload(only);
        }
        let memory = self.memory(&layouts)?;
        let mut fastest: Option<(f32, DeviceStem)> = None;
        for layout in layouts {
            let stem = self.upload(layout)?;
            let Some(milliseconds) = self.if_possible(self.time(planner, &stem, &memory))? else {
                continue;
            };
            let channels = stem.convolution.inputs;
            tracing::debug!(channels, milliseconds, "a form of the stem");
            if fastest.as_ref().is_none_or(|(least, _)| milliseconds < *least) {
                fastest = Some((milliseconds, stem));
            }
        }
        // The memory is free for others once the stream has been waited for.
        drop(memory);
        self.stream
            .synchronize()
            .map_err(|error| CudaError::of_driver(error, "timing the stem"))?;
        match fastest {
            Some((_, stem)) => Ok(stem),
            None => self.upload(InputLayout::Padded(8)),
        }
    }

    fn upload(&self, layout: InputLayout) -> Result<DeviceStem, CudaError> {
        DeviceStem::new(self.stream, self.weights, layout, self.network.format)
    }

    /// Memory for the input in any of the layouts, and for the output.
    fn memory(&self, layouts: &[InputLayout]) -> Result<[DeviceMemory; 2], CudaError> {
        let &DeviceNetwork { format, height, width, .. } = self.network;
        let values = |layout| input_shape(layout, height, width).iter().product::<usize>();
        let input = layouts.iter().map(|&layout| values(layout)).max().unwrap_or(0);
        let output = height.div_ceil(2) * width.div_ceil(2) * self.weights.outputs;
        let allocate = |values: usize| {
            let bytes = self.images * values * format.bytes();
            DeviceMemory::new(self.stream, bytes, "timing the stem")
        };
        Ok([allocate(input)?, allocate(output)?])
    }

    /// The milliseconds of a form, by the engine that is fastest for it.
    fn time(
        &self,
        planner: &mut Planner,
        stem: &DeviceStem,
        [input, output]: &[DeviceMemory; 2],
    ) -> Result<f32, CudaError> {
        let &DeviceNetwork { format, height, width, .. } = self.network;
        let [rows, columns, _] = input_shape(stem.layout, height, width);
        let shape = stem.convolution.shape(self.images, rows, columns);
        let problem = ForwardConvolution { shape, residual: false, relu: true, format }.fused();
        let operands = ConvolutionOperands {
            input: input.pointer(),
            weights: stem.convolution.weights,
            bias: Some(stem.convolution.bias),
            residual: None,
            output: output.pointer(),
        };
        if planner.is_tuned(&problem) {
            // Another process found the engine; how long it takes is known only by trying.
            return self.time_choice(planner, &problem, &operands);
        }
        let tuned = planner.tune(
            self.cudnn,
            self.stream.context(),
            self.stream,
            &problem,
            &operands,
            self.workspace.pointer(),
            self.workspace.bytes(),
        )?;
        Ok(tuned.milliseconds)
    }

    /// The milliseconds of the engine that was chosen before.
    fn time_choice(
        &self,
        planner: &mut Planner,
        problem: &ConvolutionProblem,
        operands: &ConvolutionOperands,
    ) -> Result<f32, CudaError> {
        let failed = |error| CudaError::of_driver(error, "timing the stem");
        let plan = planner.choose(self.cudnn, problem, self.workspace.bytes())?;
        let bound = plan.bind(operands, self.workspace.pointer())?;
        self.cudnn.use_stream(self.stream)?;
        let calls = || (0..CALLS).try_for_each(|_| bound.run(self.cudnn));
        let event = || self.stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT));
        // The first calls load kernels.
        calls()?;
        let start = event().map_err(failed)?;
        calls()?;
        let end = event().map_err(failed)?;
        Ok(start.elapsed_ms(&end).map_err(failed)? / CALLS as f32)
    }

    /// `None` if a form can't be computed, which leaves the others.
    fn if_possible(&self, time: Result<f32, CudaError>) -> Result<Option<f32>, CudaError> {
        match time {
            Ok(milliseconds) => Ok(Some(milliseconds)),
            Err(error @ (CudaError::OutOfMemory { .. } | CudaError::Lost { .. })) => Err(error),
            Err(error) => {
                tracing::debug!(%error, "a form of the stem is left out");
                Ok(None)
            }
        }
    }
}

/// The forms that can be fast for inputs of `height` × `width`.
fn layouts(format: NumberFormat, height: usize, width: usize) -> Vec<InputLayout> {
    match format {
        // 16 bytes a pixel are enough for f32: more channels would only be more to read.
        NumberFormat::F32 | NumberFormat::Tf32 => vec![InputLayout::Padded(4)],
        NumberFormat::Bf16 | NumberFormat::F16 => {
            let mut layouts = vec![InputLayout::Padded(8), InputLayout::Padded(4)];
            if height.is_multiple_of(2) && width.is_multiple_of(2) {
                layouts.push(InputLayout::SpaceToDepth);
            }
            layouts
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_sides_have_no_pairs_of_pixels() {
        let folds = |height, width| {
            layouts(NumberFormat::F16, height, width)
                .iter()
                .any(|layout| matches!(layout, InputLayout::SpaceToDepth))
        };
        assert!(folds(224, 224) && folds(96, 130));
        assert!(!folds(225, 224) && !folds(224, 75));
        assert_eq!(layouts(NumberFormat::Tf32, 224, 224).len(), 1);
    }
}
