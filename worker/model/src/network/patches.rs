//! From an image to the matrix that a convolution multiplies, and back for its gradient, on the
//! CPU: "im2col" and "col2im" (Chellapilla, Puri and Simard 2006). Channels come last, so that a
//! row of a patch is one run of memory.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::convolution_shape::ConvShape;

/// Copies the patch that each output pixel of a convolution sees: contiguous `[N, H, W, C]`, f32,
/// to `[N * H' * W', kernel * kernel * C]`. A patch is in the order row, column, channel, and has
/// zeros outside the image. Differentiable.
pub fn patches(input: &Tensor, shape: ConvShape) -> Result<Tensor> {
    let (batch, height, width, channels) = input.dims4()?;
    if shape.kernel == 1 && shape.stride == 1 {
        return input.reshape((batch * height * width, channels));
    }
    input.apply_op1(GatherPatches(PatchGeometry::new(shape, [batch, height, width, channels])))
}

/// The positions of patches in an image.
#[derive(Clone, Copy)]
pub struct PatchGeometry {
    shape: ConvShape,
    /// `[N, H, W, C]`.
    input: [usize; 4],
    /// Output rows.
    height: usize,
    /// Output columns.
    width: usize,
}

impl PatchGeometry {
    /// Of a convolution of `shape` over an input `[N, H, W, C]`.
    pub fn new(shape: ConvShape, input: [usize; 4]) -> Self {
        let [_, height, width, _] = input;
        Self { shape, input, height: shape.output_side(height), width: shape.output_side(width) }
    }

    /// Number of values of the patches of one output row.
    fn patch_row_len(&self) -> usize {
        self.width * self.patch_len()
    }

    fn patch_len(&self) -> usize {
        self.shape.kernel * self.shape.kernel * self.input[3]
    }

    fn image_len(&self) -> usize {
        self.input[1..].iter().product()
    }

    /// Calls `run(start in the patches of output row `row`, start in the image, length)` for each
    /// run of values that patches and image have in common.
    fn for_each_run(&self, row: usize, mut run: impl FnMut(usize, usize, usize)) {
        let [_, height, width, channels] = self.input;
        let ConvShape { kernel, stride, .. } = self.shape;
        let padding = self.shape.padding();
        for kernel_row in 0..kernel {
            // A row above or below the image is padding.
            let Some(y) = (row * stride + kernel_row).checked_sub(padding).filter(|&y| y < height)
            else {
                continue;
            };
            for column in 0..self.width {
                let left = column * stride;
                let first = padding.saturating_sub(left);
                let end = kernel.min(width + padding - left);
                let patch = column * self.patch_len() + (kernel_row * kernel + first) * channels;
                let image = (y * width + left + first - padding) * channels;
                run(patch, image, (end - first) * channels);
            }
        }
    }
}

/// The f32 values of a contiguous tensor.
pub fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let CpuStorage::F32(values) = storage else { bail!("the CPU computes in f32 only") };
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&values[start..end]),
        None => bail!("this operation needs a contiguous tensor"),
    }
}

/// Copies `[N, H, W, C]` to patches.
struct GatherPatches(PatchGeometry);

impl CustomOp1 for GatherPatches {
    fn name(&self) -> &'static str {
        "gather-patches"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let geometry = self.0;
        let input = values(storage, layout)?;
        let rows = geometry.input[0] * geometry.height;
        let mut patches = vec![0f32; rows * geometry.patch_row_len()];
        patches.par_chunks_mut(geometry.patch_row_len()).enumerate().for_each(|(row, patches)| {
            let image = &input[row / geometry.height * geometry.image_len()..];
            geometry.for_each_run(row % geometry.height, |patch, pixel, length| {
                patches[patch..patch + length].copy_from_slice(&image[pixel..pixel + length]);
            });
        });
        let shape = (rows * geometry.width, geometry.patch_len());
        Ok((CpuStorage::F32(patches), shape.into()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(gradient.contiguous()?.apply_op1_no_bwd(&ScatterPatches(self.0))?))
    }
}

/// Adds patches up to `[N, H, W, C]`: a pixel is the sum of its values in all patches.
pub struct ScatterPatches(pub PatchGeometry);

impl CustomOp1 for ScatterPatches {
    fn name(&self) -> &'static str {
        "scatter-patches"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let geometry = self.0;
        let patches = values(storage, layout)?;
        let mut images = vec![0f32; geometry.input[0] * geometry.image_len()];
        images.par_chunks_mut(geometry.image_len()).enumerate().for_each(|(index, image)| {
            for row in 0..geometry.height {
                let start = (index * geometry.height + row) * geometry.patch_row_len();
                let patches = &patches[start..start + geometry.patch_row_len()];
                geometry.for_each_run(row, |patch, pixel, length| {
                    let values = &patches[patch..patch + length];
                    for (sum, value) in image[pixel..pixel + length].iter_mut().zip(values) {
                        *sum += value;
                    }
                });
            }
        });
        Ok((CpuStorage::F32(images), geometry.input.as_slice().into()))
    }
}
