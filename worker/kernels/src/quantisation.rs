//! Scales for 8 bits, and weights by them.
//!
//! An activation's channel has a scale: a byte `q` stands for `q × scale`. Activations are zero or
//! more, after a ReLU, so that a byte needs no sign and the border's zeros stay zeros. A weight is
//! multiplied by its input's scale, and the products of each output are rounded to -127..127 by a
//! scale of that output. So a sum of bytes times bytes is an integer, and
//! `round(sum × multiplier + bias)` is the output's byte.
//!
//! Does not know how bytes lie in memory: [`weights`](crate::weights) packs them.

use crate::network_weights::{
    BlockWeights, ConvolutionWeights, NetworkWeights, STAGES, UnsupportedNetwork,
};
use crate::statistics::{
    ActivationStatistics, INPUT, PointStatistics, STEM, block_point, inner_point,
};

/// The largest byte of an activation.
const BYTE_MAX: f32 = 255.0;
/// The largest weight.
const WEIGHT_MAX: f32 = 127.0;
/// A channel's range is at least this part of the largest channel's, before the mean of both: a
/// channel that was silent in the sample is not silenced in other images.
const SMALLEST_PART: f32 = 1e-3;
/// Rounded outputs have to fit in 32 bits, with room for the rounding of the bound itself.
const LARGEST_OUTPUT: f64 = (1u32 << 30) as f64;

/// How an activation's bytes become values: `byte × scale + offset`, by channel.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ChannelScales {
    pub(crate) scale: Vec<f32>,
    /// Zero for all but the network's input.
    pub(crate) offset: Vec<f32>,
    /// The mean of values in the sample.
    mean: Vec<f32>,
}

impl ChannelScales {
    /// Of channels that reach from zero to these values, and have half of them as their means.
    #[cfg(test)]
    pub(crate) fn of_range(largest: &[f32]) -> Self {
        let mean = largest.iter().map(|value| value / 2.0).collect();
        let point = PointStatistics { name: String::new(), largest: largest.to_vec(), mean };
        Self::shared(&[&point], &point)
    }

    /// Scales of activations that share them, as those do that are added to each other: the ranges are
    /// the largest of all, the means those of the point itself.
    fn shared(points: &[&PointStatistics], own: &PointStatistics) -> Self {
        let channels = own.largest.len();
        let range =
            |channel: usize| points.iter().map(|point| point.largest[channel]).fold(0.0, f32::max);
        let ranges: Vec<f32> = (0..channels).map(range).collect();
        let largest = ranges.iter().copied().fold(f32::MIN_POSITIVE.sqrt(), f32::max);
        // The geometric mean of a channel's own range and the largest channel's. With its own, small
        // channels would be exact and clip what is new; with the largest, they would have few levels.
        let scale = |range: &f32| (range.max(largest * SMALLEST_PART) * largest).sqrt() / BYTE_MAX;
        Self {
            scale: ranges.iter().map(scale).collect(),
            offset: vec![0.0; channels],
            mean: own.mean.clone(),
        }
    }
}

/// What the input's bytes mean, for each channel: `byte × scale + offset`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InputScale {
    /// The difference of neighbouring bytes' values, above zero.
    pub scale: f32,
    /// The value of byte 0.
    pub offset: f32,
}

impl InputScale {
    /// The nearest byte.
    pub(crate) fn byte(self, value: f32) -> u8 {
        // A NaN becomes 0, as in any conversion to an integer.
        ((value - self.offset) / self.scale).round_ties_even().clamp(0.0, BYTE_MAX) as u8
    }
}

/// The scales of a whole network.
#[derive(Clone, Debug)]
pub(crate) struct NetworkScales {
    pub(crate) input: [InputScale; 3],
    pub(crate) image: ChannelScales,
    pub(crate) stem: ChannelScales,
    pub(crate) stages: Vec<StageScales>,
}

/// The scales of a stage.
#[derive(Clone, Debug)]
pub(crate) struct StageScales {
    /// For each block those between its convolutions.
    pub(crate) inner: Vec<Vec<ChannelScales>>,
    /// For each block those of its output. They differ in their means alone: a block's input is added
    /// to its output, byte to byte.
    pub(crate) outputs: Vec<ChannelScales>,
}

