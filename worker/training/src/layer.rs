//! The layer a residual network repeats: a convolution, its batch normalisation, and, where
//! it has them, the residual added and the ReLU.

use std::collections::BTreeMap;

use candle_core::{Result, Tensor};

use super::batch_norm::{self, Statistics};
use super::convolution::{convolve, input_gradient, weight_gradient};
use super::parameter::Parameter;
use super::values;
use camshaft_model::convolution::ConvShape;

/// Share of a batch's statistics in the running ones: PyTorch's.
const MOMENTUM: f32 = 0.1;

/// Tensors by torchvision's names, in PyTorch's layout.
pub(super) type NamedTensors = BTreeMap<String, Tensor>;

/// A convolution, its batch normalisation, and what follows.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    shape: ConvShape,
    relu: bool,
    /// `[kernel * kernel * I, O]`.
    weight: Parameter,
    /// Both `[O]`.
    norm: [Parameter; 2],
    /// Names and values of the running mean and variance, `[O]`.
    running: [(String, Vec<f32>); 2],
}

/// What a pass leaves for the gradient.
#[derive(Debug)]
pub(super) struct Trace {
    /// `[N, H, W, I]`.
    input: Tensor,
    /// The convolution's output, `[N, H', W', O]`.
    convolved: Tensor,
    statistics: Statistics,
    /// After the ReLU.
    output: Tensor,
}

impl Layer {
    /// Takes a layer's tensors out of `tensors`.
    pub(super) fn new(
        tensors: &NamedTensors,
        (conv, norm, shape): (String, String, ConvShape),
        relu: bool,
    ) -> Result<Self> {
        let parameter = |name: String| {
            let value = tensors[&name].clone();
            Parameter::new(name, value)
        };
        let mut weight = parameter(format!("{conv}.weight"));
        let rows = shape.kernel * shape.kernel * shape.inputs;
        let value = weight.value.permute((2, 3, 1, 0))?.reshape((rows, shape.outputs))?;
        weight.value = value.contiguous()?;
        let running = |part: &str| {
            let name = format!("{norm}.{part}");
            values::copy(&tensors[&name]).map(|value| (name, value))
        };
        let norms = [parameter(format!("{norm}.weight")), parameter(format!("{norm}.bias"))];
        let running = [running("running_mean")?, running("running_var")?];
        Ok(Self { shape, relu, weight, norm: norms, running })
    }

    /// `input` `[N, H, W, I]`; `residual` and the result `[N, H', W', O]`. The running
    /// statistics move towards the batch's.
    pub(super) fn forward(
        &mut self,
        input: &Tensor,
        residual: Option<&Tensor>,
    ) -> Result<(Tensor, Trace)> {
        let convolved = convolve(input, &self.weight.value, self.shape)?;
        let statistics = Statistics::of(&convolved)?;
        let [gamma, beta] = self.norm.each_ref().map(|parameter| &parameter.value);
        let output =
            batch_norm::normalise(&convolved, &statistics, [gamma, beta], residual, self.relu)?;
        self.follow(&statistics);
        let trace = Trace { input: input.clone(), convolved, statistics, output: output.clone() };
        Ok((output, trace))
    }

    fn follow(&mut self, Statistics { mean, variance, count }: &Statistics) {
        let [(_, running_mean), (_, running_variance)] = &mut self.running;
        for (running, mean) in running_mean.iter_mut().zip(mean) {
            *running += MOMENTUM * (mean - *running);
        }
        // PyTorch's running variance is the unbiased one.
        let unbiased = *count as f32 / (count.saturating_sub(1).max(1)) as f32;
        for (running, variance) in running_variance.iter_mut().zip(variance) {
            *running += MOMENTUM * (variance * unbiased - *running);
        }
    }

    /// Sets the parameters' gradients from that of the output. Returns that of the residual,
    /// and, where `wanted`, that of the input.
    pub(super) fn backward(
        &mut self,
        trace: &Trace,
        gradient: Tensor,
        wanted: bool,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let gradient = if self.relu {
            values::zip(
                &gradient,
                &trace.output,
                |gradient, output| {
                    if output > 0.0 { gradient } else { 0.0 }
                },
            )?
        } else {
            gradient
        };
        let Trace { input, convolved, statistics, .. } = trace;
        let [by_x, by_gamma, by_beta] =
            batch_norm::gradients(convolved, statistics, &self.norm[0].value, &gradient)?;
        self.norm[0].gradient = Some(by_gamma);
        self.norm[1].gradient = Some(by_beta);
        self.weight.gradient = Some(weight_gradient(input, &by_x, self.shape)?);
        let by_input = wanted
            .then(|| input_gradient(input.dims(), &self.weight.value, &by_x, self.shape))
            .transpose()?;
        Ok((gradient, by_input))
    }

