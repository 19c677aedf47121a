//! Which files are images: by name, and by `--include` and `--exclude`.

use std::fs;

use camshaft_common::prediction::FailureClass;
use camshaft_tests::programs::{camshaft, camshaft_with_report, run};
use camshaft_tests::small_run::SmallRun;
use serde_json::Value;

use super::{copy_to, run_record, write};

fn add_notes(small: &SmallRun) {
    for name in [
        "even/00000.txt",
        "odd/00001.txt",
        "a.TXT",
        "even/00000.xml",
        "desktop.ini",
        "Thumbs.db",
        "__MACOSX/a.jpg",
        ".DS_Store",
    ] {
        write(small, name, b"0 0.5 0.5 1 1");
    }
}

#[test]
fn notes_beside_images_are_counted_and_not_audited() {
    let small = SmallRun::new(3);
    add_notes(&small);
    let ended = small.audit(&["--max-failure-rate", "0"]).expect(0);
    assert!(ended.stdout.contains("3 predicted, 0 failed"), "{}", ended.stdout);
    assert!(ended.stdout.contains("8 not images (3 txt, 1 db, 1 ini, 1 xml"), "{}", ended.stdout);
    small.results().assert_exactly(&small.keys);
    let status = run(camshaft(["status", "--json"]).arg(&small.out)).expect(0);
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!((&status["images"], &status["not_images"]), (&3.into(), &8.into()));
    assert_eq!(status["skipped"]["by_extension"]["txt"], 3);
    let listed = small.audit(&["--list-skipped"]).expect(0);
    for line in ["skipped\tnot-an-image\teven/00000.txt", "skipped\thidden\t.DS_Store"] {
        assert!(listed.stdout.lines().any(|found| found == line), "{}", listed.stdout);
    }
}

#[test]
fn images_of_kinds_that_cannot_be_read_still_fail() {
    let small = SmallRun::new(1);
    for name in ["a.heic", "b.svg", "c.dcm", "scan.nii.gz", "LICENSE"] {
        write(&small, name, b"something else");
    }
    let ended = small.audit(&[]).expect(3);
    assert!(ended.stdout.contains("1 predicted, 5 failed"), "{}", ended.stdout);
    let results = small.results();
    assert!(results.failures.values().all(|f| f.error.class == FailureClass::Unsupported));
}

#[test]
fn globs_choose_the_images_and_are_kept_with_the_run() {
    let small = SmallRun::new(4);
    copy_to(&small, b"even/00000_mask.jpg");
    copy_to(&small, b"even/deep/x.jpg");
    copy_to(&small, b"photo.weird");
    let audit = |more: &[&str]| small.audit(more).expect(0).stdout;
    assert!(audit(&["--exclude", "*_mask.*", "--exclude", "odd/"]).contains("3 predicted"));
    let excluded = serde_json::json!({"exclude": ["*_mask.*", "odd/"]});
    assert_eq!(run_record(&small.out)["image_files"], excluded);
    // A run with other globs goes on; results of files that no longer count are not counted.
    let only = ["--include", "odd/*", "--include", "*.weird"];
    assert!(audit(&only).contains("3 predicted"), "two in odd/ and one more");
    let status = run(camshaft(["status", "--json"]).arg(&small.out)).expect(0);
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    let counts = ["images", "done", "failed", "remaining"].map(|name| status[name].clone());
    assert_eq!(counts, [3, 3, 0, 0].map(Value::from), "{status}");
    let report = run(camshaft_with_report(["report", "--json"]).arg(&small.out)).expect(0);
    let report: Value = serde_json::from_str(&report.stdout).unwrap();
    assert_eq!((&report["images"], &report["expected"]), (&3.into(), &3.into()));
    assert_eq!(report["not_images"], 4);
}

#[test]
fn nothing_but_other_files_is_an_error_that_counts_them() {
    let small = SmallRun::new(1);
    fs::remove_dir_all(&small.source).unwrap();
    fs::create_dir(&small.source).unwrap();
    add_notes(&small);
    small.audit(&[]).expect_one_line(&["no images in", "3 txt", "--include"]);
}

#[test]
fn globs_that_would_choose_nothing_are_refused() {
    let small = SmallRun::new(1);
    let list = small.directory.path().join("list");
    fs::write(&list, format!("{}\nnotes.txt\n", small.keys[0])).unwrap();
    write(&small, "notes.txt", b"no image");
    let audit_list = |more: &[&str]| {
        let mut command = camshaft(["audit", &format!("list:{}", list.display())]);
        command.arg("--base").arg(&small.source).arg("--out").arg(&small.out);
        run(command.arg("--model").arg(&small.model).args(more))
    };
    let ended = audit_list(&["--include", "*.jpg"]).expect(2);
    assert!(ended.stderr.contains("a list names its images"), "{}", ended.stderr);
    let one = small.source.join(&small.keys[0]);
    let mut command = camshaft(["audit", "--exclude", "*.png"]);
    let ended = run(command.arg(&one).arg("--out").arg(&small.out)).expect(2);
    assert!(ended.stderr.contains("is one file"), "{}", ended.stderr);
    let ended = small.audit(&["--include", "["]).expect(2);
    assert!(ended.stderr.contains("--include"), "{}", ended.stderr);
    // Lists are taken as they are.
    let ended = audit_list(&[]).expect(3);
    assert!(ended.stdout.contains("1 predicted, 1 failed"), "{}", ended.stdout);
}
