//! A ResNet's convolutions: as folded weights, and as the candle layers made of them, which are
//! differentiable. The head, and which code runs a pass, are not known here.

use camshaft_kernels::{BlockWeights, NetworkWeights};
use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::cut::{CutStart, CutState};
use super::shape::{ResNetShape, STAGES};
use crate::checkpoint::{Notes, Weights};
use crate::network::convolution::{FoldedConv, FoldedValues, FoldedWeights, channels_last};
use crate::network::convolution_shape::NamedConvolution;
use crate::network::layer_point::LayerPoint;
use crate::network::pooling::max_pool;
use crate::network::unfolded_convolution::UnfoldedConv;

/// All convolutions of a network, BatchNorms folded in, f32, on the CPU.
pub(crate) struct FoldedNetwork {
    stem: FoldedWeights,
    stages: [Vec<FoldedBlock>; STAGES],
}

impl FoldedNetwork {
    /// Reads all convolutions, on all cores. `weights` remembers tensors that don't fit.
    pub(crate) fn load(weights: &mut Weights<'_>, shape: ResNetShape) -> Result<Self> {
        let mut named = vec![shape.stem()];
        for block in (0..STAGES).flat_map(|stage| shape.stage(stage)) {
            named.extend(block.path());
            named.extend(block.shortcut());
        }
        let load = |named: &NamedConvolution| {
            let mut weights = weights.for_thread();
            let folded = FoldedWeights::load(&mut weights, named)?;
            Ok((folded, weights.into_notes()))
        };
        let loaded: Vec<(FoldedWeights, Notes)> =
            named.par_iter().map(load).collect::<Result<_>>()?;
        let mut folded = loaded.into_iter().map(|(folded, notes)| {
            weights.add_notes(notes);
            folded
        });
        let mut next = || folded.next().expect("each that was named was loaded");
        let stem = next();
        let stages = std::array::from_fn(|stage| {
            let blocks = shape.stage(stage).map(|block| FoldedBlock {
                path: block.path().iter().map(|_| next()).collect(),
                shortcut: block.shortcut().map(|_| next()),
            });
            blocks.collect()
        });
        Ok(Self { stem, stages })
    }

