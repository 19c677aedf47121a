//! A GPU's explanations against candle's, for every method at every kind of layer. They need a GPU, or the
//! emulated one of `tests/gpu/emulator`.

use camshaft_common::explain::{ExplainOptions, Method, Target};

use super::*;
use crate::network::resnet::{BlockKind, ResNetShape};
use crate::testing::{CLASSES, ON_CANDLE, SIDE, small_model_on};
use crate::{ComputeDevice, ComputeSettings, DeviceChoice, HeadKind, Precision};

/// The same network on the GPU and on candle; none without a GPU.
#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
fn models(block: BlockKind, head: HeadKind, precision: Precision) -> Option<[Model; 2]> {
    let device = match DeviceChoice::Cuda(0).open() {
        Ok(device) => device,
        Err(error) => {
            eprintln!("SKIPPED: {error}");
            return None;
        }
    };
    // A GPU takes 8 channels at once.
    let shape = ResNetShape { blocks: [2, 1, 2, 1], width: 8, block };
    let settings = ComputeSettings { precision, largest_batch: 4, ..ON_CANDLE };
    let on_gpu = small_model_on(&device, settings, shape, head);
    Some([on_gpu, small_model_on(&ComputeDevice::Cpu, ON_CANDLE, shape, head)])
}

fn pixels(images: usize) -> Vec<u8> {
    (0..images * 3 * SIDE * SIDE).map(|at| ((at * 2_654_435_761) >> 11) as u8).collect()
}

