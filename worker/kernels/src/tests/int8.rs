//! Kernels in 8 bits: near the reference, and the same bits on all of them.

use proptest::prelude::*;

use super::reference::{self, RandomNetwork, noise};
use super::{compare, each_int8_kernel};
use crate::quantisation::{ChannelScales, InputScale, QuantisedWeights};
use crate::{
    ActivationStatistics, Backbone, BackboneOutputs, BatchInput, BatchShape, ConvolutionWeights,
    Kernel, NetworkWeights, RangeRule,
};

/// Values of [`noise`] in 255 steps.
const INPUT: [InputScale; 3] = [InputScale { scale: 2.0 / 255.0, offset: -1.0 }; 3];

/// A kernel that any machine has, in f32 or else the fastest.
fn exact_kernel() -> Option<Kernel> {
    Kernel::available().into_iter().find(|kernel| matches!(kernel, Kernel::Avx2 | Kernel::Neon))
}

fn image(shape: BatchShape) -> BatchShape {
    BatchShape { images: 1, ..shape }
}

fn statistics(
    weights: &NetworkWeights<'_>,
    input: &[f32],
    shape: BatchShape,
) -> Option<ActivationStatistics> {
    let backbone = Backbone::new(exact_kernel()?, weights).unwrap();
    let images = input.chunks(input.len() / shape.images);
    let all: Vec<_> = images
        .map(|values| backbone.statistics(BatchInput::Values(values), image(shape)))
        .collect();
    Some(ActivationStatistics::of_images(&all, RangeRule::Largest))
}

fn run(kernel: Kernel, network: &RandomNetwork, shape: BatchShape, threads: usize) -> Outcome {
    let weights = network.weights();
    let input = noise(shape.images * 3 * shape.height * shape.width, 77);
    let statistics = statistics(&weights, &input, shape)?;
    let backbone = Backbone::calibrated(kernel, &weights, &statistics, INPUT).unwrap();
    Some(backbone.run(BatchInput::Values(&input), shape, [true; 4], threads))
}

/// None where no kernel in f32 can calibrate.
type Outcome = Option<BackboneOutputs>;

fn check(network: &RandomNetwork, shape: BatchShape, threads: usize) {
    let weights = network.weights();
    let size = 3 * shape.height * shape.width;
    let input = noise(shape.images * size, 77);
    let expected: Vec<_> = input
        .chunks(size)
        .map(|image| reference::stages(image, (shape.height, shape.width), &weights))
        .collect();
    let portable = run(Kernel::PortableInt8, network, shape, 1);
    each_int8_kernel(|kernel| {
        let Some(outputs) = run(kernel, network, shape, threads) else { return };
        assert!(Some(&outputs) == portable.as_ref(), "{kernel}: not the portable kernel's bits");
        for (stage, output) in outputs.stages.iter().enumerate() {
            let output = output.as_ref().unwrap();
            let all: Vec<f64> =
                expected.iter().flat_map(|e| e[stage].values.iter().copied()).collect();
            // Of random weights, whose values are hardly larger than their rounding errors add up to.
            compare(kernel, &format!("stage {}", stage + 1), &output.values, &all, 0.12);
        }
    });
}

#[test]
fn resnet_50_is_near_the_reference() {
    let shape = BatchShape { images: 2, height: 64, width: 64 };
    check(&RandomNetwork::new(64, [3, 4, 6, 3], true), shape, 1);
}

#[test]
fn basic_blocks_are_near_the_reference() {
    // The first stage adds the stem's output, without a convolution.
    let shape = BatchShape { images: 3, height: 64, width: 96 };
    check(&RandomNetwork::new(32, [2, 1, 2, 1], false), shape, 2);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn odd_sizes_give_the_same_bits(
        height in 32usize..90, width in 32usize..90, images in 1usize..4, bottleneck: bool,
    ) {
        let shape = BatchShape { images, height, width };
        check(&RandomNetwork::new(32, [1, 2, 1, 1], bottleneck), shape, 3);
    }
}

