//! Tests `camshaft audit` and `camshaft report` on image files made to do harm.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use camshaft_common::prediction::FailureClass;
use camshaft_tests::hostile::{Expected, Hostile, corpus};
use camshaft_tests::programs::{Ended, program, run};
use camshaft_tests::small_run::SmallRun;

/// Limit of the program's resident memory: memory that it has touched, with the pages of its own
/// file. A container counts this memory and kills a program for it. The test measures its peak.
const RESIDENT_KIB: usize = 1 << 20;

/// Limit of writable memory, touched or not (`RLIMIT_DATA`). The system refuses more, which ends a
/// Rust program. It is larger than [`RESIDENT_KIB`], since most of the stacks and of a picture's
/// zeros are never touched.
const WRITABLE_KIB: usize = 3 << 19;

/// Deadline for the audit. The few pictures of nearly a hundred megapixels take half of its time.
const DEADLINE: Duration = Duration::from_secs(300);

/// A Python script: runs a command within a limit of writable memory, and prints its peak of
/// resident memory in KiB.
const LIMITED: &str = "\
import resource, subprocess, sys
limit = int(sys.argv[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
status = subprocess.run(sys.argv[2:]).returncode
print('peak', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, flush=True)
sys.exit(status if status >= 0 else 128 - status)
";

/// `camshaft` with at most `writable_kib` KiB of writable memory.
fn limited(writable_kib: usize) -> Command {
    let mut command = Command::new("python3");
    command.args(["-c", LIMITED, &writable_kib.to_string()]).arg(program("camshaft"));
    command
}

/// Runs an audit; returns its end, and its peak of resident memory in KiB.
fn audit(small: &SmallRun) -> (Ended, usize) {
    let mut command = limited(WRITABLE_KIB);
    command
        .arg("audit")
        .arg(&small.source)
        .arg("--out")
        .arg(&small.out)
        .arg("--model")
        .arg(&small.model);
    // Some have the name of another kind of file.
    command.args(["--include", "*"]);
    let ended = run(command.args(["--max-failure-rate", "1"]));
    let peak = ended.stdout.lines().find_map(|line| line.strip_prefix("peak ")?.parse().ok());
    let peak = peak.unwrap_or_else(|| panic!("no peak in {ended:?}"));
    (ended, peak)
}

#[test]
fn hostile_images_each_fail_by_their_class_within_a_gibibyte_of_resident_memory() {
    let mut small = SmallRun::new(20);
    let good = small.keys.clone();
    let corpus = corpus();
    assert!(corpus.len() >= 300, "only {} files", corpus.len());
    for Hostile { name, bytes, .. } in &corpus {
        fs::write(small.source.join(name), bytes).unwrap();
        small.keys.push(name.clone());
    }
    let started = Instant::now();
    let (ended, peak_kib) = audit(&small);
    let ended = ended.expect(0);
    assert!(started.elapsed() < DEADLINE, "took {:?}", started.elapsed());
    assert!(peak_kib < RESIDENT_KIB, "{peak_kib} KiB were resident");
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);

    let results = small.results();
    results.assert_exactly(&small.keys);
    for key in &good {
        assert!(results.predictions.contains_key(key), "{key} suffered from its neighbours");
    }
    let found = |name: &str| results.failures.get(name).map(|failure| &failure.error);
    let wrong: Vec<_> = corpus
        .iter()
        .filter(|file| !is_as_expected(file.expected, found(&file.name).map(|error| error.class)))
        .map(|file| format!("{}: {:?}, not {:?}", file.name, found(&file.name), file.expected))
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), corpus.len(), wrong.join("\n"));
    for failure in results.failures.values() {
        let message = &failure.error.message;
        assert!(!message.is_empty() && message.len() < 500 && !message.contains('\n'), "{message}");
    }
}

/// The images take 243 MB each as pixels. They are all alike, so that all are findings with a
/// thumbnail.
#[test]
fn a_report_holds_one_large_image_at_a_time() {
    let small = SmallRun::new(2);
    let large = corpus().into_iter().find(|file| file.name == "nothing-but-an-end.bmp").unwrap();
    for copy in 0..6 {
        fs::write(small.source.join(format!("large-{copy}.bmp")), &large.bytes).unwrap();
    }
    let _audited = small.audit(&["--no-report"]).expect(0);
    let mut command = limited(RESIDENT_KIB / 4 * 3);
    let ended = run(command.arg("report").arg(&small.out)).expect(0);
    assert!(!ended.stderr.contains("thumbnail"), "{}", ended.stderr);
    let made = fs::read_dir(small.out.join("report/thumbnails/image")).unwrap().count();
    assert!(made >= 6, "{made} thumbnails");
}

fn is_as_expected(expected: Expected, found: Option<FailureClass>) -> bool {
    match expected {
        Expected::Prediction => found.is_none(),
        Expected::Failure(class) => found == Some(class),
        Expected::PredictionOrUndecodable => {
            matches!(found, None | Some(FailureClass::Undecodable))
        }
    }
}

#[test]
fn most_hostile_images_have_one_right_result() {
    let mut counts = BTreeMap::new();
    let corpus = corpus();
    for file in &corpus {
        *counts.entry(format!("{:?}", file.expected)).or_insert(0) += 1;
    }
    let open = counts.get("PredictionOrUndecodable").copied().unwrap_or(0);
    assert!(open * 6 < corpus.len(), "{open} of {} have two answers: {counts:?}", corpus.len());
    let names: std::collections::BTreeSet<_> = corpus.iter().map(|file| &file.name).collect();
    assert_eq!(names.len(), corpus.len(), "two files have one name");
}
