//! Runs that are cancelled: before any work, in the middle of it, and while they are enqueued.

use std::fs::OpenOptions;
use std::io::Write;

use super::older::make_older;
use super::*;

/// Some tenths of a second an image, on two cores.
const SLOW: [&str; 6] = ["--method", "score-cam", "--layer", "layer1.0.conv1", "--batch", "1"];

fn cancel(small: &SmallRun) -> Ended {
    run(camshaft(["cancel"]).arg(&small.out))
}

/// What `camshaft status` tells a person, with more arguments.
fn status_text(small: &SmallRun, more: &[&str]) -> String {
    run(camshaft(["status"]).arg(&small.out).args(more)).expect(0).stdout
}

fn assert_is_cancelled(small: &SmallRun, broker: &str, not_done: usize) {
    let told = small.status(broker);
    assert!(told["cancelled_at"].is_string(), "{told}");
    assert_eq!(told["remaining"], not_done, "{told}");
    assert_eq!(told["unaccounted"], Value::Null, "{told}");
    assert_eq!(told["unaccounted_keys"], Value::Array(Vec::new()), "{told}");
    let text = status_text(small, &["--broker", broker]);
    let line = format!("{not_done} images not done; enqueue again to go on");
    assert!(text.contains("\ncancelled at ") && text.contains(&line), "{text}");
    assert!(!text.contains("lost") && !text.contains("in work"), "{text}");
}

#[test]
fn workers_settle_the_jobs_of_a_cancelled_run_without_work_and_it_can_go_on() {
    let small = SmallRun::new(20);
    let broker = Broker::shared().url();
    small.enqueue(&broker, &[]);
    assert!(!run_record(&small).as_object().unwrap().contains_key("cancelled_at"));
    let ended = cancel(&small).expect(0);
    assert!(ended.stdout.contains("20 of 20 images not done"), "{}", ended.stdout);
    assert_is_cancelled(&small, &broker, 20);
    let cancelled = run_record(&small);
    let again = cancel(&small).expect(0);
    assert!(again.stdout.contains("was cancelled at"), "{}", again.stdout);
    assert_eq!(run_record(&small), cancelled);

    assert_eq!(work_counted(&broker), Done { superseded: 20, ..Done::default() });
    assert_eq!(small.predictions(), 0);
    // The queue is empty now, and nothing is lost.
    assert_is_cancelled(&small, &broker, 20);

    let said = small.enqueue(&broker, &[]);
    assert!(said.starts_with("Enqueued 20 of 20 images"), "{said}");
    let record = run_record(&small);
    assert_eq!(record["run"], cancelled["run"], "it is the same run");
    assert!(!record.as_object().unwrap().contains_key("cancelled_at"), "{record}");
    assert_eq!(work_counted(&broker), Done { predicted: 20, ..Done::default() });
    small.assert_adds_up(&broker);

    // Nothing is left to do.
    let record = fs::read(small.out.join("run.json")).unwrap();
    let ended = cancel(&small).expect(0);
    assert!(ended.stdout.contains("nothing left to do (20 results)"), "{}", ended.stdout);
    assert_eq!(fs::read(small.out.join("run.json")).unwrap(), record);
}

#[test]
fn results_of_a_cancelled_run_stay_and_only_the_rest_is_enqueued_again() {
    let small = SmallRun::new(20);
    let broker = Broker::shared().url();
    let _ended = small.audit(&["--limit", "8"]).expect(0);
    small.enqueue(&broker, &[]);
    let ended = cancel(&small).expect(0);
    assert!(ended.stdout.contains("12 of 20 images not done"), "{}", ended.stdout);
    // The cancelled jobs still wait beside the later ones.
    let said = small.enqueue(&broker, &[]);
    assert!(said.starts_with("Enqueued 12 of 20 images (8 have results already)"), "{said}");
    let done = work_counted(&broker);
    assert_eq!(done, Done { predicted: 12, already_done: 0, superseded: 12 });
    small.results().assert_exactly(&small.keys);
    small.assert_adds_up(&broker);
}

