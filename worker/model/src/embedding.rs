//! The embedding in a prediction record: a sketch of the network's pooled features, and the
//! features themselves if they are asked for.
//!
//! Owns a pure function of the features. Comparing embeddings is the report's. Upstream: the model.
//! Downstream: the prediction record.

use std::array;

use camshaft_common::measure::{Embedding, HalfNumbers, SKETCH_NUMBERS, Sketch};
use half::f16;
use rand::Rng;
use rand_pcg::Pcg64;

/// State and stream of the generator of signs, PCG-XSL-RR 128/64: the first digits of π behind the
/// point, in hexadecimal.
///
/// The signs are part of the format: only sketches that were made with the same signs can be
/// compared. So neither these numbers nor the order in which bits are taken may ever change.
const SEED: (u128, u128) =
    (0x243f_6a88_85a3_08d3_1319_8a2e_0370_7344, 0xa409_3822_299f_31d0_082e_fa98_ec4e_6c89);

/// Number of words that hold the signs for one channel.
const WORDS: usize = SKETCH_NUMBERS / WORD;
/// Bits of a word.
const WORD: usize = u32::BITS as usize;

/// Makes the embedding of `features`, one number for each channel; with `values` it has the
/// features too. None if there are no features, or if one is not finite: JSON has no such numbers.
#[must_use]
pub fn embedding(features: &[f32], values: bool) -> Option<Embedding> {
    if features.is_empty() || !features.iter().all(|feature| feature.is_finite()) {
        return None;
    }
    let projected = projected(features);
    let largest = projected.iter().fold(0f32, |largest, number| largest.max(number.abs()));
    let scale = largest / f32::from(i8::MAX);
    if !scale.is_finite() {
        return None;
    }
    // Numbers that are too small to divide by count as zero.
    let steps = if scale.is_normal() { scale.recip() } else { 0.0 };
    let sketch = projected.map(|number| (number * steps).round() as i8);
    Some(Embedding {
        dimensions: features.len(),
        scale: if steps == 0.0 { 0.0 } else { scale },
        sketch: Sketch(Box::new(sketch)),
        values: values.then(|| HalfNumbers(features.iter().map(|&one| half(one)).collect())),
    })
}

/// Projects features by a random matrix of signs, divided by the square root of the sketch's length
/// (Achlioptas 2003, <https://doi.org/10.1016/S0022-0000(03)00025-4>). Angles and distances stay
/// about the same.
///
/// Each channel takes the next 128 bits as its signs, so that a channel's signs don't depend on the
/// number of channels. Generating the signs is faster than reading them from memory.
fn projected(features: &[f32]) -> [f32; SKETCH_NUMBERS] {
    const BITS: [u32; WORD] = bits();
    let mut random = Pcg64::new(SEED.0, SEED.1);
    let mut sums = [[0f32; WORD]; WORDS];
    for &feature in features {
        let signs: [u64; WORDS / 2] = array::from_fn(|_| random.next_u64());
        let words = signs.into_iter().flat_map(|signs| [signs as u32, (signs >> WORD) as u32]);
        for (sums, word) in sums.iter_mut().zip(words) {
            for (sum, bit) in sums.iter_mut().zip(BITS) {
                *sum += if word & bit == 0 { feature } else { -feature };
            }
        }
    }
    let scale = (SKETCH_NUMBERS as f32).sqrt().recip();
    array::from_fn(|number| sums[number / WORD][number % WORD] * scale)
}

/// The bits of a word, lowest first.
const fn bits() -> [u32; WORD] {
    let mut bits = [1; WORD];
    let mut at = 1;
    while at < WORD {
        bits[at] = bits[at - 1] << 1;
        at += 1;
    }
    bits
}

