//! The order of a convolution's weights on the device: channels last, `[outputs, kernel, kernel,
//! inputs]`, and the forms of the stem, whose three input channels no tensor core takes as they
//! are.
//!
//! Owns index arithmetic alone, on the host. Upstream: folded weights `[outputs, inputs, kernel,
//! kernel]`. Downstream: [`network`](crate::network), and gradients that begin at a layer's own
//! output.

use crate::kernels::{FOLDED_BORDER, FOLDED_CHANNELS, InputLayout};

/// Channels of an image.
pub(crate) const IMAGE_CHANNELS: usize = 3;
/// Height and width of the stem's filter.
pub(crate) const STEM_KERNEL: usize = 7;
/// Height and width of the stem's filter on an input from which every 2×2 pixels became one.
const FOLDED_KERNEL: usize = 4;

/// The sizes of a convolution that do not depend on its input's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) inputs: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    /// Zeros before and after the input, in both directions.
    pub(crate) padding: [usize; 2],
}

/// The stem as a convolution of an input in `layout`.
pub(crate) fn stem_geometry(layout: InputLayout) -> Geometry {
    match layout {
        InputLayout::Padded(inputs) => {
            Geometry { inputs, kernel: STEM_KERNEL, stride: 2, padding: [STEM_KERNEL / 2; 2] }
        }
        InputLayout::SpaceToDepth => {
            // The zeros are in memory: not all of cuDNN's engines take another padding before than
            // after.
            Geometry { inputs: FOLDED_CHANNELS, kernel: FOLDED_KERNEL, stride: 1, padding: [0, 0] }
        }
    }
}

/// `[height, width, channels]` of an image of `height` × `width` pixels in `layout`.
pub(crate) fn input_shape(layout: InputLayout, height: usize, width: usize) -> [usize; 3] {
    match layout {
        InputLayout::Padded(channels) => [height, width, channels],
        InputLayout::SpaceToDepth => {
            let [before, after] = FOLDED_BORDER;
            let side = |side: usize| before + side / 2 + after;
            [side(height), side(width), FOLDED_CHANNELS]
        }
    }
}

/// The stem's weights `[outputs, 3, 7, 7]` for an input in `layout`, channels last.
pub(crate) fn stem_weights(weights: &[f32], outputs: usize, layout: InputLayout) -> Vec<f32> {
    match layout {
        InputLayout::Padded(channels) => {
            channels_last(weights, [outputs, IMAGE_CHANNELS, STEM_KERNEL], channels)
        }
        InputLayout::SpaceToDepth => space_to_depth(weights, outputs),
    }
}

/// `[outputs, inputs, kernel, kernel]` to `[outputs, kernel, kernel, padded]`, zeros from `inputs`
/// on. `sizes` are outputs, inputs and kernel.
pub(crate) fn channels_last(weights: &[f32], sizes: [usize; 3], padded: usize) -> Vec<f32> {
    let [outputs, inputs, kernel] = sizes;
    let taps = kernel * kernel;
    let mut result = vec![0.0; outputs * taps * padded];
    let filters = weights.chunks_exact(inputs * taps);
    for (filter, result) in filters.zip(result.chunks_exact_mut(taps * padded)) {
        for (tap, result) in result.chunks_exact_mut(padded).enumerate() {
            for (input, value) in result[..inputs].iter_mut().enumerate() {
                *value = filter[input * taps + tap];
            }
        }
    }
    result
}

