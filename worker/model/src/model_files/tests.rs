//! Checkpoints that look right and aren't, and those that look strange and are right. The tensors
//! have a network's real shapes, and zeros as values.

use std::collections::BTreeMap;

use camshaft_common::model::{ClassNames, ModelOptions};
use candle_core::{DType, Device, Tensor};

use super::*;
use crate::config::Architecture;
use crate::network::NamedConvolution;
use crate::testing::ON_CANDLE;
use crate::{ComputeDevice, Model};

type Tensors = BTreeMap<String, Tensor>;

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F16, &Device::Cpu).unwrap()
}

/// A network's tensors with torchvision's names, and `head` of `classes` outputs.
fn network(architecture: Architecture, head: &str, classes: usize) -> Tensors {
    let shape = ResNetShape::of(architecture);
    let mut tensors = Tensors::new();
    for NamedConvolution { conv, norm, shape } in shape.convolutions() {
        let kernel = [shape.outputs, shape.inputs, shape.kernel, shape.kernel];
        tensors.insert(format!("{conv}.weight"), zeros(&kernel));
        for part in ["weight", "bias", "running_mean", "running_var"] {
            tensors.insert(format!("{norm}.{part}"), zeros(&[shape.outputs]));
        }
        let count = Tensor::new(7i64, &Device::Cpu).unwrap();
        tensors.insert(format!("{norm}.num_batches_tracked"), count);
    }
    let [channels, ..] = shape.features(64, 64);
    tensors.insert(format!("{head}weight"), zeros(&[classes, channels]));
    tensors.insert(format!("{head}bias"), zeros(&[classes]));
    tensors
}

fn resnet18() -> Tensors {
    network(Architecture::ResNet18, "fc.", 3)
}

fn renamed(tensors: Tensors, rename: impl Fn(&str) -> String) -> Tensors {
    tensors.into_iter().map(|(name, tensor)| (rename(&name), tensor)).collect()
}

fn with(mut tensors: Tensors, more: &[(&str, &[usize])]) -> Tensors {
    tensors.extend(more.iter().map(|(name, shape)| ((*name).to_owned(), zeros(shape))));
    tensors
}

const INPUT: &str = r#""input":{"height":64,"width":64,"resize":"stretch",
    "interpolation":"bilinear-antialiased","scale":"1/255","mean":[0,0,0],"std":[1,1,1],
    "color":"rgb"}"#;

/// What `config.json` says, or none; and what the user says.
struct Said<'a> {
    architecture: Option<&'a str>,
    config: bool,
    options: ModelOptions,
    classes: Option<ClassNames>,
}

impl Default for Said<'_> {
    fn default() -> Self {
        Self { architecture: None, config: true, options: ModelOptions::default(), classes: None }
    }
}

fn architecture(name: &str) -> Said<'_> {
    Said { architecture: Some(name), ..Said::default() }
}

fn options(ignored: &[&str], key: Option<&str>) -> Said<'static> {
    let ignore_tensors = ignored.iter().map(|pattern| (*pattern).to_owned()).collect();
    let weights_key = key.map(str::to_owned);
    let options = ModelOptions { ignore_tensors, weights_key, ..ModelOptions::default() };
    Said { options, ..architecture("resnet18") }
}

fn files(tensors: &Tensors, said: Said<'_>) -> Result<ModelFiles, String> {
    let named = said.architecture.map(|name| format!("\"architecture\":{name:?},"));
    let config =
        format!("{{{}\"classes\":[\"a\",\"b\",\"c\"],{INPUT}}}", named.unwrap_or_default());
    let weights: Bytes = safetensors::serialize(tensors, None).unwrap().into();
    let reference: ModelReference = "/models/pets".parse().unwrap();
    let mut identity = ModelIdentity::of_files(reference, &weights, config.as_bytes(), None);
    identity.options = said.options;
    let config = said.config.then(|| config.into());
    let (weights, classes) = (vec![weights], said.classes);
    let stored =
        StoredModel { identity, weights, config, preprocessor: None, classes, calibration: None };
    ModelFiles::from_stored(stored).map_err(|error| error.to_string())
}

