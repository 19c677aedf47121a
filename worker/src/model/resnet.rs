//! ResNet (He et al. 2015, <https://arxiv.org/abs/1512.03385>) with torchvision's parameter
//! names and strides ("v1.5": a bottleneck's stride is in its 3×3).
//!
//! Can be cut at any block or convolution, which is what explanations need. What classes mean and how images become input is not known here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use camshaft_common::explain::{Choices, FusedLayers, TargetLayer};
use camshaft_kernels::{Backbone, BatchShape, Kernel, SMALLEST_SIDE};
use candle_core::{CpuStorage, DType, Device, Result, Storage, Tensor, bail};

use super::compute::Compute;
use super::config::HeadKind;
use super::cut::{Cut, LayerPoint, SingleConv, Start};
use super::explain::ExplainError;
use super::head::{Head, HeadShape};
use super::layers::{FoldedNetwork, Layers, ResNetShape};
use super::weights::Weights;

/// Number of residual stages, `layer1` to `layer4`.
pub const STAGES: usize = 4;

/// A ResNet on one device, BatchNorms folded in.
///
/// Tensors it takes and gives are f32 whatever it computes in.
#[derive(Debug)]
pub struct ResNet {
    shape: ResNetShape,
    head: Head,
    device: Device,
    dtype: DType,
    /// The CPU's own kernels, where they can run this network: what a plain pass runs on.
    /// Gradients go through candle's layers.
    backbone: Option<Backbone>,
    /// Made when they are first needed, where there is a backbone: most runs need no gradient,
    /// and they are twice the file's size.
    layers: OnceLock<Layers>,
    /// Convolutions whose own output is explained, apart from their BatchNorms.
    singles: Mutex<HashMap<LayerPoint, Arc<SingleConv>>>,
    /// What they are made of.
    file: Bytes,
}

/// What a forward pass leaves.
#[derive(Clone, Debug)]
pub struct Forward {
    /// `[N, K]`, f32, any range.
    pub logits: Tensor,
    /// `[N, C]`, f32, zero or more: the last stage's output averaged over space, whatever the head
    /// makes of it.
    pub pooled: Tensor,
    /// By stage, `layer1` first: `[N, C, H, W]`, f32, zero or more, where it was asked for.
    pub stages: [Option<Tensor>; STAGES],
}

impl ResNet {
    /// Reads a network from `weights`, the tensors of `file`; those that don't fit are noted in
    /// `weights`.
    pub(super) fn load(
        weights: &mut Weights<'_>,
        file: Bytes,
        (shape, head): (ResNetShape, HeadShape),
        device: &Device,
        &Compute { dtype, kernel, .. }: &Compute,
    ) -> Result<Self> {
        let folded = FoldedNetwork::load(weights, shape)?;
        let head = Head::load(weights, head, device)?;
        let backbone = match kernel {
            Some(kernel) => backbone(&folded, kernel)?,
            None => None,
        };
        let layers = OnceLock::new();
        if backbone.is_none() {
            let made = Layers::new(&folded, (device, dtype))?;
            layers.get_or_init(|| made);
        }
        let (device, singles) = (device.clone(), Mutex::default());
        Ok(Self { shape, head, device, dtype, backbone, layers, singles, file })
    }

    /// The kernel a plain pass runs on; none: candle.
    pub(super) fn kernel(&self) -> Option<Kernel> {
        self.backbone.as_ref().map(Backbone::kernel)
    }

    fn layers(&self) -> Result<&Layers> {
        if let Some(layers) = self.layers.get() {
            return Ok(layers);
        }
        // Nothing is missing here, or there would be no backbone.
        let folded = FoldedNetwork::load(&mut Weights::read(&self.file)?, self.shape)?;
        let layers = Layers::new(&folded, (&self.device, self.dtype))?;
        Ok(self.layers.get_or_init(|| layers))
    }

    /// Logits of a batch, and the outputs of the stages named in `wanted` (1 to 4), in one
    /// pass. `input` `[N, 3, H, W]`, f32, scaled as the model's input rule says.
    pub fn forward(&self, input: &Tensor, wanted: &[usize]) -> Result<Forward> {
        let (_, _, height, width) = input.dims4()?;
        if let Some(backbone) = &self.backbone
            && !input.track_op()
            && height.min(width) >= SMALLEST_SIDE
        {
            return self.forward_on_kernels(backbone, input, wanted);
        }
        let layers = self.layers()?;
        let mut features = layers.stem(input)?;
        let mut stages = [const { None }; STAGES];
        for (stage, output) in stages.iter_mut().enumerate() {
            features = layers.stage(stage, &features)?;
            if wanted.contains(&(stage + 1)) {
                *output = Some(features.to_dtype(DType::F32)?);
            }
        }
        let features = features.to_dtype(DType::F32)?;
        let pooled = features.mean((2, 3))?;
        Ok(Forward { logits: self.head.forward_both(&features, &pooled)?, pooled, stages })
    }

