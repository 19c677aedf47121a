//! ResNet (He et al. 2015, <https://arxiv.org/abs/1512.03385>) with torchvision's parameter
//! names and strides ("v1.5": a bottleneck's stride is in its 3×3).
//!
//! Can start from and stop at the output of each of its four residual stages, which is what
//! explanations need. What classes mean and how images become input is not known here.

use camshaft_kernels::{Backbone, BlockWeights, Kernel, NetworkWeights, SMALLEST_SIDE};
use candle_core::{D, DType, Device, Module, Result, Tensor};
use candle_nn::Linear;

use super::compute::Compute;
use super::convolution::{ConvShape, FoldedConv, FoldedValues, FoldedWeights, channels_last};
use super::pooling::max_pool;
use super::weights::Weights;

/// Number of residual stages, `layer1` to `layer4`.
pub const STAGES: usize = 4;

/// How deep and wide a ResNet of bottleneck blocks is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ResNetShape {
    /// Blocks of each stage.
    pub(super) blocks: [usize; STAGES],
    /// Channels of the stem, and of the first stage's 3×3.
    pub(super) width: usize,
}

impl ResNetShape {
    /// Table 1 of the paper, column "50-layer".
    pub(super) const RESNET50: Self = Self { blocks: [3, 4, 6, 3], width: 64 };

    /// Channels after the last stage.
    pub(super) fn features(self) -> usize {
        (self.width << (STAGES - 1)) * EXPANSION
    }
}

/// A bottleneck's outputs for each channel of its 3×3.
const EXPANSION: usize = 4;
/// Channels of an image.
const IMAGE_CHANNELS: usize = 3;

/// A ResNet on one device, BatchNorms folded in.
///
/// Tensors it takes and gives are f32 whatever it computes in.
#[derive(Debug)]
pub struct ResNet {
    stem: FoldedConv,
    stages: [Vec<ResidualBlock>; STAGES],
    head: Head,
    dtype: DType,
    /// The stem and the stages once more, for the CPU's own kernels: what a plain pass runs
    /// on. Gradients go through candle's layers.
    backbone: Option<Backbone>,
}

/// What a forward pass leaves.
#[derive(Clone, Debug)]
pub struct Forward {
    /// `[N, K]`, f32, any range.
    pub logits: Tensor,
    /// By stage, `layer1` first: `[N, C, H, W]`, f32, zero or more, where it was asked for.
    pub stages: [Option<Tensor>; STAGES],
}

impl ResNet {
    /// Reads a network for `classes` classes; tensors that don't fit are noted in `weights`.
    pub(super) fn load(
        weights: &mut Weights<'_>,
        shape: ResNetShape,
        classes: usize,
        device: &Device,
        &Compute { dtype, kernel, .. }: &Compute,
    ) -> Result<Self> {
        let mut loader = Loader { weights, device };
        let stem = ConvShape { inputs: IMAGE_CHANNELS, outputs: shape.width, kernel: 7, stride: 2 };
        let stem = FoldedWeights::load(loader.weights, ("conv1", "bn1"), stem)?;
        let mut inputs = shape.width;
        let mut folded = [const { Vec::new() }; STAGES];
        for (index, stage) in folded.iter_mut().enumerate() {
            let width = shape.width << index;
            for block in 0..shape.blocks[index] {
                // Every stage but the first halves the image in its first block.
                let stride = if index > 0 && block == 0 { 2 } else { 1 };
                let name = format!("layer{}.{block}", index + 1);
                stage.push(loader.bottleneck(&name, inputs, width, stride)?);
                inputs = width * EXPANSION;
            }
        }
        let head = loader.head(classes, shape.features())?;
        let backbone = match kernel {
            Some(kernel) => backbone(&stem, &folded, kernel)?,
            None => None,
        };
        let layers = (device, dtype);
        let mut stages = [const { Vec::new() }; STAGES];
        for (stage, folded) in stages.iter_mut().zip(&folded) {
            let blocks = folded.iter().map(|block| ResidualBlock::new(block, layers));
            *stage = blocks.collect::<Result<_>>()?;
        }
        Ok(Self { stem: FoldedConv::new(&stem, true, layers)?, stages, head, dtype, backbone })
    }

