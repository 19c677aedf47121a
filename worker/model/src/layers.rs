//! A ResNet's convolutions: as folded weights, and as the candle layers made of them, through
//! which gradients can go. The head and which code runs a pass are not known here.

use camshaft_kernels::{BlockWeights, NetworkWeights};
use candle_core::{D, DType, Device, Result, Tensor};

use super::config::Architecture;
use super::convolution::{ConvShape, FoldedConv, FoldedValues, FoldedWeights, channels_last};
use super::cut::{Cut, LayerPoint, SingleConv, Start};
use super::pooling::max_pool;
use super::resnet::STAGES;
use super::weights::Weights;

/// How deep and wide a ResNet is, and what its blocks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResNetShape {
    /// Blocks of each stage.
    pub blocks: [usize; STAGES],
    /// Channels of the stem, and of the first stage's 3×3.
    pub width: usize,
    /// What a block is.
    pub block: BlockKind,
}

/// What a residual block computes, and which of its convolutions has the stride.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// Two 3×3, the first with the stride.
    Basic,
    /// 1×1, 3×3 with the stride, 1×1 to four times the channels ("v1.5").
    Bottleneck,
    /// The same with the stride in the first 1×1 ("v1", the paper's and Keras').
    BottleneckStrideFirst,
}

impl BlockKind {
    /// Outputs of a block for each channel of its 3×3.
    pub(super) fn expansion(self) -> usize {
        match self {
            Self::Basic => 1,
            Self::Bottleneck | Self::BottleneckStrideFirst => 4,
        }
    }

    /// A block's path: `inputs` channels to `width * expansion`.
    pub(super) fn path(self, inputs: usize, width: usize, stride: usize) -> Vec<ConvShape> {
        let conv = |inputs, outputs, kernel, stride| ConvShape { inputs, outputs, kernel, stride };
        match self {
            Self::Basic => vec![conv(inputs, width, 3, stride), conv(width, width, 3, 1)],
            Self::Bottleneck | Self::BottleneckStrideFirst => {
                let first = self == Self::BottleneckStrideFirst;
                let (reduce, middle) = if first { (stride, 1) } else { (1, stride) };
                vec![
                    conv(inputs, width, 1, reduce),
                    conv(width, width, 3, middle),
                    conv(width, width * self.expansion(), 1, 1),
                ]
            }
        }
    }
}

/// One block of a network, by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockShape {
    /// Stage, from 0.
    pub(super) stage: usize,
    /// Number in its stage, from 0.
    pub(super) number: usize,
    /// Input channels.
    pub(super) inputs: usize,
    /// Channels of its 3×3.
    pub(super) width: usize,
    /// Step between outputs.
    pub(super) stride: usize,
    kind: BlockKind,
}

impl BlockShape {
    /// torchvision's: `layer1.0`.
    pub(super) fn name(self) -> String {
        format!("layer{}.{}", self.stage + 1, self.number)
    }

    /// Output channels.
    pub(super) fn outputs(self) -> usize {
        self.width * self.kind.expansion()
    }

    /// The path's convolutions, each followed by its BatchNorm: names of both, and shape.
    pub fn path(self) -> Vec<(String, String, ConvShape)> {
        let shapes = self.kind.path(self.inputs, self.width, self.stride);
        let name = self.name();
        let named = (1..).zip(shapes);
        named
            .map(|(at, shape)| (format!("{name}.conv{at}"), format!("{name}.bn{at}"), shape))
            .collect()
    }

    /// The shortcut's convolution and BatchNorm; none where it is the input itself.
    pub fn shortcut(self) -> Option<(String, String, ConvShape)> {
        let (inputs, outputs, stride) = (self.inputs, self.outputs(), self.stride);
        let name = self.name();
        (stride != 1 || inputs != outputs).then(|| {
            let shape = ConvShape { inputs, outputs, kernel: 1, stride };
            (format!("{name}.downsample.0"), format!("{name}.downsample.1"), shape)
        })
    }
}

