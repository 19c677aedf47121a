//! The peak speed of a core: a kernel's multiplication on registers alone, without a load or a
//! store. Benchmarks compare layers with it; the network does not use it.

use std::hint::black_box;
use std::time::Instant;

use crate::dispatch;
use crate::kernel::Kernel;
use crate::vector::MultiplyAdd;

/// The result is the best of this many rounds.
const ROUNDS: usize = 20;
/// How often a round repeats a sequence of multiplications that don't wait for each other.
const REPEATS: usize = 100_000;

impl Kernel {
    /// The most multiplications and additions a second that this thread reaches, in 10⁹. Not a number
    /// for a kernel for which it has not been written.
    ///
    /// # Panics
    /// If the machine does not have the kernel.
    pub fn peak_gflops(self) -> f64 {
        assert!(self.is_available(), "this machine does not have {self}");
        // SAFETY: the kernel is available.
        let _prepared = unsafe { dispatch::prepare_thread(self) };
        let round = || {
            let started = Instant::now();
            // SAFETY: the kernel is available, and this thread is prepared for it.
            let flop = unsafe {
                match self {
                    #[cfg(target_arch = "x86_64")]
                    Self::AmxBf16 => x86::tiles(),
                    // It takes three products for one.
                    #[cfg(target_arch = "x86_64")]
                    Self::AmxBf16x3 => x86::tiles() / 3.0,
                    #[cfg(target_arch = "x86_64")]
                    Self::Avx512Bf16 => x86::pairs_of_16(),
                    #[cfg(target_arch = "x86_64")]
                    Self::Avx512 => x86::lanes_of_16(),
                    #[cfg(target_arch = "x86_64")]
                    Self::Avx2 => x86::lanes_of_8(),
                    #[cfg(target_arch = "x86_64")]
                    Self::Avx512Vnni => x86::quads_of_16(),
                    #[cfg(target_arch = "aarch64")]
                    Self::Neon => multiply_add::<std::arch::aarch64::float32x4_t, 16>(),
                    // Nothing to compare with: their layers are not tuned.
                    _ => return f64::NAN,
                }
            };
            flop / started.elapsed().as_secs_f64() / 1e9
        };
        (0..ROUNDS).map(|_| round()).fold(0.0, f64::max)
    }
}

/// Adds products to `SUMS` sums that don't wait for each other.
///
/// # Safety
/// The machine has the vector's instructions.
#[inline(always)]
unsafe fn multiply_add<V: MultiplyAdd, const SUMS: usize>() -> f64 {
    // SAFETY: as the caller promises.
    unsafe {
        let (a, mut sums) = (V::splat(black_box(0.5)), [V::splat(1.0); SUMS]);
        for _ in 0..REPEATS {
            for sum in &mut sums {
                *sum = sum.add_product(a, a);
            }
        }
        for sum in sums {
            let mut lanes = [0.0f32; 16];
            sum.store(lanes.as_mut_ptr().add(lanes.as_ptr().align_offset(32)));
            black_box(lanes);
        }
        (REPEATS * SUMS * V::LANES * 2) as f64
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::{REPEATS, multiply_add};

    /// Sums that don't wait for each other: enough to keep two units with their latency busy.
    const SUMS: usize = 16;

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn lanes_of_8() -> f64 {
        // SAFETY: this function has the features.
        unsafe { multiply_add::<__m256, 12>() }
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn lanes_of_16() -> f64 {
        let (a, mut sums) = (black_box(_mm512_set1_ps(0.5)), [_mm512_set1_ps(1.0); SUMS]);
        for _ in 0..REPEATS {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, a, a);
            }
        }
        black_box(sums);
        (REPEATS * SUMS * 16 * 2) as f64
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn quads_of_16() -> f64 {
        let (a, mut sums) = (black_box(_mm512_set1_epi32(1)), [_mm512_setzero_si512(); SUMS]);
        for _ in 0..REPEATS {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, a);
            }
        }
        black_box(sums);
        (REPEATS * SUMS * 16 * 4 * 2) as f64
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn pairs_of_16() -> f64 {
        let half = _mm512_set1_ps(0.5);
        let (a, mut sums) = (black_box(_mm512_cvtne2ps_pbh(half, half)), [half; SUMS]);
        for _ in 0..REPEATS {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, a, a);
            }
        }
        black_box(sums);
        (REPEATS * SUMS * 16 * 2 * 2) as f64
    }

    /// # Safety
    /// This thread has configured tiles.
    pub(super) unsafe fn tiles() -> f64 {
        const REPEATS: usize = 20_000;
        // SAFETY: as the caller promises; it zeroes the tiles first and changes nothing else.
        unsafe {
            asm!(
                "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                "tilezero tmm4", "tilezero tmm5", "tilezero tmm6", "tilezero tmm7",
                "2:",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "dec {left}",
                "jnz 2b",
                left = inout(reg) REPEATS => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, nomem)
            );
        }
        // 16 × 16 outputs, 32 inputs each.
        (REPEATS * 4 * 16 * 16 * 32 * 2) as f64
    }
}