    fn forward_on_kernels(
        &self,
        backbone: &Backbone,
        input: &Tensor,
        wanted: &[usize],
    ) -> Result<Forward> {
        let (batch, _, height, width) = input.dims4()?;
        let mut run = std::array::from_fn(|index| wanted.contains(&(index + 1)));
        let flatten = self.head.shape().kind == HeadKind::Flatten;
        run[STAGES - 1] |= flatten;
        let threads = rayon::current_num_threads();
        let input = input.contiguous()?;
        let (storage, layout) = input.storage_and_layout();
        let (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) =
            (&*storage, layout.contiguous_offsets())
        else {
            bail!("the CPU's kernels take f32 on the CPU");
        };
        let shape = BatchShape { images: batch, height, width };
        let output = backbone.run(&values[start..end], shape, run, threads);
        let mut stages = [const { None }; STAGES];
        for (stage, features) in stages.iter_mut().zip(output.stages) {
            if let Some(features) = features {
                *stage =
                    Some(Tensor::from_vec(features.values, &features.shape[..], &self.device)?);
            }
        }
        let pooled = Tensor::from_vec(output.pooled, (batch, ()), &self.device)?;
        let logits = if flatten {
            let last = stages[STAGES - 1].as_ref().expect("it was asked for");
            self.head.forward(last)?
        } else {
            self.head.forward_pooled(&pooled)?
        };
        Ok(Forward { logits, pooled, stages })
    }

    /// Where `layer` is in this network.
    pub(super) fn find(&self, layer: TargetLayer) -> Option<LayerPoint> {
        LayerPoint::find(layer, self.shape)
    }

    /// Whether it has these layers.
    pub(super) fn check(
        &self,
        layers: &Choices<FusedLayers>,
    ) -> std::result::Result<(), ExplainError> {
        self.shape.check(layers)
    }

    /// What the output of the layer at `point` is computed from.
    pub(super) fn start(&self, point: LayerPoint) -> Start {
        point.start(self.shape)
    }

    /// Whether only the head follows.
    pub(super) fn is_last(&self, point: LayerPoint) -> bool {
        point.is_last(self.shape)
    }

    /// The layer's output, computed from `start`, what [`Self::start`] says: the input
    /// `[N, 3, H, W]` or a stage's output `[N, C, H, W]`.
    pub(super) fn cut(&self, point: LayerPoint, start: &Tensor) -> Result<Cut> {
        if point.is_stage_output(self.shape) {
            return Ok(Cut { features: start.clone(), point, block_input: None });
        }
        let single = self.single(point)?;
        self.layers()?.cut(point, (self.start(point), start), single.as_deref())
    }

    /// Logits `[N, K]`, f32, with `features` in place of the cut layer's output. Differentiable
    /// with respect to `features`.
    pub(super) fn rest(&self, cut: &Cut, features: &Tensor) -> Result<Tensor> {
        if self.is_last(cut.point) {
            return self.head.forward(features);
        }
        let single = self.single(cut.point)?;
        self.head.forward(&self.layers()?.rest(cut, features, single.as_deref())?)
    }

    /// The convolution at `point` by itself, where the point is one.
    fn single(&self, point: LayerPoint) -> Result<Option<Arc<SingleConv>>> {
        if !point.is_convolution() {
            return Ok(None);
        }
        // A panic while holding it leaves at worst an entry out.
        let mut singles = self.singles.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(single) = singles.get(&point) {
            return Ok(Some(Arc::clone(single)));
        }
        let layers = (&self.device, self.dtype);
        let single = Arc::new(SingleConv::load(&self.file, point, self.shape, layers)?);
        singles.insert(point, Arc::clone(&single));
        Ok(Some(single))
    }

    /// The head.
    pub(super) fn head(&self) -> &Head {
        &self.head
    }
}

/// The network for the CPU's kernels, where they can run it.
fn backbone(folded: &FoldedNetwork, kernel: Kernel) -> Result<Option<Backbone>> {
    match folded.for_kernels(|network| Backbone::new(kernel, network))? {
        Ok(backbone) => Ok(Some(backbone)),
        Err(reason) => {
            tracing::warn!(%kernel, %reason, "the CPU's kernels can't run this network");
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::model::layers::BlockKind;
    use crate::model::testing::{
        CLASSES, SIDE, noise, small_model, small_model_of, small_model_with,
    };

    use super::*;

    fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
        (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }

    /// Every layer there is to be explained.
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

    fn cut(network: &ResNet, point: LayerPoint, input: &Tensor) -> Cut {
        match network.start(point) {
            Start::Image => network.cut(point, input).unwrap(),
            Start::Stage(stage) => {
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
                // Along the gradient itself, which outweighs the kinks of the ReLUs.
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
