//! Whole trainings on small pictures that a network can learn to classify.

use std::path::Path;

use image::RgbImage;

use super::network::{TrainedResNet, tensor_values};
use super::*;
use camshaft_common::model::TrainedLayers;
use camshaft_model::network::head::HeadShape;
use camshaft_model::network::resnet::{BlockKind, ResNetShape};
use camshaft_model::testing::noise;
use camshaft_model::{Architecture, HeadKind};

/// Writes pictures of two classes, `lying` and `upright` stripes in random colours, to train and to
/// validate on.
fn write_stripes(root: &Path, training: u32, validation: u32) {
    for (side, count) in [("train", training), ("val", validation)] {
        for (upright, class) in [(false, "lying"), (true, "upright")] {
            let folder = root.join(side).join(class);
            std::fs::create_dir_all(&folder).unwrap();
            for index in 0..count {
                let mut random = random::stream(u64::from(index), &format!("{side} {class}"));
                let values = random::uniform(&mut random, 1.0, 8);
                let picture =
                    RgbImage::from_fn(64, 64, |x, y| {
                        let along = if upright { x } else { y } as f32;
                        let wave = (along * (0.5 + 0.2 * values[6]) + 3.0 * values[7]).sin();
                        image::Rgb([0, 1, 2].map(|c| {
                            (128.0 + 50.0 * values[c] + 70.0 * wave * values[c + 3]) as u8
                        }))
                    });
                picture.save(folder.join(format!("{index:03}.png"))).unwrap();
            }
        }
    }
}

fn options(layers: TrainedLayers) -> Options {
    Options {
        layers,
        head: HeadKind::AveragePool,
        image_size: Some(64),
        flip: true,
        batch: 16,
        learning_rate: 1e-3,
        seed: 1,
    }
}

struct Training {
    dataset: Dataset,
    init: Init,
    settings: Settings,
}

impl Training {
    fn new(root: &Path, options: &Options) -> Self {
        let dataset = Dataset::find(root, &DatasetOptions::default()).unwrap();
        let init = Init::Random(Architecture::ResNet18);
        let settings = Settings::new(&init, options, &dataset).unwrap();
        Self { dataset, init, settings }
    }

    fn prepare(&self, checkpoint: Option<&Checkpoint>) -> Result<Trainer, TrainingError> {
        let settings = self.settings.clone();
        Trainer::prepare(settings, &self.init, &self.dataset, checkpoint, &Watch::default())
    }
}

#[test]
fn a_network_learns_from_random_weights() {
    let root = tempfile::tempdir().unwrap();
    write_stripes(root.path(), 48, 16);
    // Validation uses running statistics, which need some dozen steps: so batches are small.
    let options = Options { batch: 8, ..options(TrainedLayers::All) };
    let training = Training::new(root.path(), &options);
    let mut trainer = training.prepare(None).unwrap();
    for _ in 0..6 {
        println!("{:?}", trainer.train_epoch(&Watch::default()).unwrap());
    }
    let history = trainer.history();
    assert!(history[5].training_loss < 0.7 * history[0].training_loss, "{history:?}");
    assert!(best(history).unwrap().validation_accuracy > 0.8, "{history:?}");
}

#[test]
fn going_on_from_a_checkpoint_is_as_if_never_stopped() {
    let root = tempfile::tempdir().unwrap();
    write_stripes(root.path(), 9, 3);
    for layers in [TrainedLayers::Head, TrainedLayers::All] {
        let training = Training::new(root.path(), &options(layers));
        let mut whole = training.prepare(None).unwrap();
        let mut file = Vec::new();
        for epoch in 1..=3 {
            whole.train_epoch(&Watch::default()).unwrap();
            if epoch == 2 {
                file = whole.checkpoint().unwrap().encode().unwrap();
            }
        }
        let checkpoint = Checkpoint::decode(&file).unwrap();
        let mut resumed = training.prepare(Some(&checkpoint)).unwrap();
        resumed.train_epoch(&Watch::default()).unwrap();
        let losses = |trainer: &Trainer| {
            let history = trainer.history().iter();
            history.map(|epoch| [epoch.training_loss, epoch.validation_loss]).collect::<Vec<_>>()
        };
        assert_eq!(losses(&whole), losses(&resumed), "{layers:?}");
        assert!(whole.model().unwrap() == resumed.model().unwrap(), "{layers:?}");
    }
}

