//! Images that take long, beside a broker that lets nobody hold a message for long, and workers
//! that are stopped before such an image is done.

use std::time::Duration;

use camshaft_common::prediction::FailureClass;
use camshaft_tests::broker::Broker;
use camshaft_tests::health::Health;
use camshaft_tests::jobs::Jobs;
use camshaft_tests::programs::{Running, worker};
use camshaft_tests::small_run::SmallRun;
use camshaft_tests::wait;

use super::LIMIT;

/// A pass of the network for each of 64 channels: some tenths of a second on two cores.
const SLOW: [&str; 4] = ["--method", "score-cam", "--layer", "layer1.0.conv1"];
/// Four times as many.
const VERY_SLOW: [&str; 4] = ["--method", "score-cam", "--layer", "layer1"];
/// Thirty times as many again.
const SLOWEST: [&str; 4] =
    ["--method", "score-cam", "--layer", "layer4.0,layer4.1,layer4.2,layer3.0,layer3.1"];
/// The worker logs this when an image has been through the network.
const EXPLAINED: &str = "explained";

/// How long the model takes for an image on this machine.
fn time_per_image(options: &[&str]) -> Duration {
    let small = SmallRun::new(2);
    let _ended = small.audit(options).expect(0);
    let times = small.results().predictions.into_values().map(|record| record.timings_ms.model);
    Duration::from_secs_f64(times.fold(0.0, f64::max) / 1000.0)
}

fn start(broker: &str, more: &[&str]) -> Running {
    let mut command = worker(["--broker", broker, "--log", "info,camshaft_worker=debug"]);
    Running::start(command.args(more))
}

/// Asserts that no message counts as one that loses its workers.
fn assert_none_suspect(jobs: &Jobs) {
    for queue in ["camshaft.suspects", "camshaft.dead"] {
        assert_eq!(jobs.count(queue), Some(0), "in {queue}");
    }
}

#[test]
fn slow_images_are_done_once_though_the_broker_takes_back_what_is_held_for_long() {
    let time = time_per_image(&SLOW);
    // Whole seconds, as the option takes them. Other tests may slow this one down.
    let timeout = Duration::from_secs((12.0 * time.as_secs_f64()).ceil().max(6.0) as u64);
    let images = (2.5 * timeout.as_secs_f64() / time.as_secs_f64()).ceil() as usize;
    let broker = Broker::start();
    broker.set_consumer_timeout(timeout);
    let url = broker.url();
    let small = SmallRun::new(images);
    small.enqueue(&url, &SLOW);

    let health = Health::at_free_port();
    let seconds = timeout.as_secs().to_string();
    let [flag, address] = health.arguments();
    let options = ["--consumer-timeout", &seconds, "--exit-when-idle", "1", &flag, &address];
    let running = start(&url, &options);
    // It begins with one, and then holds as many as it does in half of the time.
    let mut most = 0.0_f64;
    wait::until("half of the images", LIMIT, || {
        if let Some(scrape) = health.scrape().filter(|scrape| scrape.has("camshaft_prefetch")) {
            most = most.max(scrape.value("camshaft_prefetch"));
            let in_flight = scrape.value("camshaft_images_in_flight");
            // One counts until its acknowledgement is sent, and another may come before.
            assert!(in_flight <= most + 2.0, "{in_flight} are held, the prefetch is {most}");
        }
        small.predictions() > images / 2
    });
    let ended = running.end(LIMIT).expect(0);
    assert_eq!(ended.stderr.matches(EXPLAINED).count(), images, "{}", ended.stderr);
    assert!(!ended.stderr.contains("connection lost"), "{}", ended.stderr);
    let results = small.results();
    results.assert_exactly(&small.keys);
    assert!(results.failures.is_empty(), "{:?}", results.failures);
    // The time of the fastest image: the worker holds most while the machine is least busy, and it
    // may be less busy than it was when `time` was taken.
    let times = results.predictions.values().map(|record| record.timings_ms.model);
    let held = most * times.fold(f64::INFINITY, f64::min) / 1000.0;
    assert!(most > 1.0 && held < timeout.as_secs_f64(), "up to {most} were held, for {held} s");
    small.assert_adds_up(&url);
    assert_none_suspect(&Jobs::at(&url));
}

#[test]
fn an_image_that_is_slower_than_the_broker_allows_fails_and_says_so() {
    let broker = Broker::shared().url();
    let small = SmallRun::new(3);
    small.enqueue(&broker, &SLOWEST);
    let ended = start(&broker, &["--consumer-timeout", "1", "--exit-when-idle", "1"]);
    let ended = ended.end(LIMIT).expect(0);
    assert!(!ended.stderr.contains("connection lost"), "{}", ended.stderr);
    let results = small.results();
    results.assert_exactly(&small.keys);
    assert_eq!(results.failures.len(), small.keys.len());
    for (key, failure) in results.failures {
        assert_eq!(failure.error.class, FailureClass::ExplainFailed, "{key}");
        let message = &failure.error.message;
        for part in ["longer than 0.5 s", "--consumer-timeout", "--method"] {
            assert!(message.contains(part), "{message}");
        }
        assert_eq!(failure.attempts, 1, "{key}");
    }
    small.assert_adds_up(&broker);
    assert_none_suspect(&Jobs::at(&broker));
}

