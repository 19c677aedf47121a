//! Images that were lost all the same, by whoever emptied a queue or deleted results.

use std::fs;

use camshaft_tests::broker::Broker;
use camshaft_tests::programs::{camshaft, run, worker};
use camshaft_tests::small_run::SmallRun;
use lapin::options::{BasicAckOptions, BasicGetOptions};
use lapin::{Connection, ConnectionProperties};

/// Takes so many jobs out of the queue, as a mistaken purge does.
fn steal(broker: &str, count: usize) -> Vec<String> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let properties = ConnectionProperties::default();
        let connection = Connection::connect(broker, properties).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let mut keys = Vec::new();
        while keys.len() < count {
            let options = BasicGetOptions::default();
            let got = channel.basic_get("camshaft.jobs".into(), options).await.unwrap().unwrap();
            let job: serde_json::Value = serde_json::from_slice(&got.delivery.data).unwrap();
            keys.push(job["key"].as_str().unwrap().to_owned());
            got.delivery.acker.ack(BasicAckOptions::default()).await.unwrap();
        }
        connection.close(200, "done".into()).await.unwrap();
        keys.sort();
        keys
    })
}

#[test]
fn status_names_lost_images_and_enqueue_repairs_them() {
    let small = SmallRun::new(60);
    let broker = Broker::shared().url();
    small.enqueue(&broker, &[]);
    let mut lost = steal(&broker, 7);

    // Before the queue is empty there is a number; names would disturb who works.
    let status = small.status(&broker);
    assert_eq!((&status["queued"], &status["unaccounted"]), (&53.into(), &7.into()), "{status}");
    let mut early = camshaft(["enqueue", "--broker", &broker, "--only", "missing"]);
    early.arg(&small.source).arg("--out").arg(&small.out).arg("--model").arg(&small.model);
    run(&mut early).expect_one_line(&["53 messages wait in the queue", "--only missing"]);

    let work = || {
        let _ended = run(&mut worker(["--broker", &broker, "--exit-when-idle", "1"])).expect(0);
    };
    work();
    // One more is lost at rest.
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
    // As it says.
    let said = small.enqueue(&broker, &["--only", "failed"]);
    assert!(said.starts_with("Enqueued 1 of 3 images"), "{said}");
    let _ended = run(&mut worker(["--broker", &broker, "--exit-when-idle", "1"])).expect(0);
    small.results().assert_exactly(&small.keys);
}
