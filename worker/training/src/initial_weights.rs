//! The weights that a training starts from: another model's or random ones, and a new head.

use camshaft_model::network::convolution::NormalisedConv;
use camshaft_model::network::head::{HEAD_BIAS, HEAD_WEIGHT, HeadShape};
use camshaft_model::network::resnet::ResNetShape;
use camshaft_model::network::{ConvShape, NamedConvolution};
use camshaft_model::{Architecture, ModelConfig, ModelError, ModelFiles};
use candle_core::{DType, Device, Tensor};

use super::network::NamedTensors;
use super::network::batch_norm::EPS;
use super::random::{normal, stream, uniform};

/// What a training starts from.
#[derive(Clone, Debug)]
pub enum Init {
    /// Random weights.
    Random(Architecture),
    /// The weights of another model, without its head.
    Model(Box<ModelFiles>),
}

/// Name of a model with random weights.
pub(super) const RANDOM: &str = "random";

impl Init {
    /// The configuration of the initial model. Its classes are still to be replaced.
    pub(super) fn config(&self) -> Result<ModelConfig, ModelError> {
        match self {
            Self::Model(files) => Ok(files.config().clone()),
            Self::Random(architecture) => {
                // Without ImageNet's statistics: the image is stretched, and divided by 255.
                let config = serde_json::json!({
                    "architecture": architecture,
                    "classes": ["none", "none either"],
                    "input": {
                        "height": 224, "width": 224, "resize": "stretch",
                        "interpolation": "bilinear-antialiased", "scale": "1/255",
                        "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0], "color": "rgb"
                    }
                });
                ModelConfig::parse(RANDOM, config.to_string().as_bytes())
            }
        }
    }

    /// Every tensor but the head's, f32.
    pub(super) fn backbone(&self, seed: u64) -> Result<NamedTensors, ModelError> {
        match self {
            Self::Random(architecture) => Ok(random(ResNetShape::of(*architecture), seed)?),
            Self::Model(files) => read(files),
        }
    }
}

fn read(files: &ModelFiles) -> Result<NamedTensors, ModelError> {
    let model = || files.identity().name.clone();
    let opened = files.weights().open();
    let mut weights = opened.map_err(|source| ModelError::Weights { model: model(), source })?;
    let architecture = files.config().architecture;
    let mut tensors = NamedTensors::new();
    for named in ResNetShape::of(architecture).convolutions() {
        let layer = NormalisedConv::load(&mut weights, &named)?;
        let NamedConvolution { conv, norm, .. } = named;
        let (mean, variance) = statistics(&layer)?;
        tensors.insert(format!("{conv}.weight"), layer.weight);
        tensors.insert(format!("{norm}.weight"), layer.norm.gamma);
        tensors.insert(format!("{norm}.bias"), layer.norm.beta);
        tensors.insert(format!("{norm}.running_mean"), mean);
        tensors.insert(format!("{norm}.running_var"), variance);
    }
    // A new head replaces the old one, and a projector or other heads beside it.
    weights.pass_over_heads();
    files.check_tensors(&weights)?;
    Ok(tensors)
}

/// Running mean and variance with which the BatchNorm computes the same if the convolution has no
/// bias and its epsilon is [`EPS`].
fn statistics(layer: &NormalisedConv) -> candle_core::Result<(Tensor, Tensor)> {
    // A bias before a BatchNorm has the effect of a smaller mean.
    let mean = match &layer.bias {
        Some(bias) => (&layer.norm.mean - bias)?,
        None => layer.norm.mean.clone(),
    };
    // Another epsilon has the effect of another variance.
    Ok((mean, (&layer.norm.variance + (layer.norm.eps - EPS))?))
}

/// Random weights, as in torchvision's ResNets: Kaiming-normal convolutions by their outputs (He et
/// al. 2015, <https://arxiv.org/abs/1502.01852>, equation 14), and BatchNorms that only normalise.
pub(super) fn random(shape: ResNetShape, seed: u64) -> candle_core::Result<NamedTensors> {
    let mut random = stream(seed, "backbone");
    let mut tensors = NamedTensors::new();
    for NamedConvolution { conv, norm, shape } in shape.convolutions() {
        let ConvShape { inputs, outputs, kernel, .. } = shape;
        let fan_out = outputs * kernel * kernel;
        let deviation = (2.0 / fan_out as f32).sqrt();
        let values = normal(&mut random, deviation, fan_out * inputs);
        let weight = Tensor::from_vec(values, (outputs, inputs, kernel, kernel), &Device::Cpu)?;
        tensors.insert(format!("{conv}.weight"), weight);
        for (part, value) in
            [("weight", 1f32), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)]
        {
            let value = Tensor::full(value, outputs, &Device::Cpu)?;
            tensors.insert(format!("{norm}.{part}"), value.to_dtype(DType::F32)?.contiguous()?);
        }
    }
    Ok(tensors)
}

