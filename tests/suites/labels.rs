//! Tests that labels find the model's classes whatever they are called, and that labels which the
//! model doesn't know count in no number.

use std::fs;
use std::path::Path;

use camshaft_tests::broker::Broker;
use camshaft_tests::programs::{Ended, camshaft, camshaft_with_report, run, worker};
use camshaft_tests::small_run::SmallRun;
use serde_json::{Value, json};

/// Writes a list with these labels, one for each image, and audits it with its report.
fn audit_labelled(small: &SmallRun, labels: &[&str], more: &[&str]) -> Ended {
    let list = small.directory.path().join("list.csv");
    let lines = small.keys.iter().zip(labels).map(|(key, label)| format!("{key},\"{label}\"\n"));
    fs::write(&list, format!("key,label\n{}", lines.collect::<String>())).unwrap();
    let mut command = camshaft_with_report(["audit", &format!("list:{}", list.display())]);
    command.arg("--base").arg(&small.source).arg("--out").arg(&small.out);
    run(command.arg("--model").arg(&small.model).args(more))
}

fn summary(out: &Path) -> Value {
    let mut command = camshaft(["report", "--json"]);
    serde_json::from_str(&run(command.arg(out)).expect(0).stdout).unwrap()
}

/// The prediction of an image, as JSON.
fn prediction(out: &Path, key: &str) -> Value {
    let file = fs::read(out.join(format!("predictions/{key}.json"))).unwrap();
    serde_json::from_slice(&file).unwrap()
}

/// What a prediction says about the label: the label, the class, and what is wrong with the label.
fn label_of(out: &Path, key: &str) -> [Value; 3] {
    let mut image = prediction(out, key)["image"].take();
    ["label", "class", "label_problem"].map(|field| image[field].take())
}

/// Changes fields of the model's config.json.
fn configure(small: &SmallRun, change: impl FnOnce(&mut Value)) {
    let path = small.model.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    fs::write(path, config.to_string()).unwrap();
}

#[test]
fn labels_in_any_spelling_or_by_index_are_classes() {
    let small = SmallRun::new(6);
    let labels = ["cat", "Cat", "DOG", "0", "1", " dog "];
    let classes = [0, 0, 1, 0, 1, 1];
    let ended = audit_labelled(&small, &labels, &["--target", "label"]).expect(0);
    assert!(ended.stdout.contains("of 6 labelled"), "{}", ended.stdout);
    assert!(!ended.stdout.contains("none of the model's classes"), "{}", ended.stdout);
    let mut right = 0;
    for ((key, label), class) in small.keys.iter().zip(labels).zip(classes) {
        assert_eq!(label_of(&small.out, key), [json!(label.trim()), json!(class), Value::Null]);
        let prediction = prediction(&small.out, key);
        assert_eq!(prediction["explanations"][0]["class"], class);
        right += u64::from(prediction["predictions"][0]["class"] == class);
    }
    let summary = summary(&small.out);
    assert_eq!(summary["labelled"], 6);
    assert_eq!(summary["accuracy"], right as f64 / 6.0);
    assert_eq!(summary["unknown_labels"], json!({"images": 0, "labels": 0, "listed": []}));
    // All of them are two classes, and not six.
    let classes = summary["classes"].as_array().unwrap();
    assert_eq!(classes.len(), 2, "{classes:?}");
}

#[test]
fn labels_that_the_model_does_not_know_are_left_out_and_told() {
    let small = SmallRun::new(6);
    let labels = ["cat", "wolf", "wolf", "n02123045", "7", "cats"];
    let ended = audit_labelled(&small, &labels, &["--fail-on", "label-errors>0"]).expect(0);
    for part in ["of 1 labelled", "5 of 6 labelled images", "wolf (2)", "n02123045 (1)"] {
        assert!(ended.stdout.contains(part), "no {part:?} in {}", ended.stdout);
    }
    let unknown = [json!("wolf"), Value::Null, json!("unknown")];
    assert_eq!(label_of(&small.out, &small.keys[1]), unknown);
    let summary = summary(&small.out);
    assert_eq!((&summary["labelled"], &summary["predicted"]), (&json!(1), &json!(6)));
    let told = &summary["unknown_labels"];
    assert_eq!((&told["images"], &told["labels"]), (&json!(5), &json!(4)));
    assert_eq!(told["listed"][0], json!({"label": "wolf", "images": 2, "problem": "unknown"}));
    assert!(summary["classes"].as_array().unwrap().iter().all(|class| class["label"] != "wolf"));
}

#[test]
fn an_accuracy_that_no_label_gives_is_an_error_and_no_zero() {
    let small = SmallRun::new(2);
    let _ended = audit_labelled(&small, &["wolf", "fox"], &[]).expect(0);
    assert_eq!(summary(&small.out)["accuracy"], Value::Null);
    let mut command = camshaft(["report", "--fail-on", "accuracy<0.5"]);
    let ended = run(command.arg(&small.out)).expect(1);
    assert!(ended.stderr.contains("no label is one of the model's classes"), "{}", ended.stderr);
    let mut command = camshaft(["report", "--fail-on", "unknown-labels>1"]);
    let _ended = run(command.arg(&small.out)).expect(4);
}

