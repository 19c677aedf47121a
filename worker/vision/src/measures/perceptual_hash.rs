//! The perceptual hash: 64 bits that differ little between similar pictures. A variant of pHash
//! (Zauner 2010, <https://www.phash.org/docs/pubs/thesis_zauner.pdf>).
//!
//! The picture is averaged to 32 × 32 pixels. The bits are the signs of the lowest 8 × 8
//! coefficients of its discrete cosine transform. Other implementations compare the coefficients
//! with their median. Signs differ less between copies of a picture, and the hash of the mirrored
//! picture can be computed from them: [`PerceptualHash::mirrored`]. Downstream:
//! [`measure`](super::measure).

use std::f32::consts::PI;

use camshaft_common::measure::PerceptualHash;

use super::reduced::{Luma, WHITE};

/// Side of the picture that is transformed.
const SIDE: usize = 32;
/// Frequencies along each axis.
const FREQUENCIES: usize = 8;
/// A smaller coefficient, below 1/256 of a byte's level, is a rounding error.
const MIN_COEFFICIENT: f32 = 1.0 / 256.0 / 255.0;

/// Computes the hash. A bit is set if its coefficient is positive: the wave begins bright. Eight
/// bits are a row of coefficients, the highest bit first; frequencies from top to bottom grow from
/// row to row. The bit of the mean is never set.
#[inline(always)]
pub(super) fn perceptual_hash(luma: &Luma) -> PerceptualHash {
    let small = small(luma);
    let waves: [[f32; SIDE]; FREQUENCIES] = std::array::from_fn(|frequency| {
        std::array::from_fn(|at| (PI * frequency as f32 * (at as f32 + 0.5) / SIDE as f32).cos())
    });
    let mut hash = 0;
    for down in &waves {
        let mut row = [0.0; SIDE];
        for (line, weight) in small.iter().zip(down) {
            row.iter_mut().zip(line).for_each(|(sum, value)| *sum += weight * value);
        }
        for across in &waves {
            let mean = row.iter().zip(across).map(|(value, weight)| value * weight).sum::<f32>();
            hash = hash << 1 | u64::from(mean / (SIDE * SIDE) as f32 > MIN_COEFFICIENT);
        }
    }
    PerceptualHash(hash & !(1 << 63))
}

/// Averages the picture to 32 × 32 pixels, 0 to 1. Each is the mean of the area that it covers.
#[inline(always)]
fn small(luma: &Luma) -> [[f32; SIDE]; SIDE] {
    let mut small = [[0.0; SIDE]; SIDE];
    let scale = f64::from(WHITE) * (luma.width * luma.height).max(1) as f64;
    let mut sums = vec![0u32; luma.width];
    for (line, rows) in small.iter_mut().zip(parts(luma.height)) {
        sums.fill(0);
        for (y, weight) in rows {
            // The weights add up to the side, at most 8192, so that the sums fit 32 bits.
            let row = luma.row(y);
            sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += weight * u32::from(value));
        }
        for (pixel, columns) in line.iter_mut().zip(parts(luma.width)) {
            let sum: u64 = columns.map(|(x, weight)| u64::from(weight) * u64::from(sums[x])).sum();
            *pixel = (sum as f64 / scale) as f32;
        }
    }
    small
}

/// For each of 32 equal parts of a side: the pixels in it, and how many 32nds of each pixel.
fn parts(side: usize) -> impl Iterator<Item = impl Iterator<Item = (usize, u32)>> {
    (0..SIDE).map(move |part| {
        let (start, end) = (part * side, (part + 1) * side);
        let pixels = start / SIDE..end.div_ceil(SIDE);
        pixels.map(move |pixel| {
            let (from, to) = (start.max(pixel * SIDE), end.min((pixel + 1) * SIDE));
            (pixel, (to - from) as u32)
        })
    })
}