/// Adds a new head with random weights, as in PyTorch's `nn.Linear`: uniform from -b to b, with
/// b = 1 / sqrt(inputs).
pub(super) fn draw_head(
    tensors: &mut NamedTensors,
    shape: HeadShape,
    seed: u64,
) -> candle_core::Result<()> {
    let mut random = stream(seed, "head");
    let (classes, inputs) = (shape.classes, shape.inputs());
    let bound = 1.0 / (inputs as f32).sqrt();
    let weight = uniform(&mut random, bound, classes * inputs);
    let bias = uniform(&mut random, bound, classes);
    let device = &Device::Cpu;
    tensors.insert(HEAD_WEIGHT.to_owned(), Tensor::from_vec(weight, (classes, inputs), device)?);
    tensors.insert(HEAD_BIAS.to_owned(), Tensor::from_vec(bias, classes, device)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::tensor_values;
    use camshaft_common::model::ModelReference;
    use camshaft_model::network::convolution::BatchNorm;
    use camshaft_model::testing::noise;

    #[test]
    fn a_bias_and_another_eps_go_into_the_statistics() {
        let norm = BatchNorm {
            gamma: noise(&[5], 1),
            beta: noise(&[5], 2),
            mean: noise(&[5], 3),
            variance: noise(&[5], 4).abs().unwrap(),
            eps: 1e-3,
        };
        let shape = ConvShape { inputs: 1, outputs: 5, kernel: 1, stride: 1 };
        let (weight, bias) = (noise(&[5, 1, 1, 1], 5), Some(noise(&[5], 6)));
        let layer = NormalisedConv { weight, bias, norm, shape };
        let (mean, variance) = statistics(&layer).unwrap();
        let x = noise(&[5], 7);
        let norm = &layer.norm;
        let expected = ((&x + layer.bias.as_ref().unwrap()).unwrap() - &norm.mean).unwrap();
        let expected = (expected / (&norm.variance + norm.eps).unwrap().sqrt().unwrap()).unwrap();
        let found = ((x - mean).unwrap() / (variance + EPS).unwrap().sqrt().unwrap()).unwrap();
        let difference = tensor_values::copy(&(expected - found).unwrap()).unwrap();
        assert!(difference.iter().all(|value| value.abs() < 1e-5), "{difference:?}");
    }

    #[test]
    fn other_heads_are_left_behind_and_another_network_is_refused() {
        let shape = ResNetShape::of(Architecture::ResNet18);
        let backbone = |more: &[&str]| {
            let mut tensors = random(shape, 1).unwrap();
            for name in more {
                let extra = Tensor::zeros((2, 512), DType::F32, &Device::Cpu).unwrap();
                tensors.insert((*name).to_owned(), extra);
            }
            let weights = safetensors::serialize(&tensors, None).unwrap().into();
            let config = Init::Random(Architecture::ResNet18).config().unwrap();
            let config = serde_json::to_vec(&config).unwrap();
            let files = ModelFiles::from_bytes(ModelReference::Bundled, weights, &config).unwrap();
            Init::Model(Box::new(files)).backbone(0).map_err(|error| error.to_string())
        };
        let plain = backbone(&[]).unwrap().len();
        assert_eq!(backbone(&["fc.weight", "projector.0.weight"]).unwrap().len(), plain);
        let error = backbone(&["fc.weight", "layer1.0.se.fc1.weight"]).unwrap_err();
        assert!(
            error.contains("layer1.0.se.fc1.weight") && error.contains("seresnet18"),
            "{error}"
        );
    }

    #[test]
    fn random_convolutions_have_kaimings_deviation() {
        let tensors = Init::Random(Architecture::ResNet18).backbone(3).unwrap();
        let weight = tensor_values::copy(&tensors["layer4.1.conv2.weight"]).unwrap();
        let variance = weight.iter().map(|value| value * value).sum::<f32>() / weight.len() as f32;
        let expected = 2.0 / (512.0 * 9.0);
        assert!((variance / expected - 1.0).abs() < 0.01, "{variance} is not {expected}");
        assert_eq!(tensors.len(), 20 * 5);
    }
}
