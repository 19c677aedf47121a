//! Traces from the producer's message to the stored result, as a real collector receives them. A
//! missing collector does not disturb the work.

use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use camshaft_queue::{JobQueue, Outcome, RabbitMqOptions, RabbitMqQueue};
use camshaft_tests::broker::Broker;
use camshaft_tests::collector::{Collector, ReceivedSpan};
use camshaft_tests::programs::{Running, camshaft, run, worker};
use camshaft_tests::s3::free_port;
use camshaft_tests::small_run::SmallRun;
use camshaft_tests::wait;
use futures::StreamExt;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(120);
/// The time in which a program must end if the collector does not answer.
const END_LIMIT: Duration = Duration::from_secs(8);
/// The start of the exporter's thread name, which Linux cuts off at 15 characters.
const EXPORTER_THREAD: &str = "OpenTelemetry.T";
const STAGES: [&str; 6] = ["fetch", "decode", "model", "render", "store", "settle"];
/// An export interval longer than any test. Spans that arrive were sent when the program ended.
const ONLY_AT_THE_END: (&str, &str) = ("OTEL_BSP_SCHEDULE_DELAY", "3600000");

fn enqueue(small: &SmallRun, broker: &str) -> Command {
    let mut command = camshaft(["enqueue", "--broker", broker]);
    command.arg(&small.source).arg("--out").arg(&small.out).arg("--model").arg(&small.model);
    command
}

fn idle_worker(broker: &str) -> Command {
    worker(["--broker", broker, "--exit-when-idle", "1"])
}

/// The spans of the image's trace, in order of their start.
fn trace_of(spans: &[ReceivedSpan], key: &str) -> Vec<ReceivedSpan> {
    let sent = spans.iter().filter(|span| span.attribute("camshaft.key") == key);
    let sent: Vec<_> = sent.filter(|span| span.kind == "PRODUCER").collect();
    assert_eq!(sent.len(), 1, "{key} in {spans:#?}");
    let mut trace: Vec<_> =
        spans.iter().filter(|span| span.trace == sent[0].trace).cloned().collect();
    trace.sort_by_key(|span| span.times);
    trace
}

/// Removes the only span with this name from a trace.
fn take(trace: &mut Vec<ReceivedSpan>, name: &str) -> ReceivedSpan {
    let found = trace.iter().position(|span| span.name == name);
    let span = trace.remove(found.unwrap_or_else(|| panic!("no {name} in {trace:#?}")));
    assert!(trace.iter().all(|span| span.name != name), "a second {name} in {trace:#?}");
    span
}

/// Asserts that an image's trace goes from its message to its result. Returns the trace's id.
fn assert_whole(spans: &[ReceivedSpan], key: &str, services: [&str; 2], system: &str) -> String {
    let mut trace = trace_of(spans, key);
    let enqueued = spans.iter().find(|span| span.name == "enqueue").unwrap();
    let send = take(&mut trace, "send camshaft.jobs");
    assert_eq!((&*send.parent, &*send.service), ("", services[0]), "{send:#?}");
    assert_eq!(send.links, std::slice::from_ref(&enqueued.trace), "{send:#?}");
    assert_ne!(send.trace, enqueued.trace);

    let process = take(&mut trace, "process camshaft.jobs");
    assert_eq!((&process.parent, &*process.kind), (&send.id, "CONSUMER"), "{process:#?}");
    for (name, value) in [
        ("messaging.system", system),
        ("messaging.destination.name", "camshaft.jobs"),
        ("messaging.operation.type", "process"),
        ("camshaft.key", key),
        ("camshaft.attempt", "1"),
        ("camshaft.outcome", "predicted"),
    ] {
        assert_eq!(process.attribute(name), value, "{name} of {process:#?}");
    }
    assert_eq!(process.attribute("camshaft.run"), send.attribute("camshaft.run"));

    // The other spans are the stages, in order.
    let names: Vec<_> = trace.iter().map(|span| &*span.name).collect();
    assert_eq!(names, STAGES, "{trace:#?}");
    for (stage, next) in trace.iter().zip(trace.iter().skip(1)) {
        assert!(stage.times.1 <= next.times.0, "{stage:#?} overlaps {next:#?}");
    }
    for stage in trace.iter().chain([&process]) {
        assert_eq!((&*stage.service, &stage.error), (services[1], &None), "{stage:#?}");
        let within = process.times.0 <= stage.times.0 && stage.times.1 <= process.times.1;
        assert!(within, "{stage:#?} is not within {process:#?}");
    }
    assert!(trace.iter().all(|stage| stage.parent == process.id), "{trace:#?}");
    let number =
        |index: usize, name: &str| -> u64 { trace[index].attribute(name).parse().unwrap() };
    for stage in [0, 1, 3, 4] {
        assert!(number(stage, "camshaft.bytes") > 0, "{:#?}", trace[stage]);
    }
    assert!(number(2, "camshaft.batch") > 0, "{:#?}", trace[2]);
    send.trace
}

