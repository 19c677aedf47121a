//! Mixes an image's pixels with the colours of heat levels: in RGB for lossless files, and in
//! Y, Cb and Cr for JPEG. Does not know where heat lies or how files are encoded.

use camshaft_common::explain::OverlayOpacity;
use pulp::WithSimd;

use crate::colormap::ColorTable;

/// Fixed-point sums have 16 bits of fraction.
const FRACTION_BITS: u32 = 16;
/// The fraction of a pixel's weight that depends on the level.
const KEEP_BITS: u32 = 12;
/// The fraction that a sum keeps before it is multiplied by such a weight: the product fits 32 bits.
const KEPT_BITS: u32 = 8;
const BY_LEVEL_BITS: u32 = KEPT_BITS + KEEP_BITS;

/// The colours' weight at each level.
fn weights_by_level(alpha: f32, opacity: OverlayOpacity) -> [f64; 256] {
    let alpha = f64::from(alpha.clamp(0.0, 1.0));
    std::array::from_fn(|level| match opacity {
        OverlayOpacity::Constant => alpha,
        OverlayOpacity::Heat => alpha * level as f64 / 255.0,
    })
}

/// `(1 - alpha) * pixel + alpha * colour` in RGB, rounded to nearest.
pub(super) struct RgbBlend {
    /// The pixel's weight, for each level.
    image: [u32; 256],
    /// The colour's term and the rounding, for each level.
    colors: [[u32; 3]; 256],
}

impl RgbBlend {
    /// A weight's own rounding is multiplied by up to 255: more bits than sums of Y, Cb and Cr have.
    const BITS: u32 = 22;

    pub(super) fn new(alpha: f32, opacity: OverlayOpacity, colors: &ColorTable) -> Self {
        const ONE: f64 = (1 << RgbBlend::BITS) as f64;
        const HALF: u32 = 1 << (RgbBlend::BITS - 1);
        let weights = weights_by_level(alpha, opacity);
        let term = |level: usize, value: u8| (weights[level] * f64::from(value) * ONE).round();
        Self {
            image: weights.map(|weight| ((1.0 - weight) * ONE).round() as u32),
            colors: std::array::from_fn(|level| {
                colors[level].map(|channel| term(level, channel) as u32 + HALF)
            }),
        }
    }

    pub(super) fn apply(&self, pixel: &mut [u8; 3], level: u8) {
        let (image, color) = (self.image[usize::from(level)], &self.colors[usize::from(level)]);
        for (channel, color) in pixel.iter_mut().zip(color) {
            *channel = ((image * u32::from(*channel) + color) >> Self::BITS) as u8;
        }
    }
}

/// Y, Cb and Cr from R, G and B: JFIF 1.02, page 3.
const YCBCR: [[f64; 3]; 3] =
    [[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]];
/// Added to Y, Cb and Cr.
const OFFSETS: [f64; 3] = [0.0, 128.0, 128.0];
/// Pixels that are mixed at once. Measured: 32 and 16 are slower by 1 % and 4 % of a whole JPEG.
const CHUNK: usize = 64;

/// The same mix in Y, Cb and Cr. Blending and conversion are both linear, so one sum of products
/// does both.
#[derive(Clone, Debug)]
pub(super) struct YcbcrBlend {
    /// For each of Y, Cb and Cr the weights of R, G and B.
    weights: [[i32; 3]; 3],
    /// For each level the colour's Y, Cb and Cr with offset and rounding, and the pixel's weight if
    /// that depends on the level.
    colors: [[i32; 4]; 256],
    /// Whether the pixel's weight is the level's, and not part of `weights`.
    by_level: bool,
}