impl ResNetShape {
    /// Table 1 of the paper.
    pub fn of(architecture: Architecture) -> Self {
        use BlockKind::{Basic, Bottleneck, BottleneckStrideFirst};
        let (blocks, block) = match architecture {
            Architecture::ResNet18 => ([2, 2, 2, 2], Basic),
            Architecture::ResNet34 => ([3, 4, 6, 3], Basic),
            Architecture::ResNet50 => ([3, 4, 6, 3], Bottleneck),
            Architecture::ResNet101 => ([3, 4, 23, 3], Bottleneck),
            Architecture::ResNet152 => ([3, 8, 36, 3], Bottleneck),
            Architecture::ResNet50V1 => ([3, 4, 6, 3], BottleneckStrideFirst),
            Architecture::ResNet101V1 => ([3, 4, 23, 3], BottleneckStrideFirst),
            Architecture::ResNet152V1 => ([3, 8, 36, 3], BottleneckStrideFirst),
        };
        Self { blocks, width: 64, block }
    }

    /// `[C, H, W]` of the last stage's output for an input of `height` × `width`.
    pub fn features(self, height: usize, width: usize) -> [usize; 3] {
        // Stem, pooling and three stages each halve, rounding up.
        let [height, width] = [height, width].map(|side| side.div_ceil(32));
        [(self.width << (STAGES - 1)) * self.block.expansion(), height, width]
    }

    /// Which layers there are, for an error.
    pub(super) fn describe_layers(self) -> String {
        let blocks: Vec<_> = (0..STAGES)
            .map(|stage| format!("layer{0}.0 to layer{0}.{1}", stage + 1, self.blocks[stage] - 1))
            .collect();
        let path = self.block.path(1, 1, 1).len();
        format!("its blocks are {}, each with conv1 to conv{path}", blocks.join(", "))
    }

    /// The stem's convolution.
    pub fn stem(self) -> ConvShape {
        ConvShape { inputs: IMAGE_CHANNELS, outputs: self.width, kernel: 7, stride: 2 }
    }

    /// The blocks of a stage, counted from 0.
    pub fn stage(self, stage: usize) -> impl Iterator<Item = BlockShape> {
        let width = self.width << stage;
        let outputs = width * self.block.expansion();
        let first = if stage == 0 { self.width } else { outputs / 2 };
        (0..self.blocks[stage]).map(move |number| BlockShape {
            stage,
            number,
            inputs: if number == 0 { first } else { outputs },
            width,
            // Every stage but the first halves the image in its first block.
            stride: if stage > 0 && number == 0 { 2 } else { 1 },
            kind: self.block,
        })
    }
}

/// Names of the stem's convolution and BatchNorm.
pub const STEM: (&str, &str) = ("conv1", "bn1");
/// Channels of an image.
const IMAGE_CHANNELS: usize = 3;

/// All convolutions of a network, BatchNorms folded in, in f32 on the CPU.
pub(super) struct FoldedNetwork {
    stem: FoldedWeights,
    stages: [Vec<FoldedBlock>; STAGES],
}

impl FoldedNetwork {
    /// Reads them; tensors that don't fit are noted in `weights`.
    pub(super) fn load(weights: &mut Weights<'_>, shape: ResNetShape) -> Result<Self> {
        let stem = FoldedWeights::load(weights, STEM, shape.stem())?;
        let mut stages = [const { Vec::new() }; STAGES];
        for (index, stage) in stages.iter_mut().enumerate() {
            let blocks = shape.stage(index).map(|block| FoldedBlock::load(weights, block));
            *stage = blocks.collect::<Result<_>>()?;
        }
        Ok(Self { stem, stages })
    }

