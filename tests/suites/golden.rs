//! The bundled model and its maps against PyTorch's numbers, where they are at hand.
//!
//! `cats-vs-dogs.json` holds what PyTorch 2.15 and grad-cam 1.5.7 computed in f32 for three
//! images; its README tells how. The PNGs beside it are the network's exact inputs, so that
//! decoders and resizers have no part in this.

use std::path::{Path, PathBuf};

use camshaft_common::explain::{ExplainOptions, Target, TargetLayer};
use camshaft_kernels::Kernel;
use camshaft_worker::cam::{CamTarget, HeatMap, grad_cam};
use camshaft_worker::model::{
    DeviceChoice, ExplainRequest, KernelChoice, Model, ModelFiles, Precision,
};
use candle_core::{Device, Tensor};
use serde_json::Value;

/// Largest difference of a logit.
const LOGIT_TOLERANCE: f32 = 1e-3;
/// Largest difference of a map's value, as a share of the map's maximum, for `layer4`.
const MAP_TOLERANCE: f32 = 1e-3;
/// The same where the gradient comes back through ReLUs. One whose input is within rounding
/// of zero lets the gradient through or not, and the map jumps: relative noise of 3e-6 in
/// the features of `layer2` moves these maps by up to 4e-3 of their maximum, 2e-7 by 5e-7.
const MAP_TOLERANCE_THROUGH_RELU: f32 = 5e-3;
/// What counts as zero where a whole map is: such a map has no maximum to compare with.
const ZERO: f32 = 1e-7;
/// Largest difference between the two ways to a map, as a share of its maximum.
const CLOSED_FORM_TOLERANCE: f32 = 1e-5;

struct Golden {
    cases: Vec<Value>,
    /// `[N, 3, 224, 224]`.
    input: Tensor,
    model: Model,
}

/// What multiplies in f32 on this machine.
fn f32_kernels() -> Vec<KernelChoice> {
    let own = Kernel::ALL.into_iter().filter(|kernel| !kernel.is_bf16() && kernel.is_available());
    [KernelChoice::Candle].into_iter().chain(own.map(KernelChoice::Only)).collect()
}

/// The reference numbers, their inputs and the model; `None` where they are not at hand.
fn golden(kernel: KernelChoice) -> Option<Golden> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/golden"));
    let Ok(text) = std::fs::read_to_string(folder.join("cats-vs-dogs.json")) else {
        skip(&folder);
        return None;
    };
    let text: Value = serde_json::from_str(&text).unwrap();
    let cases = text["cases"].as_array().unwrap().clone();
    let inputs: Vec<_> = cases.iter().map(|case| input(&folder, case)).collect();
    let device = DeviceChoice::Cpu.open().unwrap();
    let model = Model::load(&ModelFiles::bundled(), &device, Precision::F32, kernel).unwrap();
    Some(Golden { cases, input: Tensor::stack(&inputs, 0).unwrap(), model })
}

#[expect(clippy::print_stderr, reason = "a reader of the test's output must see what it left out")]
fn skip(folder: &Path) {
    eprintln!("skipped: no reference numbers of PyTorch in {}", folder.display());
}

/// A case's `[3, 224, 224]` input, checked against what PyTorch was given.
fn input(folder: &Path, case: &Value) -> Tensor {
    let name = Path::new(case["image"].as_str().unwrap()).with_extension("png");
    let image = image::open(folder.join(name)).unwrap().into_rgb8();
    assert_eq!(image.dimensions(), (224, 224));
    let tensor = Tensor::from_raw_buffer(
        image.as_raw(),
        candle_core::DType::U8,
        &[224, 224, 3],
        &Device::Cpu,
    );
    let tensor = tensor.unwrap().permute((2, 0, 1)).unwrap().contiguous().unwrap();
    let tensor = (tensor.to_dtype(candle_core::DType::F32).unwrap() / 255.0).unwrap();
    let mean = tensor.mean_all().unwrap().to_scalar::<f32>().unwrap();
    assert!((mean - number(&case["input_mean"])).abs() < 1e-5, "mean of {}", case["image"]);
    let first = tensor.flatten_all().unwrap().narrow(0, 0, 8).unwrap().to_vec1::<f32>().unwrap();
    assert!(difference(&first, &numbers(&case["input_first8"])) < 1e-6, "{first:?}");
    tensor
}

fn number(value: &Value) -> f32 {
    value.as_f64().unwrap() as f32
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(number).collect()
}

fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn maximum(values: &[f32]) -> f32 {
    values.iter().copied().fold(0.0, f32::max)
}