#[test]
fn a_run_that_is_cancelled_in_the_middle_of_its_work_has_each_image_done_once() {
    let small = SmallRun::new(400);
    let broker = Broker::shared().url();
    small.enqueue(&broker, &[]);
    let running = Running::start(&mut counting_worker(&broker, &["--exit-when-idle", "2"]));
    wait::until("the first results", LIMIT, || small.predictions() >= 5);
    let _ended = cancel(&small).expect(0);
    let first = Done::of(&running.end(LIMIT).expect(0));
    assert_eq!(first.predicted + first.superseded, 400, "{first:?}");
    assert_eq!(small.predictions() as u64, first.predicted);
    small.enqueue(&broker, &[]);
    let second = work_counted(&broker);
    assert_eq!(first.predicted + second.predicted, 400, "{first:?} {second:?}");
    assert_eq!(second.superseded, 0, "{second:?}");
    small.results().assert_exactly(&small.keys);
    small.assert_adds_up(&broker);
}

#[test]
fn watching_ends_when_the_run_is_cancelled() {
    let small = SmallRun::new(5);
    let broker = Broker::shared().url();
    small.enqueue(&broker, &[]);
    let watch = |more: &[&str]| {
        let mut watch = camshaft(["status", "--watch", "--broker", &broker]);
        Running::start(watch.arg(&small.out).args(more))
    };
    let (watching, looking) = (watch(&[]), watch(&["--json"]));
    wait::until("it looked", LIMIT, || looking.output()[0].lines().count() >= 1);
    let _ended = cancel(&small).expect(0);
    let last = looking.end(LIMIT).expect(0).stdout;
    let last: Value = serde_json::from_str(last.lines().last().unwrap()).unwrap();
    assert!(last["cancelled_at"].is_string(), "{last}");
    let ended = watching.end(LIMIT).expect(0);
    assert!(ended.stdout.contains("\ncancelled at "), "{}", ended.stdout);
}

#[test]
fn an_enqueue_that_waits_for_its_list_stops_when_its_run_is_cancelled() {
    let small = SmallRun::new(200);
    let broker = Broker::shared().url();
    let (mut enqueue, list) = small.enqueue_from_pipe(&broker);
    let running = Running::start(&mut enqueue);
    let mut feed = OpenOptions::new().write(true).open(&list).unwrap();
    feed.write_all((small.keys[..100].join("\n") + "\n").as_bytes()).unwrap();
    wait::until("messages", LIMIT, || small.has_queued(&broker, 100));
    let ended = cancel(&small).expect(0);
    assert!(ended.stdout.contains("SOURCE was not listed to its end"), "{}", ended.stdout);
    // The list has not ended.
    let ended = running.end(LIMIT).expect(1);
    assert!(ended.stderr.contains("cancelled by camshaft cancel"), "{}", ended.stderr);
    drop(feed);
    let text = status_text(&small, &[]);
    assert!(text.contains("before SOURCE was listed to its end; enqueue again"), "{text}");

    // It does not go on from the bookmark: the jobs before it count no more.
    fs::remove_file(&list).unwrap();
    fs::write(&list, small.keys.join("\n")).unwrap();
    let _ended = run(&mut enqueue).expect(0);
    let done = work_counted(&broker);
    assert_eq!(done, Done { predicted: 200, already_done: 0, superseded: 100 });
    small.assert_adds_up(&broker);
}

#[test]
fn an_enqueue_that_ends_after_its_run_was_cancelled_takes_nothing_back() {
    let small = SmallRun::new(200);
    let broker = Broker::shared().url();
    let (mut enqueue, list) = small.enqueue_from_pipe(&broker);
    let running = Running::start(&mut enqueue);
    let mut feed = OpenOptions::new().write(true).open(&list).unwrap();
    feed.write_all((small.keys[..100].join("\n") + "\n").as_bytes()).unwrap();
    wait::until("messages", LIMIT, || small.has_queued(&broker, 100));
    let cancelling = Running::start(camshaft(["cancel"]).arg(&small.out));
    let is_cancelled = || run_record(&small).as_object().unwrap().contains_key("cancelled_at");
    wait::until("it is cancelled", LIMIT, is_cancelled);
    // It may have noticed already, and read no more.
    feed.write_all(small.keys[100..].join("\n").as_bytes()).unwrap_or_default();
    drop(feed);
    let ended = running.end(LIMIT).expect(1);
    assert!(ended.stderr.contains("cancelled by camshaft cancel"), "{}", ended.stderr);
    let _ended = cancelling.end(LIMIT).expect(0);
    assert!(is_cancelled());
    let done = work_counted(&broker);
    assert_eq!((done.predicted, done.already_done), (0, 0), "{done:?}");
}