    /// Hands the weights to the CPU's kernels.
    pub(super) fn for_kernels<R>(&self, take: impl FnOnce(&NetworkWeights<'_>) -> R) -> Result<R> {
        let stem = self.stem.values()?;
        let mut stages = [const { Vec::new() }; STAGES];
        for (stage, folded) in stages.iter_mut().zip(&self.stages) {
            *stage = folded.iter().map(FoldedBlock::values).collect::<Result<Vec<_>>>()?;
        }
        Ok(take(&NetworkWeights {
            stem: stem.for_kernels(),
            stages: stages
                .each_ref()
                .map(|stage| stage.iter().map(BlockValues::for_kernels).collect()),
        }))
    }
}

/// A block's weights, see [`ResidualBlock`].
struct FoldedBlock {
    path: Vec<FoldedWeights>,
    shortcut: Option<FoldedWeights>,
}

impl FoldedBlock {
    /// `[N, inputs, H, W]` to `[N, outputs, H / stride, W / stride]`.
    fn load(weights: &mut Weights<'_>, shape: BlockShape) -> Result<Self> {
        let mut load = |(conv, norm, shape): (String, String, ConvShape)| {
            FoldedWeights::load(weights, (&conv, &norm), shape)
        };
        let path = shape.path().into_iter().map(&mut load).collect::<Result<_>>()?;
        Ok(Self { path, shortcut: shape.shortcut().map(load).transpose()? })
    }

    fn values(&self) -> Result<BlockValues<'_>> {
        let path = self.path.iter().map(FoldedWeights::values).collect::<Result<_>>()?;
        let shortcut = self.shortcut.as_ref().map(FoldedWeights::values).transpose()?;
        Ok(BlockValues { path, shortcut })
    }
}

/// [`FoldedBlock`] as plain values, for the CPU's kernels.
struct BlockValues<'a> {
    path: Vec<FoldedValues<'a>>,
    shortcut: Option<FoldedValues<'a>>,
}

impl BlockValues<'_> {
    fn for_kernels(&self) -> BlockWeights<'_> {
        BlockWeights {
            path: self.path.iter().map(FoldedValues::for_kernels).collect(),
            shortcut: self.shortcut.as_ref().map(FoldedValues::for_kernels),
        }
    }
}

/// The convolutions on a device.
#[derive(Debug)]
pub(super) struct Layers {
    stem: FoldedConv,
    stages: [Vec<ResidualBlock>; STAGES],
    dtype: DType,
}

impl Layers {
    /// Converts folded weights for a device.
    pub(super) fn new(folded: &FoldedNetwork, layers: (&Device, DType)) -> Result<Self> {
        let mut stages = [const { Vec::new() }; STAGES];
        for (stage, folded) in stages.iter_mut().zip(&folded.stages) {
            let blocks = folded.iter().map(|block| ResidualBlock::new(block, layers));
            *stage = blocks.collect::<Result<_>>()?;
        }
        Ok(Self { stem: FoldedConv::new(&folded.stem, true, layers)?, stages, dtype: layers.1 })
    }

    /// Everything before the first stage: `[N, 3, H, W]` to `[N, C, H / 4, W / 4]`.
    pub(super) fn stem(&self, input: &Tensor) -> Result<Tensor> {
        let output = self.stem.forward(&input.to_dtype(self.dtype)?, None)?;
        Self::pool(&output)
    }

    /// What follows the stem's BatchNorm.
    fn pool(output: &Tensor) -> Result<Tensor> {
        if output.device().is_cpu() {
            return max_pool(&channels_last(output)?)?.permute((0, 3, 1, 2));
        }
        // After a ReLU a border of zeros is as good as torch's border of minus infinity.
        let output = output.pad_with_zeros(D::Minus1, 1, 1)?.pad_with_zeros(D::Minus2, 1, 1)?;
        output.max_pool2d_with_stride(3, 2)
    }

    /// One stage, counted from 0: `[N, C, H, W]` in any dtype to the stage's output in the
    /// layers' own.
    pub(super) fn stage(&self, stage: usize, features: &Tensor) -> Result<Tensor> {
        let features = features.to_dtype(self.dtype)?;
        self.blocks(stage, .., features)
    }

    /// Some blocks of a stage, one after the other.
    fn blocks(
        &self,
        stage: usize,
        blocks: impl std::slice::SliceIndex<[ResidualBlock], Output = [ResidualBlock]>,
        features: Tensor,
    ) -> Result<Tensor> {
        self.stages[stage][blocks].iter().try_fold(features, |x, block| block.forward(&x))
    }

