//! Single convolutions on every kernel: ResNet-50's shapes, and odd ones.

use proptest::prelude::*;

use super::reference::{self, Features, RandomConvolution, noise};
use super::{compare, each_kernel};
use crate::bf16;
use crate::convolution::{self, ConvolutionStep, LayoutTables};
use crate::dispatch;
use crate::kernel::{Kernel, ValueFormat};
use crate::layout::{Activation, PLANE, PixelLayout};
use crate::pooling::copy_out;
use crate::team::Team;
use crate::weights::PackedConvolution;
use crate::winograd::WinogradScratch;

/// A convolution and its input.
#[derive(Clone, Copy, Debug)]
struct TestConvolution {
    inputs: usize,
    outputs: usize,
    kernel: usize,
    stride: usize,
    height: usize,
    width: usize,
    images: usize,
    /// Whether a residual is added before the ReLU.
    residual: bool,
    /// Threads that compute it together.
    members: usize,
}

/// The largest difference allowed, relative to the largest value, if inputs and weights are exact
/// in bf16. Then only sums are rounded, in f32, and results, to bf16's 8 bits or to the 16 bits
/// of two bf16 (the second is at most half of the first's last bit).
fn tolerance(kernel: Kernel) -> f64 {
    match kernel.value_format() {
        ValueFormat::F32 => 4e-6,
        ValueFormat::Bf16Pair => 1.0 / 131_072.0 + 1e-6,
        ValueFormat::Bf16 => 1.0 / 256.0 + 1e-6,
        ValueFormat::U8 | ValueFormat::I16 => unreachable!("see `int8`"),
    }
}

fn rounded(values: Vec<f32>) -> Vec<f32> {
    values.into_iter().map(|value| bf16::to_f32(bf16::from_f32(value))).collect()
}

/// Writes `[N, C, H, W]` into an activation.
fn write_in(kernel: Kernel, activation: &Activation, images: usize, values: &[f32]) {
    let layout = activation.layout;
    let pixels = layout.pixels();
    let mut values = values.chunks_exact(pixels);
    for image in 0..images {
        for channel in 0..activation.channels {
            let plane = activation.plane_bytes() * (channel / PLANE);
            for (pixel, &value) in values.next().unwrap().iter().enumerate() {
                let at = layout.index(image, pixel / layout.width, pixel % layout.width);
                // SAFETY: a pixel of the activation, which nobody else uses.
                unsafe {
                    let to = activation.pixels_shared().add(plane + at * activation.pixel_bytes());
                    let channel = channel % PLANE;
                    match kernel.value_format() {
                        ValueFormat::Bf16 => {
                            to.cast::<u16>().add(channel).write(bf16::from_f32(value));
                        }
                        ValueFormat::Bf16Pair => {
                            let (high, low) =
                                (bf16::from_f32(value), bf16::remainder_from_f32(value));
                            to.cast::<u16>().add(channel).write(high);
                            to.cast::<u16>().add(PLANE + channel).write(low);
                        }
                        ValueFormat::F32 => to.cast::<f32>().add(channel).write(value),
                        ValueFormat::U8 | ValueFormat::I16 => unreachable!("see `int8`"),
                    }
                }
            }
        }
    }
}

