use futures::StreamExt;

use super::*;
use crate::key::ImageKey;
use crate::store::StoreOptions;

fn out(directory: &tempfile::TempDir) -> Folder {
    let location = directory.path().to_str().unwrap().parse().unwrap();
    Folder::open(&location, &StoreOptions::default()).unwrap()
}

fn entry(key: &str, size: u64) -> ManifestEntry {
    let key = ImageKey::from_name(key.as_bytes()).unwrap();
    ManifestEntry {
        key,
        etag: Some("\"e\"".to_owned()),
        size: Some(size),
        absent: false,
        label: None,
        since: None,
    }
}

async fn write(out: &Folder, generation: Generation, entries: &[ManifestEntry]) -> u64 {
    let mut writer = ManifestWriter::with_part_lines(out.clone(), generation, 3);
    for entry in entries {
        writer.push(entry.clone()).await.unwrap();
    }
    writer.finish().await.unwrap()
}

async fn read_all(
    out: &Folder,
    generation: Generation,
    images: Option<u64>,
) -> Result<Vec<ManifestEntry>, ManifestError> {
    read(out, generation, images).try_collect().await
}

#[tokio::test]
async fn a_manifest_is_sorted_has_each_key_once_and_is_read_as_it_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let out = out(&directory);
    let generation = Generation::after(None);
    let sorted: Vec<_> = ["a.jpg", "a/b.jpg", "caf\u{e9}.jpg", "x\t.jpg", "y", "z/1", "z/2"]
        .iter()
        .zip(0..)
        .map(|(key, size)| entry(key, size))
        .collect();
    let mut unsorted = sorted.clone();
    unsorted.rotate_left(4);
    unsorted.insert(0, entry("y", 70));
    let twice = [&sorted[..], &[entry("z/2", 6)]].concat();
    for entries in [&sorted, &unsorted, &twice] {
        assert_eq!(write(&out, generation, entries).await, 7);
        assert_eq!(read_all(&out, generation, Some(7)).await.unwrap(), sorted);
    }
    // Fewer parts than before.
    assert_eq!(write(&out, generation, &sorted[..2]).await, 2);
    assert_eq!(read_all(&out, generation, Some(2)).await.unwrap(), &sorted[..2]);
    let error = read_all(&out, generation, Some(3)).await.unwrap_err();
    assert!(matches!(error, ManifestError::Incomplete { found: 2, expected: 3, .. }), "{error}");
}

#[tokio::test]
async fn a_manifest_that_was_damaged_is_no_shorter_manifest() {
    let directory = tempfile::tempdir().unwrap();
    let out = out(&directory);
    let generation = Generation::after(None);
    let error = read_all(&out, generation, None).await.unwrap_err();
    assert!(error.to_string().contains("part-00000.jsonl.gz"), "{error}");
    let entries: Vec<_> = (0..9).map(|number| entry(&format!("{number}"), number)).collect();
    write(&out, generation, &entries).await;
    let path = |part: &str| directory.path().join(format!("manifest/{generation}/{part}"));
    let part = path("part-00001.jsonl.gz");
    let content = std::fs::read(&part).unwrap();
    for broken in [&content[..content.len() / 2], b"", b"text\n"] {
        std::fs::write(&part, broken).unwrap();
        let found: Vec<_> = read(&out, generation, Some(9)).collect().await;
        let error = found.last().unwrap().as_ref().unwrap_err();
        assert!(error.can_do_without(), "{error}");
        assert_eq!(found.iter().filter(|found| found.is_err()).count(), 1);
    }
    std::fs::remove_file(&part).unwrap();
    let error = read_all(&out, generation, None).await.unwrap_err();
    assert!(error.to_string().contains("part-00001.jsonl.gz"), "{error}");
}

#[tokio::test]
async fn a_generation_begins_after_the_results_that_are_there() {
    let directory = tempfile::tempdir().unwrap();
    let out = out(&directory);
    let generation = Generation::after(None);
    assert_eq!(started_at(&out, generation).await.unwrap(), None);
    out.put("predictions/a.json", "{}", JSON).await.unwrap();
    let newest = out.head("predictions/a.json").await.unwrap().last_modified;
    let started = start(&out, generation, Some(newest)).await.unwrap();
    assert!(started > newest, "{started} {newest}");
    assert_eq!(started_at(&out, generation).await.unwrap(), Some(started));
    out.put("predictions/b.json", "{}", JSON).await.unwrap();
    let next = out.head("predictions/b.json").await.unwrap().last_modified;
    let entry = ManifestEntry { since: Some(started), ..entry("b", 1) };
    assert!(entry.counts(next) && !entry.counts(newest));
    let line = serde_json::to_string(&entry).unwrap();
    let millis = started.timestamp_millis();
    assert_eq!(line, format!(r#"{{"key":"b","etag":"\"e\"","size":1,"since":{millis}}}"#));
    assert_eq!(serde_json::from_str::<ManifestEntry>(&line).unwrap(), entry);
}

#[tokio::test]
async fn manifests_of_other_generations_are_removed_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let out = out(&directory);
    let mut generations = Vec::new();
    for _ in 0..3 {
        let generation = Generation::after(generations.last().copied());
        write(&out, generation, &[entry("a", 1)]).await;
        generations.push(generation);
    }
    out.put("manifest/notes.txt", "mine", JSON).await.unwrap();
    remove_others(&out, &generations[1..]).await.unwrap();
    let mut left: Vec<_> = std::fs::read_dir(directory.path().join("manifest"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    let mut expected: Vec<_> = generations[1..].iter().map(ToString::to_string).collect();
    expected.push("notes.txt".to_owned());
    assert_eq!(left, expected);
}
