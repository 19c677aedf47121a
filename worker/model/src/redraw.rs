//! A copy of a model in which one part has random weights. It serves to test whether maps depend on
//! what that part has learnt (Adebayo et al. 2018, <https://arxiv.org/abs/1810.03292>).
//!
//! Owns making the files of such a model; they are loaded like any other model's. Upstream: a
//! model's files. Downstream: the trust measures.

use std::collections::HashMap;

use candle_core::safetensors::Load;
use candle_core::{DType, Device, Result, Tensor};
use rand::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use rand_pcg::Pcg64;
use safetensors::tensor::{SafeTensors, TensorView, View};

use crate::checkpoint::WeightsFile;
use crate::error::ModelError;
use crate::model_files::ModelFiles;
use crate::network::head::HEAD_WEIGHT;
use crate::network::resnet::{ResNetShape, STAGES};

/// A part of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkPart {
    /// The linear layer after the last stage.
    Head,
    /// The convolutions of the last residual stage.
    LastStage,
}

impl NetworkPart {
    /// torchvision's names of the weights that are redrawn. BatchNorms stay: their scales keep
    /// activations in the range that the rest of the network was trained for. So the redrawn
    /// weights lose what they had learnt, but the size of activations stays. Biases don't influence
    /// a map of the head's input.
    fn weights(self, shape: ResNetShape) -> Vec<String> {
        match self {
            Self::Head => vec![HEAD_WEIGHT.to_owned()],
            Self::LastStage => shape
                .stage(STAGES - 1)
                .flat_map(|block| block.path().into_iter().chain(block.shortcut()))
                .map(|named| format!("{}.weight", named.conv))
                .collect(),
        }
    }
}

/// Copies a model and draws a part's weights anew, each tensor from a normal distribution with the
/// tensor's own mean and standard deviation. The same `seed` draws the same weights.
///
/// # Errors
/// If the weights are not a safetensors file.
pub fn redraw(
    files: &ModelFiles,
    part: NetworkPart,
    seed: u64,
) -> std::result::Result<ModelFiles, ModelError> {
    let shape = ResNetShape::of(files.config().architecture);
    let weights = redraw_tensors(files.weights(), &part.weights(shape), seed)
        .map_err(|source| ModelError::Weights { model: files.identity().name.clone(), source })?;
    Ok(files.with_weights(weights.into()))
}

fn redraw_tensors(file: &WeightsFile, wanted: &[String], seed: u64) -> Result<Vec<u8>> {
    let tensors = SafeTensors::deserialize(file.bytes())?;
    let names = file.names();
    let mut random = Pcg64::seed_from_u64(seed);
    let mut drawn = HashMap::new();
    for name in wanted.iter().map(|name| names.in_file(name)) {
        // A missing tensor is an error when the file is loaded.
        if let Ok(view) = tensors.tensor(&name) {
            drawn.insert(name, draw(&view, &mut random)?);
        }
    }
    let kept = tensors.iter().map(|(name, view)| {
        let data = drawn.get(name).map_or(view.data(), Vec::as_slice);
        Ok((name.to_owned(), TensorView::new(view.dtype(), view.shape().to_vec(), data)?))
    });
    let all = kept.collect::<Result<Vec<_>>>()?;
    Ok(safetensors::serialize(all, None)?)
}

/// Draws normal values with a tensor's mean and standard deviation, in its number format.
fn draw(view: &TensorView<'_>, random: &mut Pcg64) -> Result<Vec<u8>> {
    let trained = view.load(&Device::Cpu)?;
    let dtype = trained.dtype();
    let values = trained.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    let deviation = variance.sqrt();
    let normal = (0..values.len()).map(|_| {
        let value: f64 = StandardNormal.sample(random);
        mean + deviation * value
    });
    let drawn = Tensor::from_iter(normal, &Device::Cpu)?.to_dtype(dtype)?;
    Ok(View::data(&drawn).into_owned())
}

