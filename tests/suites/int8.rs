//! Runs in 8 bits: calibrated without anybody's help, the same bits everywhere, and never in silence.

use std::fs;
use std::path::Path;

use camshaft_kernels::Kernel;
use camshaft_tests::broker::Broker;
use camshaft_tests::programs::{camshaft, run, worker};
use camshaft_tests::results::Results;
use camshaft_tests::small_run::SmallRun;
use serde_json::Value;

const INT8: [&str; 2] = ["--precision", "int8"];
/// Of the small model, whose answers are nearly a coin's, nothing is asked.
const ANY: [&str; 2] = ["--min-agreement", "0,0"];

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The maps and predictions, to the last bit.
fn answers(results: &Results) -> Vec<(String, String)> {
    let answer = |(key, record): (&String, &camshaft_common::prediction::PredictionRecord)| {
        let maps: Vec<_> = record.explanations.iter().map(|one| &one.map.values).collect();
        (key.clone(), format!("{:?} {maps:?}", record.predictions))
    };
    results.predictions.iter().map(answer).collect()
}

fn is_int8(results: &Results) -> bool {
    results.predictions.values().all(|record| record.model.precision == "int8")
}

#[test]
fn an_audit_calibrates_itself_and_says_how_well_it_agrees() {
    let small = SmallRun::new(12);
    let ended = small.audit(&[&INT8[..], &ANY].concat()).expect(0);
    assert!(ended.stdout.contains("Calibrated int8 on 12 images"), "{}", ended.stdout);
    assert!(ended.stdout.contains("Computed in int8: on 6 images"), "{}", ended.stdout);
    assert!(is_int8(&small.results()));
    let recorded = json(&small.out.join("run.json"));
    assert_eq!(recorded["int8"]["used"], true, "{recorded}");
    assert_eq!(recorded["int8"]["agreement"]["images"], 6, "{recorded}");
    let place = &recorded["model"]["options"]["calibration"]["place"];
    assert!(place.as_str().unwrap().ends_with("/out/calibration.json"), "{recorded}");

    let mut report = camshaft(["report", "--json"]);
    let reported = run(report.arg(&small.out)).expect(0).stdout;
    assert!(reported.contains("Computed in int8: on 6 images"), "{reported}");

    // The same command without the option goes on as the run began.
    let first = answers(&small.results());
    fs::remove_file(small.out.join(format!("predictions/{}.json", small.keys[0]))).unwrap();
    let ended = small.audit(&[]).expect(0);
    assert!(ended.stdout.contains("--precision int8"), "{}", ended.stdout);
    assert!(!ended.stdout.contains("Calibrated int8"), "{}", ended.stdout);
    assert_eq!(answers(&small.results()), first);
    // Another precision is another run.
    let ended = small.audit(&["--precision", "f32"]).expect(1);
    assert!(ended.stderr.contains("give --precision int8"), "{}", ended.stderr);
    // The run needs its calibration, wherever OUT is moved.
    let mut calibrate = camshaft(["calibrate"]);
    calibrate.arg(&small.model).arg(&small.source).arg("--out").arg(&small.out);
    let ended = run(&mut calibrate).expect(1);
    assert!(ended.stderr.contains("holds a run in int8"), "{}", ended.stderr);
    let mut small = small;
    let moved = small.directory.path().join("moved");
    fs::rename(&small.out, &moved).unwrap();
    small.out = moved;
    fs::remove_file(small.out.join(format!("predictions/{}.json", small.keys[1]))).unwrap();
    let _ended = small.audit(&[]).expect(0);
    assert_eq!(answers(&small.results()), first);
}

#[test]
fn what_is_refused_is_not_calibrated_and_few_images_are_not_enough() {
    let small = SmallRun::new(4);
    let calibration = small.out.join("calibration.json");
    let ended = small.audit(&["--precision", "int8", "--target", "class:nosuch"]).expect(1);
    assert!(ended.stderr.contains("nosuch"), "{}", ended.stderr);
    assert!(!calibration.exists());
    let _ended = small.audit(&["--precision", "f32"]).expect(0);
    let ended = small.audit(&[&INT8[..], &ANY].concat()).expect(1);
    assert!(ended.stderr.contains("not in int8"), "{}", ended.stderr);
    assert!(!calibration.exists());
    fs::remove_dir_all(&small.out).unwrap();
    let ended = small.audit(&["--precision", "int8", "--min-agreement", "0.1,0"]).expect(0);
    assert!(ended.stdout.contains("on 20 images at least"), "{}", ended.stdout);
    assert!(!is_int8(&small.results()));
    // The next night goes on as this one ended.
    let ended = small.audit(&["--precision", "int8", "--min-agreement", "0.1,0"]).expect(0);
    assert!(ended.stdout.contains("Not computed in int8"), "{}", ended.stdout);
}