    /// Calls `take` with the weights in the form that the CPU's kernels take.
    pub(crate) fn for_kernels<R>(&self, take: impl FnOnce(&NetworkWeights<'_>) -> R) -> Result<R> {
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

/// The weights of a [`ResidualBlock`].
struct FoldedBlock {
    path: Vec<FoldedWeights>,
    shortcut: Option<FoldedWeights>,
}

impl FoldedBlock {
    fn values(&self) -> Result<BlockValues<'_>> {
        let path = self.path.iter().map(FoldedWeights::values).collect::<Result<_>>()?;
        let shortcut = self.shortcut.as_ref().map(FoldedWeights::values).transpose()?;
        Ok(BlockValues { path, shortcut })
    }
}

/// [`FoldedBlock`] as slices, for the CPU's kernels.
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

/// The convolutions, run by candle on the CPU, in f32.
#[derive(Debug)]
pub(crate) struct CandleLayers {
    stem: FoldedConv,
    stages: [Vec<ResidualBlock>; STAGES],
}

impl CandleLayers {
    /// Arranges folded weights.
    pub(crate) fn new(folded: &FoldedNetwork) -> Result<Self> {
        let mut stages = [const { Vec::new() }; STAGES];
        for (stage, folded) in stages.iter_mut().zip(&folded.stages) {
            let blocks = folded.iter().map(ResidualBlock::new);
            *stage = blocks.collect::<Result<_>>()?;
        }
        let stem = FoldedConv::new(&folded.stem, true)?;
        Ok(Self { stem, stages })
    }

    /// Runs everything before the first stage: `[N, 3, H, W]`, f32, to `[N, C, H / 4, W / 4]`.
    pub(crate) fn stem(&self, input: &Tensor) -> Result<Tensor> {
        let output = self.stem.forward(input, None)?;
        Self::pool(&output)
    }

    /// Runs the max-pooling that follows the stem's ReLU.
    fn pool(output: &Tensor) -> Result<Tensor> {
        max_pool(&channels_last(output)?)?.permute((0, 3, 1, 2))
    }

    /// Runs one stage, counted from 0, of features `[N, C, H, W]`.
    pub(crate) fn stage(&self, stage: usize, features: &Tensor) -> Result<Tensor> {
        self.blocks(stage, .., features.clone())
    }

    /// Runs some blocks of a stage, one after the other.
    fn blocks(
        &self,
        stage: usize,
        blocks: impl std::slice::SliceIndex<[ResidualBlock], Output = [ResidualBlock]>,
        features: Tensor,
    ) -> Result<Tensor> {
        self.stages[stage][blocks].iter().try_fold(features, |x, block| block.forward(&x))
    }

    /// Runs from `value`, the tensor that `start` names (`[N, C, H, W]`), to the output
    /// of the layer at `point`. `unfolded` is the layer's convolution, if the layer is one.
    pub(crate) fn cut(
        &self,
        point: LayerPoint,
        start: CutStart,
        value: &Tensor,
        unfolded: Option<&UnfoldedConv>,
    ) -> Result<CutState> {
        let cut = |features: Tensor, block_input: Option<Tensor>| {
            Ok(CutState { features, point, block_input })
        };
        if point == LayerPoint::Stem {
            return cut(unfolded.expect("the layer is a convolution").forward(value)?, None);
        }
        let value = if start == CutStart::Image { self.stem(value)? } else { value.clone() };
        let unfolded =
            |input: &Tensor| unfolded.expect("the layer is a convolution").forward(input);
        match point {
            LayerPoint::Stem => unreachable!("the stem is handled above"),
            LayerPoint::Block(stage, block) => cut(self.blocks(stage, ..=block, value)?, None),
            LayerPoint::Path(stage, block, place) => {
                let input = self.blocks(stage, ..block, value)?;
                let path = &self.stages[stage][block].path[..place];
                let before =
                    path.iter().try_fold(input.clone(), |x, conv| conv.forward(&x, None))?;
                cut(unfolded(&before)?, Some(input))
            }
            LayerPoint::Shortcut(stage, block) => {
                let input = self.blocks(stage, ..block, value)?;
                cut(unfolded(&input)?, Some(input))
            }
        }
    }

    /// Runs from `features`, which replace the output of `cut`'s layer (`[N, C, H, W]`), to the
    /// last stage's output. Differentiable with respect to `features`.
    pub(crate) fn rest(
        &self,
        cut: &CutState,
        features: &Tensor,
        unfolded: Option<&UnfoldedConv>,
    ) -> Result<Tensor> {
        let normalised = |unfolded: Option<&UnfoldedConv>| {
            unfolded.expect("the layer is a convolution").normalise(features)
        };
        let block_input = || cut.block_input.as_ref().expect("the pass is cut within a block");
        let (stage, block, features) = match cut.point {
            LayerPoint::Stem => {
                let stem = Self::pool(&normalised(unfolded)?.relu()?)?;
                return (0..STAGES).try_fold(stem, |x, stage| self.stage(stage, &x));
            }
            LayerPoint::Block(stage, block) => (stage, block, features.clone()),
            LayerPoint::Path(stage, block, place) => {
                let (input, at) = (block_input(), &self.stages[stage][block]);
                let normalised = normalised(unfolded)?;
                let output = if place + 1 == at.path.len() {
                    (normalised + at.shortcut(input)?)?.relu()?
                } else {
                    at.rest_of_path(normalised.relu()?, place + 1, &at.shortcut(input)?)?
                };
                (stage, block, output)
            }
            LayerPoint::Shortcut(stage, block) => {
                let (input, at) = (block_input(), &self.stages[stage][block]);
                (stage, block, at.rest_of_path(input.clone(), 0, &normalised(unfolded)?)?)
            }
        };
        let features = self.blocks(stage, block + 1.., features)?;
        (stage + 1..STAGES).try_fold(features, |x, stage| self.stage(stage, &x))
    }
}

/// A residual block: `relu(path(x) + shortcut(x))`.
#[derive(Debug)]
struct ResidualBlock {
    /// Convolutions one after the other. The shortcut is added before the last one's ReLU.
    path: Vec<FoldedConv>,
    /// A 1×1 convolution if input and output have different shapes. None: the input itself.
    shortcut: Option<FoldedConv>,
}

impl ResidualBlock {
    fn new(folded: &FoldedBlock) -> Result<Self> {
        let path = folded.path.iter().map(|conv| FoldedConv::new(conv, true));
        let shortcut = folded.shortcut.as_ref().map(|conv| FoldedConv::new(conv, false));
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

    /// Runs the path from its convolution `first` on, and adds the shortcut's output.
    fn rest_of_path(&self, input: Tensor, first: usize, shortcut: &Tensor) -> Result<Tensor> {
        let (last, path) = self.path[first..].split_last().expect("one is left");
        let output = path.iter().try_fold(input, |x, conv| conv.forward(&x, None))?;
        last.forward(&output, Some(shortcut))
    }
}
