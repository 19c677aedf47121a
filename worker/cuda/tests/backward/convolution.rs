//! A convolution with its BatchNorm, in plain loops and f64: forward, and back to its input.

use camshaft_cuda::CutConvolution;
use camshaft_kernels::ConvolutionWeights;

use super::features::{Features, Noise};

/// Mean and standard deviation that a BatchNorm gives to each channel.
pub(crate) type ChannelTarget = fn(usize) -> (f64, f64);

/// A convolution padded with `kernel / 2` zeros, and the BatchNorm after it.
pub(crate) struct Convolution {
    /// `[O, I, kernel, kernel]`.
    weight: Vec<f32>,
    /// A part of the convolution's own output; empty if there is none.
    bias: Vec<f32>,
    /// The BatchNorm's factors.
    scale: Vec<f32>,
    /// What the BatchNorm adds.
    shift: Vec<f32>,
    /// `weight` and `bias` with the BatchNorm folded in.
    folded: [Vec<f32>; 2],
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    kernel: usize,
    stride: usize,
}

impl Convolution {
    pub(crate) fn new(
        noise: &mut Noise,
        [inputs, outputs]: [usize; 2],
        [kernel, stride]: [usize; 2],
    ) -> Self {
        let values = inputs * kernel * kernel;
        let weight = noise.values(outputs * values, (3.0 / values as f32).sqrt());
        // Both kinds: some convolutions have a bias.
        let bias = if kernel == 3 { noise.values(outputs, 0.5) } else { Vec::new() };
        let (scale, shift) = (vec![1.0; outputs], vec![0.0; outputs]);
        let folded = [weight.clone(), shift.clone()];
        Self { weight, bias, scale, shift, folded, inputs, outputs, kernel, stride }
    }

    /// Sets the BatchNorm such that each channel of `outputs`, which this convolution made, has the
    /// mean and deviation of `target`. Every third channel has a negative factor.
    pub(crate) fn fit_norm(&mut self, outputs: &[Features], target: ChannelTarget) {
        for channel in 0..self.outputs {
            let values = outputs.iter().flat_map(|output| {
                let positions = output.positions();
                output.values[channel * positions..][..positions].iter().copied()
            });
            let values: Vec<_> = values.collect();
            let count = values.len() as f64;
            let mean = values.iter().sum::<f64>() / count;
            let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
            let (wanted_mean, wanted_deviation) = target(channel);
            let sign = if channel % 3 == 1 { -1.0 } else { 1.0 };
            let scale = sign * wanted_deviation / (variance + 1e-5).sqrt();
            self.scale[channel] = scale as f32;
            self.shift[channel] = (wanted_mean - scale * mean) as f32;
        }
        let values = self.inputs * self.kernel * self.kernel;
        let weights = self.weight.iter().enumerate();
        let weights = weights.map(|(index, weight)| weight * self.scale[index / values]);
        let biases = (0..self.outputs).map(|channel| {
            let bias = self.bias.get(channel).copied().unwrap_or(0.0);
            bias * self.scale[channel] + self.shift[channel]
        });
        self.folded = [weights.collect(), biases.collect()];
    }

    /// As an engine takes it, folded.
    pub(crate) fn folded(&self) -> ConvolutionWeights<'_> {
        ConvolutionWeights {
            weight: &self.folded[0],
            bias: &self.folded[1],
            inputs: self.inputs,
            outputs: self.outputs,
            kernel: self.kernel,
            stride: self.stride,
        }
    }

    /// As an engine takes it if it is the target layer.
    pub(crate) fn cut(&self) -> CutConvolution<'_> {
        let Self { weight, bias, scale, shift, .. } = self;
        CutConvolution { weights: weight, bias, scale, shift }
    }

    /// The convolution's own output.
    pub(crate) fn run(&self, input: &Features) -> Features {
        let [_, height, width] = input.shape;
        let side = |side: usize| (side + 2 * (self.kernel / 2) - self.kernel) / self.stride + 1;
        let mut output = Features::zeros([self.outputs, side(height), side(width)]);
        let positions = output.positions();
        for (values, bias) in output.values.chunks_mut(positions).zip(&self.bias) {
            values.fill(f64::from(*bias));
        }
        self.each_product(input.shape, output.shape, |weight, from, to| {
            output.values[to] += weight * input.values[from];
        });
        output
    }

    /// What the BatchNorm makes of the convolution's own output.
    pub(crate) fn normalise(&self, output: &Features) -> Features {
        output.affine(&self.scale, |channel| self.shift[channel].into())
    }

    /// The gradient of the convolution's own output, from that of the BatchNorm's output.
    pub(crate) fn normalise_back(&self, gradient: &Features) -> Features {
        gradient.affine(&self.scale, |_| 0.0)
    }

    /// The gradient of the input, from that of the convolution's own output.
    pub(crate) fn back(&self, gradient: &Features, input: [usize; 3]) -> Features {
        let mut result = Features::zeros(input);
        self.each_product(input, gradient.shape, |weight, from, to| {
            result.values[from] += weight * gradient.values[to];
        });
        result
    }

    /// Calls `each` with every weight that takes a value of the input to one of the output, and the
    /// positions of both in their arrays.
    fn each_product(
        &self,
        input: [usize; 3],
        output: [usize; 3],
        mut each: impl FnMut(f64, usize, usize),
    ) {
        let ([inputs, height, width], [outputs, rows, columns]) = (input, output);
        let (kernel, padding) = (self.kernel, self.kernel / 2);
        for (index, &weight) in self.weight.iter().enumerate() {
            let (tap, channels) = (index % (kernel * kernel), index / (kernel * kernel));
            let (to_channel, from_channel) = (channels / inputs, channels % inputs);
            assert!(to_channel < outputs);
            for cell in 0..rows * columns {
                let y = (cell / columns * self.stride + tap / kernel).wrapping_sub(padding);
                let x = (cell % columns * self.stride + tap % kernel).wrapping_sub(padding);
                // A position in the border has wrapped, or is behind the end.
                if y < height && x < width {
                    let from = (from_channel * height + y) * width + x;
                    each(weight.into(), from, to_channel * rows * columns + cell);
                }
            }
        }
    }
}