#[test]
fn an_audit_that_is_cancelled_says_so_and_one_after_a_cancel_does_the_rest() {
    let small = SmallRun::new(80);
    let mut audit = camshaft(["audit"]);
    audit.arg(&small.source).arg("--out").arg(&small.out).arg("--model").arg(&small.model);
    let running = Running::start(audit.args(SLOW));
    wait::until("the first results", LIMIT, || small.predictions() >= 2);
    let _ended = cancel(&small).expect(0);
    let ended = running.end(LIMIT).expect(1);
    assert!(ended.stderr.contains("cancelled by camshaft cancel"), "{}", ended.stderr);
    let done = small.predictions();
    assert!(done < 80, "every image was done");
    let text = status_text(&small, &[]);
    assert!(text.contains(&format!("{} images not done; enqueue again", 80 - done)), "{text}");
    let more = (done + 1).to_string();
    let _ended = small.audit(&[&SLOW[..], &["--limit", more.as_str()]].concat()).expect(0);
    let images = done as u64 + 1;
    assert_eq!(numbers(&small), [images, images, 0, 0]);
    assert!(!run_record(&small).as_object().unwrap().contains_key("cancelled_at"));

    // An enqueued run that was cancelled is gone on with by an audit as well.
    let small = SmallRun::new(6);
    let broker = Broker::shared().url();
    small.enqueue(&broker, &[]);
    let _ended = cancel(&small).expect(0);
    let ended = small.audit(&[]).expect(0);
    assert!(ended.stdout.contains("6 predicted"), "{}", ended.stdout);
    assert_eq!(work_counted(&broker), Done { superseded: 6, ..Done::default() });
    small.assert_adds_up(&broker);
}

#[test]
fn a_run_of_an_older_version_can_be_cancelled() {
    let small = SmallRun::new(6);
    let broker = Broker::shared().url();
    small.enqueue(&broker, &[]);
    make_older(&small, &broker);
    let ended = cancel(&small).expect(0);
    assert!(ended.stdout.contains("6 of 6 images not done"), "{}", ended.stdout);
    assert_is_cancelled(&small, &broker, 6);
    assert_eq!(work_counted(&broker), Done { superseded: 6, ..Done::default() });
    let said = small.enqueue(&broker, &[]);
    assert!(said.starts_with("Enqueued 6 of 6 images"), "{said}");
    assert_eq!(work_counted(&broker), Done { predicted: 6, ..Done::default() });
    small.assert_adds_up(&broker);
}

#[test]
fn dead_letters_of_a_cancelled_run_are_no_longer_its_own() {
    let small = SmallRun::new(3);
    let broker = Broker::shared().url();
    small.enqueue(&broker, &[]);
    give_up_all(&small, &broker);
    let _ended = cancel(&small).expect(0);
    let told = small.status(&broker);
    assert_eq!((&told["dead"], &told["dead_letters"]), (&3.into(), &Value::Array(Vec::new())));
    let said = small.enqueue(&broker, &["--only", "missing"]);
    assert!(said.starts_with("Enqueued 3 of 3 images"), "{said}");
    let _ended = run(&mut camshaft(["redrive", "--broker", &broker])).expect(0);
    let done = work_counted(&broker);
    assert_eq!(done, Done { predicted: 3, already_done: 0, superseded: 3 });
    small.assert_adds_up(&broker);
}

#[test]
fn without_a_run_there_is_nothing_to_cancel() {
    let small = SmallRun::new(1);
    cancel(&small).expect_one_line(&["holds no run", "there is no run.json"]);
}
