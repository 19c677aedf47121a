//! No message makes a worker read outside of SOURCE or write outside of OUT. With `--allow`, a
//! message cannot choose any SOURCE and OUT either.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use camshaft_tests::broker::Broker;
use camshaft_tests::images::files_below;
use camshaft_tests::programs::{camshaft, run, worker};
use camshaft_tests::results::Results;
use camshaft_tests::s3::S3Server;
use camshaft_tests::small_run::SmallRun;
use serde_json::Value;

use super::messages::{Raw, with};

/// Keys that try to leave SOURCE; the image `outside.jpg` is above it. None is a valid key.
const CLIMBING: [&str; 11] = [
    "../outside.jpg",
    "x/../../outside.jpg",
    "./../outside.jpg",
    "..",
    ".",
    "",
    "/outside.jpg",
    "//outside.jpg",
    "x//../outside.jpg",
    "../outside.jpg\0.jpg",
    "even/",
];

/// Keys that look similar but are plain, though odd, names to a store.
const HARMLESS: [&str; 8] = [
    "%2e%2e/outside.jpg",
    "%2E%2e%2Foutside.jpg",
    "..%2foutside.jpg",
    "%252e%252e/outside.jpg",
    "..\\outside.jpg",
    "...",
    "~/outside.jpg",
    "file:%2f%2foutside.jpg",
];

/// All files below a folder, with their content.
fn snapshot(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    files_below(folder)
        .into_iter()
        .map(|file| (file.clone(), std::fs::read(file).unwrap()))
        .collect()
}

/// The files in `folder` but outside of OUT. None may change, appear or disappear.
fn outside_of(out: &Path, folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = snapshot(folder);
    files.retain(|file, _| !file.starts_with(out));
    files
}

/// Publishes a job for each hostile key and runs a worker. Asserts that every climbing key becomes
/// a dead letter. Every harmless key must become a failure in OUT, since SOURCE has no such image.
fn hostile_keys_stay_inside(broker: &str, job: &Value, variables: &[(String, String)]) {
    let raw = Raw::connect(broker);
    for key in CLIMBING.iter().chain(&HARMLESS) {
        raw.publish(&with(job, "key", key));
    }
    let mut worker = worker(["--broker", broker, "--exit-when-idle", "1"]);
    let _ended = run(worker.envs(variables.iter().cloned())).expect(0);
    let mut dead = raw.take_dead();
    dead.sort();
    let mut climbing = CLIMBING.map(str::to_owned);
    climbing.sort();
    assert_eq!(dead.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), climbing);
    for (key, reason) in dead {
        assert!(reason.contains("message is not a job"), "{key:?}: {reason}");
    }
}

fn only_harmless_failures(results: &Results) {
    let mut harmless = HARMLESS.map(str::to_owned);
    harmless.sort();
    assert_eq!(results.failures.keys().cloned().collect::<Vec<_>>(), harmless);
    assert!(
        results.failures.values().all(|failure| failure.error.class.to_string() == "not-found")
    );
    assert!(results.predictions.is_empty() && results.overlays.is_empty());
}

#[test]
fn no_key_leaves_source_or_out_on_local_files() {
    let small = SmallRun::new(1);
    let broker = Broker::shared().url();
    small.enqueue(&broker, &[]);
    let job = Raw::connect(&broker).take_jobs().remove(0);
    let folder = small.directory.path();
    std::fs::copy(small.source.join(&small.keys[0]), folder.join("outside.jpg")).unwrap();
    let before = outside_of(&small.out, folder);
    hostile_keys_stay_inside(&broker, &job, &[]);
    only_harmless_failures(&small.results());
    assert_eq!(outside_of(&small.out, folder), before);
}

#[test]
fn no_key_leaves_source_or_out_on_s3() {
    let (server, small) = (S3Server::s3s_fs(), SmallRun::new(1));
    server.make_bucket("hostile-keys");
    server.upload(&small.source, "s3://hostile-keys/data/images");
    let image = std::fs::read(small.source.join(&small.keys[0])).unwrap();
    let bucket = server.bucket_folder("hostile-keys");
    for place in ["outside.jpg", "data/outside.jpg"] {
        std::fs::write(bucket.join(place), &image).unwrap();
    }
    let broker = Broker::shared().url();
    let (source, out) = ("s3://hostile-keys/data/images", "s3://hostile-keys/data/out");
    let mut enqueue = camshaft(["enqueue", source, "--out", out, "--broker", &broker]);
    enqueue.arg("--model").arg(&small.model).envs(server.variables());
    let _ended = run(&mut enqueue).expect(0);
    let job = Raw::connect(&broker).take_jobs().remove(0);
    let buckets = bucket.parent().unwrap();
    let ours = |files: BTreeMap<PathBuf, Vec<u8>>| -> BTreeMap<PathBuf, Vec<u8>> {
        // Other tests write to their own buckets at the same time.
        files.into_iter().filter(|(file, _)| file.starts_with(&bucket)).collect()
    };
    let before = ours(outside_of(&bucket.join("data/out"), buckets));
    hostile_keys_stay_inside(&broker, &job, &server.variables());
    only_harmless_failures(&Results::read(&server.folder(out)));
    assert_eq!(ours(outside_of(&bucket.join("data/out"), buckets)), before);
    assert!(!buckets.join("outside.jpg").exists());
}

