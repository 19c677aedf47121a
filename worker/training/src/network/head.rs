//! The trained head: average pooling or flattening, and a linear layer.

use camshaft_model::HeadKind;
use camshaft_model::network::head::{HEAD_BIAS, HEAD_WEIGHT, HeadShape};
use candle_core::{Result, Tensor};

use super::layer::NamedTensors;
use super::parameter::Parameter;

/// A head: weight `[K, inputs]`, bias `[K]`.
#[derive(Clone, Debug)]
pub(crate) struct TrainedHead {
    shape: HeadShape,
    parameters: [Parameter; 2],
}

impl TrainedHead {
    /// Makes a head of its tensors in `tensors`.
    pub(crate) fn new(tensors: &NamedTensors, shape: HeadShape) -> Self {
        let parameter = |name: &str| Parameter::new(name.to_owned(), tensors[name].clone());
        Self { shape, parameters: [HEAD_WEIGHT, HEAD_BIAS].map(parameter) }
    }

    /// The linear layer's inputs `[N, inputs]`, from features `[N, H, W, C]`; f32.
    pub(crate) fn inputs(&self, features: &Tensor) -> Result<Tensor> {
        match self.shape.kind {
            HeadKind::AveragePool => features.mean((1, 2)),
            HeadKind::Flatten => features.permute((0, 3, 1, 2))?.contiguous()?.flatten_from(1),
        }
    }

    /// The gradient of features `[N, H, W, C]`, from the gradient of [`Self::inputs`].
    pub(crate) fn features_gradient(&self, gradient: &Tensor) -> Result<Tensor> {
        let [channels, height, width] = self.shape.features;
        match self.shape.kind {
            HeadKind::AveragePool => (gradient / (height * width) as f64)?
                .reshape(((), 1, 1, channels))?
                .broadcast_as((gradient.dim(0)?, height, width, channels))?
                .contiguous(),
            HeadKind::Flatten => {
                gradient.reshape(((), channels, height, width))?.permute((0, 2, 3, 1))?.contiguous()
            }
        }
    }

    /// Logits `[N, K]` of inputs `[N, inputs]`.
    pub(crate) fn forward(&self, inputs: &Tensor) -> Result<Tensor> {
        let [weight, bias] = self.parameters.each_ref().map(|parameter| &parameter.value);
        inputs.matmul(&weight.t()?)?.broadcast_add(bias)
    }

    /// Sets the parameters' gradients from the logits' gradient `[N, K]`.
    pub(crate) fn backward(&mut self, inputs: &Tensor, gradient: &Tensor) -> Result<()> {
        self.parameters[0].gradient = Some(gradient.t()?.matmul(inputs)?);
        self.parameters[1].gradient = Some(gradient.sum(0)?);
        Ok(())
    }

    /// The gradient of inputs `[N, inputs]`, from the logits' gradient `[N, K]`.
    pub(crate) fn inputs_gradient(&self, gradient: &Tensor) -> Result<Tensor> {
        gradient.matmul(&self.parameters[0].value)
    }

    pub(crate) fn parameters(&self) -> &[Parameter; 2] {
        &self.parameters
    }

    pub(crate) fn parameters_mut(&mut self) -> &mut [Parameter; 2] {
        &mut self.parameters
    }

    /// Adds the head's tensors.
    pub(crate) fn export(&self, tensors: &mut NamedTensors) {
        for parameter in &self.parameters {
            tensors.insert(parameter.name.clone(), parameter.value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::finite_differences::assert_gradient;
    use camshaft_model::testing::noise;

    #[test]
    fn gradients_are_slopes() {
        for kind in [HeadKind::AveragePool, HeadKind::Flatten] {
            let shape = HeadShape { kind, classes: 3, features: [4, 2, 3] };
            let tensors = NamedTensors::from([
                (HEAD_WEIGHT.to_owned(), noise(&[3, shape.inputs()], 1)),
                (HEAD_BIAS.to_owned(), noise(&[3], 2)),
            ]);
            let mut head = TrainedHead::new(&tensors, shape);
            let (features, factors) = (noise(&[2, 2, 3, 4], 3), noise(&[2, 3], 4));
            let inputs = head.inputs(&features).unwrap();
            head.backward(&inputs, &factors).unwrap();
            let by_inputs = head.inputs_gradient(&factors).unwrap();
            let by_features = head.features_gradient(&by_inputs).unwrap();
            let plain = head.clone();
            let run = |head: &TrainedHead, features: &Tensor| {
                head.forward(&head.inputs(features).unwrap()).unwrap()
            };
            assert_gradient(&features, |x| run(&plain, x), &factors, &by_features);
            for index in 0..2 {
                let Parameter { value, gradient, .. } = &head.parameters()[index];
                let with = |value: &Tensor| {
                    let mut moved = plain.clone();
                    moved.parameters_mut()[index].value = value.clone();
                    run(&moved, &features)
                };
                assert_gradient(value, with, &factors, gradient.as_ref().unwrap());
            }
        }
    }
}
