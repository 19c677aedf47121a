//! How deep and wide a ResNet is, and the names and shapes of its convolutions. Nothing is computed
//! here.

use crate::config::Architecture;
use crate::network::convolution_shape::{ConvShape, NamedConvolution};

/// Depth, width and kind of blocks of a ResNet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResNetShape {
    /// Number of blocks of each stage.
    pub blocks: [usize; STAGES],
    /// Channels of the stem, and of the first stage's 3×3.
    pub width: usize,
    /// Kind of all blocks.
    pub block: BlockKind,
}

/// The convolutions of a residual block's path, and which one has the stride.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// Two 3×3. The first one has the stride.
    Basic,
    /// 1×1, 3×3, and 1×1 to four times the channels. The 3×3 has the stride ("v1.5").
    Bottleneck,
    /// As [`Self::Bottleneck`], but the first 1×1 has the stride ("v1": the paper, and Keras).
    BottleneckStrideFirst,
}

impl BlockKind {
    /// Number of output channels of a block for each channel of its 3×3.
    pub(crate) fn expansion(self) -> usize {
        match self {
            Self::Basic => 1,
            Self::Bottleneck | Self::BottleneckStrideFirst => 4,
        }
    }

    /// The convolutions of a block's path, from `inputs` channels to `width * expansion`.
    pub(crate) fn path(self, inputs: usize, width: usize, stride: usize) -> Vec<ConvShape> {
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

/// One block of a network: its position and its shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockShape {
    /// Stage, from 0.
    pub(crate) stage: usize,
    /// Number in its stage, from 0.
    pub(crate) number: usize,
    /// Input channels.
    pub(crate) inputs: usize,
    /// Channels of its 3×3.
    pub(crate) width: usize,
    /// Stride of the block.
    pub(crate) stride: usize,
    kind: BlockKind,
}

impl BlockShape {
    /// torchvision's name: `layer1.0`.
    pub(crate) fn name(self) -> String {
        format!("layer{}.{}", self.stage + 1, self.number)
    }

    /// Output channels.
    pub(crate) fn outputs(self) -> usize {
        self.width * self.kind.expansion()
    }

    /// The convolutions of the path, each followed by its BatchNorm.
    pub fn path(self) -> Vec<NamedConvolution> {
        let shapes = self.kind.path(self.inputs, self.width, self.stride);
        let name = self.name();
        let named = (1..).zip(shapes).map(|(number, shape)| NamedConvolution {
            conv: format!("{name}.conv{number}"),
            norm: format!("{name}.bn{number}"),
            shape,
        });
        named.collect()
    }

    /// The convolution of the shortcut; none if the shortcut is the block's input itself.
    pub fn shortcut(self) -> Option<NamedConvolution> {
        let (inputs, outputs, stride) = (self.inputs, self.outputs(), self.stride);
        let name = self.name();
        (stride != 1 || inputs != outputs).then(|| {
            let (conv, norm) = (format!("{name}.downsample.0"), format!("{name}.downsample.1"));
            NamedConvolution { conv, norm, shape: ConvShape { inputs, outputs, kernel: 1, stride } }
        })
    }
}

impl ResNetShape {
    /// The shape of an architecture: He et al. 2015, table 1.
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
        // Stem, pooling and three stages each halve the sides, rounding up.
        let [height, width] = [height, width].map(|side| side.div_ceil(32));
        [(self.width << (STAGES - 1)) * self.block.expansion(), height, width]
    }

    /// Describes the layers that the network has, for an error.
    pub(crate) fn describe_layers(self) -> String {
        let blocks: Vec<_> = (0..STAGES)
            .map(|stage| format!("layer{0}.0 to layer{0}.{1}", stage + 1, self.blocks[stage] - 1))
            .collect();
        let path = self.block.path(1, 1, 1).len();
        format!("its blocks are {}, each with conv1 to conv{path}", blocks.join(", "))
    }

    /// The stem's convolution.
    pub fn stem(self) -> NamedConvolution {
        let shape = ConvShape { inputs: IMAGE_CHANNELS, outputs: self.width, kernel: 7, stride: 2 };
        NamedConvolution { conv: "conv1".to_owned(), norm: "bn1".to_owned(), shape }
    }

    /// Every convolution, in the order of a forward pass: the stem's, then block by block the
    /// path's and the shortcut's.
    pub fn convolutions(self) -> Vec<NamedConvolution> {
        let mut all = vec![self.stem()];
        for block in (0..STAGES).flat_map(|stage| self.stage(stage)) {
            all.extend(block.path());
            all.extend(block.shortcut());
        }
        all
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

/// Number of residual stages, `layer1` to `layer4`.
pub const STAGES: usize = 4;
/// Channels of an image.
const IMAGE_CHANNELS: usize = 3;