#[test]
fn every_kernel_gives_the_same_bits() {
    let small = SmallRun::new(5);
    let _ended = small.audit(&[&INT8[..], &ANY].concat()).expect(0);
    let first = answers(&small.results());
    for kernel in Kernel::available().into_iter().filter(|kernel| kernel.is_int8()) {
        let calibration = fs::read(small.out.join("calibration.json")).unwrap();
        fs::remove_dir_all(&small.out).unwrap();
        fs::create_dir_all(&small.out).unwrap();
        fs::write(small.out.join("calibration.json"), calibration).unwrap();
        let mut audit = camshaft(["audit", "--no-report"]);
        audit.arg(&small.source).arg("--out").arg(&small.out).arg("--model").arg(&small.model);
        audit.args(INT8).args(ANY).env("CAMSHAFT_KERNEL", kernel.name());
        let ended = run(&mut audit).expect(0);
        assert!(!ended.stdout.contains("Calibrated int8"), "{}", ended.stdout);
        let results = small.results();
        assert!(results.predictions.values().all(|one| one.model.kernel == kernel.name()));
        assert_eq!(answers(&results), first, "{kernel}");
    }
}

#[test]
fn what_does_not_agree_is_computed_otherwise_and_says_so() {
    let small = SmallRun::new(9);
    let demanding = ["--min-agreement", "1,1"];
    // A kernel for int8 alone does not stand in the way of another precision.
    let kernel = ["--kernel", "portable-int8"];
    let ended = small.audit(&[&INT8[..], &demanding, &kernel].concat()).expect(0);
    assert!(ended.stdout.contains("Not computed in int8"), "{}", ended.stdout);
    assert!(ended.stdout.contains("--min-agreement asks for 1,1"), "{}", ended.stdout);
    assert!(!is_int8(&small.results()));
    let recorded = json(&small.out.join("run.json"));
    assert_eq!(recorded["int8"]["used"], false, "{recorded}");
    assert!(recorded["model"].get("options").is_none(), "{recorded}");
    // Results are all of one kind, though 8 bits would do by now: less is asked for, or other images are
    // compared.
    fs::remove_file(small.out.join(format!("predictions/{}.json", small.keys[0]))).unwrap();
    let ended = small.audit(&[&INT8[..], &ANY].concat()).expect(0);
    assert!(
        ended.stdout.contains("As the results in OUT. Not computed in int8"),
        "{}",
        ended.stdout
    );
    assert_eq!(small.results().predictions.len(), 9);
    assert!(!is_int8(&small.results()));
    let ended = small.audit(&["--precision", "int8", "--min-agreement", "2"]).expect(2);
    assert!(ended.stderr.contains("is no agreement"), "{}", ended.stderr);
}

#[test]
fn a_calibration_of_other_images_has_to_agree_on_these() {
    let small = SmallRun::new(9);
    let _ended = small.audit(&[&INT8[..], &ANY].concat()).expect(0);
    let mut calibration = json(&small.out.join("calibration.json"));
    fs::remove_dir_all(&small.out).unwrap();
    // As of images with values a thousand times as small, on which all agreed.
    for point in calibration["points"].as_array_mut().unwrap() {
        for largest in point["largest"].as_array_mut().unwrap() {
            *largest = (largest.as_f64().unwrap() / 1000.0).into();
        }
    }
    for (what, value) in [("images", 200.into()), ("top_class", 1.0.into())] {
        calibration["agreement"][what] = value;
    }
    fs::create_dir_all(&small.out).unwrap();
    fs::write(small.out.join("calibration.json"), calibration.to_string()).unwrap();
    let ended = small.audit(&[&INT8[..], &["--min-agreement", "0,0.9"]].concat()).expect(0);
    assert!(ended.stdout.contains("Not computed in int8: on 9 images"), "{}", ended.stdout);
    assert!(!is_int8(&small.results()));
}