    /// Runs up to `point`, which is not what it starts at itself: `[N, C, H, W]` in any dtype.
    /// `single` is the point's convolution, where it is one.
    pub(super) fn cut(
        &self,
        point: LayerPoint,
        (start, value): (Start, &Tensor),
        single: Option<&SingleConv>,
    ) -> Result<Cut> {
        let cut = |features: Tensor, block_input: Option<Tensor>| {
            Ok(Cut { features: features.to_dtype(DType::F32)?, point, block_input })
        };
        let value = value.to_dtype(self.dtype)?;
        if point == LayerPoint::Stem {
            return cut(single.expect("a convolution's").forward(&value)?, None);
        }
        let value = if start == Start::Image { self.stem(&value)? } else { value };
        let single = |input: &Tensor| single.expect("a convolution's").forward(input);
        match point {
            LayerPoint::Stem => unreachable!("dealt with above"),
            LayerPoint::Block(stage, block) => cut(self.blocks(stage, ..=block, value)?, None),
            LayerPoint::Path(stage, block, place) => {
                let input = self.blocks(stage, ..block, value)?;
                let path = &self.stages[stage][block].path[..place];
                let before =
                    path.iter().try_fold(input.clone(), |x, conv| conv.forward(&x, None))?;
                cut(single(&before)?, Some(input))
            }
            LayerPoint::Shortcut(stage, block) => {
                let input = self.blocks(stage, ..block, value)?;
                cut(single(&input)?, Some(input))
            }
        }
    }

    /// From the output of `cut`'s layer, in its place `features`, to the last stage's output in
    /// the layers' dtype. Differentiable with respect to `features`.
    pub(super) fn rest(
        &self,
        cut: &Cut,
        features: &Tensor,
        single: Option<&SingleConv>,
    ) -> Result<Tensor> {
        let features = features.to_dtype(self.dtype)?;
        let normalised =
            |single: Option<&SingleConv>| single.expect("a convolution's").normalise(&features);
        let block_input = || cut.block_input.as_ref().expect("it is cut within a block");
        let (stage, block, features) = match cut.point {
            LayerPoint::Stem => {
                let stem = Self::pool(&normalised(single)?.relu()?)?;
                return (0..STAGES).try_fold(stem, |x, stage| self.stage(stage, &x));
            }
            LayerPoint::Block(stage, block) => (stage, block, features),
            LayerPoint::Path(stage, block, place) => {
                let (input, at) = (block_input(), &self.stages[stage][block]);
                let normalised = normalised(single)?;
                let output = if place + 1 == at.path.len() {
                    (normalised + at.shortcut(input)?)?.relu()?
                } else {
                    at.rest_of_path(normalised.relu()?, place + 1, &at.shortcut(input)?)?
                };
                (stage, block, output)
            }
            LayerPoint::Shortcut(stage, block) => {
                let (input, at) = (block_input(), &self.stages[stage][block]);
                (stage, block, at.rest_of_path(input.clone(), 0, &normalised(single)?)?)
            }
        };
        let features = self.blocks(stage, block + 1.., features)?;
        (stage + 1..STAGES).try_fold(features, |x, stage| self.stage(stage, &x))
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
        self.rest_of_path(input.clone(), 0, &self.shortcut(input)?)
    }

    fn shortcut(&self, input: &Tensor) -> Result<Tensor> {
        match &self.shortcut {
            Some(shortcut) => shortcut.forward(input, None),
            None => Ok(input.clone()),
        }
    }

    /// The path from its convolution `first` on, and the shortcut's output added.
    fn rest_of_path(&self, input: Tensor, first: usize, shortcut: &Tensor) -> Result<Tensor> {
        let (last, path) = self.path[first..].split_last().expect("one is left");
        let output = path.iter().try_fold(input, |x, conv| conv.forward(&x, None))?;
        last.forward(&output, Some(shortcut))
    }
}