fn load(tensors: &Tensors, said: Said<'_>) -> Result<Model, String> {
    let files = files(tensors, said)?;
    Model::load(&files, &ComputeDevice::Cpu, ON_CANDLE).map_err(|error| error.to_string())
}

fn refused(tensors: &Tensors, said: Said<'_>, parts: &[&str]) {
    let error = load(tensors, said).unwrap_err();
    for part in parts {
        assert!(error.contains(part), "no {part:?} in: {error}");
    }
}

#[test]
fn a_deeper_network_is_not_taken_for_a_shallower_one() {
    let deeper = network(Architecture::ResNet34, "fc.", 3);
    let parts = ["a resnet18 does not use: layer1.2.bn1.bias", "more; it looks like \"resnet34\""];
    refused(&deeper, architecture("resnet18"), &parts);
    load(&deeper, architecture("resnet34")).unwrap();
    let parts = ["resnet34 in its config.json", "layer1.2.conv1.weight is missing", "\"resnet18\""];
    refused(&resnet18(), architecture("resnet34"), &parts);
}

#[test]
fn a_relative_of_the_network_is_refused_by_its_name() {
    let fc: (&[usize], &[usize]) = (&[4, 64, 1, 1], &[64, 4, 1, 1]);
    for (name, shape, told) in [
        ("layer1.0.se.fc1.weight", fc.0, "\"seresnet18\" with squeeze-and-excitation"),
        ("layer2.0.aa.filt", &[1, 1, 3, 3], "\"resnet18\" with anti-aliasing filters"),
        ("layer1.0.bn1.IN.weight", &[32], "\"resnet18\" with instance normalisation"),
        ("layer1.0.conv1.lora_A.weight", fc.1, "adapter (merge"),
        ("layer1.0.conv1.weight_scale", &[64], "quantised weights"),
    ] {
        refused(&with(resnet18(), &[(name, shape)]), architecture("resnet18"), &[name, told]);
        // Nor is it run if nothing names it.
        let parts = ["can't be told from its weights", told];
        refused(&with(resnet18(), &[(name, shape)]), Said::default(), &parts);
    }
    let channels = with(resnet18(), &[("conv1.weight", &[64, 1, 7, 7])]);
    let parts = ["conv1.weight is [64, 1, 7, 7]", "first convolution of [64, 1, 7, 7]"];
    refused(&channels, architecture("resnet18"), &parts);
    let mut deep = with(resnet18(), &[("conv1.0.weight", &[32, 3, 3, 3])]);
    deep.remove("conv1.weight");
    refused(&deep, architecture("resnet18"), &["conv1.weight is missing", "\"resnet18c\""]);
}

#[test]
fn groups_and_width_show_in_the_shapes() {
    for (first, second, told) in [
        (128, [128, 4, 3, 3], "\"resnext50_32x4d\""),
        (256, [256, 8, 3, 3], "\"resnext50_32x8d\""),
        (128, [128, 128, 3, 3], "\"wide_resnet50_2\""),
    ] {
        // The blocks of a ResNet-50 by name; their shapes are read from the first one.
        let mut tensors = Tensors::new();
        for NamedConvolution { conv, .. } in ResNetShape::of(Architecture::ResNet50).convolutions()
        {
            tensors.insert(format!("{conv}.weight"), zeros(&[1, 1, 1, 1]));
        }
        let first = [first, 64, 1, 1];
        let named = [("layer1.0.conv1.weight", &first[..]), ("layer1.0.conv2.weight", &second[..])];
        let tensors = with(tensors, &named);
        refused(&tensors, Said::default(), &["can't be told from its weights", told]);
    }
}

