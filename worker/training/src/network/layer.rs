//! The layer that a residual network repeats: a convolution, its BatchNorm, and in some layers the
//! shortcut and the ReLU.

use std::collections::BTreeMap;

use camshaft_model::network::{ConvShape, NamedConvolution};
use candle_core::{Result, Tensor};

use super::batch_norm::{self, BatchStatistics};
use super::convolution::{convolve, input_gradient, weight_gradient};
use super::parameter::Parameter;
use super::tensor_values;

/// Share of a batch's statistics in the running statistics: PyTorch's default.
const MOMENTUM: f32 = 0.1;

/// Tensors by torchvision's names, in PyTorch's layout, f32.
pub(crate) type NamedTensors = BTreeMap<String, Tensor>;

/// A convolution, its BatchNorm, and perhaps a ReLU.
#[derive(Clone, Debug)]
pub(crate) struct TrainedLayer {
    shape: ConvShape,
    relu: bool,
    /// `[kernel * kernel * I, O]`.
    weight: Parameter,
    /// Gamma and beta, both `[O]`.
    norm: [Parameter; 2],
    /// Names and values of the running mean and variance, `[O]`.
    running: [(String, Vec<f32>); 2],
}

/// What a backward pass needs of the forward pass.
#[derive(Debug)]
pub(crate) struct LayerTrace {
    /// The layer's input, `[N, H, W, I]`.
    input: Tensor,
    /// The convolution's output, `[N, H', W', O]`.
    convolved: Tensor,
    statistics: BatchStatistics,
    /// The layer's output, `[N, H', W', O]`.
    output: Tensor,
}

impl TrainedLayer {
    /// Makes a layer of its tensors in `tensors`.
    pub(crate) fn new(
        tensors: &NamedTensors,
        named: &NamedConvolution,
        relu: bool,
    ) -> Result<Self> {
        let NamedConvolution { conv, norm, shape } = named;
        let shape = *shape;
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
            tensor_values::copy(&tensors[&name]).map(|value| (name, value))
        };
        let norms = [parameter(format!("{norm}.weight")), parameter(format!("{norm}.bias"))];
        let running = [running("running_mean")?, running("running_var")?];
        Ok(Self { shape, relu, weight, norm: norms, running })
    }

    /// Runs a batch: `input` is `[N, H, W, I]`, `residual` and the result are `[N, H', W', O]`;
    /// f32. The running statistics move towards the batch's.
    pub(crate) fn forward(
        &mut self,
        input: &Tensor,
        residual: Option<&Tensor>,
    ) -> Result<(Tensor, LayerTrace)> {
        let convolved = convolve(input, &self.weight.value, self.shape)?;
        let statistics = BatchStatistics::of(&convolved)?;
        let [gamma, beta] = self.norm.each_ref().map(|parameter| &parameter.value);
        let output =
            batch_norm::normalise(&convolved, &statistics, [gamma, beta], residual, self.relu)?;
        self.update_running(&statistics);
        let trace =
            LayerTrace { input: input.clone(), convolved, statistics, output: output.clone() };
        Ok((output, trace))
    }

    /// Moves the running statistics towards the batch's.
    fn update_running(&mut self, BatchStatistics { mean, variance, count }: &BatchStatistics) {
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

    /// Sets the parameters' gradients from the output's gradient. Returns the residual's gradient
    /// and, if `wanted`, the input's gradient.
    pub(crate) fn backward(
        &mut self,
        trace: &LayerTrace,
        gradient: Tensor,
        wanted: bool,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let gradient =
            if self.relu {
                tensor_values::zip(&gradient, &trace.output, |gradient, output| {
                    if output > 0.0 { gradient } else { 0.0 }
                })?
            } else {
                gradient
            };
        let LayerTrace { input, convolved, statistics, .. } = trace;
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

    pub(crate) fn parameters(&self) -> impl Iterator<Item = &Parameter> {
        std::iter::once(&self.weight).chain(&self.norm)
    }

    pub(crate) fn parameters_mut(&mut self) -> impl Iterator<Item = &mut Parameter> {
        std::iter::once(&mut self.weight).chain(&mut self.norm)
    }

    pub(crate) fn running(&self) -> &[(String, Vec<f32>); 2] {
        &self.running
    }

    pub(crate) fn running_mut(&mut self) -> &mut [(String, Vec<f32>); 2] {
        &mut self.running
    }

    /// Adds the layer's tensors in PyTorch's layout.
    pub(crate) fn export(&self, tensors: &mut NamedTensors) -> Result<()> {
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
    use crate::network::finite_differences::assert_gradient;
    use camshaft_model::testing::noise;

    fn layer(relu: bool) -> TrainedLayer {
        let shape = ConvShape { inputs: 3, outputs: 4, kernel: 3, stride: 2 };
        let mut tensors = NamedTensors::new();
        tensors.insert("c.weight".into(), noise(&[4, 3, 3, 3], 1));
        for (seed, part) in (2..).zip(["weight", "bias", "running_mean", "running_var"]) {
            tensors.insert(format!("n.{part}"), noise(&[4], seed));
        }
        let named = NamedConvolution { conv: "c".into(), norm: "n".into(), shape };
        TrainedLayer::new(&tensors, &named, relu).unwrap()
    }

    #[test]
    fn gradients_of_input_residual_and_parameters_are_slopes() {
        for relu in [false, true] {
            let (input, residual) = (noise(&[3, 5, 5, 3], 6), noise(&[3, 3, 3, 4], 7));
            let factors = noise(&[3, 3, 3, 4], 8);
            let mut trained = layer(relu);
            let (output, trace) = trained.forward(&input, Some(&residual)).unwrap();
            // Only outputs away from the ReLU's kink, at which there is no gradient.
            let near =
                tensor_values::zip(
                    &output,
                    &factors,
                    |output, factor| {
                        if output < 0.2 { 0.0 } else { factor }
                    },
                );
            let factors = if relu { near.unwrap() } else { factors };
            let (by_residual, by_input) = trained.backward(&trace, factors.clone(), true).unwrap();
            let run = |layer: &TrainedLayer, input: &Tensor, residual: &Tensor| {
                layer.clone().forward(input, Some(residual)).unwrap().0
            };
            let plain = layer(relu);
            let by_input = by_input.unwrap();
            assert_gradient(&input, |x| run(&plain, x, &residual), &factors, &by_input);
            assert_gradient(&residual, |x| run(&plain, &input, x), &factors, &by_residual);
            for index in 0..3 {
                let parameter = trained.parameters().nth(index).unwrap();
                let gradient = parameter.gradient.clone().unwrap();
                let with = |value: &Tensor| {
                    let mut moved = plain.clone();
                    moved.parameters_mut().nth(index).unwrap().value = value.clone();
                    run(&moved, &input, &residual)
                };
                assert_gradient(&parameter.value, with, &factors, &gradient);
            }
        }
    }

    #[test]
    fn running_statistics_are_pytorchs() {
        let mut layer = layer(false);
        let before = layer.running().clone();
        let input = noise(&[2, 5, 5, 3], 6);
        layer.forward(&input, None).unwrap();
        let convolved =
            tensor_values::copy(&convolve(&input, &layer.weight.value, layer.shape).unwrap());
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
        let weight = tensor_values::copy(&tensors["c.weight"]).unwrap();
        assert_eq!(weight, tensor_values::copy(&noise(&[4, 3, 3, 3], 1)).unwrap());
        assert_eq!(tensors.len(), 5);
    }
}
