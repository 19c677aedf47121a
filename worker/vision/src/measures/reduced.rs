//! Reduces a picture by a whole factor before it is measured. Then the measures of different
//! resolutions can be compared, and take similar time. Small pictures are not enlarged. The
//! result has whole numbers, so that a picture has the same measures on every machine.
//!
//! Upstream: [`measure`](super::measure). Downstream: `blur`, `brightness` and `perceptual_hash`.

use image::RgbImage;

/// The factor is chosen so that the shorter side becomes 256 to 511 pixels, or stays smaller.
const SHORTER_SIDE: u32 = 256;
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
    pub(super) fn of(picture: &RgbImage) -> Self {
        let (shorter, longer) =
            (picture.width().min(picture.height()), picture.width().max(picture.height()));
        // A picture without pixels has no factor.
        let factor = if shorter == 0 {
            1
        } else {
            (shorter / SHORTER_SIDE).max(longer.div_ceil(LONGEST_SIDE)).max(1)
        };
        // A side shorter than the factor is one box.
        let [across, down] =
            [picture.width(), picture.height()].map(|side| factor.min(side).max(1) as usize);
        let (width, height) = (picture.width() as usize / across, picture.height() as usize / down);
        let mut values = Vec::with_capacity(width * height);
        let mut spread = 0;
        let line = 3 * picture.width() as usize;
        if (across, down) == (1, 1) {
            let pixels = picture.as_raw().as_chunks::<3>().0;
            values.extend(pixels.iter().map(|pixel| brightness(pixel.map(u32::from))));
            // Of 65,536 pixels the sum fits 32 bits.
            for pixels in pixels.chunks(1 << 16) {
                let spreads = pixels.iter().map(|&[r, g, b]| r.max(g).max(b) - r.min(g).min(b));
                spread += u64::from(spreads.map(u32::from).sum::<u32>());
            }
        } else {
            let part = 1.0 / (across * down) as f32;
            let mut sums = vec![0u32; line];
            for lines in picture.as_raw().chunks_exact(down * line) {
                sums.fill(0);
                for bytes in lines.chunks_exact(line) {
                    sums.iter_mut().zip(bytes).for_each(|(sum, &byte)| *sum += u32::from(byte));
                }
                for pixels in sums.as_chunks::<3>().0.chunks_exact(across) {
                    let [r, g, b] = pixels.iter().fold([0; 3], |[r, g, b], pixel| {
                        [r + pixel[0], g + pixel[1], b + pixel[2]]
                    });
                    spread += u64::from(r.max(g).max(b) - r.min(g).min(b));
                    values.push(mean_brightness([r, g, b], part));
                }
            }
        }
        let whole = (values.len() * across * down).max(1) as f64 * 255.0;
        Self { luma: Luma { width, height, values }, chroma: (spread as f64 / whole) as f32 }
    }
}

/// Brightness of a pixel.
#[inline(always)]
fn brightness([r, g, b]: [u32; 3]) -> u16 {
    ((BT_601[0] * r + BT_601[1] * g + BT_601[2] * b + STEPS / 2) / STEPS) as u16
}

/// Mean brightness of a box of pixels, from its sums; `part` is the share of a pixel.
#[inline(always)]
fn mean_brightness(sums: [u32; 3], part: f32) -> u16 {
    let [r, g, b] = sums.map(|sum| sum as f32 * part);
    let weights = BT_601.map(|weight| weight as f32 / STEPS as f32);
    (weights[0] * r + weights[1] * g + weights[2] * b).round() as u16
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

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
            let Luma { width, height, values } =
                ReducedPicture::of(&RgbImage::new(size.0, size.1)).luma;
            assert_eq!((width, height), reduced, "{size:?}");
            assert_eq!(values.len(), width * height);
        }
    }

    #[test]
    fn luma_is_bt_601s_of_the_average() {
        let color = |r, g, b| {
            ReducedPicture::of(&RgbImage::from_pixel(2, 2, Rgb([r, g, b]))).luma.values[0]
        };
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
        let ReducedPicture { luma, chroma } = ReducedPicture::of(&lines);
        assert_eq!((luma.width, luma.height, chroma), (256, 256, 0.0));
        assert!(luma.values.iter().all(|&value| u32::from(value) == WHITE / 2));
        let same = ReducedPicture::of(&RgbImage::from_pixel(700, 600, Rgb([77, 77, 77])));
        assert!(same.luma.values.iter().all(|&value| value == 77 * 256));
    }

    #[test]
    fn chroma_is_the_mean_spread_of_the_channels() {
        for size in [3, 600] {
            let chroma =
                |color| ReducedPicture::of(&RgbImage::from_pixel(size, size, Rgb(color))).chroma;
            assert_eq!(chroma([9, 9, 9]), 0.0);
            assert_eq!(chroma([255, 0, 40]), 1.0);
            assert!((chroma([0, 51, 20]) - 0.2).abs() < 1e-6);
        }
    }
}
