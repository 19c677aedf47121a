//! Cutting a forward pass at a target layer. The part before gives the layer's output; the part
//! after takes it to logits, and is differentiable.
//!
//! Owns where layers are, and what a cut pass has to keep. How maps are made is not known here.

use camshaft_common::explain::TargetLayer;
use candle_core::{Result, Tensor};

use super::shape::ResNetShape;
use crate::network::convolution_shape::NamedConvolution;
use crate::network::layer_point::LayerPoint;

/// The tensor that a layer's output is computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CutStart {
    /// The network's input.
    Image,
    /// The output of a stage, from 0.
    Stage(usize),
}

impl LayerPoint {
    /// The position of `layer` in a network of this shape; none if it has no such layer.
    pub(crate) fn find(layer: TargetLayer, shape: ResNetShape) -> Option<Self> {
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

    /// The tensor that its output is computed from. A stage's last block is the stage's output
    /// itself.
    pub(crate) fn start(self, shape: ResNetShape) -> CutStart {
        match self {
            Self::Stem => CutStart::Image,
            Self::Block(stage, _) if self.is_stage_output(shape) => CutStart::Stage(stage),
            Self::Block(stage, _) | Self::Path(stage, _, _) | Self::Shortcut(stage, _) => {
                stage.checked_sub(1).map_or(CutStart::Image, CutStart::Stage)
            }
        }
    }

    /// True if it is a stage's last block: an uncut pass gives its output.
    pub(crate) fn is_stage_output(self, shape: ResNetShape) -> bool {
        matches!(self, Self::Block(stage, block) if block + 1 == shape.blocks[stage])
    }

    /// True if only the head follows.
    pub(crate) fn is_last(self, shape: ResNetShape) -> bool {
        let last = shape.blocks.len() - 1;
        self == Self::Block(last, shape.blocks[last] - 1)
    }

    /// Channels of its output.
    pub(crate) fn channels(self, shape: ResNetShape) -> usize {
        match self.convolution(shape) {
            Some(convolution) => convolution.shape.outputs,
            None => (shape.width << self.stage()) * shape.block.expansion(),
        }
    }

    /// How many times smaller than the input its output is, in height and in width; both are rounded
    /// up.
    pub(crate) fn reduction(self, shape: ResNetShape) -> usize {
        match self {
            Self::Stem => 2,
            Self::Block(stage, _) | Self::Shortcut(stage, _) | Self::Path(stage, 1.., _) => {
                4 << stage
            }
            // The first block's input is still larger, and one of its convolutions has the stride.
            Self::Path(stage, 0, place) => {
                let first = shape.stage(stage).next().expect("the layer was found");
                let path = first.path().into_iter().take(place + 1);
                let strides = path.map(|convolution| convolution.shape.stride).product::<usize>();
                (4 << stage) / first.stride * strides
            }
        }
    }

    fn stage(self) -> usize {
        match self {
            Self::Stem => 0,
            Self::Block(stage, _) | Self::Path(stage, _, _) | Self::Shortcut(stage, _) => stage,
        }
    }

    /// The convolution whose own output, before its BatchNorm, is the layer; none if the layer is
    /// a block.
    pub(crate) fn convolution(self, shape: ResNetShape) -> Option<NamedConvolution> {
        let block = |stage, block| shape.stage(stage).nth(block).expect("the layer was found");
        match self {
            Self::Stem => Some(shape.stem()),
            Self::Block(..) => None,
            Self::Path(stage, number, place) => {
                Some(block(stage, number).path().swap_remove(place))
            }
            Self::Shortcut(stage, number) => {
                Some(block(stage, number).shortcut().expect("the layer was found"))
            }
        }
    }
}

/// A forward pass of a batch, cut at a target layer.
#[derive(Clone, Debug)]
pub(crate) struct CutState {
    /// The layer's output: `[N, C, H, W]`, f32; zero or more if the layer is a block.
    pub(crate) features: Tensor,
    pub(crate) point: LayerPoint,
    /// The input of the layer's block, if the rest of the block needs it.
    pub(crate) block_input: Option<Tensor>,
}

impl CutState {
    /// Selects images of the batch by indices `[P]`, u32. An image may be selected several times.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn select(&self, images: &Tensor) -> Result<Self> {
        let select = |tensor: &Tensor| tensor.contiguous()?.index_select(images, 0);
        Ok(Self {
            features: select(&self.features)?,
            point: self.point,
            block_input: self.block_input.as_ref().map(select).transpose()?,
        })
    }

    /// Selects the first `count` images.
    pub(crate) fn first(&self, count: usize) -> Result<Self> {
        let first = |tensor: &Tensor| tensor.narrow(0, 0, count);
        Ok(Self {
            features: first(&self.features)?,
            point: self.point,
            block_input: self.block_input.as_ref().map(first).transpose()?,
        })
    }
}
