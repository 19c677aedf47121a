//! Cutting a network at a target layer: what comes before gives the layer's output, what
//! comes after takes it to logits, differentiably. How maps are made of both is not known
//! here.

use camshaft_common::explain::TargetLayer;
use candle_core::{DType, Device, Result, Tensor};

use super::convolution::{FoldedConv, NormalisedConv};
use super::layers::{ResNetShape, STEM};
use super::weights::Weights;

/// A target layer that a network has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum LayerPoint {
    /// The stem's convolution.
    Stem,
    /// A block's output after its last ReLU; stage and block from 0.
    Block(usize, usize),
    /// A convolution of a block's path, from 0: its own output.
    Path(usize, usize, usize),
    /// The convolution of a block's shortcut: its own output.
    Shortcut(usize, usize),
}

/// What a layer's output is computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// The network's input.
    Image,
    /// The output of a stage, from 0.
    Stage(usize),
}

impl LayerPoint {
    /// Where `layer` is in a network of this shape; none if it has no such layer.
    pub(super) fn find(layer: TargetLayer, shape: ResNetShape) -> Option<Self> {
        let block_of = |stage: u8, block: u8| {
            let stage = usize::from(stage).checked_sub(1)?;
            shape.stage(stage).nth(block.into())
        };
        match layer {
            TargetLayer::Stem => Some(Self::Stem),
            TargetLayer::Stage(stage) => {
                let last = shape.stage(usize::from(stage) - 1).last()?;
                Some(Self::Block(last.stage, last.number))
            }
            TargetLayer::Block { stage, block } => {
                block_of(stage, block).map(|block| Self::Block(block.stage, block.number))
            }
            TargetLayer::Convolution { stage, block, number } => {
                let (block, place) = (block_of(stage, block)?, usize::from(number).checked_sub(1)?);
                let there = place < block.path().len();
                there.then_some(Self::Path(block.stage, block.number, place))
            }
            TargetLayer::Shortcut { stage, block } => {
                let block = block_of(stage, block)?;
                block.shortcut().map(|_| Self::Shortcut(block.stage, block.number))
            }
        }
    }

    /// What its output is computed from. A stage's last block is the stage's output itself.
    pub(super) fn start(self, shape: ResNetShape) -> Start {
        match self {
            Self::Stem => Start::Image,
            Self::Block(stage, _) if self.is_stage_output(shape) => Start::Stage(stage),
            Self::Block(stage, _) | Self::Path(stage, _, _) | Self::Shortcut(stage, _) => {
                stage.checked_sub(1).map_or(Start::Image, Start::Stage)
            }
        }
    }

    /// Whether it is a stage's last block, so that a plain pass gives its output.
    pub(super) fn is_stage_output(self, shape: ResNetShape) -> bool {
        matches!(self, Self::Block(stage, block) if block + 1 == shape.blocks[stage])
    }

    /// Whether only the head follows.
    pub(super) fn is_last(self, shape: ResNetShape) -> bool {
        let last = shape.blocks.len() - 1;
        self == Self::Block(last, shape.blocks[last] - 1)
    }

    /// Whether it is a convolution's own output, before its BatchNorm.
    pub(super) fn is_convolution(self) -> bool {
        !matches!(self, Self::Block(..))
    }
}

/// A network's state at a target layer, for a batch.
#[derive(Clone, Debug)]
pub struct Cut {
    /// The layer's output: `[N, C, H, W]`, f32; zero or more where it is a block's.
    pub features: Tensor,
    pub(super) point: LayerPoint,
    /// What else the rest of the layer's block needs: the block's own input.
    pub(super) block_input: Option<Tensor>,
}

impl Cut {
    /// Of some images of the batch, by indices `[P]` (u32); one may come several times.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn select(&self, images: &Tensor) -> Result<Self> {
        let select = |tensor: &Tensor| tensor.contiguous()?.index_select(images, 0);
        Ok(Self {
            features: select(&self.features)?,
            point: self.point,
            block_input: self.block_input.as_ref().map(select).transpose()?,
        })
    }

    /// Of the first `count` images.
    pub(super) fn first(&self, count: usize) -> Result<Self> {
        let first = |tensor: &Tensor| tensor.narrow(0, 0, count);
        Ok(Self {
            features: first(&self.features)?,
            point: self.point,
            block_input: self.block_input.as_ref().map(first).transpose()?,
        })
    }
}

/// A convolution by itself, and the BatchNorm after it: elsewhere the two are one.
#[derive(Debug)]
pub(super) struct SingleConv {
    conv: FoldedConv,
    /// `[1, O, 1, 1]`.
    scale: Tensor,
    /// `[1, O, 1, 1]`.
    shift: Tensor,
}

impl SingleConv {
    /// Reads the one at `point` from `file`.
    pub(super) fn load(
        file: &[u8],
        point: LayerPoint,
        shape: ResNetShape,
        (device, dtype): (&Device, DType),
    ) -> Result<Self> {
        let block = |stage, block| shape.stage(stage).nth(block).expect("the point was found");
        let (conv, norm, shape) = match point {
            LayerPoint::Stem => (STEM.0.to_owned(), STEM.1.to_owned(), shape.stem()),
            LayerPoint::Path(stage, number, place) => {
                block(stage, number).path().swap_remove(place)
            }
            LayerPoint::Shortcut(stage, number) => {
                block(stage, number).shortcut().expect("the point was found")
            }
            LayerPoint::Block(..) => candle_core::bail!("a block is no convolution"),
        };
        let mut weights = Weights::read(file)?;
        let loaded = NormalisedConv::load(&mut weights, (&conv, &norm), shape)?;
        let (scale, shift) = loaded.norm.affine()?;
        let broadcast =
            |tensor: Tensor| tensor.reshape((1, (), 1, 1))?.to_dtype(dtype)?.to_device(device);
        Ok(Self {
            conv: FoldedConv::new(&loaded.alone()?, false, (device, dtype))?,
            scale: broadcast(scale)?,
            shift: broadcast(shift)?,
        })
    }

    /// The convolution's own output.
    pub(super) fn forward(&self, input: &Tensor) -> Result<Tensor> {
        self.conv.forward(input, None)
    }

    /// What the BatchNorm makes of it.
    pub(super) fn normalise(&self, output: &Tensor) -> Result<Tensor> {
        output.broadcast_mul(&self.scale)?.broadcast_add(&self.shift)
    }
}
