//! Convolutions in bf16 on AVX-512 BF16, sums in f32: as [`crate::avx512`], but each step
//! multiplies two inputs. Where the CPU does that at full width (AMD since Zen 4) it is twice
//! as fast as f32; elsewhere no faster.

use std::arch::x86_64::*;

use crate::avx512::{SEGMENT, for_each_pair};
use crate::bf16::{narrow, widen};
use crate::convolution::Job;
use crate::layout::{PLANE, Segment};
use crate::weights::STEM_DEPTH;

/// Bytes of a pixel's 32 channels.
const PIXEL_BYTES: usize = 2 * PLANE;
/// Bytes of the weights of 32 outputs for 32 inputs: for each half of the outputs 16 rows, a
/// row for each pair of inputs.
const STEP_BYTES: usize = 2048;
/// Pairs of segments whose input stays in the first-level cache over all outputs.
const TILES_AT_ONCE: usize = 8;

/// # Safety
/// As for [`crate::convolution::run`].
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(crate) unsafe fn convolve(job: &Job<'_>) {
    for_each_pair(job, TILES_AT_ONCE, |pair, panel| {
        // SAFETY: as the caller promises.
        unsafe {
            match job.step_bytes {
                PIXEL_BYTES => tile::<PIXEL_BYTES, { PLANE / 2 }>(job, pair, panel),
                _ => tile::<12, { STEM_DEPTH.div_ceil(2) }>(job, pair, panel),
            }
        }
    });
}

/// Two segments times 32 outputs. `STEP` bytes from a pixel to the next, `DEPTH` pairs of
/// inputs to a step of the weights.
///
/// # Safety
/// As for [`crate::convolution::run`].
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn tile<const STEP: usize, const DEPTH: usize>(
    job: &Job<'_>,
    segments: [Segment; 2],
    panel: usize,
) {
    let mut sums = [[[_mm512_setzero_ps(); 2]; SEGMENT]; 2];
    // SAFETY: the job's pixels, planes and panels. A prefetch may be of any address.
    unsafe {
        let mut weights = job.panel(panel);
        let starts = segments.map(|segment| job.source.add(segment.start * STEP));
        for &tap in job.taps {
            let mut sources = starts.map(|start| start.offset(tap));
            for _ in 0..job.weights.planes {
                for pair in 0..DEPTH {
                    let row = weights.add(64 * pair);
                    let outputs = [weights_at(row), weights_at(row.add(STEP_BYTES / 2))];
                    _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(STEP_BYTES).cast());
                    _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(STEP_BYTES * 3 / 2).cast());
                    // Written out by segment: the sums must stay in registers.
                    let [first, second] = &mut sums;
                    for (pixel, sums) in first.iter_mut().enumerate() {
                        let values = inputs_at(sources[0].add(pixel * STEP + 4 * pair));
                        sums[0] = _mm512_dpbf16_ps(sums[0], values, outputs[0]);
                        sums[1] = _mm512_dpbf16_ps(sums[1], values, outputs[1]);
                    }
                    for (pixel, sums) in second.iter_mut().enumerate() {
                        let values = inputs_at(sources[1].add(pixel * STEP + 4 * pair));
                        sums[0] = _mm512_dpbf16_ps(sums[0], values, outputs[0]);
                        sums[1] = _mm512_dpbf16_ps(sums[1], values, outputs[1]);
                    }
                }
                weights = weights.add(STEP_BYTES);
                sources = sources.map(|source| source.add(job.source_plane_bytes));
            }
        }
        finish(job, sums[0], segments[0], panel);
        finish(job, sums[1], segments[1], panel);
    }
}

/// A pair of inputs for each of 16 outputs.
///
/// # Safety
/// 64 bytes can be read, aligned so.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn weights_at(row: *const u8) -> __m512bh {
    // SAFETY: as the caller promises; both are 512 bits, any of them.
    unsafe { std::mem::transmute(_mm512_load_si512(row.cast())) }
}

/// The same pair of inputs sixteen times.
///
/// # Safety
/// Two bf16 can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn inputs_at(pair: *const u8) -> __m512bh {
    // SAFETY: as the caller promises; both are 512 bits, any of them.
    unsafe { std::mem::transmute(_mm512_set1_epi32(pair.cast::<i32>().read_unaligned())) }
}

/// Bias, residual and ReLU of a segment, and off to the output.
///
/// # Safety
/// As for [`crate::convolution::run`].
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn finish(job: &Job<'_>, sums: [[__m512; 2]; SEGMENT], segment: Segment, panel: usize) {
    // SAFETY: the job's pixels and planes.
    unsafe {
        let bias = job.bias.cast::<f32>().add(panel * PLANE);
        let bias = [_mm512_load_ps(bias), _mm512_load_ps(bias.add(16))];
        let floor = _mm512_set1_ps(job.floor());
        let target = job.target.add(panel * job.target_plane_bytes);
        let residual = job.residual.wrapping_add(panel * job.residual_plane_bytes);
        for (at, sums) in sums.iter().enumerate() {
            let pixel = segment.start + at;
            let mut values = [_mm512_add_ps(sums[0], bias[0]), _mm512_add_ps(sums[1], bias[1])];
            if !job.residual.is_null() {
                let residual = widen(_mm512_load_si512(residual.add(pixel * PIXEL_BYTES).cast()));
                values[0] = _mm512_add_ps(values[0], residual[0]);
                values[1] = _mm512_add_ps(values[1], residual[1]);
            }
            let place = if at < segment.valid { job.place(pixel) } else { job.sink };
            // This order of operands keeps what is not a number.
            let values = values.map(|value| _mm512_max_ps(floor, value));
            _mm512_store_si512(target.add(place * PIXEL_BYTES).cast(), narrow(values));
        }
    }
}
