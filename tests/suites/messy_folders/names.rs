//! Entries of a folder that can be no key, no image, or no file.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use camshaft_common::prediction::FailureClass;
use camshaft_tests::broker::Broker;
use camshaft_tests::programs::{camshaft, camshaft_with_report, run, worker};
use camshaft_tests::small_run::SmallRun;
use serde_json::Value;

use super::{assert_all_done, assert_printable, copy_to, run_record, write};

#[test]
fn a_name_that_is_no_key_is_escaped_and_its_image_done() {
    let small = SmallRun::new(4);
    for name in [
        &b"caf\xe9.jpg"[..],
        b"a\nb.jpg",
        b"tab\t.jpg",
        b"red\x1b[31m.jpg",
        "c1\u{9b}.jpg".as_bytes(),
        b"odd\xff/x.jpg",
        b"%=x.jpg",
        b"a%2e.jpg",
        b"photo#1",
        "猫 é.jpg".as_bytes(),
    ] {
        copy_to(&small, name);
    }
    let odd = [
        "%=caf%E9.jpg",
        "%=a%0Ab.jpg",
        "%=tab%09.jpg",
        "%=red%1B[31m.jpg",
        "%=c1%C2%9B.jpg",
        "%=odd%FF/x.jpg",
        "%=%25=x.jpg",
        "a%2e.jpg",
        "photo#1",
        "猫 é.jpg",
    ];
    let ended = small.audit(&[]).expect(0);
    assert!(ended.stdout.contains("14 predicted, 0 failed"), "{}", ended.stdout);
    assert_printable(&ended);
    assert_all_done(&small, &odd);
    assert!(small.out.join("predictions/%=caf%E9.jpg.json").exists());
    assert!(small.out.join("overlays/%=odd%FF/x.jpg.jpg").exists());
    assert_eq!(run_record(&small.out)["images"], 14);
    // They are known again, and the report shows them.
    let again = small.audit(&[]).expect(0);
    assert!(again.stdout.contains("14 had results already"), "{}", again.stdout);
    let report = run(camshaft_with_report(["report", "--json"]).arg(&small.out)).expect(0);
    let report: Value = serde_json::from_str(&report.stdout).unwrap();
    assert_eq!((&report["images"], &report["failed"]), (&14.into(), &0.into()));
}

#[test]
fn keys_of_results_name_the_same_images_in_a_list() {
    let small = SmallRun::new(1);
    copy_to(&small, b"caf\xe9.jpg");
    let list = small.directory.path().join("list");
    fs::write(&list, "%=caf%E9.jpg\n../model/config.json\n\u{1b}[2J.jpg\na//b.jpg\n").unwrap();
    let mut command = camshaft(["audit", &format!("list:{}", list.display())]);
    command.arg("--base").arg(&small.source).arg("--out").arg(&small.out);
    let ended = run(command.arg("--model").arg(&small.model)).expect(3);
    assert_printable(&ended);
    let results = small.results();
    assert!(results.predictions.contains_key("%=caf%E9.jpg"));
    for (key, class) in [
        ("%=%2E%2E/model/config.json", FailureClass::Unsupported),
        ("%=%1B[2J.jpg", FailureClass::NotFound),
        ("a/%=/b.jpg", FailureClass::Unsupported),
    ] {
        assert_eq!(results.failures[key].error.class, class, "{key}");
    }
}

#[test]
fn odd_names_travel_through_the_queue() {
    let mut small = SmallRun::new(2);
    let long = format!("{}.jpg", "x".repeat(248));
    for name in [&b"caf\xe9\n.jpg"[..], long.as_bytes()] {
        copy_to(&small, name);
    }
    write(&small, "notes.txt", b"no image");
    let broker = Broker::shared().url();
    let enqueued = small.enqueue(&broker, &[]);
    assert!(enqueued.starts_with("Enqueued 4 of 4 images"), "{enqueued}");
    assert!(enqueued.contains("1 not an image (1 txt)"), "{enqueued}");
    let _ended = run(&mut worker(["--broker", &broker, "--exit-when-idle", "1"])).expect(0);
    small.keys.extend(["%=caf%E9%0A.jpg".to_owned(), long]);
    small.results().assert_exactly(&small.keys);
    assert_eq!(small.predictions(), 4);
    small.assert_adds_up(&broker);
}

