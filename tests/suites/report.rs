//! `camshaft report` as a user runs it: what it finds in a data set with known faults, its tables
//! in DuckDB, and its page in a browser.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use camshaft_tests::planted::{Planted, plant};
use camshaft_tests::programs::{Ended, camshaft, run};
use camshaft_tests::repository;
use camshaft_tests::small_run::SmallRun;
use serde_json::Value;
use tempfile::tempdir;

/// The rows of a query in DuckDB; `{out}` in it is OUT.
fn duckdb(out: &Path, query: &str) -> Vec<Value> {
    const SCRIPT: &str = "import duckdb, json, sys\n\
        found = duckdb.sql(sys.argv[1])\n\
        rows = [dict(zip(found.columns, row)) for row in found.fetchall()]\n\
        print(json.dumps(rows, default=str))";
    let query = query.replace("{out}", out.to_str().unwrap());
    let mut python = Command::new(repository::tool("venv/bin/python"));
    let ended = run(python.args(["-c", SCRIPT, &query])).expect(0);
    serde_json::from_str(&ended.stdout).unwrap()
}

fn report(out: &Path, more: &[&str]) -> Ended {
    let mut command = camshaft(["report"]);
    run(command.arg(out).args(more))
}

fn summary(out: &Path, more: &[&str]) -> Value {
    let ended = report(out, &[more, &["--json"]].concat()).expect(0);
    serde_json::from_str(&ended.stdout).unwrap()
}

/// What the page is drawn from.
fn page_data(out: &Path) -> Value {
    let page = fs::read_to_string(out.join("report/index.html")).unwrap();
    let start = "<script type=\"application/json\" id=\"report-data\">";
    let (_, data) = page.split_once(start).unwrap();
    let (data, _) = data.split_once("</script>").unwrap();
    serde_json::from_str(data).unwrap()
}

/// Keys of findings of a kind, or of some problems.
fn found(out: &Path, condition: &str) -> BTreeSet<String> {
    let query =
        format!("SELECT key FROM '{{out}}/report/findings.parquet' WHERE {condition} ORDER BY rank");
    let keys = duckdb(out, &query);
    keys.iter().map(|row| row["key"].as_str().unwrap().to_owned()).collect()
}

/// Precision and recall, printed as a line of a table.
#[expect(clippy::print_stdout, reason = "the table is what the test is for")]
fn score<T: Ord + std::fmt::Debug>(
    what: &str,
    planted: &BTreeSet<T>,
    found: &BTreeSet<T>,
) -> (f64, f64) {
    let both = planted.intersection(found).count() as f64;
    let precision = both / (found.len() as f64).max(1.0);
    let recall = both / planted.len() as f64;
    println!(
        "| {what:<14} | {:>7} | {:>5} | {precision:>9.3} | {recall:>6.3} |",
        planted.len(),
        found.len()
    );
    for missed in planted.difference(found) {
        println!("    missed {missed:?}");
    }
    for more in found.difference(planted) {
        println!("    not planted {more:?}");
    }
    (precision, recall)
}

/// The planted data set, its head trained anew, audited.
fn audit_planted(photos: &Path, directory: &Path) -> (Planted, PathBuf) {
    let [source, model, out] = ["planted", "model", "out"].map(|name| directory.join(name));
    let planted = plant(photos, &source);
    let mut train = camshaft(["train"]);
    train.arg(source.join("train")).arg("--out").arg(&model);
    let _trained = run(&mut train).expect(0);
    let mut audit = camshaft(["audit"]);
    audit.arg(&source).arg("--out").arg(&out).arg("--model").arg(&model);
    let _audited = run(&mut audit).expect(0);
    (planted, out)
}

#[test]
#[expect(clippy::print_stdout, reason = "the table is what the test is for")]
fn planted_faults_are_found() {
    let Some(photos) = repository::shared("data/pets") else { return };
    let directory = tempdir().unwrap();
    let (planted, out) = audit_planted(&photos, directory.path());

    println!("| planted        | planted | found | precision | recall |");
    println!("|----------------|---------|-------|-----------|--------|");
    let labels = score("swapped labels", &planted.swapped, &found(&out, "kind = 'label-error'"));
    let pairs = "SELECT key, other FROM '{out}/report/findings.parquet' WHERE kind = 'duplicate'";
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let sorted = |a: String, b: String| if a < b { (a, b) } else { (b, a) };
    let pairs = duckdb(&out, pairs);
    let pairs = pairs.iter().map(|row| sorted(text(&row["key"]), text(&row["other"]))).collect();
    let truth = planted.duplicates.iter().map(|(a, b)| sorted(a.clone(), b.clone())).collect();
    let duplicates = score("duplicates", &truth, &pairs);
    let blurred = score("blurred", &planted.blurred, &found(&out, "problem = 'blurred'"));
    let dark = score("dark", &planted.dark, &found(&out, "problem = 'dark'"));

    let data = page_data(&out);
    let flagged: Vec<_> =
        data["clusters"].as_array().unwrap().iter().filter(|c| c["shortcut"] == true).collect();
    for cluster in data["clusters"].as_array().unwrap() {
        println!("{} {}", cluster["shortcut"], cluster["reason"]);
    }
    let [tag] = &flagged[..] else { panic!("one shortcut was planted: {flagged:#?}") };
    assert_eq!((&tag["class"], &tag["place"]), (&"cat".into(), &"bottom right corner".into()));
    let examples = tag["examples"].as_array().unwrap();
    let tagged = examples.iter().filter(|e| planted.tagged.contains(e["key"].as_str().unwrap()));
    assert!(tagged.count() * 10 >= examples.len() * 9, "{examples:#?}");

    let at_least = |(precision, recall): (f64, f64), least: (f64, f64)| {
        assert!(precision >= least.0 && recall >= least.1, "{precision} {recall}");
    };
    at_least(labels, (0.7, 0.9));
    at_least(duplicates, (0.95, 0.95));
    at_least(blurred, (0.9, 0.9));
    at_least(dark, (0.9, 0.9));
}