impl NetworkScales {
    /// # Errors
    /// If the statistics are not this network's.
    pub(crate) fn new(
        weights: &NetworkWeights<'_>,
        statistics: &ActivationStatistics,
        input: [InputScale; 3],
    ) -> Result<Self, UnsupportedNetwork> {
        if !statistics.fits(weights) {
            return Err(UnsupportedNetwork("its calibration is another network's".into()));
        }
        if !input.iter().all(|i| i.scale > 0.0 && i.scale.is_finite() && i.offset.is_finite()) {
            return Err(UnsupportedNetwork("its input's scale is not positive".into()));
        }
        let image = statistics.point(INPUT, 3)?;
        let image = ChannelScales {
            scale: input.map(|channel| channel.scale).to_vec(),
            offset: input.map(|channel| channel.offset).to_vec(),
            mean: image.mean.clone(),
        };
        let stem = statistics.point(STEM, weights.stem.outputs)?;
        // What is added to each other shares its scales: the outputs of a stage's blocks, and what its
        // first block adds as it is, without a convolution.
        let mut sharing = vec![vec![stem]];
        let mut share_of_stage = Vec::new();
        let mut outputs = Vec::new();
        for (stage, blocks) in weights.stages.iter().enumerate() {
            let output = |(number, block): (usize, &BlockWeights<'_>)| {
                let channels = block.path.last().map_or(0, |last| last.outputs);
                statistics.point(&block_point(stage, number), channels)
            };
            let of_blocks = blocks.iter().enumerate().map(output).collect::<Result<Vec<_>, _>>()?;
            if blocks.first().is_some_and(|block| block.shortcut.is_some()) {
                sharing.push(Vec::new());
            }
            share_of_stage.push(sharing.len() - 1);
            // The last output of all is not rounded. It counts if there is no other.
            let is_last = stage + 1 == STAGES && of_blocks.len() > 1;
            let rounded = of_blocks.len() - usize::from(is_last);
            if let Some(points) = sharing.last_mut() {
                points.extend(&of_blocks[..rounded]);
            }
            outputs.push(of_blocks);
        }
        let stages = weights.stages.iter().zip(outputs).enumerate();
        let stages = stages.map(|(stage, (blocks, outputs))| {
            let shared = &sharing[share_of_stage[stage]];
            let inner = blocks.iter().enumerate().map(|(number, block)| {
                let path = &block.path[..block.path.len() - 1];
                let scales = path.iter().enumerate().map(|(at, convolution)| {
                    let name = inner_point(stage, number, at);
                    let point = statistics.point(&name, convolution.outputs)?;
                    Ok(ChannelScales::shared(&[point], point))
                });
                scales.collect()
            });
            Ok(StageScales {
                inner: inner.collect::<Result<_, _>>()?,
                outputs: outputs
                    .into_iter()
                    .map(|own| ChannelScales::shared(shared, own))
                    .collect(),
            })
        });
        Ok(Self {
            input,
            image,
            stem: ChannelScales::shared(&sharing[0], stem),
            stages: stages.collect::<Result<_, _>>()?,
        })
    }
}

/// A convolution's weights in 8 bits.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct QuantisedWeights {
    /// As [`ConvolutionWeights::weight`].
    pub(crate) weight: Vec<i8>,
    /// For each output: its sum times this, in units of the output's scale.
    pub(crate) multiplier: Vec<f32>,
    /// For each output, in the same unit.
    pub(crate) bias: Vec<f32>,
    /// The outputs' scales.
    pub(crate) output_scale: Vec<f32>,
}

impl QuantisedWeights {
    /// # Errors
    /// If an output may not fit in 32 bits: a weight is not finite, or the statistics are not of this
    /// network's outputs.
    pub(crate) fn new(
        weights: &ConvolutionWeights<'_>,
        input: &ChannelScales,
        output: &ChannelScales,
    ) -> Result<Self, UnsupportedNetwork> {
        let &ConvolutionWeights { weight, bias, inputs, outputs, kernel, .. } = weights;
        let taps = kernel * kernel;
        let terms = InputTerms::of(input, taps);
        let mut quantised = Self {
            weight: Vec::with_capacity(weight.len()),
            multiplier: Vec::with_capacity(outputs),
            bias: Vec::with_capacity(outputs),
            output_scale: output.scale.clone(),
        };
        for (of_output, (&bias, &output_scale)) in
            weight.chunks_exact(inputs * taps).zip(bias.iter().zip(&output.scale))
        {
            let step = terms.largest(of_output) / WEIGHT_MAX;
            let sums = terms.round(of_output, step, &mut quantised.weight);
            // What rounding adds to the output on average is taken off its bias: Nagel et al.,
            // arXiv:1906.04721, section 4.2.
            let bias = f64::from(bias) + sums.by_mean - f64::from(step) * sums.rounded_by_mean;
            let bound = sums.absolute * f64::from(BYTE_MAX);
            let (multiplier, bias) = (step / output_scale, (bias / f64::from(output_scale)) as f32);
            let bound = bound * f64::from(multiplier) + f64::from(bias.abs());
            // A NaN is larger than nothing.
            let fits = bound < LARGEST_OUTPUT;
            if !fits {
                return Err(UnsupportedNetwork(
                    "8 bits can't hold it: its numbers are not finite, or not those of its \
                     calibration"
                        .into(),
                ));
            }
            quantised.multiplier.push(multiplier);
            quantised.bias.push(bias);
        }
        Ok(quantised)
    }
}