/// The worker believes that the broker has its default of 30 minutes.
#[test]
fn a_worker_that_held_an_image_for_too_long_says_what_the_broker_did() {
    let broker = Broker::start();
    broker.set_consumer_timeout(Duration::from_secs(1));
    let url = broker.url();
    let small = SmallRun::new(3);
    small.enqueue(&url, &SLOWEST);
    let running = start(&url, &[]);
    let text = "took back what this worker held: a message was not settled within its \
                consumer_timeout of 1 s";
    wait::until("it says why", LIMIT, || running.output()[1].contains(text));
    wait::until("it goes on", LIMIT, || running.output()[1].contains("consuming again"));
    let [_, log] = running.output();
    assert!(!log.contains("delete"), "{log}");
}

/// An autoscaler that counts waiting images only ends a worker while it holds all of them, and
/// starts another one when they are back. Here the workers get no time to finish an image.
#[test]
fn workers_stopped_again_and_again_while_images_are_slow_lose_none() {
    const IMAGES: usize = 8;
    let broker = Broker::shared().url();
    let small = SmallRun::new(IMAGES);
    small.enqueue(&broker, &VERY_SLOW);
    let jobs = Jobs::at(&broker);
    // Before RabbitMQ 4.3, a message on its way to a consumer that is cancelled counts one loss. Two of
    // them make a suspect, which is done alone and is not lost.
    let waiting =
        || jobs.count("camshaft.jobs").unwrap() + jobs.count("camshaft.suspects").unwrap();
    let stop = |running: Running| {
        running.signal("TERM");
        let ended = running.end(LIMIT).expect(0);
        assert!(ended.stderr.contains("stopping"), "{}", ended.stderr);
        // All that have no result are in the queue again. So may be some that have one, if the
        // worker had no time to say so.
        let done = small.predictions();
        wait::until("the jobs are back", LIMIT, || waiting() >= IMAGES - done);
        assert_eq!(jobs.count("camshaft.dead"), Some(0), "none is given up");
    };
    let start = || start(&broker, &["--drain-timeout", "0"]);

    // Stopped before the first result. With what a message may lose, all would be dead by then.
    for _ in 0..6 {
        let running = start();
        wait::until("it has begun", LIMIT, || waiting() < IMAGES);
        stop(running);
    }
    // Stopped while they hold all that are left.
    for _ in 0..4 {
        let before = small.predictions();
        if before + 2 > IMAGES {
            break;
        }
        let running = start();
        wait::until("one more", LIMIT, || small.predictions() > before);
        wait::until("it holds all others", LIMIT, || waiting() == 0);
        stop(running);
    }
    let _ended = start_to_finish(&broker).end(LIMIT).expect(0);
    let results = small.results();
    results.assert_exactly(&small.keys);
    assert!(results.failures.is_empty(), "{:?}", results.failures);
    small.assert_adds_up(&broker);
    assert_none_suspect(&jobs);
}

fn start_to_finish(broker: &str) -> Running {
    start(broker, &["--exit-when-idle", "1"])
}

/// Another worker gets at once what a worker that stops can't do in the time that it has left.
#[test]
fn a_worker_that_stops_keeps_only_what_it_can_finish() {
    const IMAGES: usize = 10;
    let time = time_per_image(&VERY_SLOW);
    let broker = Broker::shared().url();
    let small = SmallRun::new(IMAGES);
    small.enqueue(&broker, &VERY_SLOW);
    let jobs = Jobs::at(&broker);
    // Time for two images and a half, if nothing else slows the machine down.
    let drain = (2.5 * time.as_secs_f64()).ceil().max(1.0) as u64;
    let running = start(&broker, &["--drain-timeout", &drain.to_string()]);
    wait::until("the first result", LIMIT, || small.predictions() > 0);
    wait::until("it holds all others", LIMIT, || jobs.count("camshaft.jobs") == Some(0));
    running.signal("TERM");
    wait::until("others may have the rest", LIMIT, || jobs.count("camshaft.jobs").unwrap() >= 2);
    assert!(!running.output()[1].contains("drain timeout"), "{}", running.output()[1]);
    let _ended = running.end(LIMIT).expect(0);
    let _ended = start_to_finish(&broker).end(LIMIT).expect(0);
    let results = small.results();
    results.assert_exactly(&small.keys);
    assert!(results.failures.is_empty(), "{:?}", results.failures);
    small.assert_adds_up(&broker);
    assert_none_suspect(&jobs);
}
