//! Reduces a picture by a whole factor before it is measured. Then the measures of different
//! resolutions can be compared, and take similar time. Small pictures are not enlarged. The
//! result has whole numbers, so that a picture has the same measures on every machine. A picture that
//! was decoded at a reduced scale becomes as large as it would become at its full size: the boxes are
//! those of the file's pixels.
//!
//! Upstream: [`measure`](super::measure). Downstream: `blur`, `brightness` and `perceptual_hash`.

use crate::picture::Picture;

/// The factor is chosen so that the shorter side becomes 256 to 511 pixels, or stays smaller.
pub(crate) const SHORTER_SIDE: u32 = 256;
/// The longer side is at most this, which bounds time and memory for long, thin pictures. Pictures
/// up to sixteen times as long as wide are not affected.
const LONGEST_SIDE: u32 = 8192;

/// Steps of [`Luma`] from one level of a byte to the next.
pub(super) const STEPS: u32 = 256;
/// White in [`Luma`].
pub(super) const WHITE: u32 = 255 * STEPS;

/// ITU-R BT.601's weights of red, green and blue, in 65536ths.
const BT_601: [u32; 3] = [19595, 38470, 7471];

/// Brightness, row by row, from 0 to [`WHITE`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Luma {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) values: Vec<u16>,
}

impl Luma {
    pub(super) fn row(&self, y: usize) -> &[u16] {
        &self.values[y * self.width..][..self.width]
    }
}

/// A reduced picture, and its mean chroma.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ReducedPicture {
    pub(super) luma: Luma,
    /// Mean over pixels of the largest less the smallest of red, green and blue, 0 to 1.
    pub(super) chroma: f32,
}

impl ReducedPicture {
    /// Averages boxes of pixels. Pixels left over at the right and lower edge don't count.
    #[inline(always)]
    pub(super) fn of(Picture { pixels, frame }: Picture<'_>) -> Self {
        let (wide, high) = frame.size;
        let (shorter, longer) = (wide.min(high), wide.max(high));
        // A picture without pixels has no factor.
        let factor = if shorter == 0 {
            1
        } else {
            (shorter / SHORTER_SIDE).max(longer.div_ceil(LONGEST_SIDE)).max(1)
        };
        // A side shorter than the factor is one box.
        let [across, down] = [wide, high].map(|side| factor.min(side).max(1));
        let (width, height) = ((wide / across) as usize, (high / down) as usize);
        let mut values = Vec::with_capacity(width * height);
        let mut spread = 0;
        if (across, down) == (1, 1) {
            let pixels = pixels.as_raw().as_chunks::<3>().0;
            // Plain loops: iterators' own functions are not compiled for the caller's instructions.
            values.resize(pixels.len(), 0);
            for (value, &[r, g, b]) in values.iter_mut().zip(pixels) {
                *value = brightness([u32::from(r), u32::from(g), u32::from(b)]);
            }
            // Of 65,536 pixels the sum fits 32 bits.
            for pixels in pixels.chunks(1 << 16) {
                let mut sum = 0;
                for &[r, g, b] in pixels {
                    sum += u32::from(r.max(g).max(b) - r.min(g).min(b));
                }
                spread += u64::from(sum);
            }
        } else {
            let part = 1.0 / (across * down) as f32;
            let divisor = frame.scale.divisor();
            let line = 3 * pixels.width() as usize;
            let mut sums = vec![0u32; line];
            for row in 0..height as u32 {
                sums.fill(0);
                for (y, weight) in parts(frame.margin.1 + row * down, down, divisor) {
                    let bytes = &pixels.as_raw()[y * line..][..line];
                    sums.iter_mut()
                        .zip(bytes)
                        .for_each(|(sum, &byte)| *sum += weight * u32::from(byte));
                }
                let columns = sums.as_chunks::<3>().0;
                for column in 0..width as u32 {
                    let parts = parts(frame.margin.0 + column * across, across, divisor);
                    let [r, g, b] = parts.fold([0; 3], |[r, g, b], (x, weight)| {
                        let [of_r, of_g, of_b] = columns[x];
                        [r + weight * of_r, g + weight * of_g, b + weight * of_b]
                    });
                    spread += u64::from(r.max(g).max(b) - r.min(g).min(b));
                    values.push(mean_brightness([r, g, b], part));
                }
            }
        }
        let whole = (values.len() as u64 * u64::from(across * down)).max(1) as f64 * 255.0;
        Self { luma: Luma { width, height, values }, chroma: (spread as f64 / whole) as f32 }
    }
}