/// Numbers that are added up side by side: always in the same order, and in a processor's lanes.
const LANES: usize = 8;

/// What a convolution's input is to each of an output's weights, in lanes. Zeros fill the last.
struct InputTerms {
    /// A weight times this is rounded.
    scale: Vec<[f32; LANES]>,
    /// The mean of the values that the weight is multiplied by.
    mean: Vec<[f64; LANES]>,
    /// That of the bytes.
    mean_byte: Vec<[f64; LANES]>,
}

/// Sums over an output's weights.
#[derive(Clone, Copy, Debug)]
struct OutputSums {
    /// Of weights times means.
    by_mean: f64,
    /// Of rounded weights times the means of bytes.
    rounded_by_mean: f64,
    /// Of rounded weights without their signs.
    absolute: f64,
}

impl InputTerms {
    fn of(input: &ChannelScales, taps: usize) -> Self {
        let mean_byte = |((&scale, &offset), &mean): ((&f32, &f32), &f32)| {
            (f64::from(mean) - f64::from(offset)) / f64::from(scale)
        };
        let mean_bytes = input.scale.iter().zip(&input.offset).zip(&input.mean).map(mean_byte);
        Self {
            scale: in_lanes(input.scale.iter().copied(), taps),
            mean: in_lanes(input.mean.iter().map(|&mean| f64::from(mean)), taps),
            mean_byte: in_lanes(mean_bytes, taps),
        }
    }

    /// The largest weight by the input's scales, and more than zero: an output without weights has a
    /// bias alone.
    fn largest(&self, weights: &[f32]) -> f32 {
        let mut largest = [f32::MIN_POSITIVE; LANES];
        for (weights, scales) in lanes_of(weights).zip(&self.scale) {
            for lane in 0..LANES {
                let scaled = (weights[lane] * scales[lane]).abs();
                largest[lane] = if scaled > largest[lane] { scaled } else { largest[lane] };
            }
        }
        largest.into_iter().fold(0.0, f32::max)
    }

    /// Appends the rounded weights. A weight that is not finite makes a sum NaN.
    fn round(&self, weights: &[f32], step: f32, rounded: &mut Vec<i8>) -> OutputSums {
        // Between 2^23 and 2^24 the numbers of 32 bits are the whole ones: what is added to such a
        // number is rounded to the nearest even one, and stands in the sum's lowest bits.
        const WHOLE: f32 = 1.5 * (1 << 23) as f32;
        let end = rounded.len() + weights.len();
        let mut by_mean = [0.0; LANES];
        let mut rounded_by_mean = [0.0; LANES];
        let mut absolute = [0.0; LANES];
        let terms = self.scale.iter().zip(&self.mean).zip(&self.mean_byte);
        for (weights, ((scales, means), mean_bytes)) in lanes_of(weights).zip(terms) {
            let mut bytes = [0; LANES];
            for lane in 0..LANES {
                let whole = weights[lane] * scales[lane] / step + WHOLE;
                let value = f64::from(whole - WHOLE);
                bytes[lane] = whole.to_bits() as i8;
                by_mean[lane] += f64::from(weights[lane]) * means[lane];
                rounded_by_mean[lane] += value * mean_bytes[lane];
                absolute[lane] += value.abs();
            }
            rounded.extend_from_slice(&bytes);
        }
        rounded.truncate(end);
        let [by_mean, rounded_by_mean, absolute] =
            [by_mean, rounded_by_mean, absolute].map(|lanes| lanes.iter().sum());
        OutputSums { by_mean, rounded_by_mean, absolute }
    }
}

/// Each channel's value for each of its taps.
fn in_lanes<T: Copy + Default>(
    of_channels: impl Iterator<Item = T>,
    taps: usize,
) -> Vec<[T; LANES]> {
    let values: Vec<T> = of_channels.flat_map(|value| std::iter::repeat_n(value, taps)).collect();
    lanes_of(&values).collect()
}

fn lanes_of<T: Copy + Default>(values: &[T]) -> impl Iterator<Item = [T; LANES]> {
    let (whole, rest) = values.as_chunks::<LANES>();
    let last = (!rest.is_empty()).then(|| {
        let mut last = [T::default(); LANES];
        last[..rest.len()].copy_from_slice(rest);
        last
    });
    whole.iter().copied().chain(last)
}