#[test]
fn synonyms_and_wordnet_ids_are_classes_and_ambiguous_labels_are_not() {
    let mut small = SmallRun::new(7);
    configure(&small, |config| {
        config["classes"] = json!(["n02121808 cat, house cat, pet", "dog, domestic dog, pet"]);
    });
    let labels = ["house_cat", "N02121808", "n02121808-cat", "Domestic Dog", "dog", "pet", "cat"];
    let _ended = audit_labelled(&small, &labels, &[]).expect(0);
    for (key, class) in small.keys.iter().zip([Some(0), Some(0), Some(0), Some(1), Some(1), None]) {
        let [label, found, problem] = label_of(&small.out, key);
        assert_eq!(found, json!(class), "{label}");
        assert_eq!(problem == "ambiguous", class.is_none(), "{label}");
    }
    assert_eq!(summary(&small.out)["labelled"], 6);
    assert_eq!(summary(&small.out)["unknown_labels"]["listed"][0]["problem"], "ambiguous");

    // As timm writes it.
    configure(&small, |config| {
        config["classes"] = json!(["cat", "dog"]);
        config["aliases"] = json!([["n02121808"], ["n02084071"]]);
    });
    small.out = small.directory.path().join("aliases");
    let _ended = audit_labelled(&small, &["n02084071", "Cat"], &[]).expect(0);
    assert_eq!(label_of(&small.out, &small.keys[0])[1], 1);
    assert_eq!(label_of(&small.out, &small.keys[1])[1], 0);
}

#[test]
fn a_label_map_says_which_class_a_label_is() {
    let mut small = SmallRun::new(4);
    let map = small.directory.path().join("map");
    let map_argument = map.to_str().unwrap().to_owned();
    let labels = ["kitty", "hund", "cat", "Dog"];
    for (at, content) in [
        "label,class\nkitty,Cat\nhund,1\ncat,dog\n",
        "kitty;cat\nhund;dog\ncat;1\n",
        r#"{"kitty": 0, "hund": "dog", "cat": 1}"#,
    ]
    .into_iter()
    .enumerate()
    {
        fs::write(&map, content).unwrap();
        small.out = small.directory.path().join(format!("out{at}"));
        let more = ["--target", "label", "--label-map", &map_argument];
        let _ended = audit_labelled(&small, &labels, &more).expect(0);
        for ((key, label), class) in small.keys.iter().zip(labels).zip([0, 1, 1, 1]) {
            assert_eq!(label_of(&small.out, key), [json!(label), json!(class), Value::Null]);
            assert_eq!(prediction(&small.out, key)["explanations"][0]["class"], class);
        }
        assert_eq!(summary(&small.out)["labelled"], 4);
        let run: Value =
            serde_json::from_slice(&fs::read(small.out.join("run.json")).unwrap()).unwrap();
        assert_eq!(run["label_map"], json!({"kitty": "cat", "hund": "dog", "cat": "dog"}));
    }
    // The same results with another map would be a mixture.
    fs::write(&map, "kitty,dog\n").unwrap();
    let target = ["--target", "label"];
    audit_labelled(&small, &labels, &[&target[..], &["--label-map", &map_argument]].concat())
        .expect_one_line(&["label map", "--out"]);
    // Without one, the map of then counts.
    let again = audit_labelled(&small, &labels, &target).expect(0);
    assert!(again.stdout.contains("--label-map as recorded"), "{}", again.stdout);
    assert!(again.stdout.contains("4 had results already"), "{}", again.stdout);
}

#[test]
fn a_label_map_with_an_unknown_class_is_refused_with_its_line() {
    let small = SmallRun::new(1);
    let map = small.directory.path().join("map");
    let argument = map.to_str().unwrap().to_owned();
    for (content, parts) in [
        ("kitty,cat\nhund,wolf\n", ["line 2", "wolf"]),
        ("{\"kitty\": \"cat\",\n\"hund\": 2}", ["line 2", "class 2"]),
        ("kitty,cat\nkitty,dog\n", ["lines 1 and 2", "kitty"]),
        ("", ["maps no label", "map"]),
    ] {
        fs::write(&map, content).unwrap();
        audit_labelled(&small, &["kitty"], &["--label-map", &argument]).expect_one_line(&parts);
        assert!(!small.out.exists(), "nothing is begun");
    }
    let _ended = small.audit(&["--labels", "none", "--label-map", &argument]).expect(2);
    let ended = small.audit(&["--labels", "none", "--target", "label"]).expect(2);
    assert!(ended.stderr.contains("--labels none reads none"), "{}", ended.stderr);
}

#[test]
fn workers_know_what_a_label_map_says() {
    let small = SmallRun::new(2);
    let broker = Broker::shared().url();
    let map = small.directory.path().join("map.csv");
    fs::write(&map, "even,dog\n").unwrap();
    small.enqueue(&broker, &["--label-map", map.to_str().unwrap()]);
    let _ended = run(&mut worker(["--broker", &broker, "--exit-when-idle", "1"])).expect(0);
    assert_eq!(label_of(&small.out, &small.keys[0]), [json!("even"), json!(1), Value::Null]);
    let odd = [json!("odd"), Value::Null, json!("unknown")];
    assert_eq!(label_of(&small.out, &small.keys[1]), odd);
}

#[test]
fn results_of_the_version_before_are_read_by_the_names_of_classes() {
    let small = SmallRun::new(4);
    let labels = ["cat", "Dog", "wolf", "dog"];
    let _ended = audit_labelled(&small, &labels, &[]).expect(0);
    let now = summary(&small.out);
    for key in &small.keys {
        let path = small.out.join(format!("predictions/{key}.json"));
        let mut record = prediction(&small.out, key);
        let image = record["image"].as_object_mut().unwrap();
        image.remove("class");
        image.remove("label_problem");
        fs::write(path, record.to_string()).unwrap();
    }
    let before = summary(&small.out);
    assert_eq!((&before["labelled"], &now["labelled"]), (&json!(3), &json!(3)));
    for number in ["accuracy", "ece", "confusion", "unknown_labels", "classes"] {
        assert_eq!(before[number], now[number], "{number}");
    }
}
