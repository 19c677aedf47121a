//! A convolution with its BatchNorm folded in, and bias, residual and ReLU after it.
//!
//! Owns which code multiplies, and how activations lie in memory. A network sees only tensors
//! `[N, C, H, W]`. Upstream: weights of a checkpoint. Downstream: networks, and the CPU's kernels.

use std::ops::Deref;

use camshaft_kernels::ConvolutionWeights;
use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Storage, Tensor, bail};

use super::bias_residual_relu::{add_bias_residual_relu, values_mut};
use super::convolution_shape::{ConvShape, NamedConvolution};
use super::patches::{patches, values};
use crate::checkpoint::Weights;

/// A convolution's weights, usually with its BatchNorm folded in, f32, on the CPU.
#[derive(Clone, Debug)]
pub(crate) struct FoldedWeights {
    /// `[O, I, kernel, kernel]`.
    weight: Tensor,
    /// `[O]`.
    bias: Tensor,
    shape: ConvShape,
}

/// [`FoldedWeights`] as slices, for the CPU's kernels.
pub(crate) struct FoldedValues<'a> {
    weight: TensorValues<'a>,
    bias: TensorValues<'a>,
    shape: ConvShape,
}

impl FoldedValues<'_> {
    /// In the form that the CPU's kernels take.
    pub(crate) fn for_kernels(&self) -> ConvolutionWeights<'_> {
        let ConvShape { inputs, outputs, kernel, stride } = self.shape;
        let (weight, bias) = (self.weight.slice(), self.bias.slice());
        ConvolutionWeights { weight, bias, inputs, outputs, kernel, stride }
    }
}

/// Access to a tensor's values without a copy: candle's guard, whose type can't be named.
struct TensorValues<'a>(Box<dyn Deref<Target = Storage> + 'a>);

impl<'a> TensorValues<'a> {
    /// Of a whole tensor, f32, on the CPU.
    fn of(tensor: &'a Tensor) -> Result<Self> {
        let (storage, layout) = tensor.storage_and_layout();
        match (&*storage, layout.contiguous_offsets()) {
            (Storage::Cpu(CpuStorage::F32(values)), Some((0, end))) if end == values.len() => {
                Ok(Self(Box::new(storage)))
            }
            _ => bail!("folded weights are whole, and f32 on the CPU"),
        }
    }

    fn slice(&self) -> &[f32] {
        match &**self.0 {
            Storage::Cpu(CpuStorage::F32(values)) => values,
            _ => unreachable!("checked when it was made"),
        }
    }
}

impl FoldedWeights {
    /// Reads a convolution and its BatchNorm, and folds them into one convolution.
    pub(crate) fn load(weights: &mut Weights<'_>, named: &NamedConvolution) -> Result<Self> {
        NormalisedConv::load(weights, named)?.fold()
    }

    /// Weight and bias as slices.
    pub(crate) fn values(&self) -> Result<FoldedValues<'_>> {
        let (weight, bias) = (TensorValues::of(&self.weight)?, TensorValues::of(&self.bias)?);
        Ok(FoldedValues { weight, bias, shape: self.shape })
    }
}

/// A convolution with its BatchNorm folded in, and optionally a ReLU after it.
#[derive(Debug)]
pub(crate) struct FoldedConv {
    shape: ConvShape,
    /// True if negative outputs become zero.
    relu: bool,
    /// `[kernel * kernel * I, O]`, rows in the order of [`patches`].
    weight: Tensor,
    /// `[O]`.
    bias: Tensor,
}

impl FoldedConv {
    /// Arranges folded weights.
    pub(crate) fn new(
        FoldedWeights { weight, bias, shape }: &FoldedWeights,
        relu: bool,
    ) -> Result<Self> {
        let shape = *shape;
        let rows = shape.kernel * shape.kernel * shape.inputs;
        let weight = weight.permute((2, 3, 1, 0))?.reshape((rows, shape.outputs))?;
        Ok(Self { shape, relu, weight: weight.contiguous()?, bias: bias.clone() })
    }

