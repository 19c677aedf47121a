//! ResNet (He et al. 2015, <https://arxiv.org/abs/1512.03385>) with torchvision's parameter
//! names and strides ("v1.5": a bottleneck's stride is in its 3×3).
//!
//! Owns a forward pass, and a pass that is cut at any block or convolution, which explanations
//! need. What classes mean and how images become input is not known here. Upstream: weights of a
//! checkpoint. Downstream: `explain`.

mod architecture_hint;
mod cut;
mod layers;
mod shape;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use camshaft_common::explain::TargetLayer;
use camshaft_kernels::Backbone;
use candle_core::{Error, Result, Tensor};
use parking_lot::Mutex;

pub(crate) use architecture_hint::{architecture_of, other_architecture};
pub(crate) use cut::{CutStart, CutState};
pub use shape::{BlockKind, BlockShape, ResNetShape, STAGES};

#[cfg(feature = "cuda")]
use super::cuda_engine::CudaEngine;
use super::head::{Head, HeadShape};
pub use super::inference::ForwardOutput;
use super::inference::{
    EngineError, InferenceEngine, LayerEngine, LoadError, PassInput, PassRequest, PixelInput,
    StartedPass, TargetLayerRef,
};
use super::kernel_engine::KernelEngine;
use super::layer_point::LayerPoint;
use super::unfolded_convolution::{LayerConvolution, UnfoldedConv};
use crate::checkpoint::{Weights, WeightsFile};
use crate::compute::{Backend, ComputeMode, PrecisionError};
use layers::{CandleLayers, FoldedNetwork};

/// The shapes of a network's parts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NetworkShape {
    /// The convolutions.
    pub(crate) backbone: ResNetShape,
    /// The head.
    pub(crate) head: HeadShape,
}

/// A ResNet on one device, BatchNorms folded in.
///
/// It takes and gives f32 tensors, whatever precision it computes in.
#[derive(Debug)]
pub struct ResNet {
    shape: ResNetShape,
    head: Head,
    /// What bytes mean to it.
    input: PixelInput,
    /// What runs every pass that needs no gradient; none if only candle can run this network.
    engine: Option<Box<dyn InferenceEngine>>,
    /// The engine's last error, until it is taken: candle's errors have no room for it.
    failure: Mutex<Option<EngineError>>,
    /// candle's layers. If there is an engine, they are made when they are first needed: most runs
    /// need no gradient, and the layers take twice the file's size.
    layers: OnceLock<CandleLayers>,
    /// Convolutions whose own output is explained.
    unfolded: Mutex<HashMap<LayerPoint, Arc<UnfoldedConv>>>,
    /// The same for engines.
    convolutions: Mutex<HashMap<LayerPoint, Arc<LayerConvolution>>>,
    /// The file that layers are made of.
    file: WeightsFile,
}

impl ResNet {
    /// Reads a network from `weights`, the tensors of `file`. `weights` remembers tensors that
    /// don't fit.
    pub(crate) fn load(
        weights: &mut Weights<'_>,
        file: WeightsFile,
        shape: NetworkShape,
        input: PixelInput,
        compute: &ComputeMode,
    ) -> std::result::Result<Self, LoadError> {
        let NetworkShape { backbone: shape, head } = shape;
        let folded = FoldedNetwork::load(weights, shape)?;
        let head = Head::load(weights, head)?;
        let engine: Option<Box<dyn InferenceEngine>> = match &compute.backend {
            Backend::Candle => None,
            &Backend::Kernel(kernel) => {
                let engine =
                    folded.for_kernels(|it| KernelEngine::new(kernel, it, &head, &input))?;
                engine.map(|engine| -> Box<dyn InferenceEngine> { Box::new(engine) })
            }
            Backend::Int8 { kernel, statistics } => {
                let engine = folded.for_kernels(|it| {
                    KernelEngine::calibrated(*kernel, it, statistics, &head, &input)
                })?;
                Some(Box::new(engine.map_err(PrecisionError::from)?))
            }
            #[cfg(feature = "cuda")]
            Backend::Cuda { device, format, largest_batch } => {
                let settings = (*format, *largest_batch);
                let engine = folded
                    .for_kernels(|it| CudaEngine::new(device, it, &head, &input, settings))?;
                match engine {
                    Ok(engine) => Some(Box::new(engine)),
                    Err(error) => return Err(LoadError::Engine(error)),
                }
            }
        };
        let layers = OnceLock::new();
        if engine.is_none() {
            let made = CandleLayers::new(&folded)?;
            layers.get_or_init(|| made);
        }
        let (unfolded, convolutions, failure) =
            (Mutex::default(), Mutex::default(), Mutex::default());
        Ok(Self { shape, head, input, engine, failure, layers, unfolded, convolutions, file })
    }

