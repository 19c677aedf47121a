//! Tests `camshaft decide` and `camshaft apply` as a user runs them: from findings to a clean data set, that
//! `audit` and `train` take.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use camshaft_tests::images::files_below;
use camshaft_tests::programs::{Ended, Running, camshaft, camshaft_with_report, run};
use camshaft_tests::repository;
use camshaft_tests::s3::S3Server;
use camshaft_tests::small_run::SmallRun;
use serde_json::Value;
use tempfile::tempdir;

use crate::report::duckdb;

fn decide(out: &Path, more: &[&str]) -> Ended {
    run(camshaft(["decide"]).arg(out).args(more))
}

fn apply(out: &Path, to: &Path, more: &[&str]) -> Ended {
    run(camshaft(["apply"]).arg(out).arg("--to").arg(to).args(more))
}

/// A line of a file of decisions. `fields` are those that say what is decided.
fn line(key: &str, fields: &str) -> String {
    format!(r#"{{"schema":1,"key":"{key}",{fields},"by":"ana","at":"2026-11-29T07:00:00.123Z"}}"#)
        + "\n"
}

/// Writes a file of decisions: the first image is dropped, the second gets the other label.
fn write_decisions(small: &SmallRun) -> String {
    let path = small.directory.path().join("decisions.jsonl");
    let lines = [
        line(&small.keys[0], r#""decision":"drop","because":["outlier"]"#),
        line(&small.keys[1], r#""decision":"relabel","label":"even""#),
        line(&small.keys[2], r#""decision":"keep""#),
        line(&small.keys[3], r#""decision":"undecided""#),
    ];
    fs::write(&path, lines.concat()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The names of all files below a folder, in order.
fn names(folder: &Path) -> Vec<String> {
    let names = files_below(folder).into_iter();
    let names = names.map(|path| path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// The decisions in OUT's table, by key.
fn decided(out: &Path) -> BTreeMap<String, (String, Option<String>)> {
    let rows =
        duckdb(out, "SELECT key, decision, label FROM '{out}/decisions.parquet' ORDER BY key");
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let row = |row: &Value| {
        (text(&row["key"]).unwrap(), (text(&row["decision"]).unwrap(), text(&row["label"])))
    };
    rows.iter().map(row).collect()
}

#[test]
fn rules_make_a_list_that_audit_and_train_take() {
    let directory = tempdir().unwrap();
    let [out, csv, again, model] =
        ["out", "clean.csv", "again", "model"].map(|name| directory.path().join(name));
    let mut audit = camshaft(["audit"]);
    let _audited = run(audit.arg(repository::photos()).arg("--out").arg(&out)).expect(0);
    decide(&out, &["--drop", "exact"]).expect_one_line(&["has no report", "camshaft report"]);
    let _reported = run(camshaft(["report"]).arg(&out)).expect(0);
    apply(&out, &csv, &[]).expect_one_line(&["nothing is decided", "camshaft decide"]);

    let wrong = decide(&out, &["--drop", "exact and blured"]).expect(2);
    assert!(
        wrong.stderr.contains("character 11") && wrong.stderr.contains("blurred?"),
        "{}",
        wrong.stderr
    );
    decide(&out, &["--drop", "conflict", "--relabel", "label-error"]).expect_one_line(&[
        "dog/conflict-kitten.jpg",
        "drop \"conflict\"",
        "relabel \"label-error\"",
    ]);
    assert!(!out.join("decisions").exists());

    // A person has looked at one of the blurred ones.
    let clicks = directory.path().join("decisions.jsonl");
    let click =
        line("dog/blurred-shepherd.jpg", r#""decision":"keep","because":["image-problem"]"#);
    fs::write(&clicks, click).unwrap();
    let rules = [
        "--import",
        clicks.to_str().unwrap(),
        "--drop",
        "exact or failure or blurred or (near and best)",
        "--relabel",
        "label-error and score>0 and key~'*/swapped-*'",
        "--by",
        "night",
    ];
    let tried = decide(&out, &[&rules[..], &["--dry-run"]].concat()).expect(0);
    assert!(tried.stdout.contains("Would decide about 5 images"), "{}", tried.stdout);
    assert!(!out.join("decisions").exists());
    let done = decide(&out, &rules).expect(0);
    assert!(done.stdout.contains("2 to drop, 3 to relabel"), "{}", done.stdout);
    assert!(done.stdout.contains("1 image left as people decided"), "{}", done.stdout);
    let again_decided = decide(&out, &rules).expect(0);
    assert!(again_decided.stdout.contains("5 images had the same"), "{}", again_decided.stdout);
    let drop = ("drop".to_owned(), None);
    let relabel = |label: &str| ("relabel".to_owned(), Some(label.to_owned()));
    let expected = [
        ("cat/swapped-beagle.jpg", relabel("dog")),
        ("cat/swapped-shepherd.jpg", relabel("dog")),
        ("cat/tortoiseshell.jpg", drop.clone()),
        ("dog/blurred-shepherd.jpg", ("keep".to_owned(), None)),
        ("dog/broken-puppy.jpg", drop),
        ("dog/swapped-chelsea.jpg", relabel("cat")),
    ];
    let expected = expected.map(|(key, decision)| (key.to_owned(), decision));
    assert_eq!(decided(&out), BTreeMap::from(expected));

    let tried = apply(&out, &csv, &["--dry-run"]).expect(0);
    assert!(
        tried.stdout.contains("relabel cat/swapped-beagle.jpg: cat becomes dog"),
        "{}",
        tried.stdout
    );
    assert!(!csv.exists());
    let _applied = apply(&out, &csv, &[]).expect(0);
    let list = fs::read_to_string(&csv).unwrap();
    assert!(list.starts_with("key,label,split\n"), "{list}");
    assert_eq!(list.lines().count(), 1 + 43 - 2, "{list}");
    assert!(
        list.contains("\ncat/swapped-beagle.jpg,dog,\n") && !list.contains("tortoiseshell.jpg"),
        "{list}"
    );
    // It may write its own file again, and no other.
    let _applied = apply(&out, &csv, &[]).expect(0);
    let other = directory.path().join("mine.csv");
    fs::write(&other, "key\n").unwrap();
    apply(&out, &other, &[]).expect_one_line(&["mine.csv exists", "another --to"]);

    let source = format!("list:{}", csv.display());
    let mut audit = camshaft(["audit", &source, "--overlay", "none", "--base"]);
    let audited = run(audit.arg(repository::photos()).arg("--out").arg(&again)).expect(0);
    assert!(audited.stdout.contains("41 predicted, 0 failed"), "{}", audited.stdout);
    let small =
        ["--init", "random", "--architecture", "resnet18", "--image-size", "64", "--epochs", "1"];
    let mut train = camshaft(["train", &source, "--base"]);
    let trained =
        run(train.arg(repository::photos()).arg("--out").arg(&model).args(small)).expect(0);
    assert!(trained.stdout.contains("2 classes"), "{}", trained.stdout);
    // Another label is another training.
    fs::write(&csv, list.replace("beagle.jpg,dog", "beagle.jpg,cat")).unwrap();
    run(&mut train).expect_one_line(&["started with other settings"]);
    // The same goes on.
    fs::write(&csv, &list).unwrap();
    let same = run(&mut train).expect(0);
    assert!(same.stdout.contains("Trained for 1 epoch already"), "{}", same.stdout);

    // What somebody wrote into the list is not lost.
    fs::write(&csv, format!("{list}my/own.jpg,cat,\n")).unwrap();
    apply(&out, &csv, &[]).expect_one_line(&["was changed since", "choose another --to"]);
    fs::write(&csv, list).unwrap();
    let _again = apply(&out, &csv, &[]).expect(0);
    // A record of an older version does not tell the list: it is replaced as ever.
    let record = directory.path().join("clean.csv.undo.json");
    let mut older: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    assert!(older.as_object_mut().unwrap().remove("lists").is_some());
    fs::write(&record, older.to_string()).unwrap();
    let _nightly = apply(&out, &csv, &[]).expect(0);
    people_judge_a_sample(&out);
}

/// Draws label findings and images without one, decides about all of them, and reads what the report says.
fn people_judge_a_sample(out: &Path) {
    let read = |kind: &str| -> Value {
        let path = out.join(format!("decisions/samples/{kind}.json"));
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    };
    let drawn = decide(out, &["--sample", "2", "--of", "label-error"]).expect(0);
    assert!(drawn.stdout.contains("Drew 2 of "), "{}", drawn.stdout);
    let drawn = decide(out, &["--sample", "10", "--of", "no-label-error"]).expect(0);
    assert!(drawn.stdout.contains("Drew 10 of "), "{}", drawn.stdout);
    let (suspected, others) = (read("label-error"), read("no-label-error"));
    assert_eq!(suspected["kind"], "label-error");
    let keys = |sample: &Value| -> Vec<String> {
        let keys = sample["keys"].as_array().unwrap().iter();
        keys.map(|key| key.as_str().unwrap().to_owned()).collect()
    };
    // Of two label findings one is right; of ten other labels one is wrong.
    let (suspected, others) = (keys(&suspected), keys(&others));
    let mut lines = line(&suspected[0], r#""decision":"keep""#);
    lines += &line(&suspected[1], r#""decision":"relabel","label":"dog""#);
    lines += &line(&others[0], r#""decision":"relabel","label":"dog""#);
    lines.extend(others[1..].iter().map(|key| line(key, r#""decision":"keep""#)));
    let file = out.with_extension("judged.jsonl");
    // Later than what rules decided.
    fs::write(&file, lines.replace("2026-11-29", "2096-11-29")).unwrap();
    let _imported = decide(out, &["--import", file.to_str().unwrap()]).expect(0);
    let mut report = camshaft(["report", "--json", "--thumbnails", "0"]);
    let summary: Value = serde_json::from_str(&run(report.arg(out)).expect(0).stdout).unwrap();
    let judgements = &summary["judgements"];
    let checks = judgements["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["kind"] == "label-error").unwrap();
    assert_eq!((&check["judged"], &check["right"]), (&2.into(), &1.into()), "{judgements}");
    let left = &judgements["label_errors_left"];
    assert_eq!((&left["judged"], &left["wrong"]), (&10.into(), &1.into()), "{judgements}");
    let (at_most, of) = (left["at_most"].as_u64().unwrap(), left["of"].as_u64().unwrap());
    assert!(at_most > 0 && at_most < of, "{judgements}");
}

#[test]
fn a_folder_has_copies_links_or_the_images_themselves_and_a_move_can_be_undone() {
    let small = SmallRun::new(8);
    let _audited = small.audit(&[]).expect(0);
    let before = names(&small.source);
    let import = write_decisions(&small);
    let imported = decide(&small.out, &["--import", &import]).expect(0);
    assert!(
        imported.stdout.contains("1 to drop, 1 to keep, 1 to relabel, 1 taken back"),
        "{}",
        imported.stdout
    );
    let place = |name: &str| small.directory.path().join(name);
    let expected = [
        "even/00001.jpg",
        "even/00002.jpg",
        "even/00004.jpg",
        "even/00006.jpg",
        "metadata.jsonl",
        "odd/00003.jpg",
        "odd/00005.jpg",
        "odd/00007.jpg",
    ];
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    for (link, is_same_file) in [("copy", false), ("hard", true)] {
        let to = place(link);
        let _applied = apply(&small.out, &to, &["--link", link]).expect(0);
        assert_eq!(names(&to), expected, "{link}");
        let same = inode(&to.join("even/00001.jpg")) == inode(&small.source.join("odd/00001.jpg"));
        assert_eq!(same, is_same_file, "{link}");
        assert_eq!(names(&small.source), before, "{link}");
    }
    let metadata = fs::read_to_string(place("copy/metadata.jsonl")).unwrap();
    let relabelled = metadata.lines().find(|line| line.contains("00001")).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(relabelled).unwrap(),
        serde_json::json!({
            "file_name": "even/00001.jpg", "label": "even", "key": "odd/00001.jpg", "former_label": "odd",
        })
    );
    let undo: Value = serde_json::from_slice(&fs::read(place("copy.undo.json")).unwrap()).unwrap();
    assert_eq!(undo["changes"][0]["key"], "even/00000.jpg");
    assert_eq!(undo["changes"][0]["decision"], "drop");
    run(camshaft(["apply", "--undo"]).arg(place("copy.undo.json")))
        .expect_one_line(&["moved no image"]);

    apply(&small.out, &place("copy"), &[]).expect_one_line(&["is not empty"]);
    apply(&small.out, &small.source.join("clean"), &[]).expect_one_line(&["lies in SOURCE"]);
    let refused = apply(&small.out, &place("moved"), &["--link", "move"]).expect(2);
    assert!(refused.stderr.contains("add --yes"), "{}", refused.stderr);
    // One image has gone since the audit.
    fs::rename(small.source.join("odd/00005.jpg"), place("gone.jpg")).unwrap();
    let moved = apply(&small.out, &place("moved"), &["--link", "move", "--yes"]).expect(0);
    assert!(
        moved.stdout.contains("1 image not there") && moved.stdout.contains("odd/00005.jpg"),
        "{}",
        moved.stdout
    );
    let expected: Vec<_> = expected.into_iter().filter(|name| *name != "odd/00005.jpg").collect();
    let before: Vec<_> = before.into_iter().filter(|name| name != "odd/00005.jpg").collect();
    assert_eq!(names(&place("moved")), expected);
    assert_eq!(names(&small.source), ["even/00000.jpg"]);
    // As if it had been killed before the last one.
    fs::rename(place("moved/odd/00007.jpg"), small.source.join("odd/00007.jpg")).unwrap();
    let undone = run(camshaft(["apply", "--undo"]).arg(place("moved.undo.json"))).expect(0);
    assert!(undone.stdout.contains("Moved 5 images back"), "{}", undone.stdout);
    assert_eq!(names(&small.source), before);
    assert!(!place("moved").exists() && !place("moved.undo.json").exists());
}

#[test]
fn a_line_that_is_no_decision_is_named_and_nothing_is_written() {
    let small = SmallRun::new(4);
    let _audited = small.audit(&[]).expect(0);
    let import = write_decisions(&small);
    let mut lines = fs::read_to_string(&import).unwrap();
    lines.truncate(lines.len() - 20);
    fs::write(&import, lines).unwrap();
    decide(&small.out, &["--import", &import])
        .expect_one_line(&["decisions.jsonl, line 4", "not a decision"]);
    assert!(!small.out.join("decisions").exists());
    let nothing = decide(&small.out, &[]).expect(2);
    assert!(nothing.stderr.contains("nothing to decide"), "{}", nothing.stderr);
    // Decisions of a file alone, which does not become the run's.
    let import = write_decisions(&small);
    let csv = small.directory.path().join("clean.csv");
    let _applied = apply(&small.out, &csv, &["--decisions", &import]).expect(0);
    assert_eq!(
        fs::read_to_string(csv).unwrap(),
        "key,label,split\neven/00002.jpg,even,\nodd/00001.jpg,even,\nodd/00003.jpg,odd,\n"
    );
    assert!(!small.out.join("decisions.parquet").exists());
}

#[test]
fn several_that_decide_at_once_lose_nothing() {
    const WRITERS: usize = 4;
    const KEYS: usize = 50;
    let small = SmallRun::new(WRITERS * KEYS + 1);
    let _audited = small.audit(&[]).expect(0);
    let files = (0..WRITERS).map(|writer| {
        let path = small.directory.path().join(format!("{writer}.jsonl"));
        let keys = &small.keys[1 + writer * KEYS..][..KEYS];
        let lines = keys.iter().map(|key| line(key, r#""decision":"drop""#));
        fs::write(&path, lines.collect::<String>()).unwrap();
        path
    });
    let files: Vec<_> = files.collect();
    let writers = files
        .iter()
        .map(|file| Running::start(camshaft(["decide"]).arg(&small.out).arg("--import").arg(file)));
    let writers: Vec<_> = writers.collect();
    for writer in writers {
        let _ended = writer.end(Duration::from_secs(60)).expect(0);
    }
    assert_eq!(files_below(&small.out.join("decisions")).len(), WRITERS);
    // One more, which sees all of them.
    let import =
        write_decisions_of(&small, "last.jsonl", &line(&small.keys[0], r#""decision":"drop""#));
    let ended = decide(&small.out, &["--import", &import]).expect(0);
    assert!(
        ended.stdout.contains(&format!("{} images decided", WRITERS * KEYS + 1)),
        "{}",
        ended.stdout
    );
    assert_eq!(decided(&small.out).len(), WRITERS * KEYS + 1);
}

fn write_decisions_of(small: &SmallRun, name: &str, lines: &str) -> String {
    let path = small.directory.path().join(name);
    fs::write(&path, lines).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn decisions_and_clean_data_sets_may_be_in_a_bucket() {
    let small = SmallRun::new(6);
    let server = S3Server::s3s_fs();
    server.make_bucket("decisions");
    server.upload(&small.source, "s3://decisions/images");
    let bucket = server.bucket_folder("decisions");
    let out = "s3://decisions/out";
    let of = |mut command: std::process::Command| run(command.envs(server.variables()));
    let mut audit =
        camshaft_with_report(["audit", "s3://decisions/images", "--out", out, "--model"]);
    audit.arg(&small.model);
    let _audited = of(audit).expect(0);
    let import = write_decisions(&small);
    let ended =
        of(camshaft(["decide", out, "--import", &import, "--keep", "duplicate or best"])).expect(0);
    assert!(ended.stdout.contains("1 to drop, 1 to keep, 1 to relabel"), "{}", ended.stdout);
    assert!(bucket.join("out/decisions.parquet").exists());

    let _listed = of(camshaft(["apply", out, "--to", "s3://decisions/clean.csv"])).expect(0);
    let list = fs::read_to_string(bucket.join("clean.csv")).unwrap();
    assert_eq!(list.lines().count(), 6);
    assert!(bucket.join("clean.csv.undo.json").exists());
    let local = small.directory.path().join("clean");
    let mut copy = camshaft(["apply", out, "--to"]);
    copy.arg(&local);
    let _copied = of(copy).expect(0);
    let _copied = of(camshaft(["apply", out, "--to", "s3://decisions/clean"])).expect(0);
    assert_eq!(names(&local).len(), 6);
    assert!(bucket.join("clean/even/00001.jpg").exists());
    assert_eq!(
        fs::read(bucket.join("clean/even/00001.jpg")).unwrap(),
        fs::read(small.source.join("odd/00001.jpg")).unwrap()
    );
    of(camshaft(["apply", out, "--to", "s3://decisions/other", "--link", "hard"]))
        .expect_one_line(&["on this machine", "--link copy"]);
}
