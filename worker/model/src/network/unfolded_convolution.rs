//! A convolution apart from its BatchNorm, for maps of the convolution's own output.

use candle_core::{Result, Tensor};

use super::convolution::{FoldedConv, NormalisedConv};
use super::convolution_shape::NamedConvolution;
use crate::checkpoint::WeightsFile;

/// The values of a convolution and of the BatchNorm after it, not folded into one.
#[derive(Debug)]
#[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "for engines that take plain values"))]
pub(crate) struct LayerConvolution {
    /// `[O, I, kernel, kernel]`.
    pub(crate) weights: Vec<f32>,
    /// `[O]`; empty if there is none.
    pub(crate) bias: Vec<f32>,
    /// The BatchNorm's factor, `[O]`.
    pub(crate) scale: Vec<f32>,
    /// What the BatchNorm adds, `[O]`.
    pub(crate) shift: Vec<f32>,
}

impl LayerConvolution {
    /// Reads a convolution from `file`.
    ///
    /// # Errors
    /// If `file` can't be read.
    pub(crate) fn load(file: &WeightsFile, named: &NamedConvolution) -> Result<Self> {
        let loaded = NormalisedConv::load(&mut file.open()?, named)?;
        let (scale, shift) = loaded.norm.affine()?;
        let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        Ok(Self {
            weights: values(&loaded.weight)?,
            bias: loaded.bias.as_ref().map(values).transpose()?.unwrap_or_default(),
            scale: values(&scale)?,
            shift: values(&shift)?,
        })
    }
}

/// A convolution and the BatchNorm after it, not folded into one.
#[derive(Debug)]
pub(crate) struct UnfoldedConv {
    conv: FoldedConv,
    /// The BatchNorm's factor, `[1, O, 1, 1]`.
    scale: Tensor,
    /// What the BatchNorm adds, `[1, O, 1, 1]`.
    shift: Tensor,
}

impl UnfoldedConv {
    /// Reads a convolution from `file`.
    ///
    /// # Errors
    /// If `file` can't be read.
    pub(crate) fn load(file: &WeightsFile, named: &NamedConvolution) -> Result<Self> {
        let mut weights = file.open()?;
        let loaded = NormalisedConv::load(&mut weights, named)?;
        let (scale, shift) = loaded.norm.affine()?;
        let broadcast = |tensor: Tensor| tensor.reshape((1, (), 1, 1));
        Ok(Self {
            conv: FoldedConv::new(&loaded.alone()?, false)?,
            scale: broadcast(scale)?,
            shift: broadcast(shift)?,
        })
    }

    /// The convolution's own output: `[N, I, H, W]` to `[N, O, H', W']`.
    pub(crate) fn forward(&self, input: &Tensor) -> Result<Tensor> {
        self.conv.forward(input, None)
    }

    /// What the BatchNorm makes of the convolution's output `[N, O, H', W']`.
    pub(crate) fn normalise(&self, output: &Tensor) -> Result<Tensor> {
        output.broadcast_mul(&self.scale)?.broadcast_add(&self.shift)
    }
}
