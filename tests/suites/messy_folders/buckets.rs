//! Buckets with keys that `object_store` can't take, and with objects in place of folders.

use std::fs;
use std::process::Command;

use camshaft_common::key::ImageKey;
use camshaft_common::prediction::FailureClass;
use camshaft_common::store::SourceEntry;
use camshaft_tests::broker::Broker;
use camshaft_tests::programs::{camshaft, camshaft_with_report, run, worker};
use camshaft_tests::repository;
use camshaft_tests::results::Results;
use camshaft_tests::s3::S3Server;
use camshaft_tests::small_run::SmallRun;
use futures::TryStreamExt;
use serde_json::Value;

use super::assert_printable;

/// Enqueues `source` with more arguments, and returns what is printed.
fn enqueue(server: &S3Server, broker: &str, source: &str, out: &str, more: &[&str]) -> String {
    let mut command = camshaft(["enqueue", source, "--out", out, "--broker", broker]);
    let ended = run(command.args(more).envs(server.variables())).expect(0);
    assert_printable(&ended);
    ended.stdout
}

/// Does all jobs. Returns the results, and what `status` then says.
fn work(server: &S3Server, broker: &str, out: &str) -> (Results, Value) {
    let mut command = worker(["--broker", broker, "--exit-when-idle", "1"]);
    let _ended = run(command.envs(server.variables())).expect(0);
    let mut command = camshaft(["status", out, "--broker", broker, "--json"]);
    let status = run(command.envs(server.variables())).expect(0);
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    for none in ["remaining", "queued", "retrying", "dead", "unaccounted"] {
        assert_eq!(status[none], 0, "{none} in {status}");
    }
    (Results::read(&server.folder(out)), status)
}

/// Writes objects with boto3, which takes any key: each the content of a file, or nothing if it
/// stands for a folder.
fn put_objects(server: &S3Server, bucket: &str, keys: &[&str], file: &str) {
    let script = "import boto3,json,sys\n\
        s3=boto3.client('s3',endpoint_url=sys.argv[1])\n\
        body=open(sys.argv[4],'rb').read()\n\
        for key in json.loads(sys.argv[3]):\n\
        \x20   s3.put_object(Bucket=sys.argv[2],Key=key,Body=b'' if key.endswith(('/','_$folder$')) else body)";
    let [endpoint, ..] = server.variables();
    let keys = serde_json::to_string(keys).unwrap();
    let put = Command::new(repository::tool("venv/bin/python"))
        .args(["-c", script, &endpoint.1, bucket, &keys, file])
        .envs(server.variables())
        .output()
        .unwrap();
    assert!(put.status.success(), "{}", String::from_utf8_lossy(&put.stderr));
}

#[test]
fn an_odd_key_in_a_bucket_ends_nothing_but_itself() {
    let server = S3Server::moto();
    let small = SmallRun::new(1);
    let image = small.source.join(&small.keys[0]);
    for (bucket, prefix) in [("odd-keys", ""), ("odd-keys-below", "some/images/")] {
        server.make_bucket(bucket);
        let long = format!("{}.jpg", "x".repeat(1015 - prefix.len()));
        let names = [
            "000.jpg",
            "/zzz.jpg",
            "a//b.jpg",
            "tab\t.jpg",
            "a/../c.jpg",
            "./d.jpg",
            "cat/1.jpg",
            " space.jpg",
            "empty/",
            "%=x.jpg",
            "é.jpg",
            &long,
            "zzz.jpg",
            "",
        ];
        let keys: Vec<_> = names.map(|name| format!("{prefix}{name}")).into();
        let keys: Vec<_> = keys.iter().map(String::as_str).filter(|key| !key.is_empty()).collect();
        put_objects(server, bucket, &keys, image.to_str().unwrap());

        let out = format!("s3://{bucket}/out");
        let source = format!("s3://{bucket}/{prefix}");
        let mut audit = camshaft(["audit", &source, "--out", &out, "--max-failure-rate", "1"]);
        audit.arg("--model").arg(&small.model).envs(server.variables());
        let ended = run(&mut audit).expect(0);
        assert_printable(&ended);
        assert!(ended.stdout.contains("folder marker"), "{}", ended.stdout);
        let results = Results::read(&server.folder(&out));
        let predicted = [
            "000.jpg",
            "a/%=/b.jpg",
            "cat/1.jpg",
            " space.jpg",
            "%=%25=x.jpg",
            "é.jpg",
            &long,
            "zzz.jpg",
        ];
        for key in predicted {
            assert!(results.predictions.contains_key(key), "{key} in {}", ended.stdout);
        }
        for key in ["%=tab%09.jpg", "a/%=%2E%2E/c.jpg", "%=%2E/d.jpg"] {
            let class = results.failures[key].error.class;
            assert_eq!(class, FailureClass::Unsupported, "{key}");
        }
        // A path has no `/` at its start, so a key that begins with one can be asked for only below
        // a prefix.
        let slash = "%=/zzz.jpg";
        assert_eq!(results.predictions.contains_key(slash), !prefix.is_empty());
        assert_eq!(results.failures.contains_key(slash), prefix.is_empty());
        assert_eq!(results.predictions.len() + results.failures.len(), 12);
        let again = run(&mut audit).expect(0);
        assert!(again.stdout.contains("12 had results already"), "{}", again.stdout);
    }
}

