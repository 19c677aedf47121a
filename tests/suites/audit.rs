//! Tests `camshaft audit` as a user runs it.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use camshaft_common::prediction::FailureClass;
use camshaft_tests::images::{files_below, write_small_model};
use camshaft_tests::programs::{Ended, camshaft, run};
use camshaft_tests::repository;
use camshaft_tests::results::{Results, local};
use camshaft_tests::small_run::SmallRun;
use tempfile::tempdir;

fn audit(source: &Path, out: &Path, more: &[&str]) -> Ended {
    let mut command = camshaft(["audit"]);
    run(command.arg(source).arg("--out").arg(out).args(more))
}

#[test]
fn heat_in_the_sample_photos_is_on_the_animal() {
    let out = tempdir().unwrap();
    let ended = audit(&repository::chelsea(), out.path(), &[]).expect(0);
    assert!(ended.stdout.contains("predicted, 0 failed"), "{}", ended.stdout);

    let results = Results::read(&local(out.path()));
    let photos = files_below(&repository::chelsea());
    let keys: Vec<_> = photos
        .iter()
        .map(|p| p.strip_prefix(repository::chelsea()).unwrap().to_str().unwrap().to_owned())
        .collect();
    results.assert_exactly(&keys);
    assert!(results.failures.is_empty());
    for (key, record) in &results.predictions {
        let overlay = record.explanations[0].overlay.as_ref().unwrap();
        let overlay = image::open(out.path().join(overlay)).unwrap();
        let photo = image::open(repository::chelsea().join(key)).unwrap();
        assert_eq!((overlay.width(), overlay.height()), (photo.width(), photo.height()), "{key}");
        if key.starts_with("cat/") {
            assert_eq!(record.predictions[0].label, "cat", "{key}");
        }
        // The files named left and right show the animal there.
        let [x, _] = record.explanations[0].centroid;
        assert!(!key.contains("left") || x < 0.5, "{key}: the heat lies at {x}");
        assert!(!key.contains("right") || x > 0.5, "{key}: the heat lies at {x}");
    }
}

#[test]
fn prediction_files_have_all_documented_fields() {
    let out = tempdir().unwrap();
    let _ended = audit(&repository::photos(), out.path(), &["--limit", "1"]).expect(0);
    let file = files_below(&out.path().join("predictions")).remove(0);
    let json: serde_json::Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    for pointer in [
        "/schema",
        "/run",
        "/image/key",
        "/image/etag",
        "/image/bytes",
        "/image/width",
        "/image/height",
        "/image/label",
        "/image/digest",
        "/image/measures/brightness",
        "/image/measures/contrast",
        "/image/measures/dark_percentile",
        "/image/measures/bright_percentile",
        "/image/measures/information",
        "/image/measures/blur",
        "/image/measures/chroma",
        "/image/measures/perceptual_hash",
        "/model/name",
        "/model/digest",
        "/predictions/0/class",
        "/predictions/0/label",
        "/predictions/0/probability",
        "/predictions/0/logit",
        "/entropy",
        "/embedding/dimensions",
        "/embedding/scale",
        "/embedding/sketch",
        "/explanations/0/method",
        "/explanations/0/layer",
        "/explanations/0/class",
        "/explanations/0/label",
        "/explanations/0/overlay",
        "/explanations/0/map/height",
        "/explanations/0/map/width",
        "/explanations/0/map/values/48",
        "/explanations/0/max",
        "/explanations/0/mass",
        "/explanations/0/entropy",
        "/explanations/0/centroid/1",
        "/explanations/0/border_share",
        "/timings_ms/fetch",
        "/timings_ms/decode",
        "/timings_ms/model",
        "/timings_ms/overlay",
        "/timings_ms/store",
        "/worker",
        "/finished_at",
    ] {
        assert!(json.pointer(pointer).is_some(), "no {pointer} in {json:#}");
    }
    assert_eq!(json["schema"], 1);
    assert_eq!(json["explanations"][0]["method"], "grad-cam");
    assert_eq!(json["explanations"][0]["layer"], "layer4");
    let run: serde_json::Value =
        serde_json::from_slice(&fs::read(out.path().join("run.json")).unwrap()).unwrap();
    assert_eq!(run["run"], json["run"]);
    assert_eq!(run["model"]["digest"], json["model"]["digest"]);
    assert_eq!(run["images"], 1);
}