#[test]
fn logits_are_those_of_pytorch() {
    for kernel in f32_kernels() {
        let Some(Golden { cases, input, model }) = golden(kernel) else { return };
        let logits = model.forward(&input, &[]).unwrap().logits.to_vec2::<f32>().unwrap();
        for (case, logits) in cases.iter().zip(logits) {
            let difference = difference(&logits, &numbers(&case["logits"]));
            println!("{kernel}: {} logits off by {difference:.1e}", case["image"]);
            assert!(difference < LOGIT_TOLERANCE, "{}: off by {difference}", case["image"]);
        }
    }
}

#[test]
fn grad_cam_maps_are_those_of_pytorch_at_every_stage() {
    for kernel in f32_kernels() {
        let Some(golden) = golden(kernel) else { return };
        maps_are_those_of_pytorch(kernel, &golden);
    }
}

#[expect(clippy::print_stdout, reason = "what was found is worth reading")]
fn maps_are_those_of_pytorch(kernel: KernelChoice, Golden { cases, input, model }: &Golden) {
    let mut compared = 0;
    for stage in 1..=4 {
        let layer = TargetLayer::Stage(stage);
        let tolerance = if stage == 4 { MAP_TOLERANCE } else { MAP_TOLERANCE_THROUGH_RELU };
        // Every class of every image: a batch whose images have several targets.
        let options = ExplainOptions { layer, target: Target::Top(2), ..Default::default() };
        let requests = vec![ExplainRequest { options: &options, label: None }; cases.len()];
        let results = model.explain_batch(input, &requests).unwrap();
        for (case, result) in cases.iter().zip(results) {
            for explanation in result.unwrap().explanations {
                let Some(reference) = reference(case, &layer.to_string(), explanation.class) else {
                    continue;
                };
                let HeatMap { height, width, values } = explanation.map;
                assert_eq!(reference["height"].as_u64(), Some(height as u64));
                assert_eq!(reference["width"].as_u64(), Some(width as u64));
                let reference = numbers(&reference["values"]);
                let share = difference(&values, &reference) / maximum(&reference).max(ZERO);
                let class = explanation.class;
                let what = format!("{kernel}: {} {layer} class {class}", case["image"]);
                println!("{what}: off by {share:.1e} of the maximum");
                assert!(share < tolerance, "{what}: off by {share} of the maximum");
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 3 * 2 * cases.len(), "layer2 to layer4 have references for both classes");
}

/// PyTorch's Grad-CAM map of a case, if the file has it.
fn reference<'a>(case: &'a Value, layer: &str, class: usize) -> Option<&'a Value> {
    case["maps"]
        .as_array()
        .unwrap()
        .iter()
        .find(|map| map["method"] == "grad-cam" && map["layer"] == layer && map["class"] == class)
}

#[test]
fn closed_form_and_gradient_agree_on_the_real_network() {
    let Some(Golden { cases, input, model }) = golden(KernelChoice::Candle) else { return };
    let features = model.forward(&input, &[4]).unwrap().stages[3].clone().unwrap();
    let targets: Vec<_> =
        (0..cases.len()).flat_map(|image| [0, 1].map(|class| CamTarget { image, class })).collect();
    let network = model.network();
    let closed = grad_cam::closed_form(&features, network.head_weight(), &targets).unwrap();
    let gradient =
        grad_cam::by_gradient(&features, &targets, |x| network.forward_from_stage(x, 4)).unwrap();
    for (closed, gradient) in closed.iter().zip(&gradient) {
        let share =
            difference(&closed.values, &gradient.values) / maximum(&closed.values).max(ZERO);
        assert!(share <= CLOSED_FORM_TOLERANCE, "off by {share} of the maximum");
    }
}

#[test]
fn an_images_result_does_not_depend_on_its_neighbours() {
    let Some(Golden { cases, input, model }) = golden(KernelChoice::Candle) else { return };
    for stage in [2, 4] {
        let layer = TargetLayer::Stage(stage);
        let options = ExplainOptions { layer, ..Default::default() };
        let requests = vec![ExplainRequest { options: &options, label: None }; cases.len()];
        let together = model.explain_batch(&input, &requests).unwrap();
        for (image, together) in together.into_iter().enumerate() {
            let alone = input.narrow(0, image, 1).unwrap();
            let alone = model.explain_batch(&alone, &requests[..1]).unwrap().remove(0).unwrap();
            let together = together.unwrap();
            for (a, b) in alone.predictions.iter().zip(&together.predictions) {
                assert_eq!(a.class, b.class);
                assert!((a.logit - b.logit).abs() <= 1e-6, "{} and {}", a.logit, b.logit);
            }
            let [a, b] = [&alone, &together].map(|result| &result.explanations[0].map.values);
            assert!(difference(a, b) <= 1e-6 * maximum(a), "off by {}", difference(a, b));
        }
    }
}
