//! What a CPU's core reaches at most: a kernel's multiplication on registers alone, without a
//! load or a store. Benchmarks put layers beside it.

use std::arch::asm;
use std::arch::x86_64::*;
use std::hint::black_box;
use std::time::Instant;

use crate::amx::Tiles;
use crate::detect::Kernel;

/// Each measurement is the best of so many.
const ROUNDS: usize = 20;
/// Multiplications in a row that don't wait for each other, times this, are a round.
const REPEATS: usize = 100_000;
/// Sums that don't wait for each other: more than the latency of two units hides.
const SUMS: usize = 16;

impl Kernel {
    /// Multiplications and additions a second, in 10⁹, that this thread reaches at most.
    ///
    /// # Panics
    /// If the machine does not have the kernel.
    pub fn peak_gflops(self) -> f64 {
        assert!(self.is_available(), "this machine does not have {self}");
        // SAFETY: the kernel is available.
        let _tiles =
            matches!(self, Self::AmxBf16 | Self::AmxBf16x3).then(|| unsafe { Tiles::configure() });
        let round = || {
            let started = Instant::now();
            // SAFETY: the kernel is available, and its tiles are held.
            let flop = unsafe {
                match self {
                    Self::AmxBf16 => tiles(),
                    // Three products are one.
                    Self::AmxBf16x3 => tiles() / 3.0,
                    Self::Avx512Bf16 => pairs_of_16(),
                    Self::Avx512 => lanes_of_16(),
                    Self::Avx2 => lanes_of_8(),
                }
            };
            flop / started.elapsed().as_secs_f64() / 1e9
        };
        (0..ROUNDS).map(|_| round()).fold(0.0, f64::max)
    }
}

#[target_feature(enable = "avx2,fma")]
fn lanes_of_8() -> f64 {
    let (a, mut sums) = (black_box(_mm256_set1_ps(0.5)), [_mm256_set1_ps(1.0); 12]);
    for _ in 0..REPEATS {
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(*sum, a, a);
        }
    }
    black_box(sums);
    (REPEATS * 12 * 8 * 2) as f64
}

#[target_feature(enable = "avx512f")]
fn lanes_of_16() -> f64 {
    let (a, mut sums) = (black_box(_mm512_set1_ps(0.5)), [_mm512_set1_ps(1.0); SUMS]);
    for _ in 0..REPEATS {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(*sum, a, a);
        }
    }
    black_box(sums);
    (REPEATS * SUMS * 16 * 2) as f64
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn pairs_of_16() -> f64 {
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
/// This thread holds tiles.
unsafe fn tiles() -> f64 {
    const REPEATS: usize = 20_000;
    // SAFETY: as the caller promises; tiles are zeroed first, and nothing else is touched.
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
