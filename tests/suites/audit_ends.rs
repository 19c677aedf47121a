//! What an audit says at its end: numbers that add up, and whether anything is left to do.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use camshaft_tests::broker::Broker;
use camshaft_tests::programs::{Ended, Running, camshaft, camshaft_with_report, run};
use camshaft_tests::small_run::SmallRun;
use camshaft_tests::wait;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(300);

/// A pass of the network for each of 64 channels: some tenths of a second an image on two cores.
const SLOW: [&str; 6] = ["--method", "score-cam", "--layer", "layer1.0.conv1", "--batch", "1"];
/// Half a minute an image.
const SLOWEST: [&str; 4] =
    ["--method", "score-cam", "--layer", "layer4.0,layer4.1,layer4.2,layer3.0,layer3.1"];

/// An audit that is not started yet.
fn audit(small: &SmallRun, mut command: Command, more: &[&str]) -> Command {
    command.arg(&small.source).arg("--out").arg(&small.out).arg("--model").arg(&small.model);
    command.args(more);
    command
}

/// The parts of an audit's line: numbers, and what each is of. They must add up to `found` images.
fn parts(ended: &Ended, found: u64) -> Vec<(u64, String)> {
    let line = ended.stdout.lines().find(|line| line.starts_with("Audited "));
    let line = line.unwrap_or_else(|| panic!("no line in {ended:?}"));
    let (_, parts) = line.split_once(": ").unwrap();
    let (done, others) = match parts.split_once("; of the ") {
        Some((done, others)) => {
            let (number, others) = others.split_once(" found, ").unwrap();
            assert_eq!(number.parse(), Ok(found), "{line}");
            (done, others)
        }
        None => (parts, ""),
    };
    let parts = done.split(", ").chain(others.split(", ").filter(|part| !part.is_empty()));
    let parts: Vec<_> = parts
        .map(|part| {
            let (number, what) = part.split_once(' ').unwrap();
            (number.parse().unwrap(), what.to_owned())
        })
        .collect();
    assert_eq!(parts.iter().map(|(number, _)| *number).sum::<u64>(), found, "{line}");
    parts
}

/// The number of a part; 0 if it isn't named.
fn number(parts: &[(u64, String)], what: &str) -> u64 {
    parts.iter().find(|(_, part)| part == what).map_or(0, |(number, _)| *number)
}

fn last_line(ended: &Ended) -> &str {
    ended.stderr.lines().last().unwrap_or_default()
}

/// Waits until an audit has listed all images.
fn wait_until_listed(small: &SmallRun) {
    wait::until("the images are listed", LIMIT, || {
        let record = fs::read(small.out.join("run.json")).unwrap_or_default();
        let record: Option<Value> = serde_json::from_slice(&record).ok();
        record.is_some_and(|record| record["images"] == small.keys.len())
    });
}

#[test]
fn every_image_that_was_found_is_in_one_number() {
    let small = SmallRun::new(5);
    fs::write(small.source.join("bad.jpg"), "no image").unwrap();
    let tolerant = ["--max-failure-rate", "0.5"];
    let first = parts(&small.audit(&tolerant).expect(0), 6);
    assert_eq!((number(&first, "predicted"), number(&first, "failed")), (5, 1));
    // One image is away, and comes back as it was: its result is looked at.
    let away = ["--exclude", &small.keys[0], "--max-failure-rate", "0.5"];
    let second = parts(&small.audit(&away).expect(0), 5);
    assert_eq!(number(&second, "had results already"), 5);
    let third = parts(&small.audit(&tolerant).expect(0), 6);
    assert_eq!(number(&third, "had results already"), 5);
    assert_eq!(number(&third, "had results that were checked and kept"), 1);
    // A new one, a changed one, and the others.
    fs::copy(small.source.join(&small.keys[0]), small.source.join("new.jpg")).unwrap();
    fs::copy(small.source.join(&small.keys[0]), small.source.join(&small.keys[1])).unwrap();
    let fourth = parts(&small.audit(&tolerant).expect(0), 7);
    assert_eq!((number(&fourth, "predicted"), number(&fourth, "had results already")), (2, 5));
}

