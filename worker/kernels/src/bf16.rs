//! bf16 in vectors: to and from f32.

use std::arch::x86_64::*;

/// 32 f32 to bf16, the nearest, ties to even.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(crate) fn narrow(values: [__m512; 2]) -> __m512i {
    // SAFETY: both are 512 bits, any of them.
    unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(values[1], values[0])) }
}

/// 32 bf16 to f32.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn widen(halves: __m512i) -> [__m512; 2] {
    let low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(halves));
    let high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64::<1>(halves));
    [low, high].map(|half| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(half)))
}
