//! Reads the results in OUT and sends them on as rows: in parallel, in bounded memory.
//!
//! Owns the order in which results come, and which of an image's two counts; not whether a result
//! counts, which `run_images` judges, nor what is done with the rows. Upstream: the workers'
//! prediction and failure files. Downstream: the table's writer.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use camshaft_common::key::ImageKey;
use camshaft_common::label::LabelMatcher;
use camshaft_common::layout::{FAILURES, PREDICTIONS, ResultName, result_name};
use camshaft_common::prediction::{FailureRecord, MAX_RECORD_BYTES, PredictionRecord};
use camshaft_common::store::{Folder, Listed, StoreError, StoreErrorKind};
use chrono::{DateTime, Utc};
use futures::stream::{Stream, StreamExt, TryStreamExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::Sender;

use super::image_row::ImageRow;
use crate::error::ReportError;
use crate::left_out::{LeftOutReason, LeftOutResult};
use crate::run_images::{Judgement, RunImages};

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

/// A result's row, or why it has none.
pub(crate) type ReadRow = Result<ImageRow, LeftOutResult>;
/// Some results in the order of the listing.
pub(crate) type RowChunk = Vec<ReadRow>;

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

/// What a result's content comes to: its judgement, its image, and its row if it counts.
struct JudgedRow {
    judgement: Judgement,
    key: ImageKey,
    row: Option<ImageRow>,
}

impl ResultReader<'_> {
    /// Sends every result in the order of the listing, predictions first. An image with a
    /// prediction and a failure is sent once: with its prediction, unless that is left out.
    pub(crate) async fn send_results(&self) -> Result<(), ReportError> {
        let failures: Vec<Listed> = self.out.list_in_order(FAILURES).try_collect().await?;
        let failed: HashSet<String> = failures.iter().map(|file| file.path.clone()).collect();
        // An image that failed at first has both for a moment: its prediction is written before its
        // failure is deleted.
        let mut predicted_too = HashSet::new();
        // Predictions that are left out, of images whose failure may count.
        let mut set_aside = HashMap::new();
        let predictions = self.out.list_in_order(PREDICTIONS);
        let embeddings = self.embeddings;
        let classes = self.classes.cloned();
        let images = Arc::clone(self.images);
        let judge = move |record: PredictionRecord, written| {
            let (judgement, key) =
                (images.judge_prediction(&record, written), record.image.key.clone());
            let row = (judgement == Judgement::Counts)
                .then(|| ImageRow::predicted(record, embeddings, classes.as_deref()));
            JudgedRow { judgement, key, row }
        };
        let pass = |path: String, read: Option<ReadRow>| match (failed.contains(&path), read) {
            (true, Some(Err(left_out))) => {
                set_aside.insert(path, left_out);
                Vec::new()
            }
            (has_failed, read) => {
                if has_failed && read.is_some() {
                    predicted_too.insert(path);
                }
                read.into_iter().collect()
            }
        };
        self.send_folder(PREDICTIONS, predictions, judge, pass).await?;
        let failures = failures.into_iter().filter(|file| !predicted_too.contains(&file.path));
        let failures = futures::stream::iter(failures.map(Ok).collect::<Vec<_>>());
        let images = Arc::clone(self.images);
        let judge = move |record: FailureRecord, written| {
            let (judgement, key) =
                (images.judge_failure(&record, written), record.image.key.clone());
            let row = (judgement == Judgement::Counts).then(|| ImageRow::failed(record));
            JudgedRow { judgement, key, row }
        };
        let pass = |path: String, read: Option<ReadRow>| {
            let prediction = set_aside.remove(&path);
            match read {
                Some(Ok(row)) => vec![Ok(row)],
                read => prediction.map(Err).into_iter().chain(read).collect(),
            }
        };
        self.send_folder(FAILURES, failures, judge, pass).await
    }

    /// Sends the results in `folder`, each as `pass` says of its path and row.
    async fn send_folder<T: DeserializeOwned + 'static>(
        &self,
        folder: &'static str,
        files: impl Stream<Item = Result<Listed, StoreError>>,
        judge: impl Fn(T, DateTime<Utc>) -> JudgedRow + Send + Sync + 'static,
        mut pass: impl FnMut(String, Option<ReadRow>) -> Vec<ReadRow>,
    ) -> Result<(), ReportError> {
        let judge = Arc::new(judge);
        let tasks = 2 * std::thread::available_parallelism().map_or(1, usize::from);
        let files =
            files.try_filter(|file| futures::future::ready(result_name(&file.path).is_some()));
        let chunks = files.try_chunks(CHUNK).map_err(|error| error.1).map_ok(|chunk| {
            let (out, progress) = (self.out.clone(), Arc::clone(self.progress));
            let (images, judge) = (Arc::clone(self.images), Arc::clone(&judge));
            let read = tokio::spawn(async move {
                let files = futures::stream::iter(chunk);
                let read = files.map(|file| read_one(&out, folder, file, &images, &*judge));
                let read: Vec<_> = read.buffered(REQUESTS).try_collect().await?;
                progress.read.fetch_add(read.len() as u64, Relaxed);
                Ok::<_, ReportError>(read)
            });
            async move { read.await.map_err(|_panicked| ReportError::Panicked) }
        });
        let mut chunks = std::pin::pin!(chunks.map_err(ReportError::from).try_buffered(tasks));
        while let Some(chunk) = chunks.try_next().await? {
            let chunk = chunk?.into_iter().flat_map(|(path, read)| pass(path, read)).collect();
            if self.rows.send(chunk).await.is_err() {
                // The writer has ended with an error, which its caller returns.
                break;
            }
        }
        Ok(())
    }
}

