//! Images that are lost because somebody emptied a queue or deleted results.

use std::fs;
use std::time::Duration;

use camshaft_tests::broker::Broker;
use camshaft_tests::jobs::Jobs;
use camshaft_tests::programs::{Running, camshaft, run, worker};
use camshaft_tests::small_run::SmallRun;
use camshaft_tests::wait;

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn status_names_lost_images_and_enqueue_repairs_them() {
    let small = SmallRun::new(60);
    let broker = Broker::shared().url();
    small.enqueue(&broker, &[]);
    // Seven jobs disappear, as after a purge by mistake.
    let mut lost = Jobs::at(&broker).take_first(7);
    lost.sort();

    // While the queue is not empty, the status has the number of lost images but not their names:
    // to list them would disturb the workers.
    let status = small.status(&broker);
    assert_eq!((&status["queued"], &status["unaccounted"]), (&53.into(), &7.into()), "{status}");
    let mut early = camshaft(["enqueue", "--broker", &broker, "--only", "missing"]);
    early.arg(&small.source).arg("--out").arg(&small.out).arg("--model").arg(&small.model);
    run(&mut early).expect_one_line(&["53 messages wait in the queue", "--only missing"]);

    let work = || {
        let _ended = run(&mut worker(["--broker", &broker, "--exit-when-idle", "1"])).expect(0);
    };
    work();
    // One more image loses its result.
    let other = small.keys.iter().find(|key| !lost.contains(key)).unwrap();
    fs::remove_file(small.out.join(format!("predictions/{other}.json"))).unwrap();
    lost.push(other.clone());
    lost.sort();

    let status = small.status(&broker);
    let mut named: Vec<String> =
        serde_json::from_value(status["unaccounted_keys"].clone()).unwrap();
    named.sort();
    assert_eq!(named, lost);
    let text = run(camshaft(["status", "--broker", &broker]).arg(&small.out)).expect(0).stdout;
    assert!(text.contains("lost     8") && text.contains(&lost[0]), "{text}");

    let said = small.enqueue(&broker, &["--only", "missing"]);
    assert!(said.starts_with("Enqueued 8 of 60 images"), "{said}");
    work();
    small.results().assert_exactly(&small.keys);
    small.assert_adds_up(&broker);
    assert!(small.enqueue(&broker, &["--only", "missing"]).starts_with("Enqueued 0 of 60"));
}

#[test]
fn an_image_with_two_results_is_named() {
    let small = SmallRun::new(3);
    let broker = Broker::shared().url();
    let _ended = small.audit(&[]).expect(0);
    let key = &small.keys[1];
    let failure = small.out.join(format!("failures/{key}.json"));
    fs::create_dir_all(failure.parent().unwrap()).unwrap();
    fs::write(failure, "{}").unwrap();
    let status = small.status(&broker);
    assert_eq!(status["doubled_keys"], serde_json::json!([key]), "{status}");
    assert_eq!(status["remaining"], 0, "{status}");
    // The status advises this command.
    let said = small.enqueue(&broker, &["--only", "failed"]);
    assert!(said.starts_with("Enqueued 1 of 3 images"), "{said}");
    let _ended = run(&mut worker(["--broker", &broker, "--exit-when-idle", "1"])).expect(0);
    small.results().assert_exactly(&small.keys);
}

#[test]
fn watching_until_idle_ends_though_an_image_is_lost() {
    let small = SmallRun::new(30);
    let broker = Broker::shared().url();
    small.enqueue(&broker, &[]);
    let lost = Jobs::at(&broker).take_first(1);
    let watch = |more: &[&str]| {
        let mut watch = camshaft(["status", "--watch", "--exit-when-idle", "3"]);
        Running::start(watch.arg("--broker").arg(&broker).arg(&small.out).args(more))
    };
    let (watching, looking) = (watch(&[]), watch(&["--json"]));
    // Four looks are two seconds apart: longer than `--exit-when-idle` waits at an empty queue.
    wait::until("it looked four times", LIMIT, || looking.output()[0].lines().count() >= 4);
    assert_eq!(small.status(&broker)["queued"], 29, "nobody works yet");
    let _ended = run(&mut worker(["--broker", &broker, "--exit-when-idle", "1"])).expect(0);
    let looks = looking.end(LIMIT).expect(0).stdout;
    let last = looks.lines().last().unwrap_or_default();
    assert!(last.contains("\"unaccounted\":1"), "{looks}");
    let ended = watching.end(LIMIT).expect(0);
    assert!(ended.stdout.contains("lost     1") && ended.stdout.contains(&lost[0]), "{ended:?}");

    let mut alone = camshaft(["status", "--exit-when-idle", "3"]);
    let ended = run(alone.arg(&small.out)).expect(2);
    assert!(ended.stderr.contains("--watch") && ended.stderr.contains("--broker"), "{ended:?}");
}
