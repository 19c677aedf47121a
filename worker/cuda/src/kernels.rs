//! The crate's own kernels on a device: what cuDNN's convolutions do not do.
//!
//! Owns which kernel is launched with which arguments and how many blocks. Their arithmetic is in
//! `kernels.cu`, which is compiled when this crate is built. Knows no network and no memory:
//! callers promise that pointers are of memory that is large enough. Upstream: `device`.
//! Downstream: passes, forward and backward.
//!
//! Activations are `[N, H, W, C]` in the format that a method is given; `P` stands for H × W. A
//! method enqueues its work and returns. It is fastest if rows of channels are multiples of 16
//! bytes and start at one; other rows give the same results.

mod launch;
mod maps;
mod rows;

use std::sync::Arc;

use cudarc::driver::sys::CUresult;
use cudarc::driver::{CudaContext, CudaModule, CudaStream, DriverError};
use cudarc::nvrtc::Ptx;

use crate::error::CudaError;
use crate::memory::DevicePointer;
use crate::number_format::NumberFormat;

use launch::Argument::{Flag, Number, Pointer, Size};
use launch::{Kernel, blocks_for, groups_of};
pub(crate) use maps::{MapRule, WeightRule};

/// Machine code of all kernels for several kinds of GPU: see the build script.
const IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kernels.fatbin"));

// The numbers below are those of the constants of the same purpose in the sources of the kernels.

/// Pixels of the network's input that one block writes.
const INPUT_PIXELS: usize = 4 * launch::THREADS;
/// Images and classes of one block of `head_logits`.
const LOGIT_IMAGES: usize = 4;
const LOGIT_CLASSES: usize = 8;
/// Positions of one block of `head_maps`.
const HEAD_POSITIONS: usize = 64;
/// Side of a tile of a transposed matrix.
const TILE: usize = 32;
/// Channels of [`InputLayout::SpaceToDepth`]: 2×2 pixels of 3 channels, and 4 zeros.
pub(crate) const FOLDED_CHANNELS: usize = 16;
/// Its pixels of zeros before and after the image, in both directions.
pub(crate) const FOLDED_BORDER: [usize; 2] = [2, 1];

/// How a network's input lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum InputLayout {
    /// `[N, H, W, 4]` or `[N, H, W, 8]`: zeros after the third channel.
    Padded(usize),
    /// `[N, H/2 + 3, W/2 + 3, 16]`, with a border of zeros, [`FOLDED_BORDER`]. Within it channel
    /// `(dy * 2 + dx) * 3 + c` is channel c of the pixel at `(2y + dy, 2x + dx)`; zeros from
    /// channel 12 on. H and W are even.
    SpaceToDepth,
}

impl InputLayout {
    /// Channels, and pixels of an image.
    fn sizes(self, height: usize, width: usize) -> Result<(usize, usize), CudaError> {
        match self {
            Self::Padded(channels @ (4 | 8)) => Ok((channels, height * width)),
            Self::SpaceToDepth if height.is_multiple_of(2) && width.is_multiple_of(2) => {
                let [before, after] = FOLDED_BORDER;
                let side = |side: usize| before + side / 2 + after;
                Ok((FOLDED_CHANNELS, side(height) * side(width)))
            }
            _ => Err(CudaError::Unsupported {
                what: format!("an input of {height} x {width} in the layout {self:?}"),
            }),
        }
    }
}

/// What a head reads and writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadArguments {
    /// f32 `[K, C]`; if `flatten`, `[K, C * P]` in the order of `[C, H, W]`.
    pub(crate) weight: DevicePointer,
    /// f32 `[K]`.
    pub(crate) bias: DevicePointer,
    /// f32 `[K, C]`: the weights of the channels in each class's map.
    pub(crate) cam_weight: DevicePointer,
    /// i32 `[N]`: the second map's class, or -1 for none.
    pub(crate) labels: DevicePointer,
    /// To write: f32 `[N, C]`, the means over positions.
    pub(crate) pooled: DevicePointer,
    /// To write: f32 `[N, K]`.
    pub(crate) logits: DevicePointer,
    /// To write: f32 `[N, 2, P]`, rectified maps of the top class and of the label; zeros if the
    /// label is no class.
    pub(crate) maps: DevicePointer,
    /// To write: i32 `[N]`, the first of the classes with the largest logit. A NaN is never the
    /// largest.
    pub(crate) tops: DevicePointer,
    /// True if the linear layer takes the features of all positions, not their means.
    pub(crate) flatten: bool,
    /// `N`.
    pub(crate) images: usize,
    /// `P`.
    pub(crate) positions: usize,
    /// `C`.
    pub(crate) channels: usize,
    /// `K`.
    pub(crate) classes: usize,
}

