//! Convolutions in f32 on vectors of 8 (AVX2 and FMA) or 4 (NEON): a segment of 6 neighbouring
//! pixels × 16 outputs in registers.

use crate::call::{CACHED_WEIGHT_BYTES, ConvolutionCall, UNCACHED_FACTOR};
use crate::epilogue::{Epilogue, F32Pixel};
use crate::kernel::NARROW_SEGMENT;
use crate::layout::{PLANE, Segment};
use crate::vector::MultiplyAdd;
use crate::weights::STEM_DEPTH;

/// Outputs that are computed at once.
const OUTPUTS: usize = 16;
/// Bytes of a pixel's 32 channels.
const PIXEL_BYTES: usize = 4 * PLANE;
/// How many inputs ahead weights are prefetched.
const AHEAD: usize = 16;
/// Segments whose input stays in the first-level cache over all outputs.
const SEGMENTS_AT_ONCE: usize = 8;

/// On AVX2.
///
/// # Safety
/// As for [`crate::dispatch::multiply`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
pub(crate) unsafe fn convolve_avx2(call: &ConvolutionCall<'_>) {
    // SAFETY: as the caller promises.
    unsafe { convolve::<std::arch::x86_64::__m256, 2>(call) }
}

/// On NEON.
///
/// # Safety
/// As for [`crate::dispatch::multiply`].
#[cfg(target_arch = "aarch64")]
pub(crate) unsafe fn convolve_neon(call: &ConvolutionCall<'_>) {
    // SAFETY: as the caller promises.
    unsafe { convolve::<std::arch::aarch64::float32x4_t, 4>(call) }
}

/// On vectors of which `N` hold [`OUTPUTS`] values.
///
/// # Safety
/// As for [`crate::dispatch::multiply`].
#[inline(always)]
unsafe fn convolve<V: MultiplyAdd, const N: usize>(call: &ConvolutionCall<'_>) {
    let cached = call.weight_bytes() <= CACHED_WEIGHT_BYTES;
    let at_once = SEGMENTS_AT_ONCE * if cached { 1 } else { UNCACHED_FACTOR };
    for segments in call.segments.chunks(at_once) {
        for panel in call.panels.iter() {
            for first_output in (0..PLANE).step_by(OUTPUTS) {
                for &segment in segments {
                    let tile = Tile { segment, panel, first_output };
                    // SAFETY: as the caller promises.
                    unsafe {
                        match call.input.step_bytes {
                            PIXEL_BYTES => multiply_tile::<V, N, PLANE, PLANE>(call, tile),
                            _ => multiply_tile::<V, N, 6, STEM_DEPTH>(call, tile),
                        }
                    }
                }
            }
        }
    }
}

/// A segment and 16 outputs of a panel.
#[derive(Clone, Copy)]
struct Tile {
    segment: Segment,
    panel: usize,
    /// Counted in the panel.
    first_output: usize,
}

/// Multiplies a tile. `STEP` is the number of f32 from a pixel to the next, `DEPTH` the number
/// of inputs in one step of the weights.
///
/// # Safety
/// As for [`crate::dispatch::multiply`].
#[inline(always)]
unsafe fn multiply_tile<V: MultiplyAdd, const N: usize, const STEP: usize, const DEPTH: usize>(
    call: &ConvolutionCall<'_>,
    Tile { segment, panel, first_output }: Tile,
) {
    const { assert!(N * V::LANES == OUTPUTS) };
    // SAFETY: the call's pixels, planes and panels. A prefetch may have any address.
    unsafe {
        let mut sums = [[V::splat(0.0); N]; NARROW_SEGMENT];
        let mut weights = call.panel(panel).cast::<f32>().add(first_output);
        let start = call.input.planes.pixels.add(segment.start * STEP * 4);
        for &tap in call.input.taps {
            let mut source = start.offset(tap).cast::<f32>();
            for _ in 0..call.weights.planes {
                for input in 0..DEPTH {
                    let mut outputs = [V::splat(0.0); N];
                    for (at, outputs) in outputs.iter_mut().enumerate() {
                        *outputs = V::load(weights.add(at * V::LANES));
                    }
                    V::prefetch(weights.wrapping_add(AHEAD * PLANE));
                    weights = weights.add(PLANE);
                    for (pixel, sums) in sums.iter_mut().enumerate() {
                        let value = V::splat(*source.add(pixel * STEP + input));
                        for (sum, outputs) in sums.iter_mut().zip(outputs) {
                            *sum = sum.add_product(value, outputs);
                        }
                    }
                }
                source = source.byte_add(call.input.planes.plane_bytes);
            }
        }
        let epilogue = Epilogue::<F32Pixel, V, N>::new(call, panel, first_output);
        epilogue.finish_segment(call, &sums, segment);
    }
}