    /// The kernel a plain pass runs on; none: candle.
    pub(super) fn kernel(&self) -> Option<Kernel> {
        self.backbone.as_ref().map(Backbone::kernel)
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
        let mut features = self.stem(input)?;
        let mut stages = [const { None }; STAGES];
        for (index, stage) in self.stages.iter().enumerate() {
            features = run(stage, features)?;
            if wanted.contains(&(index + 1)) {
                stages[index] = Some(features.to_dtype(DType::F32)?);
            }
        }
        Ok(Forward { logits: self.head.forward(&features)?, stages })
    }

    fn forward_on_kernels(
        &self,
        backbone: &Backbone,
        input: &Tensor,
        wanted: &[usize],
    ) -> Result<Forward> {
        let (batch, _, height, width) = input.dims4()?;
        let pixels = input.flatten_all()?.to_vec1::<f32>()?;
        let wanted = std::array::from_fn(|index| wanted.contains(&(index + 1)));
        let threads = rayon::current_num_threads();
        let output = backbone.run(&pixels, (batch, height, width), wanted, threads);
        let device = input.device();
        let pooled = Tensor::from_vec(output.pooled, (batch, ()), device)?;
        let mut stages = [const { None }; STAGES];
        for (stage, features) in stages.iter_mut().zip(output.stages) {
            if let Some(features) = features {
                *stage = Some(Tensor::from_vec(features.values, &features.shape[..], device)?);
            }
        }
        Ok(Forward { logits: self.head.linear.forward(&pooled)?, stages })
    }

    /// The output of `stage` (1 to 4) after its last ReLU: `[N, C, H, W]`, f32, zero or more.
    /// `input` as for [`Self::forward`].
    pub fn forward_to_stage(&self, input: &Tensor, stage: usize) -> Result<Tensor> {
        self.stages[..stage]
            .iter()
            .try_fold(self.stem(input)?, |x, stage| run(stage, x))?
            .to_dtype(DType::F32)
    }

    /// Logits `[N, K]`, f32, from the output of `stage` (1 to 4) as [`Self::forward_to_stage`]
    /// gives it. Differentiable with respect to `features`.
    pub fn forward_from_stage(&self, features: &Tensor, stage: usize) -> Result<Tensor> {
        let features = features.to_dtype(self.dtype)?;
        let features = self.stages[stage..].iter().try_fold(features, |x, stage| run(stage, x))?;
        self.head.forward(&features)
    }

    /// `fc.weight`: `[K, C]`, f32.
    pub fn head_weight(&self) -> &Tensor {
        self.head.linear.weight()
    }

    /// Everything before the first stage: `[N, 3, H, W]` to `[N, C, H / 4, W / 4]`.
    fn stem(&self, input: &Tensor) -> Result<Tensor> {
        let output = self.stem.forward(&input.to_dtype(self.dtype)?, None)?;
        if output.device().is_cpu() {
            return max_pool(&channels_last(&output)?)?.permute((0, 3, 1, 2));
        }
        // After a ReLU a border of zeros is as good as torch's border of minus infinity.
        let output = output.pad_with_zeros(D::Minus1, 1, 1)?.pad_with_zeros(D::Minus2, 1, 1)?;
        output.max_pool2d_with_stride(3, 2)
    }
}

fn run(stage: &[ResidualBlock], features: Tensor) -> Result<Tensor> {
    stage.iter().try_fold(features, |x, block| block.forward(&x))
}

/// The network for the CPU's kernels, where they can run it.
fn backbone(
    stem: &FoldedWeights,
    folded: &[Vec<FoldedBlock>; STAGES],
    kernel: Kernel,
) -> Result<Option<Backbone>> {
    let stem = stem.to_values()?;
    let mut stages = [const { Vec::new() }; STAGES];
    for (stage, folded) in stages.iter_mut().zip(folded) {
        *stage = folded.iter().map(FoldedBlock::to_values).collect::<Result<Vec<_>>>()?;
    }
    let network = NetworkWeights {
        stem: stem.for_kernels(),
        stages: stages.each_ref().map(|stage| stage.iter().map(BlockValues::for_kernels).collect()),
    };
    match Backbone::new(kernel, &network) {
        Ok(backbone) => Ok(Some(backbone)),
        Err(reason) => {
            tracing::warn!(%kernel, %reason, "the CPU's kernels can't run this network");
            Ok(None)
        }
    }
}

