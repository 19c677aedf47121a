//! The CPU's kernels as an [`InferenceEngine`]: the convolutions run on them, and the head on candle,
//! which multiplies by a matrix of a few thousand columns.

use camshaft_kernels::{
    ActivationStatistics, Backbone, BatchInput, BatchShape, InputScale, Kernel, NetworkWeights,
    SMALLEST_SIDE, STAGES, UnsupportedNetwork,
};
use candle_core::{CpuStorage, Device, Result, Storage, Tensor, bail};

use super::head::Head;
use super::inference::{
    EngineError, ForwardOutput, InferenceEngine, PassInput, PassRequest, PixelInput, StartedPass,
};
use crate::config::HeadKind;

/// A network on the CPU's kernels.
#[derive(Debug)]
pub(crate) struct KernelEngine {
    backbone: Backbone,
    head: Head,
    input: PixelInput,
}

impl KernelEngine {
    /// Packs `weights` for `kernel`; none if it can't run them.
    pub(crate) fn new(
        kernel: Kernel,
        weights: &NetworkWeights<'_>,
        head: &Head,
        input: &PixelInput,
    ) -> Option<Self> {
        match Backbone::new(kernel, weights) {
            Ok(backbone) => Some(Self { backbone, head: head.clone(), input: input.clone() }),
            Err(reason) => {
                tracing::warn!(%kernel, %reason, "the CPU's kernels can't run this network");
                None
            }
        }
    }

    /// Packs `weights` in 8 bits for `kernel`.
    ///
    /// # Errors
    /// If it can't run them, or the statistics are another network's.
    pub(crate) fn calibrated(
        kernel: Kernel,
        weights: &NetworkWeights<'_>,
        statistics: &ActivationStatistics,
        head: &Head,
        input: &PixelInput,
    ) -> std::result::Result<Self, UnsupportedNetwork> {
        // The values are a byte's times a scale, and an offset.
        let scales = input.values.values.each_ref().map(|values| InputScale {
            scale: (values[255] - values[0]) / 255.0,
            offset: values[0],
        });
        let backbone = Backbone::calibrated(kernel, weights, statistics, scales)?;
        Ok(Self { backbone, head: head.clone(), input: input.clone() })
    }

    fn forward(&self, input: PassInput<'_>, wanted: &[usize]) -> Result<ForwardOutput> {
        match input {
            PassInput::Pixels(bytes) => {
                let PixelInput { height, width, ref values } = self.input;
                let images = bytes.len() / self.input.image_bytes();
                let shape = BatchShape { images, height, width };
                self.run(BatchInput::Pixels { bytes, values }, shape, wanted)
            }
            PassInput::Scaled(input) => {
                let (images, _, height, width) = input.dims4()?;
                let input = input.contiguous()?;
                let (storage, layout) = input.storage_and_layout();
                let (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) =
                    (&*storage, layout.contiguous_offsets())
                else {
                    bail!("the CPU's kernels take f32 on the CPU");
                };
                let shape = BatchShape { images, height, width };
                self.run(BatchInput::Values(&values[start..end]), shape, wanted)
            }
        }
    }

    fn run(
        &self,
        input: BatchInput<'_>,
        shape: BatchShape,
        wanted: &[usize],
    ) -> Result<ForwardOutput> {
        let mut run = std::array::from_fn(|index| wanted.contains(&(index + 1)));
        let flatten = self.head.shape().kind == HeadKind::Flatten;
        run[STAGES - 1] |= flatten;
        let output = self.backbone.run(input, shape, run, rayon::current_num_threads());
        let mut stages = [const { None }; STAGES];
        for (stage, features) in stages.iter_mut().zip(output.stages) {
            if let Some(features) = features {
                *stage =
                    Some(Tensor::from_vec(features.values, &features.shape[..], &Device::Cpu)?);
            }
        }
        let pooled = Tensor::from_vec(output.pooled, (shape.images, ()), &Device::Cpu)?;
        let logits = if flatten {
            let last = stages[STAGES - 1].as_ref().expect("it was asked for");
            self.head.forward(last)?
        } else {
            self.head.forward_pooled(&pooled)?
        };
        Ok(ForwardOutput { logits, pooled, stages, maps: None })
    }
}

impl InferenceEngine for KernelEngine {
    fn name(&self) -> String {
        self.backbone.kernel().to_string()
    }

    fn backbone(&self) -> Option<&Backbone> {
        Some(&self.backbone)
    }

    fn takes(&self, height: usize, width: usize) -> bool {
        height.min(width) >= SMALLEST_SIDE
    }

    fn begin(
        &self,
        input: PassInput<'_>,
        request: &PassRequest,
    ) -> std::result::Result<StartedPass, EngineError> {
        let output = self.forward(input, &request.stages);
        output.map(StartedPass::Done).map_err(|error| EngineError::Failed(error.to_string()))
    }

    fn finish(&self, pass: StartedPass) -> std::result::Result<ForwardOutput, EngineError> {
        match pass {
            StartedPass::Done(output) => Ok(output),
            StartedPass::Running(_) => unreachable!("its passes are done at once"),
        }
    }
}
