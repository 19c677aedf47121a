//! How a worker ends after a signal.

use std::time::{Duration, Instant};

use camshaft_tests::broker::Broker;
use camshaft_tests::programs::{Running, run, worker};
use camshaft_tests::relay::{Network, Relay};
use camshaft_tests::small_run::SmallRun;
use camshaft_tests::wait;

use super::LIMIT;

#[test]
fn sigterm_finishes_images_in_work_and_hands_back_the_rest() {
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
fn a_second_signal_hands_back_all_images_at_once() {
    let small = SmallRun::new(300);
    let broker = Broker::shared().url();
    small.enqueue(&broker, &[]);
    // The worker cannot finish its images: it has no connection to the broker.
    let relay = Relay::to(Broker::shared().port());
    let by_relay = Broker::shared().through(&broker, relay.port());
    let running = Running::start(&mut worker(["--broker", &by_relay]));
    wait::until("the first predictions", LIMIT, || small.predictions() > 0);
    relay.set(Network::Silent);
    running.signal("TERM");
    wait::until("it heard", LIMIT, || running.output()[1].contains("stopping"));
    running.signal("TERM");
    let asked = Instant::now();
    let _ended = running.end(LIMIT).expect(0);
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());

    relay.set(Network::Cut);
    let _ended = run(&mut worker(["--broker", &broker, "--exit-when-idle", "1"])).expect(0);
    small.results().assert_exactly(&small.keys);
}

#[test]
fn sigterm_ends_a_worker_that_has_not_reached_its_broker() {
    let relay = Relay::to(Broker::shared().port());
    relay.set(Network::Silent);
    let url = Broker::shared().url_by(relay.port(), 10);
    let running = Running::start(&mut worker(["--broker", &url]));
    wait::until("it tries", LIMIT, || running.output()[1].contains("not reachable"));
    running.signal("TERM");
    let asked = Instant::now();
    let _ended = running.end(LIMIT).expect(0);
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
}
