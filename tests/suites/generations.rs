//! What counts as done when a run is enqueued more than once, or its images change.

use camshaft_tests::broker::Broker;
use camshaft_tests::programs::{camshaft, run};
use camshaft_tests::small_run::SmallRun;
use serde_json::Value;

/// What `camshaft status --json` tells with more arguments.
fn status(small: &SmallRun, more: &[&str]) -> Value {
    let ended = run(camshaft(["status", "--json"]).arg(&small.out).args(more)).expect(0);
    serde_json::from_str(&ended.stdout).unwrap()
}

#[test]
fn status_looks_into_the_queues_that_the_run_was_enqueued_to() {
    let small = SmallRun::new(5);
    let broker = Broker::shared().url();
    // The usual queues are there, too, and empty.
    let other = SmallRun::new(1);
    other.enqueue(&broker, &[]);
    small.enqueue(&broker, &["--queue", "team-a"]);
    let told = status(&small, &["--broker", &broker]);
    let numbers = ["remaining", "queued", "unaccounted"].map(|name| told[name].clone());
    assert_eq!(numbers, [5, 5, 0].map(Value::from), "{told}");
    // A queue that is named counts, also by the variable.
    let told = status(&small, &["--broker", &broker, "--queue", "camshaft"]);
    assert_eq!(told["queued"], 1, "{told}");
    let mut by_variable = camshaft(["status", "--json", "--broker", &broker]);
    let ended = run(by_variable.arg(&small.out).env("CAMSHAFT_QUEUE", "camshaft")).expect(0);
    assert!(ended.stdout.contains("\"queued\":1"), "{}", ended.stdout);
    // Another enqueue changes where the run's jobs wait.
    small.enqueue(&broker, &[]);
    assert_ne!(status(&small, &["--broker", &broker])["queued"], 5);
}
