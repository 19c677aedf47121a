//! Workers whose own settings are at fault, runs that no worker can do, and models that can't be
//! read. Each hurts only its own jobs.

use std::fs;
use std::path::Path;
use std::process::Command;

use camshaft_tests::broker::Broker;
use camshaft_tests::health::Health;
use camshaft_tests::images::write_small_model;
use camshaft_tests::jobs::Jobs;
use camshaft_tests::programs::{Running, camshaft, run, worker};
use camshaft_tests::results::Results;
use camshaft_tests::s3::S3Server;
use camshaft_tests::s3_relay::{PathFault, S3Relay};
use camshaft_tests::small_run::SmallRun;
use camshaft_tests::wait;
use serde_json::Value;

use super::LIMIT;

/// One retry: a job whose try was spent on a fault is a dead letter at the second.
pub(super) const ONE_RETRY: [&str; 2] = ["--retry-delays", "1"];

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// The output of `camshaft status --json`.
pub(super) fn status(broker: &str, out: &str, variables: &[(String, String)]) -> Value {
    let mut command = camshaft(["status", "--json", "--broker", broker, out]);
    command.args(ONE_RETRY).envs(variables.iter().cloned());
    serde_json::from_str(&run(&mut command).expect(0).stdout).unwrap()
}

/// A run whose images and results are in a bucket.
pub(super) struct BucketRun {
    pub(super) small: SmallRun,
    pub(super) server: &'static S3Server,
    pub(super) broker: String,
    pub(super) source: String,
    pub(super) out: String,
}

impl BucketRun {
    pub(super) fn new(bucket: &str, images: usize) -> Self {
        let (small, server) = (SmallRun::new(images), S3Server::s3s_fs());
        server.make_bucket(bucket);
        // The buckets of s3s-fs are folders.
        fs::rename(&small.source, server.bucket_folder(bucket).join("images")).unwrap();
        let place = |name: &str| format!("s3://{bucket}/{name}");
        let (source, out, broker) = (place("images"), place("out"), Broker::shared().url());
        let this = Self { small, server, broker, source, out };
        this.enqueue(&[]);
        this
    }

    /// Enqueues it with more arguments.
    pub(super) fn enqueue(&self, more: &[&str]) {
        let mut command = camshaft(["enqueue", &self.source, "--out", &self.out]);
        command.arg("--model").arg(&self.small.model).args(["--broker", &self.broker]);
        command.args(ONE_RETRY).args(more).envs(self.server.variables());
        let _ended = run(&mut command).expect(0);
    }

    /// Its results. Each image has one.
    pub(super) fn results(&self) -> Results {
        let results = Results::read(&self.server.folder(&self.out));
        results.assert_exactly(&self.small.keys);
        let status = status(&self.broker, &self.out, &self.server.variables());
        for none in ["remaining", "queued", "retrying", "dead", "unaccounted"] {
            assert_eq!(status[none], 0, "{none} in {status}");
        }
        results
    }

    /// A worker with the right settings, not yet started.
    pub(super) fn worker(&self) -> Command {
        let mut command = worker(["--broker", &self.broker]);
        command.args(ONE_RETRY).envs(self.server.variables());
        command
    }

    /// Starts a worker after `spoil` has spoilt its settings, and beside it a healthy one. Asserts
    /// that the first says why it does nothing, in a text with `says`, and that the healthy one
    /// predicts every image. Returns what the first has logged.
    pub(super) fn is_done_beside(&self, says: &str, spoil: impl FnOnce(&mut Command)) -> String {
        let health = Health::at_free_port();
        let mut command = self.worker();
        spoil(command.args(health.arguments()));
        let spoilt = Running::start(&mut command);
        // It is the first to get jobs.
        wait::until("it says why", LIMIT, || health.problems().contains(says));
        assert_eq!(health.status(), 503);

        let mut healthy = self.worker();
        healthy.args(["--exit-when-idle", "2"]);
        let _ended = Running::start(&mut healthy).end(LIMIT).expect(0);
        let results = self.results();
        assert!(results.failures.is_empty(), "{:?}", results.failures);
        spoilt.signal("TERM");
        let log = spoilt.end(LIMIT).expect(0).stderr;
        assert!(log.contains("left to other workers"), "{log}");
        log
    }
}