#[test]
fn going_on_keeps_the_epoch_that_the_checkpoint_names() {
    let root = tempfile::tempdir().unwrap();
    write_stripes(root.path(), 6, 3);
    let training = Training::new(root.path(), &options(TrainedLayers::Head));
    let mut trainer = training.prepare(None).unwrap();
    for _ in 0..3 {
        trainer.train_epoch(&Watch::default()).unwrap();
        assert_eq!(trainer.kept_epoch(), best(trainer.history()).map(|best| best.epoch));
    }
    let file = trainer.checkpoint().unwrap().encode().unwrap();
    let checkpoint = Checkpoint::decode(&file).unwrap();
    assert_eq!(checkpoint.kept_epoch(), trainer.kept_epoch());
    let resumed = training.prepare(Some(&checkpoint)).unwrap();
    assert_eq!(resumed.kept_epoch(), trainer.kept_epoch());
}

#[test]
fn a_checkpoint_of_another_training_is_refused_with_what_differs() {
    let root = tempfile::tempdir().unwrap();
    write_stripes(root.path(), 3, 2);
    let training = Training::new(root.path(), &options(TrainedLayers::Head));
    let mut trainer = training.prepare(None).unwrap();
    trainer.train_epoch(&Watch::default()).unwrap();
    let file = trainer.checkpoint().unwrap().encode().unwrap();
    let checkpoint = Checkpoint::decode(&file).unwrap();

    let other = Options { seed: 2, ..options(TrainedLayers::Head) };
    let error = Training::new(root.path(), &other).prepare(Some(&checkpoint)).unwrap_err();
    assert!(error.to_string().contains("seed was 1 and is 2 now"), "{error}");
    std::fs::remove_file(root.path().join("train/lying/000.png")).unwrap();
    let fewer = Training::new(root.path(), &options(TrainedLayers::Head));
    let error = fewer.prepare(Some(&checkpoint)).unwrap_err().to_string();
    assert!(error.contains("had 6 images to train on and 4 to validate on, and has 5"), "{error}");
    let error = Checkpoint::decode(&file[..file.len() - 1]).unwrap_err().to_string();
    assert!(error.contains("can't be used"), "{error}");
}

#[test]
fn unreadable_images_are_left_out_and_a_class_of_them_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    write_stripes(root.path(), 2, 2);
    std::fs::write(root.path().join("train/lying/000.png"), b"not a picture").unwrap();
    for layers in [TrainedLayers::Head, TrainedLayers::All] {
        let trainer = Training::new(root.path(), &options(layers)).prepare(None).unwrap();
        assert_eq!(trainer.skipped_images(), 1);
    }
    std::fs::write(root.path().join("train/lying/001.png"), b"").unwrap();
    for layers in [TrainedLayers::Head, TrainedLayers::All] {
        let error = Training::new(root.path(), &options(layers)).prepare(None).unwrap_err();
        assert!(error.to_string().contains("class \"lying\" to train on can be read"), "{error}");
    }
}

#[test]
fn a_stopped_training_says_so() {
    let root = tempfile::tempdir().unwrap();
    write_stripes(root.path(), 2, 2);
    let training = Training::new(root.path(), &options(TrainedLayers::Head));
    let mut trainer = training.prepare(None).unwrap();
    let watch = Watch::default();
    watch.stop.cancel();
    assert!(matches!(trainer.train_epoch(&watch), Err(TrainingError::Stopped)));
    assert!(trainer.history().is_empty());
}