#[cfg(test)]
mod tests {
    use camshaft_common::model::ModelReference;

    use super::*;
    use crate::testing::small_weights;

    fn values(file: &[u8], name: &str) -> Vec<f32> {
        let tensors = SafeTensors::deserialize(file).unwrap();
        let tensor = tensors.tensor(name).unwrap().load(&Device::Cpu).unwrap();
        tensor.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap()
    }

    fn moments(values: &[f32]) -> (f32, f32) {
        let count = values.len() as f32;
        let mean = values.iter().sum::<f32>() / count;
        (mean, (values.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / count).sqrt())
    }

    fn redraw_head(file: &[u8]) -> Vec<u8> {
        let file = WeightsFile::of_safetensors(file.to_vec().into()).unwrap();
        redraw_tensors(&file, &["fc.weight".to_owned()], 1).unwrap()
    }

    fn small_files() -> ModelFiles {
        let config =
            br#"{"architecture":"resnet50","classes":["c0","c1","c2","c3","c4","c5","c6"],"input":{
            "height":64,"width":64,"resize":"stretch","interpolation":"bilinear-antialiased",
            "scale":"1/255","mean":[0,0,0],"std":[1,1,1],"color":"rgb"}}"#;
        let reference: ModelReference = "/models/small".parse().unwrap();
        ModelFiles::from_bytes(reference, small_weights().into(), config).unwrap()
    }

    #[test]
    fn a_part_is_drawn_anew_and_nothing_else_changes() {
        let files = small_files();
        let before = files.weights().bytes();
        let tensors = SafeTensors::deserialize(before).unwrap();
        for part in [NetworkPart::Head, NetworkPart::LastStage] {
            let redrawn = |seed| redraw(&files, part, seed).unwrap().weights().bytes().clone();
            let after = redrawn(3);
            assert_eq!(after, redrawn(3));
            assert_ne!(after, redrawn(4));
            for name in tensors.names() {
                let [one, other] = [before, &after].map(|file| values(file, name));
                let convolution = name.contains("conv") || name.contains("downsample.0");
                let expected = match part {
                    NetworkPart::Head => name == "fc.weight",
                    NetworkPart::LastStage => name.starts_with("layer4.") && convolution,
                };
                assert_eq!(one != other, expected, "{part:?} {name}");
            }
        }
    }

    #[test]
    fn a_drawn_tensor_has_the_trained_ones_scale_and_format() {
        let trained = Tensor::from_iter((0..4000).map(|at| 3.0 + (at % 7) as f32), &Device::Cpu);
        for dtype in [DType::F32, DType::F16, DType::BF16, DType::F64] {
            let trained = trained.as_ref().unwrap().to_dtype(dtype).unwrap();
            let trained = trained.reshape((40, 100)).unwrap();
            let tensors = HashMap::from([("fc.weight", trained)]);
            let file = safetensors::serialize(&tensors, None).unwrap();
            let drawn = redraw_head(&file);
            assert_eq!(drawn.len(), file.len());
            let (mean, deviation) = moments(&values(&drawn, "fc.weight"));
            assert!((mean - 6.0).abs() < 0.1 && (deviation - 2.0).abs() < 0.1, "{dtype:?}");
        }
    }

    #[test]
    fn other_libraries_names_are_understood() {
        let ones = |count: usize| Tensor::from_iter((0..count).map(|at| at as f32), &Device::Cpu);
        let names = ["resnet.embedder.embedder.convolution.weight", "classifier.1.weight"];
        let tensors = names.map(|name| (name, ones(20).unwrap()));
        let file = safetensors::serialize(tensors, None).unwrap();
        let drawn = redraw_head(&file);
        assert_eq!(values(&file, names[0]), values(&drawn, names[0]));
        assert_ne!(values(&file, names[1]), values(&drawn, names[1]));
    }
}