#[test]
fn twenty_images_beside_a_key_that_starts_with_a_slash_are_done() {
    let (server, broker) = (S3Server::moto(), Broker::shared().url());
    let small = SmallRun::new(1);
    server.make_bucket("slash");
    let mut keys: Vec<_> = (0..20).map(|number| format!("{number:03}.jpg")).collect();
    keys.push("/zzz.jpg".to_owned());
    let wanted: Vec<_> = keys.iter().map(String::as_str).collect();
    let image = small.source.join(&small.keys[0]);
    put_objects(server, "slash", &wanted, image.to_str().unwrap());

    let (source, out, model) = ("s3://slash", "s3://slash/out", small.model.to_str().unwrap());
    let said = enqueue(server, &broker, source, out, &["--model", model]);
    assert!(said.starts_with("Enqueued 21 of 21 images"), "{said}");
    let (results, status) = work(server, &broker, out);
    assert_eq!([&status["images"], &status["done"], &status["failed"]], [21, 20, 1], "{status}");
    assert_eq!(results.predictions.len(), 20);
    assert!(results.failures.contains_key("%=/zzz.jpg"));
    let said = enqueue(server, &broker, source, out, &["--model", model]);
    assert!(said.starts_with("Enqueued 0 of 21 images"), "{said}");
}

#[test]
fn an_object_in_place_of_a_folder_is_no_image_no_result_and_no_model() {
    let (server, broker) = (S3Server::moto(), Broker::shared().url());
    let small = SmallRun::new(4);
    // A name that is found only if the model's folder is listed.
    let weights = |name: &str| small.model.join(name);
    fs::rename(weights("model.safetensors"), weights("best.safetensors")).unwrap();
    server.make_bucket("markers");
    server.upload(&small.source, "s3://markers/images");
    server.upload(&small.model, "s3://markers/model");
    let of_images = ["images/", "images/even/", "images/nothing/", "images/even_$folder$"];
    let of_others = [
        "model/",
        "model/other.safetensors/",
        "out/",
        "out/predictions/",
        "out/predictions/even/",
        "out/failures/",
        "out/overlays/",
        "out/overlays/even/",
        "out/report/thumbnails/",
    ];
    let markers: Vec<_> = of_images.into_iter().chain(of_others).collect();
    put_objects(server, "markers", &markers, "/dev/null");

    let (source, out) = ("s3://markers/images", "s3://markers/out");
    let model = ["--model", "s3://markers/model"];
    let said = enqueue(server, &broker, source, out, &model);
    assert!(said.starts_with("Enqueued 4 of 4 images"), "{said}");
    assert!(said.contains("Left out: 4 folder markers"), "{said}");
    let (results, status) = work(server, &broker, out);
    results.assert_exactly(&small.keys);
    assert_eq!([&status["images"], &status["done"], &status["failed"]], [4, 4, 0], "{status}");
    assert_eq!(status["skipped"]["by_reason"]["folder-marker"], 4, "{status}");
    let mut report = camshaft_with_report(["report", out, "--json"]);
    let report = run(report.envs(server.variables())).expect(0);
    let report: Value = serde_json::from_str(&report.stdout).unwrap();
    assert_eq!((&report["images"], &report["failed"]), (&4.into(), &0.into()), "{report}");

    let said = enqueue(server, &broker, source, out, &[&model[..], &["--list-skipped"]].concat());
    assert!(said.contains("Enqueued 0 of 4 images"), "{said}");
    for name in ["./", "even/", "nothing/", "even_$folder$"] {
        let line = format!("skipped\tfolder-marker\t{name}");
        assert!(said.lines().any(|found| found == line), "no {line:?} in {said}");
    }
}

