use futures::TryStreamExt;

use super::*;

fn folder(directory: &std::path::Path) -> Folder {
    let location = directory.to_str().unwrap().parse().unwrap();
    Folder::open(&location, &StoreOptions::default()).unwrap()
}

#[tokio::test]
async fn unusual_keys_round_trip_through_a_local_folder() {
    let directory = tempfile::tempdir().unwrap();
    let folder = folder(directory.path());
    let keys = ["a b%2e#é?.jpg", "猫/写真 [1].png", "x/y/z.webp"];
    for key in keys {
        folder.put(key, key.as_bytes().to_vec(), JSON).await.unwrap();
        assert_eq!(std::fs::read(directory.path().join(key)).unwrap(), key.as_bytes());
        assert_eq!(folder.get(key, 1000).await.unwrap().bytes, key.as_bytes());
    }
    let mut listed: Vec<_> =
        folder.list("").map_ok(|object| object.path).try_collect().await.unwrap();
    listed.sort();
    let mut keys = keys.map(str::to_owned);
    keys.sort();
    assert_eq!(listed, keys);
}

#[tokio::test]
async fn absent_objects_are_not_found_and_deleting_them_is_no_error() {
    let directory = tempfile::tempdir().unwrap();
    let folder = folder(directory.path());
    let error = folder.get("a.jpg", 10).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NotFound);
    assert!(!folder.exists("a.jpg").await.unwrap());
    folder.delete("a.jpg").await.unwrap();
}

#[tokio::test]
async fn large_objects_are_refused_before_they_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let folder = folder(directory.path());
    folder.put("a.jpg", vec![0; 11], "image/jpeg").await.unwrap();
    let error = folder.get("a.jpg", 10).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::TooLarge);
    assert!(folder.get("a.jpg", 11).await.is_ok());
}

#[tokio::test]
async fn a_file_of_several_parts_arrives_whole() {
    use std::io::{Seek, Write};
    let directory = tempfile::tempdir().unwrap();
    let folder = folder(directory.path());
    for size in [0, 10, 2 * PART_BYTES + 3] {
        let content: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        file.rewind().unwrap();
        folder.put_file("a.parquet", file, "application/octet-stream").await.unwrap();
        assert!(std::fs::read(directory.path().join("a.parquet")).unwrap() == content, "{size}");
    }
}

#[test]
fn options_keep_store_variables_and_hide_their_values() {
    let variables = [("AWS_SECRET_ACCESS_KEY", "hunter2"), ("PATH", "/bin")];
    let options =
        StoreOptions::from_variables(variables.map(|(k, v)| (k.to_owned(), v.to_owned())));
    let shown = format!("{options:?}");
    assert!(shown.contains("AWS_SECRET_ACCESS_KEY") && !shown.contains("PATH"));
    assert!(!shown.contains("hunter2"));
}
