//! Brokers that stop, fall silent, run low on memory or close connections.

use std::fs::OpenOptions;
use std::io::Write;

use camshaft_tests::broker::Broker;
use camshaft_tests::health::Health;
use camshaft_tests::programs::{Running, camshaft, worker};
use camshaft_tests::relay::{Network, Relay};
use camshaft_tests::small_run::SmallRun;
use camshaft_tests::wait;

use super::LIMIT;

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
fn restarting_the_broker_five_times_loses_and_doubles_nothing() {
    const RESTARTS: usize = 5;
    let small = SmallRun::new(6000);
    let mut broker = Broker::start();
    let url = broker.url();
    // Enqueue gets its list bit by bit, so that it is still running at every restart.
    let (mut enqueue, list) = small.enqueue_from_pipe(&url);
    let mut enqueue = Running::start(&mut enqueue);
    let mut feed = OpenOptions::new().write(true).open(&list).unwrap();
    let mut chunks = small.keys.chunks(small.keys.len() / (RESTARTS + 1));
    let mut write_next = || {
        let lines: String = chunks.next().unwrap().iter().map(|key| format!("{key}\n")).collect();
        feed.write_all(lines.as_bytes()).unwrap();
    };
    let workers = [(); 2].map(|()| Running::start(&mut worker(["--broker", &url])));
    write_next();
    for restart in 0..RESTARTS {
        let mark = restart * 900 + 100;
        wait::until("the workers come as far as that", LIMIT, || small.predictions() >= mark);
        broker.stop();
        write_next();
        broker.start_again();
        assert!(enqueue.ended().is_none(), "it was not under way: {:?}", enqueue.output());
    }
    drop(feed);
    let _ended = enqueue.end(LIMIT).expect(0);
    wait::until("every image", LIMIT, || small.predictions() >= small.keys.len());
    wait::until("the queue is empty", LIMIT, || small.status(&url)["queued"] == 0);
    for running in workers {
        running.signal("TERM");
        let ended = running.end(LIMIT).expect(0);
        assert!(!ended.stderr.contains(broker.password()), "{}", ended.stderr);
    }
    small.results().assert_exactly(&small.keys);
    small.assert_adds_up(&url);
}

#[test]
fn a_silent_connection_is_noticed_and_replaced() {
    let small = SmallRun::new(400);
    let broker = Broker::shared();
    let relay = Relay::to(broker.port());
    let url = broker.url_by(relay.port(), 2);
    small.enqueue(&url, &[]);
    let health = Health::at_free_port();
    let mut command = worker(["--broker", &url, "--exit-when-idle", "2"]);
    let running = Running::start(command.args(health.arguments()));
    wait::until("the first predictions", LIMIT, || small.predictions() > 0);
    relay.set(Network::Silent);
    wait::until("its health says so", LIMIT, || health.problems().contains("broker"));
    assert_eq!(health.status(), 503);
    // Silent connections stay silent; the relay carries new ones.
    relay.set(Network::Up);
    let _ended = running.end(LIMIT).expect(0);
    small.results().assert_exactly(&small.keys);
}

#[test]
fn a_worker_stopped_past_its_heartbeat_goes_on() {
    // On a busy machine a worker may do hundreds before it is stopped.
    let small = SmallRun::new(1000);
    let broker = Broker::shared();
    let url = broker.url_by(broker.port(), 1);
    small.enqueue(&url, &[]);
    let running = Running::start(&mut worker(["--broker", &url, "--exit-when-idle", "2"]));
    wait::until("the first predictions", LIMIT, || small.predictions() > 0);
    running.signal("STOP");
    assert!(small.predictions() < small.keys.len(), "it was not stopped in its work");
    // The broker takes back the worker's deliveries, so that another worker could get them.
    wait::until("the broker gives it up", LIMIT, || small.status(&url)["workers"] == 0);
    running.signal("CONT");
    let ended = running.end(LIMIT).expect(0);
    assert!(ended.stderr.contains("connection lost"), "{}", ended.stderr);
    small.results().assert_exactly(&small.keys);
    small.assert_adds_up(&url);
}

#[test]
fn enqueue_waits_for_a_broker_low_on_memory_and_loses_nothing() {
    let small = SmallRun::new(500);
    let broker = Broker::start();
    let url = broker.url();
    // Low on memory, the broker blocks connections that publish.
    broker.control(&["set_vm_memory_high_watermark", "0.000001"]);
    let mut enqueue = camshaft(["enqueue", "--broker", &url]);
    enqueue.arg(&small.source).arg("--out").arg(&small.out).arg("--model").arg(&small.model);
    let mut enqueue = Running::start(&mut enqueue);
    wait::until("it says what it waits for", LIMIT, || {
        enqueue.output()[1].contains("low on memory or disk")
    });
    assert!(enqueue.ended().is_none(), "it gave up");
    broker.control(&["set_vm_memory_high_watermark", "0.4"]);
    let _ended = enqueue.end(LIMIT).expect(0);
    let running = Running::start(&mut worker(["--broker", &url, "--exit-when-idle", "1"]));
    let _ended = running.end(LIMIT).expect(0);
    small.results().assert_exactly(&small.keys);
}

#[test]
fn a_worker_that_loses_its_access_ends_with_one_clear_line() {
    let small = SmallRun::new(50);
    let broker = Broker::start();
    let url = broker.url();
    small.enqueue(&url, &[]);
    let running = Running::start(&mut worker(["--broker", &url]));
    wait::until("every prediction", LIMIT, || small.predictions() == small.keys.len());
    broker.control(&["change_password", broker.user(), "another"]);
    broker.control(&["close_all_connections", "--global", "for a test"]);
    let ended = running.end(LIMIT).expect(1);
    let last = ended.stderr.lines().last().unwrap_or_default();
    assert!(last.contains("refused access") && last.contains("password"), "{last}");
    assert!(!ended.stderr.contains(broker.password()), "{}", ended.stderr);
}

#[test]
fn a_network_that_comes_and_goes_loses_nothing() {
    let small = SmallRun::new(800);
    let broker = Broker::shared();
    let url = broker.url();
    small.enqueue(&url, &[]);
    let relay = Relay::to(broker.port());
    let by_relay = broker.through(&url, relay.port());
    let running = Running::start(&mut worker(["--broker", &by_relay]));
    let said = |text: &str| running.output()[1].matches(text).count();
    wait::until("the first predictions", LIMIT, || small.predictions() > 0);
    for cut in 1..=5 {
        relay.set(Network::Cut);
        wait::until("it noticed", LIMIT, || said("connection lost") >= cut);
        relay.set(Network::Up);
        wait::until("it is back", LIMIT, || said("consuming again") >= cut);
        // Before the next cut, the messages of this one are done: those that five cuts in a row take
        // away would be given up.
        let enough = small.keys.len().min(small.predictions() + 50);
        wait::until("it goes on", LIMIT, || small.predictions() >= enough);
    }
    // Jobs whose results were stored but not acknowledged come again, and need no work.
    wait::until("every image", LIMIT, || small.predictions() == small.keys.len());
    wait::until("the queue is empty", LIMIT, || small.status(&url)["queued"] == 0);
    running.signal("TERM");
    let _ended = running.end(LIMIT).expect(0);
    small.results().assert_exactly(&small.keys);
    small.assert_adds_up(&url);
}
