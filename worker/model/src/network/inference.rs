//! What runs a network's passes, whatever the device: images in; logits, pooled features, outputs of
//! stages and maps out.
//!
//! Does not know which classes are explained, nor how candle differentiates. [`LayerEngine`] is what a
//! device does at single layers. Implementations: the CPU's kernels in
//! [`kernel_engine`](super::kernel_engine), and CUDA's. Upstream: [`resnet`](super::resnet), which runs
//! candle's layers if there is no engine.

#![cfg_attr(
    not(feature = "cuda"),
    expect(dead_code, reason = "the CPU's kernels use a part of it, a GPU all")
)]

use std::fmt;
use std::sync::Arc;

use camshaft_common::explain::Method;
use camshaft_kernels::{Backbone, PixelValues, STAGES};
use camshaft_vision::heat_map::HeatMap;
use camshaft_vision::input::{InputRule, NormalisationTable};
use candle_core::{Device, Result, Tensor};

use super::layer_point::LayerPoint;
use super::unfolded_convolution::LayerConvolution;
use crate::cam::{CamTarget, Gradients};
use crate::compute::PrecisionError;

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
        let mut values = Vec::with_capacity(bytes.len());
        for image in images {
            values.extend(table.planes(image));
        }
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
    /// If Grad-CAM maps of the last stage are wanted from the engine: for each image the class that
    /// gets one beside the most probable class, if there is one.
    pub(crate) labels: Option<Vec<Option<usize>>>,
}

/// What a forward pass gives.
#[derive(Clone, Debug)]
pub struct ForwardOutput {
    /// The logits: `[N, K]`, f32, any range.
    pub logits: Tensor,
    /// The last stage's output averaged over space, whichever head the network has: `[N, C]`, f32,
    /// zero or more.
    pub pooled: Tensor,
    /// The output of each stage that was asked for, `layer1` first: `[N, C, H, W]`, f32, zero or
    /// more.
    pub stages: [Option<Tensor>; STAGES],
    /// Maps of the last stage, if the engine was asked for them.
    pub(crate) maps: Option<LastStageMaps>,
}

/// Grad-CAM maps of the last stage that came with a pass: of each image's most probable class, and of
/// its label's class.
#[derive(Clone, Debug)]
pub(crate) struct LastStageMaps {
    /// The most probable class of each image.
    pub(crate) tops: Vec<usize>,
    /// The other class of each image that has a map.
    pub(crate) labels: Vec<Option<usize>>,
    /// Rows of a map.
    pub(crate) height: usize,
    /// Columns of a map.
    pub(crate) width: usize,
    /// `[N, 2, height, width]`, zero or more.
    pub(crate) values: Vec<f32>,
}

impl LastStageMaps {
    /// The map of a class of an image, if it is there.
    pub(crate) fn find(&self, CamTarget { image, class }: CamTarget) -> Option<HeatMap> {
        let place = match (self.tops[image] == class, self.labels[image] == Some(class)) {
            (true, _) => 0,
            (false, true) => 1,
            (false, false) => return None,
        };
        let &Self { height, width, .. } = self;
        let start = (2 * image + place) * height * width;
        Some(HeatMap { height, width, values: self.values[start..][..height * width].to_vec() })
    }
}

/// A pass that was started.
#[derive(Debug)]
pub(crate) enum StartedPass {
    /// It was done at once.
    Done(ForwardOutput),
    /// The device works on it. The engine knows it by this number. If it is dropped, the engine has
    /// room for another pass.
    Running(Arc<u64>),
}

/// Why a device can't do a pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EngineError {
    /// Fewer images may fit.
    #[error("{0}")]
    OutOfMemory(String),
    /// The device is gone, or its state is: nothing that this process does on it can succeed.
    #[error("{0}")]
    DeviceLost(String),
    /// The same pass would fail again.
    #[error("{0}")]
    Failed(String),
}

/// A network can't be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// Its tensors can't be read or arranged.
    #[error(transparent)]
    Tensors(#[from] candle_core::Error),
    /// The device can't take it.
    #[error(transparent)]
    Engine(EngineError),
    /// It can't be computed in 8 bits.
    #[error(transparent)]
    Precision(#[from] PrecisionError),
}

/// Runs a network's passes on a device.
pub(crate) trait InferenceEngine: fmt::Debug + Send + Sync {
    /// Its name in results: the kernel.
    fn name(&self) -> String;

    /// The CPU's kernels, if it is these.
    fn backbone(&self) -> Option<&Backbone> {
        None
    }

    /// True if it takes images of this size.
    fn takes(&self, height: usize, width: usize) -> bool;

    /// Passes that may be under way at once.
    fn passes_at_once(&self) -> usize {
        1
    }

    /// What it does at layers before the last stage's end; none if candle does that.
    fn layers(&self) -> Option<&dyn LayerEngine> {
        None
    }

    /// True if its passes give maps of the last stage.
    fn makes_maps(&self) -> bool {
        false
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

/// A target layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TargetLayerRef<'a> {
    /// Where it is.
    pub(crate) point: LayerPoint,
    /// The convolution whose own output it is, if it is one's.
    pub(crate) convolution: Option<&'a LayerConvolution>,
}

/// Goes back to layers, and forward from them.
pub(crate) trait LayerEngine {
    /// The maps of a method that takes gradients, one for each target; none if it makes no maps of the
    /// method.
    ///
    /// # Errors
    /// If the device failed.
    fn maps(
        &self,
        input: PassInput<'_>,
        layer: TargetLayerRef<'_>,
        targets: &[CamTarget],
        method: Method,
    ) -> Option<std::result::Result<Vec<HeatMap>, EngineError>>;

    /// The layer's output and the gradients of the targets' logits, one row for each target.
    ///
    /// # Errors
    /// If the device failed.
    fn gradients(
        &self,
        input: PassInput<'_>,
        layer: TargetLayerRef<'_>,
        targets: &[CamTarget],
    ) -> std::result::Result<Gradients, EngineError>;

    /// Logits `[C, K]` of one image, each with one channel of the layer's output set to zero.
    ///
    /// # Errors
    /// If the device failed.
    fn ablated_logits(
        &self,
        image: PassInput<'_>,
        layer: TargetLayerRef<'_>,
    ) -> std::result::Result<Tensor, EngineError>;
}