#[test]
fn a_networks_gradient_is_the_slope_along_it() {
    for block in [BlockKind::Basic, BlockKind::Bottleneck, BlockKind::BottleneckStrideFirst] {
        let shape = ResNetShape { blocks: [1, 2, 1, 1], width: 4, block };
        let head =
            HeadShape { kind: HeadKind::AveragePool, classes: 3, features: shape.features(64, 64) };
        let mut tensors = initial_weights::random(shape, 5).unwrap();
        initial_weights::draw_head(&mut tensors, head, 5).unwrap();
        let start = TrainedResNet::new(&tensors, shape, head).unwrap();
        let (input, factors) = (noise(&[4, 3, 64, 64], 1), noise(&[4, 3], 2));
        let sum = |network: &TrainedResNet| -> f64 {
            let (logits, _) = network.clone().forward(&input).unwrap();
            let logits = tensor_values::copy(&(logits * &factors).unwrap()).unwrap();
            logits.iter().map(|&value| f64::from(value)).sum()
        };
        let mut network = start.clone();
        let (_, trace) = network.forward(&input).unwrap();
        network.backward(trace, &factors).unwrap();
        // One parameter at a time, so that the head's gradient can't hide a wrong one of the stem.
        let parts = network.parameters().count();
        for part in 0..parts {
            let parameter = network.parameters().nth(part).unwrap();
            let gradient = parameter.gradient.clone().unwrap();
            let norm = tensor_values::copy(&gradient.sqr().unwrap().sum_all().unwrap()).unwrap()[0];
            let step = 2e-3 / f64::from(norm).sqrt();
            let moved = |by: f64| {
                let mut moved = start.clone();
                let parameter = moved.parameters_mut().nth(part).unwrap();
                parameter.value = (&parameter.value + (&gradient * by).unwrap()).unwrap();
                sum(&moved)
            };
            let slope = (moved(step) - moved(-step)) / (2.0 * step) / f64::from(norm);
            let name = &parameter.name;
            // The slope is not exact because of the kinks of ReLUs and pooling.
            assert!((slope - 1.0).abs() < 0.1, "{block:?} {name}: {slope} instead of 1");
        }
    }
}

#[test]
fn what_is_exported_says_what_was_trained() {
    let root = tempfile::tempdir().unwrap();
    write_stripes(root.path(), 6, 4);
    for head in [HeadKind::AveragePool, HeadKind::Flatten] {
        for layers in [TrainedLayers::Head, TrainedLayers::All] {
            let options = Options { head, ..options(layers) };
            let training = Training::new(root.path(), &options);
            let mut trainer = training.prepare(None).unwrap();
            let record = trainer.train_epoch(&Watch::default()).unwrap();
            let file = trainer.model().unwrap();
            let tensors =
                candle_core::safetensors::load_buffer(&file, &candle_core::Device::Cpu).unwrap();
            let tensors = tensors.into_iter().collect();
            let model = exported_model::load_model(
                &training.settings,
                &tensors,
                camshaft_model::Precision::F32,
            )
            .unwrap();
            let mut loss = 0.0;
            for sample in &training.dataset.validation {
                let rule = &training.settings.model.input;
                let input = inputs::read_input(sample, &training.settings.model).unwrap();
                let batch = inputs::to_batch(&[input], rule).unwrap();
                let logits =
                    tensor_values::copy(&model.forward(&batch, &[]).unwrap().logits).unwrap();
                loss += loss::cross_entropy(&logits, &[sample.class]).0.loss;
            }
            let loss = loss / training.dataset.validation.len() as f64;
            // Frozen features may have been computed in bf16.
            let difference = (loss / record.validation_loss - 1.0).abs();
            assert!(difference < 0.03, "{head:?} {layers:?}: {loss} {record:?}");
        }
    }
}
