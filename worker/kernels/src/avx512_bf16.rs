//! Convolutions in bf16 on AVX-512 BF16, with sums in f32: as [`avx512`](crate::avx512), but
//! each step multiplies two inputs. On CPUs with full-width units for it (AMD since Zen 4) it is
//! twice as fast as f32, and on others no faster.

use std::arch::x86_64::*;

use crate::call::ConvolutionCall;
use crate::epilogue::{Bf16Pixel, Epilogue};
use crate::kernel::AVX512_SEGMENT;
use crate::layout::{PLANE, Segment};
use crate::weights::STEM_DEPTH;

/// Bytes of a pixel's 32 channels.
const PIXEL_BYTES: usize = 2 * PLANE;
/// Bytes of the weights of 32 outputs for 32 inputs: for each half of the outputs 16 rows, one
/// for each pair of inputs.
const STEP_BYTES: usize = 2048;
/// Pairs of segments whose input stays in the first-level cache over all outputs.
const PAIRS_AT_ONCE: usize = 8;

/// # Safety
/// As for [`crate::dispatch::multiply`].
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(crate) unsafe fn convolve(call: &ConvolutionCall<'_>) {
    call.for_each_segment_pair(PAIRS_AT_ONCE, |pair, panel| {
        // SAFETY: as the caller promises.
        unsafe {
            match call.input.step_bytes {
                PIXEL_BYTES => multiply_pair::<PIXEL_BYTES, { PLANE / 2 }>(call, pair, panel),
                _ => multiply_pair::<12, { STEM_DEPTH.div_ceil(2) }>(call, pair, panel),
            }
        }
    });
}

/// Multiplies two segments with 32 outputs. `STEP` is the number of bytes from a pixel to the
/// next, `DEPTH` the number of pairs of inputs in one step of the weights.
///
/// # Safety
/// As for [`crate::dispatch::multiply`].
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn multiply_pair<const STEP: usize, const DEPTH: usize>(
    call: &ConvolutionCall<'_>,
    segments: [Segment; 2],
    panel: usize,
) {
    let mut sums = [[[_mm512_setzero_ps(); 2]; AVX512_SEGMENT]; 2];
    // SAFETY: the call's pixels, planes and panels. A prefetch may have any address.
    unsafe {
        let mut weights = call.panel(panel);
        let starts = segments.map(|segment| call.input.planes.pixels.add(segment.start * STEP));
        for &tap in call.input.taps {
            let mut sources = starts.map(|start| start.offset(tap));
            for _ in 0..call.weights.planes {
                for pair in 0..DEPTH {
                    let row = weights.add(64 * pair);
                    let outputs = [load_weights(row), load_weights(row.add(STEP_BYTES / 2))];
                    _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(STEP_BYTES).cast());
                    _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(STEP_BYTES * 3 / 2).cast());
                    // One loop for each segment, not a loop over both: the sums stay in registers.
                    let [first, second] = &mut sums;
                    for (pixel, sums) in first.iter_mut().enumerate() {
                        let values = broadcast_inputs(sources[0].add(pixel * STEP + 4 * pair));
                        sums[0] = _mm512_dpbf16_ps(sums[0], values, outputs[0]);
                        sums[1] = _mm512_dpbf16_ps(sums[1], values, outputs[1]);
                    }
                    for (pixel, sums) in second.iter_mut().enumerate() {
                        let values = broadcast_inputs(sources[1].add(pixel * STEP + 4 * pair));
                        sums[0] = _mm512_dpbf16_ps(sums[0], values, outputs[0]);
                        sums[1] = _mm512_dpbf16_ps(sums[1], values, outputs[1]);
                    }
                }
                weights = weights.add(STEP_BYTES);
                sources = sources.map(|source| source.add(call.input.planes.plane_bytes));
            }
        }
        finish_segment(call, sums[0], segments[0], panel);
        finish_segment(call, sums[1], segments[1], panel);
    }
}

/// The weights of a pair of inputs for each of 16 outputs.
///
/// # Safety
/// 64 bytes can be read, aligned to 64.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn load_weights(row: *const u8) -> __m512bh {
    // SAFETY: as the caller promises; both types have 512 bits, and all bit patterns are valid.
    unsafe { std::mem::transmute(_mm512_load_si512(row.cast())) }
}

/// The same pair of inputs 16 times.
///
/// # Safety
/// Two bf16 can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn broadcast_inputs(pair: *const u8) -> __m512bh {
    // SAFETY: as the caller promises; both types have 512 bits, and all bit patterns are valid.
    unsafe { std::mem::transmute(_mm512_set1_epi32(pair.cast::<i32>().read_unaligned())) }
}

/// Finishes a segment. Not inlined: the sums of [`multiply_pair`] must stay in registers.
///
/// # Safety
/// As for [`crate::dispatch::multiply`].
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn finish_segment(
    call: &ConvolutionCall<'_>,
    sums: [[__m512; 2]; AVX512_SEGMENT],
    segment: Segment,
    panel: usize,
) {
    // SAFETY: as the caller promises.
    unsafe {
        Epilogue::<Bf16Pixel, _, _>::new(call, panel, 0).finish_segment(call, &sums, segment)
    };
}
