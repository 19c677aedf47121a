//! Reads the results in OUT and sends them on as rows: in parallel, in bounded memory.
//!
//! Owns which results count and in which order they come, not what is done with the rows. Upstream:
//! the workers' prediction and failure files. Downstream: the table's writer.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use camshaft_common::label::LabelMatcher;
use camshaft_common::layout::{FAILURES, PREDICTIONS, result_name};
use camshaft_common::manifest::ManifestKeys;
use camshaft_common::prediction::{FailureRecord, ImageRecord, MAX_RECORD_BYTES, PredictionRecord};
use camshaft_common::run::RunRecord;
use camshaft_common::store::{Folder, StoreError, StoreErrorKind};
use futures::stream::{Stream, StreamExt, TryStreamExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::Sender;

use super::image_row::ImageRow;
use crate::error::ReportError;

/// Results that one task reads and sends together.
const CHUNK: usize = 128;
/// Requests that a task has open at once, since a remote store takes long to answer each.
const REQUESTS: usize = 32;

/// How far a report has come. The builder counts, the caller shows it.
#[derive(Debug, Default)]
pub struct ReadProgress {
    /// Results read so far.
    pub read: AtomicU64,
}

/// Some results in the order of the listing: each a row, or why its file can't be read.
pub(crate) type RowChunk = Vec<Result<ImageRow, String>>;

/// Reads results and sends them to `rows`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResultReader<'a> {
    pub(crate) out: &'a Folder,
    /// Which results are of the run.
    pub(crate) images: &'a Arc<RunImages>,
    /// Whether rows keep whole embeddings.
    pub(crate) embeddings: bool,
    /// The classes that results name, for the labels of older results; none while they are not
    /// known.
    pub(crate) classes: Option<&'a Arc<LabelMatcher>>,
    pub(crate) progress: &'a Arc<ReadProgress>,
    pub(crate) rows: &'a Sender<RowChunk>,
}

/// The images of a run. OUT may hold results of others.
#[derive(Debug)]
pub(crate) struct RunImages {
    run: RunRecord,
    /// The images that SOURCE had when it was last listed, if the run has a manifest.
    listed: Option<ManifestKeys>,
    /// Results that were left out, since their images have gone.
    gone: AtomicU64,
}

impl RunImages {
    pub(crate) fn new(run: &RunRecord, listed: Option<ManifestKeys>) -> Self {
        Self { run: run.clone(), listed, gone: AtomicU64::new(0) }
    }

    /// True if the result of this image has a row. An older version took every file for an image.
    fn has(&self, image: &ImageRecord) -> bool {
        if !self.run.selects(&image.key) {
            return false;
        }
        let is_listed = self.listed.as_ref().is_none_or(|listed| listed.contains(&image.key));
        if !is_listed {
            self.gone.fetch_add(1, Relaxed);
        }
        is_listed
    }

    /// The number of results that were left out since this was last called.
    pub(crate) fn take_gone(&self) -> u64 {
        self.gone.swap(0, Relaxed)
    }
}

impl ResultReader<'_> {
    /// Sends every result in the order of the listing, predictions first. An image with a
    /// prediction and a failure is sent once, with its prediction.
    pub(crate) async fn send_results(&self) -> Result<(), ReportError> {
        let failures = self.out.list_in_order(FAILURES).map_ok(|object| object.path);
        let failures: Vec<String> = failures.try_collect().await?;
        let failed: HashSet<String> = failures.iter().cloned().collect();
        let mut predicted_too = HashSet::new();
        let predictions = self.out.list_in_order(PREDICTIONS).map_ok(|object| object.path);
        let predictions = predictions.inspect_ok(|path| {
            if failed.contains(path) {
                predicted_too.insert(path.clone());
            }
        });
        let embeddings = self.embeddings;
        let classes = self.classes.cloned();
        let images = Arc::clone(self.images);
        let to_row = move |record: PredictionRecord| {
            images
                .has(&record.image)
                .then(|| ImageRow::predicted(record, embeddings, classes.as_deref()))
        };
        self.send_folder(PREDICTIONS, predictions, to_row).await?;
        // An image that failed at first has both for a moment: its prediction is written before its
        // failure is deleted.
        let failures = failures.into_iter().filter(|path| !predicted_too.contains(path));
        let failures = futures::stream::iter(failures.map(Ok).collect::<Vec<_>>());
        let images = Arc::clone(self.images);
        let to_row = move |record: FailureRecord| {
            images.has(&record.image).then(|| ImageRow::failed(record))
        };
        self.send_folder(FAILURES, failures, to_row).await
    }

    /// Sends the results at these paths below `folder`.
    async fn send_folder<T: DeserializeOwned + 'static>(
        &self,
        folder: &'static str,
        paths: impl Stream<Item = Result<String, StoreError>>,
        to_row: impl Fn(T) -> Option<ImageRow> + Send + Sync + 'static,
    ) -> Result<(), ReportError> {
        let to_row = Arc::new(to_row);
        let tasks = 2 * std::thread::available_parallelism().map_or(1, usize::from);
        let paths = paths.try_filter(|path| futures::future::ready(result_name(path).is_some()));
        let chunks = paths.try_chunks(CHUNK).map_err(|error| error.1).map_ok(|chunk| {
            let (out, progress) = (self.out.clone(), Arc::clone(self.progress));
            let to_row = Arc::clone(&to_row);
            let read = tokio::spawn(async move {
                let paths = futures::stream::iter(chunk);
                let read = paths.map(|path| read_one(&out, folder, path, &*to_row));
                let read: Vec<_> = read.buffered(REQUESTS).try_collect().await?;
                progress.read.fetch_add(read.len() as u64, Relaxed);
                Ok::<_, ReportError>(read)
            });
            async move { read.await.map_err(|_panicked| ReportError::Panicked) }
        });
        let mut chunks = std::pin::pin!(chunks.map_err(ReportError::from).try_buffered(tasks));
        while let Some(chunk) = chunks.try_next().await? {
            let chunk = chunk?.into_iter().flatten().collect();
            if self.rows.send(chunk).await.is_err() {
                // The writer has ended with an error, which its caller returns.
                break;
            }
        }
        Ok(())
    }
}

/// A result's row, or why its file can't be read; none if the file has gone since it was listed, or
/// has no row.
async fn read_one<T: DeserializeOwned>(
    out: &Folder,
    folder: &str,
    path: String,
    to_row: impl Fn(T) -> Option<ImageRow>,
) -> Result<Option<Result<ImageRow, String>>, ReportError> {
    let path = format!("{folder}/{path}");
    let content = match out.get(&path, MAX_RECORD_BYTES).await {
        Ok(content) => content,
        Err(error) => match error.kind() {
            StoreErrorKind::NotFound => return Ok(None),
            StoreErrorKind::ArchivedOrEncrypted => return Ok(Some(Err(error.to_string()))),
            _ => return Err(error.into()),
        },
    };
    let record = serde_json::from_slice(&content.bytes);
    Ok(record.map(to_row).map_err(|error| format!("{path}: {error}")).transpose())
}
