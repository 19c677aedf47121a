//! A small random network for unit tests: one block a stage, 4 channels wide, 7 classes.

use std::collections::HashMap;

use bytes::Bytes;
use camshaft_common::model::ModelReference;
use candle_core::{Device, Tensor};

use super::compute::Compute;
use super::config::HeadKind;
use super::head::HeadShape;
use super::layers::{BlockKind, ResNetShape};
use super::resnet::ResNet;
use super::weights::Weights;
use super::{KernelChoice, Model, ModelFiles, Precision};

/// Classes of the small model, `c0` and on.
pub const CLASSES: usize = 7;
/// Side of its input: the last stage is 2 × 2.
pub const SIDE: usize = 64;

/// Two blocks in a stage, so that one has no shortcut convolution.
fn shape(block: BlockKind) -> ResNetShape {
    ResNetShape { blocks: [2, 1, 1, 1], width: 4, block }
}

/// Values around zero with variance 1, the same for the same seed: a failing test must fail
/// again. SplitMix64 (Steele, Lea and Flood 2014).
pub fn noise(shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed;
    let values = (0..shape.iter().product::<usize>()).map(|_| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        // The top 24 bits to -1..1, whose variance is a third.
        ((bits >> 40) as f32 / (1 << 23) as f32 - 1.0) * 3f32.sqrt()
    });
    Tensor::from_vec(values.collect(), shape, &Device::Cpu).unwrap()
}

/// Random weights of [`small_model`] as a safetensors file.
pub fn small_weights() -> Vec<u8> {
    weights(shape(BlockKind::Bottleneck), HeadKind::AveragePool)
}

fn head(shape: ResNetShape, kind: HeadKind) -> HeadShape {
    HeadShape { kind, classes: CLASSES, features: shape.features(SIDE, SIDE) }
}

fn weights(shape: ResNetShape, kind: HeadKind) -> Vec<u8> {
    // An empty file misses every tensor, which tells what there must be.
    let none = safetensors::serialize(HashMap::<String, Tensor>::new(), None).unwrap();
    let mut none = Weights::read(&none).unwrap();
    let compute = Compute::choose(&Device::Cpu, Precision::F32, KernelChoice::Candle).unwrap();
    let shapes = (shape, head(shape, kind));
    ResNet::load(&mut none, Bytes::new(), shapes, &Device::Cpu, &compute).unwrap();
    let tensors = (0..).zip(none.into_misfits()).map(|(seed, misfit)| {
        let fan_in: usize = misfit.expected[1..].iter().product();
        let scale = (2.0 / fan_in.max(1) as f64).sqrt();
        let tensor = (noise(&misfit.expected, seed) * scale).unwrap();
        // A variance is above zero, and one near it would make the network chaotic.
        let variance = misfit.name.ends_with("running_var");
        (misfit.name, if variance { (tensor.abs().unwrap() + 0.5).unwrap() } else { tensor })
    });
    safetensors::serialize(tensors.collect::<HashMap<_, _>>(), None).unwrap()
}

/// A model with such weights.
pub fn small_model() -> Model {
    small_model_of(BlockKind::Bottleneck)
}

/// The same of other blocks.
pub(super) fn small_model_of(block: BlockKind) -> Model {
    small_model_with(block, HeadKind::AveragePool)
}

/// The same of other blocks with another head.
pub(super) fn small_model_with(block: BlockKind, head: HeadKind) -> Model {
    let classes: Vec<_> = (0..CLASSES).map(|class| format!("c{class}")).collect();
    let config = serde_json::json!({
        "architecture": "resnet50",
        "head": head,
        "classes": classes,
        "input": {
            "height": SIDE, "width": SIDE, "resize": "stretch",
            "interpolation": "bilinear-antialiased", "scale": "1/255",
            "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0], "color": "rgb"
        }
    });
    let reference: ModelReference = "/models/small".parse().unwrap();
    let (shape, config) = (shape(block), config.to_string());
    let weights = weights(shape, head).into();
    let files = ModelFiles::from_bytes(reference, weights, config.as_bytes()).unwrap();
    let (precision, kernel) = (Precision::Auto, KernelChoice::Candle);
    Model::load_shape(&files, shape, &Device::Cpu, precision, kernel).unwrap()
}
