//! Convolutions in 8 bits on vectors of 8 (AVX-VNNI) or 4 lanes (NEON), and in plain Rust: a segment of
//! 6 neighbouring pixels × 16 outputs in registers.

use crate::call::{CACHED_WEIGHT_BYTES, ConvolutionCall, UNCACHED_FACTOR};
use crate::kernel::NARROW_SEGMENT;
use crate::layout::{PLANE, Segment};
use crate::requantise::Requantiser;
use crate::weights::{QUAD, QUAD_BYTES, STEM_QUADS};

/// Lanes that are computed at once.
const LANES: usize = 16;
/// Segments whose input stays in the first-level cache over all outputs.
const SEGMENTS_AT_ONCE: usize = 16;

/// Sums of products of four bytes.
pub(crate) trait QuadProducts: Copy {
    /// A quad of inputs, for each lane.
    type Inputs: Copy;
    /// Sums of a vector.
    const LANES: usize;

    /// # Safety
    /// The machine has the type's instructions. All functions here require this.
    unsafe fn zero() -> Self;

    /// The same four inputs for each lane.
    ///
    /// # Safety
    /// Four bytes can be read.
    unsafe fn inputs(from: *const u8) -> Self::Inputs;

    /// Adds for each lane the products of its inputs and weights.
    ///
    /// # Safety
    /// Four bytes of weights for each lane can be read.
    unsafe fn add_products(self, inputs: Self::Inputs, weights: *const i8) -> Self;

    /// # Safety
    /// `LANES` sums can be written.
    unsafe fn store(self, to: *mut i32);
}

/// On AVX-VNNI.
///
/// # Safety
/// As for [`crate::dispatch::multiply`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avxvnni")]
pub(crate) unsafe fn convolve_avx_vnni(call: &ConvolutionCall<'_>) {
    // SAFETY: as the caller promises.
    unsafe { convolve::<std::arch::x86_64::__m256i, 2>(call) }
}

/// On NEON with I8MM.
///
/// # Safety
/// As for [`crate::dispatch::multiply`].
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon,i8mm")]
pub(crate) unsafe fn convolve_i8mm(call: &ConvolutionCall<'_>) {
    // SAFETY: as the caller promises.
    unsafe { convolve::<neon::MixedSigns, 4>(call) }
}

/// On NEON with DotProd.
///
/// # Safety
/// As for [`crate::dispatch::multiply`].
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon,dotprod")]
pub(crate) unsafe fn convolve_dot(call: &ConvolutionCall<'_>) {
    // SAFETY: as the caller promises.
    unsafe { convolve::<neon::SameSigns, 4>(call) }
}

/// In plain Rust.
///
/// # Safety
/// As for [`crate::dispatch::multiply`].
pub(crate) unsafe fn convolve_portable(call: &ConvolutionCall<'_>) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: as the caller promises; the machine has the features.
        return unsafe { convolve_portable_avx2(call) };
    }
    // SAFETY: as the caller promises.
    unsafe { convolve::<[i32; 8], 2>(call) }
}

/// The same, compiled for AVX2.
///
/// # Safety
/// As for [`crate::dispatch::multiply`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn convolve_portable_avx2(call: &ConvolutionCall<'_>) {
    // SAFETY: as the caller promises.
    unsafe { convolve::<[i32; 8], 2>(call) }
}

/// On vectors of which `N` hold [`LANES`] sums.
///
/// # Safety
/// As for [`crate::dispatch::multiply`].
#[inline(always)]
unsafe fn convolve<V: QuadProducts, const N: usize>(call: &ConvolutionCall<'_>) {
    let cached = call.weight_bytes() <= CACHED_WEIGHT_BYTES;
    let at_once = SEGMENTS_AT_ONCE * if cached { 1 } else { UNCACHED_FACTOR };
    for segments in call.segments.chunks(at_once) {
        for panel in call.panels.iter() {
            for &segment in segments {
                // SAFETY: as the caller promises.
                unsafe {
                    match call.input.step_bytes {
                        PLANE => compute::<V, N, PLANE, { PLANE / QUAD }>(call, segment, panel),
                        _ => compute::<V, N, 6, STEM_QUADS>(call, segment, panel),
                    }
                }
            }
        }
    }
}

