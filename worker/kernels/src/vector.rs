//! Vectors of f32 behind one trait, so that what all kernels do alike is written once.
//!
//! Types are the registers of AVX2, AVX-512 and NEON, and plain arrays that the compiler turns
//! into registers. All functions are inlined into callers that have the target feature.

/// A number of f32 that are computed together.
pub(crate) trait F32Vector: Copy {
    /// Number of f32.
    const LANES: usize;

    /// # Safety
    /// The machine has the type's instructions. All functions here require this.
    unsafe fn splat(value: f32) -> Self;

    /// # Safety
    /// `LANES` f32 can be read, aligned as the type is.
    unsafe fn load(from: *const f32) -> Self;

    /// # Safety
    /// `LANES` f32 can be written, aligned as the type is.
    unsafe fn store(self, to: *mut f32);

    /// # Safety
    /// As for [`F32Vector::splat`].
    unsafe fn add(self, other: Self) -> Self;

    /// Raises lanes below `floor` to `floor`. NaN stays NaN.
    ///
    /// # Safety
    /// As for [`F32Vector::splat`].
    unsafe fn at_least(self, floor: Self) -> Self;
}

/// What the kernel for AVX2 and NEON needs besides.
pub(crate) trait MultiplyAdd: F32Vector {
    /// `a * b + self`, rounded once.
    ///
    /// # Safety
    /// As for [`F32Vector::splat`].
    unsafe fn add_product(self, a: Self, b: Self) -> Self;

    /// Asks for the cache line at any address.
    ///
    /// # Safety
    /// As for [`F32Vector::splat`].
    unsafe fn prefetch(from: *const f32);
}

/// Lanes in an array: the compiler chooses the instructions of the caller's target feature.
impl<const N: usize> F32Vector for [f32; N] {
    const LANES: usize = N;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        [value; N]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as the caller promises.
        unsafe { from.cast::<Self>().read() }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as the caller promises.
        unsafe { to.cast::<Self>().write(self) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        std::array::from_fn(|lane| self[lane] + other[lane])
    }

    #[inline(always)]
    unsafe fn at_least(self, floor: Self) -> Self {
        std::array::from_fn(|lane| if self[lane] < floor[lane] { floor[lane] } else { self[lane] })
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    impl super::F32Vector for __m256 {
        const LANES: usize = 8;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: as the caller promises, here and in all functions below.
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
        unsafe fn at_least(self, floor: Self) -> Self {
            // If an operand is NaN, the instruction returns the second.
            // SAFETY: see above.
            unsafe { _mm256_max_ps(floor, self) }
        }
    }

    impl super::MultiplyAdd for __m256 {
        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: see above.
            unsafe { _mm256_fmadd_ps(a, b, self) }
        }

        #[inline(always)]
        unsafe fn prefetch(from: *const f32) {
            // SAFETY: see above.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    impl super::F32Vector for __m512 {
        const LANES: usize = 16;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: as the caller promises, here and in all functions below.
            unsafe { _mm512_set1_ps(value) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: see above.
            unsafe { _mm512_load_ps(from) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: see above.
            unsafe { _mm512_store_ps(to, self) }
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe { _mm512_add_ps(self, other) }
        }

        #[inline(always)]
        unsafe fn at_least(self, floor: Self) -> Self {
            // If an operand is NaN, the instruction returns the second.
            // SAFETY: see above.
            unsafe { _mm512_max_ps(floor, self) }
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64::*;

    // Every 64-bit Arm CPU has these instructions.
    impl super::F32Vector for float32x4_t {
        const LANES: usize = 4;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: as the caller promises, here and in all functions below.
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
        unsafe fn at_least(self, floor: Self) -> Self {
            // If an operand is NaN, the instruction returns NaN.
            // SAFETY: see above.
            unsafe { vmaxq_f32(self, floor) }
        }
    }

    impl super::MultiplyAdd for float32x4_t {
        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: see above.
            unsafe { vfmaq_f32(self, a, b) }
        }

        #[inline(always)]
        unsafe fn prefetch(_from: *const f32) {
            // Rust has no stable prefetch for Arm, whose CPUs recognise this access pattern.
        }
    }
}
