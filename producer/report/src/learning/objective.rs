//! What the fit of a multinomial head minimises, and its gradient: the mean cross-entropy of the
//! rows and half the squared weights times the strength of the regularisation. Biases are free.

use rayon::prelude::*;

use super::exponential::exponentials;
use super::feature_matrix::FeatureMatrix;
use super::products::{
    LANES, Lanes, ROW_BLOCK, VectorWork, add_product, add_turned_product, vectorised,
};

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
        let panels = self.biases.len();
        let mut row = 0;
        while row < chunk.rows {
            soften(&mut chunk.probabilities, row, chunk.rows, panels);
            row += 1;
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
                    vectorised(Predict { weights: self, features, rows, chunk: &mut chunk });
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

/// Turns the logits of a row into probabilities. They lie in each panel, `rows` apart.
#[inline(always)]
fn soften(values: &mut [Lanes], row: usize, rows: usize, panels: usize) {
    let mut largest = [NO_CLASS; LANES];
    let (mut panel, mut lane);
    panel = 0;
    while panel < panels {
        let logits = values[panel * rows + row];
        lane = 0;
        while lane < LANES {
            largest[lane] = if logits[lane] > largest[lane] { logits[lane] } else { largest[lane] };
            lane += 1;
        }
        panel += 1;
    }
    let mut most = NO_CLASS;
    lane = 0;
    while lane < LANES {
        most = if largest[lane] > most { largest[lane] } else { most };
        lane += 1;
    }
    let mut sums = [0.0; LANES];
    panel = 0;
    while panel < panels {
        let of_panel = &mut values[panel * rows + row];
        lane = 0;
        while lane < LANES {
            of_panel[lane] -= most;
            lane += 1;
        }
        exponentials(of_panel);
        lane = 0;
        while lane < LANES {
            sums[lane] += of_panel[lane];
            lane += 1;
        }
        panel += 1;
    }
    let mut sum = 0.0;
    lane = 0;
    while lane < LANES {
        sum += sums[lane];
        lane += 1;
    }
    panel = 0;
    while panel < panels {
        let of_panel = &mut values[panel * rows + row];
        lane = 0;
        while lane < LANES {
            of_panel[lane] /= sum;
            lane += 1;
        }
        panel += 1;
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

/// The probabilities of a chunk's rows.
struct Predict<'a> {
    weights: &'a PanelWeights,
    features: &'a FeatureMatrix,
    rows: &'a [u32],
    chunk: &'a mut Chunk,
}

impl VectorWork for Predict<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.weights.predict(self.features, self.rows, self.chunk);
    }
}

/// The losses of a chunk's rows, and their gradient, which is added.
struct AddUp<'a> {
    examples: &'a Examples<'a>,
    at: &'a PanelWeights,
    rows: &'a [u32],
    chunk: &'a mut Chunk,
    gradient: &'a mut PanelWeights,
}

impl VectorWork for AddUp<'_> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        let Self { examples, at, rows, chunk, gradient } = self;
        at.predict(examples.features, rows, chunk);
        let loss = examples.subtract_truth(rows, chunk);
        for (panel, bias) in gradient.biases.iter_mut().enumerate() {
            let errors = &chunk.probabilities[panel * chunk.rows..][..chunk.rows];
            let mut row = 0;
            while row < errors.len() {
                let mut lane = 0;
                while lane < LANES {
                    bias[lane] += errors[row][lane];
                    lane += 1;
                }
                row += 1;
            }
            let sums = &mut gradient.weights[panel * at.width..][..at.width];
            add_turned_product(&chunk.features, at.width, errors, sums);
        }
        loss
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
            let (chunk, gradient) = (&mut chunk, &mut gradient);
            loss += vectorised(AddUp { examples: self, at, rows, chunk, gradient });
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
