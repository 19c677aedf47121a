//! What counts as done when a run is enqueued more than once, or its images change.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use camshaft_common::secret::Secret;
use camshaft_queue::{JobQueue, Message, Outcome, RabbitMqOptions, RabbitMqQueue};
use camshaft_tests::broker::Broker;
use camshaft_tests::images::files_below;
use camshaft_tests::jobs::{Jobs, publish};
use camshaft_tests::programs::{Ended, Running, camshaft, camshaft_with_report, run, worker};
use camshaft_tests::s3::S3Server;
use camshaft_tests::s3_relay::S3Relay;
use camshaft_tests::small_run::SmallRun;
use camshaft_tests::wait;
use futures::StreamExt;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(300);

mod cancel;
mod inherited;
mod kept;
mod older;
mod prune;
mod remeasured;
mod replaced;
mod verified;

/// What `camshaft status --json` tells with more arguments.
fn status(small: &SmallRun, more: &[&str]) -> Value {
    let ended = run(camshaft(["status", "--json"]).arg(&small.out).args(more)).expect(0);
    serde_json::from_str(&ended.stdout).unwrap()
}

/// The numbers of images, and of those that are done, failed, and to do.
fn numbers(small: &SmallRun) -> [u64; 4] {
    let status = status(small, &[]);
    ["images", "done", "failed", "remaining"].map(|name| status[name].as_u64().unwrap())
}

fn report(small: &SmallRun) -> Value {
    let mut command = camshaft_with_report(["report", "--json", "--thumbnails", "0"]);
    let ended = run(command.arg(&small.out)).expect(0);
    serde_json::from_str(&ended.stdout).unwrap()
}

/// Runs a worker until the queue is empty.
fn work(broker: &str) -> Ended {
    run(&mut worker(["--broker", broker, "--exit-when-idle", "1"])).expect(0)
}

/// What a worker did: images predicted, those whose result was there already, and jobs that a later
/// enqueue had superseded.
#[derive(Debug, Default, PartialEq, Eq)]
struct Done {
    predicted: u64,
    already_done: u64,
    superseded: u64,
}

/// What a worker tells in the last line of its log.
fn told_at_end(ended: &Ended) -> Value {
    let mut lines = ended.stderr.lines().filter_map(|line| serde_json::from_str(line).ok());
    let told: Value = lines.next_back().unwrap();
    assert_eq!(told["message"], "ended", "{ended:?}");
    told
}

impl Done {
    fn of(ended: &Ended) -> Self {
        let told = told_at_end(ended);
        let number = |name: &str| told[name].as_u64().unwrap();
        Self {
            predicted: number("predicted"),
            already_done: number("already_done"),
            superseded: number("superseded"),
        }
    }
}

fn counting_worker(broker: &str, more: &[&str]) -> Command {
    let mut command = worker(["--broker", broker, "--log-format", "json"]);
    command.args(more);
    command
}

/// As [`work`], and tells what the worker did.
fn work_counted(broker: &str) -> Done {
    Done::of(&run(&mut counting_worker(broker, &["--exit-when-idle", "1"])).expect(0))
}

/// Audits a list of keys and labels.
fn audit_list(small: &SmallRun, lines: &[(&str, &str)]) -> Ended {
    let list = small.directory.path().join("list.csv");
    let lines = lines.iter().map(|(key, label)| format!("{key},{label}\n"));
    fs::write(&list, format!("key,label\n{}", lines.collect::<String>())).unwrap();
    let mut command = camshaft(["audit", &format!("list:{}", list.display())]);
    command.arg("--base").arg(&small.source).arg("--out").arg(&small.out);
    run(command.arg("--model").arg(&small.model)).expect(0)
}

fn labels(small: &SmallRun) -> BTreeMap<String, Option<String>> {
    let predictions = small.results().predictions;
    predictions.into_iter().map(|(key, record)| (key, record.image.label)).collect()
}

