//! What a report finds out about the results that it reads, and what becomes of those that are damaged
//! or not what the run asks for.

use super::*;

const OTHER_RUN: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
const OTHER_DIGEST: &str = "sha256:0000";

/// A change to a prediction, and the reason for which the result is left out then.
type Edit = (fn(&mut Value), &'static str);

const OF_IMAGE: [Edit; 2] = [
    (|result| result["image"]["etag"] = "\"1-2-3\"".into(), "content"),
    (|result| result["image"]["label"] = "other".into(), "label"),
];
const OF_MAKING: [Edit; 2] = [
    (|result| result["model"]["digest"] = OTHER_DIGEST.into(), "model"),
    (|result| result["explanations"][0]["method"] = "layer-cam".into(), "options"),
];
const OF_JOB: [Edit; 2] = [
    (|result| result["run"] = OTHER_RUN.into(), "run"),
    (|result| result["generation"] = OTHER_RUN.into(), "generation"),
];

fn path_of(small: &SmallRun, key: &str) -> std::path::PathBuf {
    small.out.join(format!("predictions/{key}.json"))
}

fn edit(path: &Path, change: impl Fn(&mut Value)) {
    let mut result: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut result);
    fs::write(path, result.to_string()).unwrap();
}

/// The reasons for which a report leaves out results, each with the keys of the results.
fn left_out(reported: &Value) -> Vec<(&str, Vec<&str>)> {
    let groups = reported["left_out"].as_array().unwrap().iter().map(|group| {
        let listed = group["listed"].as_array().unwrap();
        assert_eq!(group["results"], listed.len(), "{group}");
        let keys = listed.iter().map(|result| result["key"].as_str().unwrap()).collect();
        (group["reason"].as_str().unwrap(), keys)
    });
    groups.collect()
}

/// The same as a report of which nothing was left out.
fn assert_nothing_left_out(small: &SmallRun, images: usize) {
    let reported = report(small);
    assert_eq!(
        (&reported["images"], &reported["left_out"]),
        (&images.into(), &Value::Array(vec![]))
    );
    assert_eq!(
        (&reported["outdated"], &reported["unreadable"]),
        (&0.into(), &0.into()),
        "{reported}"
    );
    let images = images as u64;
    assert_eq!(numbers(small), [images, images, 0, 0]);
    assert!(!small.out.join("report/unusable.jsonl.gz").exists());
}

#[test]
fn outdated_results_are_left_out_with_reasons_and_done_again() {
    let small = SmallRun::new(9);
    let _ended = small.audit(&[]).expect(0);
    assert_nothing_left_out(&small, 9);
    let edits: Vec<Edit> = [OF_IMAGE, OF_MAKING, OF_JOB].concat();
    for ((change, _), key) in edits.iter().zip(&small.keys) {
        edit(&path_of(&small, key), change);
    }
    // A listing does not tell.
    assert_eq!(numbers(&small), [9, 9, 0, 0]);
    let reported = report(&small);
    assert_eq!((&reported["images"], &reported["outdated"]), (&3.into(), &6.into()), "{reported}");
    let told = left_out(&reported);
    assert_eq!(told.len(), 6, "{told:?}");
    for ((_, reason), key) in edits.iter().zip(&small.keys) {
        assert!(told.contains(&(*reason, vec![key.as_str()])), "{reason} {told:?}");
    }
    let note = reported["notes"][0].as_str().unwrap();
    for part in ["6 outdated results", "1 of another content", "1 of another label", "again"] {
        assert!(note.contains(part), "no {part:?} in {note}");
    }
    let mut shown =
        camshaft_with_report(["report", "--thumbnails", "0", "--fail-on", "outdated>0"]);
    let shown = run(shown.arg(&small.out)).expect(4);
    assert!(shown.stdout.contains(note), "{}", shown.stdout);
    let page = fs::read_to_string(small.out.join("report/index.html")).unwrap();
    assert!(page.contains("6 outdated results"));
    // Now it is known.
    assert_eq!(numbers(&small), [9, 3, 0, 6]);
    assert_eq!(status(&small, &[])["unusable"], 6);
    let again = small.audit(&[]).expect(0);
    assert!(again.stdout.contains("Audited 6 images"), "{}", again.stdout);
    assert!(again.stdout.contains("3 had results already"), "{}", again.stdout);
    assert_nothing_left_out(&small, 9);
}

