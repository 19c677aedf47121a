//! Convolutions in f32 on vectors of 8 (AVX2 and FMA) or 4 (NEON): 6 pixels × 16 outputs in
//! registers.

use crate::convolution::{CACHED_WEIGHT_BYTES, Job, UNCACHED_FACTOR};
use crate::layout::{PLANE, Segment};
use crate::vector::Vector;
use crate::weights::STEM_DEPTH;

/// Pixels that must be neighbours.
pub(crate) const SEGMENT: usize = 6;
/// Outputs of a tile.
const OUTPUTS: usize = 16;
/// Bytes of a pixel's 32 channels.
const PIXEL_BYTES: usize = 4 * PLANE;
/// Steps before they are used weights are asked for.
const AHEAD: usize = 16;
/// Segments whose input stays in the first-level cache over all outputs.
const SEGMENTS_AT_ONCE: usize = 8;

/// On AVX2.
///
/// # Safety
/// As for [`crate::convolution::run`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
pub(crate) unsafe fn convolve_avx2(job: &Job<'_>) {
    // SAFETY: as the caller promises.
    unsafe { convolve::<std::arch::x86_64::__m256, 2>(job) }
}

/// On NEON.
///
/// # Safety
/// As for [`crate::convolution::run`].
#[cfg(target_arch = "aarch64")]
pub(crate) unsafe fn convolve_neon(job: &Job<'_>) {
    // SAFETY: as the caller promises.
    unsafe { convolve::<std::arch::aarch64::float32x4_t, 4>(job) }
}

/// `N` vectors are [`OUTPUTS`].
///
/// # Safety
/// As for [`crate::convolution::run`].
#[inline(always)]
unsafe fn convolve<V: Vector, const N: usize>(job: &Job<'_>) {
    let cached = job.weight_bytes() <= CACHED_WEIGHT_BYTES;
    let at_once = SEGMENTS_AT_ONCE * if cached { 1 } else { UNCACHED_FACTOR };
    for segments in job.segments.chunks(at_once) {
        for panel in job.panels.0..job.panels.1 {
            for half in (0..PLANE).step_by(OUTPUTS) {
                for &segment in segments {
                    // SAFETY: as the caller promises.
                    unsafe {
                        match job.step_bytes {
                            PIXEL_BYTES => tile::<V, N, PLANE, PLANE>(job, segment, panel, half),
                            _ => tile::<V, N, 6, STEM_DEPTH>(job, segment, panel, half),
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
#[inline(always)]
unsafe fn tile<V: Vector, const N: usize, const STEP: usize, const DEPTH: usize>(
    job: &Job<'_>,
    segment: Segment,
    panel: usize,
    half: usize,
) {
    const { assert!(N * V::LANES == OUTPUTS) };
    // SAFETY: the job's pixels, planes and panels. A prefetch may be of any address.
    unsafe {
        let mut sums = [[V::splat(0.0); N]; SEGMENT];
        let mut weights = job.panel(panel).cast::<f32>().add(half);
        let start = job.source.add(segment.start * STEP * 4);
        for &tap in job.taps {
            let mut source = start.offset(tap).cast::<f32>();
            for _ in 0..job.weights.planes {
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
                source = source.byte_add(job.source_plane_bytes);
            }
        }
        for (at, sums) in sums.into_iter().enumerate() {
            let pixel = segment.start + at;
            let place = if at < segment.valid { job.place(pixel) } else { job.sink };
            finish(job, sums, (pixel, place), panel, half);
        }
    }
}

/// Bias, residual and ReLU of a pixel, and off to the output.
///
/// # Safety
/// As for [`crate::convolution::run`].
#[inline(always)]
unsafe fn finish<V: Vector, const N: usize>(
    job: &Job<'_>,
    sums: [V; N],
    (pixel, place): (usize, usize),
    panel: usize,
    half: usize,
) {
    // SAFETY: the job's pixels and planes.
    unsafe {
        let bias = job.bias.cast::<f32>().add(panel * PLANE + half);
        let floor = V::splat(job.floor());
        let target = job.target.add(panel * job.target_plane_bytes + half * 4);
        let target = target.add(place * PIXEL_BYTES).cast::<f32>();
        let residual = job.residual.wrapping_add(panel * job.residual_plane_bytes + half * 4);
        let residual = residual.wrapping_add(pixel * PIXEL_BYTES).cast::<f32>();
        for (at, sum) in sums.into_iter().enumerate() {
            let lane = at * V::LANES;
            let mut value = sum.add(V::load(bias.add(lane)));
            if !job.residual.is_null() {
                value = value.add(V::load(residual.add(lane)));
            }
            value.at_least(floor).store(target.add(lane));
        }
    }
}