#[test]
fn wrong_credentials_of_one_worker_cost_no_image() {
    let run = BucketRun::new("own-credentials", 150);
    let log = run.is_done_beside("refused the credentials", |command| {
        command.env("AWS_SECRET_ACCESS_KEY", "wr0ng-s3cret");
    });
    assert!(log.contains("pausing"), "{log}");
    assert!(!log.contains("wr0ng-s3cret"), "{log}");
}

#[test]
fn a_narrow_allow_of_one_worker_costs_no_image() {
    let run = BucketRun::new("own-allow", 150);
    let _log = run.is_done_beside("--allow", |command| {
        command.args(["--allow", "s3://own-allow/elsewhere"]);
    });
}

#[test]
fn another_model_of_one_worker_costs_no_image() {
    let other = tempfile::tempdir().unwrap();
    write_small_model(other.path());
    let config = other.path().join("config.json");
    let smaller = fs::read_to_string(&config).unwrap().replace("64", "96");
    fs::write(config, smaller).unwrap();
    let run = BucketRun::new("own-model", 150);
    let _log = run.is_done_beside("was started with --model", |command| {
        command.arg("--model").arg(other.path());
    });
}

/// A model in a folder may differ from machine to machine.
#[test]
fn a_model_folder_that_one_worker_lacks_costs_no_image() {
    let run = BucketRun::new("own-folder", 60);
    let away = run.small.directory.path().join("away");
    fs::rename(&run.small.model, &away).unwrap();
    let health = Health::at_free_port();
    let mut command = run.worker();
    command.args(["--exit-when-idle", "2"]).args(health.arguments());
    let lacking = Running::start(&mut command);
    wait::until("it says why", LIMIT, || health.problems().contains("there is no folder"));
    fs::rename(away, &run.small.model).unwrap();
    let _ended = lacking.end(LIMIT).expect(0);
    Results::read(&run.server.folder(&run.out)).assert_exactly(&run.small.keys);
    assert_eq!(status(&run.broker, &run.out, &run.server.variables())["dead"], 0);
}

#[test]
fn a_mistyped_out_delays_only_its_own_run_and_is_given_up_in_the_end() {
    let (mistyped, sound) = (SmallRun::new(120), SmallRun::new(60));
    let broker = Broker::shared().url();
    // The jobs that no worker may do come first.
    mistyped.enqueue(&broker, &ONE_RETRY);
    sound.enqueue(&broker, &ONE_RETRY);
    let allowed = [&mistyped.source, &mistyped.model, &sound.source, &sound.model, &sound.out];
    let allowed: Vec<_> = allowed.iter().map(|path| text(path)).collect();
    let health = Health::at_free_port();
    let mut command = worker(["--broker", &broker, "--exit-when-idle", "2"]);
    command.args(ONE_RETRY).args(["--allow", &allowed.join(","), "--refusal-limit", "5"]);
    let running = Running::start(command.args(health.arguments()));
    wait::until("the other run is done", LIMIT, || sound.predictions() == sound.keys.len());
    let told = health.problems();
    assert!(told.contains("OUT") && told.contains("--allow"), "{told}");
    // They are dead letters when every worker has refused them for the limit, and often.
    let ended = running.end(LIMIT).expect(0);
    assert!(!ended.stderr.contains("pausing"), "{}", ended.stderr);
    sound.results().assert_exactly(&sound.keys);
    assert_eq!(mistyped.predictions(), 0);
    let status = status(&broker, &text(&mistyped.out), &[]);
    assert_eq!(status["dead"], mistyped.keys.len(), "{status}");
    let reason = status["dead_letters"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("--allow") && reason.contains("workers refused it 1"), "{reason}");
}

/// A run with its model in a bucket, before a run with its model in a folder. A worker reads the
/// bucket through a relay.
struct ModelInBucket {
    of_bucket: SmallRun,
    of_folder: SmallRun,
    relay: S3Relay,
    broker: String,
    bucket: &'static str,
}

