//! A small random network for unit tests: 4 channels wide, one or two blocks a stage, 7 classes.

use std::collections::HashMap;

use camshaft_common::model::ModelReference;
use camshaft_kernels::PixelValues;
use candle_core::{Device, Tensor};

use crate::checkpoint::WeightsFile;
use crate::compute::{ComputeDevice, ComputeMode, ComputeSettings, KernelChoice, Precision};
use crate::config::HeadKind;
use crate::model::Model;
use crate::model_files::ModelFiles;
use crate::network::head::HeadShape;
use crate::network::inference::PixelInput;
use crate::network::resnet::{BlockKind, NetworkShape, ResNet, ResNetShape};

/// Number of classes of the small model: `c0` to `c6`.
pub const CLASSES: usize = 7;
/// Channels of the small model's stem.
const WIDTH: usize = 4;
/// Side of the small model's input. Its last stage is 2 × 2.
pub const SIDE: usize = 64;
/// Without the CPU's kernels.
pub const ON_CANDLE: ComputeSettings =
    ComputeSettings { precision: Precision::F32, kernel: KernelChoice::Candle, largest_batch: 1 };
/// Why nothing here fails.
const VALID: &str = "the small model is valid";

/// The first stage has two blocks, so that one block has no convolution in its shortcut.
fn shape(block: BlockKind, width: usize) -> ResNetShape {
    ResNetShape { blocks: [2, 1, 1, 1], width, block }
}

/// Uniform values around zero with variance 1, f32. The same seed gives the same values, so that a
/// failing test fails again. SplitMix64 (Steele, Lea and Flood 2014).
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
    Tensor::from_vec(values.collect(), shape, &Device::Cpu)
        .expect("the shape has this number of values")
}

/// Random weights of [`small_model`] as a safetensors file.
pub fn small_weights() -> Vec<u8> {
    weights(shape(BlockKind::Bottleneck, WIDTH), HeadKind::AveragePool)
}

fn head(shape: ResNetShape, kind: HeadKind) -> HeadShape {
    HeadShape { kind, classes: CLASSES, features: shape.features(SIDE, SIDE) }
}

fn weights(shape: ResNetShape, kind: HeadKind) -> Vec<u8> {
    // Every tensor is missing in an empty file: the misfits list what a file needs.
    let none = safetensors::serialize(HashMap::<String, Tensor>::new(), None).expect(VALID);
    let file = WeightsFile::of_safetensors(none.into()).expect(VALID);
    let mut none = file.open().expect(VALID);
    let compute = ComputeMode::choose(&ComputeDevice::Cpu, ON_CANDLE, None).expect(VALID);
    let shape = NetworkShape { backbone: shape, head: head(shape, kind) };
    let input = PixelInput {
        height: SIDE,
        width: SIDE,
        values: PixelValues { values: [[0.0; 256]; 3], sources: [0, 1, 2] },
    };
    ResNet::load(&mut none, file.clone(), shape, input, &compute).expect(VALID);
    let tensors = (0..).zip(none.misfits().to_vec()).map(|(seed, misfit)| {
        let fan_in: usize = misfit.expected[1..].iter().product();
        let scale = (2.0 / fan_in.max(1) as f64).sqrt();
        let tensor = (noise(&misfit.expected, seed) * scale).expect(VALID);
        // Variances must be above zero; near zero they would amplify every difference.
        let variance = misfit.name.ends_with("running_var");
        (
            misfit.name,
            if variance { (tensor.abs().expect(VALID) + 0.5).expect(VALID) } else { tensor },
        )
    });
    safetensors::serialize(tensors.collect::<HashMap<_, _>>(), None).expect(VALID)
}

/// The small model, with bottleneck blocks and average pooling.
pub fn small_model() -> Model {
    small_model_of(BlockKind::Bottleneck)
}

/// The small model with other blocks.
pub(super) fn small_model_of(block: BlockKind) -> Model {
    small_model_with(block, HeadKind::AveragePool)
}

/// The small model with other blocks and another head.
pub(super) fn small_model_with(block: BlockKind, head: HeadKind) -> Model {
    small_model_on(&ComputeDevice::Cpu, ON_CANDLE, shape(block, WIDTH), head)
}

/// A small model of any shape on any device.
pub(super) fn small_model_on(
    device: &ComputeDevice,
    settings: ComputeSettings,
    shape: ResNetShape,
    head: HeadKind,
) -> Model {
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
    let reference: ModelReference = "/models/small".parse().expect(VALID);
    let (weights, config) = (weights(shape, head).into(), config.to_string());
    let files = ModelFiles::from_bytes(reference, weights, config.as_bytes()).expect(VALID);
    Model::load_shape(&files, shape, device, settings).expect(VALID)
}
