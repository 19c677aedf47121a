//! Tests `camshaft train` as a user runs it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use camshaft_tests::images::files_below;
use camshaft_tests::programs::{Running, camshaft, run};
use camshaft_tests::repository;
use camshaft_tests::results::{Results, local};
use camshaft_tests::wait;
use image::{Rgb, RgbImage};
use serde_json::Value;
use tempfile::tempdir;

/// Deadline of each step. It is generous, for a machine that is busy.
const LIMIT: Duration = Duration::from_secs(120);

/// Writes pictures of stripes, of the classes `lying` and `upright`.
fn write_stripes(root: &Path, images: u32) {
    for (upright, class) in [(false, "lying"), (true, "upright")] {
        fs::create_dir_all(root.join(class)).unwrap();
        for index in 0..images {
            let picture = RgbImage::from_fn(64, 64, |x, y| {
                let along = if upright { x } else { y };
                let light = (along + index) * (8 + index % 5) % 160;
                Rgb([0, 23, 61].map(|tint| (light + index * 7 % 32 + tint) as u8))
            });
            picture.save(root.join(class).join(format!("{index:03}.png"))).unwrap();
        }
    }
}

fn train(dataset: &Path, out: &Path, more: &[&str]) -> Command {
    let mut command = camshaft(["train"]);
    command.arg(dataset).arg("--out").arg(out).args(more);
    command
}

/// `training.json` without durations.
fn record(out: &Path) -> Value {
    let mut record: Value =
        serde_json::from_slice(&fs::read(out.join("training.json")).unwrap()).unwrap();
    for epoch in record["history"].as_array_mut().unwrap() {
        assert!(epoch.as_object_mut().unwrap().remove("seconds").is_some());
    }
    record
}

fn best_accuracy(record: &Value) -> f64 {
    let history = record["history"].as_array().unwrap().iter();
    history.map(|epoch| epoch["validation_accuracy"].as_f64().unwrap()).fold(0.0, f64::max)
}

/// Arguments for a network so small that an epoch takes a second.
const SMALL: [&str; 6] = ["--init", "random", "--architecture", "resnet18", "--image-size", "64"];

/// Arguments for enough steps: validation uses running statistics, which need them to settle.
const MANY_STEPS: [&str; 6] = ["--learning-rate", "1e-3", "--batch", "4", "--epochs", "8"];

/// Copies the first *n* photographs of each folder `SPLIT/CLASS`.
fn copy_some(photos: &Path, folder: &Path, n: usize) {
    for class in ["train/cat", "train/dog", "val/cat", "val/dog"] {
        let mut files = files_below(&photos.join(class));
        files.sort();
        fs::create_dir_all(folder.join(class)).unwrap();
        for file in &files[..n] {
            let _bytes =
                fs::copy(file, folder.join(class).join(file.file_name().unwrap())).unwrap();
        }
    }
}

#[test]
fn a_new_head_tells_cats_from_dogs() {
    let Some(pets) = repository::shared("data/pets") else { return };
    let (out, audited, some) = (tempdir().unwrap(), tempdir().unwrap(), tempdir().unwrap());
    copy_some(&pets, some.path(), 150);
    let ended = run(&mut train(some.path(), out.path(), &[])).expect(0);
    let record = record(out.path());
    assert_eq!(record["history"].as_array().unwrap().len(), 10, "{}", ended.stdout);
    assert!(best_accuracy(&record) > 0.95, "{}", ended.stdout);
    assert_eq!(record["settings"]["model"]["classes"], serde_json::json!(["cat", "dog"]));

    let mut command = camshaft(["audit"]);
    command.arg(pets.join("val")).arg("--out").arg(audited.path()).args(["--limit", "40"]);
    let _ended = run(command.arg("--model").arg(out.path())).expect(0);
    let results = Results::read(&local(audited.path()));
    let right = results.predictions.values().filter(|record| {
        record.image.label.as_deref() == Some(record.predictions[0].label.as_str())
    });
    assert!(right.count() >= 36 && results.predictions.len() == 40);
}

#[test]
fn a_trained_head_or_whole_network_can_be_used_in_an_audit() {
    let root = tempdir().unwrap();
    let dataset = root.path().join("stripes");
    write_stripes(&dataset, 24);
    fs::write(dataset.join("lying/broken.png"), b"no picture").unwrap();
    for (name, more) in [
        ("flatten", &["--head", "flatten", "--image-size", "64", "--epochs", "3"][..]),
        ("all", &[&SMALL[..], &["--layers", "all"], &MANY_STEPS].concat()[..]),
    ] {
        let out = root.path().join(name);
        let ended = run(&mut train(&dataset, &out, more)).expect(0);
        assert!(ended.stdout.contains("Left out 1 image"), "{}", ended.stdout);
        assert!(ended.stderr.contains("lying/broken.png"), "{}", ended.stderr);
        assert!(best_accuracy(&record(&out)) > 0.7, "{}", ended.stdout);
        for picture in ["learning-curve.png", "learning-curve.svg"] {
            assert!(fs::metadata(out.join(picture)).unwrap().len() > 2000, "{picture}");
        }
        let audited = root.path().join(format!("{name}-audit"));
        let mut command = camshaft(["audit"]);
        command.arg(dataset.join("upright")).arg("--out").arg(&audited).args(["--limit", "3"]);
        let _ended = run(command.arg("--model").arg(&out)).expect(0);
        assert_eq!(Results::read(&local(&audited)).predictions.len(), 3);
    }
}

