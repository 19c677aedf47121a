//! Convolutions in 8 bits on AVX-512 VNNI: as [`avx512`](crate::avx512), but each step multiplies four
//! inputs, and sums are integers.

use std::arch::x86_64::*;

use crate::call::ConvolutionCall;
use crate::kernel::{AVX512_SEGMENT, ValueFormat};
use crate::layout::{PLANE, Segment};
use crate::requantise::rescale;
use crate::weights::{QUAD, QUAD_BYTES, STEM_QUADS};

/// Pairs of segments whose input stays in the first-level cache over all outputs.
const PAIRS_AT_ONCE: usize = 8;

/// The sums of two segments × 32 outputs, by lane.
type PairSums = [[[__m512i; 2]; AVX512_SEGMENT]; 2];

/// # Safety
/// As for [`crate::dispatch::multiply`].
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(crate) unsafe fn convolve(call: &ConvolutionCall<'_>) {
    call.for_each_segment_pair(PAIRS_AT_ONCE, |pair, panel| {
        // SAFETY: as the caller promises.
        unsafe {
            match call.input.step_bytes {
                PLANE => multiply_pair::<PLANE, { PLANE / QUAD }>(call, pair, panel),
                _ => multiply_pair::<6, STEM_QUADS>(call, pair, panel),
            }
        }
    });
}

/// Multiplies two segments with 32 outputs. `STEP` is the number of bytes from a pixel to the
/// next, `QUADS` the number of quads of inputs in one step of the weights.
///
/// # Safety
/// As for [`crate::dispatch::multiply`].
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn multiply_pair<const STEP: usize, const QUADS: usize>(
    call: &ConvolutionCall<'_>,
    segments: [Segment; 2],
    panel: usize,
) {
    let mut sums: PairSums = [[[_mm512_setzero_si512(); 2]; AVX512_SEGMENT]; 2];
    // SAFETY: the call's pixels, planes and panels. A prefetch may have any address.
    unsafe {
        let mut weights = call.panel(panel);
        let starts = segments.map(|segment| call.input.planes.pixels.add(segment.start * STEP));
        for &tap in call.input.taps {
            let mut sources = starts.map(|start| start.offset(tap));
            for _ in 0..call.weights.planes {
                for quad in 0..QUADS {
                    let row = weights.add(QUAD_BYTES * quad);
                    let outputs =
                        [_mm512_load_si512(row.cast()), _mm512_load_si512(row.add(64).cast())];
                    _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(QUADS * QUAD_BYTES).cast());
                    _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(QUADS * QUAD_BYTES + 64).cast());
                    // One loop for each segment, not a loop over both: the sums stay in registers.
                    let [first, second] = &mut sums;
                    for (pixel, sums) in first.iter_mut().enumerate() {
                        let inputs = quad_of(sources[0].add(pixel * STEP + QUAD * quad));
                        sums[0] = _mm512_dpbusd_epi32(sums[0], inputs, outputs[0]);
                        sums[1] = _mm512_dpbusd_epi32(sums[1], inputs, outputs[1]);
                    }
                    for (pixel, sums) in second.iter_mut().enumerate() {
                        let inputs = quad_of(sources[1].add(pixel * STEP + QUAD * quad));
                        sums[0] = _mm512_dpbusd_epi32(sums[0], inputs, outputs[0]);
                        sums[1] = _mm512_dpbusd_epi32(sums[1], inputs, outputs[1]);
                    }
                }
                weights = weights.add(QUADS * QUAD_BYTES);
                sources = sources.map(|source| source.add(call.input.planes.plane_bytes));
            }
        }
        finish_pair(call, sums, segments, panel);
    }
}

/// The same quad of inputs 16 times.
///
/// # Safety
/// Four bytes can be read.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn quad_of(from: *const u8) -> __m512i {
    // SAFETY: as the caller promises.
    _mm512_set1_epi32(unsafe { from.cast::<i32>().read_unaligned() })
}

/// Finishes two segments. Not inlined, and by value: the sums of [`multiply_pair`] must stay in
/// registers.
///
/// # Safety
/// As for [`crate::dispatch::multiply`].
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn finish_pair(
    call: &ConvolutionCall<'_>,
    sums: PairSums,
    segments: [Segment; 2],
    panel: usize,
) {
    // SAFETY: as the caller promises.
    unsafe { Requantiser::new(call, panel).finish_pairs(call, &sums, segments) };
}

