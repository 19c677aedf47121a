//! Results of runs that lie in SOURCE: no images of another run.
//!
//! A folder with a `run.json` of Camshaft's is a run's OUT. Its results are told by their places in
//! it; whatever else lies there may be an image.

use std::collections::HashMap;

use camshaft_common::key::ImageKey;
use camshaft_common::layout::{
    FAILURES, MANIFEST, OVERLAYS, PREDICTIONS, REPORT, RUN_FILE, SHORTCUTS_FILE, TRUST_FILE,
};
use camshaft_common::run::{MAX_RUN_FILE_BYTES, RunId};
use camshaft_common::store::{Folder, StoreError, StoreErrorKind};
use serde::Deserialize;
use tokio::sync::Mutex;

/// The folders of OUT. `decisions` belongs to a run, too.
const RESULT_FOLDERS: [&str; 6] = [PREDICTIONS, OVERLAYS, FAILURES, REPORT, MANIFEST, "decisions"];
/// The files of OUT.
const RESULT_FILES: [&str; 4] = [RUN_FILE, TRUST_FILE, SHORTCUTS_FILE, "decisions.parquet"];
/// Answers that are kept. A data set may have a folder `report` in each of a million folders.
const MAX_KNOWN: usize = 10_000;

/// Tells results from images.
#[derive(Debug)]
pub(crate) struct RunFolders {
    source: Folder,
    /// Whether a folder is a run's OUT.
    known: Mutex<HashMap<String, bool>>,
}

impl RunFolders {
    pub(crate) fn new(source: Folder) -> Self {
        Self { source, known: Mutex::default() }
    }

    /// True if the file is the result of a run.
    ///
    /// # Errors
    /// If the store can't tell at the moment.
    pub(crate) async fn is_result(&self, key: &ImageKey) -> Result<bool, StoreError> {
        for folder in possible_outs(key.as_str()) {
            if self.is_out(folder).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn is_out(&self, folder: &str) -> Result<bool, StoreError> {
        let mut known = self.known.lock().await;
        if let Some(is_out) = known.get(folder) {
            return Ok(*is_out);
        }
        let is_out = self.has_run_file(folder).await?;
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(folder.to_owned(), is_out);
        Ok(is_out)
    }

    async fn has_run_file(&self, folder: &str) -> Result<bool, StoreError> {
        /// What every version of `run.json` has, and hardly another program's.
        #[derive(Deserialize)]
        #[expect(dead_code, reason = "they only have to be there")]
        struct RunFile {
            schema: u32,
            run: RunId,
            source: String,
            camshaft: String,
        }
        let Ok(key) = ImageKey::parse(format!("{folder}{RUN_FILE}")) else { return Ok(false) };
        match self.source.get_image(&key, MAX_RUN_FILE_BYTES).await {
            Ok(file) => Ok(serde_json::from_slice::<RunFile>(&file.bytes).is_ok()),
            Err(error) => match error.kind() {
                StoreErrorKind::NotFound
                | StoreErrorKind::AccessDenied
                | StoreErrorKind::ArchivedOrEncrypted
                | StoreErrorKind::TooLarge
                | StoreErrorKind::Unusable => Ok(false),
                StoreErrorKind::NoBucket
                | StoreErrorKind::BadCredentials
                | StoreErrorKind::BadSettings
                | StoreErrorKind::NoSpace
                | StoreErrorKind::Transient => Err(error),
            },
        }
    }
}

/// The folders in which the file would have a result's place; each is empty or ends in `/`.
fn possible_outs(key: &str) -> impl Iterator<Item = &str> {
    let mut start = 0;
    key.split('/').filter_map(move |segment| {
        let at = start;
        start += segment.len() + 1;
        let is_file = start > key.len();
        let names: &[&str] = if is_file { &RESULT_FILES } else { &RESULT_FOLDERS };
        names.contains(&segment).then(|| &key[..at])
    })
}

#[cfg(test)]
mod tests {
    use camshaft_common::store::{JSON, StoreOptions};

    use super::*;

    #[test]
    fn places_of_results_are_told_by_their_folders() {
        let outs = |key| possible_outs(key).collect::<Vec<_>>();
        assert_eq!(outs("a/run1/predictions/cat/a.jpg.json"), ["a/run1/"]);
        assert_eq!(outs("report/overlays/a.jpg"), ["", "report/"]);
        assert_eq!(outs("run1/manifest/01/part-00000.jsonl.gz"), ["run1/"]);
        assert_eq!(outs("run.json"), [""]);
        assert_eq!(outs("x/trust.json"), ["x/"]);
        for image in ["cat/a.jpg", "predictions", "a/report", "run.json/a.jpg"] {
            assert!(outs(image).is_empty(), "{image}");
        }
    }

    #[tokio::test]
    async fn only_a_run_json_of_ours_makes_a_folder_an_out() {
        let directory = tempfile::tempdir().unwrap();
        let location = directory.path().to_str().unwrap().parse().unwrap();
        let source = Folder::open(&location, &StoreOptions::default()).unwrap();
        let ours = serde_json::json!({
            "schema": 1, "run": RunId::generate(), "source": "file:///x", "camshaft": "0.1.0",
        });
        source.put("ours/run.json", ours.to_string(), JSON).await.unwrap();
        source.put("theirs/run.json", r#"{"run": 3}"#, JSON).await.unwrap();
        let folders = RunFolders::new(source);
        for (key, is_result) in [
            ("ours/overlays/a.jpg", true),
            ("ours/run.json", true),
            ("ours/a.jpg", false),
            ("theirs/overlays/a.jpg", false),
            ("nobodys/report/a.jpg", false),
        ] {
            let found = folders.is_result(&ImageKey::parse(key).unwrap()).await.unwrap();
            assert_eq!(found, is_result, "{key}");
        }
    }
}
