//! Reads and compares the results in an OUT, which is a folder or a bucket.

use std::collections::BTreeMap;

use camshaft_common::layout::{FAILURES, OVERLAYS, PREDICTIONS};
use camshaft_common::prediction::{FailureRecord, PredictionRecord};
use camshaft_common::results::{self, ResultFile};
use camshaft_common::store::{Folder, StoreOptions};
use futures::TryStreamExt;

/// The results in an OUT, by image key.
#[derive(Debug, Default)]
pub struct Results {
    /// Predictions.
    pub predictions: BTreeMap<String, PredictionRecord>,
    /// Failures.
    pub failures: BTreeMap<String, FailureRecord>,
    /// Paths of overlays below OUT.
    pub overlays: Vec<String>,
}

const MAX_BYTES: u64 = 1 << 24;

impl Results {
    /// Reads all results in `out`.
    ///
    /// # Panics
    /// If a file cannot be read, or is not a result.
    #[must_use]
    pub fn read(out: &Folder) -> Self {
        let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
        runtime.block_on(Self::read_async(out))
    }

    async fn read_async(out: &Folder) -> Self {
        let mut results = Self::default();
        for (key, path) in keys(out, PREDICTIONS).await {
            let content = out.get(&path, MAX_BYTES).await.expect("a prediction can be read");
            let record = serde_json::from_slice(&content.bytes).expect("it is a prediction");
            results.predictions.insert(key, record);
        }
        for (key, path) in keys(out, FAILURES).await {
            let content = out.get(&path, MAX_BYTES).await.expect("a failure can be read");
            let record = serde_json::from_slice(&content.bytes).expect("it is a failure");
            results.failures.insert(key, record);
        }
        let mut overlays = out.list(OVERLAYS);
        while let Some(object) = overlays.try_next().await.expect("OUT can be listed") {
            results.overlays.push(format!("{OVERLAYS}/{}", object.path));
        }
        results.overlays.sort();
        results
    }

    /// Asserts that each of `keys` has either a prediction or a failure, that there are no other
    /// results, and that every overlay that a prediction names exists.
    ///
    /// # Panics
    /// If that is not the case.
    pub fn assert_exactly(&self, keys: &[String]) {
        for key in keys {
            let (predicted, failed) =
                (self.predictions.contains_key(key), self.failures.contains_key(key));
            assert!(predicted || failed, "{key} has no result");
            assert!(!(predicted && failed), "{key} has two results");
        }
        assert_eq!(
            self.predictions.len() + self.failures.len(),
            keys.len(),
            "more results than images"
        );
        for record in self.predictions.values() {
            for overlay in record.explanations.iter().filter_map(|e| e.overlay.as_ref()) {
                assert!(self.overlays.binary_search(overlay).is_ok(), "{overlay} is missing");
            }
        }
    }
}

/// Opens an OUT that is a local folder.
///
/// # Panics
/// If the path is not a location.
#[must_use]
pub fn local(out: &std::path::Path) -> Folder {
    let location = out.to_str().and_then(|text| text.parse().ok()).expect("a UTF-8 path");
    Folder::open(&location, &StoreOptions::default()).expect("a folder needs no settings")
}

async fn keys(out: &Folder, folder: &'static str) -> Vec<(String, String)> {
    let objects: Vec<_> = out.list(folder).try_collect().await.expect("OUT can be listed");
    let files: Vec<ResultFile> =
        results::list(out, folder).try_collect().await.expect("OUT can be listed");
    assert_eq!(objects.len(), files.len(), "only results lie here");
    files.into_iter().map(|file| (file.key.to_string(), file.path)).collect()
}

/// Asserts that the results of two runs are the same: classes are equal, probabilities and maps
/// differ by at most `1e-5`. Timings, workers and times are not compared.
///
/// # Panics
/// If they differ.
pub fn assert_same(ours: &Results, theirs: &Results) {
    assert_eq!(
        ours.predictions.keys().collect::<Vec<_>>(),
        theirs.predictions.keys().collect::<Vec<_>>()
    );
    for (key, one) in &ours.predictions {
        let other = &theirs.predictions[key];
        assert_eq!(one.image.width, other.image.width, "{key}");
        assert_eq!(one.image.label, other.image.label, "{key}");
        assert_eq!(one.model, other.model, "{key}");
        for (one, other) in one.predictions.iter().zip(&other.predictions) {
            assert_eq!((one.class, &one.label), (other.class, &other.label), "{key}");
            assert_close(key, one.probability, other.probability);
        }
        assert_eq!(one.explanations.len(), other.explanations.len(), "{key}");
        for (one, other) in one.explanations.iter().zip(&other.explanations) {
            assert_eq!((one.class, &one.overlay), (other.class, &other.overlay), "{key}");
            assert_eq!(one.map.values.len(), other.map.values.len(), "{key}");
            for (one, other) in one.map.values.iter().zip(&other.map.values) {
                assert_close(key, *one, *other);
            }
        }
    }
    let classes = |results: &Results| {
        results.failures.iter().map(|(k, f)| (k.clone(), f.error.class)).collect::<Vec<_>>()
    };
    assert_eq!(classes(ours), classes(theirs));
    assert_eq!(ours.overlays, theirs.overlays);
}

fn assert_close(key: &str, one: f32, other: f32) {
    assert!((one - other).abs() <= 1e-5, "{key}: {one} and {other} differ by more than 1e-5");
}