#[test]
fn splits_and_models_in_a_data_set_are_no_classes() {
    let root = tempdir().unwrap();
    let dataset = root.path().join("set");
    write_stripes(&dataset.join("Training_Set"), 8);
    write_stripes(&dataset.join("TEST"), 2);
    fs::write(dataset.join("Training_Set/lying/Thumbs.db"), b"x").unwrap();
    let head = ["--image-size", "64", "--epochs", "1"];
    for out in ["model", "Training_Set/again"] {
        let ended = run(&mut train(&dataset, &dataset.join(out), &head)).expect(0);
        for line in [
            "2 classes, 12 images to train on, 4 images to validate on",
            "  lying: 6 to train on, 2 to validate on",
            "Skipped 1 file of no known image type: Training_Set/lying/Thumbs.db",
            "TEST (to test on",
        ] {
            assert!(ended.stdout.contains(line), "{line}\n{}", ended.stdout);
        }
        let record = record(&dataset.join(out));
        assert_eq!(record["settings"]["model"]["classes"], serde_json::json!(["lying", "upright"]));
        assert_eq!(record["best_epoch"], 1);
    }
    // The same command goes on, though OUT now has an image of its own.
    let again = run(&mut train(&dataset, &dataset.join("model"), &head)).expect(0);
    assert!(again.stdout.contains("Trained for 1 epoch already"), "{}", again.stdout);
    run(&mut train(&dataset, &dataset.join("TEST"), &head)).expect_one_line(&[
        "can't go to",
        "TEST",
        "(--out)",
    ]);
}

#[test]
fn a_killed_and_interrupted_training_gives_the_same_model() {
    let root = tempdir().unwrap();
    let dataset = root.path().join("stripes");
    write_stripes(&dataset, 24);
    let [whole, pieces] = ["whole", "pieces"].map(|name| root.path().join(name));
    let settings = [&SMALL[..], &["--layers", "all", "--epochs", "4"]].concat();
    let _ended = run(&mut train(&dataset, &whole, &settings)).expect(0);

    let printed = |running: &Running, line: &str| running.output()[0].contains(line);
    let running = Running::start(&mut train(&dataset, &pieces, &settings));
    wait::until("the first epoch ends", LIMIT, || printed(&running, "Epoch 1/4"));
    running.kill();
    let running = Running::start(&mut train(&dataset, &pieces, &settings));
    wait::until("it goes on", LIMIT, || printed(&running, "Going on after epoch 1"));
    wait::until("the second epoch ends", LIMIT, || printed(&running, "Epoch 2/4"));
    running.signal("INT");
    let stopped = running.end(LIMIT);
    // The third epoch may have ended before the signal, but not all four.
    assert_eq!(stopped.status, Some(1), "{}", stopped.stdout);
    assert!(stopped.stderr.contains("run the same command again to go on"), "{}", stopped.stderr);
    let _ended = run(&mut train(&dataset, &pieces, &settings)).expect(0);

    assert_eq!(record(&whole), record(&pieces));
    let [a, b] = [&whole, &pieces].map(|out| fs::read(out.join("model.safetensors")).unwrap());
    assert!(a == b, "the models differ");

    let again = run(&mut train(&dataset, &pieces, &settings)).expect(0);
    assert!(again.stdout.contains("Trained for 4 epochs already"), "{}", again.stdout);
    let other = [&settings[..], &["--seed", "1"]].concat();
    run(&mut train(&dataset, &pieces, &other))
        .expect_one_line(&["seed was 0 and is 1 now", "give --seed 0"]);
    fs::remove_file(dataset.join("lying/000.png")).unwrap();
    run(&mut train(&dataset, &pieces, &settings)).expect_one_line(&["another folder", "--out"]);
}

#[test]
fn a_training_that_cannot_run_says_why_in_one_line() {
    let root = tempdir().unwrap();
    let dataset = root.path().join("set");
    let out = root.path().join("out");
    let fails = |parts: &[&str]| run(&mut train(&dataset, &out, &[])).expect_one_line(parts);
    fails(&["set can't be read"]);
    fs::create_dir_all(dataset.join("cat")).unwrap();
    fails(&["no class folders with images", "cat has no images"]);
    write_stripes(&dataset, 1);
    fails(&["\"lying\" has 1 image", "at least 2"]);
    fs::remove_dir_all(dataset.join("lying")).unwrap();
    fails(&["one class only, \"upright\"", "cat has no images"]);
    write_stripes(&dataset.join("train"), 2);
    fails(&["train beside upright", "set/train"]);
    assert!(!out.exists(), "nothing was to be written");

    write_stripes(&root.path().join("stripes"), 16);
    let stripes = root.path().join("stripes");
    for (more, part) in [
        (&["--device", "cuda"][..], "CPU only"),
        (&["--architecture", "resnet18"], "--init random"),
        (&["--val-share", "1.5"], "between 0 and 1"),
    ] {
        let ended = run(&mut train(&stripes, &out, more)).expect(2);
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
    // A model that another program wrote is not overwritten.
    fs::create_dir_all(&out).unwrap();
    fs::write(out.join("model.safetensors"), b"precious").unwrap();
    run(&mut train(&stripes, &out, &[])).expect_one_line(&["no checkpoint", "another --out"]);
    assert_eq!(fs::read(out.join("model.safetensors")).unwrap(), b"precious");
}
