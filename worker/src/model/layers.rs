//! A ResNet's convolutions: as folded weights, and as the candle layers made of them, through
//! which gradients can go. The head and which code runs a pass are not known here.

use camshaft_kernels::{BlockWeights, NetworkWeights};
use candle_core::{D, DType, Device, Result, Tensor};

use super::convolution::{ConvShape, FoldedConv, FoldedValues, FoldedWeights, channels_last};
use super::pooling::max_pool;
use super::resnet::STAGES;
use super::weights::Weights;

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

/// All convolutions of a network, BatchNorms folded in, in f32 on the CPU.
pub(super) struct FoldedNetwork {
    stem: FoldedWeights,
    stages: [Vec<FoldedBlock>; STAGES],
}

impl FoldedNetwork {
    /// Reads them; tensors that don't fit are noted in `weights`.
    pub(super) fn load(weights: &mut Weights<'_>, shape: ResNetShape) -> Result<Self> {
        let stem = ConvShape { inputs: IMAGE_CHANNELS, outputs: shape.width, kernel: 7, stride: 2 };
        let stem = FoldedWeights::load(weights, ("conv1", "bn1"), stem)?;
        let mut inputs = shape.width;
        let mut stages = [const { Vec::new() }; STAGES];
        for (index, stage) in stages.iter_mut().enumerate() {
            let width = shape.width << index;
            for block in 0..shape.blocks[index] {
                // Every stage but the first halves the image in its first block.
                let stride = if index > 0 && block == 0 { 2 } else { 1 };
                let name = format!("layer{}.{block}", index + 1);
                stage.push(FoldedBlock::load(weights, &name, inputs, width, stride)?);
                inputs = width * EXPANSION;
            }
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
    /// `[N, inputs, H, W]` to `[N, 4 * width, H / stride, W / stride]`.
    fn load(
        weights: &mut Weights<'_>,
        name: &str,
        inputs: usize,
        width: usize,
        stride: usize,
    ) -> Result<Self> {
        let outputs = width * EXPANSION;
        let shapes = [
            ConvShape { inputs, outputs: width, kernel: 1, stride: 1 },
            ConvShape { inputs: width, outputs: width, kernel: 3, stride },
            ConvShape { inputs: width, outputs, kernel: 1, stride: 1 },
        ];
        let path = (1..).zip(shapes).map(|(number, shape)| {
            let (conv, norm) = (format!("{name}.conv{number}"), format!("{name}.bn{number}"));
            FoldedWeights::load(weights, (&conv, &norm), shape)
        });
        let path = path.collect::<Result<_>>()?;
        let shortcut = if stride != 1 || inputs != outputs {
            let (conv, norm) = (format!("{name}.downsample.0"), format!("{name}.downsample.1"));
            let shape = ConvShape { inputs, outputs, kernel: 1, stride };
            Some(FoldedWeights::load(weights, (&conv, &norm), shape)?)
        } else {
            None
        };
        Ok(Self { path, shortcut })
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
        if output.device().is_cpu() {
            return max_pool(&channels_last(&output)?)?.permute((0, 3, 1, 2));
        }
        // After a ReLU a border of zeros is as good as torch's border of minus infinity.
        let output = output.pad_with_zeros(D::Minus1, 1, 1)?.pad_with_zeros(D::Minus2, 1, 1)?;
        output.max_pool2d_with_stride(3, 2)
    }

    /// One stage, counted from 0: `[N, C, H, W]` in any dtype to the stage's output in the
    /// layers' own.
    pub(super) fn stage(&self, stage: usize, features: &Tensor) -> Result<Tensor> {
        let features = features.to_dtype(self.dtype)?;
        self.stages[stage].iter().try_fold(features, |x, block| block.forward(&x))
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
