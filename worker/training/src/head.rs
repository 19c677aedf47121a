//! The linear layer at the end, while it is trained.

use candle_core::{Result, Tensor};

use super::layer::NamedTensors;
use super::parameter::Parameter;
use camshaft_model::HeadKind;
use camshaft_model::head::{HEAD, HeadShape};

/// A head: weight `[K, inputs]`, bias `[K]`.
#[derive(Clone, Debug)]
pub(super) struct TrainedHead {
    shape: HeadShape,
    parameters: [Parameter; 2],
}

impl TrainedHead {
    /// Takes a head's tensors out of `tensors`.
    pub(super) fn new(tensors: &NamedTensors, shape: HeadShape) -> Self {
        let parameter = |name: &str| Parameter::new(name.to_owned(), tensors[name].clone());
        Self { shape, parameters: [HEAD.0, HEAD.1].map(parameter) }
    }

    /// What the linear layer takes, `[N, inputs]`, of features `[N, H, W, C]`.
    pub(super) fn inputs(&self, features: &Tensor) -> Result<Tensor> {
        match self.shape.kind {
            HeadKind::AveragePool => features.mean((1, 2)),
            HeadKind::Flatten => features.permute((0, 3, 1, 2))?.contiguous()?.flatten_from(1),
        }
    }

    /// The gradient of features from that of [`Self::inputs`].
    pub(super) fn features_gradient(&self, gradient: &Tensor) -> Result<Tensor> {
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
    pub(super) fn forward(&self, inputs: &Tensor) -> Result<Tensor> {
        let [weight, bias] = self.parameters.each_ref().map(|parameter| &parameter.value);
        inputs.matmul(&weight.t()?)?.broadcast_add(bias)
    }

    /// Sets the parameters' gradients from that of the logits.
    pub(super) fn backward(&mut self, inputs: &Tensor, gradient: &Tensor) -> Result<()> {
        self.parameters[0].gradient = Some(gradient.t()?.matmul(inputs)?);
        self.parameters[1].gradient = Some(gradient.sum(0)?);
        Ok(())
    }

    /// The gradient of the inputs from that of the logits.
    pub(super) fn inputs_gradient(&self, gradient: &Tensor) -> Result<Tensor> {
        gradient.matmul(&self.parameters[0].value)
    }

    pub(super) fn parameters(&self) -> &[Parameter; 2] {
        &self.parameters
    }

    pub(super) fn parameters_mut(&mut self) -> &mut [Parameter; 2] {
        &mut self.parameters
    }

    /// Adds the head's tensors.
    pub(super) fn export(&self, tensors: &mut NamedTensors) {
        for parameter in &self.parameters {
            tensors.insert(parameter.name.clone(), parameter.value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slopes::assert_slopes;
    use camshaft_model::testing::noise;

    #[test]
    fn gradients_are_slopes() {
        for kind in [HeadKind::AveragePool, HeadKind::Flatten] {
            let shape = HeadShape { kind, classes: 3, features: [4, 2, 3] };
            let tensors = NamedTensors::from([
                (HEAD.0.to_owned(), noise(&[3, shape.inputs()], 1)),
                (HEAD.1.to_owned(), noise(&[3], 2)),
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
            assert_slopes(&features, |x| run(&plain, x), &factors, &by_features);
            for index in 0..2 {
                let Parameter { value, gradient, .. } = &head.parameters()[index];
                let with = |value: &Tensor| {
                    let mut moved = plain.clone();
                    moved.parameters_mut()[index].value = value.clone();
                    run(&moved, &features)
                };
                assert_slopes(value, with, &factors, gradient.as_ref().unwrap());
            }
        }
    }
}