    /// Computes `relu(conv(input) + bias + residual)`; the ReLU only if the convolution has one.
    ///
    /// `input` is `[N, I, H, W]`, `residual` and the result are `[N, O, H', W']`; any range, f32. The
    /// result lies channels last in memory, and an input that does too is not copied. It is one product
    /// of matrices for the whole batch: [pixels, patch values] by [patch values, output channels].
    /// Differentiable.
    pub(crate) fn forward(&self, input: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let (batch, _, height, width) = input.dims4()?;
        let (height, width) = (self.shape.output_side(height), self.shape.output_side(width));
        let pixels = patches(&channels_last(input)?, self.shape)?;
        let output = pixels.matmul(&self.weight)?;
        let output = output.reshape((batch, height, width, self.shape.outputs))?;
        let residual = residual.map(channels_last).transpose()?;
        let output = if output.track_op() || residual.as_ref().is_some_and(Tensor::track_op) {
            self.add_and_rectify(output, residual.as_ref())?
        } else {
            add_bias_residual_relu(&output, &self.bias, residual.as_ref(), self.relu)?;
            output
        };
        output.permute((0, 3, 1, 2))
    }

    /// Adds bias and residual, and takes the ReLU; differentiable.
    fn add_and_rectify(&self, output: Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let mut output = output.broadcast_add(&self.bias)?;
        if let Some(residual) = residual {
            output = (output + residual)?;
        }
        if self.relu { output.relu() } else { Ok(output) }
    }
}

/// Converts `[N, C, H, W]` to contiguous `[N, H, W, C]`; without a copy if it lies so already.
pub(crate) fn channels_last(tensor: &Tensor) -> Result<Tensor> {
    tensor.permute((0, 2, 3, 1))?.contiguous()
}

/// A convolution and the BatchNorm after it, as in a file, f32, on the CPU.
#[derive(Clone, Debug)]
pub struct NormalisedConv {
    /// `[O, I, kernel, kernel]`.
    pub weight: Tensor,
    /// `[O]`; only Keras' convolutions have one.
    pub bias: Option<Tensor>,
    /// The BatchNorm after the convolution.
    pub norm: BatchNorm,
    /// The convolution's shape.
    pub shape: ConvShape,
}

impl NormalisedConv {
    /// Reads both. `weights` remembers tensors that don't fit.
    pub fn load(weights: &mut Weights<'_>, named: &NamedConvolution) -> Result<Self> {
        let NamedConvolution { conv, norm, shape } = named;
        let ConvShape { inputs, outputs, kernel, .. } = *shape;
        let weight =
            weights.tensor(&format!("{conv}.weight"), &[outputs, inputs, kernel, kernel])?;
        let bias = weights.optional(&format!("{conv}.bias"), &[outputs])?;
        let mut part = |part: &str| weights.tensor(&format!("{norm}.{part}"), &[outputs]);
        let (gamma, beta, mean) = (part("weight")?, part("bias")?, part("running_mean")?);
        let norm = BatchNorm {
            gamma,
            beta,
            mean,
            variance: weights.variance(&format!("{norm}.running_var"), &[outputs])?,
            eps: weights.batch_norm_eps(),
        };
        Ok(Self { weight, bias, norm, shape: *shape })
    }

    /// The convolution without its BatchNorm.
    pub(crate) fn alone(&self) -> Result<FoldedWeights> {
        let bias = match &self.bias {
            Some(bias) => bias.clone(),
            None => self.norm.beta.zeros_like()?,
        };
        Ok(FoldedWeights { weight: self.weight.clone(), bias, shape: self.shape })
    }

    /// One convolution that computes what both do. It takes the weight's memory.
    fn fold(self) -> Result<FoldedWeights> {
        let (scale, shift) = self.norm.affine()?;
        self.weight.inplace_op2(&scale, &ScaleOutputs)?;
        let bias = match &self.bias {
            Some(bias) => ((bias * &scale)? + shift)?,
            None => shift,
        };
        Ok(FoldedWeights { weight: self.weight, bias, shape: self.shape })
    }
}

/// Multiplies each output's weights by its scale, in place. candle's own product takes memory for the
/// result, and waits for threads of its own for longer than it multiplies.
struct ScaleOutputs;

impl InplaceOp2 for ScaleOutputs {
    fn name(&self) -> &'static str {
        "scale-outputs"
    }

    /// `weight` is `[O, I, kernel, kernel]`, `scale` is `[O]`; both f32, any range.
    fn cpu_fwd(
        &self,
        weight: &mut CpuStorage,
        weight_layout: &Layout,
        scale: &CpuStorage,
        scale_layout: &Layout,
    ) -> Result<()> {
        let (weight, scale) = (values_mut(weight, weight_layout)?, values(scale, scale_layout)?);
        let by_output = weight.chunks_exact_mut(weight.len() / scale.len());
        for (weight, scale) in by_output.zip(scale) {
            weight.iter_mut().for_each(|value| *value *= scale);
        }
        Ok(())
    }
}

