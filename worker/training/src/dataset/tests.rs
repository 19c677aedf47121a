use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use super::*;

/// A data set of small files, whose content is no picture.
fn folder<S: AsRef<str>>(files: &[S]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for file in files {
        let path = root.path().join(file.as_ref());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"x").unwrap();
    }
    root
}

/// `count` images in each folder.
fn images(folders: &[&str], count: usize) -> Vec<String> {
    folders.iter().flat_map(|name| (0..count).map(move |n| format!("{name}/{n}.jpg"))).collect()
}

fn find(root: &tempfile::TempDir) -> Result<Dataset, DatasetError> {
    Dataset::find(root.path(), &DatasetOptions::default())
}

fn error<S: AsRef<str>>(files: &[S]) -> String {
    find(&folder(files)).unwrap_err().to_string()
}

fn keys(images: &[DatasetImage]) -> Vec<&str> {
    images.iter().map(|image| image.key.as_str()).collect()
}

#[test]
fn folders_say_what_is_validated_on() {
    for name in ["val", "validation", "valid", "Val", "VALID", "validation_set", "val-data"] {
        let val = [format!("{name}/dog/c.jpg"), format!("{name}/cat/d.jpg")];
        let root = folder(&["train/dog/a.jpg", "train/cat/deep/b.jpg", &val[0], &val[1]]);
        let found = find(&root).unwrap();
        assert_eq!(found.classes, ["cat", "dog"]);
        assert_eq!(keys(&found.training), ["train/cat/deep/b.jpg", "train/dog/a.jpg"]);
        assert_eq!(keys(&found.validation), [val[1].as_str(), val[0].as_str()]);
        assert_eq!(found.validation[1].class, 1);
        let options = DatasetOptions { share: Some(0.5), ..DatasetOptions::default() };
        let error = Dataset::find(root.path(), &options).unwrap_err();
        assert!(matches!(error, DatasetError::ShareAndFolder { .. }));
    }
}

#[test]
fn class_folders_that_are_no_utf8_stay_apart_and_are_called_as_in_an_audit() {
    let root = tempfile::tempdir().unwrap();
    for name in [&b"caf\xe9"[..], b"caf\xe8", b"tea\n"] {
        let folder = root.path().join(OsStr::from_bytes(name));
        fs::create_dir(&folder).unwrap();
        (0..3).for_each(|n| fs::write(folder.join(format!("{n}.jpg")), b"x").unwrap());
    }
    let found = find(&root).unwrap();
    assert_eq!(found.classes, ["%=caf%E8", "%=caf%E9", "%=tea%0A"]);
    assert_eq!(found.class_counts(), [[2, 1]; 3]);
    assert!(found.training.iter().all(|image| image.path.exists()));
}

#[test]
fn splits_are_no_classes_whatever_they_are_called() {
    for (train, test) in [
        ("Train", "Test"),
        ("training", "testing"),
        ("training_set", "test_set"),
        ("TRAIN", "TEST"),
        ("train-data", "test-data"),
        ("seg_train", "seg_test"),
        ("training_set/training_set", "test_set/test_set"),
    ] {
        let [a, b] = ["cat", "dog"].map(|class| format!("{train}/{class}"));
        let [c, d] = ["cat", "dog"].map(|class| format!("{test}/{class}"));
        let found = find(&folder(&images(&[&a, &b, &c, &d], 5))).unwrap();
        assert_eq!(found.classes, ["cat", "dog"], "{train}");
        assert_eq!(found.class_counts(), [[4, 1], [4, 1]], "{train}");
        assert!(found.left_out.folders[0].reason.contains("to test on"), "{train}");
    }
    let all = ["train/cat", "train/dog", "valid/cat", "valid/dog", "test/cat", "test/dog"];
    let found = find(&folder(&images(&all, 3))).unwrap();
    assert_eq!(found.class_counts(), [[3, 3], [3, 3]]);
    let root = folder(&images(&all[..2], 3));
    fs::create_dir(root.path().join("val")).unwrap();
    assert_eq!(find(&root).unwrap().left_out.folders[0].key, "val");
    let unlabelled = [&images(&all[..2], 5)[..], &["test/1.jpg".to_owned()]].concat();
    assert_eq!(find(&folder(&unlabelled)).unwrap().classes, ["cat", "dog"]);
}

#[test]
fn links_between_classes_end() {
    let root = folder(&images(&["cat", "dog"], 3));
    for (one, other) in [("cat", "dog"), ("dog", "cat")] {
        let target = format!("../{other}");
        std::os::unix::fs::symlink(target, root.path().join(one).join("more")).unwrap();
    }
    let found = find(&root).unwrap();
    // Three of its own, and three of the other class.
    assert_eq!(found.class_counts().iter().map(|[a, b]| a + b).collect::<Vec<_>>(), [6, 6]);
}

