//! Convolutions in f32 on AVX-512: 14 pixels × 32 outputs in registers, as two runs of 7
//! neighbours, which fit the rows of ResNet's usual 56, 28, 14 and 7 columns exactly.

use std::arch::x86_64::*;

use crate::convolution::{CACHED_WEIGHT_BYTES, Job, UNCACHED_FACTOR};
use crate::layout::{PLANE, Segment};
use crate::weights::STEM_DEPTH;

/// Pixels that must be neighbours: [`crate::convolution::segment_length`].
pub(crate) const SEGMENT: usize = 7;
/// Bytes of a pixel's 32 channels.
const PIXEL_BYTES: usize = 4 * PLANE;
/// Pairs of segments whose input stays in the first-level cache over all outputs.
const TILES_AT_ONCE: usize = 4;

/// # Safety
/// As for [`crate::convolution::run`].
#[target_feature(enable = "avx512f,fma")]
pub(crate) unsafe fn convolve(job: &Job<'_>) {
    for_each_pair(job, TILES_AT_ONCE, |pair, panel| {
        // SAFETY: as the caller promises.
        unsafe {
            match job.step_bytes {
                PIXEL_BYTES => tile::<PLANE, PLANE>(job, pair, panel),
                _ => tile::<6, STEM_DEPTH>(job, pair, panel),
            }
        }
    });
}

/// Each pair of segments with each panel, in an order that keeps `at_once` pairs' input in the
/// first-level cache; or some more in the second, where weights don't stay there.
#[inline(always)]
pub(crate) fn for_each_pair(
    job: &Job<'_>,
    at_once: usize,
    mut tile: impl FnMut([Segment; 2], usize),
) {
    let cached = job.weight_bytes() <= CACHED_WEIGHT_BYTES;
    let at_once = 2 * at_once * if cached { 1 } else { UNCACHED_FACTOR };
    for segments in job.segments.chunks(at_once) {
        for panel in job.panels.0..job.panels.1 {
            for pair in segments.chunks(2) {
                let first = pair[0];
                // Computed twice where there is no second, but kept once.
                let second = pair.get(1).copied().unwrap_or(Segment { valid: 0, ..first });
                tile([first, second], panel);
            }
        }
    }
}

/// Two segments times 32 outputs. `STEP` f32 from a pixel to the next, `DEPTH` to a step of
/// the weights.
///
/// # Safety
/// As for [`crate::convolution::run`].
#[target_feature(enable = "avx512f,fma")]
unsafe fn tile<const STEP: usize, const DEPTH: usize>(
    job: &Job<'_>,
    segments: [Segment; 2],
    panel: usize,
) {
    let mut sums = [[[_mm512_setzero_ps(); 2]; SEGMENT]; 2];
    // SAFETY: the job's pixels, planes and panels. A prefetch may be of any address.
    unsafe {
        let mut weights = job.panel(panel);
        let starts = segments.map(|segment| job.source.add(segment.start * STEP * 4));
        for &tap in job.taps {
            let mut sources = starts.map(|start| start.offset(tap).cast::<f32>());
            for _ in 0..job.weights.planes {
                for input in 0..DEPTH {
                    let row = weights.cast::<f32>();
                    let outputs = [_mm512_load_ps(row), _mm512_load_ps(row.add(16))];
                    _mm_prefetch::<_MM_HINT_T0>(weights.wrapping_add(2048).cast());
                    _mm_prefetch::<_MM_HINT_T0>(weights.wrapping_add(2112).cast());
                    weights = weights.add(PIXEL_BYTES);
                    // Written out by segment: the sums must stay in registers.
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
                sources = sources.map(|source| source.byte_add(job.source_plane_bytes));
            }
        }
        finish(job, sums[0], segments[0], panel);
        finish(job, sums[1], segments[1], panel);
    }
}

/// Bias, residual and ReLU of a segment, and off to the output.
///
/// # Safety
/// As for [`crate::convolution::run`].
#[inline(never)]
#[target_feature(enable = "avx512f,fma")]
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
                let residual = residual.add(pixel * PIXEL_BYTES).cast::<f32>();
                values[0] = _mm512_add_ps(values[0], _mm512_load_ps(residual));
                values[1] = _mm512_add_ps(values[1], _mm512_load_ps(residual.add(16)));
            }
            let place = if at < segment.valid { job.place(pixel) } else { job.sink };
            let target = target.add(place * PIXEL_BYTES).cast::<f32>();
            // This order of operands keeps what is not a number.
            _mm512_store_ps(target, _mm512_max_ps(floor, values[0]));
            _mm512_store_ps(target.add(16), _mm512_max_ps(floor, values[1]));
        }
    }
}
