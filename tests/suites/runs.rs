//! `camshaft runs`: which runs' jobs wait on a broker.

use std::fs;
use std::time::Duration;

use camshaft_common::secret::Secret;
use camshaft_queue::{RabbitMqOptions, RabbitMqQueue, RunNote};
use camshaft_tests::broker::{Broker, PRODUCER, PRODUCER_WITHOUT_NOTES, VIEWER};
use camshaft_tests::jobs::Jobs;
use camshaft_tests::programs::{Ended, camshaft, run, worker};
use camshaft_tests::small_run::SmallRun;
use camshaft_tests::wait;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
const NOTES: &str = "camshaft.runs";

fn list(broker: &str, more: &[&str]) -> Ended {
    run(camshaft(["runs", "--broker", broker]).args(more))
}

fn listed(broker: &str) -> Value {
    serde_json::from_str(&list(broker, &["--json"]).expect(0).stdout).unwrap()
}

fn work(broker: &str) {
    let _ended = run(&mut worker(["--broker", broker, "--exit-when-idle", "1"])).expect(0);
}

fn cancel(small: &SmallRun) {
    let _ended = run(camshaft(["cancel"]).arg(&small.out)).expect(0);
}

fn run_id(small: &SmallRun) -> Value {
    let record: Value =
        serde_json::from_slice(&fs::read(small.out.join("run.json")).unwrap()).unwrap();
    record["run"].clone()
}

/// Waits until the queue of notes has `number` of them.
fn notes_become(broker: &str, number: usize) {
    let jobs = Jobs::at(broker);
    let what = format!("{number} notes");
    wait::until(&what, LIMIT, || jobs.count(NOTES) == Some(number));
}

#[test]
fn runs_with_images_to_do_are_listed_and_notes_of_others_go() {
    let [done, half, cancelled] = [3, 5, 4].map(SmallRun::new);
    let broker = Broker::shared().url();
    done.enqueue(&broker, &[]);
    work(&broker);
    let _ended = half.audit(&["--limit", "2"]).expect(0);
    half.enqueue(&broker, &[]);
    cancelled.enqueue(&broker, &[]);
    cancel(&cancelled);
    notes_become(&broker, 3);

    let told = listed(&broker);
    let [only] = told["runs"].as_array().unwrap().as_slice() else { panic!("{told}") };
    for (name, number) in [("images", 5), ("done", 2), ("failed", 0), ("remaining", 3)] {
        assert_eq!(only[name], number, "{name} in {told}");
    }
    assert_eq!((&only["run"], &only["error"]), (&run_id(&half), &Value::Null), "{told}");
    let out = format!("file://{}", half.out.display());
    assert_eq!(only["out"], out, "{told}");
    for (name, number) in [("queued", 3 + 4), ("retrying", 0), ("dead", 0)] {
        assert_eq!(told[name], number, "{name} in {told}");
    }
    assert_eq!(told["queue"], "camshaft");
    notes_become(&broker, 1);

    let text = list(&broker, &[]).expect(0).stdout;
    let line = format!(
        "{}  run {}: 5 images, 2 done, 0 failed, 3 to do; enqueued ",
        half.out.display(),
        run_id(&half).as_str().unwrap()
    );
    assert!(text.starts_with(&line), "{text}");
    assert!(text.ends_with("camshaft: 7 queued, 0 waiting for another try, 0 dead\n"), "{text}");

    // The jobs were left to the workers.
    work(&broker);
    half.assert_adds_up(&broker);
    assert_eq!(cancelled.predictions(), 0);
    let text = list(&broker, &[]).expect(0).stdout;
    assert!(text.starts_with("No run that was enqueued here has images to do\n"), "{text}");
    assert!(!text.contains("These messages"), "{text}");
    notes_become(&broker, 0);
}

#[test]
fn of_several_notes_the_newest_counts_and_another_run_in_the_same_place_takes_it_over() {
    let small = SmallRun::new(3);
    let broker = Broker::shared().url();
    for _ in 0..2 {
        small.enqueue(&broker, &[]);
    }
    notes_become(&broker, 2);
    let first = run_id(&small);
    assert_eq!(listed(&broker)["runs"].as_array().unwrap().len(), 1);
    notes_become(&broker, 1);
    // Corrected before its first result.
    small.enqueue(&broker, &["--method", "eigen-cam"]);
    assert_ne!(run_id(&small), first);
    let told = listed(&broker);
    let [only] = told["runs"].as_array().unwrap().as_slice() else { panic!("{told}") };
    assert_eq!(only["run"], run_id(&small), "{told}");
    notes_become(&broker, 1);
}

