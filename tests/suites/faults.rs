//! Faults around the programs: brokers, stores, disks and workers that fail. No image may be lost,
//! and each message says what is wrong.

use std::time::Duration;

use camshaft_tests::broker::Broker;
use camshaft_tests::programs::{camshaft, run, worker};
use camshaft_tests::repository;
use camshaft_tests::s3::{S3Server, SECRET_KEY, free_port};
use tempfile::tempdir;

mod broker;
mod crashes;
mod messages;
mod own_faults;
mod places;
mod reconciliation;
mod shutdown;
mod slow;
mod sources;
mod store;

/// Deadline for everything here. A machine that works takes less.
const LIMIT: Duration = Duration::from_secs(300);

#[test]
fn a_worker_or_enqueue_that_cannot_start_says_why_in_one_line() {
    let broker = Broker::shared();
    let photos = repository::photos();
    let photos = photos.to_str().unwrap();
    let out = tempdir().unwrap();
    let out = out.path().to_str().unwrap();
    let wrong = broker.url_of(broker.user(), "wr0ng-pa55word", "test-0");
    let enqueue =
        |url: &str| run(&mut camshaft(["enqueue", photos, "--out", out, "--broker", url]));

    let refused = enqueue(&wrong);
    assert!(!refused.stderr.contains("wr0ng-pa55word"), "{}", refused.stderr);
    refused.expect_one_line(&["refused access", "password", &broker.address()]);
    let refused = run(&mut worker(["--broker", &wrong]));
    assert!(!refused.stderr.contains("wr0ng-pa55word"), "{}", refused.stderr);
    refused.expect_one_line(&["refused access", &broker.address()]);

    enqueue(&broker.url_of(broker.user(), broker.password(), "no-such-host"))
        .expect_one_line(&["refused access", "no-such-host"]);
    let wrong_usage = run(&mut worker(["--broker", "http://localhost"])).expect(2);
    assert!(wrong_usage.stderr.contains("broker URL is not valid"), "{}", wrong_usage.stderr);
    run(&mut worker(["--broker", &broker.url(), "--model", "/no/such/model"]))
        .expect_one_line(&["/no/such/model"]);
}

#[test]
fn enqueue_gives_up_on_a_broker_that_stays_down() {
    let out = tempdir().unwrap();
    let url = format!("amqp://user:s3cr3t@127.0.0.1:{}/%2f", free_port());
    let mut command = camshaft(["enqueue"]);
    command.arg(repository::photos()).arg("--out").arg(out.path()).args(["--broker", &url]);
    let ended = run(&mut command).expect(1);
    assert!(ended.stderr.contains("cannot reach the broker"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("s3cr3t"), "{}", ended.stderr);
}

#[test]
fn a_missing_bucket_is_reported_in_one_line() {
    let photos = repository::photos();
    for server in [S3Server::s3s_fs(), S3Server::moto()] {
        server.make_bucket("is-there");
        for (source, out) in [
            ("s3://is-not-there/photos", "s3://is-there/out"),
            (photos.to_str().unwrap(), "s3://is-not-there/out"),
        ] {
            let mut command = camshaft(["audit", source, "--out", out]);
            let ended = run(command.envs(server.variables()));
            assert!(!ended.stderr.contains(SECRET_KEY), "{}", ended.stderr);
            ended.expect_one_line(&["s3://is-not-there", "bucket doesn't exist"]);
        }
    }
}

#[test]
fn wrong_store_keys_are_reported_in_one_line() {
    let server = S3Server::s3s_fs();
    server.make_bucket("wrong-keys");
    let mut command = camshaft(["audit"]);
    command.arg(repository::photos()).args(["--out", "s3://wrong-keys/out"]);
    command.envs(server.variables()).env("AWS_SECRET_ACCESS_KEY", "wr0ng-s3cret");
    let ended = run(&mut command);
    assert!(!ended.stderr.contains("wr0ng-s3cret"), "{}", ended.stderr);
    ended.expect_one_line(&["s3://wrong-keys/out/run.json", "refused the credentials"]);
}