fn set_modified(path: &Path, time: SystemTime) {
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

fn run_record(small: &SmallRun) -> Value {
    serde_json::from_slice(&fs::read(small.out.join("run.json")).unwrap()).unwrap()
}

#[test]
fn status_looks_into_the_queues_that_the_run_was_enqueued_to() {
    let small = SmallRun::new(5);
    let broker = Broker::shared().url();
    // The usual queues are there, too, and empty.
    let other = SmallRun::new(2);
    other.enqueue(&broker, &[]);
    small.enqueue(&broker, &["--queue", "team-a"]);
    let told = status(&small, &["--broker", &broker]);
    let numbers = ["remaining", "queued", "unaccounted"].map(|name| told[name].clone());
    assert_eq!(numbers, [5, 5, 0].map(Value::from), "{told}");
    // A queue that is named counts, also by the variable.
    let told = status(&small, &["--broker", &broker, "--queue", "camshaft"]);
    assert_eq!(told["queued"], 2, "{told}");
    let mut by_variable = camshaft(["status", "--json", "--broker", &broker]);
    let ended = run(by_variable.arg(&small.out).env("CAMSHAFT_QUEUE", "camshaft")).expect(0);
    assert!(ended.stdout.contains("\"queued\":2"), "{}", ended.stdout);
    // An audit does not change where the enqueued jobs wait, and another enqueue does.
    let _ended = small.audit(&["--limit", "1"]).expect(0);
    assert_eq!(status(&small, &["--broker", &broker])["queued"], 5);
    small.enqueue(&broker, &[]);
    assert_eq!(status(&small, &["--broker", &broker])["queued"], 2 + 4);
}

#[test]
fn images_that_have_gone_are_in_no_number_and_changed_ones_are_to_do() {
    let mut small = SmallRun::new(60);
    let broker = Broker::shared().url();
    small.enqueue(&broker, &[]);
    work(&broker);
    for key in small.keys.drain(..10) {
        fs::remove_file(small.source.join(key)).unwrap();
    }
    let [from, to, other, ..] = &small.keys[..] else { panic!("fifty are left") };
    for changed in [to, other] {
        fs::copy(small.source.join(from), small.source.join(changed)).unwrap();
    }
    let said = small.enqueue(&broker, &[]);
    assert!(said.starts_with("Enqueued 2 of 50 images (48 have results already)"), "{said}");
    let told = small.status(&broker);
    for (name, number) in
        [("images", 50), ("done", 48), ("remaining", 2), ("queued", 2), ("unaccounted", 0)]
    {
        assert_eq!(told[name], number, "{name} in {told}");
    }
    work(&broker);
    small.assert_adds_up(&broker);
    let reported = report(&small);
    assert_eq!((&reported["images"], &reported["expected"]), (&50.into(), &50.into()));
    let note = "10 results of images that are no longer in SOURCE are left out";
    assert_eq!(reported["notes"][0], note, "{reported}");
}

#[test]
fn when_every_image_is_to_be_redone_none_is_done_before() {
    let small = SmallRun::new(6);
    let broker = Broker::shared().url();
    small.enqueue(&broker, &[]);
    work(&broker);
    assert_eq!(numbers(&small), [6, 6, 0, 0]);
    let said = small.enqueue(&broker, &["--only", "all"]);
    assert!(said.starts_with("Enqueued 6 of 6 images"), "{said}");
    assert_eq!(numbers(&small), [6, 0, 0, 6]);
    work(&broker);
    assert_eq!(numbers(&small), [6, 6, 0, 0]);
}

#[test]
fn purged_jobs_of_images_that_have_old_results_are_missing() {
    let small = SmallRun::new(6);
    let broker = Broker::shared().url();
    small.enqueue(&broker, &[]);
    work(&broker);
    small.enqueue(&broker, &["--only", "all"]);
    let jobs = Jobs::at(&broker);
    assert_eq!(jobs.take().len(), 6);
    let told = small.status(&broker);
    assert_eq!((&told["remaining"], &told["unaccounted"]), (&6.into(), &6.into()), "{told}");
    let mut named: Vec<String> = serde_json::from_value(told["unaccounted_keys"].clone()).unwrap();
    named.sort();
    let mut keys = small.keys.clone();
    keys.sort();
    assert_eq!(named, keys);
    let said = small.enqueue(&broker, &["--only", "missing"]);
    assert!(said.starts_with("Enqueued 6 of 6 images"), "{said}");
    // Purged again, they are found by a usual enqueue, too.
    assert_eq!(jobs.take().len(), 6);
    let said = small.enqueue(&broker, &[]);
    assert!(said.starts_with("Enqueued 6 of 6 images"), "{said}");
    work(&broker);
    small.assert_adds_up(&broker);
}

#[test]
fn an_enqueue_of_failed_images_leaves_others_as_they_were() {
    let small = SmallRun::new(4);
    let broker = Broker::shared().url();
    fs::write(small.source.join("bad.jpg"), "no image").unwrap();
    small.enqueue(&broker, &[]);
    work(&broker);
    // One has changed, and one is new.
    let changed = small.source.join(&small.keys[1]);
    fs::copy(small.source.join(&small.keys[0]), changed).unwrap();
    fs::copy(small.source.join(&small.keys[0]), small.source.join("new.jpg")).unwrap();
    let said = small.enqueue(&broker, &["--only", "failed"]);
    assert!(said.starts_with("Enqueued 1 of 6 images"), "{said}");
    work(&broker);
    assert_eq!(numbers(&small), [6, 3, 1, 2]);
    let said = small.enqueue(&broker, &[]);
    assert!(said.starts_with("Enqueued 2 of 6 images"), "{said}");
    work(&broker);
    assert_eq!(numbers(&small), [6, 5, 1, 0]);
}

#[test]
fn a_corrected_label_in_a_list_is_audited_again() {
    let small = SmallRun::new(3);
    let [a, b, c] = [0, 1, 2].map(|index| small.keys[index].as_str());
    // In an order that is not that of keys.
    audit_list(&small, &[(c, "cat"), (a, "cat"), (b, "dog")]);
    let again = audit_list(&small, &[(c, "cat"), (a, "cat"), (b, "dog")]);
    assert!(again.stdout.contains("3 had results already"), "{}", again.stdout);
    let corrected = audit_list(&small, &[(c, "cat"), (a, "dog"), (b, "dog")]);
    assert!(corrected.stdout.contains("Audited 1 image "), "{}", corrected.stdout);
    assert!(corrected.stdout.contains("2 had results already"), "{}", corrected.stdout);
    let label = |text: &str| Some(text.to_owned());
    let expected = [(a, "dog"), (b, "dog"), (c, "cat")];
    let expected = expected.map(|(key, text)| (key.to_owned(), label(text)));
    assert_eq!(labels(&small), BTreeMap::from(expected));
    // An image that was taken out comes back with another label.
    audit_list(&small, &[(a, "dog"), (b, "dog")]);
    assert_eq!(numbers(&small), [2, 2, 0, 0]);
    audit_list(&small, &[(a, "dog"), (b, "dog"), (c, "dog")]);
    assert_eq!(labels(&small)[c], label("dog"));
    assert_eq!(numbers(&small), [3, 3, 0, 0]);
    // It comes back as it was: its result counts.
    audit_list(&small, &[(a, "dog"), (b, "dog")]);
    let back = audit_list(&small, &[(a, "dog"), (b, "dog"), (c, "dog")]);
    assert!(back.stdout.contains("0 predicted, 0 failed"), "{}", back.stdout);
    assert_eq!(numbers(&small), [3, 3, 0, 0]);
}

#[test]
fn a_file_that_is_moved_to_another_class_counts_once() {
    let small = SmallRun::new(12);
    let _ended = small.audit(&[]).expect(0);
    let (from, to) = (small.source.join(&small.keys[0]), small.source.join("odd/moved.jpg"));
    fs::rename(from, to).unwrap();
    let again = small.audit(&[]).expect(0);
    assert!(again.stdout.contains("Audited 1 image "), "{}", again.stdout);
    assert_eq!(numbers(&small), [12, 12, 0, 0]);
    let reported = report(&small);
    assert_eq!(reported["images"], 12, "{reported}");
    let note = "1 result of an image that is no longer in SOURCE is left out";
    assert_eq!(reported["notes"][0], note, "{reported}");
}

#[test]
fn a_file_that_is_replaced_by_an_older_one_is_done_again() {
    let small = SmallRun::new(4);
    let hour = Duration::from_secs(3600);
    let before = SystemTime::now() - hour;
    small.keys.iter().for_each(|key| set_modified(&small.source.join(key), before));
    let _ended = small.audit(&[]).expect(0);
    // As `cp -p` and rsync do it.
    let [one, other] = [0, 1].map(|index| small.source.join(&small.keys[index]));
    fs::copy(one, &other).unwrap();
    set_modified(&other, before - hour);
    // A copy in the place of a file is the same if its size and time are.
    let (copied, copy) = (small.source.join(&small.keys[2]), small.source.join("copy"));
    fs::copy(&copied, &copy).unwrap();
    set_modified(&copy, before);
    fs::rename(copy, copied).unwrap();
    let again = small.audit(&[]).expect(0);
    assert!(again.stdout.contains("Audited 1 image "), "{}", again.stdout);
    assert!(again.stdout.contains("3 had results already"), "{}", again.stdout);
    let results = small.results().predictions;
    let [one, other] = [0, 1].map(|index| &results[&small.keys[index]].image.digest);
    assert_eq!(one, other);
}

#[test]
fn labels_that_are_no_longer_wanted_go() {
    let small = SmallRun::new(3);
    let _ended = small.audit(&[]).expect(0);
    assert!(labels(&small).values().all(Option::is_some));
    let none = &["--labels", "none"][..];
    let (relabelled, kept) = ("3 found, 3 relabelled", "3 found, 3 had results already");
    for (more, said) in [(none, relabelled), (none, kept), (&[], relabelled)] {
        let again = small.audit(more).expect(0);
        assert!(again.stdout.contains(said), "{more:?}: {}", again.stdout);
        assert_eq!(labels(&small).values().all(Option::is_none), !more.is_empty());
        assert_eq!(numbers(&small), [3, 3, 0, 0]);
    }
}

#[test]
fn a_run_with_a_damaged_manifest_or_none_goes_on() {
    let small = SmallRun::new(4);
    let _ended = small.audit(&[]).expect(0);
    let folder = small.out.join("manifest").join(run_record(&small)["manifest"].as_str().unwrap());
    let part = folder.join("part-00000.jsonl.gz");
    let damages: [fn(&Path) -> std::io::Result<()>; 2] =
        [|part| fs::write(part, "no manifest"), |part| fs::remove_file(part)];
    for damage in damages {
        damage(&part).unwrap();
        let told = run(camshaft(["status", "--json"]).arg(&small.out)).expect(0);
        assert!(told.stdout.contains("\"done\":4"), "{told:?}");
        assert!(told.stderr.contains("part-00000.jsonl.gz"), "{told:?}");
        let reported = report(&small);
        assert_eq!(reported["images"], 4, "{reported}");
        let note = reported["notes"][0].as_str().unwrap();
        assert!(note.contains("part-00000.jsonl.gz"), "{note}");
    }
    let again = small.audit(&[]).expect(0);
    assert!(again.stdout.contains("4 had results already"), "{}", again.stdout);
    assert!(again.stderr.contains("part-00000.jsonl.gz"), "{}", again.stderr);
    let told = run(camshaft(["status", "--json"]).arg(&small.out)).expect(0);
    assert_eq!(told.stderr, "");
    // A manifest is kept for who may be reading it, and older ones are not.
    let _ended = small.audit(&[]).expect(0);
    let _ended = small.audit(&[]).expect(0);
    assert_eq!(fs::read_dir(small.out.join("manifest")).unwrap().count(), 2);
}

#[test]
fn a_user_who_may_write_no_manifest_is_warned_and_goes_on() {
    let small = SmallRun::new(3);
    // A store tells whole seconds: an image of the same second as its result may be a newer one.
    let earlier = SystemTime::now() - Duration::from_secs(60);
    for image in files_below(&small.source) {
        fs::File::options().append(true).open(image).unwrap().set_modified(earlier).unwrap();
    }
    let server = S3Server::moto();
    server.make_bucket("no-manifest");
    let relay = S3Relay::to(server);
    relay.answer_error("PUT /no-manifest/out/manifest/", 403, "AccessDenied", "not for you");
    let out = "s3://no-manifest/out";
    let audit = || {
        let mut command = camshaft(["audit", "--out", out]);
        command.arg(&small.source).arg("--model").arg(&small.model);
        run(command.envs(relay.variables(server))).expect(0)
    };
    let first = audit();
    assert!(first.stdout.contains("3 predicted"), "{}", first.stdout);
    assert!(first.stderr.contains("no manifest"), "{}", first.stderr);
    let second = audit();
    assert!(second.stdout.contains("3 had results already"), "{second:?}");
    let told = run(camshaft(["status", "--json", out]).envs(relay.variables(server))).expect(0);
    assert!(told.stdout.contains("\"remaining\":0"), "{told:?}");
}

#[test]
fn status_asks_for_no_image_by_itself() {
    let small = SmallRun::new(60);
    let server = S3Server::s3s_fs();
    server.make_bucket("few-requests");
    let out = "s3://few-requests/out";
    let mut command = camshaft(["audit", "--overlay", "none", "--out", out]);
    command.arg(&small.source).arg("--model").arg(&small.model);
    let _ended = run(command.envs(server.variables())).expect(0);
    let relay = S3Relay::to(server);
    let told = run(camshaft(["status", "--json", out]).envs(relay.variables(server))).expect(0);
    assert!(told.stdout.contains("\"done\":60"), "{told:?}");
    let (requests, _) = relay.requests();
    assert!(requests < 40, "{requests} requests");
}

#[test]
fn an_enqueue_while_jobs_of_the_first_wait_has_each_image_done_once() {
    let small = SmallRun::new(20);
    let broker = Broker::shared().url();
    small.enqueue(&broker, &[]);
    let run_id = run_record(&small)["run"].clone();
    let said = small.enqueue(&broker, &[]);
    assert!(said.starts_with("Enqueued 20 of 20 images"), "{said}");
    assert_eq!(run_record(&small)["run"], run_id, "it is the same run");
    let done = work_counted(&broker);
    assert_eq!(done, Done { predicted: 20, already_done: 0, superseded: 20 });
    small.results().assert_exactly(&small.keys);
    small.assert_adds_up(&broker);
}

#[test]
fn an_enqueue_while_workers_work_has_at_most_those_in_work_done_twice() {
    const MOST_IN_WORK: u64 = 128;
    let small = SmallRun::new(400);
    let broker = Broker::shared().url();
    small.enqueue(&broker, &[]);
    let running = Running::start(&mut counting_worker(&broker, &["--exit-when-idle", "2"]));
    wait::until("the first results", LIMIT, || small.predictions() >= 5);
    small.enqueue(&broker, &[]);
    let done = Done::of(&running.end(LIMIT).expect(0));
    assert!((400..=400 + MOST_IN_WORK).contains(&done.predicted), "{done:?}");
    small.results().assert_exactly(&small.keys);
    small.assert_adds_up(&broker);
}

#[test]
fn an_enqueue_after_a_worker_was_stopped_has_each_image_done_once() {
    let small = SmallRun::new(400);
    let broker = Broker::shared().url();
    small.enqueue(&broker, &[]);
    let running = Running::start(&mut counting_worker(&broker, &[]));
    wait::until("the first results", LIMIT, || small.predictions() >= 5);
    running.signal("TERM");
    let first = Done::of(&running.end(LIMIT).expect(0));
    small.enqueue(&broker, &[]);
    let second = work_counted(&broker);
    assert_eq!(first.predicted + second.predicted, 400, "{first:?} {second:?}");
    assert_eq!(second.superseded, 400 - first.predicted, "{first:?} {second:?}");
    small.results().assert_exactly(&small.keys);
    small.assert_adds_up(&broker);
}

#[test]
fn a_run_that_is_corrected_before_its_first_result_has_results_of_one_kind() {
    let small = SmallRun::new(12);
    let broker = Broker::shared().url();
    small.enqueue(&broker, &["--method", "grad-cam"]);
    small.enqueue(&broker, &["--method", "eigen-cam"]);
    let done = work_counted(&broker);
    assert_eq!(done, Done { predicted: 12, already_done: 0, superseded: 12 });
    let results = small.results();
    results.assert_exactly(&small.keys);
    let run_id = run_record(&small)["run"].clone();
    for (key, record) in &results.predictions {
        assert_eq!(record.explanations[0].method.to_string(), "eigen-cam", "{key}");
        assert_eq!(serde_json::to_value(record.run).unwrap(), run_id, "{key}");
    }
    small.assert_adds_up(&broker);
}

#[test]
fn jobs_to_redo_every_image_are_done_once_though_they_are_enqueued_twice() {
    let small = SmallRun::new(10);
    let broker = Broker::shared().url();
    small.enqueue(&broker, &[]);
    work(&broker);
    for _ in 0..2 {
        small.enqueue(&broker, &["--only", "all"]);
    }
    let done = work_counted(&broker);
    assert_eq!(done, Done { predicted: 10, already_done: 0, superseded: 10 });
    small.assert_adds_up(&broker);
}

/// Makes dead letters of all jobs: a worker may do none of them, and leaves none to others.
fn give_up_all(small: &SmallRun, broker: &str) {
    let mut refusing = worker(["--broker", broker, "--exit-when-idle", "1"]);
    let _ended = run(refusing.args(["--allow", "/nowhere", "--refusal-limit", "0"])).expect(0);
    let letters = small.status(broker)["dead_letters"].as_array().unwrap().len();
    assert_eq!(letters, small.keys.len());
}

#[test]
fn dead_letters_of_an_earlier_enqueue_hide_no_missing_image() {
    let small = SmallRun::new(3);
    let broker = Broker::shared().url();
    small.enqueue(&broker, &[]);
    give_up_all(&small, &broker);
    small.enqueue(&broker, &[]);
    assert_eq!(Jobs::at(&broker).take().len(), 3, "they are purged");
    let told = small.status(&broker);
    assert_eq!((&told["dead"], &told["unaccounted"]), (&3.into(), &3.into()), "{told}");
    assert_eq!(told["dead_letters"], Value::Array(Vec::new()), "{told}");
    let said = small.enqueue(&broker, &["--only", "missing"]);
    assert!(said.starts_with("Enqueued 3 of 3 images"), "{said}");
    let _ended = run(&mut camshaft(["redrive", "--broker", &broker])).expect(0);
    let done = work_counted(&broker);
    assert_eq!(done, Done { predicted: 3, already_done: 0, superseded: 3 });
    small.assert_adds_up(&broker);
}
