//! Stores that answer with errors, late or not at all.

use std::fs;
use std::time::{Duration, Instant};

use camshaft_common::prediction::FailureClass;
use camshaft_tests::broker::Broker;
use camshaft_tests::health::Health;
use camshaft_tests::programs::{Ended, Running, camshaft, run, worker};
use camshaft_tests::results::Results;
use camshaft_tests::s3::S3Server;
use camshaft_tests::s3_relay::S3Relay;
use camshaft_tests::small_run::SmallRun;
use camshaft_tests::wait;
use serde_json::Value;

use super::LIMIT;

/// A run on S3 through a relay.
struct S3Run {
    small: SmallRun,
    server: &'static S3Server,
    relay: S3Relay,
    bucket: &'static str,
    broker: String,
}

impl S3Run {
    /// Puts *n* `images` into a bucket.
    fn new(bucket: &'static str, images: usize) -> Self {
        let small = SmallRun::new(images);
        let server = S3Server::s3s_fs();
        server.make_bucket(bucket);
        // The buckets of s3s-fs are folders.
        fs::rename(&small.source, server.bucket_folder(bucket).join("images")).unwrap();
        let (relay, broker) = (S3Relay::to(server), Broker::shared().url());
        Self { small, server, relay, bucket, broker }
    }

    fn out(&self) -> String {
        format!("s3://{}/out", self.bucket)
    }

    fn camshaft(&self, command: &str, more: &[&str]) -> Ended {
        let mut command = camshaft([command]);
        command.args(more).args(["--broker", &self.broker]);
        run(command.envs(self.relay.variables(self.server)))
    }

    fn enqueue(&self) -> Ended {
        let (source, out) = (format!("s3://{}/images", self.bucket), self.out());
        self.camshaft(
            "enqueue",
            &[&source, "--out", &out, "--model", self.small.model.to_str().unwrap()],
        )
    }

    fn worker(&self, more: &[&str]) -> Running {
        let mut command = worker(["--broker", &self.broker, "--exit-when-idle", "2"]);
        command.args(["--retry-delays", "1,2,4,8"]).args(more);
        Running::start(command.envs(self.relay.variables(self.server)))
    }

    fn status(&self) -> Value {
        let delays = ["--retry-delays", "1,2,4,8"];
        let ended = self.camshaft("status", &[&[&self.out()[..], "--json"], &delays[..]].concat());
        serde_json::from_str(&ended.expect(0).stdout).unwrap()
    }

    fn predictions(&self) -> usize {
        let folder = self.server.bucket_folder(self.bucket).join("out/predictions");
        if folder.exists() { camshaft_tests::images::files_below(&folder).len() } else { 0 }
    }

    fn assert_all_predicted(&self) {
        self.relay.set_faults_in_100(0);
        let results = Results::read(&self.server.folder(&self.out()));
        results.assert_exactly(&self.small.keys);
        assert!(results.failures.is_empty(), "{:?}", results.failures);
        let status = self.status();
        for none in ["remaining", "queued", "retrying", "dead", "unaccounted"] {
            assert_eq!(status[none], 0, "{none} in {status}");
        }
    }
}

#[test]
fn no_image_fails_if_a_fifth_of_the_answers_are_bad() {
    let s3 = S3Run::new("bad-answers", 400);
    s3.relay.set_faults_in_100(20);
    let _ended = s3.enqueue().expect(0);
    let workers = [(); 2].map(|()| s3.worker(&[]));
    for running in workers {
        let _ended = running.end(LIMIT).expect(0);
    }
    let (requests, faulty) = s3.relay.requests();
    assert!(faulty * 6 > requests, "only {faulty} of {requests} requests went wrong");
    s3.assert_all_predicted();
}

#[test]
fn an_object_that_is_archived_or_encrypted_fails_alone() {
    let s3 = S3Run::new("one-object", 30);
    let _ended = s3.enqueue().expect(0);
    let not_given = "The object was stored using a form of Server Side Encryption. The correct \
                     parameters must be provided to retrieve the object.";
    let refused = [
        (403, "InvalidObjectState", "The operation is not valid for the object's storage class"),
        (400, "KMS.DisabledException", "arn:aws:kms:us-east-1:1:key/x is disabled."),
        (400, "KMS.NotFoundException", "Key 'arn:aws:kms:us-east-1:1:key/x' does not exist"),
        (400, "KMS.KMSInvalidStateException", "arn:aws:kms:us-east-1:1:key/x is pending deletion."),
        (400, "InvalidRequest", not_given),
    ];
    // More of each than would make the store count as out.
    let refused: Vec<_> = refused.iter().cycle().take(20).collect();
    for (key, (status, code, message)) in s3.small.keys.iter().zip(&refused) {
        let image = format!("GET /{}/images/{key} ", s3.bucket);
        s3.relay.answer_error(&image, *status, code, message);
    }
    let ended = s3.worker(&[]).end(LIMIT).expect(0);
    for other in ["credentials", "doesn't answer", "trying again", "dead-lettered"] {
        assert!(!ended.stderr.contains(other), "{other}: {}", ended.stderr);
    }
    let results = Results::read(&s3.server.folder(&s3.out()));
    results.assert_exactly(&s3.small.keys);
    assert_eq!(results.failures.len(), refused.len());
    for (key, (_, code, _)) in s3.small.keys.iter().zip(&refused) {
        let failure = &results.failures[key];
        assert_eq!(failure.error.class, FailureClass::AccessDenied, "{failure:?}");
        assert!(failure.error.message.contains(code), "{failure:?}");
        assert_eq!(failure.attempts, 1, "{failure:?}");
    }
}

#[test]
fn waiting_for_a_store_costs_no_attempt() {
    let s3 = S3Run::new("outage", 300);
    let _ended = s3.enqueue().expect(0);
    let health = Health::at_free_port();
    // There are no retries, so that one failed attempt would be a dead letter.
    let mut command = worker(["--broker", &s3.broker, "--exit-when-idle", "2"]);
    command.args(["--retry-delays", ""]).args(health.arguments());
    let running = Running::start(command.envs(s3.relay.variables(s3.server)));
    wait::until("the first predictions", LIMIT, || s3.predictions() > 10);
    s3.relay.set_down(true);
    wait::until("its health says so", LIMIT, || health.problems().contains("s3://outage"));
    assert_eq!(health.status(), 503);
    s3.relay.set_down(false);
    wait::until("it is well again", LIMIT, || health.status() == 200);
    let ended = running.end(LIMIT).expect(0);
    assert!(ended.stderr.contains("the store is back"), "{}", ended.stderr);
    s3.assert_all_predicted();
}

#[test]
fn a_worker_stopped_while_its_store_is_down_hands_back_in_time() {
    let s3 = S3Run::new("stopped-in-outage", 200);
    let _ended = s3.enqueue().expect(0);
    let running = s3.worker(&["--drain-timeout", "2"]);
    wait::until("the first predictions", LIMIT, || s3.predictions() > 0);
    s3.relay.set_down(true);
    wait::until("it waits for the store", LIMIT, || {
        running.output()[1].contains("the store doesn't answer")
    });
    running.signal("TERM");
    let asked = Instant::now();
    let ended = running.end(LIMIT).expect(0);
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    assert!(ended.stderr.contains("drain timeout"), "{}", ended.stderr);
    s3.relay.set_down(false);
    let _ended = s3.worker(&[]).end(LIMIT).expect(0);
    s3.assert_all_predicted();
}
