//! A residual block that can be trained: `relu(path(x) + shortcut(x))`.

use candle_core::{Result, Tensor};

use camshaft_model::network::resnet::BlockShape;

use super::layer::{LayerTrace, NamedTensors, TrainedLayer};

/// A residual block.
#[derive(Clone, Debug)]
pub(crate) struct TrainedBlock {
    /// The shortcut is added before the last one's ReLU.
    path: Vec<TrainedLayer>,
    /// None: the shortcut is the input itself.
    shortcut: Option<TrainedLayer>,
}

/// What a backward pass needs of the forward pass.
#[derive(Debug)]
pub(crate) struct BlockTrace {
    path: Vec<LayerTrace>,
    shortcut: Option<LayerTrace>,
}

impl TrainedBlock {
    /// Makes a block of its tensors in `tensors`.
    pub(crate) fn new(tensors: &NamedTensors, shape: BlockShape) -> Result<Self> {
        let path = shape.path().into_iter().map(|named| TrainedLayer::new(tensors, &named, true));
        let shortcut = shape.shortcut().map(|named| TrainedLayer::new(tensors, &named, false));
        Ok(Self { path: path.collect::<Result<_>>()?, shortcut: shortcut.transpose()? })
    }

    /// Runs a batch: `[N, H, W, I]` to `[N, H', W', O]`, f32.
    pub(crate) fn forward(&mut self, input: &Tensor) -> Result<(Tensor, BlockTrace)> {
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

    /// Sets the parameters' gradients from the output's gradient. Returns the input's gradient.
    pub(crate) fn backward(&mut self, trace: BlockTrace, gradient: Tensor) -> Result<Tensor> {
        let mut residual = None;
        let mut gradient = gradient;
        for (layer, trace) in self.path.iter_mut().zip(trace.path).rev() {
            let (masked, by_input) = layer.backward(&trace, gradient, true)?;
            // Only the gradient of the last layer, which runs first.
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

    pub(crate) fn layers(&self) -> impl Iterator<Item = &TrainedLayer> {
        self.path.iter().chain(&self.shortcut)
    }

    pub(crate) fn layers_mut(&mut self) -> impl Iterator<Item = &mut TrainedLayer> {
        self.path.iter_mut().chain(&mut self.shortcut)
    }
}
