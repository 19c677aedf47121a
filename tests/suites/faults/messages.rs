//! Messages that are not jobs.

use std::time::Duration;

use camshaft_queue::{JobQueue, Message, RabbitMqOptions, RabbitMqQueue};
use camshaft_tests::broker::Broker;
use camshaft_tests::jobs::publish;
use camshaft_tests::programs::{Running, worker};
use camshaft_tests::small_run::SmallRun;
use camshaft_tests::wait;
use serde_json::{Value, json};

use super::LIMIT;

const KINDS: usize = 50;

/// A valid job, which the test then changes.
fn job(small: &SmallRun) -> Value {
    let digest = format!("sha256:{}", "0".repeat(64));
    json!({
        "v": 1, "run": "0199aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee", "key": "even/00000.jpg",
        "etag": "x", "size": 1, "label": "even",
        "source": small.source, "out": small.out,
        "model": {
            "name": "m", "digest": digest, "config_digest": digest, "reference": "cats-vs-dogs",
        },
        "explain": {
            "method": "grad-cam", "layer": "layer4", "target": "top1", "colormap": "jet",
            "alpha": 0.4, "overlay": "jpeg",
        },
    })
}

/// Fifty messages that are not jobs, each for another reason.
fn malformed(small: &SmallRun) -> Vec<Vec<u8>> {
    let sound = job(small);
    let text = sound.to_string();
    let with = |field: &str, value: Value| {
        let mut job = sound.clone();
        job[field] = value;
        job.to_string().into_bytes()
    };
    let without = |field: &str| {
        let mut job = sound.clone();
        job.as_object_mut().unwrap().remove(field);
        job.to_string().into_bytes()
    };
    let explain = |field: &str, value: Value| {
        let mut job = sound.clone();
        job["explain"][field] = value;
        job.to_string().into_bytes()
    };
    let mut kinds: Vec<Vec<u8>> = [
        &b""[..],
        b" ",
        b"null",
        b"true",
        b"1",
        b"\"job\"",
        b"[]",
        b"{}",
        b"{\"v\":1}",
        b"\xff\xfe\x00\x01",
        b"\xef\xbb\xbf{}",
        b"<job/>",
        b"\x00\x00\x00\x00",
        b"{\"v\":1e999}",
        b"{\"v\":-1}",
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    kinds.push(text.as_bytes()[..text.len() / 2].to_vec());
    kinds.push(format!("{text}{text}").into_bytes());
    kinds.push(text.replace(':', "=").into_bytes());
    kinds.push(vec![b'['; 60_000]);
    kinds.push(vec![b'x'; 1_000_000]);
    kinds.push(with("label", "y".repeat(100_000).into()));
    kinds.extend(["v", "run", "key", "source", "out", "model", "explain"].map(without));
    kinds.extend([json!(2), json!("1"), Value::Null, json!(1.5)].map(|v| with("v", v)));
    kinds.extend(
        ["", "/etc/passwd", "../x.jpg", "a/../../x.jpg", "a//b.jpg", "./a.jpg", "a\u{0}.jpg"]
            .map(|key| with("key", key.into())),
    );
    kinds.push(with("key", "k".repeat(50_000).into()));
    kinds.extend(
        ["", "http://169.254.169.254/latest", "s3://", "s3://key:secret@bucket/x", "ftp://x/y"]
            .map(|place| with("source", place.into())),
    );
    kinds.push(with("out", "memory:///x".into()));
    kinds.push(with("run", "no-uuid".into()));
    kinds.push(with("size", (-1).into()));
    kinds.push(explain("method", "guess".into()));
    kinds.push(explain("alpha", "much".into()));
    kinds
}

#[test]
fn malformed_messages_are_dead_lettered_with_reasons_and_cost_no_memory() {
    let small = SmallRun::new(20);
    let kinds = malformed(&small);
    assert_eq!(kinds.len(), KINDS);
    let broker = Broker::shared().url();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let queue = runtime
        .block_on(RabbitMqQueue::connect(broker.clone().into(), RabbitMqOptions::default()))
        .unwrap();
    let publish_rounds = |rounds: usize| {
        let bodies = kinds.iter().cycle().take(rounds * KINDS);
        let messages =
            bodies.map(|body| Message { body: body.clone().into(), trace: None }).collect();
        runtime.block_on(publish(&queue, messages)).unwrap();
    };
    let dead = |count: u64| {
        wait::until("they are dead", LIMIT, || {
            runtime.block_on(queue.depth()).unwrap().dead == count
        });
    };

    let running = Running::start(&mut worker(["--broker", &broker]));
    publish_rounds(6);
    dead(300);
    let before = running.resident_bytes();
    publish_rounds(14);
    dead(1000);
    let after = running.resident_bytes();
    assert!(after < before + 32_000_000, "{before} bytes became {after}");

    // The worker still works.
    small.enqueue(&broker, &[]);
    wait::until("the images", LIMIT, || small.predictions() == small.keys.len());
    running.signal("TERM");
    let _ended = running.end(Duration::from_secs(25)).expect(0);
    small.results().assert_exactly(&small.keys);

    let letters = runtime.block_on(queue.dead_letters()).unwrap();
    assert_eq!(letters.len(), 1000);
    for letter in &letters {
        let body = String::from_utf8_lossy(&letter.body[..letter.body.len().min(200)]);
        assert!(letter.reason.starts_with("message "), "{:?} of {body}", letter.reason);
        assert!(!letter.reason.contains("key:secret"), "{}", letter.reason);
    }
}
