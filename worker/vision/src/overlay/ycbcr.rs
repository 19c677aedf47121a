//! Mixes two rows of an image with the colours of heat levels, to Y, Cb and Cr for a JPEG with
//! chroma at half resolution. Does not know where heat lies or how files are encoded.
//!
//! Blending, conversion and the mean of four pixels are all linear. So chroma is converted once for
//! four pixels, and what a level's colour adds comes from a table. Numbers have 16 bits: of these a
//! vector holds the most.

use camshaft_common::explain::OverlayOpacity;
use camshaft_jpeg::RowPair;
use pulp::{Simd, WithSimd};

use super::blend::weights_by_level;
use crate::colormap::ColorTable;

/// Entries of the tables by level: the power of two above [`OUTSIDE`](super::levels::OUTSIDE).
const LEVELS: usize = 512;

/// Bits of fraction of Y.
const LUMA_BITS: u32 = 8;
/// Bits of fraction of Cb and Cr, which reach 256 when they are rounded.
const CHROMA_BITS: u32 = 7;
/// The weight of a pixel that stays as it is: the largest number of 16 bits.
const KEEP_ALL: f64 = 65535.0;
/// A pixel's values have 16 bits: 65,535 for 255.
const FULL_BY_255: f64 = 257.0;

/// Weights of R, G and B in Y: JFIF 1.02, page 3.
const LUMA: [f64; 3] = [0.299, 0.587, 0.114];
/// The same in Cb and Cr.
const CHROMA: [[f64; 3]; 2] = [[-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]];
/// Added to Cb and Cr.
const CHROMA_OFFSET: f64 = 128.0;

/// Columns that are mixed at once.
const CHUNK: usize = 64;
/// Columns of their chroma.
const HALF: usize = CHUNK / 2;

/// The mix of pixels and colours in Y, Cb and Cr.
#[derive(Clone, Debug)]
pub(super) struct YcbcrBlend {
    /// For each level what its colour adds to Y, and the pixel's weight in the upper 16 bits.
    luma: Box<[u32; LEVELS]>,
    /// For each level a quarter of what its colour adds to Cb, and to Cr in the upper 16 bits: the
    /// sum of four pixels' is their mean.
    chroma: Box<[u32; LEVELS]>,
    /// Weights of R, G and B in Y.
    luma_weights: [u16; 3],
}

impl YcbcrBlend {
    pub(super) fn new(alpha: f32, opacity: OverlayOpacity, colors: &ColorTable) -> Self {
        let alphas = weights_by_level(alpha, opacity);
        let fixed = |value: f64, bits: u32| (value * f64::from(1_u32 << bits)).round() as u16;
        let alpha = |level: usize| alphas.get(level).copied().unwrap_or(0.0);
        let color = |level: usize, weights: [f64; 3]| {
            let [r, g, b] = colors.get(level).copied().unwrap_or_default().map(f64::from);
            alpha(level) * (weights[0] * r + weights[1] * g + weights[2] * b)
        };
        // Half of one, and half of what four products lose as their fractions are cut off.
        let luma_rounding = 0.5 + 2.0 / f64::from(1 << LUMA_BITS);
        let luma = |level| {
            let added = fixed(color(level, LUMA) + luma_rounding, LUMA_BITS);
            let keep = ((1.0 - alpha(level)) * KEEP_ALL).round() as u16;
            u32::from(keep) << 16 | u32::from(added)
        };
        let chroma = |level| {
            let [blue, red] = CHROMA.map(|weights| {
                let added = color(level, weights) + CHROMA_OFFSET + 0.5;
                u32::from(fixed(added, CHROMA_BITS - 2))
            });
            red << 16 | blue
        };
        Self {
            luma: Box::new(std::array::from_fn(luma)),
            chroma: Box::new(std::array::from_fn(chroma)),
            luma_weights: LUMA.map(|weight| fixed(weight * 256.0 / FULL_BY_255, 16)),
        }
    }

