//! A GPU as an [`InferenceEngine`]: what it computes as tensors, and its errors as those of any engine.
//!
//! The network itself runs in `camshaft-cuda`. A batch that is larger than the GPU has memory for runs
//! in parts.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use camshaft_common::explain::Method;
use camshaft_cuda::{
    CamRule, CudaDevice, CudaError, CudaNetwork, Cut, CutConvolution, EngineSettings,
    GradientRequest, HeadWeights, InputFormat, NumberFormat, PassOutput, Ticket,
};
use camshaft_kernels::{NetworkWeights, SMALLEST_SIDE, STAGES};
use camshaft_vision::heat_map::HeatMap;
use candle_core::{Device, Result as TensorResult, Tensor};
use parking_lot::Mutex;

use super::head::Head;
use super::inference::{
    EngineError, ForwardOutput, InferenceEngine, LastStageMaps, LayerEngine, PassInput,
    PassRequest, PixelInput, StartedPass, TargetLayerRef,
};
use super::layer_point::LayerPoint;
use super::unfolded_convolution::LayerConvolution;
use crate::cam::{CamTarget, Gradients};
use crate::config::HeadKind;

/// Its name in results.
const NAME: &str = "cudnn";
/// Passes that may be under way: one is read back while the other runs.
const PASSES_AT_ONCE: usize = 2;

/// A network on a GPU.
pub(crate) struct CudaEngine {
    input: PixelInput,
    classes: usize,
    channels: usize,
    /// Rows and columns of a map of the last stage.
    map_size: [usize; 2],
    state: Mutex<State>,
}

struct State {
    network: CudaNetwork,
    running: HashMap<u64, RunningPass>,
    last: u64,
}

/// A pass under way.
struct RunningPass {
    /// The caller's. Without it, nobody waits for the pass.
    started: Weak<u64>,
    ticket: Ticket,
    labels: Option<Vec<Option<usize>>>,
}

impl fmt::Debug for CudaEngine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("CudaEngine").field("input", &self.input).finish_non_exhaustive()
    }
}

impl From<CudaError> for EngineError {
    fn from(error: CudaError) -> Self {
        match error {
            CudaError::OutOfMemory { .. } => Self::OutOfMemory(error.to_string()),
            CudaError::Lost { .. } => Self::DeviceLost(error.to_string()),
            CudaError::NoDriver { .. }
            | CudaError::OldDriver { .. }
            | CudaError::NoDevice { .. }
            | CudaError::NoCudnn { .. }
            | CudaError::OldCudnn { .. }
            | CudaError::NoKernels { .. }
            | CudaError::Unsupported { .. }
            | CudaError::Failed { .. } => Self::Failed(error.to_string()),
        }
    }
}

/// An error of tensors that only hold what the device gave.
fn of_tensors(error: candle_core::Error) -> EngineError {
    EngineError::Failed(error.to_string())
}

/// The folder that keeps which of cuDNN's engines are fastest.
fn plan_cache() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|path| !path.is_empty());
    let cache = folder("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| folder("HOME").map(|home| PathBuf::from(home).join(".cache")));
    cache.map(|cache| cache.join("camshaft"))
}

impl CudaEngine {
    /// Moves a network to `device`, with memory for batches of up to the largest size of `settings`, or
    /// fewer images if that does not fit.
    ///
    /// # Errors
    /// If the device can't take it.
    pub(crate) fn new(
        device: &CudaDevice,
        weights: &NetworkWeights<'_>,
        head: &Head,
        input: &PixelInput,
        settings: (NumberFormat, usize),
    ) -> Result<Self, EngineError> {
        let shape = head.shape();
        let [weight, bias] = head.values().map_err(of_tensors)?;
        let flatten = shape.kind == HeadKind::Flatten;
        let head = HeadWeights { weight: &weight, bias: &bias, classes: shape.classes, flatten };
        let PixelInput { height, width, ref values } = *input;
        let (table, sources) = (values.values, values.sources);
        let format = InputFormat { height, width, table, sources };
        let (number_format, mut max_images) = settings;
        let network = loop {
            let settings = EngineSettings {
                format: number_format,
                max_images,
                plan_cache: plan_cache(),
                stem_channels: None,
            };
            match CudaNetwork::load(device, weights, &head, &format, settings) {
                Err(error @ CudaError::OutOfMemory { .. }) if max_images > 1 => {
                    tracing::warn!(%error, max_images, "batches on the GPU are made smaller");
                    max_images /= 2;
                }
                loaded => break loaded?,
            }
        };
        let [channels, map_height, map_width] = shape.features;
        Ok(Self {
            input: input.clone(),
            classes: shape.classes,
            channels,
            map_size: [map_height, map_width],
            state: Mutex::new(State { network, running: HashMap::new(), last: 0 }),
        })
    }

