//! Reads checkpoints as `--model` does, and compares their logits with PyTorch's. The checkpoints
//! are in the formats of torchvision, timm, transformers, Keras and training programs.
//!
//! `tests/checkpoints/make.py` makes them with PyTorch and transformers, from random weights. The
//! tests download no models.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use camshaft_common::model::{ModelOptions, ModelReference, ModelRequest};
use camshaft_common::store::StoreOptions;
use camshaft_common::transparency::Transparency;
use camshaft_decoding::{ImageLimits, decode};
use camshaft_model::{ComputeDevice, ComputeSettings, KernelChoice, Model, ModelFiles, Precision};
use camshaft_tests::programs::{camshaft, run};
use camshaft_tests::repository;
use camshaft_tests::results::{Results, local};
use camshaft_worker::pipeline::model_files;
use candle_core::{Device, Tensor};
use tempfile::{TempDir, tempdir};

/// Largest difference of a logit, as a share of the largest logit.
const TOLERANCE: f32 = 1e-4;

/// The folder of the checkpoints, which are made once for all tests.
static MADE: LazyLock<TempDir> = LazyLock::new(|| {
    let made = tempdir().unwrap();
    let script = repository::root().join("tests/checkpoints/make.py");
    python(&[script.to_str().unwrap(), made.path().to_str().unwrap()]);
    made
});

