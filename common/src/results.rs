//! The results in OUT, with the keys of their images.
//!
//! A result's name tells its image's key. If the name has a digest in the key's place, the result's
//! content tells it, and is read. An empty file is no result: a file system may leave one when the
//! machine is switched off. Other damage is seen only by who reads the results: see
//! [`unusable_results`](crate::unusable_results). Downstream: whatever asks which images have a result.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use serde::Deserialize;

use crate::key::ImageKey;
use crate::layout::{self, ResultName};
use crate::prediction::MAX_RECORD_BYTES;
use crate::store::{Folder, Listed, StoreError, StoreErrorKind};

/// Results with a digest in their name that are read at a time.
const READS_AT_ONCE: usize = 16;

/// A result in OUT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultFile {
    /// Its image.
    pub key: ImageKey,
    /// Its path below OUT.
    pub path: String,
    /// When it was last written.
    pub last_modified: DateTime<Utc>,
    /// Its entity tag, if the store has them.
    pub etag: Option<String>,
}

/// The results in `folder`: [`layout::PREDICTIONS`] or [`layout::FAILURES`]. Files that are no
/// results are left out, and so are empty ones.
pub fn list(
    out: &Folder,
    folder: &'static str,
) -> BoxStream<'static, Result<ResultFile, StoreError>> {
    let objects = out.list_in_order(folder);
    let out = Arc::new(out.clone());
    objects
        .map(move |object| {
            let out = Arc::clone(&out);
            async move {
                let Listed { path, etag, size_bytes, last_modified } = object?;
                let name = layout::result_name(&path).filter(|_| size_bytes > 0);
                let Some(name) = name else { return Ok(None) };
                let path = format!("{folder}/{path}");
                let key = match name {
                    ResultName::Key(key) => Some(key),
                    ResultName::Shortened => read_key(&out, &path).await?,
                };
                Ok(key.map(|key| ResultFile { key, path, last_modified, etag }))
            }
        })
        .buffered(READS_AT_ONCE)
        .try_filter_map(|result| async { Ok(result) })
        .boxed()
}

/// The key in a result; `None` if the file has gone or is no result.
async fn read_key(out: &Folder, path: &str) -> Result<Option<ImageKey>, StoreError> {
    /// The part of a prediction or failure that names its image.
    #[derive(Deserialize)]
    struct Record {
        image: Image,
    }
    #[derive(Deserialize)]
    struct Image {
        key: ImageKey,
    }
    match out.get(path, MAX_RECORD_BYTES).await {
        Ok(content) => {
            let record = serde_json::from_slice::<Record>(&content.bytes);
            Ok(record.ok().map(|record| record.image.key))
        }
        Err(error) => match error.kind() {
            StoreErrorKind::NotFound
            | StoreErrorKind::TooLarge
            | StoreErrorKind::ArchivedOrEncrypted => Ok(None),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{Layout, PREDICTIONS};
    use crate::store::{JSON, StoreOptions};

    #[tokio::test]
    async fn a_result_with_a_digest_in_its_name_is_found_by_its_content() {
        let directory = tempfile::tempdir().unwrap();
        let location = directory.path().to_str().unwrap().parse().unwrap();
        let out = Folder::open(&location, &StoreOptions::default()).unwrap();
        let layout = Layout::of(&location);
        let long = format!("{}.jpg", "x".repeat(246));
        let keys = ["a.jpg", &long].map(|key| ImageKey::parse(key).unwrap());
        for key in &keys {
            let json = serde_json::json!({"image": {"key": key}}).to_string();
            out.put(&layout.prediction(key), json, JSON).await.unwrap();
        }
        for other in ["notes.txt", "%~no-digest.json"] {
            out.put(&format!("{PREDICTIONS}/{other}"), "{}", JSON).await.unwrap();
        }
        let broken = format!("{PREDICTIONS}/%~{}.json", "0".repeat(64));
        out.put(&broken, "{", JSON).await.unwrap();
        out.put(&format!("{PREDICTIONS}/empty.jpg.json"), "", JSON).await.unwrap();
        let results: Vec<_> = list(&out, PREDICTIONS).try_collect().await.unwrap();
        let mut found: Vec<_> = results.into_iter().map(|result| result.key).collect();
        found.sort();
        assert_eq!(found, keys);
    }
}