#[test]
fn an_image_does_not_depend_on_its_neighbours_or_on_threads() {
    let network = RandomNetwork::new(32, [1, 2, 2, 1], true);
    let weights = network.weights();
    let shape = BatchShape { images: 9, height: 45, width: 70 };
    let size = 3 * shape.height * shape.width;
    let input = noise(shape.images * size, 5);
    let Some(statistics) = statistics(&weights, &input, shape) else { return };
    each_int8_kernel(|kernel| {
        let backbone = Backbone::calibrated(kernel, &weights, &statistics, INPUT).unwrap();
        let run = |input: &[f32], shape, threads| {
            backbone.run(BatchInput::Values(input), shape, [false; 4], threads).pooled
        };
        let whole = run(&input, shape, 1);
        for threads in [2, 3, 20] {
            assert!(run(&input, shape, threads) == whole, "{kernel}, {threads} threads");
        }
        for (number, values) in input.chunks(size).enumerate() {
            let alone = run(values, image(shape), 1 + number);
            let of_whole = &whole[number * backbone.features()..][..backbone.features()];
            assert!(of_whole == alone, "{kernel}, image {number}");
        }
    });
}

#[test]
fn a_calibration_of_another_network_is_refused() {
    let network = RandomNetwork::new(32, [1, 1, 1, 1], true);
    let other = RandomNetwork::new(32, [1, 2, 1, 1], true);
    let shape = BatchShape { images: 1, height: 32, width: 32 };
    let input = noise(3 * 32 * 32, 5);
    let Some(mut found) = statistics(&network.weights(), &input, shape) else { return };
    let refused = |weights: &NetworkWeights<'_>, found: &ActivationStatistics| {
        Backbone::calibrated(Kernel::PortableInt8, weights, found, INPUT).unwrap_err().to_string()
    };
    assert!(refused(&other.weights(), &found).contains("another network's"));
    found.points[3].largest[0] = f32::NAN;
    assert!(refused(&network.weights(), &found).contains("not finite"));
    found.points[3].largest.pop();
    assert!(refused(&network.weights(), &found).contains("channels"));
    assert!(Backbone::new(Kernel::PortableInt8, &network.weights()).is_err());
}

#[test]
fn weights_that_are_not_finite_are_refused() {
    let scales = ChannelScales::of_range(&[1.0; 32]);
    let bias = [0.0; 32];
    for (value, is_taken) in [(f32::NAN, false), (f32::INFINITY, false), (0.5, true)] {
        let mut weight = noise(32 * 32, 1);
        weight[5] = value;
        let weights = ConvolutionWeights {
            weight: &weight,
            bias: &bias,
            inputs: 32,
            outputs: 32,
            kernel: 1,
            stride: 1,
        };
        assert_eq!(QuantisedWeights::new(&weights, &scales, &scales).is_ok(), is_taken, "{value}");
    }
}

#[test]
fn the_mean_error_of_rounded_weights_is_taken_off_the_bias() {
    let (inputs, outputs) = (64, 32);
    let weight = noise(inputs * outputs, 3);
    let bias = noise(outputs, 4);
    let weights =
        ConvolutionWeights { weight: &weight, bias: &bias, inputs, outputs, kernel: 1, stride: 1 };
    let range: Vec<f32> = noise(inputs, 5).iter().map(|value| value.abs() + 0.1).collect();
    let (input, output) = (ChannelScales::of_range(&range), ChannelScales::of_range(&[8.0; 32]));
    let quantised = QuantisedWeights::new(&weights, &input, &output).unwrap();
    for channel in 0..outputs {
        // At the channels' means, which are half of their ranges here.
        let (mut exact, mut rounded) = (f64::from(bias[channel]), 0.0);
        for (at, range) in range.iter().enumerate() {
            let mean = f64::from(range / 2.0);
            exact += f64::from(weight[channel * inputs + at]) * mean;
            let byte = mean / f64::from(input.scale[at]);
            rounded += f64::from(quantised.weight[channel * inputs + at]) * byte;
        }
        let rounded =
            rounded * f64::from(quantised.multiplier[channel]) + f64::from(quantised.bias[channel]);
        let error = (rounded * f64::from(output.scale[channel]) - exact).abs();
        assert!(error < 1e-5, "{error}");
    }
}
