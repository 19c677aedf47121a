//! Predictions that are kept: with a corrected label, or of an image that was written again with the same
//! content.

use camshaft_common::prediction::PredictionRecord;
use camshaft_tests::results::Results;

use super::*;

/// The small model's classes.
const CLASSES: [&str; 2] = ["cat", "dog"];

/// As [`audit_list`], with more arguments.
fn audit_labelled(small: &SmallRun, labels: &[(&str, &str)], more: &[&str]) -> Ended {
    let list = small.directory.path().join("labels.csv");
    let lines = labels.iter().map(|(key, label)| format!("{key},{label}\n"));
    fs::write(&list, format!("key,label\n{}", lines.collect::<String>())).unwrap();
    let mut command = camshaft(["audit", &format!("list:{}", list.display())]);
    command.arg("--base").arg(&small.source).arg("--out").arg(&small.out);
    run(command.arg("--model").arg(&small.model).args(more)).expect(0)
}

/// Asserts what the summary of an audit tells after the rate.
fn assert_says(ended: &Ended, counts: &str) {
    let summary = ended.stdout.lines().find(|line| line.starts_with("Audited")).unwrap();
    assert!(summary.contains(&format!(": {counts}")), "{counts:?} is not in {summary:?}");
}

fn prediction(small: &SmallRun, key: &str) -> PredictionRecord {
    small.results().predictions.remove(key).unwrap()
}

/// Asserts that the network did not run for `now`: it is `before` with other words.
fn assert_kept(before: &PredictionRecord, now: &PredictionRecord) {
    assert_eq!((&before.worker, before.finished_at), (&now.worker, now.finished_at));
    assert_eq!((before.run, &before.model), (now.run, &now.model));
    assert_eq!(before.image.digest, now.image.digest);
    assert_ne!(before.generation, now.generation);
}

/// Classes and overlays of a prediction's maps.
fn maps(record: &PredictionRecord) -> Vec<(usize, Option<&str>)> {
    record.explanations.iter().map(|map| (map.class, map.overlay.as_deref())).collect()
}

/// A file of the same size with the same picture and another content: its JFIF header tells another
/// density.
fn other_content(file: &Path) -> Vec<u8> {
    let mut content = fs::read(file).unwrap();
    assert_eq!(&content[6..10], b"JFIF");
    content[15] ^= 2;
    content
}

#[test]
fn a_corrected_label_is_written_without_the_network_if_its_maps_are_there() {
    let small = SmallRun::new(3);
    let [a, b, c] = [0, 1, 2].map(|index| small.keys[index].as_str());
    let audit = |label: &str| audit_labelled(&small, &[(a, label), (b, "cat"), (c, "dog")], &[]);
    assert_says(&audit("whale"), "3 predicted, 0 failed");
    let first = prediction(&small, a);
    let top = first.predictions[0].class;
    let (right, wrong) = (CLASSES[top], CLASSES[1 - top]);
    // The other class has no map yet.
    assert_says(&audit(wrong), "1 predicted, 0 failed; of the 3 found, 2 had results already");
    let mislabelled = prediction(&small, a);
    assert_eq!((maps(&mislabelled).len(), maps(&mislabelled)[0].0), (2, top));
    assert_says(
        &audit(right),
        "0 predicted, 0 failed; of the 3 found, 2 had results already, 1 relabelled",
    );
    let corrected = prediction(&small, a);
    assert_kept(&mislabelled, &corrected);
    let image = &corrected.image;
    assert_eq!((image.label.as_deref(), image.class), (Some(right), Some(top)));
    assert_eq!(image.label_problem, None);
    assert_eq!(numbers(&small), [3, 3, 0, 0]);
    // It is what a new audit finds.
    let new = SmallRun { out: small.directory.path().join("new"), ..SmallRun::new(1) };
    let _ended = audit_labelled(&new, &[(a, right)], &[]);
    let computed = prediction(&new, a);
    assert_eq!(maps(&corrected), maps(&computed));
    let listed = |record: &PredictionRecord| -> Vec<usize> {
        record.predictions.iter().map(|listed| listed.class).collect()
    };
    assert_eq!(listed(&corrected), listed(&computed));
    assert_eq!(image.class, computed.image.class);
    // A file that was touched meanwhile, in another class that the model doesn't know.
    set_modified(&small.source.join(a), SystemTime::now());
    assert_says(
        &audit("whale"),
        "0 predicted, 0 failed; of the 3 found, 2 had results already, 1 relabelled",
    );
    let unknown = prediction(&small, a);
    assert_kept(&corrected, &unknown);
    assert!(unknown.image.class.is_none() && unknown.image.label_problem.is_some());
    assert_ne!(unknown.image.etag, corrected.image.etag);
    assert_says(&audit("whale"), "0 predicted, 0 failed; of the 3 found, 3 had results already");
    small.results().assert_exactly(&small.keys);
}