impl YcbcrBlend {
    pub(super) fn new(alpha: f32, opacity: OverlayOpacity, colors: &ColorTable) -> Self {
        let alphas = weights_by_level(alpha, opacity);
        let fixed = |value: f64, bits: u32| (value * f64::from(1_u32 << bits)).round() as i32;
        let by_level = opacity == OverlayOpacity::Heat;
        let (bits, of_all) = match by_level {
            true => (BY_LEVEL_BITS, 1.0),
            false => (FRACTION_BITS, 1.0 - alphas[0]),
        };
        let component = |level: usize, at: usize| {
            let color = colors[level].map(f64::from);
            let sum: f64 = (0..3).map(|channel| YCBCR[at][channel] * color[channel]).sum();
            fixed(alphas[level] * sum + OFFSETS[at] + 0.5, bits)
        };
        Self {
            weights: YCBCR.map(|row| row.map(|weight| fixed(of_all * weight, FRACTION_BITS))),
            colors: std::array::from_fn(|level| {
                let keep = fixed(1.0 - alphas[level], KEEP_BITS);
                [component(level, 0), component(level, 1), component(level, 2), keep]
            }),
            by_level,
        }
    }

    /// Mixes a row of pixels, each with its level, and appends it to Y, Cb and Cr.
    ///
    /// # Panics
    /// If there are not as many levels as pixels.
    pub(super) fn append_row(
        &self,
        pixels: &[[u8; 3]],
        levels: &[u8],
        components: [&mut Vec<u8>; 3],
    ) {
        assert_eq!(pixels.len(), levels.len(), "a level for each pixel");
        let components = components.map(|component| {
            let start = component.len();
            component.resize(start + pixels.len(), 0);
            &mut component[start..]
        });
        let row = Row { blend: self, pixels, levels, components };
        // Compiled for AVX2 this takes a third of the time. AVX-512 is slower than AVX2 here.
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = pulp::x86::V3::try_new() {
            return pulp::Simd::vectorize(avx2, row);
        }
        row.with_simd(pulp::Scalar);
    }

    /// Y, Cb and Cr of a chunk. The result is an array of its own: the compiler then knows that
    /// writing it changes no input, and vectorises the loop.
    #[inline(always)]
    fn mix<const BY_LEVEL: bool>(
        &self,
        pixels: &[[u8; 3]; CHUNK],
        levels: &[u8; CHUNK],
    ) -> [[u8; CHUNK]; 3] {
        let weights = self.weights;
        let mut mixed = [[0; CHUNK]; 3];
        let [y, cb, cr] = &mut mixed;
        let outputs = y.iter_mut().zip(cb).zip(cr);
        for ((pixel, &level), ((y, cb), cr)) in pixels.iter().zip(levels).zip(outputs) {
            let [r, g, b] = pixel.map(i32::from);
            let color = &self.colors[usize::from(level)];
            let component = |at: usize| {
                let [of_r, of_g, of_b] = weights[at];
                let sum = of_r * r + of_g * g + of_b * b;
                let mixed = match BY_LEVEL {
                    true => {
                        let kept = sum >> (FRACTION_BITS - KEPT_BITS);
                        (kept * color[3] + color[at]) >> BY_LEVEL_BITS
                    }
                    false => (sum + color[at]) >> FRACTION_BITS,
                };
                mixed.clamp(0, 255) as u8
            };
            (*y, *cb, *cr) = (component(0), component(1), component(2));
        }
        mixed
    }
}

/// A row to mix, as pulp compiles it for other instructions than the rest of the program.
struct Row<'a> {
    blend: &'a YcbcrBlend,
    pixels: &'a [[u8; 3]],
    levels: &'a [u8],
    /// Y, Cb and Cr.
    components: [&'a mut [u8]; 3],
}

impl WithSimd for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        match self.blend.by_level {
            true => self.mix::<true>(),
            false => self.mix::<false>(),
        }
    }
}

