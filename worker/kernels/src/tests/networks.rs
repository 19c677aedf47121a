//! Whole networks on every kernel against a plain implementation.

use proptest::prelude::*;

use super::reference::{self, RandomNetwork, noise};
use super::{compare, each_kernel};
use crate::kernel::{Kernel, ValueFormat};
use crate::{Backbone, BackboneOutputs, BatchInput, BatchShape, PixelValues};

/// The largest difference allowed, relative to the largest value. bf16 has 8 bits, and a network
/// of 50 layers adds up its rounding errors.
fn tolerance(kernel: Kernel) -> f64 {
    match kernel.value_format() {
        ValueFormat::F32 => 1e-5,
        ValueFormat::Bf16Pair => 3e-5,
        ValueFormat::Bf16 => 4e-2,
        ValueFormat::U8 | ValueFormat::I16 => unreachable!("see `int8`"),
    }
}

fn check(network: &RandomNetwork, shape: BatchShape, threads: usize) {
    let weights = network.weights();
    let BatchShape { images, height, width } = shape;
    let size = 3 * height * width;
    let input = noise(images * size, 77);
    let expected: Vec<_> = input
        .chunks(size)
        .map(|image| reference::stages(image, (height, width), &weights))
        .collect();
    each_kernel(|kernel| {
        let backbone = Backbone::new(kernel, &weights).unwrap();
        let outputs = backbone.run(BatchInput::Values(&input), shape, [true; 4], threads);
        for (stage, output) in outputs.stages.iter().enumerate() {
            let output = output.as_ref().unwrap();
            let all: Vec<f64> =
                expected.iter().flat_map(|e| e[stage].values.iter().copied()).collect();
            assert_eq!(output.shape[1..], expected[0][stage].shape);
            compare(
                kernel,
                &format!("stage {}", stage + 1),
                &output.values,
                &all,
                tolerance(kernel),
            );
        }
        let last = expected.iter().map(|stages| &stages[3]);
        let pixels = expected[0][3].shape[1] * expected[0][3].shape[2];
        let means = last.flat_map(|image| {
            image.values.chunks(pixels).map(|channel| channel.iter().sum::<f64>() / pixels as f64)
        });
        compare(kernel, "pooled", &outputs.pooled, &means.collect::<Vec<_>>(), tolerance(kernel));
    });
}

fn square(images: usize, side: usize) -> BatchShape {
    BatchShape { images, height: side, width: side }
}

#[test]
fn resnet_50_equals_the_reference() {
    check(&RandomNetwork::new(64, [3, 4, 6, 3], true), square(1, 64), 1);
}

#[test]
fn basic_blocks_equal_the_reference() {
    check(
        &RandomNetwork::new(32, [2, 1, 2, 1], false),
        BatchShape { images: 3, height: 64, width: 96 },
        2,
    );
}

#[test]
fn rows_of_usual_lengths_equal_the_reference() {
    check(&RandomNetwork::new(32, [1, 1, 1, 1], true), square(1, 224), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn odd_sizes_equal_the_reference(
        height in 32usize..90, width in 32usize..90, images in 1usize..4, bottleneck: bool,
    ) {
        check(&RandomNetwork::new(32, [1, 2, 1, 1], bottleneck), BatchShape { images, height, width }, 2);
    }
}

#[test]
fn an_image_does_not_depend_on_its_neighbours_or_on_threads() {
    let network = RandomNetwork::new(32, [1, 2, 2, 1], true);
    let (n, height, width) = (11, 45, 70);
    let size = 3 * height * width;
    let input = noise(n * size, 5);
    each_kernel(|kernel| {
        let backbone = Backbone::new(kernel, &network.weights()).unwrap();
        let run = |input: &[f32], images, threads| {
            let shape = BatchShape { images, height, width };
            backbone.run(BatchInput::Values(input), shape, [true; 4], threads)
        };
        let whole = run(&input, n, 1);
        for threads in [2, 3, 20, 50] {
            assert!(run(&input, n, threads) == whole, "{kernel}, {threads} threads");
        }
        let reversed: Vec<f32> = input.chunks(size).rev().flatten().copied().collect();
        let reversed = run(&reversed, n, 2);
        for image in 0..n {
            let alone = run(&input[image * size..][..size], 1, 1 + image);
            assert!(image_of(&whole, image, n) == alone, "{kernel}, image {image}");
            assert!(image_of(&reversed, n - 1 - image, n) == alone, "{kernel}, image {image}");
        }
    });
}

fn image_of(outputs: &BackboneOutputs, image: usize, n: usize) -> BackboneOutputs {
    let part = |values: &[f32]| values[values.len() / n * image..][..values.len() / n].to_vec();
    let mut one = outputs.clone();
    one.pooled = part(&one.pooled);
    for stage in one.stages.iter_mut().flatten() {
        stage.values = part(&stage.values);
        stage.shape[0] = 1;
    }
    one
}

#[test]
fn bytes_are_what_their_values_are() {
    let network = RandomNetwork::new(32, [1, 1, 1, 1], true);
    let (n, height, width) = (3, 37, 50);
    let values = PixelValues {
        values: std::array::from_fn(|channel| {
            std::array::from_fn(|byte| (byte as f32 - 90.0 * channel as f32) / 57.0)
        }),
        sources: [2, 1, 0],
    };
    let bytes: Vec<u8> = (0..n * height * width * 3).map(|at| (at * at % 251) as u8).collect();
    let scaled = bytes.chunks(height * width * 3).flat_map(|image| {
        (0..3).flat_map(|channel| {
            let pixels = image.as_chunks::<3>().0.iter();
            pixels
                .map(move |pixel| usize::from(pixel[2 - channel]))
                .map(move |byte| (channel, byte))
        })
    });
    let scaled: Vec<f32> = scaled.map(|(channel, byte)| values.values[channel][byte]).collect();
    let shape = BatchShape { images: n, height, width };
    each_kernel(|kernel| {
        let backbone = Backbone::new(kernel, &network.weights()).unwrap();
        let run = |input: BatchInput<'_>| backbone.run(input, shape, [true; 4], 2);
        let of_bytes = run(BatchInput::Pixels { bytes: &bytes, values: &values });
        assert!(of_bytes == run(BatchInput::Values(&scaled)), "{kernel}");
    });
}

#[test]
fn not_a_number_is_not_hidden() {
    let network = RandomNetwork::new(32, [1, 1, 1, 1], true);
    let mut input = noise(3 * 64 * 64, 5);
    input[64 * 32 + 32] = f32::NAN;
    each_kernel(|kernel| {
        let backbone = Backbone::new(kernel, &network.weights()).unwrap();
        let outputs = backbone.run(BatchInput::Values(&input), square(1, 64), [false; 4], 1);
        assert!(outputs.pooled.iter().all(|value| value.is_nan()), "{kernel}");
    });
}

#[test]
fn other_networks_are_refused() {
    let kernel = Kernel::available().first().copied().unwrap_or(Kernel::Avx2);
    let network = RandomNetwork::new(48, [1, 1, 1, 1], true);
    assert!(Backbone::new(kernel, &network.weights()).is_err());
    let network = RandomNetwork::new(32, [1, 1, 0, 1], true);
    assert!(Backbone::new(kernel, &network.weights()).is_err());
}