#[test]
fn a_name_too_long_for_its_results_has_a_digest_in_them() {
    let small = SmallRun::new(2);
    let long: Vec<_> = [246, 250, 251].map(|bytes| format!("{}.jpg", "x".repeat(bytes - 4))).into();
    let deep = format!("{}/{}.jpg", "d".repeat(255), "y".repeat(251));
    for key in long.iter().chain([&deep]) {
        copy_to(&small, key.as_bytes());
    }
    let bad = format!("{}.jpg", "z".repeat(251));
    write(&small, &bad, b"no image");
    let _ended = small.audit(&["--target", "top-2", "--max-failure-rate", "0.2"]).expect(0);
    let keys: Vec<_> = long.iter().chain([&deep, &bad]).map(String::as_str).collect();
    assert_all_done(&small, &keys);
    let results = small.results();
    assert_eq!(results.failures[&bad].error.class, FailureClass::Unsupported);
    assert!(small.out.join(format!("predictions/{}.json", long[0])).exists(), "it fits");
    let again = small.audit(&["--target", "top-2", "--max-failure-rate", "0.2"]).expect(0);
    assert!(again.stdout.contains("7 had results already"), "{}", again.stdout);
    let status = run(camshaft(["status", "--json"]).arg(&small.out)).expect(0);
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!((&status["done"], &status["failed"]), (&6.into(), &1.into()), "{status}");
    assert_eq!(status["remaining"], 0);
    let _report = run(camshaft_with_report(["report"]).arg(&small.out)).expect(0);
}

#[test]
fn a_key_longer_than_a_stores_names_is_done() {
    let small = SmallRun::new(1);
    let key = format!("{}a.jpg", "folder-in-a-folder/".repeat(60));
    assert!(key.len() > 1024);
    copy_to(&small, key.as_bytes());
    let _ended = small.audit(&[]).expect(0);
    assert_all_done(&small, &[&key]);
}

#[test]
fn links_pipes_and_sockets_are_left_out_and_told() {
    let small = SmallRun::new(3);
    let at = |name: &str| small.source.join(name);
    symlink("..", at("even/back")).unwrap();
    symlink("self.jpg", at("self.jpg")).unwrap();
    symlink("nowhere.jpg", at("odd/broken\n.jpg")).unwrap();
    let made = Command::new("mkfifo").arg(at("pipe.jpg")).status();
    assert!(made.unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    let ended = small.audit(&[]).expect(0);
    assert_printable(&ended);
    assert_all_done(&small, &[]);
    for part in [
        "3 predicted, 0 failed",
        "Left out: 1 broken link, 2 links that lead back, 2 pipes, sockets or devices",
        "even/back/ (link that leads back)",
        "odd/%=broken%0A.jpg (broken link)",
    ] {
        assert!(ended.stdout.contains(part), "no {part:?} in {}", ended.stdout);
    }
    let skipped = &run_record(&small.out)["skipped"]["by_reason"];
    assert_eq!((&skipped["broken-link"], &skipped["not-a-file"]), (&1.into(), &2.into()));
    // A list may name them all the same: each fails alone, and nobody waits for the pipe's writer.
    let list = small.directory.path().join("list");
    fs::write(&list, format!("pipe.jpg\nself.jpg\neven\n{}\n", small.keys[0])).unwrap();
    let out = small.directory.path().join("out2");
    let mut command = camshaft(["audit", &format!("list:{}", list.display())]);
    command.arg("--base").arg(&small.source).arg("--out").arg(&out);
    let ended = run(command.arg("--model").arg(&small.model)).expect(3);
    assert!(ended.stdout.contains("1 predicted, 3 failed"), "{}", ended.stdout);
}

#[test]
fn what_may_not_be_read_fails_or_is_left_out_alone() {
    let small = SmallRun::new(3);
    let closed = copy_to(&small, b"closed/a.jpg");
    let folder = closed.parent().unwrap();
    let secret = copy_to(&small, b"secret.jpg");
    fs::set_permissions(folder, fs::Permissions::from_mode(0o0)).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o0)).unwrap();
    let is_root = fs::read_dir(folder).is_ok();
    let ended = small.audit(&["--max-failure-rate", "0.5"]).expect(0);
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).unwrap();
    // Permissions do not stop root.
    if is_root {
        assert_all_done(&small, &["closed/a.jpg", "secret.jpg"]);
        return;
    }
    assert_all_done(&small, &["secret.jpg"]);
    assert!(ended.stdout.contains("closed/ (Permission denied"), "{}", ended.stdout);
    let failure = &small.results().failures["secret.jpg"];
    assert_eq!(failure.error.class, FailureClass::AccessDenied);
}
