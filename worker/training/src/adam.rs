//! The optimiser Adam (Kingma and Ba 2014, algorithm 1, <https://arxiv.org/abs/1412.6980>).
//!
//! candle's AdamW without decay computes the same, but its moments can't be read: a training that
//! was stopped could not be resumed.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::network::{Parameter, tensor_values};

/// Decay of the two moments: the defaults of the paper and of PyTorch.
const BETAS: [f32; 2] = [0.9, 0.999];
/// Prevents a division by zero: the default of the paper and of PyTorch.
const EPSILON: f32 = 1e-8;
/// Values that a thread takes at a time.
const CHUNK: usize = 1 << 15;

/// The optimiser. Each [`Parameter`] holds its own moments.
#[derive(Clone, Copy, Debug)]
pub(super) struct Adam {
    /// Learning rate.
    pub(super) learning_rate: f64,
    /// Number of steps so far.
    pub(super) steps: u64,
}

impl Adam {
    pub(super) fn new(learning_rate: f64) -> Self {
        Self { learning_rate, steps: 0 }
    }

    /// Moves every parameter against its gradient, and removes the gradient.
    pub(super) fn step<'a>(
        &mut self,
        parameters: impl IntoIterator<Item = &'a mut Parameter>,
    ) -> Result<()> {
        self.steps += 1;
        for parameter in parameters {
            let Some(gradient) = parameter.gradient.take() else {
                bail!("{} has no gradient", parameter.name);
            };
            self.update(parameter, &gradient)?;
        }
        Ok(())
    }

    fn update(&self, parameter: &mut Parameter, gradient: &Tensor) -> Result<()> {
        let steps = i32::try_from(self.steps).unwrap_or(i32::MAX);
        // The moments start at zero; dividing by these removes that bias.
        let [first, second] = BETAS.map(|beta| 1.0 - f64::from(beta).powi(steps));
        let rate = (self.learning_rate / first) as f32;
        let root = second.sqrt() as f32;
        let mut moved = tensor_values::copy(&parameter.value)?;
        let [first, second] = &mut parameter.moments;
        tensor_values::with(&gradient.contiguous()?, |gradient| {
            let chunks = moved.par_chunks_mut(CHUNK).zip(gradient.par_chunks(CHUNK));
            let moments = first.par_chunks_mut(CHUNK).zip(second.par_chunks_mut(CHUNK));
            chunks.zip(moments).for_each(|((values, gradient), (first, second))| {
                let moments = first.iter_mut().zip(second);
                for ((value, &gradient), (first, second)) in
                    values.iter_mut().zip(gradient).zip(moments)
                {
                    *first = BETAS[0] * *first + (1.0 - BETAS[0]) * gradient;
                    *second = BETAS[1] * *second + (1.0 - BETAS[1]) * gradient * gradient;
                    *value -= rate * *first / (second.sqrt() / root + EPSILON);
                }
            });
        })?;
        parameter.value =
            Tensor::from_vec(moved, parameter.value.shape(), parameter.value.device())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};
    use candle_nn::{AdamW, Optimizer, ParamsAdamW};

    use super::*;
    use camshaft_model::testing::noise;

    #[test]
    fn equals_candles_without_weight_decay() {
        let start = noise(&[5, 7], 1);
        let theirs = Var::from_tensor(&start).unwrap();
        let mut optimiser = AdamW::new(
            vec![theirs.clone()],
            ParamsAdamW { lr: 0.01, weight_decay: 0.0, ..ParamsAdamW::default() },
        )
        .unwrap();
        let mut ours = Parameter::new("p".to_owned(), start);
        let mut adam = Adam::new(0.01);
        for step in 0..20 {
            let factors = noise(&[5, 7], 2 + step);
            let loss = (theirs.sqr().unwrap() * &factors).unwrap().sum_all().unwrap();
            ours.gradient = Some((&ours.value * 2.0).unwrap().mul(&factors).unwrap());
            optimiser.backward_step(&loss).unwrap();
            adam.step([&mut ours]).unwrap();
        }
        let difference = (ours.value - theirs.as_tensor()).unwrap().abs().unwrap();
        let difference = difference.max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(difference < 1e-5, "{difference}");
        assert!(adam.steps == 20 && Device::Cpu.is_cpu());
    }
}
