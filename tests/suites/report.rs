//! Tests `camshaft report` as a user runs it: its findings in a data set with known faults, its
//! tables in DuckDB, and its page in a browser.

mod labels;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use camshaft_tests::planted::{plant, teach_the_tag};
use camshaft_tests::programs::{Ended, camshaft, camshaft_with_report, run};
use camshaft_tests::repository;
use camshaft_tests::s3::S3Server;
use camshaft_tests::small_run::SmallRun;
use serde_json::Value;
use tempfile::tempdir;

/// The rows of a query in DuckDB. `{out}` in the query stands for OUT.
pub(crate) fn duckdb(out: &Path, query: &str) -> Vec<Value> {
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

/// The data in the report's page.
fn page_data(out: &Path) -> Value {
    let page = fs::read_to_string(out.join("report/index.html")).unwrap();
    let start = "<script type=\"application/json\" id=\"report-data\">";
    let (_, data) = page.split_once(start).unwrap();
    let (data, _) = data.split_once("</script>").unwrap();
    serde_json::from_str(data).unwrap()
}

/// The keys of findings that meet an SQL condition.
pub(crate) fn found(out: &Path, condition: &str) -> BTreeSet<String> {
    let query = format!(
        "SELECT key FROM '{{out}}/report/findings.parquet' WHERE {condition} ORDER BY rank"
    );
    let keys = duckdb(out, &query);
    keys.iter().map(|row| row["key"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_sample_photos_show_every_planted_fault_and_no_other() {
    let out = tempdir().unwrap();
    let out = out.path();
    let mut audit = camshaft_with_report(["audit"]);
    let ended = run(audit.arg(repository::photos()).arg("--out").arg(out)).expect(0);
    assert!(ended.stdout.contains("42 predicted, 1 failed"), "{}", ended.stdout);

    let findings = duckdb(
        out,
        "SELECT kind, problem, key, other FROM '{out}/report/findings.parquet' ORDER BY kind, problem, key",
    );
    let findings: Vec<_> = findings
        .iter()
        .map(|row| ["kind", "problem", "key", "other"].map(|name| row[name].as_str()))
        .collect();
    let duplicate =
        |problem, key, other| [Some("duplicate"), Some(problem), Some(key), Some(other)];
    let poor = |problem, key| [Some("image-problem"), Some(problem), Some(key), None];
    let swapped = |key| [Some("label-error"), None, Some(key), None];
    let planted = [
        duplicate("conflict", "dog/conflict-kitten.jpg", "cat/kitten.jpg"),
        duplicate("exact", "cat/tortoiseshell.jpg", "cat/tortoiseshell-copy.jpg"),
        duplicate("near", "dog/shepherd-resaved.jpg", "dog/shepherd.jpg"),
        [Some("failure"), None, Some("dog/broken-puppy.jpg"), None],
        poor("blurred", "dog/blurred-shepherd.jpg"),
        poor("dark", "cat/dark-kitten.jpg"),
        swapped("cat/swapped-beagle.jpg"),
        swapped("cat/swapped-shepherd.jpg"),
        swapped("dog/conflict-kitten.jpg"),
        swapped("dog/swapped-chelsea.jpg"),
    ];
    assert_eq!(findings, planted);

    let failed = duckdb(
        out,
        "SELECT key, failure FROM '{out}/report/predictions.parquet' WHERE failure IS NOT NULL",
    );
    let [failed] = &failed[..] else { panic!("one file is broken: {failed:?}") };
    assert_eq!(failed["key"], "dog/broken-puppy.jpg");
    assert_eq!(failed["failure"], "undecodable");
}

/// Precision and recall of the findings. Also prints them as a line of a table.
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

/// Trains a head on the images in `training` and audits those in `source`.
fn train_and_audit(training: &Path, options: &[&str], source: &Path, out: &Path) {
    let model = out.with_extension("model");
    let mut train = camshaft(["train"]);
    let _trained = run(train.arg(training).arg("--out").arg(&model).args(options)).expect(0);
    let mut audit = camshaft(["audit", "--overlay", "none"]);
    audit.arg(source).arg("--out").arg(out).arg("--model").arg(&model);
    let _audited = run(&mut audit).expect(0);
    let _reported = report(out, &["--thumbnails", "0"]).expect(0);
}

#[test]
fn planted_faults_are_found() {
    let Some(photos) = repository::shared("data/pets") else { return };
    let directory = tempdir().unwrap();
    let [source, out] = ["planted", "out"].map(|name| directory.path().join(name));
    let planted = plant(&photos, &source);
    // Features of mirror images would take as long again.
    train_and_audit(&source.join("train"), &["--flip", "none"], &source, &out);

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

    let at_least = |(precision, recall): (f64, f64), least: (f64, f64)| {
        assert!(precision >= least.0 && recall >= least.1, "{precision} {recall}");
    };
    at_least(labels, (0.7, 0.9));
    at_least(duplicates, (0.95, 0.95));
    // Precision is lower here: some photographs were blurred before.
    at_least(blurred, (0.8, 0.9));
    at_least(dark, (0.9, 0.9));
}

#[test]
fn a_planted_shortcut_is_found() {
    let Some(photos) = repository::shared("data/pets") else { return };
    let directory = tempdir().unwrap();
    let [source, lesson, out] =
        ["planted", "lesson", "out"].map(|name| directory.path().join(name));
    let planted = plant(&photos, &source);
    teach_the_tag(&source, &planted, &lesson);
    let options = ["--epochs", "30", "--learning-rate", "1e-3", "--flip", "none"];
    train_and_audit(&lesson, &options, &source.join("train"), &out);
    let data = page_data(&out);
    let flagged: Vec<_> =
        data["clusters"].as_array().unwrap().iter().filter(|c| c["shortcut"] == true).collect();
    for cluster in data["clusters"].as_array().unwrap() {
        println!("{} {}", cluster["shortcut"], cluster["reason"]);
    }
    let [tag] = &flagged[..] else { panic!("one shortcut was planted: {flagged:#?}") };
    assert_eq!((&tag["class"], &tag["place"]), (&"cat".into(), &"bottom right corner".into()));
    let examples = tag["examples"].as_array().unwrap();
    let tagged = examples
        .iter()
        .filter(|e| planted.tagged.contains(&format!("train/{}", e["key"].as_str().unwrap())));
    assert!(tagged.count() * 10 >= examples.len() * 9, "{examples:#?}");
    prove_the_tag(&source.join("train"), &out);
}

/// Proves the flagged cluster on the finished run: it is a shortcut.
#[expect(clippy::print_stdout, reason = "the numbers are what the test is for")]
fn prove_the_tag(source: &Path, out: &Path) {
    let mut prove = camshaft_with_report(["audit", "--overlay", "none", "--prove-shortcuts", "50"]);
    prove.arg(source).arg("--out").arg(out).arg("--model").arg(out.with_extension("model"));
    let ended = run(&mut prove).expect(0);
    println!("{}", ended.stdout);
    let proofs: Value =
        serde_json::from_slice(&fs::read(out.join("shortcuts.json")).unwrap()).unwrap();
    let [proof] = &proofs["proofs"].as_array().unwrap()[..] else { panic!("{proofs:#}") };
    assert_eq!((&proof["class"], &proof["verdict"]), (&"cat".into(), &"confirmed".into()));
    let mean = |of: &str, what: &str| proof[of][what]["mean"].as_f64().unwrap();
    for what in ["rate", "probability_rise"] {
        assert!(mean("patch", what) > mean("random_place", what) + 0.05, "{proof:#}");
    }
    let finding = "SELECT verdict, rank, reason FROM '{out}/report/findings.parquet' \
        WHERE kind = 'shortcut'";
    let [finding] = &duckdb(out, finding)[..] else { panic!("one shortcut was planted") };
    assert_eq!((&finding["verdict"], &finding["rank"]), (&"confirmed".into(), &1.into()));
    assert!(finding["reason"].as_str().unwrap().contains("Confirmed: "), "{finding}");
    let data = page_data(out);
    let cluster = &data["clusters"][0];
    assert_eq!((&cluster["shortcut"], &cluster["proof"]), (&true.into(), proof));
}

/// Keys that would do harm if a page took them for markup, or put them into an address as they are.
const HOSTILE: [&str; 5] = [
    "even/<script>alert(1)<script>.jpg",
    "odd/\"><img src=x onerror=alert(1)>.jpg",
    "odd/a b#c?d%20é&amp;.jpg",
    "even/'; DROP TABLE--.jpg",
    "even/javascript:alert(1).jpg",
];

#[test]
fn tables_are_read_by_duckdb_and_the_page_by_a_browser() {
    let small = SmallRun::new(60);
    for (key, index) in HOSTILE.iter().zip(0..) {
        // Copies of the first two images, so that each of these keys is in a finding.
        fs::copy(small.source.join(&small.keys[index % 2]), small.source.join(key)).unwrap();
    }
    fs::write(small.source.join("even/broken.jpg"), b"\xff\xd8\xff\xe0 no more").unwrap();
    let mut audit = camshaft_with_report(["audit", "--embeddings"]);
    audit.arg(&small.source).arg("--out").arg(&small.out).arg("--model").arg(&small.model);
    let audited = run(&mut audit).expect(0);
    assert!(audited.stdout.contains("The report is "), "{}", audited.stdout);
    let images = small.keys.len() + HOSTILE.len() + 1;

    let table = summary(&small.out, &["--embeddings", "--csv"]);
    assert_eq!((&table["images"], &table["failed"]), (&images.into(), &1.into()), "{table}");
    assert!(table["findings"]["duplicate"].as_u64().unwrap() >= 5, "{table}");
    let count = |name| table["findings"][name].as_u64().unwrap();
    assert!((1..=count("duplicate")).contains(&count("duplicate-groups")), "{table}");
    let counted = "SELECT count(*) AS images, count(predicted) AS predicted, count(failure) AS failed, \
        min(len(embedding)) AS numbers, min(len(map)) AS cells, max(probability) AS sure, \
        avg(blur) AS blur, max(finished_at) > TIMESTAMP '2026-01-01' AS recent \
        FROM '{out}/report/predictions.parquet'";
    let [row] = &duckdb(&small.out, counted)[..] else { panic!("one row") };
    assert_eq!(
        (&row["images"], &row["predicted"]),
        (&images.into(), &(images - 1).into()),
        "{row}"
    );
    // With an input of 64 pixels a map has 2 × 2 cells.
    assert_eq!((&row["numbers"], &row["cells"]), (&2048.into(), &4.into()), "{row}");
    assert!(row["recent"] == true && (0.1..1.0).contains(&row["blur"].as_f64().unwrap()), "{row}");
    let in_csv =
        "SELECT count(*) AS rows, count(DISTINCT key) AS keys FROM '{out}/report/predictions.csv'";
    assert_eq!(duckdb(&small.out, in_csv)[0]["keys"], images);
    // The table has the embeddings of the result files.
    let key = &small.keys[0];
    let one = format!(
        "SELECT embedding[1:3] AS first FROM '{{out}}/report/predictions.parquet' WHERE key = '{key}'"
    );
    let of_table = duckdb(&small.out, &one);
    let result = fs::read(small.out.join(format!("predictions/{key}.json"))).unwrap();
    let result: camshaft_common::prediction::PredictionRecord =
        serde_json::from_slice(&result).unwrap();
    let halves = result.embedding.unwrap().values.unwrap().0;
    for (index, half) in halves[..3].iter().enumerate() {
        let value = of_table[0]["first"][index].as_f64().unwrap();
        assert_eq!(half_to_f64(*half), value);
    }

    let mut browser = Command::new(repository::tool("venv/bin/python"));
    browser.arg(repository::root().join("tests/browser/report_page.py")).arg(&small.out);
    let _seen = run(&mut browser).expect(0);
    let listed = found(&small.out, "true");
    for key in HOSTILE {
        let other = format!("other = '{}'", key.replace('\'', "''"));
        assert!(listed.contains(key) || !found(&small.out, &other).is_empty(), "no {key}");
    }
}

/// Converts a little-endian IEEE 754 binary16 number.
fn half_to_f64(half: [u8; 2]) -> f64 {
    let bits = u16::from_le_bytes(half);
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    match exponent {
        0 => sign * fraction * 2.0_f64.powi(-24),
        _ => sign * (1024.0 + fraction) * 2.0_f64.powi(exponent - 25),
    }
}

#[test]
fn the_queries_in_the_documentation_run() {
    let small = SmallRun::new(12);
    let _audited = small.audit(&[]).expect(0);
    let _reported = report(&small.out, &[]).expect(0);
    let page = fs::read_to_string(repository::root().join("README.md")).unwrap();
    let (_, queries) = page.split_once("```sql\n").unwrap();
    let (queries, _) = queries.split_once("```").unwrap();
    let queries: Vec<_> = queries.split(";\n").filter(|query| !query.trim().is_empty()).collect();
    assert_eq!(queries.len(), 3);
    for query in queries {
        let query = query.replace("'audit/", "'{out}/");
        let _rows = duckdb(&small.out, &query);
    }
}

#[test]
fn conditions_decide_the_exit_status() {
    let small = SmallRun::new(12);
    let _audited = small.audit(&[]).expect(0);
    let _holds_not = report(&small.out, &["--fail-on", "failed>0,images<12"]).expect(0);
    let held = report(&small.out, &["--fail-on", "failed>0,images>=12"]).expect(4);
    assert!(held.stderr.contains("images>=12 (12)") && !held.stderr.contains("failed"), "{held:?}");
    let _unknown = report(&small.out, &["--fail-on", "imges>1"]).expect(2);
    let alone = report(&small.out, &["--fail-on", "changed>0"]).expect(2);
    assert!(alone.stderr.contains("--fail-on changed>0") && alone.stderr.contains("--against"));
    // Without labels the accuracy is not known.
    let mut audit =
        camshaft_with_report(["audit", "--labels", "none", "--fail-on", "accuracy<0.9"]);
    let other = small.out.with_extension("other");
    audit.arg(&small.source).arg("--out").arg(&other).arg("--model").arg(&small.model);
    let ended = run(&mut audit).expect(1);
    assert!(ended.stderr.contains("accuracy is not known"), "{}", ended.stderr);
}

#[test]
fn a_missing_run_or_missing_embeddings_are_reported_in_one_line() {
    let small = SmallRun::new(4);
    report(&small.source, &[]).expect_one_line(&["no run", "run.json"]);
    let _audited = small.audit(&[]).expect(0);
    report(&small.out, &["--embeddings"]).expect_one_line(&["--embeddings"]);
    let prediction = small.out.join(format!("predictions/{}.json", small.keys[0]));
    fs::write(&prediction, b"{\"schema\":1").unwrap();
    let table = summary(&small.out, &[]);
    assert_eq!((&table["unreadable"], &table["images"]), (&1.into(), &3.into()), "{table}");
    let note = table["notes"][0].as_str().unwrap();
    assert!(note.contains(&small.keys[0]), "{note}");
    let _closed = report(&small.out, &["--fail-on", "unreadable>0"]).expect(4);
}

#[test]
fn two_runs_are_compared_and_reports_can_lie_in_buckets() {
    let small = SmallRun::new(40);
    let _audited = small.audit(&[]).expect(0);
    // The bundled model's input has 224 pixels a side, the small model's 64, so that the maps
    // differ.
    let before = small.out.with_extension("before");
    let mut audit = camshaft(["audit"]);
    let _audited = run(audit.arg(&small.source).arg("--out").arg(&before)).expect(0);
    let table = summary(&small.out, &["--against", before.to_str().unwrap()]);
    let comparison = &table["comparison"];
    assert_eq!((&comparison["both"], &comparison["only_here"]), (&40.into(), &0.into()), "{table}");
    let changed = "SELECT count(*) FILTER (before <> now) AS changed, count(distance) AS maps, \
        min(distance) AS least, max(distance) AS most FROM '{out}/report/comparison.parquet'";
    let [row] = &duckdb(&small.out, changed)[..] else { panic!("one row") };
    assert_eq!(row["changed"], comparison["changed"]);
    let (least, most) = (row["least"].as_f64().unwrap(), row["most"].as_f64().unwrap());
    assert!(row["maps"] == 40 && 0.0 < least && most <= 1.0, "{row}");
    let data = page_data(&small.out);
    assert_eq!(data["comparison"]["moved"].as_array().unwrap().len(), 40);
    // They are the same images.
    let drift = comparison["drift"].as_array().unwrap();
    assert!(drift.len() >= 6 && drift.iter().all(|input| input["drifted"] == false), "{drift:?}");

    for server in [S3Server::s3s_fs(), S3Server::moto()] {
        server.make_bucket("reports");
        server.upload(&small.out, "s3://reports/run");
        let mut command = camshaft(["report", "s3://reports/run", "--json"]);
        let ended = run(command.envs(server.variables())).expect(0);
        let table: Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(table["images"], 40, "{table}");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let out = server.folder("s3://reports/run");
        let page = runtime.block_on(out.get("report/index.html", 1 << 24)).unwrap();
        assert!(page.bytes.starts_with(b"<!doctype html>"));
        let stored = runtime.block_on(out.get("report/predictions.parquet", 1 << 24)).unwrap();
        assert!(stored.bytes.starts_with(b"PAR1") && stored.bytes.ends_with(b"PAR1"));
    }
}