fn explain(model: &Model, pixels: &[u8], requests: &[ExplainRequest<'_>]) -> ImageResults {
    let started = model.begin_batch(pixels, requests).expect("it fits");
    model.finish_batch(started, pixels, requests, &|| true).expect("the device works")
}

fn cosine(one: &[f32], other: &[f32]) -> f64 {
    let dot = |one: &[f32], other: &[f32]| -> f64 {
        one.iter().zip(other).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    };
    match (dot(one, one) * dot(other, other)).sqrt() {
        0.0 => f64::from(u8::from(one == other)),
        norms => dot(one, other) / norms,
    }
}

fn assert_alike(what: &str, gpu: &ImageResults, cpu: &ImageResults, tolerance: f32) {
    assert_eq!(gpu.len(), cpu.len(), "{what}");
    for (gpu, cpu) in gpu.iter().zip(cpu) {
        let (gpu, cpu) = match (gpu, cpu) {
            (Ok(gpu), Ok(cpu)) => (gpu, cpu),
            (gpu, cpu) => {
                assert_eq!(gpu.as_ref().err(), cpu.as_ref().err(), "{what}");
                continue;
            }
        };
        let classes = |image: &ExplainedImage| -> Vec<_> {
            image.explanations.iter().map(|map| (map.method, map.class)).collect()
        };
        assert_eq!(classes(gpu), classes(cpu), "{what}");
        for (gpu, cpu) in gpu.predictions.iter().zip(&cpu.predictions) {
            assert!((gpu.logit - cpu.logit).abs() < tolerance * 10.0, "{what}: {gpu:?} {cpu:?}");
        }
        for (gpu, cpu) in gpu.explanations.iter().zip(&cpu.explanations) {
            assert_eq!((gpu.map.height, gpu.map.width), (cpu.map.height, cpu.map.width));
            // These divide by sums of a channel that may be nearly zero: single cells differ.
            if matches!(gpu.method, Method::GradCamPlusPlus | Method::XGradCam) {
                let cosine = cosine(&gpu.map.values, &cpu.map.values);
                assert!(cosine > 0.999, "{what}: {cosine}");
                continue;
            }
            let largest = cpu.statistics.max.max(1e-6);
            for (one, other) in gpu.map.values.iter().zip(&cpu.map.values) {
                let share = (one - other).abs() / largest;
                assert!(share < tolerance, "{what}, {}: {one} is not {other}", gpu.method);
            }
        }
    }
}

#[test]
fn every_method_at_every_kind_of_layer_equals_candles() {
    let layers = "conv1,layer1,layer1.0.conv2,layer2.0.downsample.0,layer3.0,layer4.0.conv1,layer4";
    for (block, head) in
        [(BlockKind::Bottleneck, HeadKind::AveragePool), (BlockKind::Basic, HeadKind::Flatten)]
    {
        let Some([gpu, cpu]) = models(block, head, Precision::F32) else { return };
        assert_eq!((gpu.kernel().as_str(), gpu.precision()), ("cudnn", Precision::F32));
        let pixels = pixels(3);
        for layer in layers.split(',') {
            for method in Method::ALL {
                let options = ExplainOptions {
                    method: method.to_string().parse().unwrap(),
                    layer: layer.parse().unwrap(),
                    target: Target::Top(2),
                    ..ExplainOptions::default()
                };
                let requests = ["c1", "c5", "whale"]
                    .map(|label| ExplainRequest { options: &options, label: Some(label) });
                let [gpu, cpu] = [&gpu, &cpu].map(|model| explain(model, &pixels, &requests));
                // Power iteration stops at a difference of its own, and Ablation-CAM weighs by
                // differences of logits that are nearly equal.
                let tolerance = match method {
                    Method::EigenCam | Method::EigenGradCam | Method::AblationCam => 2e-2,
                    _ => 1e-3,
                };
                assert_alike(&format!("{block:?} {layer} {method}"), &gpu, &cpu, tolerance);
            }
        }
    }
}

#[test]
fn maps_that_come_with_the_pass_are_those_of_its_classes() {
    let block = BlockKind::Bottleneck;
    for head in [HeadKind::AveragePool, HeadKind::Flatten] {
        let Some([gpu, cpu]) = models(block, head, Precision::F32) else { return };
        let targets = [Target::Top(1), Target::Label, Target::Class("c3".into())];
        let all = targets.map(|target| ExplainOptions { target, ..ExplainOptions::default() });
        for options in &all {
            // More images than the GPU takes at once.
            for images in [1, 4, 6] {
                let labels = ["c0", "c6", "whale"].into_iter().cycle().take(images);
                let requests: Vec<_> =
                    labels.map(|label| ExplainRequest { options, label: Some(label) }).collect();
                assert!(gpu.labels_for_maps(&requests).is_some());
                let pixels = pixels(images);
                let [gpu, cpu] = [&gpu, &cpu].map(|model| explain(model, &pixels, &requests));
                assert_alike(&format!("{head:?} {:?}", options.target), &gpu, &cpu, 1e-3);
            }
        }
    }
}

#[test]
fn images_whose_numbers_are_too_large_for_f16_are_done_again_in_f32() {
    let block = BlockKind::Bottleneck;
    let Some([gpu, cpu]) = models(block, HeadKind::AveragePool, Precision::Auto) else { return };
    assert_eq!(gpu.precision(), Precision::F16);
    let options = ExplainOptions::default();
    let requests = [ExplainRequest { options: &options, label: None }; 3];
    // The second image is no picture: its values are a million times those of a pixel.
    let scaled = gpu.network().pixel_input().scale(&pixels(3)).unwrap();
    let factors = Tensor::new(&[1f32, 1e6, 1.0], &candle_core::Device::Cpu).unwrap();
    let input = scaled.broadcast_mul(&factors.reshape((3, 1, 1, 1)).unwrap()).unwrap();
    let [on_gpu, on_cpu] =
        [&gpu, &cpu].map(|model| model.explain_batch(&input, &requests).unwrap());
    let precisions: Vec<_> = on_gpu.iter().map(|one| one.as_ref().unwrap().precision).collect();
    assert_eq!(precisions, [Precision::F16, Precision::F32, Precision::F16]);
    let (gpu, cpu) = (on_gpu[1].as_ref().unwrap(), on_cpu[1].as_ref().unwrap());
    let largest = cpu.predictions[0].logit.abs();
    assert!((gpu.predictions[0].logit - cpu.predictions[0].logit).abs() < 1e-4 * largest);
    // If f16 was asked for, it stays.
    let Some([asked, _]) = models(block, HeadKind::AveragePool, Precision::F16) else { return };
    let results = asked.explain_batch(&input, &requests).unwrap();
    assert!(results[0].is_ok() && results[1].is_err(), "{results:?}");
}

#[test]
fn two_batches_are_under_way_at_once() {
    let block = BlockKind::Bottleneck;
    let Some([gpu, cpu]) = models(block, HeadKind::AveragePool, Precision::F32) else { return };
    let options = ExplainOptions::default();
    let requests = [ExplainRequest { options: &options, label: None }; 2];
    assert_eq!((gpu.batches_at_once(), cpu.batches_at_once()), (2, 1));
    let (first, second) = (pixels(2), pixels(4)[3 * SIDE * SIDE..][..2 * 3 * SIDE * SIDE].to_vec());
    let first_started = gpu.begin_batch(&first, &requests).unwrap();
    let second_started = gpu.begin_batch(&second, &requests).unwrap();
    let found = gpu.finish_batch(first_started, &first, &requests, &|| true).unwrap();
    assert_alike("first", &found, &explain(&cpu, &first, &requests), 1e-3);
    let found = gpu.finish_batch(second_started, &second, &requests, &|| true).unwrap();
    assert_alike("second", &found, &explain(&cpu, &second, &requests), 1e-3);
    assert_eq!(found[0].as_ref().unwrap().predictions.len(), 5.min(CLASSES));
}

#[test]
fn a_batch_that_nobody_waits_for_leaves_room_for_others() {
    let block = BlockKind::Bottleneck;
    let Some([gpu, _]) = models(block, HeadKind::AveragePool, Precision::F32) else { return };
    let (options, pixels) = (ExplainOptions::default(), pixels(2));
    let requests = [ExplainRequest { options: &options, label: None }; 2];
    let expected = explain(&gpu, &pixels, &requests);
    for _ in 0..3 {
        drop(gpu.begin_batch(&pixels, &requests).unwrap());
    }
    assert_alike("after others", &explain(&gpu, &pixels, &requests), &expected, 1e-6);
}
