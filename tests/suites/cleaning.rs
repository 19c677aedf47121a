//! Tests the whole way from a messy data set to a clean one: audit, decisions with the keyboard, a list,
//! training on it, and a second audit.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use camshaft_tests::images::files_below;
use camshaft_tests::planted::plant;
use camshaft_tests::programs::{camshaft, camshaft_with_report, run};
use camshaft_tests::repository;
use camshaft_tests::wait::until;
use serde_json::Value;
use tempfile::tempdir;

use crate::report::found;
use crate::serve::Served;

/// Copies every third photograph.
fn some_photos(photos: &Path, folder: &Path) {
    let mut files = files_below(photos);
    files.sort();
    for file in files.iter().step_by(3) {
        let copy = folder.join(file.strip_prefix(photos).unwrap());
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(file, copy).unwrap();
    }
}

fn train(source: &str, base: Option<&Path>, model: &Path) {
    let mut train = camshaft(["train", source, "--flip", "none", "--epochs", "4"]);
    if let Some(base) = base {
        train.arg("--base").arg(base);
    }
    let _trained = run(train.arg("--out").arg(model)).expect(0);
}

fn audit(source: &str, base: Option<&Path>, model: &Path, out: &Path) {
    let mut audit = camshaft_with_report(["audit", source, "--overlay", "none"]);
    if let Some(base) = base {
        audit.arg("--base").arg(base);
    }
    let _audited = run(audit.arg("--model").arg(model).arg("--out").arg(out)).expect(0);
}

fn accuracy(photos: &str, model: &Path, out: &Path) -> f64 {
    audit(photos, None, model, out);
    let summary = run(camshaft(["report", "--json", "--thumbnails", "0"]).arg(out)).expect(0);
    let summary: Value = serde_json::from_str(&summary.stdout).unwrap();
    summary["accuracy"].as_f64().unwrap()
}

#[test]
fn a_messy_set_is_cleaned_with_the_keyboard_and_the_next_audit_finds_it_clean() {
    let Some(pets) = repository::shared("data/pets") else { return };
    let directory = tempdir().unwrap();
    let place = |name: &str| directory.path().join(name);
    let (photos, source, messy) = (place("photos"), place("messy"), place("messy-out"));
    some_photos(&pets.join("train"), &photos.join("train"));
    let planted = plant(&photos, &source);
    let before = place("model-before");
    train(source.join("train").to_str().unwrap(), None, &before);
    audit(source.to_str().unwrap(), None, &before, &messy);

    let served = Served::start(messy.to_str().unwrap(), &[]);
    let mut browser = Command::new(repository::tool("venv/bin/python"));
    let script = repository::root().join("tests/browser/cleaning.py");
    let pressed = run(browser.arg(script).arg(&served.url)).expect(0);
    println!("keys: {}", pressed.stdout.trim());
    served.program.signal("INT");
    until("it has ended", Duration::from_secs(10), || {
        served.program.output()[0].contains("images decided")
    });

    let list = place("clean.csv");
    let _applied = run(camshaft(["apply"]).arg(&messy).arg("--to").arg(&list)).expect(0);
    let (after, clean) = (place("model-after"), place("clean-out"));
    let listed = format!("list:{}", list.display());
    train(&listed, Some(&source), &after);
    audit(&listed, Some(&source), &after, &clean);

    // What was planted, and what the second report still finds of it.
    let copies: BTreeSet<_> = planted.duplicates.iter().map(|(copy, _)| copy.clone()).collect();
    let originals: BTreeSet<_> = planted.duplicates.iter().map(|(_, of)| of.clone()).collect();
    println!("| planted        | planted | found before | found after |");
    println!("|----------------|---------|--------------|-------------|");
    let faults = [
        ("swapped labels", &planted.swapped, "kind = 'label-error'"),
        ("copies", &copies, "kind = 'duplicate'"),
        ("blurred", &planted.blurred, "problem = 'blurred'"),
        ("dark", &planted.dark, "problem = 'dark'"),
    ];
    for (what, planted, condition) in faults {
        let [first, second] = [&messy, &clean].map(|out| {
            let found = found(out, condition);
            // Of a pair either image may be the copy.
            let of_pairs = |key: &String| what == "copies" && originals.contains(key);
            found.into_iter().filter(|key| planted.contains(key) || of_pairs(key)).count()
        });
        println!("| {what:<14} | {:>7} | {first:>12} | {second:>11} |", planted.len());
        assert!(first * 10 >= planted.len() * 8, "{what}: the first audit finds them");
        assert_eq!(second, 0, "{what}: the second audit finds none");
    }
    let hold_out = pets.join("val");
    let hold_out = hold_out.to_str().unwrap();
    let [first, second] = [(&before, "before"), (&after, "after")]
        .map(|(model, name)| accuracy(hold_out, model, &place(name)));
    println!("accuracy on photographs that were not cleaned: {first:.4} before, {second:.4} after");
    assert!(second >= first, "cleaning does not harm: {first} before, {second} after");
}
