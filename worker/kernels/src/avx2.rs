//! Convolutions in f32 on AVX2 and FMA: 6 pixels × 16 outputs in registers.

use std::arch::x86_64::*;

use crate::convolution::{CACHED_WEIGHT_BYTES, Job, UNCACHED_FACTOR};
use crate::layout::{PLANE, Segment};
use crate::weights::STEM_DEPTH;

/// Pixels that must be neighbours: [`crate::convolution::segment_length`].
const SEGMENT: usize = 6;
/// Bytes of a pixel's 32 channels.
const PIXEL_BYTES: usize = 4 * PLANE;
/// Steps before they are used weights are asked for.
const AHEAD: usize = 16;
/// Segments whose input stays in the first-level cache over all outputs.
const SEGMENTS_AT_ONCE: usize = 8;

/// # Safety
/// As for [`crate::convolution::run`].
#[target_feature(enable = "avx2,fma")]
pub(crate) unsafe fn convolve(job: &Job<'_>) {
    let cached = job.weight_bytes() <= CACHED_WEIGHT_BYTES;
    let at_once = SEGMENTS_AT_ONCE * if cached { 1 } else { UNCACHED_FACTOR };
    for segments in job.segments.chunks(at_once) {
        for panel in job.panels.0..job.panels.1 {
            for half in [0, 16] {
                for &segment in segments {
                    // SAFETY: as the caller promises.
                    unsafe {
                        match job.step_bytes {
                            PIXEL_BYTES => tile::<PLANE, PLANE>(job, segment, panel, half),
                            _ => tile::<6, STEM_DEPTH>(job, segment, panel, half),
                        }
                    }
                }
            }
        }
    }
}

/// A segment times 16 outputs, those from `half` on in their panel. `STEP` f32 from a pixel
/// to the next, `DEPTH` to a step of the weights.
///
/// # Safety
/// As for [`crate::convolution::run`].
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const STEP: usize, const DEPTH: usize>(
    job: &Job<'_>,
    segment: Segment,
    panel: usize,
    half: usize,
) {
    let mut sums = [[_mm256_setzero_ps(); 2]; SEGMENT];
    // SAFETY: the job's pixels, planes and panels. A prefetch may be of any address.
    unsafe {
        let weights = job.panel(panel);
        let mut weights = weights.cast::<f32>().add(half);
        let start = job.source.add(segment.start * STEP * 4);
        for &tap in job.taps {
            let mut source = start.offset(tap).cast::<f32>();
            for _ in 0..job.weights.planes {
                for input in 0..DEPTH {
                    let outputs = [_mm256_load_ps(weights), _mm256_load_ps(weights.add(8))];
                    _mm_prefetch::<_MM_HINT_T0>(weights.wrapping_add(AHEAD * PLANE).cast());
                    weights = weights.add(PLANE);
                    for (pixel, sums) in sums.iter_mut().enumerate() {
                        let value = _mm256_set1_ps(*source.add(pixel * STEP + input));
                        sums[0] = _mm256_fmadd_ps(value, outputs[0], sums[0]);
                        sums[1] = _mm256_fmadd_ps(value, outputs[1], sums[1]);
                    }
                }
                source = source.byte_add(job.source_plane_bytes);
            }
        }
        finish(job, sums, segment, panel, half);
    }
}

/// Bias, residual and ReLU of a tile, and off to the output.
///
/// # Safety
/// As for [`crate::convolution::run`].
#[inline(never)]
#[target_feature(enable = "avx2,fma")]
unsafe fn finish(
    job: &Job<'_>,
    sums: [[__m256; 2]; SEGMENT],
    segment: Segment,
    panel: usize,
    half: usize,
) {
    // SAFETY: the job's pixels and planes.
    unsafe {
        let bias = job.bias.cast::<f32>().add(panel * PLANE + half);
        let floor = _mm256_set1_ps(job.floor());
        let target = job.target.add(panel * job.target_plane_bytes + half * 4);
        let residual = job.residual.wrapping_add(panel * job.residual_plane_bytes + half * 4);
        for (at, sums) in sums.iter().enumerate() {
            let pixel = segment.start + at;
            let place = if at < segment.valid { job.place(pixel) } else { job.sink };
            let target = target.add(place * PIXEL_BYTES).cast::<f32>();
            for (lane, &sum) in [0, 8].into_iter().zip(sums) {
                let mut value = _mm256_add_ps(sum, _mm256_load_ps(bias.add(lane)));
                if !job.residual.is_null() {
                    let residual = residual.add(pixel * PIXEL_BYTES).cast::<f32>();
                    value = _mm256_add_ps(value, _mm256_load_ps(residual.add(lane)));
                }
                // This order of operands keeps what is not a number.
                _mm256_store_ps(target.add(lane), _mm256_max_ps(floor, value));
            }
        }
    }
}
