//! The head of a network: average pooling or flattening, then a linear layer, which gives logits.
//!
//! It computes in f32, whatever precision the convolutions have: it is small, and closed-form maps are
//! made of its weights.

use candle_core::{Module, Result, Tensor};
use candle_nn::Linear;

use crate::checkpoint::Weights;
use crate::config::HeadKind;

/// torchvision's name of the linear layer's weight.
pub const HEAD_WEIGHT: &str = "fc.weight";
/// torchvision's name of the linear layer's bias.
pub const HEAD_BIAS: &str = "fc.bias";

/// Kind and sizes of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadShape {
    /// What it does with the features.
    pub kind: HeadKind,
    /// Number of classes, `K`.
    pub classes: usize,
    /// `[C, H, W]` of the features, for the model's input size.
    pub features: [usize; 3],
}

impl HeadShape {
    /// Number of inputs of the linear layer.
    pub fn inputs(self) -> usize {
        let [channels, height, width] = self.features;
        match self.kind {
            HeadKind::AveragePool => channels,
            HeadKind::Flatten => channels * height * width,
        }
    }
}

/// A head.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    shape: HeadShape,
    /// Weight `[K, inputs]`, bias `[K]`.
    linear: Linear,
}

impl Head {
    /// Reads a head. `weights` remembers tensors that don't fit.
    pub(crate) fn load(weights: &mut Weights<'_>, shape: HeadShape) -> Result<Self> {
        let weight = weights.tensor(HEAD_WEIGHT, &[shape.classes, shape.inputs()])?;
        let bias = weights.tensor(HEAD_BIAS, &[shape.classes])?;
        Ok(Self::new(shape, weight, bias))
    }

    /// Makes a head of a weight `[K, inputs]` and a bias `[K]`.
    pub(crate) fn new(shape: HeadShape, weight: Tensor, bias: Tensor) -> Self {
        Self { shape, linear: Linear::new(weight, Some(bias)) }
    }

    pub(crate) fn shape(&self) -> HeadShape {
        self.shape
    }

    /// The values of weight `[K, inputs]` and bias `[K]`.
    #[cfg(feature = "cuda")]
    pub(crate) fn values(&self) -> Result<[Vec<f32>; 2]> {
        let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1();
        Ok([values(self.linear.weight())?, values(self.linear.bias().expect("it has one"))?])
    }

    /// Logits `[N, K]`, f32, of features `[N, C, H, W]`, f32.
    pub(crate) fn forward(&self, features: &Tensor) -> Result<Tensor> {
        match self.shape.kind {
            HeadKind::AveragePool => self.forward_pooled(&features.mean((2, 3))?),
            HeadKind::Flatten => self.linear.forward(&features.flatten_from(1)?),
        }
    }

    /// Logits `[N, K]` of features `[N, C, H, W]` whose averages `[N, C]` are known; both f32.
    pub(crate) fn forward_both(&self, features: &Tensor, pooled: &Tensor) -> Result<Tensor> {
        match self.shape.kind {
            HeadKind::AveragePool => self.forward_pooled(pooled),
            HeadKind::Flatten => self.forward(features),
        }
    }

    /// Logits `[N, K]` of pooled features `[N, C]`, f32.
    pub(crate) fn forward_pooled(&self, pooled: &Tensor) -> Result<Tensor> {
        self.linear.forward(pooled)
    }

    /// Gradient of the logits of `classes` `[P]`, u32, with respect to the features: `[P, C, H,
    /// W]`, or `[P, C, 1, 1]` if it is the same at every position; f32.
    pub(crate) fn gradient(&self, classes: &Tensor) -> Result<Tensor> {
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