#[test]
fn workers_compute_with_the_calibration_of_the_run_or_not_at_all() {
    let small = SmallRun::new(8);
    let broker = Broker::start();
    let url = broker.url();
    let enqueue = |more: &[&str]| {
        let mut command = camshaft(["enqueue", "--broker", &url]);
        command.arg(&small.source).arg("--out").arg(&small.out).arg("--model").arg(&small.model);
        run(command.args(more))
    };
    let ended = enqueue(&INT8).expect(1);
    assert!(ended.stderr.contains("camshaft calibrate "), "{}", ended.stderr);
    let mut calibrate = camshaft(["calibrate"]);
    calibrate.arg(&small.model).arg(&small.source);
    let ended = run(&mut calibrate).expect(0);
    assert!(ended.stdout.contains("Calibrated: on 4 images"), "{}", ended.stdout);
    let place = small.model.join("calibration.json");
    assert!(place.is_file());
    let ended = enqueue(&[&INT8[..], &ANY].concat()).expect(0);
    assert!(ended.stdout.contains("Enqueued 8 of 8"), "{}", ended.stdout);

    let work = |more: &[&str]| {
        let mut command = worker(["--broker", &url, "--exit-when-idle", "1"]);
        run(command.args(["--refusal-limit", "0"]).args(more)).expect(0)
    };
    // A worker that was told otherwise leaves the jobs to others, and they are not lost.
    let ended = work(&["--precision", "f32"]);
    assert!(ended.stderr.contains("the run is in int8"), "{}", ended.stderr);
    assert!(small.results().predictions.is_empty());
    let redrive = || run(&mut camshaft(["redrive", "--broker", &url])).expect(0);
    redrive();
    // The run has a copy of its own. With other scales there would be other results.
    let place = small.out.join("calibration.json");
    let calibration = fs::read(&place).unwrap();
    let text = String::from_utf8(calibration.clone()).unwrap();
    fs::write(&place, text.replacen("\"mean\":[", "\"mean\":[ ", 1)).unwrap();
    let ended = work(&[]);
    assert!(ended.stderr.contains("is another one"), "{}", ended.stderr);
    assert!(small.results().predictions.is_empty());
    redrive();
    fs::write(&place, calibration).unwrap();
    work(&INT8);
    let results = small.results();
    assert_eq!(results.predictions.len(), 8);
    assert!(is_int8(&results));

    // An audit in another OUT takes the same calibration, and gives the same bits.
    let here = small.directory.path().join("here");
    let mut audit = camshaft(["audit", "--no-report"]);
    audit.arg(&small.source).arg("--out").arg(&here).arg("--model").arg(&small.model);
    let ended = run(audit.args(INT8).args(ANY)).expect(0);
    assert!(!ended.stdout.contains("Calibrated int8"), "{}", ended.stdout);
    let audited = Results::read(&camshaft_tests::results::local(&here));
    assert_eq!(answers(&audited), answers(&results));
}

#[test]
fn jobs_that_say_nothing_of_8_bits_are_not_computed_in_them() {
    let small = SmallRun::new(3);
    let broker = Broker::start();
    let url = broker.url();
    let _enqueued = small.enqueue(&url, &[]);
    let mut command = worker(["--broker", &url, "--exit-when-idle", "1", "--refusal-limit", "0"]);
    let ended = run(command.args(INT8)).expect(0);
    assert!(ended.stderr.contains("int8 needs a calibration"), "{}", ended.stderr);
    assert!(small.results().predictions.is_empty());
}

#[test]
fn a_calibration_needs_a_place_and_images() {
    let small = SmallRun::new(2);
    let mut bundled = camshaft(["calibrate", "cats-vs-dogs"]);
    let ended = run(bundled.arg(&small.source)).expect(1);
    assert!(ended.stderr.contains("say with --out"), "{}", ended.stderr);
    let empty = small.directory.path().join("empty");
    fs::create_dir(&empty).unwrap();
    fs::write(empty.join("broken.jpg"), "no image").unwrap();
    let mut nothing = camshaft(["calibrate"]);
    let ended = run(nothing.arg(&small.model).arg(&empty)).expect(1);
    assert!(ended.stderr.contains("no image that can be read"), "{}", ended.stderr);
    assert!(!small.model.join("calibration.json").exists());
}