    /// Mixes two rows of pixels, each with its level.
    ///
    /// # Panics
    /// If rows have different lengths.
    pub(super) fn mix(&self, pixels: [&[[u8; 3]]; 2], levels: [&[u16]; 2], mixed: RowPair<'_>) {
        let width = pixels[0].len();
        assert!(
            pixels.iter().all(|row| row.len() == width)
                && levels.iter().all(|row| row.len() == width)
                && mixed.luma.iter().all(|row| row.len() == width)
                && mixed.chroma.iter().all(|row| row.len() == width.div_ceil(2)),
            "all rows are as wide"
        );
        let rows = Rows { blend: self, pixels, levels, mixed };
        // Compiled for AVX2 this takes a third of the time. AVX-512 is not faster here.
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = pulp::x86::V3::try_new() {
            return Simd::vectorize(avx2, rows);
        }
        rows.with_simd(pulp::Scalar);
    }

    /// What the colours of a chunk add, and the weights of its pixels.
    #[inline(always)]
    fn terms(&self, levels: [&[u16; CHUNK]; 2]) -> Terms {
        let mut luma_lanes = [[0; CHUNK]; 2];
        let mut chroma_lanes = [0; HALF];
        for (x, lanes) in chroma_lanes.iter_mut().enumerate() {
            for (row, x) in [(0, 2 * x), (0, 2 * x + 1), (1, 2 * x), (1, 2 * x + 1)] {
                let level = usize::from(levels[row][x]) % LEVELS;
                luma_lanes[row][x] = self.luma[level];
                *lanes += self.chroma[level];
            }
        }
        let mut terms =
            Terms { luma: [[0; CHUNK]; 2], keep: [[0; CHUNK]; 2], chroma: [[0; HALF]; 2] };
        for (row, lanes) in luma_lanes.into_iter().enumerate() {
            for (x, lanes) in lanes.into_iter().enumerate() {
                terms.luma[row][x] = lanes as u16;
                terms.keep[row][x] = (lanes >> 16) as u16;
            }
        }
        for (x, lanes) in chroma_lanes.into_iter().enumerate() {
            terms.chroma[0][x] = lanes as u16;
            terms.chroma[1][x] = (lanes >> 16) as u16;
        }
        terms
    }

    /// The mix of a chunk. Its inputs and its result are arrays of known lengths that share no
    /// memory: so the compiler vectorises the loops.
    #[inline(always)]
    fn mix_chunk(&self, pixels: [&[[u8; 3]; CHUNK]; 2], levels: [&[u16; CHUNK]; 2]) -> Mixed {
        let terms = self.terms(levels);
        let mut mixed = Mixed { luma: [[0; CHUNK]; 2], chroma: [[0; HALF]; 2] };
        // The sums of the two rows, without their last two bits.
        let mut sums = [[0; CHUNK]; 3];
        for (row, pixels) in pixels.into_iter().enumerate() {
            let mut planes = [[0; CHUNK]; 3];
            for (x, pixel) in pixels.iter().enumerate() {
                for (plane, value) in planes.iter_mut().zip(pixel) {
                    plane[x] = u16::from(*value);
                }
            }
            for (plane, sums) in planes.iter_mut().zip(&mut sums) {
                for ((value, keep), sum) in plane.iter_mut().zip(&terms.keep[row]).zip(sums) {
                    // 255 is 65,535 before it is weighted.
                    *value = high_product(*value << 8 | *value, *keep);
                    *sum += *value >> 2;
                }
            }
            for (x, luma) in mixed.luma[row].iter_mut().enumerate() {
                let part =
                    |channel: usize| high_product(planes[channel][x], self.luma_weights[channel]);
                *luma = ((terms.luma[row][x] + part(0) + part(1) + part(2)) >> LUMA_BITS) as u8;
            }
        }
        let mut means = [[0; HALF]; 3];
        for (means, sums) in means.iter_mut().zip(&sums) {
            for (mean, sums) in means.iter_mut().zip(sums.as_chunks::<2>().0) {
                *mean = sums[0] + sums[1];
            }
        }
        for (component, weights) in CHROMA.iter().enumerate() {
            for (x, mixed) in mixed.chroma[component].iter_mut().enumerate() {
                let mut chroma = terms.chroma[component][x];
                for (mean, weight) in means.iter().zip(weights) {
                    let product = high_product(mean[x], chroma_factor(weight.abs()));
                    chroma = if *weight > 0.0 { chroma + product } else { chroma - product };
                }
                *mixed = (chroma >> CHROMA_BITS).min(255) as u8;
            }
        }
        mixed
    }
}