fn modified(file: &Path) -> SystemTime {
    fs::metadata(file).unwrap().modified().unwrap()
}

#[test]
fn a_second_audit_does_only_images_without_a_result() {
    let small = SmallRun::new(20);
    let _first = small.audit(&[]).expect(0);
    let predictions = files_below(&small.out.join("predictions"));
    assert_eq!(predictions.len(), 20);
    let before: Vec<_> = predictions.iter().map(|file| modified(file)).collect();

    let second = small.audit(&[]).expect(0);
    assert!(second.stdout.contains("Audited 0 images"), "{}", second.stdout);
    assert!(second.stdout.contains("20 had results already"), "{}", second.stdout);
    assert!(predictions.iter().map(|file| modified(file)).eq(before.iter().copied()));

    for file in &predictions[..3] {
        fs::remove_file(file).unwrap();
    }
    let third = small.audit(&[]).expect(0);
    assert!(third.stdout.contains("Audited 3 images"), "{}", third.stdout);
    let redone = predictions.iter().zip(&before).filter(|(file, time)| modified(file) != **time);
    assert_eq!(redone.count(), 3);
    small.results().assert_exactly(&small.keys);
}

#[test]
fn an_image_changed_since_its_result_is_done_again() {
    let small = SmallRun::new(3);
    let _first = small.audit(&[]).expect(0);
    let [one, other, ..] = &small.keys[..] else { panic!("three were written") };
    fs::copy(small.source.join(one), small.source.join(other)).unwrap();
    let second = small.audit(&[]).expect(0);
    assert!(second.stdout.contains("Audited 1 image "), "{}", second.stdout);
}

#[test]
fn each_bad_image_among_a_thousand_fails_by_its_class() {
    let mut small = SmallRun::new(994);
    let good = fs::read(small.source.join(&small.keys[0])).unwrap();
    let mut corrupt = good.clone();
    corrupt[2..40].fill(0x55);
    let png = {
        let picture = image::load_from_memory(&good).unwrap();
        let mut png = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut png, image::ImageFormat::Png).unwrap();
        png.into_inner()
    };
    let odd: [(&str, Vec<u8>, Option<FailureClass>); 6] = [
        ("corrupt.jpg", corrupt, Some(FailureClass::Undecodable)),
        ("truncated.jpg", good[..good.len() / 2].to_vec(), Some(FailureClass::Undecodable)),
        ("empty.jpg", Vec::new(), Some(FailureClass::Undecodable)),
        ("really-a-png.jpg", png, None),
        ("huge.png", blank_png(30_000), Some(FailureClass::TooLarge)),
        ("notes.tif", b"remember the milk\n".to_vec(), Some(FailureClass::Unsupported)),
    ];
    for (name, bytes, _) in &odd {
        fs::write(small.source.join(name), bytes).unwrap();
        small.keys.push((*name).to_owned());
    }
    let ended = small.audit(&[]).expect(0);
    assert!(ended.stdout.contains("995 predicted, 5 failed"), "{}", ended.stdout);
    for line in ["  3 undecodable", "  1 unsupported", "  1 too-large"] {
        assert!(ended.stdout.contains(line), "no {line:?} in {}", ended.stdout);
    }
    let results = small.results();
    results.assert_exactly(&small.keys);
    for (name, _, class) in &odd {
        let found = results.failures.get(*name).map(|failure| failure.error.class);
        assert_eq!(found, *class, "{name}");
    }
    // The images are done. The second audit only judges the same results by a lower limit.
    let ended = small.audit(&["--max-failure-rate", "0.004"]).expect(3);
    assert!(ended.stderr.contains("5 of 1000 images failed"), "{}", ended.stderr);
}