    pub(super) fn parameters(&self) -> impl Iterator<Item = &Parameter> {
        std::iter::once(&self.weight).chain(&self.norm)
    }

    pub(super) fn parameters_mut(&mut self) -> impl Iterator<Item = &mut Parameter> {
        std::iter::once(&mut self.weight).chain(&mut self.norm)
    }

    pub(super) fn running(&self) -> &[(String, Vec<f32>); 2] {
        &self.running
    }

    pub(super) fn running_mut(&mut self) -> &mut [(String, Vec<f32>); 2] {
        &mut self.running
    }

    /// Adds the layer's tensors in PyTorch's layout.
    pub(super) fn export(&self, tensors: &mut NamedTensors) -> Result<()> {
        let ConvShape { inputs, outputs, kernel, .. } = self.shape;
        let weight = self.weight.value.reshape((kernel, kernel, inputs, outputs))?;
        let weight = weight.permute((3, 2, 0, 1))?.contiguous()?;
        tensors.insert(self.weight.name.clone(), weight);
        for parameter in &self.norm {
            tensors.insert(parameter.name.clone(), parameter.value.clone());
        }
        for (name, value) in &self.running {
            let value = Tensor::from_slice(value, value.len(), self.weight.value.device())?;
            tensors.insert(name.clone(), value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slopes::assert_slopes;
    use camshaft_model::testing::noise;

    fn layer(relu: bool) -> Layer {
        let shape = ConvShape { inputs: 3, outputs: 4, kernel: 3, stride: 2 };
        let mut tensors = NamedTensors::new();
        tensors.insert("c.weight".into(), noise(&[4, 3, 3, 3], 1));
        for (seed, part) in (2..).zip(["weight", "bias", "running_mean", "running_var"]) {
            tensors.insert(format!("n.{part}"), noise(&[4], seed));
        }
        Layer::new(&tensors, ("c".into(), "n".into(), shape), relu).unwrap()
    }

    #[test]
    fn gradients_of_input_residual_and_parameters_are_slopes() {
        for relu in [false, true] {
            let (input, residual) = (noise(&[3, 5, 5, 3], 6), noise(&[3, 3, 3, 4], 7));
            let factors = noise(&[3, 3, 3, 4], 8);
            let mut trained = layer(relu);
            let (output, trace) = trained.forward(&input, Some(&residual)).unwrap();
            // Away from the ReLU's kink, where there is no slope.
            let near = values::zip(
                &output,
                &factors,
                |output, factor| {
                    if output < 0.2 { 0.0 } else { factor }
                },
            );
            let factors = if relu { near.unwrap() } else { factors };
            let (by_residual, by_input) = trained.backward(&trace, factors.clone(), true).unwrap();
            let run = |layer: &Layer, input: &Tensor, residual: &Tensor| {
                layer.clone().forward(input, Some(residual)).unwrap().0
            };
            let plain = layer(relu);
            let by_input = by_input.unwrap();
            assert_slopes(&input, |x| run(&plain, x, &residual), &factors, &by_input);
            assert_slopes(&residual, |x| run(&plain, &input, x), &factors, &by_residual);
            for index in 0..3 {
                let parameter = trained.parameters().nth(index).unwrap();
                let gradient = parameter.gradient.clone().unwrap();
                let with = |value: &Tensor| {
                    let mut moved = plain.clone();
                    moved.parameters_mut().nth(index).unwrap().value = value.clone();
                    run(&moved, &input, &residual)
                };
                assert_slopes(&parameter.value, with, &factors, &gradient);
            }
        }
    }

    #[test]
    fn running_statistics_are_pytorchs() {
        let mut layer = layer(false);
        let before = layer.running().clone();
        let input = noise(&[2, 5, 5, 3], 6);
        layer.forward(&input, None).unwrap();
        let convolved = values::copy(&convolve(&input, &layer.weight.value, layer.shape).unwrap());
        let convolved = convolved.unwrap();
        for channel in 0..4 {
            let values: Vec<f32> = convolved.iter().skip(channel).step_by(4).copied().collect();
            let count = values.len() as f32;
            let mean = values.iter().sum::<f32>() / count;
            let unbiased = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / (count - 1.0);
            for (part, batch) in [mean, unbiased].into_iter().enumerate() {
                let expected = 0.9 * before[part].1[channel] + 0.1 * batch;
                let found = layer.running()[part].1[channel];
                assert!((found - expected).abs() < 1e-4, "{found} is not {expected}");
            }
        }
    }

    #[test]
    fn exporting_undoes_the_layout() {
        let mut tensors = NamedTensors::new();
        layer(true).export(&mut tensors).unwrap();
        let weight = values::copy(&tensors["c.weight"]).unwrap();
        assert_eq!(weight, values::copy(&noise(&[4, 3, 3, 3], 1)).unwrap());
        assert_eq!(tensors.len(), 5);
    }
}