    fn output(
        &self,
        output: PassOutput,
        labels: Option<Vec<Option<usize>>>,
    ) -> TensorResult<ForwardOutput> {
        let PassOutput { logits, pooled, tops, maps: values, stages: given } = output;
        let images = tops.len();
        let mut stages = [const { None }; STAGES];
        for (stage, features) in stages.iter_mut().zip(given) {
            if let Some(features) = features {
                *stage =
                    Some(Tensor::from_vec(features.values, &features.shape[..], &Device::Cpu)?);
            }
        }
        let [height, width] = self.map_size;
        let maps = labels.map(|labels| LastStageMaps { tops, labels, height, width, values });
        Ok(ForwardOutput {
            logits: Tensor::from_vec(logits, (images, self.classes), &Device::Cpu)?,
            pooled: Tensor::from_vec(pooled, (images, self.channels), &Device::Cpu)?,
            stages,
            maps,
        })
    }

    /// Runs a batch in parts that fit.
    fn in_parts(
        &self,
        network: &mut CudaNetwork,
        input: camshaft_cuda::PassInput<'_>,
        images: usize,
        request: &PassRequest,
    ) -> Result<ForwardOutput, EngineError> {
        let (most, values) = (network.max_images(), self.input.image_bytes());
        let mut parts = Vec::new();
        for first in (0..images).step_by(most) {
            let range = first..images.min(first + most);
            let bytes = range.start * values..range.end * values;
            let part = match input {
                camshaft_cuda::PassInput::Pixels(pixels) => {
                    camshaft_cuda::PassInput::Pixels(&pixels[bytes])
                }
                camshaft_cuda::PassInput::Scaled(scaled) => {
                    camshaft_cuda::PassInput::Scaled(&scaled[bytes])
                }
            };
            let labels = request.labels.as_ref().map(|labels| labels[range].to_vec());
            let wanted = pass_request(request, labels.as_deref());
            let ticket = network.begin(part, &wanted)?;
            let output = network.finish(ticket)?;
            parts.push(self.output(output, labels).map_err(of_tensors)?);
        }
        joined(parts).map_err(of_tensors)
    }
}

fn pass_request<'a>(
    request: &PassRequest,
    labels: Option<&'a [Option<usize>]>,
) -> camshaft_cuda::PassRequest<'a> {
    let stages = std::array::from_fn(|stage| request.stages.contains(&(stage + 1)));
    camshaft_cuda::PassRequest { stages, labels: labels.unwrap_or_default() }
}

/// The outputs of a batch's parts as those of the batch.
fn joined(mut parts: Vec<ForwardOutput>) -> TensorResult<ForwardOutput> {
    let maps = parts.iter_mut().map(|part| part.maps.take()).collect::<Option<Vec<_>>>();
    let maps = maps.and_then(|maps| {
        maps.into_iter().reduce(|mut all, maps| {
            all.tops.extend(maps.tops);
            all.labels.extend(maps.labels);
            all.values.extend(maps.values);
            all
        })
    });
    let of = |take: &dyn Fn(&ForwardOutput) -> Tensor| {
        Tensor::cat(&parts.iter().map(take).collect::<Vec<_>>(), 0)
    };
    let (logits, pooled) = (of(&|part| part.logits.clone())?, of(&|part| part.pooled.clone())?);
    let mut stages = [const { None }; STAGES];
    for (index, stage) in stages.iter_mut().enumerate() {
        let features: Option<Vec<_>> =
            parts.iter().map(|part| part.stages[index].clone()).collect();
        *stage = features.map(|features| Tensor::cat(&features, 0)).transpose()?;
    }
    Ok(ForwardOutput { logits, pooled, stages, maps })
}

/// Calls `run` with the input as the GPU takes it, and the number of its images.
fn with_input<T>(
    input: PassInput<'_>,
    image_bytes: usize,
    run: impl FnOnce(camshaft_cuda::PassInput<'_>, usize) -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    match input {
        PassInput::Pixels(bytes) => {
            run(camshaft_cuda::PassInput::Pixels(bytes), bytes.len() / image_bytes)
        }
        PassInput::Scaled(values) => {
            let values = values
                .flatten_all()
                .and_then(|values| values.to_vec1::<f32>())
                .map_err(of_tensors)?;
            run(camshaft_cuda::PassInput::Scaled(&values), values.len() / image_bytes)
        }
    }
}

impl InferenceEngine for CudaEngine {
    fn name(&self) -> String {
        NAME.to_owned()
    }

    fn takes(&self, height: usize, width: usize) -> bool {
        (height, width) == (self.input.height, self.input.width)
            && height.min(width) >= SMALLEST_SIDE
    }

    fn passes_at_once(&self) -> usize {
        PASSES_AT_ONCE
    }

    fn layers(&self) -> Option<&dyn LayerEngine> {
        Some(self)
    }

    fn makes_maps(&self) -> bool {
        true
    }