#[test]
fn the_trace_of_an_image_goes_from_the_producer_to_the_store() {
    let small = SmallRun::new(3);
    fs::write(small.source.join("bad.jpg"), "no image").unwrap();
    let (collector, broker) = (Collector::start(), Broker::shared().url());
    let mut enqueue = enqueue(&small, &broker);
    let _ended = run(enqueue.envs(collector.variables()).envs([ONLY_AT_THE_END])).expect(0);

    // SIGTERM stops the worker, as in a cluster, before its first export is due.
    let mut worker =
        worker(["--broker", &broker, "--log-format", "json", "--log", "debug,lapin=off"]);
    let running = Running::start(worker.envs(collector.variables()).envs([ONLY_AT_THE_END]));
    let failures = small.out.join("failures/bad.jpg.json");
    wait::until("its results", LIMIT, || small.predictions() == 3 && failures.exists());
    assert!(running.threads().iter().any(|name| name.starts_with(EXPORTER_THREAD)));
    running.signal("TERM");
    let ended = running.end(LIMIT).expect(0);

    let spans = collector.spans();
    let lines: Vec<Value> =
        ended.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for key in &small.keys {
        let id = assert_whole(&spans, key, ["camshaft", "camshaft-worker"], "rabbitmq");
        // Log lines name their image and their trace.
        let of_image = |line: &&Value| line["span"]["key"] == **key;
        let of_image: Vec<_> = lines.iter().filter(of_image).collect();
        assert!(of_image.iter().any(|line| line["message"] == "prediction stored"), "{lines:#?}");
        for line in of_image {
            assert_eq!(line["span"]["trace"], *id, "{line}");
            assert_eq!(line["span"]["name"], "image", "{line}");
            assert_eq!(line["span"].as_object().unwrap().len(), 5, "{line}");
        }
    }

    let mut bad = trace_of(&spans, "bad.jpg");
    let process = take(&mut bad, "process camshaft.jobs");
    assert_eq!(process.attribute("camshaft.outcome"), "failed");
    assert_eq!(process.attribute("error.type"), "unsupported");
    let decode = take(&mut bad, "decode");
    assert!(decode.error.is_some() && decode.error == process.error, "{decode:#?} {process:#?}");
    let names: Vec<_> = bad.iter().map(|span| &*span.name).collect();
    assert_eq!(names, ["send camshaft.jobs", "fetch", "settle"]);
    // There are no other traces: four images, and the enqueue itself.
    let traces: std::collections::BTreeSet<_> = spans.iter().map(|span| &span.trace).collect();
    assert_eq!(traces.len(), 5, "{spans:#?}");
}

#[test]
fn an_audit_sends_the_same_spans() {
    let (small, collector) = (SmallRun::new(2), Collector::start());
    let mut audit = camshaft(["audit"]);
    audit.arg(&small.source).arg("--out").arg(&small.out).arg("--model").arg(&small.model);
    audit.envs(collector.variables()).env("OTEL_SERVICE_NAME", "nightly");
    let ended = run(&mut audit).expect(0);
    assert_eq!(ended.stderr, "");
    for key in &small.keys {
        assert_whole(&collector.spans(), key, ["nightly"; 2], "in_process");
    }
}

#[test]
fn each_retry_is_a_span_of_the_same_trace() {
    let (small, collector, broker) = (SmallRun::new(1), Collector::start(), Broker::shared().url());
    let _ended = run(enqueue(&small, &broker).envs(collector.variables())).expect(0);
    // A file in the folder's place, so that the prediction can't be written.
    fs::write(small.out.join("predictions"), "in the way").unwrap();
    let mut worker = idle_worker(&broker);
    worker.args(["--retry-delays", "1"]);
    let _ended = run(worker.envs(collector.variables())).expect(0);

    let trace = trace_of(&collector.spans(), &small.keys[0]);
    let send = trace.iter().find(|span| span.kind == "PRODUCER").unwrap();
    let tries: Vec<_> = trace.iter().filter(|span| span.kind == "CONSUMER").collect();
    let told: Vec<_> = tries
        .iter()
        .map(|span| (span.attribute("camshaft.attempt"), span.attribute("camshaft.outcome")))
        .collect();
    assert_eq!(told, [("1", "retried"), ("2", "dead_lettered")], "{trace:#?}");
    assert!(tries.iter().all(|span| span.parent == send.id && span.error.is_some()), "{trace:#?}");
}

#[test]
fn a_refused_job_shows_its_attempt_unspent() {
    let (small, collector, broker) = (SmallRun::new(1), Collector::start(), Broker::shared().url());
    let _ended = run(enqueue(&small, &broker).envs(collector.variables())).expect(0);
    // The worker has another model than the job names. The tenth refusal is the last.
    let mut worker = idle_worker(&broker);
    worker.args(["--retry-delays", "1", "--refusal-limit", "1", "--model", "cats-vs-dogs"]);
    let _ended = run(worker.envs(collector.variables())).expect(0);

    let trace = trace_of(&collector.spans(), &small.keys[0]);
    let mut outcomes = Vec::new();
    for span in trace.iter().filter(|span| span.kind == "CONSUMER") {
        assert_eq!(span.attribute("camshaft.attempt"), "1", "{trace:#?}");
        outcomes.push(span.attribute("camshaft.outcome"));
    }
    let (last, refused) = outcomes.split_last().unwrap();
    assert_eq!((*last, refused.len()), ("dead_lettered", 9), "{trace:#?}");
    assert!(refused.iter().all(|outcome| *outcome == "refused"), "{trace:#?}");
}