#[test]
fn what_nothing_uses_is_an_error_until_it_is_ignored() {
    let more: [(&str, &[usize]); 2] =
        [("projector.0.weight", &[128, 512]), ("projector.0.bias", &[128])];
    let tensors = with(resnet18(), &more);
    let parts = ["projector.0.bias [128], projector.0.weight [128, 512]", "ignore them"];
    refused(&tensors, architecture("resnet18"), &parts);
    load(&tensors, options(&["projector.*"], None)).unwrap();
    refused(&tensors, options(&["*"], None), &["conv1.weight is missing"]);
}

#[test]
fn an_architecture_that_is_not_named_is_told_from_the_tensors() {
    for known in [Architecture::ResNet18, Architecture::ResNet34, Architecture::ResNet50] {
        let files = files(&network(known, "fc.", 3), Said::default()).unwrap();
        assert_eq!(files.config().architecture, known);
    }
    let none = with(Tensors::new(), &[("features.0.weight", &[64, 3, 3, 3])]);
    let parts = ["can't be told from its weights", "features.0.weight [64, 3, 3, 3]"];
    refused(&none, Said::default(), &parts);
}

#[test]
fn weights_alone_are_a_model_if_their_classes_are_named() {
    let names = |names: &[&str]| Said {
        config: false,
        classes: Some(ClassNames::List(names.iter().map(|name| (*name).to_owned()).collect())),
        ..Said::default()
    };
    let read = files(&resnet18(), names(&["cat", "dog", "koi"])).unwrap();
    assert!(read.input_is_assumed());
    assert_eq!(read.config().architecture, Architecture::ResNet18);
    assert_eq!(read.config().classes, ["cat", "dog", "koi"]);
    assert!(!files(&resnet18(), Said::default()).unwrap().input_is_assumed());
    refused(&resnet18(), names(&["cat", "dog"]), &["names 2 classes", "but fc.weight has 3"]);
    refused(&resnet18(), names(&["cat", "dog", "cat"]), &["both called \"cat\""]);
}

#[test]
fn prefixes_and_heads_are_found_wherever_they_are() {
    let bare = |head: &str| network(Architecture::ResNet18, head, 3);
    let sequence = |name: &str| {
        let stages = ["4.", "5.", "6.", "7."];
        let at = (1..=4).find(|stage| name.starts_with(&format!("layer{stage}.")));
        match at {
            Some(stage) => format!("backbone.{}{}", stages[stage - 1], &name[7..]),
            None if name.starts_with("conv1.") => format!("backbone.0.{}", &name[6..]),
            None if name.starts_with("bn1.") => format!("backbone.1.{}", &name[4..]),
            None => name.to_owned(),
        }
    };
    let backbone = |name: &str| match name.split_once('.') {
        Some(("head" | "classifier" | "linear" | "net", _)) => name.to_owned(),
        _ => format!("backbone.{name}"),
    };
    for tensors in [
        renamed(bare("fc."), |name| format!("module._orig_mod.model.net.encoder.{name}")),
        renamed(bare("fc.1."), |name| format!("model.{name}")),
        renamed(bare("head.fc."), backbone),
        renamed(bare("classifier."), backbone),
        renamed(bare("classifier.1."), |name| format!("_orig_mod.{}", backbone(name))),
        renamed(bare("net.linear.0."), backbone),
        renamed(bare("head."), sequence),
    ] {
        let names: Vec<_> = tensors.keys().take(2).cloned().collect();
        load(&tensors, architecture("resnet18"))
            .unwrap_or_else(|error| panic!("{names:?} {error}"));
        assert!(files(&tensors, Said::default()).is_ok());
    }
    let two = with(bare("head_a."), &[("head_b.weight", &[3, 512]), ("head_b.bias", &[3])]);
    refused(&two, architecture("resnet18"), &["several linear layers", "head_a.*, head_b.*"]);
    load(&two, options(&["head_b.*"], None)).unwrap();
    // Several layers are no linear head.
    let mut layers = bare("fc.3.");
    layers.remove("fc.3.weight");
    let layers = with(
        layers,
        &[("fc.0.weight", &[64, 512]), ("fc.0.bias", &[64]), ("fc.3.weight", &[3, 64])],
    );
    let parts = ["fc.weight is missing", "the file has fc.0.bias [64], fc.0.weight [64, 512]"];
    refused(&layers, architecture("resnet18"), &parts);
}

