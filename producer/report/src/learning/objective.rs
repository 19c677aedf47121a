//! What the fit of a multinomial head minimises, and its gradient: the mean cross-entropy of the
//! rows and half the squared weights times the strength of the regularisation. Biases are free.

use rayon::prelude::*;

use super::exponential::exponentials;
use super::feature_matrix::FeatureMatrix;
use super::products::{LANES, Lanes, ROW_BLOCK, add_product, add_turned_product, vectorised};

/// Rows that are multiplied at once: their features stay in the cache.
const CHUNK_ROWS: usize = 128;
/// Rows whose sums one thread adds up. Sums of shards are added in their order.
const SHARD_ROWS: usize = 16 * CHUNK_ROWS;
/// The logit of lanes after the last class. Its exponential is 0 beside any class's.
const NO_CLASS: f32 = -1e30;

/// Weights by panel and feature, and biases by panel.
#[derive(Clone, Debug)]
pub(super) struct PanelWeights {
    pub(super) classes: usize,
    /// The stored width of the features.
    pub(super) width: usize,
    /// The weights of the first panel's features, then those of the next panel.
    pub(super) weights: Vec<Lanes>,
    pub(super) biases: Vec<Lanes>,
}

/// Features and probabilities of the rows at hand.
pub(super) struct Chunk {
    features: Vec<f32>,
    /// The first panel's probabilities of all rows, then those of the next panel.
    probabilities: Vec<Lanes>,
    /// With zeros up to whole blocks.
    rows: usize,
}

/// The examples of a fit.
pub(super) struct Examples<'a> {
    pub(super) features: &'a FeatureMatrix,
    pub(super) rows: &'a [u32],
    /// By row of the features.
    pub(super) classes: &'a [u32],
    pub(super) strength: f64,
}

impl PanelWeights {
    pub(super) fn zeros(classes: usize, width: usize) -> Self {
        let panels = classes.div_ceil(LANES);
        let (weights, biases) = (vec![[0.0; LANES]; panels * width], vec![[0.0; LANES]; panels]);
        Self { classes, width, weights, biases }
    }

    /// The weights and biases in one row, for the minimiser.
    pub(super) fn to_point(&self) -> Vec<f64> {
        self.weights.iter().chain(&self.biases).flatten().map(|&value| f64::from(value)).collect()
    }

    /// Takes over weights and biases from the minimiser.
    pub(super) fn set(&mut self, point: &[f64]) {
        let values = self.weights.iter_mut().chain(&mut self.biases).flatten();
        for (value, new) in values.zip(point) {
            *value = *new as f32;
        }
    }

    /// Computes the probabilities of these rows, at most [`CHUNK_ROWS`]: a softmax of linear sums.
    #[inline(always)]
    fn predict(&self, features: &FeatureMatrix, rows: &[u32], chunk: &mut Chunk) {
        let width = self.width;
        chunk.rows = rows.len().next_multiple_of(ROW_BLOCK);
        chunk.features.clear();
        chunk.features.resize(chunk.rows * width, 0.0);
        for (row, into) in rows.iter().zip(chunk.features.chunks_exact_mut(width)) {
            features.read(*row, into);
        }
        chunk.probabilities.clear();
        for (panel, biases) in self.biases.iter().enumerate() {
            let mut biases = *biases;
            let classes = self.classes - panel * LANES;
            biases.iter_mut().skip(classes).for_each(|bias| *bias = NO_CLASS);
            let start = chunk.probabilities.len();
            chunk.probabilities.resize(start + chunk.rows, biases);
            let weights = &self.weights[panel * width..][..width];
            let logits = &mut chunk.probabilities[start..];
            add_product(&chunk.features, width, weights, logits);
        }
        for row in 0..chunk.rows {
            let panels = || (0..self.biases.len()).map(|panel| panel * chunk.rows + row);
            let mut largest = [NO_CLASS; LANES];
            for at in panels() {
                for (largest, logit) in largest.iter_mut().zip(&chunk.probabilities[at]) {
                    *largest = largest.max(*logit);
                }
            }
            let largest = largest.into_iter().fold(NO_CLASS, f32::max);
            let mut sums = [0.0; LANES];
            for at in panels() {
                let values = &mut chunk.probabilities[at];
                values.iter_mut().for_each(|value| *value -= largest);
                exponentials(values);
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum += *value;
                }
            }
            let inverse = 1.0 / sums.iter().sum::<f32>();
            for at in panels() {
                chunk.probabilities[at].iter_mut().for_each(|value| *value *= inverse);
            }
        }
    }

    /// Calls `read` with each row and its probabilities, in parallel. Returns what it returns, in the
    /// order of the rows.
    pub(super) fn map_rows<T: Send>(
        &self,
        features: &FeatureMatrix,
        rows: &[u32],
        read: impl Fn(u32, &[f32]) -> T + Sync,
    ) -> Vec<T> {
        let shards: Vec<Vec<T>> = rows
            .par_chunks(SHARD_ROWS)
            .map(|shard| {
                let (mut chunk, mut found) = (Chunk::new(), Vec::with_capacity(shard.len()));
                let mut probabilities = vec![0.0; self.classes];
                for rows in shard.chunks(CHUNK_ROWS) {
                    vectorised(|| self.predict(features, rows, &mut chunk));
                    for (at, row) in rows.iter().enumerate() {
                        chunk.copy_row(at, &mut probabilities);
                        found.push(read(*row, &probabilities));
                    }
                }
                found
            })
            .collect();
        shards.into_iter().flatten().collect()
    }
}

