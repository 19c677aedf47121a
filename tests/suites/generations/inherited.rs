//! Options that a command does not give are those of the results in OUT.

use super::*;

/// The options that count for `small`, without the model's folder.
fn audit_without_model(small: &SmallRun, more: &[&str]) -> Ended {
    let mut command = camshaft(["audit"]);
    command.arg(&small.source).arg("--out").arg(&small.out);
    run(command.args(more))
}

fn explain(small: &SmallRun) -> Value {
    run_record(small)["explain"].clone()
}

#[test]
fn options_that_are_not_given_follow_the_results_in_out() {
    let small = SmallRun::new(4);
    let map = small.directory.path().join("map.csv");
    fs::write(&map, "label,class\nimages,cat\n").unwrap();
    let options = ["--method", "layer-cam", "--overlay", "png", "--alpha", "0.55", "--embeddings"];
    let with_map = [&options[..], &["--label-map", map.to_str().unwrap()]].concat();
    let _first = small.audit(&with_map).expect(0);
    let before = run_record(&small);

    // As a nightly command whose defaults have changed since.
    let again = audit_without_model(&small, &[]).expect(0);
    let told = again.stdout.lines().find(|line| line.starts_with("Goes on with the options"));
    let told = told.unwrap_or_else(|| panic!("{}", again.stdout));
    for option in ["--model ", "--method layer-cam", "--overlay png", "--alpha 0.55"] {
        assert!(told.contains(option), "{option}: {told}");
    }
    assert!(told.contains("--embeddings") && told.contains("--label-map"), "{told}");
    assert!(again.stdout.contains("4 had results already"), "{}", again.stdout);
    let after = run_record(&small);
    for field in ["run", "model", "explain", "label_map"] {
        assert_eq!(before[field], after[field], "{field}");
    }

    // New images are explained as those before.
    fs::copy(small.source.join(&small.keys[0]), small.source.join("new.jpg")).unwrap();
    let _more = audit_without_model(&small, &[]).expect(0);
    let results = small.results();
    assert_eq!(results.predictions.len(), 5);
    let new = &results.predictions["new.jpg"];
    assert_eq!(new.explanations[0].method.to_string(), "layer-cam");

    // What is given counts, and only what is given is another.
    let told = audit_without_model(&small, &["--alpha", "0.9"]).expect(1).stderr;
    assert!(told.contains("--alpha was 0.55 and is 0.9 now;"), "{told}");
    let told = audit_without_model(&small, &["--embeddings=false"]).expect(1).stderr;
    assert!(told.contains("--embeddings was on and is off now;"), "{told}");
    let told = small.audit(&["--model", "cats-vs-dogs"]);
    assert!(told.stderr.contains("--model"), "{}", told.stderr);
}

#[test]
fn a_redo_changes_only_the_options_that_are_given() {
    let small = SmallRun::new(3);
    let broker = Broker::shared().url();
    small.enqueue(&broker, &["--method", "layer-cam", "--overlay", "png"]);
    assert_eq!(work_counted(&broker).predicted, 3);
    small.enqueue(&broker, &["--only", "all", "--overlay", "none"]);
    assert_eq!(work_counted(&broker).predicted, 3);
    let explain = explain(&small);
    assert_eq!((&explain["method"], &explain["overlay"]), (&"layer-cam".into(), &"none".into()));
    for record in small.results().predictions.values() {
        assert_eq!(record.explanations[0].method.to_string(), "layer-cam");
        assert_eq!(record.explanations[0].overlay, None);
    }
}

#[test]
fn an_out_without_results_binds_nobody() {
    let small = SmallRun::new(2);
    let broker = Broker::shared().url();
    small.enqueue(&broker, &["--method", "score-cam"]);
    small.enqueue(&broker, &[]);
    assert_eq!(explain(&small)["method"], "grad-cam");
    assert_eq!(work_counted(&broker).predicted, 2);
}

#[test]
fn labels_none_does_not_go_with_results_that_explain_labels() {
    let small = SmallRun::new(3);
    for (folder, class) in [("even", "cat"), ("odd", "dog")] {
        fs::rename(small.source.join(folder), small.source.join(class)).unwrap();
    }
    let _first = small.audit(&["--target", "label"]).expect(0);
    let ended = small.audit(&["--labels", "none"]).expect(1);
    assert!(ended.stderr.contains("leave out --labels none"), "{}", ended.stderr);
}
