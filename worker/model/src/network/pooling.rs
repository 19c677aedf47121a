//! Max-pooling of a stem, on the CPU, channels last. candle's own needs channels first, and a copy
//! of the input with a border.

use candle_core::{CpuStorage, CustomOp1, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::patches::values;

/// Side of the window.
const KERNEL: usize = 3;
/// Step between windows.
const STRIDE: usize = 2;
/// Width of the border around the image; its values are never the largest.
const PADDING: usize = 1;

/// The largest value of each 3×3 window with stride 2: contiguous `[N, H, W, C]`, f32, to
/// `[N, H', W', C]`. As `maxpool` in torchvision's ResNet. Differentiable.
pub fn max_pool(input: &Tensor) -> Result<Tensor> {
    input.apply_op1(MaxPool)
}

/// The gradient of [`max_pool`]'s input `[N, H, W, C]`, from the input, the output and the output's
/// gradient, all contiguous, f32. The first pixel of a window that has the largest value gets the
/// gradient, as in PyTorch.
pub fn max_pool_gradient(input: &Tensor, output: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    input.apply_op3_no_bwd(output, gradient, &MaxPoolGradient)
}

/// Output rows or columns for `side` rows or columns of the input.
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
                            // NaN stays NaN, as in PyTorch.
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

    fn bwd(&self, input: &Tensor, output: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        max_pool_gradient(input, output, &gradient.contiguous()?).map(Some)
    }
}

struct MaxPoolGradient;

impl CustomOp3 for MaxPoolGradient {
    fn name(&self) -> &'static str {
        "max-pool-gradient"
    }

    fn cpu_fwd(
        &self,
        input: &CpuStorage,
        layout: &Layout,
        output: &CpuStorage,
        output_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let input = values(input, layout)?;
        let (output, gradient) =
            (values(output, output_layout)?, values(gradient, gradient_layout)?);
        let (_, height, width, channels) = layout.shape().dims4()?;
        let (rows, columns) = (output_side(height), output_side(width));
        let (image_len, output_len) = (height * width * channels, rows * columns * channels);
        let mut result = vec![0f32; input.len()];
        // Windows overlap within an image only.
        result.par_chunks_mut(image_len).enumerate().for_each(|(index, result)| {
            let image = &input[index * image_len..][..image_len];
            for window_index in 0..rows * columns {
                let start = index * output_len + window_index * channels;
                for channel in 0..channels {
                    let largest = output[start + channel];
                    let mut pixels = window(window_index / columns, height).flat_map(|y| {
                        window(window_index % columns, width).map(move |x| y * width + x)
                    });
                    let won = |pixel: &usize| {
                        let value = image[pixel * channels + channel];
                        value == largest || value.is_nan()
                    };
                    if let Some(pixel) = pixels.find(won) {
                        result[pixel * channels + channel] += gradient[start + channel];
                    }
                }
            }
        });
        Ok((CpuStorage::F32(result), layout.shape().clone()))
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
    use crate::testing::noise;

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

    #[test]
    fn gradient_goes_to_the_largest_of_each_window() {
        for (height, width) in [(8, 9), (7, 6), (5, 5)] {
            let input = candle_core::Var::from_tensor(&noise(&[2, height, width, 3], 1)).unwrap();
            let output = max_pool(&input).unwrap();
            let factors = noise(output.dims(), 2);
            let sum = |input: &Tensor| -> f64 {
                let pooled = (max_pool(input).unwrap() * &factors).unwrap();
                let pooled = pooled.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                pooled.iter().map(|&value| f64::from(value)).sum()
            };
            let gradients = (&output * &factors).unwrap().sum_all().unwrap().backward().unwrap();
            let gradient = gradients.get(&input).unwrap().flatten_all().unwrap();
            let start = input.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            for (index, gradient) in gradient.to_vec1::<f32>().unwrap().into_iter().enumerate() {
                // A step so small that no other pixel becomes the largest.
                let moved = |by: f32| {
                    let mut moved = start.clone();
                    moved[index] += by;
                    sum(&Tensor::from_vec(moved, input.dims(), input.device()).unwrap())
                };
                let slope = (moved(1e-4) - moved(-1e-4)) / 2e-4;
                assert!((slope - f64::from(gradient)).abs() < 1e-2, "{index}: {slope} {gradient}");
            }
        }
    }

    #[test]
    fn of_equal_pixels_the_first_has_the_gradient() {
        let input = Tensor::zeros((1, 3, 3, 1), candle_core::DType::F32, &candle_core::Device::Cpu);
        let input = input.unwrap();
        let output = max_pool(&input).unwrap();
        let gradient = max_pool_gradient(&input, &output, &output.ones_like().unwrap()).unwrap();
        let gradient = gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(gradient, [1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    }
}
