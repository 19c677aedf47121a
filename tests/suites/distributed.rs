//! Tests `enqueue` and workers with a real broker and real S3 servers.

use std::fs;
use std::process::Command;
use std::time::Duration;

use camshaft_tests::broker::Broker;
use camshaft_tests::images::files_below;
use camshaft_tests::jobs::publish;
use camshaft_tests::programs::{Running, camshaft, run, worker};
use camshaft_tests::repository;
use camshaft_tests::results::{Results, assert_same, local};
use camshaft_tests::s3::S3Server;
use camshaft_tests::small_run::SmallRun;
use tempfile::tempdir;

const LIMIT: Duration = Duration::from_secs(300);

fn with<'c>(command: &'c mut Command, server: &S3Server) -> &'c mut Command {
    command.envs(server.variables())
}

fn assert_same_as_audit(server: &S3Server, bucket: &str) {
    let here = tempdir().unwrap();
    let mut audit = camshaft(["audit"]);
    let _audited = run(audit.arg(repository::chelsea()).arg("--out").arg(here.path())).expect(0);

    server.make_bucket(bucket);
    let (source, out) = (format!("s3://{bucket}/photos"), format!("s3://{bucket}/out"));
    server.upload(&repository::chelsea(), &source);
    let broker = Broker::shared().url();
    let mut enqueue = camshaft(["enqueue", &source, "--out", &out, "--broker", &broker]);
    let ended = run(with(&mut enqueue, server)).expect(0);
    assert!(ended.stdout.starts_with("Enqueued "), "{}", ended.stdout);

    let workers = [1, 2].map(|number| {
        let name = format!("worker-{number}");
        let mut command =
            worker(["--broker", &broker, "--exit-when-idle", "1", "--worker-name", &name]);
        // Small batches, so that both workers get some of the few photos.
        Running::start(with(&mut command, server).args(["--batch", "1"]))
    });
    for worker in workers {
        let _ended = worker.end(LIMIT).expect(0);
    }
    let theirs = Results::read(&server.folder(&out));
    assert_same(&Results::read(&local(here.path())), &theirs);

    let mut status = camshaft(["status", &out, "--broker", &broker, "--json"]);
    let ended = run(with(&mut status, server)).expect(0);
    let status: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    let photos = files_below(&repository::chelsea()).len();
    assert_eq!(status["images"], photos);
    assert_eq!(status["done"], photos);
    for none in ["failed", "queued", "retrying", "dead", "remaining"] {
        assert_eq!(status[none], 0, "{status}");
    }
}

#[test]
fn workers_with_rabbitmq_and_s3s_fs_give_the_results_of_an_audit() {
    assert_same_as_audit(S3Server::s3s_fs(), "same-as-audit");
}

#[test]
fn workers_with_rabbitmq_and_moto_give_the_results_of_an_audit() {
    assert_same_as_audit(S3Server::moto(), "same-as-audit");
}

#[test]
fn results_in_s3_have_content_types() {
    let server = S3Server::moto();
    server.make_bucket("content-types");
    let mut audit = camshaft(["audit"]);
    audit.arg(repository::chelsea()).args(["--out", "s3://content-types/out", "--limit", "1"]);
    let _ended = run(with(&mut audit, server)).expect(0);
    let results = Results::read(&server.folder("s3://content-types/out"));
    let (key, record) = results.predictions.first_key_value().unwrap();
    let overlay = record.explanations[0].overlay.clone().unwrap();
    let [endpoint, ..] = server.variables();
    for (path, content_type) in
        [(format!("predictions/{key}.json"), "application/json"), (overlay, "image/jpeg")]
    {
        // boto3 asks: another client than the one that wrote the object.
        let script = "import boto3,sys\n\
            s3=boto3.client('s3',endpoint_url=sys.argv[1])\n\
            print(s3.head_object(Bucket='content-types',Key=sys.argv[2])['ContentType'])";
        let said = Command::new(repository::tool("venv/bin/python"))
            .args(["-c", script, &endpoint.1, &format!("out/{path}")])
            .envs(server.variables())
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), content_type, "{path}");
    }
}

#[test]
fn option_only_chooses_which_images_are_enqueued() {
    let mut small = SmallRun::new(6);
    let bad = small.source.join("bad.jpg");
    fs::write(&bad, "no image").unwrap();
    small.keys.push("bad.jpg".to_owned());
    let broker = Broker::shared().url();
    let enqueue = |only: &str| small.enqueue(&broker, &["--only", only]);
    let work = || {
        let ended = run(&mut worker(["--broker", &broker, "--exit-when-idle", "1"])).expect(0);
        ended.stderr
    };
    assert!(enqueue("new").starts_with("Enqueued 7 of 7 images"));
    work();
    assert!(enqueue("new").starts_with("Enqueued 0 of 7 images"));
    assert!(enqueue("failed").starts_with("Enqueued 1 of 7 images"));
    // The image is mended meanwhile: its failure must not stay beside its prediction.
    fs::copy(small.source.join(&small.keys[0]), &bad).unwrap();
    work();
    let results = small.results();
    assert_eq!((results.predictions.len(), results.failures.len()), (7, 0));
    assert!(enqueue("all").starts_with("Enqueued 7 of 7 images"));
    work();
}

#[test]
fn a_message_that_is_not_a_job_is_dead_lettered_and_stops_no_other() {
    use camshaft_queue::{JobQueue, Message, RabbitMqOptions, RabbitMqQueue};
    let small = SmallRun::new(3);
    let broker = Broker::shared().url();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let queue = runtime
        .block_on(RabbitMqQueue::connect(broker.clone().into(), RabbitMqOptions::default()))
        .unwrap();
    let junk: [&[u8]; 4] = [b"", b"{}", b"\xff\xfe\x00", br#"{"v":2}"#];
    let messages = junk.map(|body| Message { body: body.to_vec().into(), trace: None }).to_vec();
    runtime.block_on(publish(&queue, messages)).unwrap();

    small.enqueue(&broker, &[]);
    let _ended = run(&mut worker(["--broker", &broker, "--exit-when-idle", "1"])).expect(0);
    small.results().assert_exactly(&small.keys);
    assert_eq!(runtime.block_on(queue.depth()).unwrap().dead, 4);

    let redriven = run(&mut camshaft(["redrive", "--broker", &broker])).expect(0);
    assert!(redriven.stdout.starts_with("Moved 4 dead letters"), "{}", redriven.stdout);
    let _ended = run(&mut worker(["--broker", &broker, "--exit-when-idle", "1"])).expect(0);
    assert_eq!(runtime.block_on(queue.depth()).unwrap().dead, 4);
}