    /// The engine's name; none if candle runs every pass.
    pub(crate) fn engine_name(&self) -> Option<String> {
        self.engine.as_ref().map(|engine| engine.name())
    }

    /// The CPU's kernels that run it, if they do.
    pub(crate) fn backbone(&self) -> Option<&Backbone> {
        self.engine.as_ref()?.backbone()
    }

    /// Lets another engine run its passes.
    #[cfg(test)]
    pub(crate) fn set_engine(&mut self, engine: Box<dyn InferenceEngine>) {
        self.engine = Some(engine);
    }

    /// What bytes mean to it.
    pub(crate) fn pixel_input(&self) -> &PixelInput {
        &self.input
    }

    /// Passes that may be under way at once.
    pub(crate) fn passes_at_once(&self) -> usize {
        self.engine.as_ref().map_or(1, |engine| engine.passes_at_once())
    }

    /// The engine's error behind the last error of a pass, if it was the engine's.
    pub(crate) fn take_failure(&self) -> Option<EngineError> {
        self.failure.lock().take()
    }

    fn failed(&self, error: EngineError) -> Error {
        let told = Error::Msg(error.to_string());
        *self.failure.lock() = Some(error);
        told
    }

    fn layers(&self) -> Result<&CandleLayers> {
        if let Some(layers) = self.layers.get() {
            return Ok(layers);
        }
        // Every tensor fits: otherwise there would be no backbone.
        let folded = FoldedNetwork::load(&mut self.file.open()?, self.shape)?;
        let layers = CandleLayers::new(&folded)?;
        Ok(self.layers.get_or_init(|| layers))
    }

    /// Runs a batch: logits, and the outputs of the stages in `wanted` (1 to 4). `input` is
    /// `[N, 3, H, W]`, f32, scaled as the model's input rule says.
    pub fn forward(&self, input: &Tensor, wanted: &[usize]) -> Result<ForwardOutput> {
        let request = PassRequest { stages: wanted.to_vec(), labels: None };
        self.finish(self.begin(PassInput::Scaled(input), &request)?)
    }

    /// Starts a pass of a batch.
    pub(crate) fn begin(&self, input: PassInput<'_>, request: &PassRequest) -> Result<StartedPass> {
        let (height, width) = match input {
            PassInput::Pixels(_) => (self.input.height, self.input.width),
            PassInput::Scaled(input) => {
                let (_, _, height, width) = input.dims4()?;
                (height, width)
            }
        };
        let is_differentiated = matches!(input, PassInput::Scaled(input) if input.track_op());
        if let Some(engine) = &self.engine
            && !is_differentiated
            && engine.takes(height, width)
        {
            return engine.begin(input, request).map_err(|error| self.failed(error));
        }
        let output = match input {
            PassInput::Pixels(bytes) => {
                self.forward_on_candle(&self.input.scale(bytes)?, &request.stages)
            }
            PassInput::Scaled(input) => self.forward_on_candle(input, &request.stages),
        };
        Ok(StartedPass::Done(output?))
    }

    /// Waits for a pass.
    pub(crate) fn finish(&self, pass: StartedPass) -> Result<ForwardOutput> {
        match (pass, &self.engine) {
            (StartedPass::Done(output), _) => Ok(output),
            (pass, Some(engine)) => engine.finish(pass).map_err(|error| self.failed(error)),
            (StartedPass::Running(_), None) => unreachable!("candle's passes are done at once"),
        }
    }

