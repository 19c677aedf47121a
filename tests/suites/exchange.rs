//! Tests `camshaft export`, and `camshaft decide --import` of what people make of its files, with the other
//! programs' own packages: Label Studio's SDK, pycocotools, FiftyOne, pandas and Polars.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use camshaft_tests::images::files_below;
use camshaft_tests::programs::{Ended, camshaft, camshaft_with_report, run};
use camshaft_tests::repository;
use camshaft_tests::s3::S3Server;
use camshaft_tests::small_run::SmallRun;
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use crate::report::duckdb;

/// An image with a wrong label, and its right label.
const SWAPPED: (&str, &str) = ("cat/swapped-beagle.jpg", "dog");
/// The formats, and the files that the tests write.
const FORMATS: [(&str, &str); 4] = [
    ("label-studio", "tasks.json"),
    ("cvat", "annotations.xml"),
    ("coco", "coco.json"),
    ("csv", "sheet.csv"),
];

/// A run of the sample photographs, with its report.
struct Audited {
    directory: TempDir,
    out: PathBuf,
}

impl Audited {
    fn new() -> Self {
        let directory = tempdir().unwrap();
        let out = directory.path().join("audit");
        let mut audit = camshaft_with_report(["audit"]);
        let _audited = run(audit.arg(repository::photos()).arg("--out").arg(&out)).expect(0);
        Self { directory, out }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn export(&self, format: &str, name: &str, more: &[&str]) -> Ended {
        let mut export = camshaft(["export"]);
        export.arg(&self.out).args(["--as", format, "--to"]).arg(self.path(name));
        run(export.args(more))
    }

    fn import(&self, name: &str, more: &[&str]) -> Ended {
        let mut decide = camshaft(["decide"]);
        run(decide.arg(&self.out).arg("--import").arg(self.path(name)).args(more))
    }

    /// Takes all decisions away.
    fn forget(&self) {
        drop(fs::remove_dir_all(self.out.join("decisions")));
        drop(fs::remove_file(self.out.join("decisions.parquet")));
    }

    /// What is decided, by key: the decision, its label, and who decided.
    fn decided(&self) -> BTreeMap<String, [Value; 3]> {
        let query = "SELECT key, decision, label, \"by\" FROM '{out}/decisions.parquet'";
        let rows = duckdb(&self.out, query).into_iter();
        let text = |row: &Value| row["key"].as_str().unwrap().to_owned();
        let rest = |row: &Value| ["decision", "label", "by"].map(|name| row[name].clone());
        rows.map(|row| (text(&row), rest(&row))).collect()
    }

    fn parts(&self) -> usize {
        let folder = self.out.join("decisions");
        if folder.exists() { files_below(&folder).len() } else { 0 }
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn read_json(&self, name: &str) -> Value {
        serde_json::from_str(&self.read(name)).unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }
}

/// Runs Python with the other programs' packages in a folder.
fn python(folder: &Path, script: &str) -> Ended {
    let mut python = Command::new(repository::tool("exchange/bin/python"));
    run(python.current_dir(folder).args(["-W", "ignore", "-c", script]))
}

/// What a person makes of an exported file: the label of one image is put right.
fn correct(audited: &Audited, format: &str, name: &str) {
    let (key, label) = SWAPPED;
    let edited = match format {
        "label-studio" => {
            let mut tasks = audited.read_json(name);
            let of_key = |task: &&mut Value| task["data"]["camshaft_key"] == key;
            let task = tasks.as_array_mut().unwrap().iter_mut().find(of_key).unwrap();
            task["annotations"] = json!([{
                "completed_by": {"id": 1, "email": "ana@example.org"},
                "created_at": "2026-11-29T07:00:00.123456Z",
                "result": [{
                    "from_name": "new_label", "to_name": "image", "type": "choices",
                    "value": {"choices": [label]},
                }],
            }]);
            tasks.to_string()
        }
        "cvat" => {
            let text = audited.read(name);
            let (before, after) = text.split_once(&format!("name=\"{key}\"")).unwrap();
            let after = after.replacen("label=\"cat\"", &format!("label=\"{label}\""), 1);
            format!("{before}name=\"{key}\"{after}")
        }
        "coco" => {
            let mut coco = audited.read_json(name);
            let id_of = |list: &str, field: &str, wanted: &str| {
                let list = coco[list].as_array().unwrap();
                list.iter().find(|item| item[field] == wanted).unwrap()["id"].clone()
            };
            let (image, category) =
                (id_of("images", "file_name", key), id_of("categories", "name", label));
            let of_image = |item: &&mut Value| item["image_id"] == image;
            let annotations = coco["annotations"].as_array_mut().unwrap();
            annotations.iter_mut().find(of_image).unwrap()["category_id"] = category;
            coco.to_string()
        }
        _ => {
            let text = audited.read(name);
            let lines = text.lines().map(|line| match line.strip_suffix(",,") {
                Some(rest) if line.starts_with(key) => format!("{rest},,{label}\n"),
                _ => format!("{line}\n"),
            });
            lines.collect()
        }
    };
    audited.write(name, &edited);
}

#[test]
fn an_untouched_export_decides_nothing_and_one_correction_is_one_decision() {
    let audited = Audited::new();
    for (format, name) in FORMATS {
        let exported = audited.export(format, name, &["--all"]).expect(0);
        let images = if ["cvat", "coco"].contains(&format) { 42 } else { 43 };
        assert!(
            exported.stdout.contains(&format!("{images} images exported")),
            "{}",
            exported.stdout
        );
        let untouched = audited.import(name, &[]).expect(0);
        assert!(untouched.stdout.contains("Took over 0 decisions"), "{}", untouched.stdout);
        assert_eq!(audited.parts(), 0, "{format}");

        // Its name does not tell what it is.
        let renamed = format!("{name}.bak");
        fs::rename(audited.path(name), audited.path(&renamed)).unwrap();
        correct(&audited, format, &renamed);
        let tried = audited.import(&renamed, &["--dry-run"]).expect(0);
        assert!(
            tried.stdout.contains("Would take over 1 decision: 1 to relabel"),
            "{}",
            tried.stdout
        );
        let corrected = audited.import(&renamed, &[]).expect(0);
        assert!(
            corrected.stdout.contains("Took over 1 decision: 1 to relabel"),
            "{}",
            corrected.stdout
        );
        let by = if format == "label-studio" { "ana@example.org" } else { format };
        let (key, label) = SWAPPED;
        let expected = [json!("relabel"), json!(label), json!(by)];
        assert_eq!(audited.decided(), BTreeMap::from([(key.to_owned(), expected)]), "{format}");
        let because = duckdb(&audited.out, "SELECT because FROM '{out}/decisions.parquet'");
        assert_eq!(because[0]["because"], json!(["label-error"]), "{format}");

        let again = audited.import(&renamed, &[]).expect(0);
        assert!(again.stdout.contains("1 image had the same decision already"), "{}", again.stdout);
        assert_eq!(audited.parts(), 1, "{format}");
        audited.forget();
    }
}

#[test]
fn label_studios_own_code_takes_the_tasks_and_gives_them_back_in_three_forms() {
    const SCRIPT: &str = r#"
import json, os, sys
from label_studio_sdk.converter import Converter
from label_studio_sdk.label_interface import LabelInterface

config = open("tasks.config.xml").read()
interface = LabelInterface(config)
interface.validate()
tasks = json.load(open("tasks.json"))
for number, task in enumerate(tasks, 1):
    assert interface.validate_task({"data": task["data"]}), task
    for prediction in task["predictions"]:
        assert interface.validate_prediction(prediction), prediction
    # What Label Studio adds. One task is labelled by two people, and one is skipped.
    task["id"], task["annotations"] = number, []
def annotate(key, choice, time, person, **more):
    task = next(task for task in tasks if task["data"]["camshaft_key"] == key)
    result = [{"from_name": "new_label", "to_name": "image", "type": "choices", "value": {"choices": [choice]}}]
    time = f"2026-11-29T0{time}:00:00.123456Z"
    annotation = {"id": 1, "completed_by": {"id": len(person), "email": f"{person}@example.org"}, "result": result,
                  "was_cancelled": False, "created_at": time, "updated_at": time, "lead_time": 2.5}
    assert interface.validate_annotation(annotation), annotation
    task["annotations"].append(annotation | more)
annotate("cat/swapped-beagle.jpg", "cat", 7, "ben")
annotate("cat/swapped-beagle.jpg", "dog", 8, "ana")
annotate("dog/broken-puppy.jpg", "drop", 7, "ana")
annotate("cat/dark-kitten.jpg", "cat", 7, "ana")
annotate("dog/swapped-chelsea.jpg", "cat", 7, "ana", was_cancelled=True)
json.dump(tasks, open("export.json", "w"))
converter = Converter(config, "", download_resources=False)
os.makedirs("forms")
converter.convert_to_json_min("export.json", "forms", is_dir=False)
converter.convert_to_csv("export.json", "forms", is_dir=False, sep=",", header=True)
os.rename("forms/result.json", "min.json")
os.rename("forms/result.csv", "export.csv")
"#;
    let audited = Audited::new();
    let roots =
        ["--image-root", "/data/local-files/?d=pets", "--out-root", "https://images.example/audit"];
    let exported = audited.export("label-studio", "tasks.json", &roots).expect(0);
    assert!(exported.stdout.contains("tasks.config.xml has the project's"), "{}", exported.stdout);
    let tasks = audited.read_json("tasks.json");
    let task =
        tasks.as_array().unwrap().iter().find(|task| task["data"]["camshaft_key"] == SWAPPED.0);
    let data = &task.unwrap()["data"];
    assert_eq!(data["image"], "/data/local-files/?d=pets/cat/swapped-beagle.jpg");
    let overlay = "https://images.example/audit/overlays/cat/swapped-beagle.jpg";
    assert_eq!(data["overlay"], format!("{overlay}.jpg"));
    assert_eq!(data["given_overlay"], format!("{overlay}.class-0.jpg"));
    assert!(data["overlay_title"] == "Map of dog" && data["suggested"] == "dog", "{data}");

    let _checked = python(audited.directory.path(), SCRIPT).expect(0);
    let ana = "ana@example.org";
    let expected = BTreeMap::from([
        (SWAPPED.0.to_owned(), [json!("relabel"), json!("dog"), json!(ana)]),
        ("dog/broken-puppy.jpg".to_owned(), [json!("drop"), Value::Null, json!(ana)]),
        ("cat/dark-kitten.jpg".to_owned(), [json!("keep"), Value::Null, json!(ana)]),
    ]);
    let _imported = audited.import("export.json", &[]).expect(0);
    assert_eq!(audited.decided(), expected);
    // The short forms name skipped tasks and annotators in other ways, and decide the same.
    for name in ["min.json", "export.csv"] {
        audited.forget();
        let _imported = audited.import(name, &[]).expect(0);
        let choices = |decided: &BTreeMap<String, [Value; 3]>| -> Vec<_> {
            let choice = |(key, [decision, label, _]): (&String, &[Value; 3])| {
                (key.clone(), decision.clone(), label.clone())
            };
            decided.iter().filter(|(key, _)| !key.contains("chelsea")).map(choice).collect()
        };
        assert_eq!(choices(&audited.decided()), choices(&expected), "{name}");
    }
}

#[test]
fn pycocotools_reads_coco() {
    const SCRIPT: &str = r#"
import json
from pycocotools.coco import COCO
coco = COCO("coco.json")
image = next(image for image in coco.imgs.values() if image["file_name"] == "cat/swapped-beagle.jpg")
[annotation] = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
assert annotation["bbox"] == [0, 0, image["width"], image["height"]], annotation
[category] = coco.loadCats(annotation["category_id"])
assert category["name"] == "cat" and annotation["camshaft"]["predicted"] == "dog", annotation
assert sorted(coco.getImgIds()) == list(range(1, 43)), coco.getImgIds()
assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == ["cat", "dog", "drop"]
"#;
    let audited = Audited::new();
    let _exported = audited.export("coco", "coco.json", &["--all"]).expect(0);
    let _read = python(audited.directory.path(), SCRIPT).expect(0);
}

#[test]
fn a_rule_chooses_images_and_nothing_is_replaced() {
    let audited = Audited::new();
    let only = ["--rule", "label-error and key~'cat/**'"];
    let exported = audited.export("cvat", "annotations.xml", &only).expect(0);
    assert!(exported.stdout.contains("2 images exported"), "{}", exported.stdout);
    let xml = audited.read("annotations.xml");
    assert!(xml.contains("<image id=\"0\" name=\"cat/swapped-beagle.jpg\""), "{xml}");
    let labels = audited.read_json("annotations.labels.json");
    assert_eq!(labels[0]["name"], "cat");
    audited.export("cvat", "annotations.xml", &only).expect_one_line(&["exists", "another --to"]);
    assert_eq!(audited.read("annotations.xml"), xml);
    audited
        .export("csv", "none.csv", &["--rule", "letterbox"])
        .expect_one_line(&["no image meets"]);
    assert!(!audited.path("none.csv").exists());
    fs::create_dir(audited.path("folder")).unwrap();
    audited.export("csv", "folder", &[]).expect_one_line(&["folder is a folder", "--to a file"]);
    for format in ["cvat", "coco"] {
        audited.export(format, "none", &["--rule", "failure"]).expect_one_line(&[
            "none of the images has a size",
            "can't be decoded",
            format,
        ]);
    }
    assert!(!audited.path("none").exists());
    let wrong = audited.export("csv", "none.csv", &["--rule", "letterbocks"]).expect(2);
    assert!(wrong.stderr.contains("letterbox?"), "{}", wrong.stderr);
    let signed = ["--image-root", "https://host/x?X-Amz-Signature=secret"];
    let signed = audited.export("csv", "none.csv", &signed).expect(2);
    assert!(signed.stderr.contains("signed"), "{}", signed.stderr);
    fs::remove_dir_all(audited.out.join("report")).unwrap();
    audited.export("csv", "none.csv", &[]).expect_one_line(&["has no report", "camshaft report"]);
}

#[test]
fn a_broken_file_is_named_with_its_item_and_decides_nothing() {
    let audited = Audited::new();
    for (format, name) in FORMATS {
        let _exported = audited.export(format, name, &[]).expect(0);
        let text = audited.read(name);
        audited.write(name, &text[..text.len() - 30]);
        match format {
            // A line that is cut off has too few cells.
            "csv" => audited.import(name, &[]).expect_one_line(&["sheet.csv", "line"]),
            "cvat" => audited.import(name, &[]).expect_one_line(&["annotations.xml", "byte "]),
            _ => audited.import(name, &[]).expect_one_line(&[name, "line "]),
        }
    }
    audited.write("typo.csv", "key,decision\ncat/kitten.jpg,drop\ncat/dark-kitten.jpg,dorp\n");
    audited
        .import("typo.csv", &[])
        .expect_one_line(&["typo.csv", "line 3", "\"dorp\"", "use keep"]);
    audited.write("other.csv", "key,decision\npuma.jpg,drop\n");
    audited.import("other.csv", &[]).expect_one_line(&[
        "puma.jpg",
        "does not have",
        "exported from",
    ]);
    fs::write(audited.path("latin.jsonl"), b"{\"key\":\"caf\xe9\"}\n").unwrap();
    audited.import("latin.jsonl", &[]).expect_one_line(&["latin.jsonl, line 1", "not UTF-8"]);
    let line = |key: &str| {
        format!(
            r#"{{"schema":1,"key":"{key}","decision":"drop","by":"ana","at":"2026-11-29T07:00:00Z"}}"#
        )
    };
    audited.write("other.jsonl", &format!("{}\n{}\n", line("puma.jpg"), line("lynx.jpg")));
    audited.import("other.jsonl", &[]).expect_one_line(&["puma.jpg, lynx.jpg", "does not have"]);
    audited.write("list.json", &format!("[{}]", line("cat/kitten.jpg")));
    audited.import("list.json", &[]).expect_one_line(&["item 1", "one a line, and no list"]);
    assert_eq!(audited.parts(), 0);

    // Images that have gone since are told, and cost nobody the rest of the work.
    audited.write("some.csv", "key,decision\npuma.jpg,drop\ncat/kitten.jpg,drop\n");
    let some = audited.import("some.csv", &[]).expect(0);
    assert!(some.stdout.contains("1 image that the run does not have"), "{}", some.stdout);
    assert!(some.stdout.contains("Took over 1 decision: 1 to drop"), "{}", some.stdout);
    audited.forget();
    let lines = [line("puma.jpg"), line("cat/kitten.jpg"), line("cat/kitten.jpg")].join("\n");
    audited.write("some.jsonl", &lines);
    let some = audited.import("some.jsonl", &[]).expect(0);
    assert!(some.stdout.contains("1 image that the run does not have"), "{}", some.stdout);
    assert!(some.stdout.contains("Took over 1 decision: 1 to drop"), "{}", some.stdout);
}

#[test]
fn exports_may_be_in_a_bucket_and_have_plain_addresses() {
    let small = SmallRun::new(4);
    let server = S3Server::s3s_fs();
    server.make_bucket("exchange");
    server.upload(&small.source, "s3://exchange/my images");
    let (source, out) = ("s3://exchange/my%20images", "s3://exchange/out");
    let of = |mut command: Command| run(command.envs(server.variables()));
    let mut audit = camshaft_with_report(["audit", source, "--out", out, "--model"]);
    audit.arg(&small.model);
    let _audited = of(audit).expect(0);
    let sheet = "s3://exchange/sheet.csv";
    let _exported = of(camshaft(["export", out, "--as", "csv", "--all", "--to", sheet])).expect(0);
    let text = fs::read_to_string(server.bucket_folder("exchange").join("sheet.csv")).unwrap();
    assert!(text.contains("even/00000.jpg,s3://exchange/my images/even/00000.jpg,even,"), "{text}");
}

/// The image of the first row of `predictions.parquet` is where its `uri` says, and the metadata say the same.
#[test]
fn tables_say_where_images_are_and_the_documented_lines_read_them() {
    let audited = Audited::new();
    let names = "SELECT DISTINCT decode(key) AS name, decode(value) AS value \
                 FROM parquet_kv_metadata('{out}/report/*.parquet') WHERE decode(key) LIKE 'camshaft.%'";
    let metadata = duckdb(&audited.out, names);
    let value = |name: &str| {
        let found: Vec<_> = metadata.iter().filter(|row| row["name"] == name).collect();
        assert_eq!(found.len(), 1, "all tables say the same of {name}: {found:?}");
        found[0]["value"].as_str().unwrap().to_owned()
    };
    let photos = repository::photos();
    assert_eq!(Path::new(&value("camshaft.images")), photos);
    assert_eq!(value("camshaft.model"), "cats-vs-dogs");
    assert!(value("camshaft.model_digest").starts_with("sha256:"));
    assert!(value("camshaft.source").starts_with("file:///"));
    let run: Value =
        serde_json::from_slice(&fs::read(audited.out.join("run.json")).unwrap()).unwrap();
    assert_eq!(run["run"], value("camshaft.run"));
    let tables = "SELECT count(DISTINCT file_name) AS tables FROM parquet_kv_metadata('{out}/report/*.parquet') \
                  WHERE decode(key) = 'camshaft.version'";
    assert_eq!(duckdb(&audited.out, tables)[0]["tables"], 4);
    let rows = duckdb(&audited.out, "SELECT key, uri FROM '{out}/report/predictions.parquet'");
    for row in &rows {
        let [key, uri] = ["key", "uri"].map(|name| row[name].as_str().unwrap());
        assert_eq!(uri, format!("{}/{key}", value("camshaft.images")));
        assert!(Path::new(uri).exists(), "{uri}");
    }
    let found = "SELECT f.key FROM '{out}/report/findings.parquet' f JOIN '{out}/report/predictions.parquet' p \
                 ON f.key = p.key WHERE f.uri IS DISTINCT FROM p.uri";
    assert_eq!(duckdb(&audited.out, found), Vec::<Value>::new());
    let recipes = repository::documented_code("report.md", "## Tables", "python");
    assert_eq!(recipes.len(), 2);
    for recipe in recipes {
        let _read = python(audited.directory.path(), &recipe).expect(0);
    }
}

#[test]
fn the_documented_lines_load_an_audit_into_fiftyone_and_write_what_was_decided() {
    let install = "python3 -m venv target/tools/fiftyone && target/tools/fiftyone/bin/pip install fiftyone polars";
    let Some(fiftyone) = repository::large_tool("fiftyone/bin/python", install) else { return };
    let [load, back] = <[String; 2]>::try_from(repository::documented_code(
        "decisions.md",
        "### FiftyOne",
        "python",
    ))
    .unwrap();
    let audited = Audited::new();
    // Without a MongoDB server FiftyOne keeps no data set; its samples and labels are its own all the same.
    const WITHOUT_DATABASE: &str = r#"
import fiftyone as fo
class Dataset(list):
    def __init__(self, *names, **options): super().__init__()
    def add_samples(self, samples): self.extend(samples)
    def match_tags(self, tag): return [sample for sample in self if tag in sample.tags]
fo.Dataset = Dataset
"#;
    const CHECK: &str = r#"
sample = next(sample for sample in dataset if sample["key"] == "cat/swapped-beagle.jpg")
assert sample["given"].label == "cat" and sample["predicted"].label == "dog", sample
assert sample["map"].map.shape == (7, 7) and sample["given_map"].map.max() <= sample["given_map"].range[1]
assert sample.tags == ["label-error"] and len(dataset) == 43, sample
sample.tags.append("relabel")
sample["given"].label = "dog"
if isinstance(sample, fo.core.sample.Sample) and sample.in_dataset: sample.save()
"#;
    let folder = audited.directory.path();
    let python = |before: &str| {
        let load = load.replace("fo.launch_app(dataset)\n", "");
        let script = format!("{before}\n{load}\n{CHECK}\n{back}");
        let mut python = Command::new(&fiftyone);
        python.current_dir(folder).env("HOME", folder).env("FIFTYONE_DO_NOT_TRACK", "1");
        run(python.args(["-W", "ignore", "-c", &script]))
    };
    let mut ended = python("");
    if ended.stderr.contains("MongoDB could not be installed") {
        repository::skip("FiftyOne's data sets: there is no MongoDB server for it");
        ended = python(WITHOUT_DATABASE);
    }
    let _loaded = ended.expect(0);
    let imported = audited.import("decide.csv", &[]).expect(0);
    assert!(imported.stdout.contains("Took over 1 decision: 1 to relabel"), "{}", imported.stdout);
}
