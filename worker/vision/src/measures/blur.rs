//! The blur effect of Crete et al. 2007, <https://hal.science/hal-00232709>: if a picture is
//! blurred already, blurring it again hardly changes its edges.
//!
//! Computes what scikit-image 0.26's `skimage.measure.blur_effect(image, h_size=11)` computes.
//! Along each axis, `S` is the Sobel response of the picture, and `B` the response of the picture
//! averaged over 11 pixels along the axis. The kept share of edges is `Σ min(|S|, |B|) / Σ |S|` (in
//! scikit-image: `Σ |S|` less `Σ max(0, |S| - |B|)`). The measure is the larger share of both axes.
//! Only pixels 2 to n-2 count. Downstream: [`measure`](super::measure).

use super::reduced::{Luma, STEPS};

/// Number of pixels that are averaged.
const LENGTH: i16 = 11;
/// The Sobel response of the averaged picture depends on pixels up to this distance.
const REACH: usize = LENGTH as usize / 2 + 1;
/// The shortest side with a pixel that counts.
const SMALLEST_SIDE: usize = 4;
/// Steps of brightness in a level of a byte. `11 * 4 * 255 * 2` still fits 16 bits; every x86
/// compares and multiplies eight such numbers at once.
const HALVES: u32 = 2;
/// Number of pixels whose sum fits 32 bits.
const MAX_SUMMED: usize = 65536;

/// The blur effect: 0 is sharp, 1 is blurred. It is 1 for a picture without edges along an axis, as
/// in scikit-image. It is 0 for a picture with a side of less than 4 pixels; scikit-image returns
/// NaN.
#[inline(always)]
pub(super) fn blur(luma: &Luma) -> f32 {
    if luma.width.min(luma.height) < SMALLEST_SIDE {
        return 0.0;
    }
    let picture = HalfLevels::of(luma);
    edges_down(&picture).kept_share().max(edges_across(&picture).kept_share())
}

/// Brightness in half levels.
struct HalfLevels {
    width: usize,
    height: usize,
    values: Vec<i16>,
}

impl HalfLevels {
    #[inline(always)]
    fn of(luma: &Luma) -> Self {
        const STEP: u16 = (STEPS / HALVES) as u16;
        let values = luma.values.iter().map(|value| ((value + STEP / 2) / STEP).cast_signed());
        Self { width: luma.width, height: luma.height, values: values.collect() }
    }

    /// A row. Beyond the picture's edges, rows are mirrored.
    fn row(&self, y: isize) -> &[i16] {
        &self.values[reflected(y, self.height) * self.width..][..self.width]
    }
}

/// Sums of Sobel responses. They are multiplied by 11, as the sums of 11 pixels are.
#[derive(Clone, Copy, Debug, Default)]
struct EdgeSums {
    all: u64,
    kept: u64,
}

impl EdgeSums {
    fn kept_share(self) -> f32 {
        if self.all == 0 { 1.0 } else { (self.kept as f64 / self.all as f64) as f32 }
    }

    /// Adds the responses of a row: those of the picture, and those of sums of 11 of its pixels.
    #[inline(always)]
    fn add(&mut self, sharp: &[i16], summed: &[i16]) {
        for (sharp, summed) in sharp.chunks(MAX_SUMMED).zip(summed.chunks(MAX_SUMMED)) {
            let (mut all, mut kept) = (0, 0);
            for (&sharp, &summed) in sharp.iter().zip(summed) {
                let (sharp, summed) = (LENGTH * sharp.max(-sharp), summed.max(-summed));
                all += i32::from(sharp);
                kept += i32::from(sharp.min(summed));
            }
            self.all += u64::from(all.cast_unsigned());
            self.kept += u64::from(kept.cast_unsigned());
        }
    }
}

/// Sums the edges from top to bottom. A Sobel filter weighs pixels 1, 2, 1 across its axis and
/// takes their difference along it. Two sums of 11 pixels, two pixels apart, differ only by the two
/// pixels at each end.
#[inline(always)]
fn edges_down(picture: &HalfLevels) -> EdgeSums {
    let width = picture.width;
    let (mut near, mut far) = (vec![0; width], vec![0; width]);
    let (mut sharp, mut summed) = (vec![0; width - 3], vec![0; width - 3]);
    let (mut edges, reach) = (EdgeSums::default(), REACH as isize);
    for y in 2..picture.height as isize - 1 {
        let row = |by: isize| picture.row(y + by);
        subtract_sums(&mut near, [row(1)], [row(-1)]);
        subtract_sums(&mut far, [row(reach), row(reach - 1)], [row(1 - reach), row(-reach)]);
        weigh_neighbours(&mut sharp, [&near[1..], &near[2..], &near[3..]]);
        weigh_neighbours(&mut summed, [&far[1..], &far[2..], &far[3..]]);
        edges.add(&sharp, &summed);
    }
    edges
}