/// What the mean of four pixels is multiplied by.
const fn chroma_factor(weight: f64) -> u16 {
    (weight * (1 << (16 + CHROMA_BITS)) as f64 / FULL_BY_255 + 0.5) as u16
}

/// The upper half of the product.
#[inline(always)]
fn high_product(a: u16, b: u16) -> u16 {
    ((u32::from(a) * u32::from(b)) >> 16) as u16
}

/// What the colours of a chunk add to Y in both rows and to Cb and Cr, and the weights of its
/// pixels.
struct Terms {
    luma: [[u16; CHUNK]; 2],
    keep: [[u16; CHUNK]; 2],
    chroma: [[u16; HALF]; 2],
}

/// A chunk's Y in both rows, and its Cb and Cr.
struct Mixed {
    luma: [[u8; CHUNK]; 2],
    chroma: [[u8; HALF]; 2],
}

/// Two rows to mix, as pulp compiles it for other instructions than the rest of the program.
struct Rows<'a> {
    blend: &'a YcbcrBlend,
    pixels: [&'a [[u8; 3]]; 2],
    levels: [&'a [u16]; 2],
    mixed: RowPair<'a>,
}

impl WithSimd for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { blend, pixels, levels, mut mixed } = self;
        let width = pixels[0].len();
        for start in (0..width).step_by(CHUNK) {
            let columns = start..width.min(start + CHUNK);
            let whole = (
                pixels.map(|row| row[start..].first_chunk()),
                levels.map(|row| row[start..].first_chunk()),
            );
            let chunk = match whole {
                ([Some(above), Some(below)], [Some(levels_above), Some(levels_below)]) => {
                    blend.mix_chunk([above, below], [levels_above, levels_below])
                }
                _ => blend.mix_chunk(
                    pixels.map(|row| padded(&row[start..])).each_ref(),
                    levels.map(|row| padded(&row[start..])).each_ref(),
                ),
            };
            for (row, found) in mixed.luma.iter_mut().zip(chunk.luma) {
                row[columns.clone()].copy_from_slice(&found[..columns.len()]);
            }
            let columns = columns.start / 2..columns.end.div_ceil(2);
            for (row, found) in mixed.chroma.iter_mut().zip(chunk.chroma) {
                row[columns.clone()].copy_from_slice(&found[..columns.len()]);
            }
        }
    }
}

/// The last columns of a row as a chunk, in which the very last is repeated.
fn padded<T: Copy>(rest: &[T]) -> [T; CHUNK] {
    let mut chunk = [rest[rest.len() - 1]; CHUNK];
    chunk[..rest.len()].copy_from_slice(rest);
    chunk
}

#[cfg(test)]
mod tests {
    use super::super::levels::OUTSIDE;
    use super::*;

    /// Y of two rows, then Cb, then Cr.
    type Planes = [Vec<u8>; 4];

    fn mixed(blend: &YcbcrBlend, pixels: [&[[u8; 3]]; 2], levels: [&[u16]; 2]) -> Planes {
        let width = pixels[0].len();
        let half = width.div_ceil(2);
        let mut planes = [vec![0; width], vec![0; width], vec![0; half], vec![0; half]];
        let [upper, lower, blue, red] = &mut planes;
        blend.mix(pixels, levels, RowPair { luma: [upper, lower], chroma: [blue, red] });
        planes
    }

    fn pixels(width: u32, seed: u32) -> Vec<[u8; 3]> {
        let pixel = |x: u32| match x % 7 {
            // The extremes of all components.
            0 => [0, 0, 0],
            1 => [255, 255, 255],
            2 => [0, 0, 255],
            3 => [255, 255, 0],
            4 => [255, 0, 0],
            _ => [x * 37 + seed, x * 101, x * 53 + seed].map(|value| value as u8),
        };
        (0..width).map(pixel).collect()
    }

