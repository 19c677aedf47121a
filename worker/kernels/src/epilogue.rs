//! What follows the sums of a convolution, the same for all kernels: bias, residual, ReLU,
//! conversion to the activation's format, and the store. Does not compute sums.
//!
//! All functions are inlined into kernels, which have the target features.

use std::marker::PhantomData;

use crate::call::ConvolutionCall;
use crate::layout::{PLANE, Segment};
use crate::vector::F32Vector;

/// How neighbouring channels of a pixel lie in memory, of which `N` vectors hold some or all.
pub(crate) trait PixelFormat<V: F32Vector, const N: usize> {
    /// Bytes of a pixel's 32 channels.
    const PIXEL_BYTES: usize;

    /// # Safety
    /// The machine has the vector's instructions. The channels can be read, aligned as the
    /// vector is.
    unsafe fn add_pixel(values: [V; N], channels: *const u8) -> [V; N];

    /// # Safety
    /// As for [`PixelFormat::add_pixel`], but they can be written.
    unsafe fn write_pixel(values: [V; N], channels: *mut u8);
}

/// Each channel in f32.
pub(crate) struct F32Pixel;

impl<V: F32Vector, const N: usize> PixelFormat<V, N> for F32Pixel {
    const PIXEL_BYTES: usize = 4 * PLANE;

    #[inline(always)]
    unsafe fn add_pixel(mut values: [V; N], channels: *const u8) -> [V; N] {
        for (at, value) in values.iter_mut().enumerate() {
            // SAFETY: as the caller promises.
            *value = unsafe { value.add(V::load(channels.cast::<f32>().add(at * V::LANES))) };
        }
        values
    }

    #[inline(always)]
    unsafe fn write_pixel(values: [V; N], channels: *mut u8) {
        for (at, value) in values.into_iter().enumerate() {
            // SAFETY: as the caller promises.
            unsafe { value.store(channels.cast::<f32>().add(at * V::LANES)) };
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use bf16_pixels::{Bf16PairPixel, Bf16Pixel};

#[cfg(target_arch = "x86_64")]
mod bf16_pixels {
    use std::arch::x86_64::*;

    use super::PixelFormat;
    use crate::bf16::vectors::{from_f32, to_f32};
    use crate::layout::PLANE;

    /// Each channel in bf16. The machine has AVX-512 BF16.
    pub(crate) struct Bf16Pixel;

    impl PixelFormat<__m512, 2> for Bf16Pixel {
        const PIXEL_BYTES: usize = 2 * PLANE;

        #[inline(always)]
        unsafe fn add_pixel(values: [__m512; 2], channels: *const u8) -> [__m512; 2] {
            // SAFETY: as the caller promises.
            unsafe {
                let more = to_f32(_mm512_load_si512(channels.cast()));
                [_mm512_add_ps(values[0], more[0]), _mm512_add_ps(values[1], more[1])]
            }
        }

        #[inline(always)]
        unsafe fn write_pixel(values: [__m512; 2], channels: *mut u8) {
            // SAFETY: as the caller promises.
            unsafe { _mm512_store_si512(channels.cast(), from_f32(values)) };
        }
    }

    /// Each channel as the sum of two bf16: first all high halves, then all low halves. The
    /// machine has AVX-512 BF16.
    pub(crate) struct Bf16PairPixel;

    impl PixelFormat<__m512, 2> for Bf16PairPixel {
        const PIXEL_BYTES: usize = 4 * PLANE;

        #[inline(always)]
        unsafe fn add_pixel(values: [__m512; 2], channels: *const u8) -> [__m512; 2] {
            // SAFETY: as the caller promises, for both halves.
            unsafe {
                let values = Bf16Pixel::add_pixel(values, channels);
                Bf16Pixel::add_pixel(values, channels.add(Bf16Pixel::PIXEL_BYTES))
            }
        }

        #[inline(always)]
        unsafe fn write_pixel(values: [__m512; 2], channels: *mut u8) {
            // SAFETY: as the caller promises, for both halves.
            unsafe {
                let high = from_f32(values);
                _mm512_store_si512(channels.cast(), high);
                let rounded = to_f32(high);
                let low =
                    [_mm512_sub_ps(values[0], rounded[0]), _mm512_sub_ps(values[1], rounded[1])];
                Bf16Pixel::write_pixel(low, channels.add(Bf16Pixel::PIXEL_BYTES));
            }
        }
    }
}

/// Finishes the sums of neighbouring outputs, pixel by pixel.
pub(crate) struct Epilogue<F, V, const N: usize> {
    bias: [V; N],
    floor: V,
    /// The outputs' channels of pixel 0.
    output: *mut u8,
    /// The same channels of the residual's pixel 0.
    residual: Option<*const u8>,
    format: PhantomData<F>,
}

impl<F: PixelFormat<V, N>, V: F32Vector, const N: usize> Epilogue<F, V, N> {
    /// For outputs from `first_output` of a panel on. A kernel that takes less than a panel at
    /// once keeps f32.
    ///
    /// # Safety
    /// The machine has the vector's instructions, and the call's pointers are valid for the
    /// panel.
    #[inline(always)]
    pub(crate) unsafe fn new(
        call: &ConvolutionCall<'_>,
        panel: usize,
        first_output: usize,
    ) -> Self {
        // SAFETY: as the caller promises.
        unsafe {
            let mut bias = [V::splat(0.0); N];
            for (at, bias) in bias.iter_mut().enumerate() {
                *bias = V::load(call.bias.add(panel * PLANE + first_output + at * V::LANES));
            }
            let offset = |plane_bytes: usize| panel * plane_bytes + first_output * 4;
            Self {
                bias,
                floor: V::splat(call.floor()),
                output: call.output.pixels.add(offset(call.output.plane_bytes)),
                residual: call.residual.map(|residual| {
                    residual.planes.pixels.wrapping_add(offset(residual.planes.plane_bytes))
                }),
                format: PhantomData,
            }
        }
    }

    /// Finishes the sums of one pixel and writes them to `output_pixel`.
    ///
    /// # Safety
    /// As for [`Epilogue::new`], and both pixels exist.
    #[inline(always)]
    pub(crate) unsafe fn finish(&self, sums: [V; N], pixel: usize, output_pixel: usize) {
        // SAFETY: as the caller promises.
        unsafe {
            let mut values = sums;
            for (value, bias) in values.iter_mut().zip(self.bias) {
                *value = value.add(bias);
            }
            if let Some(residual) = self.residual {
                values = F::add_pixel(values, residual.wrapping_add(pixel * F::PIXEL_BYTES));
            }
            for value in &mut values {
                *value = value.at_least(self.floor);
            }
            F::write_pixel(values, self.output.add(output_pixel * F::PIXEL_BYTES));
        }
    }

    /// Finishes the sums of a segment.
    ///
    /// # Safety
    /// As for [`Epilogue::new`], and the segment's pixels exist.
    #[inline(always)]
    pub(crate) unsafe fn finish_segment<const PIXELS: usize>(
        &self,
        call: &ConvolutionCall<'_>,
        sums: &[[V; N]; PIXELS],
        segment: Segment,
    ) {
        for (at, sums) in sums.iter().enumerate() {
            let output_pixel = call.segment_output_pixel(segment, at);
            // SAFETY: as the caller promises.
            unsafe { self.finish(*sums, segment.start + at, output_pixel) };
        }
    }
}