    fn begin(
        &self,
        input: PassInput<'_>,
        request: &PassRequest,
    ) -> Result<StartedPass, EngineError> {
        let mut state = self.state.lock();
        let State { network, running, last } = &mut *state;
        running.retain(|_, pass| pass.started.strong_count() > 0);
        with_input(input, self.input.image_bytes(), |input, images| {
            if images > network.max_images() {
                return Ok(StartedPass::Done(self.in_parts(network, input, images, request)?));
            }
            let labels = request.labels.clone();
            let ticket = network.begin(input, &pass_request(request, labels.as_deref()))?;
            *last += 1;
            let number = Arc::new(*last);
            let started = Arc::downgrade(&number);
            running.insert(*last, RunningPass { started, ticket, labels });
            Ok(StartedPass::Running(number))
        })
    }

    fn finish(&self, pass: StartedPass) -> Result<ForwardOutput, EngineError> {
        let number = match pass {
            StartedPass::Done(output) => return Ok(output),
            StartedPass::Running(number) => number,
        };
        let mut state = self.state.lock();
        let RunningPass { ticket, labels, .. } =
            state.running.remove(&*number).expect("a pass is finished once");
        let output = state.network.finish(ticket)?;
        self.output(output, labels).map_err(of_tensors)
    }
}

impl LayerConvolution {
    fn for_cuda(&self) -> CutConvolution<'_> {
        let Self { weights, bias, scale, shift } = self;
        CutConvolution { weights, bias, scale, shift }
    }
}

impl From<LayerPoint> for Cut {
    fn from(point: LayerPoint) -> Self {
        match point {
            LayerPoint::Stem => Self::Stem,
            LayerPoint::Block(stage, block) => Self::Block(stage, block),
            LayerPoint::Path(stage, block, place) => Self::Path(stage, block, place),
            LayerPoint::Shortcut(stage, block) => Self::Shortcut(stage, block),
        }
    }
}

/// How the GPU makes a method's maps of gradients, if it does.
fn rule_of(method: Method) -> Option<CamRule> {
    match method {
        Method::GradCam => Some(CamRule::GradCam),
        Method::HiResCam => Some(CamRule::HiResCam),
        Method::GradCamPlusPlus => Some(CamRule::GradCamPlusPlus),
        Method::XGradCam => Some(CamRule::XGradCam),
        Method::LayerCam => Some(CamRule::LayerCam),
        Method::EigenCam | Method::EigenGradCam | Method::ScoreCam | Method::AblationCam => None,
    }
}

impl CudaEngine {
    fn gradient_output(
        &self,
        input: PassInput<'_>,
        TargetLayerRef { point, convolution }: TargetLayerRef<'_>,
        targets: &[CamTarget],
        request: GradientRequest,
    ) -> Result<camshaft_cuda::GradientOutput, EngineError> {
        let targets: Vec<_> = targets.iter().map(|target| (target.image, target.class)).collect();
        let convolution = convolution.map(LayerConvolution::for_cuda);
        let mut state = self.state.lock();
        with_input(input, self.input.image_bytes(), |input, _images| {
            let network = &mut state.network;
            Ok(network.gradients(input, point.into(), convolution.as_ref(), &targets, request)?)
        })
    }
}

impl LayerEngine for CudaEngine {
    fn maps(
        &self,
        input: PassInput<'_>,
        layer: TargetLayerRef<'_>,
        targets: &[CamTarget],
        method: Method,
    ) -> Option<Result<Vec<HeatMap>, EngineError>> {
        let request = GradientRequest::Maps(rule_of(method)?);
        let output = self.gradient_output(input, layer, targets, request);
        Some(output.map(|output| {
            let (height, width) = (output.height, output.width);
            let maps = output.maps.chunks(height * width);
            maps.map(|values| HeatMap { height, width, values: values.to_vec() }).collect()
        }))
    }

    fn gradients(
        &self,
        input: PassInput<'_>,
        layer: TargetLayerRef<'_>,
        targets: &[CamTarget],
    ) -> Result<Gradients, EngineError> {
        let output = self.gradient_output(input, layer, targets, GradientRequest::Tensors)?;
        let shape = (targets.len(), output.channels, output.height, output.width);
        let tensor =
            |values: Vec<f32>| Tensor::from_vec(values, shape, &Device::Cpu).map_err(of_tensors);
        Ok(Gradients::linear(tensor(output.activations)?, tensor(output.gradients)?))
    }

    fn ablated_logits(
        &self,
        image: PassInput<'_>,
        TargetLayerRef { point, convolution }: TargetLayerRef<'_>,
    ) -> Result<Tensor, EngineError> {
        let convolution = convolution.map(LayerConvolution::for_cuda);
        let mut state = self.state.lock();
        let logits = with_input(image, self.input.image_bytes(), |image, _images| {
            Ok(state.network.ablated_logits(image, point.into(), convolution.as_ref())?)
        })?;
        let channels = logits.len() / self.classes.max(1);
        Tensor::from_vec(logits, (channels, self.classes), &Device::Cpu).map_err(of_tensors)
    }
}
