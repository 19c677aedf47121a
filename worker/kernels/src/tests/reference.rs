//! The same network in plain loops and f64, and random weights.

use crate::{BlockWeights, ConvolutionWeights, NetworkWeights, STAGES};

/// An image or features `[C, H, W]`.
#[derive(Clone)]
pub(crate) struct Features {
    pub(crate) values: Vec<f64>,
    pub(crate) shape: [usize; 3],
}

pub(crate) fn convolve(input: &Features, weights: &ConvolutionWeights<'_>) -> Features {
    let &ConvolutionWeights { weight, bias, inputs, outputs, kernel, stride } = weights;
    let [_, height, width] = input.shape;
    let padding = kernel / 2;
    let side = |side: usize| (side + 2 * padding - kernel) / stride + 1;
    let (rows, columns) = (side(height), side(width));
    let mut values = vec![0.0; outputs * rows * columns];
    for output in 0..outputs {
        let result = &mut values[output * rows * columns..][..rows * columns];
        result.fill(f64::from(bias[output]));
        for input_channel in 0..inputs {
            let source = &input.values[input_channel * height * width..][..height * width];
            for tap in 0..kernel * kernel {
                let weight = weight[(output * inputs + input_channel) * kernel * kernel + tap];
                for y in 0..rows {
                    let Some(from_y) = (y * stride + tap / kernel).checked_sub(padding) else {
                        continue;
                    };
                    if from_y >= height {
                        continue;
                    }
                    for x in 0..columns {
                        let Some(from_x) = (x * stride + tap % kernel).checked_sub(padding) else {
                            continue;
                        };
                        if from_x < width {
                            result[y * columns + x] +=
                                f64::from(weight) * source[from_y * width + from_x];
                        }
                    }
                }
            }
        }
    }
    Features { values, shape: [outputs, rows, columns] }
}

fn relu(mut image: Features) -> Features {
    image.values.iter_mut().for_each(|value| *value = value.max(0.0));
    image
}

fn max_pool(input: &Features) -> Features {
    let [channels, height, width] = input.shape;
    let (rows, columns) = (height.div_ceil(2), width.div_ceil(2));
    let mut values = Vec::new();
    let window =
        |index: usize, side: usize| (2 * index).saturating_sub(1)..(2 * index + 2).min(side);
    for channel in 0..channels {
        for y in 0..rows {
            for x in 0..columns {
                let mut largest = f64::NEG_INFINITY;
                for row in window(y, height) {
                    for column in window(x, width) {
                        largest =
                            largest.max(input.values[(channel * height + row) * width + column]);
                    }
                }
                values.push(largest);
            }
        }
    }
    Features { values, shape: [channels, rows, columns] }
}

pub(crate) fn block(input: &Features, weights: &BlockWeights<'_>) -> Features {
    let (last, path) = weights.path.split_last().unwrap();
    let inner = path.iter().fold(input.clone(), |x, weights| relu(convolve(&x, weights)));
    let mut output = convolve(&inner, last);
    let shortcut = weights.shortcut.as_ref().map(|weights| convolve(input, weights));
    let shortcut = shortcut.as_ref().unwrap_or(input);
    output.values.iter_mut().zip(&shortcut.values).for_each(|(value, more)| *value += more);
    relu(output)
}

/// The stages' outputs for one image.
pub(crate) fn stages(
    input: &[f32],
    (height, width): (usize, usize),
    weights: &NetworkWeights<'_>,
) -> [Features; STAGES] {
    let values = input.iter().copied().map(f64::from).collect();
    let image = Features { values, shape: [3, height, width] };
    let mut features = max_pool(&relu(convolve(&image, &weights.stem)));
    std::array::from_fn(|stage| {
        features =
            weights.stages[stage].iter().fold(features.clone(), |x, weights| block(&x, weights));
        features.clone()
    })
}

/// Pseudorandom numbers from -1 to 1 (xorshift, Marsaglia 2003).
pub(crate) fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Owns what [`ConvolutionWeights`] borrow.
pub(crate) struct RandomConvolution {
    weight: Vec<f32>,
    bias: Vec<f32>,
    shape: [usize; 4],
}

impl RandomConvolution {
    pub(crate) fn new(
        inputs: usize,
        outputs: usize,
        kernel: usize,
        stride: usize,
        seed: u64,
    ) -> Self {
        let depth = inputs * kernel * kernel;
        // Keeps the variance through a ReLU: He et al. 2015, https://arxiv.org/abs/1502.01852.
        let scale = (6.0 / depth as f32).sqrt();
        let weight = noise(outputs * depth, seed).into_iter().map(|value| value * scale).collect();
        let bias = noise(outputs, seed + 1).into_iter().map(|value| value * 0.1).collect();
        Self { weight, bias, shape: [inputs, outputs, kernel, stride] }
    }

    /// With weights and bias passed through `round`.
    pub(crate) fn rounded(self, round: impl Fn(Vec<f32>) -> Vec<f32>) -> Self {
        Self { weight: round(self.weight), bias: round(self.bias), shape: self.shape }
    }

    pub(crate) fn weights(&self) -> ConvolutionWeights<'_> {
        let [inputs, outputs, kernel, stride] = self.shape;
        ConvolutionWeights {
            weight: &self.weight,
            bias: &self.bias,
            inputs,
            outputs,
            kernel,
            stride,
        }
    }
}

/// Owns what [`BlockWeights`] borrow.
struct RandomBlock {
    path: Vec<RandomConvolution>,
    shortcut: Option<RandomConvolution>,
}

/// Owns what [`NetworkWeights`] borrow.
pub(crate) struct RandomNetwork {
    stem: RandomConvolution,
    stages: Vec<Vec<RandomBlock>>,
}

impl RandomNetwork {
    /// Bottlenecks with four times the width in outputs, or basic blocks of two 3×3.
    pub(crate) fn new(width: usize, blocks: [usize; STAGES], bottleneck: bool) -> Self {
        let mut seed = 1;
        let mut random = |inputs, outputs, kernel, stride| {
            seed += 2;
            RandomConvolution::new(inputs, outputs, kernel, stride, seed)
        };
        let stem = random(3, width, 7, 2);
        let mut inputs = width;
        let mut stages = Vec::new();
        for (stage, count) in blocks.into_iter().enumerate() {
            let inner = width << stage;
            let outputs = if bottleneck { 4 * inner } else { inner };
            let mut made = Vec::new();
            for number in 0..count {
                let stride = if stage > 0 && number == 0 { 2 } else { 1 };
                let path = if bottleneck {
                    vec![
                        random(inputs, inner, 1, 1),
                        random(inner, inner, 3, stride),
                        random(inner, outputs, 1, 1),
                    ]
                } else {
                    vec![random(inputs, inner, 3, stride), random(inner, outputs, 3, 1)]
                };
                let shortcut =
                    (stride != 1 || inputs != outputs).then(|| random(inputs, outputs, 1, stride));
                made.push(RandomBlock { path, shortcut });
                inputs = outputs;
            }
            stages.push(made);
        }
        Self { stem, stages }
    }

    pub(crate) fn weights(&self) -> NetworkWeights<'_> {
        NetworkWeights {
            stem: self.stem.weights(),
            stages: std::array::from_fn(|stage| {
                let blocks = self.stages[stage].iter();
                blocks
                    .map(|RandomBlock { path, shortcut }| BlockWeights {
                        path: path.iter().map(RandomConvolution::weights).collect(),
                        shortcut: shortcut.as_ref().map(RandomConvolution::weights),
                    })
                    .collect()
            }),
        }
    }
}