/// A black one-bit PNG of `side`×`side` pixels. It is made row by row, in little memory.
fn blank_png(side: u32) -> Vec<u8> {
    let script = "import struct,sys,zlib\n\
        n=int(sys.argv[1])\n\
        def chunk(k,d): return struct.pack('>I',len(d))+k+d+struct.pack('>I',zlib.crc32(k+d))\n\
        z=zlib.compressobj(9)\n\
        row=bytes(1+(n+7)//8)\n\
        data=b''.join(z.compress(row) for _ in range(n))+z.flush()\n\
        head=struct.pack('>IIBBBBB',n,n,1,0,0,0,0)\n\
        sys.stdout.buffer.write(b'\\x89PNG\\r\\n\\x1a\\n'+chunk(b'IHDR',head)+chunk(b'IDAT',data)+chunk(b'IEND',b''))\n";
    let made = std::process::Command::new("python3")
        .args(["-c", script, &side.to_string()])
        .output()
        .unwrap();
    assert!(made.status.success());
    made.stdout
}

#[test]
fn an_audit_that_cannot_run_says_why_in_one_line() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("out");
    let photos = repository::photos();
    audit(&folder.path().join("nowhere"), &out, &[]).expect_one_line(&["nowhere", "doesn't exist"]);

    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    audit(&empty, &out, &[]).expect_one_line(&["no images in", "empty"]);

    audit(&photos, &out, &["--model", "/no/such/model"])
        .expect_one_line(&["there is no folder or file /no/such/model"]);

    let broken = folder.path().join("broken");
    write_small_model(&broken);
    fs::write(broken.join("model.safetensors"), b"not weights").unwrap();
    audit(&photos, &out, &["--model", broken.to_str().unwrap()]).expect_one_line(&["broken"]);

    // Permissions do not stop root, but a file in place of a folder does.
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    audit(&photos, &file.join("out"), &[]).expect_one_line(&["cannot", "file/out/run.json"]);
}

#[test]
fn wrong_usage_ends_with_status_2() {
    let photos = repository::photos();
    let photos = photos.to_str().unwrap();
    for arguments in [
        vec!["audit", photos],
        vec!["audit", photos, "--out", "x", "--method", "tarot"],
        vec!["audit", photos, "--out", "x", "--alpha", "7"],
        vec!["audit", "http://example.com/images", "--out", "x"],
        vec!["audit", "list:keys.txt", "--out", "x"],
        vec!["audit", photos, "--out", photos],
        vec!["explode"],
    ] {
        let ended = run(&mut camshaft(&arguments));
        assert_eq!(ended.status, Some(2), "{arguments:?}\n{}", ended.stderr);
    }
}

#[test]
fn another_model_or_other_options_do_not_mix_into_the_same_out() {
    let small = SmallRun::new(2);
    let _first = small.audit(&[]).expect(0);
    small
        .audit(&["--colormap", "magma"])
        .expect_one_line(&["other options", "choose another --out"]);
    audit(&small.source, &small.out, &["--model", "cats-vs-dogs"])
        .expect_one_line(&["another model", "choose another --out"]);
}

#[test]
fn lists_name_the_images_and_their_labels() {
    let SmallRun { source, out, model, keys, directory } = SmallRun::new(4);
    let list = directory.path().join("list.csv");
    fs::write(&list, format!("key,label\n{},cat\n{},dog\nmissing.jpg,cat\n", keys[0], keys[2]))
        .unwrap();
    let mut command = camshaft(["audit", &format!("list:{}", list.display())]);
    command.arg("--base").arg(&source).arg("--out").arg(&out).arg("--model").arg(&model);
    let _ended = run(command.args(["--target", "label", "--max-failure-rate", "0.5"])).expect(0);
    let results = Results::read(&local(&out));
    let label = |key: &str| results.predictions[key].image.label.clone().unwrap();
    assert_eq!((label(&keys[0]), label(&keys[2])), ("cat".into(), "dog".into()));
    assert_eq!(results.predictions[&keys[2]].explanations[0].label, "dog");
    assert_eq!(results.failures["missing.jpg"].error.class, FailureClass::NotFound);
}

