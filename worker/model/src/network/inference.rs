//! What runs a network's passes, whatever the device: images in; logits, pooled features, outputs of
//! stages and maps out.
//!
//! Does not know which classes are explained, nor how candle differentiates. Implementations: the CPU's
//! kernels in [`kernel_engine`](super::kernel_engine), and CUDA's. Upstream:
//! [`resnet`](super::resnet), which runs candle's layers if there is no engine.

use std::fmt;

use camshaft_kernels::PixelValues;
use camshaft_vision::input::{InputRule, NormalisationTable};
use candle_core::{Device, Result, Tensor};

use super::resnet::ForwardOutput;

/// What bytes mean to a network, and the size of its input.
#[derive(Clone, Debug)]
pub(crate) struct PixelInput {
    /// Rows.
    pub(crate) height: usize,
    /// Columns.
    pub(crate) width: usize,
    /// The value of each byte.
    pub(crate) values: PixelValues,
}

impl PixelInput {
    /// What `rule` says.
    pub(crate) fn of(rule: &InputRule) -> Self {
        let NormalisationTable { values, sources } = NormalisationTable::of(rule);
        let values = PixelValues { values, sources };
        Self { height: rule.height, width: rule.width, values }
    }

    /// Bytes of an image.
    pub(crate) fn image_bytes(&self) -> usize {
        3 * self.height * self.width
    }

    /// Scales bytes `[N, H, W, 3]` to values `[N, 3, H, W]`, f32.
    ///
    /// # Errors
    /// If the bytes are of no whole number of images.
    pub(crate) fn scale(&self, bytes: &[u8]) -> Result<Tensor> {
        let PixelValues { values, sources } = self.values.clone();
        let table = NormalisationTable { values, sources };
        let images = bytes.chunks(self.image_bytes());
        let shape = (images.len(), 3, self.height, self.width);
        let values = images.flat_map(|image| table.planes(image)).collect();
        Tensor::from_vec(values, shape, &Device::Cpu)
    }
}

/// A batch as a network takes it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PassInput<'a> {
    /// Bytes `[N, H, W, 3]`, resized by the input rule and not yet scaled.
    Pixels(&'a [u8]),
    /// Scaled values, `[N, 3, H, W]`, f32.
    Scaled(&'a Tensor),
}

/// What a pass is to give beside logits and pooled features.
#[derive(Clone, Debug, Default)]
pub(crate) struct PassRequest {
    /// The stages whose outputs are wanted, counted from 1.
    pub(crate) stages: Vec<usize>,
}

/// A pass that was started.
#[derive(Debug)]
pub(crate) enum StartedPass {
    /// It was done at once.
    Done(ForwardOutput),
    /// The device works on it. The engine knows it by this number.
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "only a GPU works on the side"))]
    Running(u64),
}

/// Why a device can't do a pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EngineError {
    /// Fewer images may fit.
    #[cfg_attr(not(any(feature = "cuda", test)), expect(dead_code, reason = "a GPU's"))]
    #[error("{0}")]
    OutOfMemory(String),
    /// The device is gone, or its state is: nothing that this process does on it can succeed.
    #[cfg_attr(not(any(feature = "cuda", test)), expect(dead_code, reason = "a GPU's"))]
    #[error("{0}")]
    DeviceLost(String),
    /// The same pass would fail again.
    #[error("{0}")]
    Failed(String),
}

/// Runs a network's passes on a device.
pub(crate) trait InferenceEngine: fmt::Debug + Send + Sync {
    /// Its name in results: the kernel.
    fn name(&self) -> String;

    /// True if it takes images of this size.
    fn takes(&self, height: usize, width: usize) -> bool;

    /// Passes that may be under way at once.
    fn passes_at_once(&self) -> usize {
        1
    }

    /// Starts a pass.
    ///
    /// # Errors
    /// If the device can't do it.
    fn begin(
        &self,
        input: PassInput<'_>,
        request: &PassRequest,
    ) -> std::result::Result<StartedPass, EngineError>;

    /// Waits for a pass.
    ///
    /// # Errors
    /// If the device failed.
    fn finish(&self, pass: StartedPass) -> std::result::Result<ForwardOutput, EngineError>;
}
