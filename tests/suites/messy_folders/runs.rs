//! SOURCE with earlier runs in it, and runs of older versions.

use std::fs;
use std::os::unix::fs::symlink;

use camshaft_tests::programs::{camshaft, camshaft_with_report, run};
use camshaft_tests::small_run::SmallRun;
use serde_json::Value;

use super::{run_record, write};

#[test]
fn results_of_earlier_runs_in_source_are_no_images() {
    let mut small = SmallRun::new(3);
    for name in ["run1", "run2", "deep/er/run3"] {
        small.out = small.source.join(name);
        let ended = small.audit(&[]).expect(0);
        assert!(ended.stdout.contains("3 predicted, 0 failed"), "{}", ended.stdout);
        small.results().assert_exactly(&small.keys);
    }
    let skipped = &run_record(&small.out)["skipped"]["by_reason"];
    // Each has three predictions and overlays, run.json and two files of its manifest. Of the last run
    // there was nothing yet.
    assert_eq!(skipped["result"], 2 * 9);
    // A run elsewhere, reached by a link.
    let elsewhere = small.directory.path().join("elsewhere");
    symlink(&elsewhere, small.source.join("link")).unwrap();
    small.out = elsewhere;
    for _ in 0..2 {
        let _ended = small.audit(&[]).expect(0);
        small.results().assert_exactly(&small.keys);
    }
}

#[test]
fn out_is_source_by_any_path_is_refused() {
    let mut small = SmallRun::new(1);
    let link = small.directory.path().join("link");
    symlink(&small.source, &link).unwrap();
    for out in [small.source.clone(), link, small.source.join("even/..")] {
        small.out = out;
        let ended = small.audit(&[]).expect(2);
        assert!(ended.stderr.contains("OUT is SOURCE itself"), "{}", ended.stderr);
    }
}

#[test]
fn a_run_of_an_older_version_goes_on_and_its_counts_are_right() {
    let small = SmallRun::new(3);
    for name in ["a.txt", "b.xml"] {
        write(&small, name, b"no image");
    }
    // As an older version took them.
    let _ended = small.audit(&["--include", "*", "--max-failure-rate", "1"]).expect(0);
    let path = small.out.join("run.json");
    let mut record = run_record(&small.out);
    let fields = record.as_object_mut().unwrap();
    for later in ["image_files", "skipped", "generation", "jobs_since", "manifest"] {
        assert!(fields.remove(later).is_some(), "{later}");
    }
    fs::remove_dir_all(small.out.join("manifest")).unwrap();
    fs::write(&path, record.to_string()).unwrap();
    let counts = || {
        let status = run(camshaft(["status", "--json"]).arg(&small.out)).expect(0);
        let status: Value = serde_json::from_str(&status.stdout).unwrap();
        ["images", "done", "failed", "remaining"].map(|name| status[name].as_u64().unwrap())
    };
    let reported = || {
        let report = run(camshaft_with_report(["report", "--json"]).arg(&small.out)).expect(0);
        let report: Value = serde_json::from_str(&report.stdout).unwrap();
        ["images", "predicted", "failed"].map(|name| report[name].as_u64().unwrap())
    };
    assert_eq!((counts(), reported()), ([5, 3, 2, 0], [5, 3, 2]), "as it was left");
    let again = small.audit(&["--max-failure-rate", "0"]).expect(0);
    assert!(again.stdout.contains("3 had results already"), "{}", again.stdout);
    assert_eq!((counts(), reported()), ([3, 3, 0, 0], [3, 3, 0]), "as it went on");
    assert_eq!(run_record(&small.out)["run"], record["run"], "the same run");
}
