//! Single convolutions on every kernel: ResNet-50's shapes, and odd ones.

use proptest::prelude::*;

use super::{compare, each_kernel};
use crate::Kernel;
use crate::arena::space;
use crate::convolution::{self, pixel_bytes};
use crate::forward::describe;
use crate::layout::{Activation, PLANE};
use crate::pixels::read_out;
use crate::reference::{self, Convolution, Image, noise};
use crate::team::Team;
use crate::weights::{Packed, from_bf16, rest_in_bf16, to_bf16};
use crate::winograd::Scratch;

/// A convolution and what it is run on.
#[derive(Clone, Copy, Debug)]
struct Shape {
    inputs: usize,
    outputs: usize,
    kernel: usize,
    stride: usize,
    height: usize,
    width: usize,
    images: usize,
    /// Whether something is added before the ReLU.
    residual: bool,
    /// Threads that share it.
    members: usize,
}

/// Largest difference allowed, relative to the largest value, where inputs and weights are
/// bf16's own numbers: what is left is rounding sums in f32, and results to bf16's 8 bits, or to
/// the 16 of two bf16 (the second is at most half of the first's last bit).
fn tolerance(kernel: Kernel) -> f64 {
    match kernel {
        Kernel::Avx512 | Kernel::Avx2 | Kernel::Neon => 4e-6,
        Kernel::AmxBf16x3 => 1.0 / 131_072.0 + 1e-6,
        Kernel::AmxBf16 | Kernel::Avx512Bf16 => 1.0 / 256.0 + 1e-6,
    }
}

fn rounded(values: Vec<f32>) -> Vec<f32> {
    values.into_iter().map(|value| from_bf16(to_bf16(value))).collect()
}

/// Writes `[N, C, H, W]` into an activation.
fn write_in(kernel: Kernel, activation: &Activation, images: usize, values: &[f32]) {
    let geometry = activation.geometry;
    let pixels = geometry.pixels();
    let mut values = values.chunks_exact(pixels);
    for image in 0..images {
        for channel in 0..activation.channels {
            let plane = activation.plane_bytes() * (channel / PLANE);
            for (pixel, &value) in values.next().unwrap().iter().enumerate() {
                let at = geometry.index(image, pixel / geometry.width, pixel % geometry.width);
                // SAFETY: a pixel of the activation, which nobody else uses.
                unsafe {
                    let to = activation.pixels_shared().add(plane + at * activation.pixel_bytes);
                    let channel = channel % PLANE;
                    match kernel {
                        Kernel::AmxBf16 | Kernel::Avx512Bf16 => {
                            to.cast::<u16>().add(channel).write(to_bf16(value));
                        }
                        Kernel::AmxBf16x3 => {
                            to.cast::<u16>().add(channel).write(to_bf16(value));
                            to.cast::<u16>().add(PLANE + channel).write(rest_in_bf16(value));
                        }
                        Kernel::Avx512 | Kernel::Avx2 | Kernel::Neon => {
                            to.cast::<f32>().add(channel).write(value);
                        }
                    }
                }
            }
        }
    }
}

/// Runs one convolution as a pass through a network would.
fn run(
    kernel: Kernel,
    shape: Shape,
    weights: &Convolution,
    input: &[f32],
    add: &[f32],
) -> Vec<f32> {
    let Shape { inputs, outputs, stride, images, .. } = shape;
    let side = (shape.height, shape.width);
    let from = space(kernel, images, side, stride);
    let halved = (side.0.div_ceil(stride), side.1.div_ceil(stride));
    let to = space(kernel, images, halved, 1);
    let packed = Packed::new(&weights.weights(), kernel).unwrap();
    let source = Activation::zeroed(from.geometry, inputs, pixel_bytes(kernel));
    let target = Activation::zeroed(to.geometry, outputs, pixel_bytes(kernel));
    write_in(kernel, &source, images, input);
    let place = (source.pixels(), source.plane_bytes());
    let mut job = describe(kernel, &packed, place, &from, &to, images);
    if shape.residual {
        // In place, as a network has it.
        write_in(kernel, &target, images, add);
        (job.residual, job.residual_plane_bytes) = (target.pixels(), target.plane_bytes());
    }
    convolution::set_target(&mut job, &target);
    let scratch: Vec<_> =
        (0..shape.members).map(|_| Scratch::new(kernel, inputs, outputs)).collect();
    // SAFETY: the kernel is available, and everything is as large as the job says.
    Team::of(shape.members).run(&|part| unsafe {
        let _held = convolution::prepare(kernel);
        convolution::run(kernel, &job, scratch.get(part.index), part);
    });
    let pixels = target.geometry.pixels();
    let mut output = vec![0.0; images * outputs * pixels];
    for (image, values) in output.chunks_exact_mut(outputs * pixels).enumerate() {
        read_out(kernel, &target, image, values);
    }
    output
}

fn check(shape: Shape) {
    let Shape { inputs, outputs, kernel: side, stride, height, width, images, .. } = shape;
    let weights = Convolution::random(inputs, outputs, side, stride, 3).rounded(rounded);
    let size = inputs * height * width;
    let input = rounded(noise(images * size, 5));
    let (rows, columns) = (height.div_ceil(stride), width.div_ceil(stride));
    let add = rounded(noise(images * outputs * rows * columns, 7));
    let mut expected = Vec::new();
    for image in input.chunks_exact(size) {
        let values = image.iter().copied().map(f64::from).collect();
        let image = Image { values, shape: [inputs, height, width] };
        expected.extend(reference::convolve(&image, &weights.weights()).values);
    }
    for (value, add) in expected.iter_mut().zip(&add) {
        let sum = *value + if shape.residual { f64::from(*add) } else { 0.0 };
        *value = sum.max(0.0);
    }
    each_kernel(|kernel| {
        let output = run(kernel, shape, &weights, &input, &add);
        compare(kernel, &format!("{shape:?}"), &output, &expected, tolerance(kernel));
        let alone = run(kernel, Shape { members: 1, ..shape }, &weights, &input, &add);
        assert!(output == alone, "{kernel}, {shape:?}: depends on the number of threads");
    });
}

#[test]
fn every_shape_of_resnet_50_equals_the_reference() {
    let square = |inputs, outputs, kernel, stride, side| {
        let (height, width, images, members) = (side, side, 1, 2);
        let residual = outputs == 4 * inputs;
        Shape { inputs, outputs, kernel, stride, height, width, images, residual, members }
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
        check(Shape {
            inputs, outputs, kernel, stride, height, width, images, residual, members,
        });
    }
}