#[test]
fn of_two_audits_in_one_out_the_first_leaves_the_rest_to_the_second_and_says_so() {
    const IMAGES: usize = 50;
    let small = SmallRun::new(IMAGES);
    // With a report: the first one must not build it, nor judge the failures.
    let strict = ["--max-failure-rate", "0"];
    let command = || audit(&small, camshaft_with_report(["audit"]), &[&SLOW[..], &strict].concat());
    let first = Running::start(&mut command());
    wait::until("the first result", LIMIT, || small.predictions() > 0);
    let second = Running::start(&mut command());
    let first = first.end(LIMIT).expect(1);
    for part in ["another audit or enqueue of", "has begun, at 20", "left to it", "no report"] {
        assert!(last_line(&first).contains(part), "no {part:?} in {}", first.stderr);
    }
    assert!(!first.stdout.contains("The report is"), "{}", first.stdout);
    let done_by_first = parts(&first, IMAGES as u64);
    assert!(number(&done_by_first, "superseded or cancelled") > 0, "{first:?}");

    let second = second.end(LIMIT).expect(0);
    let done_by_second = parts(&second, IMAGES as u64);
    assert_eq!(number(&done_by_second, "superseded or cancelled"), 0, "{second:?}");
    assert_eq!(number(&done_by_second, "not done"), 0, "{second:?}");
    assert!(second.stdout.contains("The report is"), "{}", second.stdout);
    small.results().assert_exactly(&small.keys);
}

#[test]
fn an_audit_of_slow_images_that_is_told_to_stop_waits_for_none_of_them() {
    let small = SmallRun::new(3);
    let running = Running::start(&mut audit(&small, camshaft(["audit"]), &SLOWEST));
    wait_until_listed(&small);
    running.signal("TERM");
    let asked = Instant::now();
    let ended = running.end(LIMIT).expect(1);
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    assert!(last_line(&ended).contains("run the same command again to do the rest"), "{ended:?}");
    let parts = parts(&ended, 3);
    assert_eq!(number(&parts, "not done"), 3 - small.predictions() as u64, "{ended:?}");
    // Nothing counts against an image that was given up.
    assert!(small.results().failures.is_empty(), "{ended:?}");
}

#[test]
fn an_audit_that_is_stopped_when_all_is_done_does_not_ask_for_the_rest_of_the_images() {
    let small = SmallRun::new(1);
    let command = || audit(&small, camshaft_with_report(["audit"]), &SLOW);
    let running = Running::start(&mut command());
    wait_until_listed(&small);
    // The model takes longer to load than this.
    running.signal("TERM");
    let ended = running.end(LIMIT).expect(1);
    assert_eq!(number(&parts(&ended, 1), "predicted"), 1, "{ended:?}");
    let line = last_line(&ended);
    assert!(line.contains("every image is done") && line.contains("the report"), "{line}");
    let again = run(&mut command()).expect(0);
    assert_eq!(number(&parts(&again, 1), "had results already"), 1, "{again:?}");
    assert!(again.stdout.contains("The report is"), "{again:?}");
}

#[test]
fn a_source_that_is_refused_leaves_out_as_it_was() {
    let small = SmallRun::new(3);
    let broker = Broker::shared().url();
    let list = small.directory.path().join("list.csv");
    let [a, b] = [&small.keys[0], &small.keys[1]];
    let good = format!("key,label\n{a},cat\n{b},dog\n");
    let with_list = |command: &str, more: &[&str]| {
        let mut command = camshaft([command, &format!("list:{}", list.display())]);
        command.arg("--base").arg(&small.source).arg("--out").arg(&small.out);
        run(command.arg("--model").arg(&small.model).args(more))
    };
    let bad = [
        (format!("{good}{a},dog\n"), "different labels"),
        (format!("{good}\"c.jpg,cat\n"), "not closed"),
        (format!("{good},cat\n"), "it has no key"),
    ];
    for (content, reason) in &bad {
        fs::write(&list, content).unwrap();
        with_list("audit", &[]).expect_one_line(&["list.csv", reason]);
        with_list("enqueue", &["--broker", &broker]).expect_one_line(&["list.csv", reason]);
        assert!(!small.out.exists(), "{reason}");
    }
    let empty = small.directory.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let mut command = camshaft(["audit"]);
    let ended = run(command.arg(&empty).arg("--out").arg(&small.out));
    ended.expect_one_line(&["no images in"]);
    assert!(!small.out.exists());

    // A run that is there stays as it is, and goes on when the list is corrected.
    fs::write(&list, &good).unwrap();
    let _ended = with_list("audit", &[]).expect(0);
    let before = files_of_run(&small.out);
    for (content, reason) in &bad {
        fs::write(&list, content).unwrap();
        with_list("audit", &[]).expect_one_line(&["list.csv", reason]);
        with_list("enqueue", &["--broker", &broker]).expect_one_line(&["list.csv", reason]);
        assert_eq!(files_of_run(&small.out), before, "{reason}");
    }
    fs::write(&list, &good).unwrap();
    let again = with_list("audit", &[]).expect(0);
    assert_eq!(number(&parts(&again, 2), "had results already"), 2, "{again:?}");
}

/// `run.json`, and the generations of manifests.
fn files_of_run(out: &Path) -> (Vec<u8>, usize) {
    let manifests = fs::read_dir(out.join("manifest")).unwrap().count();
    (fs::read(out.join("run.json")).unwrap(), manifests)
}
