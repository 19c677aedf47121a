//! `audit --remeasure`: results of an older version get the measures and cameras that they lack.

use super::*;

/// The file of an image's prediction.
fn file(small: &SmallRun, key: &str) -> std::path::PathBuf {
    small.out.join(format!("predictions/{key}.json"))
}

fn read(small: &SmallRun, key: &str) -> Value {
    serde_json::from_slice(&fs::read(file(small, key)).unwrap()).unwrap()
}

/// Removes from a prediction what older versions did not write.
fn make_older(small: &SmallRun, key: &str) {
    let mut record = read(small, key);
    let image = record["image"].as_object_mut().unwrap();
    image.remove("camera");
    let measures = image["measures"].as_object_mut().unwrap();
    for name in ["version", "border", "blocking"] {
        assert!(measures.remove(name).is_some(), "{name}");
    }
    fs::write(file(small, key), serde_json::to_vec(&record).unwrap()).unwrap();
}

/// Runs `audit --remeasure`, and returns its first line without the time.
fn remeasure(small: &SmallRun) -> String {
    // The model is not read: there is none at that place.
    let mut command = camshaft(["audit", "--remeasure", "--model", "/no/model"]);
    let ended = run(command.arg(&small.source).arg("--out").arg(&small.out)).expect(0);
    let line = ended.stdout.lines().next().unwrap().to_owned();
    let (before, after) = line.split_once(" in ").unwrap();
    let after = after.split_once(" s").unwrap().1;
    format!("{before}{after}")
}

#[test]
fn missing_measures_are_added_without_the_network_and_nothing_else_changes() {
    let small = SmallRun::new(4);
    let _ended = small.audit(&[]).expect(0);
    let whole: Vec<_> = small.keys.iter().map(|key| read(&small, key)).collect();
    let (replaced, older) = small.keys.split_last().unwrap();
    for key in &small.keys {
        make_older(&small, key);
    }
    let stale = read(&small, replaced);
    fs::write(small.source.join(replaced), fs::read(small.source.join(&older[0])).unwrap())
        .unwrap();

    assert_eq!(remeasure(&small), "Remeasured 3 images, 1 left: 1 changed since their result");
    for (key, whole) in older.iter().zip(&whole) {
        assert_eq!(&read(&small, key), whole, "{key}");
    }
    assert_eq!(read(&small, replaced), stale, "it is left to an audit");

    let written = fs::metadata(file(&small, &older[0])).unwrap().modified().unwrap();
    assert_eq!(
        remeasure(&small),
        "Remeasured 0 images, 3 had all measures, 1 left: 1 changed since their result"
    );
    assert_eq!(fs::metadata(file(&small, &older[0])).unwrap().modified().unwrap(), written);
    // The next audit does the replaced image, and nothing else.
    let ended = small.audit(&[]).expect(0);
    assert!(ended.stdout.contains("1 predicted, 0 failed"), "{}", ended.stdout);
    assert_eq!(read(&small, replaced)["image"]["measures"]["version"], 2);
}

#[test]
fn results_that_wait_to_be_redone_are_left_to_the_audit() {
    let small = SmallRun::new(2);
    let _ended = small.audit(&[]).expect(0);
    small.keys.iter().for_each(|key| make_older(&small, key));
    // So it is while an enqueue of all images has not come to its end.
    let mut record = run_record(&small);
    record["results_since"] = "2100-01-01T00:00:00Z".into();
    fs::write(small.out.join("run.json"), record.to_string()).unwrap();
    assert_eq!(remeasure(&small), "Remeasured 0 images, 2 left: 2 to be redone by an audit");
}

#[test]
fn another_source_is_refused() {
    let small = SmallRun::new(1);
    let _ended = small.audit(&[]).expect(0);
    let mut command = camshaft(["audit", "--remeasure"]);
    let ended = run(command.arg(small.directory.path()).arg("--out").arg(&small.out)).expect(1);
    assert!(ended.stderr.contains("give that as SOURCE with --remeasure"), "{}", ended.stderr);
}