impl ModelInBucket {
    fn new(bucket: &'static str) -> Self {
        let (of_bucket, of_folder) = (SmallRun::new(120), SmallRun::new(60));
        let server = S3Server::s3s_fs();
        server.make_bucket(bucket);
        // Another model: one with the same content is read from wherever it is found first.
        let config = of_bucket.model.join("config.json");
        fs::write(&config, fs::read_to_string(&config).unwrap() + "\n").unwrap();
        fs::rename(&of_bucket.model, server.bucket_folder(bucket).join("model")).unwrap();
        let (relay, broker) = (S3Relay::to(server), Broker::shared().url());
        let mut command = camshaft(["enqueue", "--broker", &broker, "--out"]);
        command.arg(&of_bucket.out).arg(&of_bucket.source).args(ONE_RETRY);
        command.args(["--model", &format!("s3://{bucket}/model")]);
        let _ended = run(command.envs(server.variables())).expect(0);
        of_folder.enqueue(&broker, &ONE_RETRY);
        Self { of_bucket, of_folder, relay, broker, bucket }
    }

    /// Runs a worker while requests for the model get `fault`, until the other run is done, and
    /// then without it. Asserts that no try is spent.
    fn run_with(&self, fault: PathFault, while_spoilt: impl FnOnce(&Health)) {
        self.relay.spoil(&format!("/{}/model", self.bucket), fault);
        let health = Health::at_free_port();
        let mut command = worker(["--broker", &self.broker, "--exit-when-idle", "2"]);
        command.args(ONE_RETRY).args(health.arguments());
        let running = Running::start(command.envs(self.relay.variables(S3Server::s3s_fs())));
        let done = |run: &SmallRun| run.predictions() == run.keys.len();
        wait::until("the other run is done", LIMIT, || done(&self.of_folder));
        while_spoilt(&health);
        assert_eq!(self.of_bucket.predictions(), 0);
        self.relay.mend();
        let _ended = running.end(LIMIT).expect(0);
        for run in [&self.of_bucket, &self.of_folder] {
            let results = run.results();
            results.assert_exactly(&run.keys);
            assert!(results.failures.is_empty(), "{:?}", results.failures);
            assert_eq!(status(&self.broker, &text(&run.out), &[])["dead"], 0);
        }
    }
}

#[test]
fn a_models_store_that_is_out_costs_no_try_and_stops_no_other_run() {
    let runs = ModelInBucket::new("model-out");
    runs.run_with(PathFault::Refused, |health| {
        let told = || health.problems().contains("s3://model-out/model");
        wait::until("its health names the model", LIMIT, told);
        assert_eq!(health.status(), 503);
    });
}

#[test]
fn a_models_store_that_is_slow_stops_no_other_run() {
    ModelInBucket::new("model-slow").run_with(PathFault::Held, |_health| {});
}

#[test]
fn enqueue_refuses_what_no_worker_could_do() {
    let small = SmallRun::new(3);
    let broker = Broker::shared().url();
    let refused = |more: &[&str], parts: &[&str]| {
        let mut command = camshaft(["enqueue", "--broker", &broker, "--out"]);
        command.arg(&small.out).arg(&small.source).arg("--model").arg(&small.model);
        run(command.args(more)).expect_one_line(parts);
        assert!(!small.out.join("run.json").exists());
    };
    refused(&["--layer", "layer4.7"], &["no layer layer4.7"]);
    refused(&["--target", "class:whale"], &["no class \"whale\"", "cat"]);
    let layers = "layer2.0,layer2.1,layer3.0,layer3.1,layer3.2,layer3.3,layer4.0,layer4.1";
    let costly = ["--method", "score-cam,ablation-cam", "--layer", layers];
    refused(&costly, &["passes of the network", "--layer"]);
    fs::write(small.model.join("model.safetensors"), "<!DOCTYPE html><html></html>").unwrap();
    refused(&[], &["weights of model"]);
    assert_eq!(Jobs::at(&broker).count("camshaft.jobs"), None, "it went as far as the broker");
}