/// Sums the edges from left to right.
#[inline(always)]
fn edges_across(picture: &HalfLevels) -> EdgeSums {
    let width = picture.width;
    // With mirrored pixels beyond both ends.
    let mut weighed = vec![0; width + 2 * REACH];
    let (mut sharp, mut summed) = (vec![0; width - 3], vec![0; width - 3]);
    let (mut edges, reach) = (EdgeSums::default(), REACH as isize);
    for y in 2..picture.height as isize - 1 {
        let rows = [picture.row(y - 1), picture.row(y), picture.row(y + 1)];
        weigh_neighbours(&mut weighed[REACH..][..width], rows);
        for beyond in 0..REACH {
            let (before, after) = (beyond as isize - reach, (width + beyond) as isize);
            weighed[beyond] = weighed[REACH + reflected(before, width)];
            weighed[REACH + width + beyond] = weighed[REACH + reflected(after, width)];
        }
        // The row from pixel 2 + `by` on.
        let from = |by: isize| &weighed[(reach + 2 + by) as usize..];
        subtract_sums(&mut sharp, [from(1)], [from(-1)]);
        subtract_sums(&mut summed, [from(reach), from(reach - 1)], [from(1 - reach), from(-reach)]);
        edges.add(&sharp, &summed);
    }
    edges
}

/// Writes the sums of `after` less the sums of `before`.
#[inline(always)]
fn subtract_sums<const N: usize>(to: &mut [i16], after: [&[i16]; N], before: [&[i16]; N]) {
    let (after, before) = (after.map(|one| &one[..to.len()]), before.map(|one| &one[..to.len()]));
    for (at, to) in to.iter_mut().enumerate() {
        let mut sum = 0;
        for one in 0..N {
            sum += after[one][at] - before[one][at];
        }
        *to = sum;
    }
}

/// Writes the sums of three neighbours, weighed 1, 2, 1.
#[inline(always)]
fn weigh_neighbours(to: &mut [i16], neighbours: [&[i16]; 3]) {
    let [one, two, three] = neighbours.map(|one| &one[..to.len()]);
    for (at, to) in to.iter_mut().enumerate() {
        *to = one[at] + 2 * two[at] + three[at];
    }
}

/// The index of a pixel in a line that is mirrored at its ends: scipy's mode `reflect`,
/// `c b a | a b c | c b a`.
fn reflected(at: isize, length: usize) -> usize {
    let at = at.rem_euclid(2 * length as isize) as usize;
    if at < length { at } else { 2 * length - 1 - at }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn luma(width: usize, height: usize, value: impl Fn(usize, usize) -> usize) -> Luma {
        let at = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        let values = at.map(|(x, y)| value(x, y) as u16 * 256).collect();
        Luma { width, height, values }
    }

    /// ```python
    /// import numpy as np, skimage.measure  # scikit-image 0.26.0
    /// def blur(w, h):
    ///     y, x = np.mgrid[:h, :w]
    ///     i = ((x * x * 7 + y * y * 3 + x * y * 5) // 11 % 256).astype(np.uint8)
    ///     return skimage.measure.blur_effect(i, h_size=11)
    /// print([blur(*s) for s in [(64, 48), (7, 31), (4, 4), (300, 5)]])
    /// ```
    #[test]
    fn numbers_are_scikit_images() {
        let pattern = |x: usize, y: usize| (x * x * 7 + y * y * 3 + x * y * 5) / 11 % 256;
        for (width, height, expected) in REFERENCE {
            let found = blur(&luma(width, height, pattern));
            assert!((found - expected).abs() < 1e-5, "{width}x{height}: {found}, not {expected}");
        }
    }

    const REFERENCE: [(usize, usize, f32); 4] =
        [(64, 48, 0.185_861_4), (7, 31, 0.520_188_1), (4, 4, 0.1875), (300, 5, 0.116_045_7)];

    #[test]
    fn what_has_no_edges_is_blurred_and_what_has_no_pixels_is_not_judged() {
        assert_eq!(blur(&luma(20, 20, |_, _| 7)), 1.0);
        for (width, height) in [(0, 0), (1, 1), (1, 9000), (3, 3), (50, 3)] {
            assert_eq!(blur(&luma(width, height, |x, y| (x * 99 + y * 37) % 256)), 0.0);
        }
    }

    #[test]
    fn rows_longer_than_what_is_summed_at_once_are_summed_whole() {
        let checks = |x: usize, y: usize| (x / 3 + y / 3) % 2 * 255;
        let (short, long) = (blur(&luma(600, 12, checks)), blur(&luma(6000, 12, checks)));
        assert!((short - long).abs() < 2e-3, "{short} and {long}");
    }
}
