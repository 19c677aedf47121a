//! What goes wrong around the programs, and what they make of it.

use std::time::{Duration, Instant};

use camshaft_tests::broker::Broker;
use camshaft_tests::programs::{Running, camshaft, run, worker};
use camshaft_tests::repository;
use camshaft_tests::s3::{S3Server, SECRET_KEY, free_port};
use camshaft_tests::small_run::SmallRun;
use camshaft_tests::wait;
use tempfile::tempdir;

const LIMIT: Duration = Duration::from_secs(300);

#[test]
fn killing_workers_loses_and_doubles_nothing() {
    const KILLS: usize = 10;
    let small = SmallRun::new(1000);
    let broker = Broker::shared().url();
    small.enqueue(&broker, &[]);

    let start = || Running::start(&mut worker(["--broker", &broker, "--exit-when-idle", "2"]));
    let mut random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0u64);
    for kill in 0..KILLS {
        let running = start();
        // Somewhere in the next eightieth of the run, so that ten kills fall inside it.
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let mark = (small.predictions() + 1 + usize::try_from(random >> 33).unwrap() % 80)
            .min(small.keys.len() - KILLS + kill);
        wait::until("the worker comes as far as that", LIMIT, || small.predictions() >= mark);
        running.kill();
    }
    assert!(small.predictions() < small.keys.len(), "the last kill came after the end");
    let _ended = start().end(LIMIT).expect(0);

    small.results().assert_exactly(&small.keys);
    let status = run(camshaft(["status", "--broker", &broker, "--json"]).arg(&small.out)).expect(0);
    let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(
        (&status["remaining"], &status["dead"], &status["queued"]),
        (&0.into(), &0.into(), &0.into())
    );
}

#[test]
fn sigterm_finishes_what_is_in_work_and_hands_back_the_rest() {
    let small = SmallRun::new(500);
    let broker = Broker::shared().url();
    small.enqueue(&broker, &[]);

    let running = Running::start(&mut worker(["--broker", &broker]));
    wait::until("the first predictions", LIMIT, || small.predictions() > 0);
    running.signal("TERM");
    let asked = Instant::now();
    let _ended = running.end(LIMIT).expect(0);
    assert!(asked.elapsed() < Duration::from_secs(25), "{:?}", asked.elapsed());

    let before = small.results().predictions;
    assert!(before.len() < small.keys.len(), "it was not stopped in the middle");
    let _ended = run(&mut worker(["--broker", &broker, "--exit-when-idle", "1"])).expect(0);
    let after = small.results();
    after.assert_exactly(&small.keys);
    for (key, record) in &before {
        let again = &after.predictions[key];
        assert_eq!(record.finished_at, again.finished_at, "{key} was done twice");
    }
}

#[test]
fn a_worker_waits_for_a_broker_that_is_down_and_goes_on_when_it_restarts() {
    let small = SmallRun::new(200);
    let mut broker = Broker::start();
    let url = broker.url();
    small.enqueue(&url, &[]);

    broker.stop();
    let running = Running::start(&mut worker(["--broker", &url, "--exit-when-idle", "2"]));
    wait::until("a clear line", LIMIT, || running.output()[1].contains("not reachable"));
    broker.start_again();
    wait::until("the first predictions", LIMIT, || small.predictions() > 0);
    broker.stop();
    broker.start_again();
    let ended = running.end(LIMIT).expect(0);
    assert!(!ended.stderr.contains(broker.password()), "{}", ended.stderr);
    small.results().assert_exactly(&small.keys);
}

#[test]
fn what_keeps_a_worker_or_enqueue_from_starting_is_told_in_one_line() {
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
    run(&mut worker(["--broker", "http://localhost"]))
        .expect_one_line(&["broker URL is not valid"]);
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
fn a_missing_bucket_is_told_in_one_line() {
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
fn wrong_store_keys_are_told_in_one_line() {
    let server = S3Server::s3s_fs();
    server.make_bucket("wrong-keys");
    let mut command = camshaft(["audit"]);
    command.arg(repository::photos()).args(["--out", "s3://wrong-keys/out"]);
    command.envs(server.variables()).env("AWS_SECRET_ACCESS_KEY", "wr0ng-s3cret");
    let ended = run(&mut command);
    assert!(!ended.stderr.contains("wr0ng-s3cret"), "{}", ended.stderr);
    ended.expect_one_line(&["s3://wrong-keys/out/run.json", "refused the credentials"]);
}