/// A block's weights, see [`ResidualBlock`].
struct FoldedBlock {
    path: Vec<FoldedWeights>,
    shortcut: Option<FoldedWeights>,
}

impl FoldedBlock {
    fn to_values(&self) -> Result<BlockValues> {
        let path = self.path.iter().map(FoldedWeights::to_values).collect::<Result<_>>()?;
        let shortcut = self.shortcut.as_ref().map(FoldedWeights::to_values).transpose()?;
        Ok(BlockValues { path, shortcut })
    }
}

/// [`FoldedBlock`] as plain values, for the CPU's kernels.
struct BlockValues {
    path: Vec<FoldedValues>,
    shortcut: Option<FoldedValues>,
}

impl BlockValues {
    fn for_kernels(&self) -> BlockWeights<'_> {
        BlockWeights {
            path: self.path.iter().map(FoldedValues::for_kernels).collect(),
            shortcut: self.shortcut.as_ref().map(FoldedValues::for_kernels),
        }
    }
}

/// `relu(path(x) + shortcut(x))`.
#[derive(Debug)]
struct ResidualBlock {
    /// Convolutions one after the other; the residual enters the last one before its ReLU.
    path: Vec<FoldedConv>,
    /// A 1×1 where input and output have different shapes, else the input itself.
    shortcut: Option<FoldedConv>,
}

impl ResidualBlock {
    fn new(folded: &FoldedBlock, layers: (&Device, DType)) -> Result<Self> {
        let path = folded.path.iter().map(|conv| FoldedConv::new(conv, true, layers));
        let shortcut = folded.shortcut.as_ref().map(|conv| FoldedConv::new(conv, false, layers));
        Ok(Self { path: path.collect::<Result<_>>()?, shortcut: shortcut.transpose()? })
    }

    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        let shortcut = match &self.shortcut {
            Some(shortcut) => shortcut.forward(input, None)?,
            None => input.clone(),
        };
        let (last, path) = self.path.split_last().expect("a block has convolutions");
        let output = path.iter().try_fold(input.clone(), |x, conv| conv.forward(&x, None))?;
        last.forward(&output, Some(&shortcut))
    }
}

/// Global average pooling and a linear layer, in f32: both are small, and closed-form maps
/// rest on the weights.
#[derive(Debug)]
struct Head {
    /// Weight `[K, C]`, bias `[K]`.
    linear: Linear,
}

impl Head {
    /// `[N, C, H, W]` in any dtype to `[N, K]` f32.
    fn forward(&self, features: &Tensor) -> Result<Tensor> {
        self.linear.forward(&features.to_dtype(DType::F32)?.mean((2, 3))?)
    }
}

struct Loader<'a, 'file> {
    weights: &'a mut Weights<'file>,
    device: &'a Device,
}

impl Loader<'_, '_> {
    /// `[N, inputs, H, W]` to `[N, 4 * width, H / stride, W / stride]`.
    fn bottleneck(
        &mut self,
        name: &str,
        inputs: usize,
        width: usize,
        stride: usize,
    ) -> Result<FoldedBlock> {
        let outputs = width * EXPANSION;
        let shapes = [
            ConvShape { inputs, outputs: width, kernel: 1, stride: 1 },
            ConvShape { inputs: width, outputs: width, kernel: 3, stride },
            ConvShape { inputs: width, outputs, kernel: 1, stride: 1 },
        ];
        let path = (1..).zip(shapes).map(|(number, shape)| {
            let (conv, norm) = (format!("{name}.conv{number}"), format!("{name}.bn{number}"));
            FoldedWeights::load(self.weights, (&conv, &norm), shape)
        });
        let path = path.collect::<Result<_>>()?;
        let shortcut = if stride != 1 || inputs != outputs {
            let (conv, norm) = (format!("{name}.downsample.0"), format!("{name}.downsample.1"));
            let shape = ConvShape { inputs, outputs, kernel: 1, stride };
            Some(FoldedWeights::load(self.weights, (&conv, &norm), shape)?)
        } else {
            None
        };
        Ok(FoldedBlock { path, shortcut })
    }

