//! What turns the last stage's output into logits: average pooling or flattening, then a
//! linear layer. In f32 whatever the network computes in: it is small, and closed-form maps
//! rest on its weights.

use candle_core::{DType, Device, Module, Result, Tensor};
use candle_nn::Linear;

use super::config::HeadKind;
use super::weights::Weights;

/// Names of the linear layer's parameters.
pub const HEAD: (&str, &str) = ("fc.weight", "fc.bias");

/// What a head is, and for how many classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadShape {
    pub kind: HeadKind,
    pub classes: usize,
    /// `[C, H, W]` of the last stage's output for the model's input size.
    pub features: [usize; 3],
}

impl HeadShape {
    /// Inputs of the linear layer.
    pub fn inputs(self) -> usize {
        let [channels, height, width] = self.features;
        match self.kind {
            HeadKind::AveragePool => channels,
            HeadKind::Flatten => channels * height * width,
        }
    }
}

/// A head on a device.
#[derive(Clone, Debug)]
pub(super) struct Head {
    shape: HeadShape,
    /// Weight `[K, inputs]`, bias `[K]`.
    linear: Linear,
}

impl Head {
    /// Reads it; tensors that don't fit are noted in `weights`.
    pub(super) fn load(
        weights: &mut Weights<'_>,
        shape: HeadShape,
        device: &Device,
    ) -> Result<Self> {
        let weight = weights.tensor(HEAD.0, &[shape.classes, shape.inputs()])?;
        let bias = weights.tensor(HEAD.1, &[shape.classes])?;
        Ok(Self::new(shape, weight.to_device(device)?, bias.to_device(device)?))
    }

    /// Of a weight `[K, inputs]` and a bias `[K]`.
    pub(super) fn new(shape: HeadShape, weight: Tensor, bias: Tensor) -> Self {
        Self { shape, linear: Linear::new(weight, Some(bias)) }
    }

    pub(super) fn shape(&self) -> HeadShape {
        self.shape
    }

    /// Logits `[N, K]` of features `[N, C, H, W]` in any dtype.
    pub(super) fn forward(&self, features: &Tensor) -> Result<Tensor> {
        let features = features.to_dtype(DType::F32)?;
        match self.shape.kind {
            HeadKind::AveragePool => self.forward_pooled(&features.mean((2, 3))?),
            HeadKind::Flatten => self.linear.forward(&features.flatten_from(1)?),
        }
    }

    /// The same of features that are averaged already: `[N, C, H, W]` and `[N, C]`, both f32.
    pub(super) fn forward_both(&self, features: &Tensor, pooled: &Tensor) -> Result<Tensor> {
        match self.shape.kind {
            HeadKind::AveragePool => self.forward_pooled(pooled),
            HeadKind::Flatten => self.forward(features),
        }
    }

    /// Logits `[N, K]` of pooled features `[N, C]`.
    pub(super) fn forward_pooled(&self, pooled: &Tensor) -> Result<Tensor> {
        self.linear.forward(pooled)
    }

    /// Gradient of the logits of `classes` `[P]` (u32) with respect to features: `[P, C, H, W]`,
    /// or `[P, C, 1, 1]` where it is the same everywhere.
    pub(super) fn gradient(&self, classes: &Tensor) -> Result<Tensor> {
        let rows = self.linear.weight().index_select(classes, 0)?;
        let [channels, height, width] = self.shape.features;
        match self.shape.kind {
            HeadKind::AveragePool => {
                (rows / (height * width) as f64)?.reshape(((), channels, 1, 1))
            }
            HeadKind::Flatten => rows.reshape(((), channels, height, width)),
        }
    }
}
