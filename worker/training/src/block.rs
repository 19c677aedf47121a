//! A residual block that can be trained: `relu(path(x) + shortcut(x))`.

use candle_core::{Result, Tensor};

use super::layer::{Layer, NamedTensors, Trace};
use camshaft_model::layers::BlockShape;

/// A residual block.
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// The residual enters the last one before its ReLU.
    path: Vec<Layer>,
    /// None: the input itself.
    shortcut: Option<Layer>,
}

/// What a pass leaves for the gradient.
#[derive(Debug)]
pub(super) struct BlockTrace {
    path: Vec<Trace>,
    shortcut: Option<Trace>,
}

impl Block {
    /// Takes a block's tensors out of `tensors`.
    pub(super) fn new(tensors: &NamedTensors, shape: BlockShape) -> Result<Self> {
        let path = shape.path().into_iter().map(|layer| Layer::new(tensors, layer, true));
        let shortcut = shape.shortcut().map(|layer| Layer::new(tensors, layer, false));
        Ok(Self { path: path.collect::<Result<_>>()?, shortcut: shortcut.transpose()? })
    }

    /// `[N, H, W, I]` to `[N, H', W', O]`.
    pub(super) fn forward(&mut self, input: &Tensor) -> Result<(Tensor, BlockTrace)> {
        let (residual, shortcut) = match &mut self.shortcut {
            Some(shortcut) => {
                let (output, trace) = shortcut.forward(input, None)?;
                (output, Some(trace))
            }
            None => (input.clone(), None),
        };
        let mut traces = Vec::with_capacity(self.path.len());
        let mut features = input.clone();
        let last = self.path.len() - 1;
        for (index, layer) in self.path.iter_mut().enumerate() {
            let (output, trace) = layer.forward(&features, (index == last).then_some(&residual))?;
            features = output;
            traces.push(trace);
        }
        Ok((features, BlockTrace { path: traces, shortcut }))
    }

    /// Sets the parameters' gradients from that of the output; returns that of the input.
    pub(super) fn backward(&mut self, trace: BlockTrace, gradient: Tensor) -> Result<Tensor> {
        let mut residual = None;
        let mut gradient = gradient;
        for (layer, trace) in self.path.iter_mut().zip(trace.path).rev() {
            let (masked, by_input) = layer.backward(&trace, gradient, true)?;
            // That of the last layer, which is the first to come.
            residual.get_or_insert(masked);
            gradient = by_input.expect("it was asked for");
        }
        let residual = residual.expect("a block has convolutions");
        match (&mut self.shortcut, trace.shortcut) {
            (Some(shortcut), Some(trace)) => {
                let (_, by_input) = shortcut.backward(&trace, residual, true)?;
                gradient + by_input.expect("it was asked for")
            }
            _ => gradient + residual,
        }
    }

    pub(super) fn layers(&self) -> impl Iterator<Item = &Layer> {
        self.path.iter().chain(&self.shortcut)
    }

    pub(super) fn layers_mut(&mut self) -> impl Iterator<Item = &mut Layer> {
        self.path.iter_mut().chain(&mut self.shortcut)
    }
}