/// Declares a struct with one kernel for each name, and loads them for one format.
macro_rules! kernels {
    ($($name:ident),* $(,)?) => {
        /// The kernels for one number format.
        #[derive(Debug)]
        struct KernelsOfFormat {
            $($name: Kernel,)*
        }

        impl KernelsOfFormat {
            fn load(module: &Arc<CudaModule>, suffix: &str) -> Result<Self, DriverError> {
                Ok(Self { $($name: Kernel::load(module, stringify!($name), suffix)?,)* })
            }
        }

        /// Their names.
        #[cfg(test)]
        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

kernels! {
    ablate, add, add_bias_relu, affine, channel_weights, export_planes, gather_rows, gradient_maps,
    head_gradient, head_logits, head_maps, head_pool, import_planes, max_pool, max_pool_gradient,
    normalise_pixels, relu_mask, scale_in, weighted_maps,
}

/// All kernels, loaded into a context.
#[derive(Debug)]
pub(crate) struct Kernels {
    f32: KernelsOfFormat,
    bf16: KernelsOfFormat,
    f16: KernelsOfFormat,
}

impl Kernels {
    /// Loads the kernels for the context's device.
    ///
    /// # Errors
    /// [`CudaError::NoKernels`] if this program has none that the device can run, or if the device
    /// fails.
    pub(crate) fn load(context: &Arc<CudaContext>) -> Result<Self, CudaError> {
        let failed = |error: DriverError| match error.0 {
            CUresult::CUDA_ERROR_INVALID_IMAGE
            | CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU
            | CUresult::CUDA_ERROR_INVALID_PTX
            | CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION
            | CUresult::CUDA_ERROR_JIT_COMPILER_NOT_FOUND
            | CUresult::CUDA_ERROR_JIT_COMPILATION_DISABLED
            | CUresult::CUDA_ERROR_INVALID_SOURCE => no_kernels(context, Some(error.0)),
            _ => CudaError::of_driver(error, "loading the kernels"),
        };
        if IMAGE.is_empty() {
            return Err(no_kernels(context, None));
        }
        let module = context.load_module(Ptx::from_binary(IMAGE.to_vec())).map_err(failed)?;
        let of =
            |format: NumberFormat| KernelsOfFormat::load(&module, format.suffix()).map_err(failed);
        Ok(Self {
            f32: of(NumberFormat::F32)?,
            bf16: of(NumberFormat::Bf16)?,
            f16: of(NumberFormat::F16)?,
        })
    }

    fn of(&self, format: NumberFormat) -> &KernelsOfFormat {
        match format {
            NumberFormat::F32 | NumberFormat::Tf32 => &self.f32,
            NumberFormat::Bf16 => &self.bf16,
            NumberFormat::F16 => &self.f16,
        }
    }
}

/// The error for a device that this program has no kernels for. `refused` is the driver's word: one
/// that is older than the compiler refuses all kernels.
fn no_kernels(context: &CudaContext, refused: Option<CUresult>) -> CudaError {
    let mut device = context.name().unwrap_or_else(|_| "this GPU".to_owned());
    if let Some(result) = refused {
        device.push_str(&format!(" (the driver says {result:?})"));
    }
    CudaError::NoKernels { device }
}

/// The side of a max-pooling's output.
fn pooled_side(side: usize) -> usize {
    side.div_ceil(2)
}

/// The network's input, pooling and head.
#[expect(clippy::too_many_arguments, reason = "a kernel takes pointers and sizes")]
impl Kernels {
    /// Writes the network's input of `images` images `[N, H, W, 3]` of bytes: `table`, f32
    /// `[3, 256]`, has the value of each byte for each input channel; `sources`, i32 `[3]`, the
    /// image's channel of each input channel.
    ///
    /// # Errors
    /// If there is no such layout, or the device fails.
    pub(crate) fn normalise_pixels(
        &self,
        stream: &Arc<CudaStream>,
        format: NumberFormat,
        pixels: DevicePointer,
        table: DevicePointer,
        sources: DevicePointer,
        output: DevicePointer,
        layout: InputLayout,
        images: usize,
        height: usize,
        width: usize,
    ) -> Result<(), CudaError> {
        let (channels, area) = layout.sizes(height, width)?;
        let arguments = [
            Pointer(pixels),
            Pointer(table),
            Pointer(sources),
            Pointer(output),
            Size(channels),
            Size(height),
            Size(width),
        ];
        let blocks = images * area.div_ceil(INPUT_PIXELS);
        self.of(format).normalise_pixels.launch(stream, blocks, &arguments)
    }

    /// Writes the network's input of values that are scaled already, f32 `[N, 3, H, W]`.
    ///
    /// # Errors
    /// If there is no such layout, or the device fails.
    pub(crate) fn scale_in(
        &self,
        stream: &Arc<CudaStream>,
        format: NumberFormat,
        values: DevicePointer,
        output: DevicePointer,
        layout: InputLayout,
        images: usize,
        height: usize,
        width: usize,
    ) -> Result<(), CudaError> {
        let (channels, area) = layout.sizes(height, width)?;
        let arguments =
            [Pointer(values), Pointer(output), Size(channels), Size(height), Size(width)];
        let blocks = images * area.div_ceil(INPUT_PIXELS);
        self.of(format).scale_in.launch(stream, blocks, &arguments)
    }

    /// The largest value of each 3×3 window with stride 2 and padding 1. NaN stays NaN.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn max_pool(
        &self,
        stream: &Arc<CudaStream>,
        format: NumberFormat,
        input: DevicePointer,
        output: DevicePointer,
        images: usize,
        height: usize,
        width: usize,
        channels: usize,
    ) -> Result<(), CudaError> {
        let arguments =
            [Pointer(input), Pointer(output), Size(height), Size(width), Size(channels)];
        let items = pooled_side(height) * pooled_side(width) * groups_of(format, channels);
        self.of(format).max_pool.launch(stream, images * blocks_for(items), &arguments)
    }

    /// The gradient of [`Self::max_pool`]'s input, from the input, the output and the output's
    /// gradient. Of equal values the first in a window, row by row, has the gradient.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn max_pool_gradient(
        &self,
        stream: &Arc<CudaStream>,
        format: NumberFormat,
        input: DevicePointer,
        output: DevicePointer,
        d_output: DevicePointer,
        d_input: DevicePointer,
        images: usize,
        height: usize,
        width: usize,
        channels: usize,
    ) -> Result<(), CudaError> {
        let arguments = [
            Pointer(input),
            Pointer(output),
            Pointer(d_output),
            Pointer(d_input),
            Size(height),
            Size(width),
            Size(channels),
        ];
        let blocks = images * blocks_for(height * width * groups_of(format, channels));
        self.of(format).max_pool_gradient.launch(stream, blocks, &arguments)
    }

    /// Means, logits, top classes and maps of features `[N, P, C]`.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn head(
        &self,
        stream: &Arc<CudaStream>,
        format: NumberFormat,
        features: DevicePointer,
        arguments: HeadArguments,
    ) -> Result<(), CudaError> {
        let HeadArguments { images, positions, channels, classes, .. } = arguments;
        let kernels = self.of(format);
        let pooling =
            [Pointer(features), Pointer(arguments.pooled), Size(positions), Size(channels)];
        let blocks = images * blocks_for(groups_of(format, channels));
        kernels.head_pool.launch(stream, blocks, &pooling)?;
        let linear = [
            Pointer(features),
            Pointer(arguments.pooled),
            Pointer(arguments.weight),
            Pointer(arguments.bias),
            Pointer(arguments.logits),
            Flag(arguments.flatten),
            Size(images),
            Size(positions),
            Size(channels),
            Size(classes),
        ];
        let blocks = images.div_ceil(LOGIT_IMAGES) * classes.div_ceil(LOGIT_CLASSES);
        kernels.head_logits.launch(stream, blocks, &linear)?;
        let maps = [
            Pointer(features),
            Pointer(arguments.cam_weight),
            Pointer(arguments.logits),
            Pointer(arguments.labels),
            Pointer(arguments.maps),
            Pointer(arguments.tops),
            Size(positions),
            Size(channels),
            Size(classes),
        ];
        let blocks = images * positions.div_ceil(HEAD_POSITIONS);
        kernels.head_maps.launch(stream, blocks, &maps)
    }

    /// The gradient of one logit with respect to the features, times `scale`, for each of the
    /// `classes`, i32 `[R]`: to `output`, `[R, P, C]`. `weight` and `flatten` are as in
    /// [`HeadArguments`]; with means, each position has the weight / P.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn head_gradient(
        &self,
        stream: &Arc<CudaStream>,
        format: NumberFormat,
        classes: DevicePointer,
        weight: DevicePointer,
        flatten: bool,
        scale: f32,
        output: DevicePointer,
        rows: usize,
        positions: usize,
        channels: usize,
    ) -> Result<(), CudaError> {
        let arguments = [
            Pointer(classes),
            Pointer(weight),
            Pointer(output),
            Flag(flatten),
            Number(scale),
            Size(positions),
            Size(channels),
        ];
        let blocks = rows * blocks_for(positions * groups_of(format, channels));
        self.of(format).head_gradient.launch(stream, blocks, &arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_is_in_the_sources() {
        let sources = [
            include_str!("kernels.cu"),
            include_str!("kernels_head.h"),
            include_str!("kernels_maps.h"),
            include_str!("kernels_rows.h"),
        ];
        let sources = sources.concat();
        for name in NAMES {
            assert!(sources.contains(&format!("\nKERNEL({name},")), "{name}");
        }
        assert_eq!(sources.matches("\nKERNEL(").count(), NAMES.len());
    }

    #[test]
    fn odd_inputs_cannot_be_folded() {
        assert_eq!(InputLayout::SpaceToDepth.sizes(6, 4), Ok((16, 6 * 5)));
        assert_eq!(InputLayout::Padded(8).sizes(5, 3), Ok((8, 15)));
        for (layout, height) in [(InputLayout::SpaceToDepth, 5), (InputLayout::Padded(3), 4)] {
            let error = layout.sizes(height, 4).unwrap_err();
            assert!(matches!(error, CudaError::Unsupported { .. }), "{error}");
        }
    }
}
