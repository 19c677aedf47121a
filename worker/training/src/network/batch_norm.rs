//! Batch normalisation during training (Ioffe and Szegedy 2015, algorithm 1): by the batch's own
//! mean and variance. Channels last.
//!
//! Sums are computed over a fixed number of rows and then added up in order, so that results don't
//! depend on the number of threads.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::tensor_values;

/// Number of rows that are summed up in f32. Their sums are added up in f64.
const ROWS: usize = 256;
/// Added to the variance: the default of `nn.BatchNorm2d`.
pub(crate) const EPS: f64 = 1e-5;

/// Mean and variance of a batch, for each channel.
#[derive(Clone, Debug)]
pub(crate) struct BatchStatistics {
    pub(crate) mean: Vec<f32>,
    /// The biased variance: divided by the number of values.
    pub(crate) variance: Vec<f32>,
    /// Number of values of each channel.
    pub(crate) count: usize,
}

impl BatchStatistics {
    /// Of `x` `[…, C]`, f32.
    pub(crate) fn of(x: &Tensor) -> Result<Self> {
        let channels = x.dim(candle_core::D::Minus1)?;
        let count = x.elem_count() / channels;
        tensor_values::with(x, |x| {
            let [mean] = sums(x, channels, |_, row, [sum]| add(sum, row));
            let mean: Vec<f32> = mean.iter().map(|sum| (sum / count as f64) as f32).collect();
            let [squares] = sums(x, channels, |_, row, [sum]| {
                for ((sum, value), mean) in sum.iter_mut().zip(row).zip(&mean) {
                    *sum += (value - mean) * (value - mean);
                }
            });
            let variance = squares.iter().map(|sum| (sum / count as f64) as f32).collect();
            Self { mean, variance, count }
        })
    }

    /// `1 / sqrt(variance + eps)`.
    fn inverse_deviation(&self) -> Vec<f32> {
        let inverse = |&variance: &f32| (1.0 / (f64::from(variance) + EPS).sqrt()) as f32;
        self.variance.iter().map(inverse).collect()
    }
}

fn add(sum: &mut [f32], row: &[f32]) {
    for (sum, value) in sum.iter_mut().zip(row) {
        *sum += value;
    }
}

/// Sums of `N` quantities for each channel. `add` adds one row to the sums: it is given the row's
/// start, the row and the sums.
fn sums<const N: usize>(
    x: &[f32],
    channels: usize,
    add: impl Fn(usize, &[f32], [&mut [f32]; N]) + Sync,
) -> [Vec<f64>; N] {
    let length = ROWS * channels;
    let parts: Vec<[Vec<f32>; N]> = x
        .par_chunks(length)
        .enumerate()
        .map(|(chunk, rows)| {
            let mut sums = std::array::from_fn(|_| vec![0f32; channels]);
            for (index, row) in rows.chunks_exact(channels).enumerate() {
                let start = chunk * length + index * channels;
                add(start, row, sums.each_mut().map(Vec::as_mut_slice));
            }
            sums
        })
        .collect();
    std::array::from_fn(|quantity| {
        let mut total = vec![0f64; channels];
        for part in &parts {
            for (total, part) in total.iter_mut().zip(&part[quantity]) {
                *total += f64::from(*part);
            }
        }
        total
    })
}

/// Computes `gamma * (x - mean) / sqrt(variance + eps) + beta`, then adds the residual, if there is
/// one, and takes the ReLU, if `relu`. `x`, `residual` and the result are `[…, C]`; `gamma` and
/// `beta` are `[C]`; all f32.
pub(crate) fn normalise(
    x: &Tensor,
    statistics: &BatchStatistics,
    [gamma, beta]: [&Tensor; 2],
    residual: Option<&Tensor>,
    relu: bool,
) -> Result<Tensor> {
    let (gamma, beta) = (tensor_values::copy(gamma)?, tensor_values::copy(beta)?);
    let inverse = statistics.inverse_deviation();
    let scale: Vec<f32> =
        gamma.iter().zip(&inverse).map(|(gamma, inverse)| gamma * inverse).collect();
    let moved = beta.iter().zip(&statistics.mean).zip(&scale);
    let shift: Vec<f32> = moved.map(|((beta, mean), scale)| beta - mean * scale).collect();
    let (channels, least) = (scale.len(), if relu { 0.0 } else { f32::NEG_INFINITY });
    let mut output = match residual {
        Some(residual) => tensor_values::copy(residual)?,
        None => vec![0f32; x.elem_count()],
    };
    tensor_values::with(x, |x| {
        let chunks = output.par_chunks_mut(ROWS * channels).zip(x.par_chunks(ROWS * channels));
        chunks.for_each(|(output, x)| {
            for (output, x) in output.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
                let lines = scale.iter().zip(&shift);
                for ((output, x), (scale, shift)) in output.iter_mut().zip(x).zip(lines) {
                    let value = *output + (x * scale + shift);
                    // Not `max`, which would turn NaN into a number.
                    *output = if value < least { least } else { value };
                }
            }
        });
    })?;
    Tensor::from_vec(output, x.dims(), x.device())
}