/// Which decoded pixels a box covers along an axis, and how much of each. All is in the file's pixels,
/// and a decoded pixel is `divisor` of them wide.
#[inline(always)]
fn parts(start: u32, length: u32, divisor: u32) -> impl Iterator<Item = (usize, u32)> {
    let end = start + length;
    (start / divisor..end.div_ceil(divisor)).map(move |pixel| {
        let (left, right) = (pixel * divisor, (pixel + 1) * divisor);
        (pixel as usize, right.min(end) - left.max(start))
    })
}

/// Brightness of a pixel.
#[inline(always)]
fn brightness([r, g, b]: [u32; 3]) -> u16 {
    ((BT_601[0] * r + BT_601[1] * g + BT_601[2] * b + STEPS / 2) / STEPS) as u16
}

/// Mean brightness of a box of pixels, from its sums; `part` is the share of a pixel.
#[inline(always)]
fn mean_brightness(sums: [u32; 3], part: f32) -> u16 {
    let weight = |at: usize| BT_601[at] as f32 / STEPS as f32;
    let mean = |at: usize| sums[at] as f32 * part;
    (weight(0) * mean(0) + weight(1) * mean(1) + weight(2) * mean(2)).round() as u16
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

    use super::*;

    fn reduce(picture: &RgbImage) -> ReducedPicture {
        ReducedPicture::of(picture.into())
    }

    #[test]
    fn sides_are_brought_down_by_a_whole_factor() {
        for (size, reduced) in [
            ((500, 375), (500, 375)),
            ((511, 2000), (511, 2000)),
            ((513, 1025), (256, 512)),
            ((1024, 768), (341, 256)),
            ((1, 1), (1, 1)),
            ((1, 300_000), (1, 8108)),
            ((60_000, 20), (7500, 2)),
        ] {
            let Luma { width, height, values } = reduce(&RgbImage::new(size.0, size.1)).luma;
            assert_eq!((width, height), reduced, "{size:?}");
            assert_eq!(values.len(), width * height);
        }
    }

    #[test]
    fn luma_is_bt_601s_of_the_average() {
        let color = |r, g, b| reduce(&RgbImage::from_pixel(2, 2, Rgb([r, g, b]))).luma.values[0];
        let close = |found: u16, expected: f64| {
            assert!((f64::from(found) / 256.0 - expected).abs() < 0.01, "{found}: {expected}");
        };
        close(color(255, 0, 0), 0.299 * 255.0);
        close(color(0, 255, 0), 0.587 * 255.0);
        close(color(0, 0, 255), 0.114 * 255.0);
        assert_eq!(u32::from(color(255, 255, 255)), WHITE);
        assert_eq!(color(0, 0, 0), 0);
        assert_eq!(color(77, 77, 77), 77 * 256);
        // Lines of black and white, and a column that is left over.
        let lines = RgbImage::from_fn(513, 512, |x, y| {
            Rgb([if x == 512 || y % 2 == 0 { 255 } else { 0 }; 3])
        });
        let ReducedPicture { luma, chroma } = reduce(&lines);
        assert_eq!((luma.width, luma.height, chroma), (256, 256, 0.0));
        assert!(luma.values.iter().all(|&value| u32::from(value) == WHITE / 2));
        let same = reduce(&RgbImage::from_pixel(700, 600, Rgb([77, 77, 77])));
        assert!(same.luma.values.iter().all(|&value| value == 77 * 256));
    }

    #[test]
    fn chroma_is_the_mean_spread_of_the_channels() {
        for size in [3, 600] {
            let chroma = |color| reduce(&RgbImage::from_pixel(size, size, Rgb(color))).chroma;
            assert_eq!(chroma([9, 9, 9]), 0.0);
            assert_eq!(chroma([255, 0, 40]), 1.0);
            assert!((chroma([0, 51, 20]) - 0.2).abs() < 1e-6);
        }
    }
}