/// Computes a segment's outputs of a panel. `STEP` is the number of bytes from a pixel to the next,
/// `QUADS` the number of quads of inputs in one step of the weights.
///
/// # Safety
/// As for [`crate::dispatch::multiply`].
#[inline(always)]
unsafe fn compute<V: QuadProducts, const N: usize, const STEP: usize, const QUADS: usize>(
    call: &ConvolutionCall<'_>,
    segment: Segment,
    panel: usize,
) {
    let mut sums = [[0; PLANE]; NARROW_SEGMENT];
    for first_lane in (0..PLANE).step_by(LANES) {
        // SAFETY: as the caller promises.
        let of_lanes = unsafe { multiply::<V, N, STEP, QUADS>(call, segment, panel, first_lane) };
        for (sums, of_lanes) in sums.iter_mut().zip(of_lanes) {
            for (at, of_lanes) in of_lanes.into_iter().enumerate() {
                let lanes = &mut sums[first_lane + at * V::LANES..][..V::LANES];
                // SAFETY: there is room for a vector.
                unsafe { of_lanes.store(lanes.as_mut_ptr()) };
            }
        }
    }
    // SAFETY: as the caller promises.
    unsafe { Requantiser::new(call, panel).finish_segment(call, &sums, segment) };
}

/// Multiplies a segment with 16 lanes of a panel, from `first_lane` on.
///
/// # Safety
/// As for [`crate::dispatch::multiply`].
#[inline(always)]
unsafe fn multiply<V: QuadProducts, const N: usize, const STEP: usize, const QUADS: usize>(
    call: &ConvolutionCall<'_>,
    segment: Segment,
    panel: usize,
    first_lane: usize,
) -> [[V; N]; NARROW_SEGMENT] {
    const { assert!(N * V::LANES == LANES) };
    // SAFETY: the call's pixels, planes and panels.
    unsafe {
        let mut sums = [[V::zero(); N]; NARROW_SEGMENT];
        let mut weights = call.panel(panel).cast::<i8>().add(first_lane * QUAD);
        let start = call.input.planes.pixels.add(segment.start * STEP);
        for &tap in call.input.taps {
            let mut source = start.offset(tap);
            for _ in 0..call.weights.planes {
                for quad in 0..QUADS {
                    for (pixel, sums) in sums.iter_mut().enumerate() {
                        let inputs = V::inputs(source.add(pixel * STEP + quad * QUAD));
                        for (at, sum) in sums.iter_mut().enumerate() {
                            *sum = sum.add_products(inputs, weights.add(at * V::LANES * QUAD));
                        }
                    }
                    weights = weights.add(QUAD_BYTES);
                }
                source = source.add(call.input.planes.plane_bytes);
            }
        }
        sums
    }
}

impl QuadProducts for [i32; 8] {
    type Inputs = [i16; QUAD];
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn zero() -> Self {
        [0; 8]
    }

    #[inline(always)]
    unsafe fn inputs(from: *const u8) -> [i16; QUAD] {
        // SAFETY: as the caller promises, here and below.
        unsafe { (*from.cast::<[u8; QUAD]>()).map(i16::from) }
    }

    #[inline(always)]
    unsafe fn add_products(mut self, inputs: [i16; QUAD], weights: *const i8) -> Self {
        // SAFETY: see above.
        let weights = unsafe { &*weights.cast::<[[i8; QUAD]; 8]>() };
        for (sum, weights) in self.iter_mut().zip(weights) {
            for (input, &weight) in inputs.into_iter().zip(weights) {
                *sum += i32::from(input) * i32::from(weight);
            }
        }
        self
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut i32) {
        // SAFETY: see above.
        unsafe { to.cast::<Self>().write(self) };
    }
}