/// The stem's weights for an input from which every 2×2 pixels became one with 12 channels.
///
/// Let `x` be the image and `z` that input: `z[Y, X, (dy * 2 + dx) * 3 + c] = x[2Y + dy, 2X + dx,
/// c]`, with `dy` and `dx` 0 or 1. The stem's output at row `Y` reads the rows `2Y + k - 3` of `x`
/// for `k` from 0 to 6. Such a row is `2(Y + t - 2) + dy` for the one `t` and `dy` with `k - 3 =
/// 2(t - 2) + dy`, that is `k = 2t + dy - 1`. So `t` goes from 0 to 3, which is a filter of 4 rows
/// over `z` with stride 1 that starts 2 rows before row `Y` and ends one row after it: the rows of
/// zeros that `z` has, [`FOLDED_BORDER`]. For `t = 0` and `dy = 0` there is no `k`: that weight is
/// zero. Columns likewise.
fn space_to_depth(weights: &[f32], outputs: usize) -> Vec<f32> {
    let mut result = vec![0.0; outputs * FOLDED_KERNEL * FOLDED_KERNEL * FOLDED_CHANNELS];
    // `t` and `dy` of filter row `k`.
    let place = |k: usize| (k.div_ceil(2), (k + 1) % 2);
    for output in 0..outputs {
        for c in 0..IMAGE_CHANNELS {
            for ky in 0..STEM_KERNEL {
                for kx in 0..STEM_KERNEL {
                    let ((ty, dy), (tx, dx)) = (place(ky), place(kx));
                    let tap = (output * FOLDED_KERNEL + ty) * FOLDED_KERNEL + tx;
                    let channel = (dy * 2 + dx) * IMAGE_CHANNELS + c;
                    let from = (output * IMAGE_CHANNELS + c) * STEM_KERNEL + ky;
                    result[tap * FOLDED_CHANNELS + channel] = weights[from * STEM_KERNEL + kx];
                }
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small whole numbers, so that sums in any order are the same.
    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7 + seed * 13 + i / 5) % 11) as f32 - 5.0).collect()
    }

    /// A convolution, channels last: input `[height, width, inputs]`, weights `[outputs, kernel,
    /// kernel, inputs]`.
    fn convolve(
        input: &[f32],
        [height, width]: [usize; 2],
        weights: &[f32],
        outputs: usize,
        Geometry { inputs, kernel, stride, padding: [before, after] }: Geometry,
    ) -> Vec<f32> {
        let side = |side: usize| (side + before + after - kernel) / stride + 1;
        let mut result = Vec::new();
        for y in 0..side(height) {
            for x in 0..side(width) {
                for output in 0..outputs {
                    let mut sum = 0.0;
                    for (ky, kx) in (0..kernel).flat_map(|ky| (0..kernel).map(move |kx| (ky, kx))) {
                        let row = (y * stride + ky).wrapping_sub(before);
                        let column = (x * stride + kx).wrapping_sub(before);
                        if row >= height || column >= width {
                            continue;
                        }
                        for c in 0..inputs {
                            sum += input[(row * width + column) * inputs + c]
                                * weights[((output * kernel + ky) * kernel + kx) * inputs + c];
                        }
                    }
                    result.push(sum);
                }
            }
        }
        result
    }

    /// An image `[height, width, 3]` in `layout`.
    fn laid_out(image: &[f32], [height, width]: [usize; 2], layout: InputLayout) -> Vec<f32> {
        let shape = input_shape(layout, height, width);
        let mut result = vec![0.0; shape.iter().product()];
        for (index, &value) in image.iter().enumerate() {
            let (pixel, c) = (index / IMAGE_CHANNELS, index % IMAGE_CHANNELS);
            let (y, x) = (pixel / width, pixel % width);
            let at = match layout {
                InputLayout::Padded(channels) => pixel * channels + c,
                InputLayout::SpaceToDepth => {
                    let channel = (y % 2 * 2 + x % 2) * IMAGE_CHANNELS + c;
                    let [row, column] = [y, x].map(|at| at / 2 + FOLDED_BORDER[0]);
                    (row * shape[1] + column) * FOLDED_CHANNELS + channel
                }
            };
            result[at] = value;
        }
        result
    }

    #[test]
    fn weights_become_channels_last() {
        // Two outputs of two inputs of 1x1, and one output of two inputs of 2x2.
        assert_eq!(
            channels_last(&[1.0, 2.0, 3.0, 4.0], [2, 2, 1], 3),
            [1.0, 2.0, 0.0, 3.0, 4.0, 0.0]
        );
        let weights = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        assert_eq!(channels_last(&weights, [1, 2, 2], 2), [1.0, 5.0, 2.0, 6.0, 3.0, 7.0, 4.0, 8.0]);
    }

    #[test]
    fn every_form_of_the_stem_gives_the_same_outputs() {
        let outputs = 2;
        let weights = numbers(outputs * IMAGE_CHANNELS * STEM_KERNEL * STEM_KERNEL, 1);
        for [height, width] in [[8, 8], [14, 10], [6, 20]] {
            let image = numbers(height * width * IMAGE_CHANNELS, 2);
            let direct = Geometry { inputs: 3, kernel: STEM_KERNEL, stride: 2, padding: [3, 3] };
            let plain = channels_last(&weights, [outputs, 3, STEM_KERNEL], 3);
            let expected = convolve(&image, [height, width], &plain, outputs, direct);
            for layout in
                [InputLayout::Padded(4), InputLayout::Padded(8), InputLayout::SpaceToDepth]
            {
                let [rows, columns, _] = input_shape(layout, height, width);
                let input = laid_out(&image, [height, width], layout);
                let weights = stem_weights(&weights, outputs, layout);
                let geometry = stem_geometry(layout);
                let found = convolve(&input, [rows, columns], &weights, outputs, geometry);
                assert_eq!(found, expected, "{height} x {width}");
            }
        }
    }
}
