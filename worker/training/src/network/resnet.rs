//! A whole ResNet that can be trained.

use camshaft_model::STAGES;
use camshaft_model::network::head::HeadShape;
use camshaft_model::network::pooling::{max_pool, max_pool_gradient};
use camshaft_model::network::resnet::ResNetShape;
use candle_core::{Result, Tensor};

use super::block::{BlockTrace, TrainedBlock};
use super::head::TrainedHead;
use super::layer::{LayerTrace, NamedTensors, TrainedLayer};
use super::parameter::Parameter;

/// A ResNet and its head.
#[derive(Clone, Debug)]
pub(crate) struct TrainedResNet {
    stem: TrainedLayer,
    blocks: Vec<TrainedBlock>,
    head: TrainedHead,
}

/// What a backward pass needs of the forward pass.
#[derive(Debug)]
pub(crate) struct ResNetTrace {
    stem: LayerTrace,
    /// Input and output of the max-pooling.
    pooled: [Tensor; 2],
    blocks: Vec<BlockTrace>,
    /// Inputs of the head's linear layer, `[N, inputs]`.
    inputs: Tensor,
}

impl TrainedResNet {
    /// Makes a network of its tensors in `tensors`.
    pub(crate) fn new(tensors: &NamedTensors, shape: ResNetShape, head: HeadShape) -> Result<Self> {
        let blocks = (0..STAGES).flat_map(|stage| shape.stage(stage));
        Ok(Self {
            stem: TrainedLayer::new(tensors, &shape.stem(), true)?,
            blocks: blocks.map(|block| TrainedBlock::new(tensors, block)).collect::<Result<_>>()?,
            head: TrainedHead::new(tensors, head),
        })
    }

    /// Runs a batch `[N, 3, H, W]` to logits `[N, K]`; f32. The running statistics move towards the
    /// batch's.
    pub(crate) fn forward(&mut self, input: &Tensor) -> Result<(Tensor, ResNetTrace)> {
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
        Ok((logits, ResNetTrace { stem, pooled, blocks, inputs }))
    }

    /// Sets every parameter's gradient from the logits' gradient `[N, K]`. The image's gradient is
    /// not computed.
    pub(crate) fn backward(&mut self, trace: ResNetTrace, gradient: &Tensor) -> Result<()> {
        let ResNetTrace { stem, pooled, blocks, inputs } = trace;
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

    fn layers(&self) -> impl Iterator<Item = &TrainedLayer> {
        std::iter::once(&self.stem).chain(self.blocks.iter().flat_map(TrainedBlock::layers))
    }

    pub(crate) fn layers_mut(&mut self) -> impl Iterator<Item = &mut TrainedLayer> {
        std::iter::once(&mut self.stem)
            .chain(self.blocks.iter_mut().flat_map(TrainedBlock::layers_mut))
    }

    /// Every parameter, in the network's order.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = &Parameter> {
        self.layers().flat_map(TrainedLayer::parameters).chain(self.head.parameters())
    }

    /// Every parameter, in the network's order.
    pub(crate) fn parameters_mut(&mut self) -> impl Iterator<Item = &mut Parameter> {
        let Self { stem, blocks, head } = self;
        let layers =
            std::iter::once(stem).chain(blocks.iter_mut().flat_map(TrainedBlock::layers_mut));
        layers.flat_map(TrainedLayer::parameters_mut).chain(head.parameters_mut())
    }

    /// Names and values of all running statistics.
    pub(crate) fn running(&self) -> impl Iterator<Item = &(String, Vec<f32>)> {
        self.layers().flat_map(TrainedLayer::running)
    }

    /// Every tensor of the network in PyTorch's layout.
    pub(crate) fn export(&self) -> Result<NamedTensors> {
        let mut tensors = NamedTensors::new();
        for layer in self.layers() {
            layer.export(&mut tensors)?;
        }
        self.head.export(&mut tensors);
        Ok(tensors)
    }
}
