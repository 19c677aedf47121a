//! A whole ResNet that can be trained.

use candle_core::{Result, Tensor};

use super::block::{Block, BlockTrace};
use super::head::TrainedHead;
use super::layer::{Layer, NamedTensors, Trace};
use super::parameter::Parameter;
use camshaft_model::STAGES;
use camshaft_model::head::HeadShape;
use camshaft_model::layers::{ResNetShape, STEM};
use camshaft_model::pooling::{max_pool, max_pool_gradient};

/// A ResNet.
#[derive(Clone, Debug)]
pub(super) struct TrainedNetwork {
    stem: Layer,
    blocks: Vec<Block>,
    head: TrainedHead,
}

/// What a pass leaves for the gradient.
#[derive(Debug)]
pub(super) struct NetworkTrace {
    stem: Trace,
    /// The pooling's input, and what came of it.
    pooled: [Tensor; 2],
    blocks: Vec<BlockTrace>,
    inputs: Tensor,
}

impl TrainedNetwork {
    /// Takes a network's tensors out of `tensors`.
    pub(super) fn new(tensors: &NamedTensors, shape: ResNetShape, head: HeadShape) -> Result<Self> {
        let stem = (STEM.0.to_owned(), STEM.1.to_owned(), shape.stem());
        let blocks = (0..STAGES).flat_map(|stage| shape.stage(stage));
        Ok(Self {
            stem: Layer::new(tensors, stem, true)?,
            blocks: blocks.map(|block| Block::new(tensors, block)).collect::<Result<_>>()?,
            head: TrainedHead::new(tensors, head),
        })
    }

    /// Logits `[N, K]` of a batch `[N, 3, H, W]`. The running statistics move towards the
    /// batch's.
    pub(super) fn forward(&mut self, input: &Tensor) -> Result<(Tensor, NetworkTrace)> {
        let input = input.permute((0, 2, 3, 1))?.contiguous()?;
        let (output, stem) = self.stem.forward(&input, None)?;
        let mut features = max_pool(&output)?;
        let pooled = [output, features.clone()];
        let mut blocks = Vec::with_capacity(self.blocks.len());
        for block in &mut self.blocks {
            let (output, trace) = block.forward(&features)?;
            features = output;
            blocks.push(trace);
        }
        let inputs = self.head.inputs(&features)?;
        let logits = self.head.forward(&inputs)?;
        Ok((logits, NetworkTrace { stem, pooled, blocks, inputs }))
    }

    /// Sets every parameter's gradient from that of the logits. The image's own is not made.
    pub(super) fn backward(&mut self, trace: NetworkTrace, gradient: &Tensor) -> Result<()> {
        let NetworkTrace { stem, pooled, blocks, inputs } = trace;
        self.head.backward(&inputs, gradient)?;
        let by_inputs = self.head.inputs_gradient(gradient)?;
        let mut gradient = self.head.features_gradient(&by_inputs)?;
        for (block, trace) in self.blocks.iter_mut().zip(blocks).rev() {
            gradient = block.backward(trace, gradient)?;
        }
        let gradient = max_pool_gradient(&pooled[0], &pooled[1], &gradient)?;
        self.stem.backward(&stem, gradient, false)?;
        Ok(())
    }

    fn layers(&self) -> impl Iterator<Item = &Layer> {
        std::iter::once(&self.stem).chain(self.blocks.iter().flat_map(Block::layers))
    }

    pub(super) fn layers_mut(&mut self) -> impl Iterator<Item = &mut Layer> {
        std::iter::once(&mut self.stem).chain(self.blocks.iter_mut().flat_map(Block::layers_mut))
    }

    /// Every parameter, in the network's order.
    pub(super) fn parameters(&self) -> impl Iterator<Item = &Parameter> {
        self.layers().flat_map(Layer::parameters).chain(self.head.parameters())
    }

    /// Every parameter, in the network's order.
    pub(super) fn parameters_mut(&mut self) -> impl Iterator<Item = &mut Parameter> {
        let Self { stem, blocks, head } = self;
        let layers = std::iter::once(stem).chain(blocks.iter_mut().flat_map(Block::layers_mut));
        layers.flat_map(Layer::parameters_mut).chain(head.parameters_mut())
    }

    /// Every running statistic by its name.
    pub(super) fn running(&self) -> impl Iterator<Item = &(String, Vec<f32>)> {
        self.layers().flat_map(Layer::running)
    }

    /// Every tensor of the network in PyTorch's layout.
    pub(super) fn export(&self) -> Result<NamedTensors> {
        let mut tensors = NamedTensors::new();
        for layer in self.layers() {
            layer.export(&mut tensors)?;
        }
        self.head.export(&mut tensors);
        Ok(tensors)
    }
}
