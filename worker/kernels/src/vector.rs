//! Vectors of f32, as narrow as CPUs without AVX-512 have them.

/// Some f32 in a register.
pub(crate) trait Vector: Copy {
    /// How many.
    const LANES: usize;

    /// # Safety
    /// The machine has the instructions; for the others too.
    unsafe fn splat(value: f32) -> Self;

    /// # Safety
    /// So many f32 can be read, aligned to their size.
    unsafe fn load(from: *const f32) -> Self;

    /// # Safety
    /// So many f32 can be written, aligned to their size.
    unsafe fn store(self, to: *mut f32);

    /// # Safety
    /// As for [`Vector::splat`].
    unsafe fn add(self, other: Self) -> Self;

    /// `a * b + self`, rounded once.
    ///
    /// # Safety
    /// As for [`Vector::splat`].
    unsafe fn add_product(self, a: Self, b: Self) -> Self;

    /// Lanes below `floor` become `floor`; what is not a number stays so.
    ///
    /// # Safety
    /// As for [`Vector::splat`].
    unsafe fn at_least(self, floor: Self) -> Self;

    /// Asks for a cache line. Any address will do.
    ///
    /// # Safety
    /// As for [`Vector::splat`].
    unsafe fn prefetch(from: *const f32);
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    impl super::Vector for __m256 {
        const LANES: usize = 8;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: as the caller promises, here and below.
            unsafe { _mm256_set1_ps(value) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: see above.
            unsafe { _mm256_load_ps(from) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: see above.
            unsafe { _mm256_store_ps(to, self) }
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe { _mm256_add_ps(self, other) }
        }

        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: see above.
            unsafe { _mm256_fmadd_ps(a, b, self) }
        }

        #[inline(always)]
        unsafe fn at_least(self, floor: Self) -> Self {
            // This order of operands keeps what is not a number.
            // SAFETY: see above.
            unsafe { _mm256_max_ps(floor, self) }
        }

        #[inline(always)]
        unsafe fn prefetch(from: *const f32) {
            // SAFETY: see above.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64::*;

    // Every 64-bit Arm CPU has these instructions.
    impl super::Vector for float32x4_t {
        const LANES: usize = 4;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: as the caller promises, here and below.
            unsafe { vdupq_n_f32(value) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: see above.
            unsafe { vld1q_f32(from) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: see above.
            unsafe { vst1q_f32(to, self) }
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe { vaddq_f32(self, other) }
        }

        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: see above.
            unsafe { vfmaq_f32(self, a, b) }
        }

        #[inline(always)]
        unsafe fn at_least(self, floor: Self) -> Self {
            // `fmax` gives what is not a number if either operand is none.
            // SAFETY: see above.
            unsafe { vmaxq_f32(self, floor) }
        }

        #[inline(always)]
        unsafe fn prefetch(_from: *const f32) {
            // Rust has no stable prefetch for Arm; its CPUs see this stream by themselves.
        }
    }
}