#[cfg(target_arch = "x86_64")]
mod avx_vnni {
    use std::arch::x86_64::*;

    impl super::QuadProducts for __m256i {
        type Inputs = Self;
        const LANES: usize = 8;

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: as the caller promises, here and in all functions below.
            unsafe { _mm256_setzero_si256() }
        }

        #[inline(always)]
        unsafe fn inputs(from: *const u8) -> Self {
            // SAFETY: see above.
            unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
        }

        #[inline(always)]
        unsafe fn add_products(self, inputs: Self, weights: *const i8) -> Self {
            // SAFETY: see above.
            unsafe { _mm256_dpbusd_avx_epi32(self, inputs, _mm256_loadu_si256(weights.cast())) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut i32) {
            // SAFETY: see above.
            unsafe { _mm256_storeu_si256(to.cast(), self) };
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    //! Rust's intrinsics for these products are unstable, so each is one instruction of assembly.

    use std::arch::aarch64::*;
    use std::arch::asm;

    /// Sums of products of unsigned and signed bytes.
    #[derive(Clone, Copy)]
    pub(super) struct MixedSigns(int32x4_t);

    impl super::QuadProducts for MixedSigns {
        type Inputs = uint8x16_t;
        const LANES: usize = 4;

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: as the caller promises, here and in all functions below.
            Self(unsafe { vdupq_n_s32(0) })
        }

        #[inline(always)]
        unsafe fn inputs(from: *const u8) -> uint8x16_t {
            // SAFETY: see above.
            unsafe { vreinterpretq_u8_u32(vdupq_n_u32(from.cast::<u32>().read_unaligned())) }
        }

        #[inline(always)]
        unsafe fn add_products(mut self, inputs: uint8x16_t, weights: *const i8) -> Self {
            // SAFETY: see above; the instruction changes only the sums.
            unsafe {
                asm!("usdot {sums:v}.4s, {inputs:v}.16b, {weights:v}.16b",
                    sums = inout(vreg) self.0, inputs = in(vreg) inputs,
                    weights = in(vreg) vld1q_s8(weights),
                    options(pure, nomem, nostack, preserves_flags));
            }
            self
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut i32) {
            // SAFETY: see above.
            unsafe { vst1q_s32(to, self.0) };
        }
    }

    /// Sums of products of signed bytes: inputs are less 128, and 128 times the weights is added.
    #[derive(Clone, Copy)]
    pub(super) struct SameSigns(int32x4_t);

    impl super::QuadProducts for SameSigns {
        type Inputs = int8x16_t;
        const LANES: usize = 4;

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: as the caller promises, here and in all functions below.
            Self(unsafe { vdupq_n_s32(0) })
        }

        #[inline(always)]
        unsafe fn inputs(from: *const u8) -> int8x16_t {
            // SAFETY: see above.
            unsafe {
                let bytes = vdupq_n_u32(from.cast::<u32>().read_unaligned() ^ 0x8080_8080);
                vreinterpretq_s8_u32(bytes)
            }
        }

        #[inline(always)]
        unsafe fn add_products(mut self, inputs: int8x16_t, weights: *const i8) -> Self {
            // 128 is 2 × 64, which fits in a signed byte.
            // SAFETY: see above; the instructions change only the sums.
            unsafe {
                let weights = vld1q_s8(weights);
                asm!("sdot {sums:v}.4s, {inputs:v}.16b, {weights:v}.16b",
                    "sdot {sums:v}.4s, {half:v}.16b, {weights:v}.16b",
                    "sdot {sums:v}.4s, {half:v}.16b, {weights:v}.16b",
                    sums = inout(vreg) self.0, inputs = in(vreg) inputs,
                    weights = in(vreg) weights, half = in(vreg) vdupq_n_s8(64),
                    options(pure, nomem, nostack, preserves_flags));
            }
            self
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut i32) {
            // SAFETY: see above.
            unsafe { vst1q_s32(to, self.0) };
        }
    }
}