/// Parameters of a trained BatchNorm, each `[O]`, f32.
#[derive(Clone, Debug)]
pub struct BatchNorm {
    pub gamma: Tensor,
    pub beta: Tensor,
    pub mean: Tensor,
    pub variance: Tensor,
    /// Added to the variance before the square root.
    pub eps: f64,
}

impl BatchNorm {
    /// Scale and shift, both `[O]`, with which `x * scale + shift` equals `gamma * (x - mean) /
    /// sqrt(variance + eps) + beta` (Ioffe and Szegedy 2015, algorithm 2).
    pub(crate) fn affine(&self) -> Result<(Tensor, Tensor)> {
        let scale = (&self.gamma / (&self.variance + self.eps)?.sqrt()?)?;
        let shift = (&self.beta - (&self.mean * &scale)?)?;
        Ok((scale, shift))
    }
}

#[cfg(test)]
mod tests {
    use candle_nn::ModuleT;

    use super::*;
    use crate::testing::noise;

    fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
        (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }

    const SHAPES: [ConvShape; 5] = [
        ConvShape { inputs: 5, outputs: 7, kernel: 1, stride: 1 },
        ConvShape { inputs: 5, outputs: 7, kernel: 1, stride: 2 },
        ConvShape { inputs: 5, outputs: 7, kernel: 3, stride: 1 },
        ConvShape { inputs: 5, outputs: 7, kernel: 3, stride: 2 },
        ConvShape { inputs: 3, outputs: 4, kernel: 7, stride: 2 },
    ];

    #[test]
    fn folded_equals_convolution_then_batch_norm() {
        for shape in SHAPES {
            let ConvShape { inputs, outputs, kernel, stride } = shape;
            let weight = noise(&[outputs, inputs, kernel, kernel], 1);
            let norm = BatchNorm {
                gamma: noise(&[outputs], 2),
                beta: noise(&[outputs], 3),
                mean: noise(&[outputs], 4),
                variance: noise(&[outputs], 5).sqr().unwrap(),
                eps: 1e-5,
            };
            let bias = noise(&[outputs], 12);
            let both = NormalisedConv {
                weight: weight.copy().unwrap(),
                bias: Some(bias.clone()),
                norm: norm.clone(),
                shape,
            };
            let conv = FoldedConv::new(&both.fold().unwrap(), true).unwrap();
            let BatchNorm { gamma, beta, mean, variance, eps } = norm;
            let norm =
                candle_nn::BatchNorm::new(outputs, mean, variance, gamma, beta, eps).unwrap();
            for (height, width) in [(9, 8), (8, 11)] {
                let input = noise(&[2, inputs, height, width], 6);
                let plain = input.conv2d(&weight, shape.padding(), stride, 1, 1).unwrap();
                let plain = plain.broadcast_add(&bias.reshape((1, (), 1, 1)).unwrap()).unwrap();
                let plain = norm.forward_t(&plain, false).unwrap();
                let residual = noise(plain.dims(), 7);
                let plain = (plain + &residual).unwrap().relu().unwrap();
                let folded = conv.forward(&input, Some(&residual)).unwrap();
                assert!(largest_difference(&plain, &folded) < 1e-3, "{shape:?}");
            }
        }
    }

    #[test]
    fn gradient_equals_that_of_candles_convolution() {
        for shape in SHAPES {
            let ConvShape { inputs, outputs, kernel, stride } = shape;
            let weight = noise(&[outputs, inputs, kernel, kernel], 8);
            let folded =
                FoldedWeights { weight: weight.clone(), bias: noise(&[outputs], 9), shape };
            let conv = FoldedConv::new(&folded, false).unwrap();
            // candle's own backward pass needs the same remainder in both directions.
            let input = candle_core::Var::from_tensor(&noise(&[2, inputs, 9, 9], 10)).unwrap();
            let plain = input.conv2d(&weight, shape.padding(), stride, 1, 1).unwrap();
            let ours = conv.forward(&input, None).unwrap();
            let weights = noise(plain.dims(), 11);
            let [plain, ours] = [plain, ours].map(|output| {
                let grads = (output * &weights).unwrap().sum_all().unwrap().backward().unwrap();
                grads.get(&input).unwrap().clone()
            });
            assert!(largest_difference(&plain, &ours) < 1e-4, "{shape:?}");
        }
    }
}
