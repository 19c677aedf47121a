//! bf16: the upper half of an f32. Conversions of single values, and of vectors on AVX-512.

/// The nearest bf16; ties go to the even one. NaN stays NaN.
pub(crate) fn from_f32(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// The part of `value` that [`from_f32`] rounds away, itself rounded to bf16.
pub(crate) fn remainder_from_f32(value: f32) -> u16 {
    from_f32(value - to_f32(from_f32(value)))
}

/// The value of a bf16, exactly.
pub(crate) fn to_f32(half: u16) -> f32 {
    f32::from_bits(u32::from(half) << 16)
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod vectors {
    //! 32 values at a time.

    use std::arch::x86_64::*;

    /// As [`from_f32`](super::from_f32).
    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(crate) fn from_f32(values: [__m512; 2]) -> __m512i {
        // SAFETY: both types have 512 bits, and all bit patterns are valid.
        unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(values[1], values[0])) }
    }

    /// As [`to_f32`](super::to_f32).
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn to_f32(halves: __m512i) -> [__m512; 2] {
        let low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(halves));
        let high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64::<1>(halves));
        [low, high].map(|half| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(half)))
    }
}