#[test]
fn a_bucket_that_is_a_folder_of_files_with_odd_names_is_done() {
    let (server, broker) = (S3Server::s3s_fs(), Broker::shared().url());
    let small = SmallRun::new(1);
    server.make_bucket("odd-files");
    let long = format!("{}{}.jpg", format!("{}/", "d".repeat(200)).repeat(4), "l".repeat(190));
    let done = [
        " space.jpg",
        "%=x.jpg",
        "a!.jpg",
        "a.b.jpg",
        "a/b.jpg",
        "a-b/c.jpg",
        "caf\u{fffd}/1.jpg",
        "\u{ff46}\u{ff55}.jpg",
        "😀.jpg",
        &long,
    ];
    let failed = ["c0\u{1}.jpg", "line\n.jpg", "tab\t/a.jpg"];
    for name in done.iter().chain(&failed) {
        let path = server.bucket_folder("odd-files").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(small.source.join(&small.keys[0]), path).unwrap();
    }

    let [out, model] = [&small.out, &small.model].map(|path| path.to_str().unwrap());
    let said = enqueue(server, &broker, "s3://odd-files", out, &["--model", model]);
    assert!(said.starts_with("Enqueued 13 of 13 images"), "{said}");
    let (results, status) = work(server, &broker, out);
    assert_eq!([&status["images"], &status["done"], &status["failed"]], [13, 10, 3], "{status}");
    let key = |name: &str| ImageKey::from_name(name.as_bytes()).unwrap().to_string();
    let keys: Vec<_> = done.into_iter().chain(failed).map(key).collect();
    results.assert_exactly(&keys);
    for name in failed {
        let class = results.failures[&key(name)].error.class;
        assert_eq!(class, FailureClass::Unsupported, "{name:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_of_many_pages_has_every_odd_key_in_order() {
    let server = S3Server::moto();
    server.make_bucket("odd-pages");
    let small = SmallRun::new(1);
    let note = small.directory.path().join("note");
    fs::write(&note, "x").unwrap();
    let mut keys: Vec<String> = (0..1500).map(|number| format!("p/{number:04}.jpg")).collect();
    keys.extend((0..40).map(|number| format!("/{number}/a.jpg")));
    keys.extend((0..40).map(|number| format!("p//{number}\t.jpg")));
    keys.extend((0..40).map(|number| format!("p/caf\u{fffd}/{number}.jpg")));
    keys.extend(["p/", "p/0100.jpg/", "p/\u{ff21}/a.jpg", "p/😀/a.jpg"].map(str::to_owned));
    let wanted: Vec<_> = keys.iter().map(String::as_str).collect();
    put_objects(server, "odd-pages", &wanted, note.to_str().unwrap());
    keys.sort();
    for (prefix, start) in [("s3://odd-pages", ""), ("s3://odd-pages/p", "p/")] {
        let listed: Vec<_> = server.folder(prefix).list_images().try_collect().await.unwrap();
        let listed: Vec<_> = listed
            .into_iter()
            .map(|entry| match entry {
                SourceEntry::Image(image) => image.key.name().into_owned(),
                SourceEntry::Skipped(skipped) => skipped.name.into_bytes(),
            })
            .collect();
        let expected = keys.iter().filter_map(|key| key.strip_prefix(start));
        let expected = expected.map(|key| if key.is_empty() { "./" } else { key });
        assert_eq!(listed, expected.map(|key| key.as_bytes().to_owned()).collect::<Vec<_>>());
    }
}
