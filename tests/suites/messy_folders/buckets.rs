//! Buckets with keys that `object_store` can't take.

use std::fs;
use std::process::Command;

use camshaft_common::prediction::FailureClass;
use camshaft_common::store::SourceEntry;
use camshaft_tests::programs::{camshaft, run};
use camshaft_tests::repository;
use camshaft_tests::results::Results;
use camshaft_tests::s3::S3Server;
use camshaft_tests::small_run::SmallRun;
use futures::TryStreamExt;

use super::assert_printable;

/// Writes objects with boto3, which takes any key: each the content of a file, or nothing.
fn put_objects(server: &S3Server, bucket: &str, keys: &[&str], file: &str) {
    let script = "import boto3,json,sys\n\
        s3=boto3.client('s3',endpoint_url=sys.argv[1])\n\
        body=open(sys.argv[4],'rb').read()\n\
        for key in json.loads(sys.argv[3]):\n\
        \x20   s3.put_object(Bucket=sys.argv[2],Key=key,Body=b'' if key.endswith('/') else body)";
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
        assert!(ended.stdout.contains("empty object"), "{}", ended.stdout);
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
    let wanted: Vec<_> = keys.iter().map(String::as_str).collect();
    put_objects(server, "odd-pages", &wanted, note.to_str().unwrap());
    keys.sort();
    for (prefix, start) in [("s3://odd-pages", ""), ("s3://odd-pages/p", "p/")] {
        let listed: Vec<_> = server.folder(prefix).list_images().try_collect().await.unwrap();
        let listed: Vec<_> = listed
            .into_iter()
            .map(|entry| match entry {
                SourceEntry::Image(image) => image.key.name().into_owned(),
                SourceEntry::Skipped(skipped) => panic!("{skipped:?}"),
            })
            .collect();
        let expected = keys.iter().filter_map(|key| key.strip_prefix(start));
        assert_eq!(listed, expected.map(|key| key.as_bytes().to_owned()).collect::<Vec<_>>());
    }
}