#[test]
fn with_allow_a_worker_reads_and_writes_nothing_else() {
    let small = SmallRun::new(2);
    let broker = Broker::shared().url();
    small.enqueue(&broker, &[]);
    let raw = Raw::connect(&broker);
    let jobs = raw.take_jobs();
    let folder = small.directory.path();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    std::fs::copy(small.source.join(&small.keys[0]), folder.join("outside.jpg")).unwrap();
    symlink("../outside.jpg", small.source.join("link.jpg")).unwrap();
    std::fs::create_dir(folder.join("images-2")).unwrap();
    std::fs::create_dir(folder.join("elsewhere")).unwrap();
    symlink("../elsewhere", small.source.join("results")).unwrap();
    let [elsewhere, look_alike, through_link] =
        [folder.join("elsewhere"), folder.join("images-2"), small.source.join("results")];
    let encoded = format!("file://{}/%2e%2e/elsewhere", text(&small.source));

    for job in &jobs {
        raw.publish(job);
    }
    let mut hostile = vec![
        ("outside of SOURCE", with(&jobs[0], "source", &text(&look_alike)), text(&look_alike)),
        ("above SOURCE", with(&jobs[0], "source", &encoded), text(&elsewhere)),
        (
            "a stranger's bucket",
            with(&jobs[0], "source", "s3://stranger/x"),
            "s3://stranger/x".to_owned(),
        ),
        ("another OUT", with(&jobs[0], "out", &text(&elsewhere)), text(&elsewhere)),
        ("an OUT behind a link", with(&jobs[0], "out", &text(&through_link)), text(&elsewhere)),
        (
            "an image behind a link",
            with(&jobs[0], "key", "link.jpg"),
            text(&folder.join("outside.jpg")),
        ),
    ];
    let mut other_model = jobs[0].clone();
    other_model["model"]["reference"] = "hf:stranger/model".into();
    hostile.push(("a stranger's model", other_model, "hf:stranger/model".to_owned()));
    for (_, job, _) in &hostile {
        raw.publish(job);
    }
    let before = outside_of(&small.out, folder);
    let allow = [&small.source, &small.out, &small.model].map(|path| text(path)).join(",");
    let mut command = worker(["--broker", &broker, "--exit-when-idle", "1", "--allow", &allow]);
    command.args(["--refusal-limit", "0"]);
    let ended = run(&mut command).expect(0);

    let reasons: Vec<_> = raw.take_dead().into_iter().map(|(_, reason)| reason).collect();
    assert_eq!(reasons.len(), hostile.len(), "{reasons:#?}\n{}", ended.stderr);
    for (what, _, place) in &hostile {
        let told =
            reasons.iter().any(|reason| reason.contains(place) && reason.contains("--allow"));
        assert!(told, "{what}: {reasons:#?}");
    }
    small.results().assert_exactly(&small.keys);
    assert_eq!(outside_of(&small.out, folder), before);
    assert_eq!(files_below(&elsewhere), [] as [PathBuf; 0]);
}

#[test]
fn allow_does_not_match_a_longer_name_or_a_climbing_path_in_a_bucket() {
    let (server, small) = (S3Server::s3s_fs(), SmallRun::new(1));
    server.make_bucket("allow");
    for place in ["s3://allow/data", "s3://allow/database"] {
        server.upload(&small.source, place);
    }
    let broker = Broker::shared().url();
    let mut enqueue = camshaft(["enqueue", "s3://allow/data", "--out", "s3://allow/out"]);
    let _ended = run(enqueue.args(["--broker", &broker]).envs(server.variables())).expect(0);
    let raw = Raw::connect(&broker);
    let job = raw.take_jobs().remove(0);
    let hostile = [
        ("source", "s3://allow/database"),
        ("source", "s3://allow/data/%2e%2e/database"),
        ("out", "s3://allow/outside"),
        ("out", "s3://allow/out/%2E%2E/outside"),
    ];
    for (field, place) in hostile {
        raw.publish(&with(&job, field, place));
    }
    // Two texts that are not valid places.
    for place in ["s3://allow/data%2f..%2fdatabase", "s3://allow/data%2f%2e%2e"] {
        raw.publish(&with(&job, "source", place));
    }
    raw.publish(&job);
    let mut command = worker(["--broker", &broker, "--exit-when-idle", "1"]);
    command.args(["--allow", "s3://allow/data", "--allow", "s3://allow/out"]);
    command.args(["--refusal-limit", "0"]);
    let _ended = run(command.envs(server.variables())).expect(0);

    let reasons: Vec<_> = raw.take_dead().into_iter().map(|(_, reason)| reason).collect();
    let refused = reasons.iter().filter(|reason| reason.contains("--allow"));
    assert_eq!(refused.count(), hostile.len(), "{reasons:#?}");
    assert_eq!(reasons.len(), hostile.len() + 2, "{reasons:#?}");
    Results::read(&server.folder("s3://allow/out")).assert_exactly(&small.keys);
    assert!(!server.bucket_folder("allow").join("outside").exists());
    assert_eq!(Results::read(&server.folder("s3://allow/data")).predictions.len(), 0);
}