#[test]
fn an_out_that_cannot_be_read_is_a_line_with_the_reason() {
    let [moved, other] = [2, 3].map(SmallRun::new);
    let broker = Broker::shared().url();
    moved.enqueue(&broker, &[]);
    other.enqueue(&broker, &[]);
    fs::rename(&moved.out, moved.directory.path().join("elsewhere")).unwrap();
    let told = listed(&broker);
    let [first, second] = told["runs"].as_array().unwrap().as_slice() else { panic!("{told}") };
    assert!(first["error"].as_str().unwrap().contains("there is no run.json"), "{told}");
    assert_eq!((&first["images"], &second["remaining"]), (&Value::Null, &3.into()), "{told}");
    let text = list(&broker, &[]).expect(0).stdout;
    assert!(text.contains(": not known, ") && text.contains("3 to do"), "{text}");
    // It may come back.
    notes_become(&broker, 2);
}

#[test]
fn notes_may_be_read_any_number_of_times_and_each_can_be_removed() {
    let url = Broker::shared().url();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let queue = RabbitMqQueue::connect(Secret::from(url), RabbitMqOptions::default());
        let queue = queue.await.unwrap();
        assert!(queue.run_notes().await.unwrap().is_empty(), "nobody has left one");
        let notes: Vec<_> =
            (0..60).map(|number| RunNote { body: format!("{number}").into() }).collect();
        for note in &notes {
            queue.note_run(note.clone()).await.unwrap();
        }
        // RabbitMQ 4 drops messages that came back twenty times, unless told otherwise.
        for _ in 0..25 {
            let mut read = queue.run_notes().await.unwrap();
            read.sort_by_key(|note| notes.iter().position(|known| known == note));
            assert_eq!(read, notes);
        }
        queue.remove_run_notes(&notes[..10]).await.unwrap();
        let left = queue.run_notes().await.unwrap();
        assert_eq!(left.len(), 50, "{left:?}");
        assert!(notes[10..].iter().all(|note| left.contains(note)), "{left:?}");
        queue.close().await;
    });
}

#[test]
fn without_the_right_to_notes_enqueue_warns_once_and_goes_on() {
    let broker = Broker::shared();
    let host = broker.rights_host();
    let small = SmallRun::new(3);
    let enqueue = |user| {
        let url = broker.limited_url(user, &host);
        let mut command = camshaft(["enqueue", "--broker", &url]);
        command.arg(&small.source).arg("--out").arg(&small.out).arg("--model").arg(&small.model);
        run(&mut command).expect(0)
    };
    let runs = |user| list(&broker.limited_url(user, &host), &[]);
    let ended = enqueue(PRODUCER_WITHOUT_NOTES);
    assert!(ended.stdout.starts_with("Enqueued 3 of 3"), "{}", ended.stdout);
    let warned: Vec<_> = ended.stderr.lines().collect();
    assert_eq!(warned.len(), 1, "{}", ended.stderr);
    assert!(warned[0].contains("camshaft runs") && warned[0].contains(NOTES), "{}", warned[0]);
    // Nobody has left a note, and messages wait.
    let text = runs(PRODUCER).expect(0).stdout;
    assert!(text.contains("These messages are of no run that is noted"), "{text}");
    assert!(text.contains("camshaft: 3 queued"), "{text}");

    assert_eq!(enqueue(PRODUCER).stderr, "");
    // The queue is there now, and anyone who may publish can leave a note.
    assert_eq!(enqueue(PRODUCER_WITHOUT_NOTES).stderr, "");
    let text = runs(PRODUCER).expect(0).stdout;
    assert!(text.contains("3 images, 0 done, 0 failed, 3 to do"), "{text}");
    runs(VIEWER).expect_one_line(&["refused access", VIEWER.name, NOTES]);
}

#[test]
fn runs_creates_no_queues() {
    let broker = Broker::shared().url();
    list(&broker, &["--queue", "typo"]).expect_one_line(&["no queue typo.jobs", "--queue"]);
    let jobs = Jobs::at(&broker);
    assert_eq!((jobs.count("typo.jobs"), jobs.count("typo.runs")), (None, None));
    let small = SmallRun::new(1);
    small.enqueue(&broker, &["--queue", "team-a"]);
    let text = list(&broker, &["--queue", "team-a"]).expect(0).stdout;
    assert!(text.contains("1 to do") && text.contains("team-a: 1 queued"), "{text}");
    assert_eq!(jobs.count("team-a.runs"), Some(1));
}
