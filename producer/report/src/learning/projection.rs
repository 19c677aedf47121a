//! Projects long rows onto the axes along which they vary most.
//!
//! The axes come from a sample of the rows, by subspace iteration (Halko, Martinsson and Tropp 2011,
//! algorithm 4.4). They span the space of the principal components, but are turned within it: heads
//! with one strength for all weights don't mind.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use rayon::prelude::*;

use super::products::{AddProduct, AddTurnedProduct, LANES, Lanes, ROW_BLOCK, vectorised};

/// Rounds of subspace iteration. The paper finds two or three enough.
const ROUNDS: usize = 3;
/// Rows that are multiplied at once.
const CHUNK_ROWS: usize = 64;
/// What the random start is drawn from.
const SEED: u64 = 0x70_72_6f_6a;

/// The mean of a sample, and axes that are orthogonal to each other and of length 1.
#[derive(Debug)]
pub(crate) struct Projection {
    width: usize,
    /// The width with zeros up to a multiple of [`ROW_BLOCK`].
    stored_width: usize,
    mean: Vec<f32>,
    /// The first 16 axes side by side, number by number; then the next 16.
    panels: Vec<Vec<Lanes>>,
}

impl Projection {
    /// Finds about `axes` axes for the rows of `sample`, which lie one after the other; a multiple of
    /// 16.
    pub(crate) fn of_sample(sample: &[f32], width: usize, axes: usize) -> Self {
        let stored_width = width.next_multiple_of(ROW_BLOCK);
        let rows = (sample.len() / width).max(1);
        let mut mean = vec![0.0_f64; width];
        for row in sample.chunks_exact(width) {
            mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        let mean = mean.into_iter().map(|sum| (sum / rows as f64) as f32).collect();
        let mut chance = Pcg64Mcg::seed_from_u64(SEED);
        let panel = |_| {
            let random = (0..stored_width)
                .map(|_| std::array::from_fn(|_| if chance.random::<bool>() { 1.0 } else { -1.0 }));
            random.collect()
        };
        let panels = (0..axes.div_ceil(LANES)).map(panel).collect();
        let mut found = Self { width, stored_width, mean, panels };
        let centred = found.centre(sample);
        for _ in 0..ROUNDS {
            let turn = |panel: &Vec<Lanes>| {
                let mut next = vec![[0.0; LANES]; stored_width];
                for rows in centred.chunks(CHUNK_ROWS * stored_width) {
                    let mut products = vec![[0.0; LANES]; rows.len() / stored_width];
                    let (left, width) = (rows, stored_width);
                    vectorised(AddProduct { left, width, right: panel, sums: &mut products });
                    vectorised(AddTurnedProduct { left, width, right: &products, sums: &mut next });
                }
                next
            };
            found.panels = found.panels.par_iter().map(turn).collect();
            found.make_orthonormal();
        }
        found
    }

    /// The number of axes.
    pub(crate) fn axes(&self) -> usize {
        self.panels.len() * LANES
    }

    /// Projects rows that lie one after the other. Returns the projected rows in the same way.
    pub(crate) fn project(&self, rows: &[f32]) -> Vec<f32> {
        let mut projected = vec![0.0; rows.len() / self.width * self.axes()];
        let chunks = rows.par_chunks(CHUNK_ROWS * self.width);
        chunks.zip(projected.par_chunks_mut(CHUNK_ROWS * self.axes())).for_each(|(rows, into)| {
            let centred = self.centre(rows);
            for (at, panel) in self.panels.iter().enumerate() {
                let mut products = vec![[0.0; LANES]; centred.len() / self.stored_width];
                vectorised(AddProduct {
                    left: &centred,
                    width: self.stored_width,
                    right: panel,
                    sums: &mut products,
                });
                for (row, product) in into.chunks_exact_mut(self.axes()).zip(&products) {
                    row[at * LANES..][..LANES].copy_from_slice(product);
                }
            }
        });
        projected
    }

    /// The rows less the mean, with zeros up to whole blocks.
    fn centre(&self, rows: &[f32]) -> Vec<f32> {
        let count = (rows.len() / self.width).next_multiple_of(ROW_BLOCK);
        let mut centred = vec![0.0; count * self.stored_width];
        for (row, into) in
            rows.chunks_exact(self.width).zip(centred.chunks_exact_mut(self.stored_width))
        {
            for ((into, value), mean) in into.iter_mut().zip(row).zip(&self.mean) {
                *into = value - mean;
            }
        }
        centred
    }

    /// Makes the axes orthogonal and of length 1, by the Gram-Schmidt process, twice. An axis that is
    /// a sum of those before it becomes 0.
    fn make_orthonormal(&mut self) {
        let mut axes: Vec<Vec<f64>> = Vec::with_capacity(self.axes());
        for at in 0..self.axes() {
            let panel = &self.panels[at / LANES];
            let mut axis: Vec<f64> =
                panel.iter().map(|lanes| f64::from(lanes[at % LANES])).collect();
            let before = length(&axis);
            for _ in 0..2 {
                for other in &axes {
                    let along: f64 = axis.iter().zip(other).map(|(a, b)| a * b).sum();
                    axis.iter_mut().zip(other).for_each(|(a, b)| *a -= along * b);
                }
            }
            let after = length(&axis);
            let scale = if after > 1e-6 * before { 1.0 / after } else { 0.0 };
            axis.iter_mut().for_each(|value| *value *= scale);
            for (lanes, value) in self.panels[at / LANES].iter_mut().zip(&axis) {
                lanes[at % LANES] = *value as f32;
            }
            axes.push(axis);
        }
    }
}

fn length(axis: &[f64]) -> f64 {
    axis.iter().map(|value| value * value).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_varies_along_few_axes_keeps_its_distances() {
        // 40 numbers that are sums of three.
        let hidden = |row: usize| [row as f32 % 7.0, row as f32 % 11.0, row as f32 % 13.0];
        let rows: Vec<f32> = (0..200)
            .flat_map(|row| {
                let [a, b, c] = hidden(row);
                (0..40).map(move |at| match at % 4 {
                    0 => a + 5.0,
                    1 => b,
                    2 => c - a,
                    _ => 2.0 * b + c,
                })
            })
            .collect();
        let projection = Projection::of_sample(&rows, 40, 16);
        let projected = projection.project(&rows);
        let distance = |rows: &[f32], width: usize, one: usize, other: usize| {
            let row = |at: usize| rows[at * width..][..width].iter();
            row(one).zip(row(other)).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt()
        };
        for (one, other) in [(0, 1), (3, 100), (57, 199)] {
            let (long, short) =
                (distance(&rows, 40, one, other), distance(&projected, 16, one, other));
            assert!((long - short).abs() < 1e-3 * long, "{long} {short}");
        }
    }
}