#[test]
fn a_result_that_was_kept_may_be_of_any_run_but_must_be_of_its_image() {
    let small = SmallRun::new(7);
    let _ended = small.audit(&[]).expect(0);
    // Each is kept.
    let _ended = small.audit(&[]).expect(0);
    for ((change, _), key) in OF_JOB.iter().zip(&small.keys) {
        edit(&path_of(&small, key), change);
    }
    // An older worker writes no generation.
    edit(&path_of(&small, &small.keys[2]), |result| {
        result.as_object_mut().unwrap().remove("generation").unwrap();
    });
    assert_nothing_left_out(&small, 7);
    let edits = [OF_IMAGE, OF_MAKING].concat();
    for ((change, _), key) in edits.iter().zip(&small.keys[3..]) {
        edit(&path_of(&small, key), change);
    }
    let reported = report(&small);
    assert_eq!((&reported["images"], &reported["outdated"]), (&3.into(), &4.into()), "{reported}");
    let again = small.audit(&[]).expect(0);
    assert!(again.stdout.contains("Audited 4 images"), "{}", again.stdout);
    assert_nothing_left_out(&small, 7);
}

#[test]
fn a_result_that_is_to_be_redone_is_in_no_report() {
    let small = SmallRun::new(4);
    let broker = Broker::shared().url();
    small.enqueue(&broker, &[]);
    work(&broker);
    small.enqueue(&broker, &["--only", "all"]);
    assert_eq!(numbers(&small), [4, 0, 0, 4]);
    let mut command = camshaft_with_report(["report"]);
    run(command.arg(&small.out))
        .expect_one_line(&["no results that count", "4 results that are to be redone"]);
    work(&broker);
    assert_nothing_left_out(&small, 4);
}

#[test]
fn an_empty_result_is_none_and_a_truncated_one_is_none_once_it_was_read() {
    let small = SmallRun::new(6);
    let broker = Broker::shared().url();
    fs::write(small.source.join("bad.jpg"), "no image").unwrap();
    small.enqueue(&broker, &[]);
    work(&broker);
    assert_eq!(numbers(&small), [7, 6, 1, 0]);
    let failure = small.out.join("failures/bad.jpg.json");
    let [empty, truncated] = [0, 1].map(|index| path_of(&small, &small.keys[index]));
    fs::write(&failure, "").unwrap();
    fs::write(&empty, "").unwrap();
    let content = fs::read(&truncated).unwrap();
    fs::write(&truncated, &content[..content.len() / 2]).unwrap();
    assert_eq!(numbers(&small), [7, 5, 0, 2]);
    let reported = report(&small);
    assert_eq!(
        (&reported["images"], &reported["unreadable"]),
        (&4.into(), &3.into()),
        "{reported}"
    );
    let mut unreadable = vec![small.keys[0].as_str(), small.keys[1].as_str(), "bad.jpg"];
    let mut told = left_out(&reported);
    told[0].1.sort_unstable();
    unreadable.sort_unstable();
    assert_eq!(told, [("unreadable", unreadable)]);
    let note = reported["notes"][0].as_str().unwrap();
    let truncated_path = format!("predictions/{}.json: EOF", small.keys[1]);
    for part in ["3 result files", "failures/bad.jpg.json is empty", &truncated_path, "again"] {
        assert!(note.contains(part), "no {part:?} in {note}");
    }
    assert_eq!(numbers(&small), [7, 4, 0, 3]);
    let said = small.enqueue(&broker, &["--only", "missing"]);
    assert!(said.starts_with("Enqueued 3 of 7 images"), "{said}");
    work(&broker);
    assert_eq!(numbers(&small), [7, 6, 1, 0]);
    let reported = report(&small);
    assert_eq!((&reported["images"], &reported["left_out"]), (&7.into(), &Value::Array(vec![])));
}