    /// Levels that rise and fall, with some beside the map.
    fn levels(width: u16, seed: u16) -> Vec<u16> {
        let level = |x: u16| if x % 50 > 46 { OUTSIDE } else { (x * 11 + seed) % 256 };
        (0..width).map(level).collect()
    }

    #[test]
    fn rows_are_the_formula_to_rounding() {
        let colors: ColorTable =
            std::array::from_fn(|level| [level as u8, 255 - level as u8, (level * 7) as u8]);
        let styles = [OverlayOpacity::Constant, OverlayOpacity::Heat];
        for (alpha, opacity) in
            [0.0, 0.4, 1.0].into_iter().flat_map(|alpha| styles.map(|style| (alpha, style)))
        {
            let blend = YcbcrBlend::new(alpha, opacity, &colors);
            let pixels = [pixels(1001, 5), pixels(1001, 90)];
            let levels = [levels(1001, 0), levels(1001, 31)];
            let found = mixed(
                &blend,
                pixels.each_ref().map(|row| &row[..]),
                levels.each_ref().map(|row| &row[..]),
            );
            let alphas = weights_by_level(alpha, opacity);
            // What becomes of a pixel: R, G and B.
            let exact = |row: usize, x: usize| -> [f64; 3] {
                let (x, level) = (x.min(1000), usize::from(levels[row][x.min(1000)]));
                std::array::from_fn(|channel| {
                    let pixel = f64::from(pixels[row][x][channel]);
                    match level {
                        256 => pixel,
                        _ => {
                            let color = f64::from(colors[level][channel]);
                            (1.0 - alphas[level]) * pixel + alphas[level] * color
                        }
                    }
                })
            };
            let sum = |rgb: [f64; 3], weights: [f64; 3]| -> f64 {
                rgb.iter().zip(weights).map(|(value, weight)| value * weight).sum()
            };
            for (row, luma) in found[..2].iter().enumerate() {
                for (x, &luma) in luma.iter().enumerate() {
                    let exact = sum(exact(row, x), LUMA);
                    assert!((f64::from(luma) - exact).abs() < 0.53, "{luma} is not {exact}");
                }
            }
            for (component, weights) in CHROMA.into_iter().enumerate() {
                for (x, &chroma) in found[2 + component].iter().enumerate() {
                    // The sum of the chroma of four pixels, or of the last two twice.
                    let four = [(0, 2 * x), (0, 2 * x + 1), (1, 2 * x), (1, 2 * x + 1)];
                    let mean =
                        four.map(|(row, x)| sum(exact(row, x), weights)).iter().sum::<f64>() / 4.0;
                    let exact = (mean + CHROMA_OFFSET).min(255.0);
                    assert!((f64::from(chroma) - exact).abs() < 0.53, "{chroma} is not {exact}");
                }
            }
        }
    }

    #[test]
    fn rows_do_not_depend_on_their_length() {
        let colors = std::array::from_fn(|level| [level as u8; 3]);
        let blend = YcbcrBlend::new(0.4, OverlayOpacity::Heat, &colors);
        let (pixels, levels) = ([pixels(200, 1), pixels(200, 2)], [levels(200, 3), levels(200, 4)]);
        let part = |from: usize, to: usize| {
            let pixels = pixels.each_ref().map(|row| &row[from..to]);
            mixed(&blend, pixels, levels.each_ref().map(|row| &row[from..to]))
        };
        let whole = part(0, 200);
        for (from, to) in [(0, 0), (4, 6), (0, 62), (0, 64), (2, 66), (8, 200)] {
            let [upper, lower, blue, red] = part(from, to);
            assert_eq!((&upper[..], &lower[..]), (&whole[0][from..to], &whole[1][from..to]));
            let (from, to) = (from / 2, to / 2);
            assert_eq!((&blue[..], &red[..]), (&whole[2][from..to], &whole[3][from..to]));
        }
    }
}