impl Chunk {
    fn new() -> Self {
        Self { features: Vec::new(), probabilities: Vec::new(), rows: 0 }
    }

    /// Copies the probabilities of a row of the chunk.
    fn copy_row(&self, row: usize, into: &mut [f32]) {
        for (panel, into) in into.chunks_mut(LANES).enumerate() {
            into.copy_from_slice(&self.probabilities[panel * self.rows + row][..into.len()]);
        }
    }
}

/// Sums over a shard of the examples.
struct ShardSums {
    loss: f64,
    gradient: PanelWeights,
}

impl Examples<'_> {
    /// Returns the value at these weights and writes the gradient.
    pub(super) fn evaluate(&self, at: &PanelWeights, gradient: &mut [f64]) -> f64 {
        let shards: Vec<_> =
            self.rows.par_chunks(SHARD_ROWS).map(|rows| self.add_up(at, rows)).collect();
        gradient.fill(0.0);
        let (mut loss, count) = (0.0, self.rows.len().max(1) as f64);
        for shard in shards {
            loss += shard.loss;
            let values = shard.gradient.weights.iter().chain(&shard.gradient.biases).flatten();
            for (sum, value) in gradient.iter_mut().zip(values) {
                *sum += f64::from(*value);
            }
        }
        gradient.iter_mut().for_each(|sum| *sum /= count);
        let mut squared = 0.0;
        for (sum, weight) in gradient.iter_mut().zip(at.weights.iter().flatten()) {
            let weight = f64::from(*weight);
            squared += weight * weight;
            *sum += self.strength * weight;
        }
        loss / count + 0.5 * self.strength * squared
    }

    fn add_up(&self, at: &PanelWeights, shard: &[u32]) -> ShardSums {
        let (mut chunk, mut loss) = (Chunk::new(), 0.0);
        let mut gradient = PanelWeights::zeros(at.classes, at.width);
        for rows in shard.chunks(CHUNK_ROWS) {
            vectorised(|| {
                at.predict(self.features, rows, &mut chunk);
                loss += self.subtract_truth(rows, &mut chunk);
                for (panel, bias) in gradient.biases.iter_mut().enumerate() {
                    let errors = &chunk.probabilities[panel * chunk.rows..][..chunk.rows];
                    for error in errors {
                        bias.iter_mut().zip(error).for_each(|(sum, error)| *sum += error);
                    }
                    let sums = &mut gradient.weights[panel * at.width..][..at.width];
                    add_turned_product(&chunk.features, at.width, errors, sums);
                }
            });
        }
        ShardSums { loss, gradient }
    }

    /// Turns probabilities into errors: 1 less for each row's class, and 0 for rows that only fill a
    /// block. Returns the sum of the rows' cross-entropies.
    #[inline(always)]
    fn subtract_truth(&self, rows: &[u32], chunk: &mut Chunk) -> f64 {
        let mut loss = 0.0;
        for (at, row) in rows.iter().enumerate() {
            let class = self.classes[*row as usize] as usize;
            let panel = &mut chunk.probabilities[class / LANES * chunk.rows + at];
            let probability = &mut panel[class % LANES];
            loss -= f64::from(probability.max(f32::MIN_POSITIVE)).ln();
            *probability -= 1.0;
        }
        for panel in chunk.probabilities.chunks_exact_mut(chunk.rows) {
            panel[rows.len()..].fill([0.0; LANES]);
        }
        loss
    }
}