/// Runs one convolution as a forward pass would.
fn run(
    kernel: Kernel,
    convolution: TestConvolution,
    weights: &RandomConvolution,
    input: &[f32],
    add: &[f32],
) -> Vec<f32> {
    let TestConvolution { inputs, outputs, stride, height, width, images, .. } = convolution;
    let format = kernel.value_format();
    let from = PixelLayout::for_stride(images, height, width, stride);
    let from = LayoutTables::new(kernel, from, stride);
    let to = PixelLayout::whole(images, height.div_ceil(stride), width.div_ceil(stride));
    let to = LayoutTables::new(kernel, to, 1);
    let packed = PackedConvolution::new(&weights.weights(), kernel).unwrap();
    let source = Activation::zeroed(from.layout, inputs, format);
    let target = Activation::zeroed(to.layout, outputs, format);
    write_in(kernel, &source, images, input);
    if convolution.residual {
        // The residual is the output itself, as in a network.
        write_in(kernel, &target, images, add);
    }
    let step = ConvolutionStep {
        weights: &packed,
        images,
        input: &source,
        input_tables: &from,
        tables: &to,
        residual: convolution.residual.then_some(&target),
        relu: true,
        output: &target,
        pixel_map: &to.pixel_map,
        pixel_offset: 0,
    };
    let call = step.call(kernel);
    let scratch: Vec<_> =
        (0..convolution.members).map(|_| WinogradScratch::new(kernel, inputs, outputs)).collect();
    // SAFETY: the kernel is available, and all buffers are as large as the call says.
    Team::of(convolution.members).run(&|part| unsafe {
        let _prepared = dispatch::prepare_thread(kernel);
        convolution::run(kernel, &call, scratch.get(part.index), part);
    });
    let pixels = target.layout.pixels();
    let mut output = vec![0.0; images * outputs * pixels];
    for (image, values) in output.chunks_exact_mut(outputs * pixels).enumerate() {
        copy_out(&target, image, None, values);
    }
    output
}

fn check(convolution: TestConvolution) {
    let TestConvolution { inputs, outputs, kernel: side, stride, height, width, images, .. } =
        convolution;
    let weights = RandomConvolution::new(inputs, outputs, side, stride, 3).rounded(rounded);
    let size = inputs * height * width;
    let input = rounded(noise(images * size, 5));
    let (rows, columns) = (height.div_ceil(stride), width.div_ceil(stride));
    let add = rounded(noise(images * outputs * rows * columns, 7));
    let mut expected = Vec::new();
    for image in input.chunks_exact(size) {
        let values = image.iter().copied().map(f64::from).collect();
        let image = Features { values, shape: [inputs, height, width] };
        expected.extend(reference::convolve(&image, &weights.weights()).values);
    }
    for (value, add) in expected.iter_mut().zip(&add) {
        let sum = *value + if convolution.residual { f64::from(*add) } else { 0.0 };
        *value = sum.max(0.0);
    }
    each_kernel(|kernel| {
        let output = run(kernel, convolution, &weights, &input, &add);
        compare(kernel, &format!("{convolution:?}"), &output, &expected, tolerance(kernel));
        let alone =
            run(kernel, TestConvolution { members: 1, ..convolution }, &weights, &input, &add);
        assert!(output == alone, "{kernel}, {convolution:?}: depends on the number of threads");
    });
}

#[test]
fn every_shape_of_resnet_50_equals_the_reference() {
    let square = |inputs, outputs, kernel, stride, side| {
        let (height, width, images, members) = (side, side, 1, 2);
        let residual = outputs == 4 * inputs;
        TestConvolution {
            inputs,
            outputs,
            kernel,
            stride,
            height,
            width,
            images,
            residual,
            members,
        }
    };
    for (stage, side) in [56, 28, 14, 7].into_iter().enumerate() {
        let (width, before) = (64 << stage, 32 << stage);
        check(square(width, width, 3, 1, side));
        check(square(width, 4 * width, 1, 1, side));
        check(square(4 * width, width, 1, 1, side));
        if stage == 0 {
            check(square(64, 64, 1, 1, side));
        } else {
            check(square(4 * before, width, 1, 1, 2 * side));
            check(square(width, width, 3, 2, 2 * side));
            check(square(4 * before, 4 * width, 1, 2, 2 * side));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn odd_shapes_equal_the_reference(
        inputs in 1usize..4, outputs in 1usize..4, three: bool, stride in 1usize..3,
        (height, width) in (1usize..20, 1usize..40), images in 1usize..5, residual: bool,
        members in 1usize..6,
    ) {
        let (inputs, outputs) = (32 * inputs, 32 * outputs);
        let kernel = if three { 3 } else { 1 };
        check(TestConvolution {
            inputs, outputs, kernel, stride, height, width, images, residual, members,
        });
    }
}
