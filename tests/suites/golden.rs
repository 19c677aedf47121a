//! Compares the bundled model's logits and maps with PyTorch's. The tests are skipped if this
//! machine lacks PyTorch's numbers.
//!
//! `../shared/golden/cats-vs-dogs.json` holds the numbers that PyTorch 2.15 and grad-cam 1.5.7
//! computed in f32 for three images, by method, layer and class; the README beside it says how. The
//! PNGs beside it are the network's exact inputs, so that decoders and resizers make no difference.

use std::path::Path;

use camshaft_common::explain::{Choices, ExplainOptions, FusedLayers, Method, Target, TargetLayer};
use camshaft_kernels::Kernel;
use camshaft_model::cam::eigen_cam;
use camshaft_model::{
    ComputeDevice, ComputeSettings, ExplainRequest, KernelChoice, Model, ModelFiles, Precision,
};
use camshaft_tests::repository;
use camshaft_vision::heat_map::HeatMap;
use candle_core::{Device, Tensor};
use serde_json::Value;

/// Largest difference of a logit.
const LOGIT_TOLERANCE: f32 = 1e-3;
/// Largest difference of a map's value, as a share of the map's maximum. Rounding decides whether a
/// ReLU whose input is almost zero lets the gradient through, and then the map jumps: relative
/// noise of 3e-6 in the features of `layer2` moves Grad-CAM's maps by up to 4e-3 of their maximum,
/// noise of 2e-7 by 5e-7.
const MAP_TOLERANCE: f32 = 1e-2;
/// Least cosine similarity of a map.
const LEAST_COSINE: f32 = 0.999;
/// The same for maps of the last layer, whose gradients pass no ReLU. Score-CAM is an exception:
/// its 2,048 masked inputs go through the whole network.
const LAST_LAYER_TOLERANCE: f32 = 1e-3;
/// A map whose maximum is below this counts as zero: it has no maximum to compare with.
const ZERO: f32 = 1e-7;

struct Golden {
    cases: Vec<Value>,
    /// `[N, 3, 224, 224]`.
    input: Tensor,
    model: Model,
}

/// The kernels that compute in f32 on this machine.
fn f32_kernels() -> Vec<KernelChoice> {
    let is_f32 = |kernel: &Kernel| !kernel.is_bf16() && !kernel.is_int8();
    let own = Kernel::available().into_iter().filter(is_f32);
    [KernelChoice::Candle].into_iter().chain(own.map(KernelChoice::Only)).collect()
}

/// The reference numbers, their inputs and the model; `None` if there are no reference numbers.
fn golden(kernel: KernelChoice) -> Option<Golden> {
    let folder = repository::shared("golden")?;
    let text = std::fs::read_to_string(folder.join("cats-vs-dogs.json")).unwrap();
    let text: Value = serde_json::from_str(&text).unwrap();
    let cases = text["cases"].as_array().unwrap().clone();
    let inputs: Vec<_> = cases.iter().map(|case| input(&folder, case)).collect();
    let compute = ComputeSettings { precision: Precision::F32, kernel, largest_batch: 1 };
    let model = Model::load(&ModelFiles::bundled(), &ComputeDevice::Cpu, compute).unwrap();
    Some(Golden { cases, input: Tensor::stack(&inputs, 0).unwrap(), model })
}

/// A case's `[3, 224, 224]` input. Asserts that it is PyTorch's.
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
fn maps_are_those_of_pytorch_at_every_layer() {
    for kernel in f32_kernels() {
        let Some(golden) = golden(kernel) else { return };
        let mut compared = 0;
        // candle goes back through the layers, whichever kernel runs the pass.
        let layers = match kernel {
            KernelChoice::Candle => &["layer2", "layer3", "layer4", "layer4.2.conv3"][..],
            _ => &["layer3", "layer4"],
        };
        for layer in layers {
            let layer: TargetLayer = layer.parse().unwrap();
            // The two that need a pass for each channel take minutes with candle's kernels, and have
            // tests of their own.
            let there = |method: &Method| {
                let mut cases = golden.cases.iter();
                !PASS_FOR_EACH_CHANNEL.contains(method)
                    && cases.any(|case| has_reference(case, *method, layer))
            };
            let methods: Vec<_> = Method::ALL.iter().copied().filter(there).collect();
            compared += maps_are_those_of_pytorch(kernel, &golden, &methods, layer, 3);
        }
        // Five methods at each layer and Eigen-CAM at one layer, for two classes of three images.
        assert_eq!(compared, (5 * layers.len() + 1) * 2 * 3);
    }
}

/// The methods that run the network once for each channel of the layer.
const PASS_FOR_EACH_CHANNEL: [Method; 2] = [Method::ScoreCam, Method::AblationCam];

#[test]
fn ablation_cam_maps_are_those_of_pytorch() {
    maps_with_a_pass_for_each_channel(Method::AblationCam);
}

/// Each of its 2,048 passes goes through the whole network: 400 seconds of a core.
#[test]
fn score_cam_maps_are_those_of_pytorch() {
    maps_with_a_pass_for_each_channel(Method::ScoreCam);
}

fn maps_with_a_pass_for_each_channel(method: Method) {
    let Some(golden) = golden(KernelChoice::Auto) else { return };
    let layer = TargetLayer::Stage(4);
    let compared = maps_are_those_of_pytorch(KernelChoice::Auto, &golden, &[method], layer, 1);
    assert_eq!(compared, 1);
}