/// A file's path below `folder`, and its row or why it has none. Neither if the file has gone since it
/// was listed, or is of no image of the run.
async fn read_one<T: DeserializeOwned>(
    out: &Folder,
    folder: &str,
    file: Listed,
    images: &RunImages,
    judge: impl Fn(T, DateTime<Utc>) -> JudgedRow,
) -> Result<(String, Option<ReadRow>), ReportError> {
    let Listed { path: name, etag, size_bytes, last_modified: written } = file;
    let path = format!("{folder}/{name}");
    let key = match result_name(&name) {
        Some(ResultName::Key(key)) => Some(key),
        Some(ResultName::Shortened) | None => None,
    };
    // Its name may tell that nobody waits for it.
    let judged = key.as_ref().map_or(Judgement::Counts, |key| images.judge_key(key));
    let unread = |reason, detail| {
        let reason = match judged {
            Judgement::OfNoImage => return None,
            Judgement::LeftOut(reason) => reason,
            Judgement::Counts => reason,
        };
        Some(Err(LeftOutResult {
            reason,
            key: key.clone(),
            path: path.clone(),
            detail: Some(detail),
            etag: etag.clone(),
            written,
        }))
    };
    if size_bytes == 0 {
        let detail = format!("{path} is empty");
        return Ok((name, unread(LeftOutReason::Unreadable, detail)));
    }
    let content = match out.get(&path, MAX_RECORD_BYTES).await {
        Ok(content) => content,
        Err(error) => {
            let reason = match error.kind() {
                StoreErrorKind::NotFound => return Ok((name, None)),
                StoreErrorKind::ArchivedOrEncrypted => LeftOutReason::Archived,
                StoreErrorKind::TooLarge => LeftOutReason::Unreadable,
                _ => return Err(error.into()),
            };
            return Ok((name, unread(reason, error.to_string())));
        }
    };
    let judged = match serde_json::from_slice(&content.bytes) {
        Ok(record) => judge(record, written),
        Err(error) => {
            let detail = format!("{path}: {error}");
            return Ok((name, unread(LeftOutReason::Unreadable, detail)));
        }
    };
    let JudgedRow { judgement, key: of, row } = judged;
    if let Some(key) = key.as_ref().filter(|key| **key != of) {
        let detail = format!("{path} is a result of {of}, not of {key}");
        return Ok((name, unread(LeftOutReason::Unreadable, detail)));
    }
    let read = match judgement {
        Judgement::Counts => row.map(Ok),
        Judgement::OfNoImage => None,
        Judgement::LeftOut(reason) => {
            let key = Some(of);
            Some(Err(LeftOutResult { reason, key, path, detail: None, etag, written }))
        }
    };
    Ok((name, read))
}