#[test]
fn a_map_of_the_label_alone_is_made_again_for_another_class() {
    let small = SmallRun::new(2);
    let [a, b] = [0, 1].map(|index| small.keys[index].as_str());
    let audit =
        |label: &str| audit_labelled(&small, &[(a, label), (b, "cat")], &["--target", "label"]);
    assert_says(&audit("cat"), "2 predicted, 0 failed");
    assert_says(
        &audit("Cat"),
        "0 predicted, 0 failed; of the 2 found, 1 had results already, 1 relabelled",
    );
    assert_says(&audit("dog"), "1 predicted, 0 failed; of the 2 found, 1 had results already");
    let relabelled = prediction(&small, a);
    assert_eq!((relabelled.image.class, maps(&relabelled)[0].0), (Some(1), 1));
    small.results().assert_exactly(&small.keys);
}

#[test]
fn a_label_that_cannot_be_explained_makes_a_failure_and_back() {
    let small = SmallRun::new(2);
    let [a, b] = [0, 1].map(|index| small.keys[index].as_str());
    let audit = |label: &str| {
        let more = ["--target", "label", "--max-failure-rate", "1"];
        audit_labelled(&small, &[(a, label), (b, "cat")], &more)
    };
    assert_says(&audit("cat"), "2 predicted, 0 failed");
    for (label, counts) in [("whale", "0 predicted, 1 failed"), ("cat", "1 predicted, 0 failed")] {
        assert_says(&audit(label), counts);
        let results = small.results();
        results.assert_exactly(&small.keys);
        let failed = results.failures.get(a).map(|failure| &failure.image.label);
        let label = Some(label.to_owned());
        assert_eq!(failed.unwrap_or_else(|| &results.predictions[a].image.label), &label);
    }
}

#[test]
fn a_file_that_was_touched_keeps_its_prediction_and_one_with_another_content_does_not() {
    let small = SmallRun::new(4);
    let _ended = small.audit(&[]).expect(0);
    let before = small.results().predictions;
    let [touched, copied, changed] = [0, 1, 2].map(|index| small.source.join(&small.keys[index]));
    set_modified(&touched, SystemTime::now());
    let content = fs::read(&copied).unwrap();
    fs::remove_file(&copied).unwrap();
    fs::write(&copied, content).unwrap();
    fs::write(&changed, other_content(&changed)).unwrap();
    let again = small.audit(&[]).expect(0);
    assert_says(&again, "1 predicted, 0 failed; of the 4 found, 1 had results already, 2 renewed");
    let now = small.results().predictions;
    for key in &small.keys[..2] {
        assert_kept(&before[key], &now[key]);
        assert_ne!(before[key].image.etag, now[key].image.etag, "{key}");
    }
    let key = &small.keys[2];
    assert_ne!(before[key].image.digest, now[key].image.digest);
    assert_says(
        &small.audit(&[]).expect(0),
        "0 predicted, 0 failed; of the 4 found, 4 had results already",
    );
    assert_eq!(numbers(&small), [4, 4, 0, 0]);
}

#[test]
fn a_file_of_tomorrow_is_done_once() {
    let small = SmallRun::new(2);
    let tomorrow = SystemTime::now() + Duration::from_secs(24 * 60 * 60);
    set_modified(&small.source.join(&small.keys[0]), tomorrow);
    let _ended = small.audit(&[]).expect(0);
    let kept = "0 predicted, 0 failed; of the 2 found, 2 had results already";
    assert_says(&small.audit(&[]).expect(0), kept);
}