/// Gradients of `x`, `gamma` and `beta` from the output's gradient, without ReLU and residual: the
/// paper's section 3. The batch's statistics are functions of `x`.
pub(crate) fn gradients(
    x: &Tensor,
    statistics: &BatchStatistics,
    gamma: &Tensor,
    gradient: &Tensor,
) -> Result<[Tensor; 3]> {
    let gamma = tensor_values::copy(gamma)?;
    let (inverse, mean) = (statistics.inverse_deviation(), &statistics.mean);
    let (channels, count) = (gamma.len(), statistics.count as f64);
    let (output, by_gamma, by_beta) = tensor_values::with(x, |x| {
        tensor_values::with(gradient, |gradient| {
            let [by_gamma, by_beta] = sums(x, channels, |start, row, [by_gamma, by_beta]| {
                let gradient = &gradient[start..start + channels];
                add(by_beta, gradient);
                let normal = row.iter().zip(mean).zip(&inverse);
                for ((sum, gradient), ((x, mean), inverse)) in
                    by_gamma.iter_mut().zip(gradient).zip(normal)
                {
                    *sum += gradient * (x - mean) * inverse;
                }
            });
            // dx = gamma / deviation * (dy - mean(dy) - normal(x) * mean(dy * normal(x))), as
            // dy * first + x * second + third.
            let first: Vec<f32> = gamma.iter().zip(&inverse).map(|(a, b)| a * b).collect();
            let second: Vec<f32> = (0..channels)
                .map(|c| -first[c] * inverse[c] * (by_gamma[c] / count) as f32)
                .collect();
            let third: Vec<f32> = (0..channels)
                .map(|c| -first[c] * (by_beta[c] / count) as f32 - second[c] * mean[c])
                .collect();
            let mut output = vec![0f32; x.len()];
            let length = ROWS * channels;
            let sources = x.par_chunks(length).zip(gradient.par_chunks(length));
            output.par_chunks_mut(length).zip(sources).for_each(|(output, (x, gradient))| {
                let sources = x.chunks_exact(channels).zip(gradient.chunks_exact(channels));
                for (output, (x, gradient)) in output.chunks_exact_mut(channels).zip(sources) {
                    for c in 0..channels {
                        output[c] = gradient[c] * first[c] + x[c] * second[c] + third[c];
                    }
                }
            });
            (output, by_gamma, by_beta)
        })
    })??;
    let vector = |sums: Vec<f64>| {
        Tensor::from_vec(sums.iter().map(|&sum| sum as f32).collect(), channels, x.device())
    };
    let output = Tensor::from_vec(output, x.dims(), x.device())?;
    Ok([output, vector(by_gamma)?, vector(by_beta)?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::finite_differences::assert_gradient;
    use camshaft_model::testing::noise;

    fn forward(x: &Tensor, gamma: &Tensor, beta: &Tensor) -> Tensor {
        normalise(x, &BatchStatistics::of(x).unwrap(), [gamma, beta], None, false).unwrap()
    }

    #[test]
    fn gradients_are_slopes() {
        let x = (noise(&[3, 2, 3, 4], 1) + 0.5).unwrap();
        let (gamma, beta) = (noise(&[4], 2), noise(&[4], 3));
        let factors = noise(&[3, 2, 3, 4], 4);
        let statistics = BatchStatistics::of(&x).unwrap();
        let [by_x, by_gamma, by_beta] = gradients(&x, &statistics, &gamma, &factors).unwrap();
        assert_gradient(&x, |x| forward(x, &gamma, &beta), &factors, &by_x);
        assert_gradient(&gamma, |gamma| forward(&x, gamma, &beta), &factors, &by_gamma);
        assert_gradient(&beta, |beta| forward(&x, &gamma, beta), &factors, &by_beta);
    }

    #[test]
    fn a_normalised_batch_has_no_mean_and_variance_one_however_long() {
        let x = ((noise(&[3 * ROWS + 5, 3], 1) * 4.0).unwrap() + 100.0).unwrap();
        let one = Tensor::ones(3, candle_core::DType::F32, x.device()).unwrap();
        let y = forward(&x, &one, &one.zeros_like().unwrap());
        let BatchStatistics { mean, variance, count } = BatchStatistics::of(&y).unwrap();
        assert_eq!(count, 3 * ROWS + 5);
        assert!(mean.iter().all(|mean| mean.abs() < 1e-4), "{mean:?}");
        assert!(variance.iter().all(|variance| (variance - 1.0).abs() < 1e-3), "{variance:?}");
    }
}