impl Row<'_> {
    #[inline(always)]
    fn mix<const BY_LEVEL: bool>(self) {
        let Self { blend, pixels, levels, components: [y, cb, cr] } = self;
        let (pixels, last_pixels) = pixels.as_chunks::<CHUNK>();
        let (levels, last_levels) = levels.as_chunks::<CHUNK>();
        let (y, last_y) = y.as_chunks_mut::<CHUNK>();
        let (cb, last_cb) = cb.as_chunks_mut::<CHUNK>();
        let (cr, last_cr) = cr.as_chunks_mut::<CHUNK>();
        let outputs = y.iter_mut().zip(cb).zip(cr);
        for ((pixels, levels), ((y, cb), cr)) in pixels.iter().zip(levels).zip(outputs) {
            [*y, *cb, *cr] = blend.mix::<BY_LEVEL>(pixels, levels);
        }
        // The pixels after the last whole chunk, padded.
        let count = last_pixels.len();
        if count > 0 {
            let (mut pixels, mut levels) = ([[0; 3]; CHUNK], [0; CHUNK]);
            pixels[..count].copy_from_slice(last_pixels);
            levels[..count].copy_from_slice(last_levels);
            let mixed = blend.mix::<BY_LEVEL>(&pixels, &levels);
            for (last, mixed) in [last_y, last_cb, last_cr].into_iter().zip(mixed) {
                last.copy_from_slice(&mixed[..count]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_the_formula_to_rounding() {
        let colors =
            std::array::from_fn(|level| [level as u8, 255 - level as u8, (level * 7) as u8]);
        let styles = [OverlayOpacity::Constant, OverlayOpacity::Heat];
        for (alpha, opacity) in
            [0.0, 0.4, 1.0].into_iter().flat_map(|alpha| styles.map(|style| (alpha, style)))
        {
            let blend = YcbcrBlend::new(alpha, opacity, &colors);
            let pixels: Vec<[u8; 3]> =
                (0..1000_u32).map(|x| [x * 37, x * 101, x * 53].map(|value| value as u8)).collect();
            let levels: Vec<u8> = (0..1000_u32).map(|x| (x * 11) as u8).collect();
            let mut rows = [vec![7], vec![7], vec![7]];
            let [y, cb, cr] = &mut rows;
            blend.append_row(&pixels, &levels, [y, cb, cr]);
            let alphas = weights_by_level(alpha, opacity);
            for (at, row) in rows.iter().enumerate() {
                assert_eq!((row.len(), row[0]), (1001, 7));
                for (x, &found) in row[1..].iter().enumerate() {
                    let color = colors[usize::from(levels[x])];
                    let alpha = alphas[usize::from(levels[x])];
                    let mixed = |channel: usize| {
                        (1.0 - alpha) * f64::from(pixels[x][channel])
                            + alpha * f64::from(color[channel])
                    };
                    let sum: f64 = (0..3).map(|channel| YCBCR[at][channel] * mixed(channel)).sum();
                    let exact = (sum + OFFSETS[at]).clamp(0.0, 255.0);
                    assert!((f64::from(found) - exact).abs() <= 0.51, "{found} is not {exact}");
                }
            }
        }
    }

    #[test]
    fn rows_do_not_depend_on_their_length() {
        let colors = std::array::from_fn(|level| [level as u8; 3]);
        let blend = YcbcrBlend::new(0.4, OverlayOpacity::Heat, &colors);
        let pixels: Vec<[u8; 3]> =
            (0..200_u32).map(|x| [x * 37, x * 101, x * 53].map(|value| value as u8)).collect();
        let levels: Vec<u8> = (0..200_u32).map(|x| (x * 11) as u8).collect();
        let row = |from: usize, to: usize| {
            let mut rows = [vec![], vec![], vec![]];
            let [y, cb, cr] = &mut rows;
            blend.append_row(&pixels[from..to], &levels[from..to], [y, cb, cr]);
            rows
        };
        let whole = row(0, 200);
        for (from, to) in [(0, 0), (3, 4), (0, 63), (0, 64), (1, 66), (7, 200)] {
            let part = row(from, to);
            for (part, whole) in part.iter().zip(&whole) {
                assert_eq!(part[..], whole[from..to]);
            }
        }
    }
}