/// Compares the maps of the first *n* `images` for all `methods`, and returns the number of maps.
///
/// The maps of two methods are not continuous in the input. Rounding decides whether a ReLU whose
/// input is almost zero lets a gradient through; if a map adds up large numbers in a cell, as
/// HiResCAM does for a convolution, that cell jumps. XGrad-CAM divides by the sum of a channel's
/// activations, which can be almost zero for a convolution's output. So a map that differs is
/// computed again for the same image, brighter or darker by a rounding error. If that gives the
/// reference's map, only rounding made the difference: all other maps move by less than a
/// thousandth.
fn maps_are_those_of_pytorch(
    kernel: KernelChoice,
    golden: &Golden,
    methods: &[Method],
    layer: TargetLayer,
    images: usize,
) -> usize {
    const ROUNDING: [f64; 4] = [0.0, 1e-7, -1e-7, 3e-7];
    let mut compared = 0;
    let mut off = Vec::new();
    for rounding in ROUNDING {
        let input = (golden.input.narrow(0, 0, images).unwrap() * (1.0 + rounding)).unwrap();
        let mut still_off = Vec::new();
        for map in compare(kernel, golden, methods, layer, &input) {
            compared += usize::from(rounding == 0.0);
            if !map.agrees() && (rounding == 0.0 || off.contains(&map.what)) {
                still_off.push(map.what);
            }
        }
        // Such maps are rare. If there are more, the cause is not rounding.
        assert!(still_off.len() <= 2, "{still_off:?}");
        off = still_off;
        if off.is_empty() {
            return compared;
        }
    }
    panic!("{off:?}");
}

/// The difference between a map and its reference.
struct Comparison {
    what: String,
    /// Largest difference as a share of the reference's maximum.
    share: f32,
    tolerance: f32,
    cosine: f32,
}

impl Comparison {
    fn agrees(&self) -> bool {
        self.share < self.tolerance && self.cosine > LEAST_COSINE
    }
}

#[expect(clippy::print_stdout, reason = "the differences are worth reading")]
fn compare(
    kernel: KernelChoice,
    Golden { cases, model, .. }: &Golden,
    methods: &[Method],
    layer: TargetLayer,
    input: &Tensor,
) -> Vec<Comparison> {
    // Both classes of every image: a batch whose images have two targets each.
    let options = options(methods, layer.into(), Target::Top(2));
    let requests = vec![ExplainRequest { options: &options, label: None }; input.dim(0).unwrap()];
    let results = model.explain_batch(input, &requests).unwrap();
    let mut compared = Vec::new();
    for (index, (case, result)) in cases.iter().zip(results).enumerate() {
        for explanation in result.unwrap().explanations {
            let (method, class) = (explanation.method, explanation.class);
            let Some(reference) = reference(case, method, layer, class) else { continue };
            let HeatMap { height, width, mut values } = explanation.map;
            assert_eq!(reference["height"].as_u64(), Some(height as u64));
            assert_eq!(reference["width"].as_u64(), Some(width as u64));
            let reference = numbers(&reference["values"]);
            if method == Method::EigenCam {
                values = with_the_sign_of(&reference, values, input, index, model);
            }
            let share = difference(&values, &reference) / maximum(&reference).max(ZERO);
            let cosine = cosine(&values, &reference);
            let what = format!("{kernel}: {} {method} {layer} class {class}", case["image"]);
            println!("{what}: off by {share:.1e} of the maximum, cosine {cosine:.7}");
            let last = layer == TargetLayer::Stage(4) && method != Method::ScoreCam;
            let tolerance = if last { LAST_LAYER_TOLERANCE } else { MAP_TOLERANCE };
            compared.push(Comparison { what, share, tolerance, cosine });
        }
    }
    compared
}

/// Our Eigen-CAM map, or that of the opposite sign if it is closer to the reference. The sign of a
/// principal component is arbitrary: the reference has LAPACK's, ours follows the mean activation.
/// The part of the map that one keeps is the part that the other sets to zero.
fn with_the_sign_of(
    reference: &[f32],
    ours: Vec<f32>,
    input: &Tensor,
    image: usize,
    model: &Model,
) -> Vec<f32> {
    let features = model.forward(input, &[4]).unwrap().stages[3].clone().unwrap();
    let projection = eigen_cam::projections(&features).unwrap().swap_remove(image);
    let other: Vec<_> = projection.into_iter().map(|value| (-value).max(0.0)).collect();
    let closer = difference(&other, reference) < difference(&ours, reference);
    if closer { other } else { ours }
}

fn options(methods: &[Method], layer: FusedLayers, target: Target) -> ExplainOptions {
    let method: Vec<_> = methods.iter().map(ToString::to_string).collect();
    let (method, layer) = (method.join(",").parse().unwrap(), Choices::one(layer));
    ExplainOptions { method, layer, target, ..Default::default() }
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    // Two maps of zeros are equal.
    if maximum(a).max(maximum(b)) < ZERO { 1.0 } else { dot(a, b) / (dot(a, a) * dot(b, b)).sqrt() }
}

fn has_reference(case: &Value, method: Method, layer: TargetLayer) -> bool {
    (0..2).any(|class| reference(case, method, layer, class).is_some())
}

/// PyTorch's map of a case, if the file has one.
fn reference(case: &Value, method: Method, layer: TargetLayer, class: usize) -> Option<&Value> {
    let (method, layer) = (method.to_string(), layer.to_string());
    case["maps"]
        .as_array()
        .unwrap()
        .iter()
        .find(|map| map["method"] == method && map["layer"] == layer && map["class"] == class)
}

#[test]
fn an_images_result_does_not_depend_on_its_neighbours() {
    let Some(Golden { cases, input, model }) = golden(KernelChoice::Candle) else { return };
    for stage in [2, 4] {
        let options = options(&[Method::GradCam], TargetLayer::Stage(stage).into(), Target::Top(1));
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