/// The nearest finite number of half precision.
fn half(feature: f32) -> [u8; 2] {
    let largest = f16::MAX.to_f32();
    f16::from_f32(feature.clamp(-largest, largest)).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_distr::{Distribution, StandardNormal};

    use super::*;

    fn features(count: usize, seed: u64) -> Vec<f32> {
        let mut random = Pcg64::seed_from_u64(seed);
        // Zero or more, as after a ReLU.
        let draw = |_| -> f32 { StandardNormal.sample(&mut random) };
        (0..count).map(draw).map(|value| value.max(0.0)).collect()
    }

    fn numbers(embedding: &Embedding) -> Vec<f32> {
        embedding.sketch.0.iter().map(|&step| f32::from(step) * embedding.scale).collect()
    }

    fn dot(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    fn cosine(a: &[f32], b: &[f32]) -> f32 {
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    }

    /// The signs of a generator written from O'Neill 2014,
    /// <https://www.pcg-random.org/paper.html>:
    ///
    /// ```python
    /// M = (1 << 128) - 1; A = 0x2360ed051fc65da44385df649fccf645
    /// inc = (0xa4093822299f31d0082efa98ec4e6c89 << 1 | 1) & M
    /// s = (0x243f6a8885a308d313198a2e03707344 + inc) * A + inc & M  # as rand_pcg starts
    /// def word():
    ///     global s
    ///     s = s * A + inc & M
    ///     x, r = (s >> 64 ^ s) & (1 << 64) - 1, s >> 122
    ///     return (x >> r | x << 64 - r) & (1 << 64) - 1
    /// signs = [[-1 if w >> i & 1 else 1 for w in (word(), word()) for i in range(64)] for _ in range(3)]
    /// for c in range(3): print("".join("+-"[s < 0] for s in signs[c]))
    /// ```
    #[test]
    fn the_signs_never_change() {
        for (channel, expected) in SIGNS.into_iter().enumerate() {
            let mut features = vec![0.0; 3];
            features[channel] = 1.0;
            let embedding = embedding(&features, false).unwrap();
            assert!((embedding.scale * 127.0 - 128f32.sqrt().recip()).abs() < 1e-7);
            let signs = embedding.sketch.0.map(|step| match step {
                127 => '+',
                -127 => '-',
                other => panic!("{other} is no sign"),
            });
            assert_eq!(signs.iter().collect::<String>(), expected, "channel {channel}");
        }
    }

    const SIGNS: [&str; 3] = [
        "--++---+++---+-+-++--+-+---+-+-++-++++---+-++-++---+++++-++-+-+--+++---+-----+--++--+-++++---+----+-+-++++-+-++---+-++--++----++",
        "++-+-+---+++-++-+-+-+--++--++--++++--++--+++-++-+---+--+++---+-++++-++--++-+-++---+--++---++---+--++-++-+++++-+-+-+++-++--+-+-+-",
        "---+--+-+++--++++---++-+-+++-+--++-+-+--+---+----+-++----+---++++-++++++------+-++++--+-++----+--+-+---+----+-----+-+-+-++-+++-+",
    ];

    #[test]
    fn angles_and_lengths_are_kept_to_a_tenth_or_so() {
        for (channels, seed) in [(512, 1), (2048, 2), (2048, 3)] {
            let (a, b) = (features(channels, seed), features(channels, seed + 100));
            let between = |share: f32| -> Vec<f32> {
                a.iter().zip(&b).map(|(a, b)| a * (1.0 - share) + b * share).collect()
            };
            let sketch = |features: &[f32]| numbers(&embedding(features, false).unwrap());
            let (of_a, length) = (sketch(&a), dot(&a, &a).sqrt());
            assert!((dot(&of_a, &of_a).sqrt() / length - 1.0).abs() < 0.2);
            for share in [0.0, 0.1, 0.5, 1.0] {
                let other = between(share);
                let (found, expected) = (cosine(&of_a, &sketch(&other)), cosine(&a, &other));
                assert!((found - expected).abs() < 0.2, "{share}: {found} is not {expected}");
            }
        }
    }

    #[test]
    fn values_are_written_where_they_are_asked_for() {
        let features = [0.0, 1.5, -2.25, 1e6, 1e-9];
        assert_eq!(embedding(&features, false).unwrap().values, None);
        let values = embedding(&features, true).unwrap().values.unwrap().0;
        let values: Vec<_> =
            values.into_iter().map(|two| f16::from_le_bytes(two).to_f32()).collect();
        assert_eq!(values, [0.0, 1.5, -2.25, 65504.0, 0.0]);
    }

    #[test]
    fn what_json_can_not_hold_is_not_recorded() {
        for features in [vec![], vec![1.0, f32::NAN], vec![f32::INFINITY], vec![f32::MAX; 2048]] {
            assert_eq!(embedding(&features, true), None);
        }
        for features in [vec![0.0; 7], vec![1e-40; 7]] {
            let embedding = embedding(&features, false).unwrap();
            assert_eq!((embedding.dimensions, embedding.scale), (7, 0.0));
            assert_eq!(*embedding.sketch.0, [0; SKETCH_NUMBERS]);
        }
    }
}