fn python(arguments: &[&str]) {
    let python = repository::tool("torch/bin/python");
    let output = Command::new(python).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn made(name: &str) -> PathBuf {
    MADE.path().join(name)
}

fn read_with(model: &Path, options: ModelOptions) -> Result<ModelFiles, String> {
    let reference: ModelReference = model.to_str().unwrap().parse().unwrap();
    let request = ModelRequest { reference, options };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let read = runtime.block_on(model_files::read(&request, &StoreOptions::default()));
    read.map_err(|error| error.to_string())
}

fn read(folder: &Path) -> Result<ModelFiles, String> {
    read_with(folder, ModelOptions::default())
}

fn load(folder: &Path, kernel: KernelChoice) -> Result<Model, String> {
    load_files(&read(folder)?, kernel)
}

fn load_files(files: &ModelFiles, kernel: KernelChoice) -> Result<Model, String> {
    let compute = ComputeSettings { precision: Precision::F32, kernel, largest_batch: 1 };
    Model::load(files, &ComputeDevice::Cpu, compute).map_err(|error| error.to_string())
}

/// Largest difference between our logits and PyTorch's, as a share of PyTorch's largest logit.
fn difference(folder: &Path, model: &Model) -> f32 {
    let expected = candle_core::safetensors::load(folder.join("expected"), &Device::Cpu).unwrap();
    let logits = model.forward(&expected["input"], &[]).unwrap().logits;
    let largest =
        |tensor: Tensor| -> f32 { tensor.abs().unwrap().max_all().unwrap().to_scalar().unwrap() };
    largest((&logits - &expected["logits"]).unwrap()) / largest(expected["logits"].clone())
}

#[expect(clippy::print_stdout, reason = "the differences are worth reading")]
fn assert_logits_are_pytorchs(folder: &Path) {
    for kernel in [KernelChoice::Auto, KernelChoice::Candle] {
        let model = load(folder, kernel).unwrap();
        assert_eq!(model.config().classes[..2], ["tabby", "tiger cat"]);
        let difference = difference(folder, &model);
        println!("{}, {}: off by {difference:.1e}", folder.display(), model.kernel());
        assert!(difference < TOLERANCE, "{}: off by {difference}", folder.display());
    }
}

#[test]
fn a_torchvision_checkpoint_gives_pytorchs_logits() {
    assert_logits_are_pytorchs(&made("torchvision"));
}

#[test]
fn a_nested_half_precision_checkpoint_gives_pytorchs_logits() {
    assert_logits_are_pytorchs(&made("training"));
}

#[test]
fn a_timm_folder_gives_pytorchs_logits() {
    assert_logits_are_pytorchs(&made("timm"));
}

#[test]
fn transformers_folders_give_the_logits_of_transformers() {
    assert_logits_are_pytorchs(&made("transformers"));
    assert_logits_are_pytorchs(&made("transformers-bin"));
}

#[test]
fn keras_weights_converted_as_documented_give_the_same_logits() {
    let keras = made("keras");
    let error = read(&keras).unwrap_err();
    assert!(error.contains("HDF5") && error.contains("docs/models.md"), "{error}");

    let converted = tempdir().unwrap();
    for file in ["config.json", "expected"] {
        fs::copy(keras.join(file), converted.path().join(file)).unwrap();
    }
    let manual = fs::read_to_string(repository::root().join("docs/models.md")).unwrap();
    let (_, code) = manual.split_once("```python\n").unwrap();
    let (code, _) = code.split_once("```").unwrap();
    let (from, to) =
        (keras.join("resnet50_weights.h5"), converted.path().join("model.safetensors"));
    python(&["-c", code, from.to_str().unwrap(), to.to_str().unwrap()]);
    assert_logits_are_pytorchs(converted.path());

    // Proof that the comparison can fail: with the strides in the 3×3 it is another network.
    let config = fs::read_to_string(converted.path().join("config.json")).unwrap();
    fs::write(converted.path().join("config.json"), config.replace("-v1", "")).unwrap();
    let other = load(converted.path(), KernelChoice::Candle).unwrap();
    assert!(difference(converted.path(), &other) > 10.0 * TOLERANCE);
}

#[test]
fn a_checkpoint_that_cannot_be_read_says_why_and_what_to_do() {
    for (name, parts) in [
        ("legacy", &["before 1.6", "state_dict"][..]),
        ("module", &["pickled torch.nn.modules.linear.Linear", "state_dict()"]),
        ("truncated", &["damaged", "copy it again"]),
        ("lists", &["no state_dict", "its keys are losses"]),
        ("shallow", &["resnet50 in its config.json", "layer1.0.conv1.weight", "\"resnet18\""]),
        ("quantised", &["its tensor conv1.weight is quantised", "state_dict with plain f32"]),
        ("deep", &["a resnet18 does not use: layer1.2.", "it looks like \"resnet34\""]),
        ("se", &["layer1.0.se.fc1.weight", "\"seresnet18\"", "can't run"]),
        ("nan", &["layer1.0.conv1.weight has 36864 of 36864 values that are NaN"]),
        ("one", &["a single output (fc.weight)", "sigmoid"]),
        ("projector", &["projector.weight [128, 512]", "ignore them"]),
    ] {
        let error = load(&made("refused").join(name), KernelChoice::Candle).unwrap_err();
        for part in parts {
            assert!(error.contains(part), "{name}: no {part:?} in: {error}");
        }
    }
    let mut command = camshaft(["audit"]);
    let out = tempdir().unwrap();
    command.arg(repository::chelsea()).arg("--out").arg(out.path());
    let ended = run(command.arg("--model").arg(made("refused/legacy")));
    ended.expect_one_line(&["weights of model \"legacy\" can't be read", "before 1.6"]);
}

/// Loads a model with options, and compares its logits with PyTorch's.
fn assert_logits_with(model: &Path, expected: &str, options: ModelOptions) {
    let model = load_files(&read_with(model, options).unwrap(), KernelChoice::Candle).unwrap();
    let difference = difference(&made(expected), &model);
    assert!(difference < TOLERANCE, "{expected}: off by {difference}");
}

#[test]
fn what_trainings_leave_gives_pytorchs_logits() {
    let plain = ModelOptions::default;
    assert_logits_with(&made("sharded"), "sharded", plain());
    assert_logits_with(&made("wrapped"), "wrapped", plain());
    let averaged = ModelOptions { weights_key: Some("state_dict_ema".into()), ..plain() };
    assert_logits_with(&made("averaged"), "averaged", averaged);
    // Without a key the last weights are taken, and it is said which.
    let files = read(&made("averaged")).unwrap();
    let choice = "state_dict was taken; the file also has state_dict_ema";
    assert_eq!(files.weights().choice(), Some(choice));
    let projector = ModelOptions { ignore_tensors: vec!["projector.*".into()], ..plain() };
    assert_logits_with(&made("refused/projector"), "refused/projector", projector);
    for names in ["names.txt", "names.json"] {
        let names = made("bare").join(names).to_str().unwrap().parse().unwrap();
        let named = ModelOptions { classes: Some(names), ..plain() };
        assert_logits_with(&made("bare/w.pth"), "bare", named);
    }
}

#[test]
fn an_audit_of_weights_alone_says_what_it_assumes_and_records_its_options() {
    let out = tempdir().unwrap();
    let audit = |arguments: &[&str]| {
        let mut command = camshaft(["audit"]);
        command.arg(repository::chelsea()).arg("--out").arg(out.path()).arg("--no-report");
        run(command.arg("--model").arg(made("bare/w.pth")).args(arguments))
    };
    audit(&[]).expect_one_line(&["without a config.json beside it", "(--classes)"]);
    let names = made("bare").join("names.txt");
    let named = ["--classes", names.to_str().unwrap()];
    let ended = audit(&named).expect(0);
    assert!(ended.stderr.contains("there is no config.json"), "{}", ended.stderr);
    let record = fs::read_to_string(out.path().join("run.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    let options = &record["model"]["options"];
    assert!(options["classes"].as_str().unwrap().ends_with("/bare/names.txt"), "{record}");
    // With other names it is another model.
    let imagenet = audit(&["--classes", "imagenet-1k"]).expect(1);
    let told = "of the same model read otherwise: it was --classes";
    assert!(imagenet.stderr.contains(told), "{}", imagenet.stderr);
    let bundled = run(camshaft(["audit"])
        .arg(repository::chelsea())
        .arg("--out")
        .arg(out.path())
        .args(["--model", "cats-vs-dogs"])
        .args(named));
    bundled.expect_one_line(&["has its own classes", "--classes"]);
}

#[test]
fn an_overlay_has_heat_only_in_the_region_that_a_cropping_model_saw() {
    let out = tempdir().unwrap();
    let mut command = camshaft(["audit"]);
    command.arg(repository::chelsea()).arg("--out").arg(out.path());
    command.arg("--model").arg(made("timm")).args(["--overlay", "png"]);
    let _ended = run(&mut command).expect(0);
    let results = Results::read(&local(out.path()));
    let mut cut = 0;
    for (key, record) in &results.predictions {
        let photo = fs::read(repository::chelsea().join(key)).unwrap();
        let photo = decode(&photo, &ImageLimits::default(), Transparency::OverWhite).unwrap();
        let overlay = record.explanations[0].overlay.as_ref().unwrap();
        let overlay = image::open(out.path().join(overlay)).unwrap().into_rgb8();
        let [left, top, right, bottom] = record.image.region.unwrap();
        // The region is a square of 64 pixels in an image whose shorter side was resized to 73.
        let (width, height) = photo.dimensions();
        let seen = (right - left) * width as f32 / ((bottom - top) * height as f32);
        assert!((seen - 1.0).abs() < 0.02, "{key}: not a square: {seen}");
        for (x, y, pixel) in photo.enumerate_pixels() {
            let (across, down) =
                ((x as f32 + 0.5) / width as f32, (y as f32 + 0.5) / height as f32);
            if across < left || across > right || down < top || down > bottom {
                assert_eq!(overlay.get_pixel(x, y), pixel, "{key} at {x}, {y}");
                cut += 1;
            }
        }
    }
    assert!(cut > 0);
}
