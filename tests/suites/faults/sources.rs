//! A SOURCE that a worker may not read, or that is not there, beside images of which that is true alone.

use std::fs;

use camshaft_common::prediction::FailureClass;
use camshaft_tests::broker::Broker;
use camshaft_tests::health::Health;
use camshaft_tests::images::files_below;
use camshaft_tests::programs::{Ended, Running, camshaft, run, worker};
use camshaft_tests::s3::S3Server;
use camshaft_tests::s3_relay::S3Relay;
use camshaft_tests::small_run::SmallRun;
use camshaft_tests::wait;

use super::LIMIT;
use super::own_faults::{BucketRun, ONE_RETRY, status};

const FORBIDDEN: &str = "SOURCE may not be read";

/// Forbids to read what is below a path of the server.
fn forbid(relay: &S3Relay, path: &str) {
    relay.answer_error(&format!("GET {path}"), 403, "AccessDenied", "Access Denied");
}

fn assert_stopped(ended: &Ended, says: &str) {
    let line = ended.stderr.lines().last().unwrap_or_default();
    assert!(line.contains(says) && line.contains("run the same command again"), "{ended:?}");
}

fn assert_no_results(small: &SmallRun) {
    let results = small.results();
    assert!(results.failures.is_empty() && results.predictions.is_empty(), "{results:?}");
}

#[test]
fn a_source_that_one_worker_may_not_read_costs_no_image() {
    let run = BucketRun::new("own-source", 150);
    let relay = S3Relay::to(run.server);
    forbid(&relay, "/own-source/images/");
    let _log = run.is_done_beside(FORBIDDEN, |command| {
        command.envs(relay.variables(run.server));
    });
}

#[test]
fn rights_that_a_worker_loses_cost_few_images() {
    /// Those that are forgiven in a row, and those that are read at the same time.
    const MOST: usize = 32;
    let run = BucketRun::new("lost-rights", 400);
    let relay = S3Relay::to(run.server);
    let health = Health::at_free_port();
    let mut command = run.worker();
    command.args(health.arguments()).envs(relay.variables(run.server));
    let losing = Running::start(&mut command);
    let predictions = run.server.bucket_folder("lost-rights").join("out/predictions");
    let predicted = || if predictions.exists() { files_below(&predictions).len() } else { 0 };
    wait::until("the first predictions", LIMIT, || predicted() > 10);
    forbid(&relay, "/lost-rights/images/");
    wait::until("it says why", LIMIT, || health.problems().contains(FORBIDDEN));
    let mut healthy = run.worker();
    healthy.args(["--exit-when-idle", "2"]);
    let _ended = Running::start(&mut healthy).end(LIMIT).expect(0);
    losing.signal("TERM");
    let _ended = losing.end(LIMIT).expect(0);
    let failures = run.results().failures.len();
    assert!(failures <= MOST, "{failures} failures");
}

#[test]
fn a_few_forbidden_images_among_others_fail_soon() {
    let run = BucketRun::new("some-forbidden", 30);
    let relay = S3Relay::to(run.server);
    let forbidden = &run.small.keys[..3];
    forbidden.iter().for_each(|key| forbid(&relay, &format!("/some-forbidden/images/{key} ")));
    // At last, a worker that has read nothing yet gets nothing but these.
    for more in [&[][..], &["--only", "failed"]] {
        if !more.is_empty() {
            run.enqueue(more);
        }
        let mut command = run.worker();
        command.args(["--exit-when-idle", "2"]).envs(relay.variables(run.server));
        let ended = Running::start(&mut command).end(LIMIT).expect(0);
        assert!(!ended.stderr.contains(FORBIDDEN), "{}", ended.stderr);
        let failures = run.results().failures;
        assert_eq!(failures.len(), forbidden.len(), "{failures:?}");
        for key in forbidden {
            let failure = &failures[key];
            assert_eq!(failure.error.class, FailureClass::AccessDenied, "{failure:?}");
            assert_eq!(failure.attempts, 1, "{failure:?}");
        }
    }
}

#[test]
fn an_audit_of_a_source_that_may_not_be_read_stops_without_failures() {
    for (bucket, images) in [("closed-one", 1), ("closed-many", 40)] {
        let (small, server) = (SmallRun::new(images), S3Server::s3s_fs());
        server.make_bucket(bucket);
        fs::rename(&small.source, server.bucket_folder(bucket).join("images")).unwrap();
        let relay = S3Relay::to(server);
        forbid(&relay, &format!("/{bucket}/images/"));
        let mut command = camshaft(["audit", &format!("s3://{bucket}/images"), "--out"]);
        command.arg(&small.out).arg("--model").arg(&small.model).envs(relay.variables(server));
        let ended = run(&mut command).expect(1);
        assert_stopped(&ended, "SOURCE may not be read with these credentials");
        assert_no_results(&small);
    }
}

#[test]
fn a_folder_that_is_not_mounted_costs_no_image() {
    let small = SmallRun::new(40);
    let broker = Broker::shared().url();
    small.enqueue(&broker, &ONE_RETRY);
    let away = small.directory.path().join("away");
    fs::rename(&small.source, &away).unwrap();
    fs::create_dir(&small.source).unwrap();
    let health = Health::at_free_port();
    let mut command = worker(["--broker", &broker, "--exit-when-idle", "2"]);
    let running = Running::start(command.args(ONE_RETRY).args(health.arguments()));
    wait::until("it says why", LIMIT, || health.problems().contains("is it mounted"));
    assert_eq!(health.status(), 503);
    assert_no_results(&small);
    fs::remove_dir(&small.source).unwrap();
    fs::rename(away, &small.source).unwrap();
    let _ended = running.end(LIMIT).expect(0);
    let results = small.results();
    results.assert_exactly(&small.keys);
    assert!(results.failures.is_empty(), "{:?}", results.failures);
    assert_eq!(status(&broker, small.out.to_str().unwrap(), &[])["dead"], 0);
}

#[test]
fn an_audit_of_a_list_below_a_folder_that_is_not_mounted_stops_without_failures() {
    let small = SmallRun::new(40);
    let list = small.directory.path().join("list");
    fs::write(&list, small.keys.join("\n")).unwrap();
    fs::rename(&small.source, small.directory.path().join("away")).unwrap();
    fs::create_dir(&small.source).unwrap();
    let mut command = camshaft(["audit", &format!("list:{}", list.display()), "--base"]);
    command.arg(&small.source).arg("--out").arg(&small.out).arg("--model").arg(&small.model);
    assert_stopped(&run(&mut command).expect(1), "there is nothing in SOURCE");
    assert_no_results(&small);
}
