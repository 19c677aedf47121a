//! The visible grid of a JPEG's blocks: steps of brightness at every eighth pixel that are larger than
//! those between. After Wang, Sheikh and Bovik 2002, "No-reference perceptual quality assessment of JPEG
//! compressed images", who compare the same two means.
//!
//! Measured at the picture's own resolution, since scaling moves the grid. The grid may begin anywhere:
//! the picture may have been cropped, or turned upright. Upstream: a decoded picture. Downstream:
//! [`measure`](super::measure).

use image::RgbImage;

/// The side of a JPEG's block, in pixels (ITU-T T.81, A.1.1).
const BLOCK: usize = 8;
/// Larger steps count as this many levels: they are edges of things.
const LARGEST_STEP: u8 = 24;
/// Added to both means, in levels, so that a smooth picture has no chance grid.
const SMOOTH: f64 = 0.1;
/// Rows of blocks that are measured, spread over the picture: more take longer and tell little more.
const MAX_BLOCK_ROWS: usize = 12;
/// Below this side a mean has too few steps.
const SMALLEST_SIDE: usize = 4 * BLOCK;

/// How much larger the mean step is on the grid than beside it, as a share: 0.5 is half as large again.
/// The smaller number of both axes, since things with a grid of their own seldom have it along both. 0 if
/// there is none, or for a small picture.
#[inline(always)]
pub(super) fn blocking(picture: &RgbImage) -> f32 {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    if width.min(height) < SMALLEST_SIDE {
        return 0.0;
    }
    let mut across = GridSteps::default();
    let mut down = GridSteps::default();
    let block_rows = height / BLOCK;
    let (mut above, mut row) = (vec![0; width], vec![0; width]);
    for block_row in (0..block_rows).step_by(block_rows.div_ceil(MAX_BLOCK_ROWS)) {
        let top = block_row * BLOCK;
        read_row(picture, top.saturating_sub(1), &mut above);
        for y in top..top + BLOCK {
            read_row(picture, y, &mut row);
            across.add_line(&row);
            if y > 0 {
                down.sums[y % BLOCK] += sum_of_steps(&above, &row);
                down.counts[y % BLOCK] += width as u64;
            }
            std::mem::swap(&mut above, &mut row);
        }
    }
    across.strength().min(down.strength()).max(0.0) as f32
}

/// Writes a row's green, the largest part of luma.
#[inline(always)]
fn read_row(picture: &RgbImage, y: usize, to: &mut [u8]) {
    let start = 3 * picture.width() as usize * y;
    let pixels = picture.as_raw()[start..].as_chunks::<3>().0;
    to.iter_mut().zip(pixels).for_each(|(green, pixel)| *green = pixel[1]);
}

#[inline(always)]
fn step(one: u8, other: u8) -> u8 {
    one.abs_diff(other).min(LARGEST_STEP)
}

#[inline(always)]
fn sum_of_steps(one: &[u8], other: &[u8]) -> u64 {
    let mut sum = 0;
    // Of 64 steps the sum fits 16 bits.
    for (one, other) in one.chunks(64).zip(other.chunks(64)) {
        let mut steps = 0u16;
        for (&one, &other) in one.iter().zip(other) {
            steps += u16::from(step(one, other));
        }
        sum += u64::from(steps);
    }
    sum
}

/// Sums and numbers of steps along an axis, by their position modulo 8.
#[derive(Debug, Default)]
struct GridSteps {
    sums: [u64; BLOCK],
    counts: [u64; BLOCK],
}

impl GridSteps {
    /// Adds the steps from pixel to pixel of a line.
    #[inline(always)]
    fn add_line(&mut self, line: &[u8]) {
        let (starts, ends) = (&line[..line.len() - 1], &line[1..]);
        let (eights, next_eights) = (starts.as_chunks::<BLOCK>().0, ends.as_chunks::<BLOCK>().0);
        // Of 1,024 steps the sum fits 16 bits.
        for (eights, next_eights) in eights.chunks(1024).zip(next_eights.chunks(1024)) {
            let mut sums = [0u16; BLOCK];
            for (eight, next) in eights.iter().zip(next_eights) {
                for (sum, (&one, &other)) in sums.iter_mut().zip(eight.iter().zip(next)) {
                    *sum += u16::from(step(one, other));
                }
            }
            self.sums.iter_mut().zip(sums).for_each(|(all, sum)| *all += u64::from(sum));
            self.counts.iter_mut().for_each(|count| *count += eights.len() as u64);
        }
    }

    /// The mean of the position with the largest mean step, divided by that of the others, less 1.
    fn strength(&self) -> f64 {
        let mean = |sum: u64, count: u64| sum as f64 / count.max(1) as f64;
        let (all, count): (u64, u64) = (self.sums.iter().sum(), self.counts.iter().sum());
        let of_position = self.sums.iter().zip(&self.counts).map(|(&at, &steps)| {
            (mean(at, steps) + SMOOTH) / (mean(all - at, count - steps) + SMOOTH) - 1.0
        });
        of_position.fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use image::{Rgb, imageops};

    use super::*;

    /// Waves that fit no grid, averaged over blocks of `side` pixels by `share`.
    fn blocks(size: u32, offset: u32, share: f32) -> RgbImage {
        let wave =
            |x: f32, y: f32| 128.0 + 50.0 * (x / 17.3).sin() + 40.0 * (y / 13.1 + x / 40.0).cos();
        RgbImage::from_fn(size, size, |x, y| {
            let middle = |at: u32| ((at + offset) / 8 * 8) as f32 + 3.5 - offset as f32;
            let value =
                (1.0 - share) * wave(x as f32, y as f32) + share * wave(middle(x), middle(y));
            Rgb([value as u8; 3])
        })
    }

    #[test]
    fn the_stronger_the_blocks_the_larger_the_number() {
        let found = [0.0, 0.2, 0.5, 0.8].map(|share| blocking(&blocks(200, 0, share)));
        assert!(found[0] < 0.2 && found.is_sorted_by(|one, other| one + 0.1 < *other), "{found:?}");
    }

    #[test]
    fn the_grid_may_begin_anywhere_and_scaling_removes_it() {
        let strong = blocking(&blocks(200, 0, 0.5));
        for offset in 1..8 {
            let found = blocking(&blocks(200, offset, 0.5));
            assert!((found - strong).abs() < 0.2 * strong, "{offset}: {found}, not {strong}");
        }
        let scaled =
            imageops::resize(&blocks(200, 0, 0.5), 170, 170, imageops::FilterType::Triangle);
        assert!(blocking(&scaled) < 0.4 * strong, "{} and {strong}", blocking(&scaled));
    }

    #[test]
    fn a_grid_along_one_axis_is_none_of_a_jpeg() {
        let bars = RgbImage::from_fn(300, 300, |x, y| {
            Rgb([if x / 8 % 2 == 0 { 90 } else { 110 } + (y % 3) as u8; 3])
        });
        assert!(blocking(&bars) < 0.2, "{}", blocking(&bars));
    }

    #[test]
    fn plain_and_small_pictures_have_none() {
        for (width, height) in [(0, 0), (1, 1), (31, 400), (64, 64), (1200, 33)] {
            assert_eq!(blocking(&RgbImage::from_pixel(width, height, Rgb([7; 3]))), 0.0);
        }
    }
}