#[test]
fn a_result_under_the_name_of_another_image_is_none() {
    let small = SmallRun::new(4);
    let _ended = small.audit(&[]).expect(0);
    let [one, other, renamed] = [0, 1, 2].map(|index| small.keys[index].as_str());
    fs::copy(path_of(&small, one), path_of(&small, other)).unwrap();
    let reported = report(&small);
    assert_eq!((&reported["images"], &reported["unreadable"]), (&3.into(), &1.into()));
    assert_eq!(left_out(&reported), [("unreadable", vec![other])]);
    let again = small.audit(&[]).expect(0);
    assert!(again.stdout.contains("Audited 1 image "), "{}", again.stdout);
    // An image is renamed in SOURCE and in OUT alike.
    let new = renamed.replace(".jpg", "-new.jpg");
    fs::rename(small.source.join(renamed), small.source.join(&new)).unwrap();
    fs::rename(path_of(&small, renamed), path_of(&small, &new)).unwrap();
    let again = small.audit(&[]).expect(0);
    assert!(again.stdout.contains("Audited 1 image "), "{}", again.stdout);
    assert_nothing_left_out(&small, 4);
}

#[test]
fn a_damaged_prediction_beside_a_failure_hides_neither_image_nor_failure() {
    let small = SmallRun::new(3);
    let _ended = small.audit(&[]).expect(0);
    let key = &small.keys[0];
    let mut failure: Value =
        serde_json::from_slice(&fs::read(path_of(&small, key)).unwrap()).unwrap();
    failure["error"] = serde_json::json!({"class": "undecodable", "message": "no"});
    failure["attempts"] = 1.into();
    let path = small.out.join(format!("failures/{key}.json"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, failure.to_string()).unwrap();
    for content in ["", "{"] {
        fs::write(path_of(&small, key), content).unwrap();
        let reported = report(&small);
        let counts = ["images", "failed", "unreadable"].map(|name| reported[name].clone());
        assert_eq!(counts, [3, 1, 0].map(Value::from), "{reported}");
    }
    fs::write(small.out.join(format!("failures/{key}.json")), "{").unwrap();
    let reported = report(&small);
    let counts = ["images", "failed", "unreadable"].map(|name| reported[name].clone());
    assert_eq!(counts, [2, 0, 2].map(Value::from), "{reported}");
    let again = small.audit(&[]).expect(0);
    assert!(again.stdout.contains("Audited 1 image "), "{}", again.stdout);
    assert!(!small.out.join(format!("failures/{key}.json")).exists(), "the other result goes");
    assert_nothing_left_out(&small, 3);
}

/// Makes of an OUT what an older version would have left.
fn forget_generations(small: &SmallRun) {
    let mut record = run_record(small);
    for later in ["generation", "jobs_since", "manifest"] {
        assert!(record.as_object_mut().unwrap().remove(later).is_some(), "{later}");
    }
    fs::write(small.out.join("run.json"), record.to_string()).unwrap();
    fs::remove_dir_all(small.out.join("manifest")).unwrap();
    for key in &small.keys {
        edit(&path_of(small, key), |result| {
            assert!(result.as_object_mut().unwrap().remove("generation").is_some());
        });
    }
}

#[test]
fn nothing_is_said_against_results_of_an_older_version_until_there_is_a_manifest() {
    let small = SmallRun::new(8);
    let _ended = small.audit(&[]).expect(0);
    forget_generations(&small);
    // It left results of two runs in one OUT, and of two methods.
    edit(&path_of(&small, &small.keys[0]), OF_JOB[0].0);
    edit(&path_of(&small, &small.keys[1]), OF_MAKING[1].0);
    edit(&path_of(&small, &small.keys[2]), OF_IMAGE[0].0);
    assert_nothing_left_out(&small, 8);
    // All are kept, as they are listed.
    let goes_on = small.audit(&[]).expect(0);
    assert!(goes_on.stdout.contains("8 had results already"), "{}", goes_on.stdout);
    let reported = report(&small);
    let mut told = left_out(&reported);
    told.sort_unstable();
    let [_, method, content, ..] = &small.keys[..] else { panic!("there are eight") };
    assert_eq!(told, [("content", vec![&content[..]]), ("options", vec![&method[..]])]);
    let again = small.audit(&[]).expect(0);
    assert!(again.stdout.contains("Audited 2 images"), "{}", again.stdout);
    assert_nothing_left_out(&small, 8);
}

#[test]
fn a_damaged_run_record_may_be_deleted_and_the_results_are_found_again() {
    let small = SmallRun::new(4);
    let _ended = small.audit(&[]).expect(0);
    let record = small.out.join("run.json");
    let command = |name: &str| {
        let mut command = camshaft_with_report([name]);
        run(command.arg(&small.out))
    };
    let content = fs::read(&record).unwrap();
    for damaged in [&b""[..], &content[..content.len() / 2], &[0; 100][..]] {
        fs::write(&record, damaged).unwrap();
        for ended in [small.audit(&[]), command("status"), command("report")] {
            ended.expect_one_line(&["run.json is damaged", "delete it"]);
        }
    }
    fs::remove_file(&record).unwrap();
    let again = small.audit(&[]).expect(0);
    assert!(again.stdout.contains("4 had results already"), "{}", again.stdout);
    assert_nothing_left_out(&small, 4);
    // With other options, the report notices.
    fs::remove_file(&record).unwrap();
    let other = small.audit(&["--method", "eigen-cam"]).expect(0);
    assert!(other.stdout.contains("4 had results already"), "{}", other.stdout);
    command("report").expect_one_line(&["no results that count", "4 of other methods or layers"]);
    let again = small.audit(&["--method", "eigen-cam"]).expect(0);
    assert!(again.stdout.contains("Audited 4 images"), "{}", again.stdout);
    assert_nothing_left_out(&small, 4);
}

#[test]
fn without_a_manifest_status_and_report_count_alike() {
    let small = SmallRun::new(5);
    let _ended = small.audit(&[]).expect(0);
    fs::remove_dir_all(small.out.join("manifest")).unwrap();
    fs::write(path_of(&small, &small.keys[0]), "").unwrap();
    fs::write(path_of(&small, &small.keys[1]), "{").unwrap();
    fs::copy(path_of(&small, &small.keys[2]), path_of(&small, "gone.jpg")).unwrap();
    edit(&path_of(&small, "gone.jpg"), |result| result["image"]["key"] = "gone.jpg".into());
    let reported = report(&small);
    assert_eq!(
        (&reported["images"], &reported["unreadable"]),
        (&4.into(), &2.into()),
        "{reported}"
    );
    let note = reported["notes"][1].as_str().unwrap();
    assert!(note.contains("images that have gone may be among these"), "{note}");
    let told = status(&small, &[]);
    assert_eq!((&told["done"], &told["unusable"]), (&4.into(), &1.into()), "{told}");
    // As if every image was to be redone, and that was cut short.
    let mut record = run_record(&small);
    record["results_since"] = "2100-01-01T00:00:00Z".into();
    record["images"] = Value::Null;
    fs::write(small.out.join("run.json"), record.to_string()).unwrap();
    assert_eq!(status(&small, &[])["done"], 0);
    let mut command = camshaft_with_report(["report"]);
    run(command.arg(&small.out)).expect_one_line(&["no results that count", "to be redone"]);
}

#[test]
fn results_of_images_in_a_bucket_are_of_the_entity_tags_that_it_lists() {
    let small = SmallRun::new(4);
    // The other server lists no entity tags.
    let server = S3Server::moto();
    server.make_bucket("verified");
    server.upload(&small.source, "s3://verified/images");
    let camshaft = |arguments: &[&str]| {
        let mut command = camshaft_with_report(arguments);
        run(command.envs(server.variables())).expect(0).stdout
    };
    let model = small.model.to_str().unwrap();
    let audit = ["audit", "s3://verified/images", "--out", "s3://verified/out", "--model", model];
    camshaft(&audit);
    let report = || {
        let told = camshaft(&["report", "s3://verified/out", "--json", "--thumbnails", "0"]);
        serde_json::from_str::<Value>(&told).unwrap()
    };
    let reported = report();
    assert_eq!((&reported["images"], &reported["outdated"]), (&4.into(), &0.into()));
    // Somebody replaced an image while it was in work.
    let out = server.folder("s3://verified/out");
    let path = format!("predictions/{}.json", small.keys[0]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let content = out.get(&path, 1 << 24).await.unwrap().bytes;
        let mut result: Value = serde_json::from_slice(&content).unwrap();
        result["image"]["etag"] = "\"other\"".into();
        out.put(&path, result.to_string(), "application/json").await.unwrap();
    });
    let reported = report();
    assert_eq!(left_out(&reported), [("content", vec![small.keys[0].as_str()])]);
    let again = camshaft(&audit);
    assert!(again.contains("Audited 1 image "), "{again}");
    assert_eq!(report()["outdated"], 0);
}