#[test]
fn the_given_class_is_explained_beside_the_most_probable() {
    let SmallRun { source, out, model, keys, directory } = SmallRun::new(1);
    let list = directory.path().join("list.csv");
    let mut classes = Vec::new();
    for label in ["cat", "dog", "whale"] {
        let out = out.join(label);
        fs::write(&list, format!("key,label\n{},{label}\n", keys[0])).unwrap();
        let mut command = camshaft(["audit", &format!("list:{}", list.display())]);
        command.arg("--base").arg(&source).arg("--out").arg(&out).arg("--model").arg(&model);
        let _ended = run(&mut command).expect(0);
        let record = Results::read(&local(&out)).predictions.remove(&keys[0]).unwrap();
        let top = record.predictions[0].label.clone();
        let explained: Vec<_> = record.explanations.into_iter().map(|one| one.label).collect();
        assert_eq!(explained[0], top);
        let given = (label != top && label != "whale").then(|| label.to_owned());
        assert_eq!(explained[1..], *given.as_slice());
        classes.push(explained.len());
    }
    // One of cat and dog is the most probable class, so that only the other is a second
    // explanation.
    assert!(classes == [1, 2, 1] || classes == [2, 1, 1], "{classes:?}");
}

#[test]
fn embeddings_are_written_if_they_are_asked_for() {
    let mut small = SmallRun::new(1);
    let mut sketches = Vec::new();
    for options in [&[][..], &["--embeddings"]] {
        small.out = small.directory.path().join(format!("out{}", options.len()));
        let _ended = small.audit(options).expect(0);
        let embedding = small.results().predictions[&small.keys[0]].embedding.clone().unwrap();
        let values = embedding.values.map(|values| values.0.len());
        assert_eq!(values, (!options.is_empty()).then_some(embedding.dimensions));
        sketches.push(embedding.sketch);
        let run = fs::read_to_string(small.out.join("run.json")).unwrap();
        assert_eq!(run.contains("embeddings"), !options.is_empty());
    }
    assert_eq!(sketches[0], sketches[1]);
}

#[test]
fn every_target_and_overlay_format_is_written() {
    let mut small = SmallRun::new(2);
    for (format, extension) in [("jpeg", "jpg"), ("png", "png"), ("webp", "webp")] {
        small.out = small.directory.path().join(format);
        let _ended = small.audit(&["--target", "top-2", "--overlay", format]).expect(0);
        let results = small.results();
        results.assert_exactly(&small.keys);
        assert_eq!(results.overlays.len(), 4);
        for key in &small.keys {
            assert!(results.overlays.contains(&format!("overlays/{key}.{extension}")), "{key}");
        }
        let further = |path: &&String| path.contains(".jpg.class-") && path.ends_with(extension);
        assert_eq!(results.overlays.iter().filter(further).count(), 2);
        let file = small.out.join(&results.overlays[0]);
        assert!(
            image::ImageReader::open(file).unwrap().with_guessed_format().unwrap().decode().is_ok()
        );
    }
    small.out = small.directory.path().join("none");
    let more = ["--target", "class:dog", "--overlay", "none", "--layer", "layer3"];
    let _ended = small.audit(&more).expect(0);
    let results = small.results();
    assert!(results.overlays.is_empty());
    let explanation = &results.predictions[&small.keys[0]].explanations[0];
    assert_eq!((explanation.label.as_str(), explanation.overlay.as_ref()), ("dog", None));
    assert_eq!(explanation.map.values.len(), 16, "layer3 of a 64×64 input is 4×4");
}