    fn forward_on_candle(&self, input: &Tensor, wanted: &[usize]) -> Result<ForwardOutput> {
        let layers = self.layers()?;
        let mut features = layers.stem(input)?;
        let mut stages = [const { None }; STAGES];
        for (stage, output) in stages.iter_mut().enumerate() {
            features = layers.stage(stage, &features)?;
            if wanted.contains(&(stage + 1)) {
                *output = Some(features.clone());
            }
        }
        let pooled = features.mean((2, 3))?;
        let logits = self.head.forward_both(&features, &pooled)?;
        Ok(ForwardOutput { logits, pooled, stages, maps: None })
    }

    /// True if the engine's passes give maps of the last stage.
    pub(crate) fn makes_maps(&self) -> bool {
        self.engine.as_ref().is_some_and(|engine| engine.makes_maps())
    }

    /// What works on single layers instead of candle, if something does.
    pub(crate) fn layer_engine(&self) -> Option<&dyn LayerEngine> {
        self.engine.as_ref()?.layers()
    }

    /// Calls `run` with the layer at `point` as engines take it.
    pub(crate) fn on_layer<T>(
        &self,
        point: LayerPoint,
        run: impl FnOnce(TargetLayerRef<'_>) -> std::result::Result<T, EngineError>,
    ) -> Result<T> {
        let convolution = match point.convolution(self.shape) {
            None => None,
            Some(named) => {
                let mut all = self.convolutions.lock();
                let known = all.get(&point).map(Arc::clone);
                Some(match known {
                    Some(known) => known,
                    None => {
                        let loaded = Arc::new(LayerConvolution::load(&self.file, &named)?);
                        all.insert(point, Arc::clone(&loaded));
                        loaded
                    }
                })
            }
        };
        let layer = TargetLayerRef { point, convolution: convolution.as_deref() };
        run(layer).map_err(|error| self.failed(error))
    }

    /// The position of `layer` in this network; none if it has no such layer.
    pub(crate) fn find(&self, layer: TargetLayer) -> Option<LayerPoint> {
        LayerPoint::find(layer, self.shape)
    }

    /// Depth and width.
    pub(crate) fn shape(&self) -> ResNetShape {
        self.shape
    }

    /// The tensor that the output of the layer at `point` is computed from.
    pub(crate) fn start(&self, point: LayerPoint) -> CutStart {
        point.start(self.shape)
    }

    /// True if only the head follows.
    pub(crate) fn is_last(&self, point: LayerPoint) -> bool {
        point.is_last(self.shape)
    }

    /// Runs to the layer at `point`, from the tensor that [`Self::start`] names: the input
    /// `[N, 3, H, W]`, or a stage's output `[N, C, H, W]`; f32.
    pub(crate) fn cut(&self, point: LayerPoint, start: &Tensor) -> Result<CutState> {
        if point.is_stage_output(self.shape) {
            return Ok(CutState { features: start.clone(), point, block_input: None });
        }
        let unfolded = self.unfolded(point)?;
        self.layers()?.cut(point, self.start(point), start, unfolded.as_deref())
    }

    /// Runs the rest of a cut pass: logits `[N, K]`, f32, with `features` `[N, C, H, W]` in place
    /// of the layer's output. Differentiable with respect to `features`.
    pub(crate) fn rest(&self, cut: &CutState, features: &Tensor) -> Result<Tensor> {
        if self.is_last(cut.point) {
            return self.head.forward(features);
        }
        let unfolded = self.unfolded(cut.point)?;
        self.head.forward(&self.layers()?.rest(cut, features, unfolded.as_deref())?)
    }

    /// The convolution at `point`, apart from its BatchNorm; none if the point is a block.
    fn unfolded(&self, point: LayerPoint) -> Result<Option<Arc<UnfoldedConv>>> {
        let Some(named) = point.convolution(self.shape) else { return Ok(None) };
        // After a panic of another thread at worst an entry is missing.
        let mut all = self.unfolded.lock();
        if let Some(unfolded) = all.get(&point) {
            return Ok(Some(Arc::clone(unfolded)));
        }
        let unfolded = Arc::new(UnfoldedConv::load(&self.file, &named)?);
        all.insert(point, Arc::clone(&unfolded));
        Ok(Some(unfolded))
    }

    /// The head.
    pub(crate) fn head(&self) -> &Head {
        &self.head
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use crate::config::HeadKind;
    use crate::testing::{CLASSES, SIDE, noise, small_model, small_model_of, small_model_with};

    use super::*;

    fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
        (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }

    /// Every layer that can be explained.
    fn all_layers(network: &ResNet) -> Vec<LayerPoint> {
        let mut layers = vec![LayerPoint::Stem];
        for block in (0..STAGES).flat_map(|stage| network.shape.stage(stage)) {
            let (stage, number) = (block.stage, block.number);
            layers.push(LayerPoint::Block(stage, number));
            layers.extend((0..block.path().len()).map(|at| LayerPoint::Path(stage, number, at)));
            layers.extend(block.shortcut().map(|_| LayerPoint::Shortcut(stage, number)));
        }
        layers
    }

    fn cut(network: &ResNet, point: LayerPoint, input: &Tensor) -> CutState {
        match network.start(point) {
            CutStart::Image => network.cut(point, input).unwrap(),
            CutStart::Stage(stage) => {
                let start = network.forward(input, &[stage + 1]).unwrap().stages;
                network.cut(point, start[stage].as_ref().unwrap()).unwrap()
            }
        }
    }

    #[test]
    fn a_pass_cut_at_any_layer_is_the_whole_pass() {
        for model in [small_model(), small_model_of(BlockKind::Basic)] {
            let network = model.network();
            let input = noise(&[2, 3, SIDE, SIDE], 100).abs().unwrap();
            let whole = network.forward(&input, &[1, 2, 3, 4]).unwrap();
            assert_eq!(whole.logits.dims(), [2, CLASSES]);
            let largest = largest_difference(&whole.logits, &whole.logits.zeros_like().unwrap());
            for point in all_layers(network) {
                let cut = cut(network, point, &input);
                let logits = network.rest(&cut, &cut.features).unwrap();
                let share = largest_difference(&logits, &whole.logits) / largest;
                assert!(share < 1e-5, "{point:?}: off by {share}");
            }
            let some = network.forward(&input, &[3]).unwrap().stages;
            assert_eq!(some.map(|stage| stage.is_some()), [false, false, true, false]);
        }
    }

    #[test]
    fn gradients_equal_finite_differences_at_every_layer() {
        for model in [small_model(), small_model_of(BlockKind::Basic)] {
            let network = model.network();
            let input = noise(&[1, 3, SIDE, SIDE], 100).abs().unwrap();
            for point in all_layers(network) {
                let cut = cut(network, point, &input);
                let variable = candle_core::Var::from_tensor(&cut.features).unwrap();
                let logit = |x: &Tensor| network.rest(&cut, x).unwrap().sum_all().unwrap();
                let gradients = logit(&variable).backward().unwrap();
                let gradient = gradients.get(&variable).unwrap();
                // A step along the gradient: its slope outweighs the kinks of the ReLUs.
                let norm = gradient.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
                let step = 1e-3 / norm.sqrt();
                let moved = |by: f32| {
                    let moved = (&cut.features + (gradient * f64::from(by)).unwrap()).unwrap();
                    logit(&moved).to_scalar::<f32>().unwrap()
                };
                let slope = (moved(step) - moved(-step)) / (2.0 * step);
                assert!((slope / norm - 1.0).abs() < 0.05, "{point:?}: {slope} and {norm}");
            }
        }
    }

    #[test]
    fn the_heads_gradient_written_down_is_the_one_gone_back_for() {
        for head in [HeadKind::AveragePool, HeadKind::Flatten] {
            let model = small_model_with(BlockKind::Bottleneck, head);
            let network = model.network();
            let input = noise(&[3, 3, SIDE, SIDE], 100).abs().unwrap();
            let features = network.forward(&input, &[STAGES]).unwrap().stages[STAGES - 1].clone();
            let features = candle_core::Var::from_tensor(&features.unwrap()).unwrap();
            let classes = Tensor::new(&[4u32, 0, 4], &Device::Cpu).unwrap();
            let logits = network.head().forward(&features).unwrap();
            let logits = logits.gather(&classes.unsqueeze(1).unwrap(), 1).unwrap();
            let back = logits.sum_all().unwrap().backward().unwrap();
            let back = back.get(&features).unwrap();
            let written = network.head().gradient(&classes).unwrap();
            let written = written.broadcast_as(back.shape()).unwrap();
            assert!(largest_difference(back, &written) < 1e-6);
        }
    }
}