#[test]
fn of_several_networks_one_has_to_be_chosen() {
    let mut both = renamed(resnet18(), |name| format!("encoder_k.{name}"));
    // Not the same to the byte, or it would be one network with two names.
    both.insert("encoder_k.bn1.bias".into(), zeros(&[64]).ones_like().unwrap());
    both.extend(renamed(resnet18(), |name| format!("encoder_q.{name}")));
    let shifted = |name: &str| both[name].ones_like().unwrap();
    let ones: Vec<_> = ["encoder_k.layer1.0.conv1.weight", "encoder_k.layer4.0.conv1.weight"]
        .map(|name| (name.to_owned(), shifted(name)))
        .into();
    both.extend(ones);
    refused(&both, architecture("resnet18"), &["several networks", "encoder_k, encoder_q"]);
    load(&both, options(&[], Some("encoder_q"))).unwrap();
    load(&both, options(&["encoder_k.*"], None)).unwrap();
    refused(&both, options(&[], Some("encoder")), &["nothing under \"encoder\"", "encoder_k."]);
}

#[test]
fn one_output_is_refused_whatever_the_classes_are() {
    let one = network(Architecture::ResNet18, "fc.", 1);
    refused(&one, architecture("resnet18"), &["a single output (fc.weight)", "sigmoid"]);
}

#[test]
fn weights_that_are_not_finite_are_refused_by_name() {
    let mut tensors = resnet18();
    let bias = Tensor::new(&[f32::NAN, 0.0, f32::INFINITY], &Device::Cpu).unwrap();
    tensors.insert("fc.bias".into(), bias);
    let below = Tensor::full(-1f32, 64, &Device::Cpu).unwrap();
    tensors.insert("bn1.running_var".into(), below);
    let parts = [
        "bn1.running_var has 64 of 64 values that are below zero",
        "fc.bias has 2 of 3 values that are NaN",
    ];
    refused(&tensors, architecture("resnet18"), &parts);
}

#[test]
fn a_tensor_of_another_type_is_a_misfit() {
    let mut tensors = resnet18();
    let whole = tensors["layer1.0.conv1.weight"].to_dtype(DType::U8).unwrap();
    tensors.insert("layer1.0.conv1.weight".into(), whole);
    let told = "layer1.0.conv1.weight is [64, 64, 3, 3] of U8 instead of floating-point numbers";
    refused(&tensors, architecture("resnet18"), &[told]);
}

#[test]
fn shards_are_one_checkpoint() {
    let (mut first, mut second) = (Tensors::new(), Tensors::new());
    for (at, (name, tensor)) in resnet18().into_iter().enumerate() {
        if at % 2 == 0 { &mut first } else { &mut second }.insert(name, tensor);
    }
    let read = |shards: &[&Tensors]| {
        let shards = shards.iter().map(|shard| safetensors::serialize(*shard, None).unwrap());
        let weights: Vec<Bytes> = shards.map(Bytes::from).collect();
        let reference: ModelReference = "/models/pets".parse().unwrap();
        let config = format!("{{\"classes\":[\"a\",\"b\",\"c\"],{INPUT}}}");
        let identity = ModelIdentity::of_files(reference, &weights[0], config.as_bytes(), None);
        let config = Some(config.into());
        let stored = StoredModel {
            identity,
            weights,
            config,
            preprocessor: None,
            classes: None,
            calibration: None,
        };
        let files = ModelFiles::from_stored(stored).map_err(|error| error.to_string())?;
        let loaded = Model::load(&files, &ComputeDevice::Cpu, ON_CANDLE);
        loaded.map_err(|error| error.to_string())
    };
    read(&[&first, &second]).unwrap();
    read(&[&second, &first]).unwrap();
    assert!(read(&[&first, &first]).unwrap_err().contains("two of its files have a tensor"));
    assert!(read(&[&first]).is_err());
}