#[test]
fn a_trace_that_the_producer_does_not_sample_is_recorded_by_no_program() {
    let (small, collector, broker) = (SmallRun::new(3), Collector::start(), Broker::shared().url());
    let never =
        [("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0")];
    let mut enqueue = enqueue(&small, &broker);
    let _ended = run(enqueue.envs(collector.variables()).envs(never)).expect(0);
    // The worker follows the sampling decision in the message.
    let _ended = run(idle_worker(&broker).envs(collector.variables())).expect(0);
    small.results().assert_exactly(&small.keys);
    assert_eq!(collector.spans().len(), 0, "{:#?}", collector.spans());
}

#[test]
fn without_variables_there_are_no_traces() {
    let (small, broker) = (SmallRun::new(1), Broker::shared().url());
    let _ended = run(&mut enqueue(&small, &broker)).expect(0);
    let traceparent = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let options = RabbitMqOptions::default();
        let queue = RabbitMqQueue::connect(broker.clone().into(), options).await.unwrap();
        let mut deliveries = queue.consume(1, CancellationToken::new()).await.unwrap();
        let delivery = deliveries.next().await.unwrap();
        delivery.receipt.settle(Outcome::Ack).await.unwrap();
        delivery.trace.unwrap().traceparent().to_owned()
    });
    // The message has a trace id for log lines, but its flag says "not sampled".
    assert_eq!((traceparent.len(), &traceparent[53..]), (55, "00"), "{traceparent}");

    let running = Running::start(&mut worker(["--broker", &broker]));
    wait::until("it is ready", LIMIT, || running.output()[1].contains("ready"));
    let threads = running.threads();
    assert!(!threads.iter().any(|name| name.starts_with(EXPORTER_THREAD)), "{threads:?}");
}

#[test]
fn traces_can_be_turned_off_though_a_collector_is_named() {
    let collector = Collector::start();
    for (name, value) in [
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_TRACES_EXPORTER", "none"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
    ] {
        let small = SmallRun::new(1);
        let mut audit = camshaft(["audit"]);
        audit.arg(&small.source).arg("--out").arg(&small.out).arg("--model").arg(&small.model);
        let ended = run(audit.envs(collector.variables()).env(name, value)).expect(0);
        let told = ended.stderr.contains(
            "traces are off: OTEL_EXPORTER_OTLP_PROTOCOL=grpc is not supported; use http/protobuf",
        );
        assert_eq!(
            (ended.stderr.lines().count(), told),
            if value == "grpc" { (1, true) } else { (0, false) }
        );
    }
    assert_eq!(collector.spans().len(), 0, "{:#?}", collector.spans());
}

/// Asserts that a run is complete and ends in time though there is no collector at `port`. Each
/// program reports it once.
fn assert_undisturbed(port: u16) {
    const SECRET: &str = "h3ader-s3cret";
    let (small, broker) = (SmallRun::new(30), Broker::shared().url());
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://user:{SECRET}@127.0.0.1:{port}")),
        ("OTEL_EXPORTER_OTLP_HEADERS", format!("authorization={SECRET}")),
        // Short, so that several batches fail.
        ("OTEL_BSP_SCHEDULE_DELAY", "20".to_owned()),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "200".to_owned()),
    ];
    let started = Instant::now();
    let enqueued = run(enqueue(&small, &broker).envs(variables.clone())).expect(0);
    assert!(started.elapsed() < END_LIMIT, "{:?}", started.elapsed());
    let mut command = worker(["--broker", &broker, "--log", "trace"]);
    let running = Running::start(command.envs(variables));
    wait::until("its results", LIMIT, || small.predictions() == 30);
    running.signal("TERM");
    let asked = Instant::now();
    let worked = running.end(LIMIT).expect(0);
    assert!(asked.elapsed() < END_LIMIT, "{:?}", asked.elapsed());

    small.results().assert_exactly(&small.keys);
    for log in [&enqueued.stderr, &worked.stderr] {
        assert_eq!(log.matches("spans don't get through").count(), 1, "{log}");
        assert!(!log.contains(SECRET), "{log}");
    }
    assert_eq!(enqueued.stderr.lines().count(), 2, "{}", enqueued.stderr);
}

#[test]
fn a_collector_that_is_gone_disturbs_no_run() {
    assert_undisturbed(free_port());
}

#[test]
fn a_collector_that_does_not_answer_disturbs_no_run() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    assert_undisturbed(silent.local_addr().unwrap().port());
}