#[test]
fn a_prediction_without_a_digest_is_made_again_for_another_entity_tag() {
    let small = SmallRun::new(2);
    let _ended = small.audit(&[]).expect(0);
    let path = small.out.join("predictions").join(format!("{}.json", small.keys[0]));
    let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert!(record["image"].as_object_mut().unwrap().remove("digest").is_some());
    fs::write(&path, record.to_string()).unwrap();
    for counts in [
        "1 predicted, 0 failed; of the 2 found, 1 had results already",
        "0 predicted, 0 failed; of the 2 found, 1 had results already, 1 renewed",
    ] {
        set_modified(&small.source.join(&small.keys[0]), SystemTime::now());
        assert_says(&small.audit(&[]).expect(0), counts);
        assert!(prediction(&small, &small.keys[0]).image.digest.is_some());
    }
}

#[test]
fn workers_keep_predictions_in_buckets() {
    for (server, bucket) in [(S3Server::s3s_fs(), "kept-s3s"), (S3Server::moto(), "kept-moto")] {
        let small = SmallRun::new(6);
        let broker = Broker::shared().url();
        server.make_bucket(bucket);
        let place = |name: &str| format!("s3://{bucket}/{name}");
        server.upload(&small.source, &place("images"));
        let enqueue = |more: &[&str]| {
            let mut command = camshaft(["enqueue", "--broker", &broker, &place("images")]);
            command.args(["--out", &place("out"), "--model"]).arg(&small.model).args(more);
            run(command.envs(server.variables())).expect(0).stdout
        };
        let work = || {
            let mut command = counting_worker(&broker, &["--exit-when-idle", "1"]);
            let told = told_at_end(&run(command.envs(server.variables())).expect(0));
            ["predicted", "relabelled", "renewed", "already_done"]
                .map(|name| told[name].as_u64().unwrap())
        };
        let results = || Results::read(&server.folder(&place("out")));
        enqueue(&[]);
        assert_eq!(work(), [6, 0, 0, 0], "{bucket}");
        let labelled = results().predictions;
        // The folders' names are no classes, so that no map depends on them.
        enqueue(&["--labels", "none"]);
        assert_eq!(work(), [0, 6, 0, 0], "{bucket}");
        let unlabelled = results();
        unlabelled.assert_exactly(&small.keys);
        for (key, before) in &labelled {
            let now = &unlabelled.predictions[key];
            assert_kept(before, now);
            assert_eq!((now.image.label.as_ref(), now.image.label_problem), (None, None), "{key}");
        }
        // The same content uploaded in parts has another entity tag on most servers, and another
        // content of the same size on all of them.
        let images = server.folder(&place("images"));
        let [same, other] = [0, 1].map(|index| small.source.join(&small.keys[index]));
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let file = fs::File::open(&same).unwrap();
            images.put_file(&small.keys[0], file, "image/jpeg").await.unwrap();
            let content = other_content(&other);
            images.put(&small.keys[1], content, "image/jpeg").await.unwrap();
        });
        let said = enqueue(&["--labels", "none"]);
        assert!(said.starts_with("Enqueued 2 of 6 images"), "{bucket}: {said}");
        assert_eq!(work(), [1, 0, 1, 0], "{bucket}");
        let now = results();
        now.assert_exactly(&small.keys);
        let key = &small.keys[0];
        assert_kept(&unlabelled.predictions[key], &now.predictions[key]);
        let said = enqueue(&["--labels", "none"]);
        assert!(said.starts_with("Enqueued 0 of 6 images"), "{bucket}: {said}");
    }
}

#[test]
fn a_worker_that_is_killed_while_it_writes_labels_leaves_one_result_of_each_image() {
    let small = SmallRun::new(300);
    let broker = Broker::shared().url();
    small.enqueue(&broker, &[]);
    work(&broker);
    small.enqueue(&broker, &["--labels", "none"]);
    let running = Running::start(&mut counting_worker(&broker, &[]));
    wait::until("the first label", LIMIT, || numbers(&small)[1] > 0);
    running.kill();
    let ended = run(&mut counting_worker(&broker, &["--exit-when-idle", "1"])).expect(0);
    assert_eq!(told_at_end(&ended)["predicted"], 0, "{ended:?}");
    small.results().assert_exactly(&small.keys);
    assert!(labels(&small).values().all(Option::is_none));
    small.assert_adds_up(&broker);
}