    fn head(&mut self, classes: usize, features: usize) -> Result<Head> {
        let weight = self.weights.tensor("fc.weight", &[classes, features])?;
        let bias = self.weights.tensor("fc.bias", &[classes])?;
        let (weight, bias) = (weight.to_device(self.device)?, bias.to_device(self.device)?);
        Ok(Head { linear: Linear::new(weight, Some(bias)) })
    }
}

#[cfg(test)]
mod tests {
    use crate::cam::{CamTarget, grad_cam};
    use crate::model::testing::{CLASSES, SIDE, noise, small_model};

    use super::*;

    fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
        (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }

    #[test]
    fn stopping_and_starting_at_any_stage_is_the_whole_pass() {
        let model = small_model();
        let network = model.network();
        let input = noise(&[2, 3, SIDE, SIDE], 100).abs().unwrap();
        let whole = network.forward(&input, &[1, 2, 3, 4]).unwrap();
        assert_eq!(whole.logits.dims(), [2, CLASSES]);
        for stage in 1..=STAGES {
            let features = network.forward_to_stage(&input, stage).unwrap();
            let side = SIDE >> (stage + 1);
            assert_eq!(features.dims(), [2, 16 << (stage - 1), side, side]);
            assert_eq!(
                largest_difference(&features, whole.stages[stage - 1].as_ref().unwrap()),
                0.0
            );
            let logits = network.forward_from_stage(&features, stage).unwrap();
            assert!(largest_difference(&logits, &whole.logits) < 1e-5);
        }
        let some = network.forward(&input, &[3]).unwrap().stages;
        assert_eq!(some.map(|stage| stage.is_some()), [false, false, true, false]);
    }

    #[test]
    fn gradient_through_the_network_equals_finite_differences() {
        let model = small_model();
        let network = model.network();
        let input = noise(&[1, 3, SIDE, SIDE], 100).abs().unwrap();
        for stage in 1..STAGES {
            let features = network.forward_to_stage(&input, stage).unwrap();
            let variable = candle_core::Var::from_tensor(&features).unwrap();
            let logit =
                |x: &Tensor| network.forward_from_stage(x, stage).unwrap().sum_all().unwrap();
            let gradients = logit(&variable).backward().unwrap();
            let gradient = gradients.get(&variable).unwrap();
            // Along the gradient itself, which outweighs the kinks of the ReLUs.
            let norm = gradient.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
            let step = 1e-3 / norm.sqrt();
            let moved = |by: f32| {
                let moved = (&features + (gradient * f64::from(by)).unwrap()).unwrap();
                logit(&moved).to_scalar::<f32>().unwrap()
            };
            let slope = (moved(step) - moved(-step)) / (2.0 * step);
            assert!((slope / norm - 1.0).abs() < 0.05, "stage {stage}: {slope} and {norm}");
        }
    }

    #[test]
    fn closed_form_equals_the_gradients_map_through_the_head() {
        let model = small_model();
        let network = model.network();
        let input = noise(&[3, 3, SIDE, SIDE], 100).abs().unwrap();
        let features = network.forward_to_stage(&input, STAGES).unwrap();
        let targets: Vec<_> = (0..3 * CLASSES)
            .map(|index| CamTarget { image: index % 3, class: index / 3 })
            .collect();
        let closed = grad_cam::closed_form(&features, network.head_weight(), &targets).unwrap();
        let gradient = grad_cam::by_gradient(&features, &targets, |features| {
            network.forward_from_stage(features, STAGES)
        });
        // A map near zero is a difference of large channels: theirs is the scale.
        let scale: f32 = features.max_all().unwrap().to_scalar().unwrap();
        for (closed, gradient) in closed.iter().zip(gradient.unwrap()) {
            let max = closed.values.iter().copied().fold(1e-2 * scale, f32::max);
            for (a, b) in closed.values.iter().zip(gradient.values) {
                assert!((a - b).abs() <= 1e-5 * max, "{a} and {b}");
            }
        }
    }
}
