//! The stem's max-pooling, on the CPU, channels last: candle's own wants channels first and
//! an input copied to make room for the border.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::patches::values;

/// Side of the window.
const KERNEL: usize = 3;
/// Step between windows.
const STRIDE: usize = 2;
/// Border around the image, which never wins.
const PADDING: usize = 1;

/// Largest value of each 3×3 window, every second pixel: contiguous `[N, H, W, C]`, f32, to
/// `[N, H', W', C]`. torchvision's `maxpool` of a ResNet. Not differentiable: no explanation
/// goes back through the stem.
pub(super) fn max_pool(input: &Tensor) -> Result<Tensor> {
    input.apply_op1_no_bwd(&MaxPool)
}

/// Output rows or columns for so many of the input.
fn output_side(side: usize) -> usize {
    (side + 2 * PADDING - KERNEL) / STRIDE + 1
}

struct MaxPool;

impl CustomOp1 for MaxPool {
    fn name(&self) -> &'static str {
        "max-pool"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let input = values(storage, layout)?;
        let (batch, height, width, channels) = layout.shape().dims4()?;
        let (rows, columns) = (output_side(height), output_side(width));
        let mut output = vec![f32::NEG_INFINITY; batch * rows * columns * channels];
        output.par_chunks_mut(columns * channels).enumerate().for_each(|(row, output)| {
            let image = &input[row / rows * height * width * channels..];
            for y in window(row % rows, height) {
                for (column, output) in output.chunks_mut(channels).enumerate() {
                    for x in window(column, width) {
                        let pixel = &image[(y * width + x) * channels..][..channels];
                        for (largest, value) in output.iter_mut().zip(pixel) {
                            // As torch: what is not a number stays so.
                            if *value > *largest || value.is_nan() {
                                *largest = *value;
                            }
                        }
                    }
                }
            }
        });
        Ok((CpuStorage::F32(output), (batch, rows, columns, channels).into()))
    }
}

/// The input rows or columns that one window covers.
fn window(index: usize, side: usize) -> std::ops::Range<usize> {
    let start = index * STRIDE;
    start.saturating_sub(PADDING)..(start + KERNEL - PADDING).min(side)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::noise;

    #[test]
    fn equals_candles_on_a_padded_input() {
        for (height, width) in [(8, 9), (7, 6)] {
            let input = noise(&[2, height, width, 5], 1).abs().unwrap();
            let padded = input.permute((0, 3, 1, 2)).unwrap();
            let padded = padded.pad_with_zeros(2, 1, 1).unwrap().pad_with_zeros(3, 1, 1).unwrap();
            let plain = padded.max_pool2d_with_stride(3, 2).unwrap();
            let ours = max_pool(&input).unwrap().permute((0, 3, 1, 2)).unwrap();
            let [plain, ours] = [plain, ours].map(|t| t.flatten_all().unwrap().to_vec1::<f32>());
            assert_eq!(plain.unwrap(), ours.unwrap());
        }
    }
}