#[test]
fn annotations_called_as_a_trainings_record_leave_nothing_out() {
    let root = folder(&images(&["cat", "dog"], 3));
    fs::write(root.path().join("cat/training.json"), r#"{"images": []}"#).unwrap();
    assert_eq!(find(&root).unwrap().classes, ["cat", "dog"]);
}

#[test]
fn layouts_that_can_be_read_in_two_ways_are_refused_with_what_to_do() {
    for (folders, part) in [
        (&["train", "bus", "car"][..], "train beside bus, car"),
        (&["cat", "dog", "test"], "test beside cat, dog"),
        (&["train/cat", "train/dog", "masks"], "move them to "),
        (&["val/cat", "train/cat", "Validation/cat"], "two folders to validate on"),
        (&["cat/train", "cat/val", "dog/train"], "train/cat and val/cat"),
        (&["val/cat", "val/dog"], "no train/"),
        (&["valid", "invalid"], "valid beside invalid"),
        (&["pets/cat", "pets/dog"], "train on "),
    ] {
        let error = error(&images(folders, 3));
        assert!(error.contains(part), "{folders:?}: {error}");
    }
    // What the errors advise works.
    let found = find(&folder(&images(&["train/train", "train/bus", "train/test"], 3))).unwrap();
    assert_eq!(found.classes, ["bus", "test", "train"]);
    // Words that are splits beside `train` only.
    let found = find(&folder(&images(&["dev", "prod"], 3))).unwrap();
    assert_eq!(found.classes, ["dev", "prod"]);
    // As before: further folders beside both sides are not used.
    let both = ["train/cat", "train/dog", "val/cat", "val/dog", "masks"];
    let found = find(&folder(&images(&both, 2))).unwrap();
    assert_eq!(found.left_out.folders[0].key, "masks");
}

#[test]
fn a_model_in_the_data_set_is_no_class() {
    let root = folder(&images(&["cat", "dog"], 5));
    let find = |out: &str| {
        let out = Some(root.path().join(out));
        Dataset::find(root.path(), &DatasetOptions { out, ..DatasetOptions::default() })
    };
    let write = |files: &[&str]| {
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"x").unwrap();
        }
    };
    let digest = find("model").unwrap().digest();
    write(&["model/learning-curve.png", "model/training.json", "model/model.safetensors"]);
    write(&["earlier/learning-curve.png"]);
    let record = r#"{"schema": 1, "settings": {}, "skipped_images": 0, "history": []}"#;
    fs::write(root.path().join("earlier/training.json"), record).unwrap();
    write(&["models/deep/checkpoint.safetensors", "models/deep/learning-curve.png"]);
    write(&["audit/run.json", "audit/predictions/a.json", "audit/overlays/cat/1.jpg.jpg"]);
    write(&["__MACOSX/cat/._1.jpg", "__MACOSX/1.jpg", ".hidden/1.jpg"]);
    fs::create_dir(root.path().join("empty")).unwrap();
    let found = find("model").unwrap();
    assert_eq!(found.digest(), digest);
    assert_eq!(found.classes, ["cat", "dog"]);
    let reason = |key: &str| {
        let folder = found.left_out.folders.iter().find(|folder| folder.key == key);
        folder.map(|folder| folder.reason)
    };
    assert_eq!(reason("model"), Some("where the model goes"));
    assert_eq!(reason("earlier"), Some("a model's files"));
    assert_eq!(reason("models"), Some("no images"));
    assert_eq!(reason("audit"), Some("an audit's results"));
    assert_eq!(reason("__MACOSX"), Some("made by macOS"));
    assert_eq!(reason("empty"), Some("no images"));
    let error = find("cat").unwrap_err().to_string();
    assert!(error.contains("holds images of the data set"), "{error}");
}

#[test]
fn files_of_other_types_are_no_images() {
    let root = folder(&images(&["cat", "dog"], 4));
    let files = ["cat/Thumbs.db", "cat/notes.txt", "dog/labels.csv", "dog/LICENSE", "README.md"];
    for file in files {
        fs::write(root.path().join(file), b"BM text").unwrap();
    }
    for file in ["cat/SCAN.JPEG", "cat/new.heic"] {
        fs::write(root.path().join(file), b"x").unwrap();
    }
    fs::write(root.path().join("dog/0a1b2c"), b"\xff\xd8\xff\xe0\0\x10JFIF").unwrap();
    fs::write(root.path().join("beside.png"), b"x").unwrap();
    let found = find(&root).unwrap();
    assert_eq!(found.left_out.images_beside, ["beside.png"]);
    assert_eq!(found.left_out.other_files.len(), 4 + 1, "{:?}", found.left_out);
    let counts = found.class_counts();
    assert_eq!(counts.iter().map(|[a, b]| a + b).collect::<Vec<_>>(), [6, 5]);
}

