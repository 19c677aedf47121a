//! `camshaft audit` on files made to do harm.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use camshaft_common::prediction::FailureClass;
use camshaft_tests::hostile::{Expected, Hostile, corpus};
use camshaft_tests::programs::{Ended, program, run};
use camshaft_tests::small_run::SmallRun;

/// What a container of 1 GiB allows a program to write to, heap and stacks alike: the system
/// refuses more (`RLIMIT_DATA`), which ends a Rust program. Not the limit on address space, for
/// that counts what the allocator reserves and never touches, nor on the program's file, which
/// a container may drop from memory and read again.
const MEMORY_KIB: usize = 1 << 20;

/// Half of it is spent on the few pictures of nearly a hundred megapixels.
const DEADLINE: Duration = Duration::from_secs(300);

fn audit(small: &SmallRun) -> Ended {
    let mut command = Command::new("sh");
    let limited = format!("ulimit -d {MEMORY_KIB} && exec \"$@\"");
    command.args(["-c", &limited, "limited"]).arg(program("camshaft")).arg("audit");
    command.arg(&small.source).arg("--out").arg(&small.out).arg("--model").arg(&small.model);
    run(command.args(["--max-failure-rate", "1"]))
}

#[test]
fn hostile_images_each_fail_by_their_class_within_a_gibibyte_of_writable_memory() {
    let mut small = SmallRun::new(20);
    let good = small.keys.clone();
    let corpus = corpus();
    assert!(corpus.len() >= 300, "only {} files", corpus.len());
    for Hostile { name, bytes, .. } in &corpus {
        fs::write(small.source.join(name), bytes).unwrap();
        small.keys.push(name.clone());
    }
    let started = Instant::now();
    let ended = audit(&small).expect(0);
    assert!(started.elapsed() < DEADLINE, "took {:?}", started.elapsed());
    assert!(ended.stderr.is_empty(), "{}", ended.stderr);

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
fn nearly_every_hostile_image_has_one_right_answer() {
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
