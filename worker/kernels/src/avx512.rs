//! Convolutions in f32 on AVX-512: two segments of 7 neighbouring pixels × 32 outputs in
//! registers.

use std::arch::x86_64::*;

use crate::call::ConvolutionCall;
use crate::epilogue::{Epilogue, F32Pixel};
use crate::kernel::AVX512_SEGMENT;
use crate::layout::{PLANE, Segment};
use crate::weights::STEM_DEPTH;

/// Bytes of a pixel's 32 channels.
const PIXEL_BYTES: usize = 4 * PLANE;
/// Pairs of segments whose input stays in the first-level cache over all outputs.
const PAIRS_AT_ONCE: usize = 4;

/// # Safety
/// As for [`crate::dispatch::multiply`].
#[target_feature(enable = "avx512f,fma")]
pub(crate) unsafe fn convolve(call: &ConvolutionCall<'_>) {
    call.for_each_segment_pair(PAIRS_AT_ONCE, |pair, panel| {
        // SAFETY: as the caller promises.
        unsafe {
            match call.input.step_bytes {
                PIXEL_BYTES => multiply_pair::<PLANE, PLANE>(call, pair, panel),
                _ => multiply_pair::<6, STEM_DEPTH>(call, pair, panel),
            }
        }
    });
}

/// Multiplies two segments with 32 outputs. `STEP` is the number of f32 from a pixel to the
/// next, `DEPTH` the number of inputs in one step of the weights.
///
/// # Safety
/// As for [`crate::dispatch::multiply`].
#[target_feature(enable = "avx512f,fma")]
unsafe fn multiply_pair<const STEP: usize, const DEPTH: usize>(
    call: &ConvolutionCall<'_>,
    segments: [Segment; 2],
    panel: usize,
) {
    let mut sums = [[[_mm512_setzero_ps(); 2]; AVX512_SEGMENT]; 2];
    // SAFETY: the call's pixels, planes and panels. A prefetch may have any address.
    unsafe {
        let mut weights = call.panel(panel);
        let starts = segments.map(|segment| call.input.planes.pixels.add(segment.start * STEP * 4));
        for &tap in call.input.taps {
            let mut sources = starts.map(|start| start.offset(tap).cast::<f32>());
            for _ in 0..call.weights.planes {
                for input in 0..DEPTH {
                    let row = weights.cast::<f32>();
                    let outputs = [_mm512_load_ps(row), _mm512_load_ps(row.add(16))];
                    _mm_prefetch::<_MM_HINT_T0>(weights.wrapping_add(2048).cast());
                    _mm_prefetch::<_MM_HINT_T0>(weights.wrapping_add(2112).cast());
                    weights = weights.add(PIXEL_BYTES);
                    // One loop for each segment, not a loop over both: the sums stay in registers.
                    let [first, second] = &mut sums;
                    for (pixel, sums) in first.iter_mut().enumerate() {
                        let value = _mm512_set1_ps(*sources[0].add(pixel * STEP + input));
                        sums[0] = _mm512_fmadd_ps(value, outputs[0], sums[0]);
                        sums[1] = _mm512_fmadd_ps(value, outputs[1], sums[1]);
                    }
                    for (pixel, sums) in second.iter_mut().enumerate() {
                        let value = _mm512_set1_ps(*sources[1].add(pixel * STEP + input));
                        sums[0] = _mm512_fmadd_ps(value, outputs[0], sums[0]);
                        sums[1] = _mm512_fmadd_ps(value, outputs[1], sums[1]);
                    }
                }
                sources = sources.map(|source| source.byte_add(call.input.planes.plane_bytes));
            }
        }
        finish_segment(call, sums[0], segments[0], panel);
        finish_segment(call, sums[1], segments[1], panel);
    }
}

/// Finishes a segment. Not inlined: the sums of [`multiply_pair`] must stay in registers.
///
/// # Safety
/// As for [`crate::dispatch::multiply`].
#[inline(never)]
#[target_feature(enable = "avx512f,fma")]
unsafe fn finish_segment(
    call: &ConvolutionCall<'_>,
    sums: [[__m512; 2]; AVX512_SEGMENT],
    segment: Segment,
    panel: usize,
) {
    // SAFETY: as the caller promises.
    unsafe { Epilogue::<F32Pixel, _, _>::new(call, panel, 0).finish_segment(call, &sums, segment) };
}
