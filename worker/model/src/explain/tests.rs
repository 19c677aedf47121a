//! Batches on the small model, on candle, and on engines that fail.

use std::sync::Arc;

use camshaft_common::explain::{Choices, TargetLayer};
use camshaft_common::label::LabelProblem;
use camshaft_common::model::ModelReference;
use candle_core::{DType, Device};

use super::*;
use crate::network::inference::{EngineError, ForwardOutput, InferenceEngine};
use crate::network::resnet::BlockKind;
use crate::testing::{
    CLASSES, ON_CANDLE, SIDE, noise, small_model, small_model_with, small_weights,
};
use crate::{ComputeDevice, HeadKind, ModelFiles};

fn options(stage: u8, target: Target) -> ExplainOptions {
    let layer = Choices::one(TargetLayer::Stage(stage).into());
    ExplainOptions { layer, target, ..Default::default() }
}

fn images(count: usize) -> Tensor {
    noise(&[count, 3, SIDE, SIDE], 100).abs().unwrap()
}

fn explain_while(
    model: &Model,
    input: &Tensor,
    requests: &[ExplainRequest<'_>],
    goes_on: &dyn Fn() -> bool,
) -> Result<ImageResults, ModelError> {
    let input = PassInput::Scaled(input);
    model.finish(model.begin(input, requests)?, input, requests, goes_on)
}

/// An engine that fails, at the start of a pass or while the device works.
#[derive(Debug)]
struct FailingEngine {
    error: EngineError,
    at_start: bool,
}

impl InferenceEngine for FailingEngine {
    fn name(&self) -> String {
        "failing".to_owned()
    }

    fn takes(&self, _height: usize, _width: usize) -> bool {
        true
    }

    fn begin(
        &self,
        _input: PassInput<'_>,
        _request: &PassRequest,
    ) -> Result<StartedPass, EngineError> {
        if self.at_start { Err(self.error.clone()) } else { Ok(StartedPass::Running(Arc::new(0))) }
    }

    fn finish(&self, _pass: StartedPass) -> Result<ForwardOutput, EngineError> {
        Err(self.error.clone())
    }
}

#[test]
fn each_way_in_which_a_device_fails_is_told_apart() {
    let bytes = vec![0; 3 * SIDE * SIDE];
    for at_start in [true, false] {
        let fail = |error: EngineError, method: &str| {
            let mut model = small_model();
            let engine = FailingEngine { error, at_start };
            model.network_mut().set_engine(Box::new(engine));
            let method = method.parse().unwrap();
            let options = ExplainOptions { method, ..options(2, Target::Top(1)) };
            let requests = [ExplainRequest { options: &options, label: None }];
            let started = model.begin_batch(&bytes, &requests)?;
            model.finish_batch(started, &bytes, &requests, &|| true)
        };
        let reason = || "a reason".to_owned();
        let memory = fail(EngineError::OutOfMemory(reason()), "grad-cam").unwrap_err();
        assert!(matches!(&memory, ModelError::OutOfMemory(told) if *told == reason()));
        let lost = fail(EngineError::DeviceLost(reason()), "grad-cam").unwrap_err();
        assert!(matches!(&lost, ModelError::DeviceLost(told) if *told == reason()));
        let failed = fail(EngineError::Failed(reason()), "score-cam").unwrap_err();
        assert!(
            matches!(&failed, ModelError::Compute(_)) && failed.to_string().contains("a reason")
        );
    }
}

#[test]
fn bytes_are_explained_as_their_scaled_values_are() {
    let model = small_model();
    let bytes: Vec<u8> = (0..2 * 3 * SIDE * SIDE).map(|at| (at * at % 253) as u8).collect();
    let scaled = model.network().pixel_input().scale(&bytes).unwrap();
    for method in ["grad-cam", "score-cam"] {
        let method = method.parse().unwrap();
        let options = ExplainOptions { method, ..options(1, Target::Top(1)) };
        let requests = [ExplainRequest { options: &options, label: None }; 2];
        let started = model.begin_batch(&bytes, &requests).unwrap();
        let of_bytes = model.finish_batch(started, &bytes, &requests, &|| true).unwrap();
        assert_eq!(of_bytes, model.explain_batch(&scaled, &requests).unwrap());
    }
    let options = ExplainOptions::default();
    let requests = [ExplainRequest { options: &options, label: None }; 3];
    let refused = model.begin_batch(&bytes, &requests);
    assert!(matches!(refused, Err(ModelError::BatchShape { .. })));
}

fn difference(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn one_batch_serves_different_wishes_as_if_each_image_were_alone() {
    let model = small_model();
    let wishes = [
        (options(4, Target::Top(2)), None),
        (options(2, Target::Label), Some("c5")),
        (options(4, Target::Label), None),
        (options(1, Target::Class("c0".into())), None),
        (options(3, Target::Top(99)), Some("c1")),
        (options(4, Target::Top(2)), Some("no class")),
    ];
    let requests: Vec<_> =
        wishes.iter().map(|(options, label)| ExplainRequest { options, label: *label }).collect();
    let input = images(requests.len());
    let together = model.explain_batch(&input, &requests).unwrap();
    assert_eq!(together[2], Err(ExplainError::NoLabel));
    for (image, together) in together.iter().enumerate() {
        let alone = input.narrow(0, image, 1).unwrap();
        let alone = model.explain_batch(&alone, &requests[image..=image]).unwrap().remove(0);
        let (Ok(alone), Ok(together)) = (alone, together) else { continue };
        assert_eq!(alone.explanations.len(), together.explanations.len());
        for (a, b) in alone.explanations.iter().zip(&together.explanations) {
            assert_eq!((a.class, &a.layer), (b.class, requests[image].options.layer.first()));
            let (difference, max) = (difference(&a.map.values, &b.map.values), a.statistics.max);
            assert!(difference <= 1e-6 * max, "off by {difference} of {max}");
        }
    }
    let counts: Vec<_> =
        together.iter().flatten().map(|result| result.explanations.len()).collect();
    // If the label isn't the top class, the top class is explained too.
    assert_eq!(counts, [2, 2, 1, CLASSES, 2]);
}

#[test]
fn a_given_class_that_is_not_among_the_top_is_explained_last() {
    let model = small_model();
    let input = images(1);
    let explain = |label: Option<&str>| {
        let options = options(4, Target::Top(1));
        let request = ExplainRequest { options: &options, label };
        model.explain_batch(&input, &[request]).unwrap().remove(0).unwrap()
    };
    let top = explain(None).explanations.remove(0);
    for class in 0..CLASSES {
        let label = format!("c{class}");
        let explained = explain(Some(&label));
        let classes: Vec<_> = explained.explanations.iter().map(|map| map.class).collect();
        assert_eq!(explained.explanations[0], top);
        assert_eq!(classes, if class == top.class { vec![class] } else { vec![top.class, class] });
        assert!(explained.predictions.iter().any(|prediction| prediction.class == class));
    }
    assert_eq!(explain(Some("whale")).explanations, [top]);
}

#[test]
fn features_are_what_an_average_pooling_head_weighs() {
    let options = options(4, Target::Top(1));
    let request = ExplainRequest { options: &options, label: None };
    for head in [HeadKind::AveragePool, HeadKind::Flatten] {
        let model = small_model_with(BlockKind::Bottleneck, head);
        let results = model.explain_batch(&images(2), &[request; 2]).unwrap();
        let last = model.forward(&images(2), &[4]).unwrap().stages[3].clone().unwrap();
        let means = last.mean((2, 3)).unwrap().to_vec2::<f32>().unwrap();
        for (result, means) in results.iter().zip(&means) {
            assert!(difference(&result.as_ref().unwrap().features, means) < 1e-6);
        }
    }
}

#[test]
fn the_explained_class_is_listed_after_the_top_five() {
    let model = small_model();
    let input = images(1);
    let all = options(4, Target::Top(CLASSES));
    let all = ExplainRequest { options: &all, label: None };
    let ranked = model.explain_batch(&input, &[all]).unwrap().remove(0).unwrap().predictions;
    let sum: f32 = ranked.iter().map(|prediction| prediction.probability).sum();
    assert!((sum - 1.0).abs() < 1e-6 && ranked.is_sorted_by(|a, b| a.logit >= b.logit));
    let last = ranked.last().unwrap();
    let options = options(4, Target::Class(last.label.clone()));
    let request = ExplainRequest { options: &options, label: None };
    let result = model.explain_batch(&input, &[request]).unwrap().remove(0).unwrap();
    assert_eq!(result.predictions.len(), 6);
    assert_eq!(result.predictions[5].class, last.class);
    assert_eq!(result.explanations[0].label, last.label);
}

#[test]
fn an_image_that_overflows_fails_alone() {
    let model = small_model();
    let wild = Tensor::full(f32::NAN, (1, 3, SIDE, SIDE), &Device::Cpu).unwrap();
    let input = Tensor::cat(&[images(1), wild], 0).unwrap();
    for stage in 1..=4 {
        let options = options(stage, Target::Top(1));
        let request = ExplainRequest { options: &options, label: None };
        let results = model.explain_batch(&input, &[request; 2]).unwrap();
        assert!(results[0].is_ok());
        assert_eq!(results[1], Err(ExplainError::LogitsNotFinite));
    }
}

#[test]
fn maps_that_are_no_longer_wanted_are_given_up_before_the_next_pass() {
    let model = small_model();
    let input = images(1);
    for method in ["score-cam", "ablation-cam", "grad-cam", "eigen-cam"] {
        let options =
            ExplainOptions { method: method.parse().unwrap(), ..options(2, Target::Top(1)) };
        let request = ExplainRequest { options: &options, label: None };
        let late = explain_while(&model, &input, &[request], &|| false);
        assert!(matches!(late, Err(ModelError::GivenUp)), "{method}: {late:?}");
    }
    // Each class takes a pass back.
    let options = options(1, Target::Top(CLASSES));
    let request = ExplainRequest { options: &options, label: None };
    let asked = std::cell::Cell::new(0);
    let goes_on = || {
        asked.set(asked.get() + 1);
        asked.get() < 3
    };
    let late = explain_while(&model, &input, &[request], &goes_on);
    assert!(matches!(late, Err(ModelError::GivenUp)), "{late:?}");
    assert_eq!(asked.get(), 3);
}

#[test]
fn a_batch_of_another_shape_is_refused() {
    let model = small_model();
    let options = ExplainOptions::default();
    let request = ExplainRequest { options: &options, label: None };
    for shape in [(2, 3, SIDE, SIDE), (1, 1, SIDE, SIDE), (1, 3, SIDE, SIDE + 1)] {
        let input = Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        let result = model.explain_batch(&input, &[request]);
        assert!(matches!(result, Err(ModelError::BatchShape { .. })));
    }
    let none = Tensor::zeros((0, 3, SIDE, SIDE), DType::F32, &Device::Cpu).unwrap();
    assert!(model.explain_batch(&none, &[]).unwrap().is_empty());
}

#[test]
fn weights_of_another_network_are_told_apart() {
    let config = br#"{"architecture":"resnet50","classes":["c0","c1"],"input":{
        "height":64,"width":64,"resize":"stretch","interpolation":"bilinear-antialiased",
        "scale":"1/255","mean":[0,0,0],"std":[1,1,1],"color":"rgb"}}"#;
    let reference: ModelReference = "/models/small".parse().unwrap();
    let load = |config: &[u8]| {
        let files = ModelFiles::from_bytes(reference.clone(), small_weights().into(), config);
        Model::load(&files.unwrap(), &ComputeDevice::Cpu, ON_CANDLE).unwrap_err()
    };
    let error = load(config).to_string();
    assert!(error.contains("names 2 classes, but fc.weight has 7"), "{error}");
    let config = String::from_utf8_lossy(config)
        .replace(r#"["c0","c1"]"#, r#"["c0","c1","c2","c3","c4","c5","c6"]"#);
    let error = load(config.as_bytes()).to_string();
    let first = "conv1.weight is [4, 3, 7, 7] of F32 instead of [64, 3, 7, 7]";
    assert!(error.contains(first) && error.contains("check \"architecture\""), "{error}");
}

#[test]
fn a_label_in_other_spelling_is_explained_and_listed() {
    let model = small_model();
    let input = images(1);
    let explained = |target: Target, label: &str| {
        let options = options(4, target);
        let request = ExplainRequest { options: &options, label: Some(label) };
        model.explain_batch(&input, &[request]).unwrap().remove(0)
    };
    for class in 0..CLASSES {
        for label in [format!("c{class}"), format!("C{class}"), class.to_string()] {
            let by_label = explained(Target::Label, &label).unwrap();
            assert_eq!(by_label.label, Some(Ok(class)));
            assert_eq!(by_label.explanations[0].class, class);
            let by_class = explained(Target::Class("c0".into()), &label).unwrap();
            assert!(by_class.predictions.iter().any(|listed| listed.class == class));
        }
    }
    let unknown = explained(Target::Top(1), "whale").unwrap();
    assert_eq!(unknown.label, Some(Err(LabelProblem::Unknown)));
    let error = explained(Target::Label, "whale").unwrap_err();
    assert!(matches!(error, ExplainError::UnknownLabel { .. }), "{error}");
}

#[test]
fn want_of_memory_in_f32_makes_no_batch_smaller() {
    let error = || ModelError::OutOfMemory("2 GiB".to_owned());
    assert!(matches!(without_room_in_f32(error(), 1), ModelError::OutOfMemory(_)));
    let of_batch = without_room_in_f32(error(), 8);
    assert!(matches!(of_batch, ModelError::Compute(_)) && of_batch.to_string().contains("2 GiB"));
    let lost = without_room_in_f32(ModelError::DeviceLost("gone".to_owned()), 8);
    assert!(matches!(lost, ModelError::DeviceLost(_)));
}