#[test]
fn each_class_has_its_share_to_validate_on() {
    // 1 of 2 to 8, 2 of 8 to 12: never none, and never all.
    for (count, held_back) in [(2, 1), (3, 1), (7, 1), (8, 2), (10, 2), (12, 2), (100, 20)] {
        let classes: Vec<_> = (0..12).map(|n| format!("class {n}")).collect();
        let classes: Vec<_> = classes.iter().map(String::as_str).collect();
        let found = find(&folder(&images(&classes, count))).unwrap();
        for counts in found.class_counts() {
            assert_eq!(counts, [count - held_back, held_back]);
        }
        assert_eq!(found.digest(), find(&folder(&images(&classes, count))).unwrap().digest());
    }
    for (share, expected) in [(1e-9, [5, 1]), (0.999, [1, 5]), (0.5, [3, 3])] {
        let root = folder(&images(&["a", "b"], 6));
        let options = DatasetOptions { share: Some(share), ..DatasetOptions::default() };
        let found = Dataset::find(root.path(), &options).unwrap();
        assert_eq!(found.class_counts(), [expected; 2], "{share}");
    }
}

#[test]
fn an_added_image_moves_at_most_one_other() {
    let files = images(&["a", "b"], 40);
    let before = find(&folder(&files)).unwrap();
    for extra in ["a/new.jpg", "a/other.jpg", "a/third.jpg"] {
        let after = find(&folder(&[&files[..], &[extra.to_owned()]].concat())).unwrap();
        let (before, after) = (keys(&before.validation), keys(&after.validation));
        let moved = before.iter().filter(|key| !after.contains(key)).count();
        assert!(moved <= 1, "{moved}");
    }
}

#[test]
fn a_class_with_too_few_images_is_named_with_the_fewest() {
    let files = [&images(&["cat"], 5)[..], &["dog/1.jpg".to_owned()]].concat();
    let error = error(&files);
    assert!(error.contains("\"dog\" has 1 image;") && error.contains("at least 2"), "{error}");
}

#[test]
fn an_older_training_finds_the_images_that_it_was_started_with() {
    let files: Vec<_> = (0..400).map(|n| format!("{}/{n}.jpg", ["a", "b"][n % 2])).collect();
    let root = folder(&[&files[..], &["a/notes.txt".to_owned()]].concat());
    let options = DatasetOptions { split: SplitRule::ByPath, ..DatasetOptions::default() };
    let found = Dataset::find(root.path(), &options).unwrap();
    assert_eq!(found.training.len() + found.validation.len(), 401);
    assert!(found.validation.iter().all(|image| position(&image.key) < VALIDATION_SHARE));
    assert!(found.training.iter().all(|image| position(&image.key) >= VALIDATION_SHARE));
    // The digest that the version before wrote for these files.
    let few = folder(&["a/1.jpg", "a/2.jpg", "a/3.jpg", "b/1.jpg", "b/2.jpg", "b/3.jpg"]);
    let options = DatasetOptions { share: Some(0.5), ..options };
    let digest = Dataset::find(few.path(), &options).unwrap().digest();
    assert_eq!(digest, "sha256:b4615ef3253df6fe41235376a007b0cdf022e7ecd9e07676f5b44ce5b6fe7b41");
}

#[test]
fn what_is_no_data_set_is_told_apart() {
    assert!(error(&["a.jpg"]).contains("has no class folders"));
    assert!(error(&["a/1.jpg", ".hidden/1.jpg"]).contains("one class only, \"a\""));
    let empty = error(&["a/1.jpg", "b/.hidden"]);
    assert!(empty.contains("one class only") && empty.contains("b has no images"), "{empty}");
    let unknown = ["train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "val/b/1.jpg", "val/c/1.jpg"];
    assert!(error(&unknown).contains("val/c is a class that"));
    assert!(error(&unknown[..3]).contains("val/b has no images"));
    let missing = Dataset::find(Path::new("/nowhere/at/all"), &DatasetOptions::default());
    let missing = missing.unwrap_err().to_string();
    assert!(missing.starts_with("/nowhere/at/all can't be read"), "{missing}");
}