/// A computed pixel, and where its outputs go.
type PixelPlace = (usize, usize);

/// Of pixel `at` of both segments.
#[inline(always)]
fn places(call: &ConvolutionCall<'_>, [a, b]: [Segment; 2], at: usize) -> [PixelPlace; 2] {
    [
        (a.start + at, call.segment_output_pixel(a, at)),
        (b.start + at, call.segment_output_pixel(b, at)),
    ]
}

/// Finishes the sums of a panel's outputs, two pixels at a time: as
/// [`requantise`](crate::requantise), to the same bit.
pub(crate) struct Requantiser {
    multiplier: [__m512; 2],
    bias: [__m512; 2],
    output_scale: *const f32,
    /// The outputs' channels of pixel 0.
    output: *mut u8,
    /// The same channels of the residual's pixel 0.
    residual: *const u8,
}

impl Requantiser {
    /// # Safety
    /// The call's pointers are valid for the panel, and its weights are in 8 bits.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(crate) unsafe fn new(call: &ConvolutionCall<'_>, panel: usize) -> Self {
        let rescale = rescale(call);
        // SAFETY: as the caller promises; each has one f32 for each output.
        unsafe {
            let of_panel = |values: *const f32| {
                let values = values.add(panel * PLANE);
                [_mm512_load_ps(values), _mm512_load_ps(values.add(16))]
            };
            Self {
                multiplier: of_panel(rescale.multiplier.as_ptr().cast()),
                bias: of_panel(call.bias),
                output_scale: rescale.output_scale.as_ptr().cast::<f32>().add(panel * PLANE),
                output: call.output.pixels.add(panel * call.output.plane_bytes),
                residual: call.residual.map_or(std::ptr::null(), |residual| {
                    residual.planes.pixels.wrapping_add(panel * residual.planes.plane_bytes)
                }),
            }
        }
    }

    /// Finishes two segments of `PIXELS` each, a pixel of either at a time.
    ///
    /// # Safety
    /// As for [`Requantiser::new`], and the pixels exist.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(crate) unsafe fn finish_pairs<const PIXELS: usize>(
        &self,
        call: &ConvolutionCall<'_>,
        sums: &[[[__m512i; 2]; PIXELS]; 2],
        segments: [Segment; 2],
    ) {
        let residual = call.residual.map(|residual| residual.format);
        // A branch for each format, so that loops have none.
        // SAFETY: as the caller promises.
        unsafe {
            match (call.output.format, residual) {
                (ValueFormat::F32, _) => {
                    for (at, (first, second)) in sums[0].iter().zip(&sums[1]).enumerate() {
                        let [a, b] = places(call, segments, at);
                        self.store_values(call, residual, a, *first);
                        self.store_values(call, residual, b, *second);
                    }
                }
                (ValueFormat::I16, _) => {
                    for (at, (first, second)) in sums[0].iter().zip(&sums[1]).enumerate() {
                        let [a, b] = places(call, segments, at);
                        self.store_words(a, self.rounded(*first));
                        self.store_words(b, self.rounded(*second));
                    }
                }
                (_, None) => {
                    for (at, (first, second)) in sums[0].iter().zip(&sums[1]).enumerate() {
                        let [a, b] = places(call, segments, at);
                        let words = [self.rounded(*first), self.rounded(*second)];
                        self.store_bytes(a, b, words);
                    }
                }
                (_, Some(ValueFormat::I16)) => {
                    for (at, (first, second)) in sums[0].iter().zip(&sums[1]).enumerate() {
                        let [a, b] = places(call, segments, at);
                        let words = [
                            _mm512_adds_epi16(self.rounded(*first), self.added_words(a)),
                            _mm512_adds_epi16(self.rounded(*second), self.added_words(b)),
                        ];
                        self.store_bytes(a, b, words);
                    }
                }
                (_, Some(_)) => {
                    for (at, (first, second)) in sums[0].iter().zip(&sums[1]).enumerate() {
                        let [a, b] = places(call, segments, at);
                        let words = [
                            _mm512_adds_epi16(self.rounded(*first), self.added_bytes(a)),
                            _mm512_adds_epi16(self.rounded(*second), self.added_bytes(b)),
                        ];
                        self.store_bytes(a, b, words);
                    }
                }
            }
        }
    }

    /// A half of the lanes in units of the outputs' scales.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn scaled(&self, sums: [__m512i; 2], half: usize) -> __m512 {
        let sums = _mm512_cvtepi32_ps(sums[half]);
        _mm512_fmadd_ps(sums, self.multiplier[half], self.bias[half])
    }

    /// Rounded to 16 bits, in the outputs' own order.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn rounded(&self, sums: [__m512i; 2]) -> __m512i {
        let low = _mm512_cvtps_epi32(self.scaled(sums, 0));
        _mm512_packs_epi32(low, _mm512_cvtps_epi32(self.scaled(sums, 1)))
    }

    /// A pixel of the residual in 16 bits.
    ///
    /// # Safety
    /// It exists.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn added_words(&self, (pixel, _): PixelPlace) -> __m512i {
        // SAFETY: as the caller promises.
        unsafe { _mm512_load_si512(self.residual.wrapping_add(pixel * 2 * PLANE).cast()) }
    }

    /// A pixel of the residual in 8 bits.
    ///
    /// # Safety
    /// It exists.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn added_bytes(&self, (pixel, _): PixelPlace) -> __m512i {
        // SAFETY: as the caller promises.
        unsafe {
            let bytes = self.residual.wrapping_add(pixel * PLANE).cast();
            _mm512_cvtepu8_epi16(_mm256_loadu_si256(bytes))
        }
    }

    /// Writes two pixels in 8 bits.
    ///
    /// # Safety
    /// They exist.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn store_bytes(
        &self,
        (_, first): PixelPlace,
        (_, second): PixelPlace,
        words: [__m512i; 2],
    ) {
        // Groups of eight bytes of both pixels take turns.
        let both = _mm512_packus_epi16(words[0], words[1]);
        let order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
        let both = _mm512_permutexvar_epi64(order, both);
        // SAFETY: as the caller promises.
        unsafe {
            let to = |pixel: usize| self.output.add(pixel * PLANE).cast();
            _mm256_storeu_si256(to(first), _mm512_castsi512_si256(both));
            _mm256_storeu_si256(to(second), _mm512_extracti64x4_epi64::<1>(both));
        }
    }

    /// Writes a pixel in 16 bits.
    ///
    /// # Safety
    /// It exists.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn store_words(&self, (_, pixel): PixelPlace, words: __m512i) {
        // SAFETY: as the caller promises.
        unsafe { _mm512_store_si512(self.output.add(pixel * 2 * PLANE).cast(), words) };
    }

    /// Adds the residual and writes a pixel in f32.
    ///
    /// # Safety
    /// As for [`Requantiser::finish_pairs`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn store_values(
        &self,
        call: &ConvolutionCall<'_>,
        residual: Option<ValueFormat>,
        (pixel, output_pixel): PixelPlace,
        sums: [__m512i; 2],
    ) {
        let floor = _mm512_set1_ps(call.floor());
        for half in 0..2 {
            // SAFETY: as the caller promises.
            unsafe {
                let added = match residual {
                    None => _mm512_setzero_si512(),
                    Some(ValueFormat::I16) => {
                        let words = self.residual.wrapping_add((pixel * 2 + half) * PLANE);
                        _mm512_cvtepi16_epi32(_mm256_loadu_si256(words.cast()))
                    }
                    Some(_) => {
                        let bytes = self.residual.wrapping_add(pixel * PLANE + half * 16);
                        _mm512_cvtepu8_epi32(_mm_loadu_si128(bytes.cast()))
                    }
                };
                let sum = _mm512_add_ps(self.scaled(sums, half), _mm512_cvtepi32_ps(added));
                let scale = _mm512_load_ps(self.output_scale.add(16 * half));
                let value = _mm512_mul_ps(_mm512_max_ps(floor, sum), scale);
                let to = self.output.add((output_pixel * PLANE + 16 * half) * 4);
                _mm512_store_ps(to.cast(), value);
            }
        }
    }
}
