//! Reads every result in OUT as a stream of rows: in parallel over the listing, in bounded
//! memory.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use camshaft_common::layout::{FAILURES, PREDICTIONS, image_of_result};
use camshaft_common::store::{Folder, StoreErrorKind};
use futures::stream::{StreamExt, TryStreamExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::Sender;

use crate::error::ReportError;
use crate::row::ImageRow;

/// Results read by one task, one after the other or several requests at once.
const CHUNK: usize = 128;
/// Requests a task has open: a store far away answers late, not slowly.
const REQUESTS: usize = 32;
/// Larger than any result that is written.
const MAX_RESULT_BYTES: u64 = 16 * 1024 * 1024;

/// How far a report has come.
#[derive(Debug, Default)]
pub struct Progress {
    /// Results read.
    pub read: AtomicU64,
}

/// Rows of a part of the listing, and files that hold none.
pub(crate) type Rows = Vec<Result<ImageRow, String>>;

/// Sends every result of `out`, in the order of its listing, an image with a prediction and a
/// failure once.
pub(crate) async fn gather(
    out: &Folder,
    embeddings: bool,
    progress: &Arc<Progress>,
    rows: &Sender<Rows>,
) -> Result<(), ReportError> {
    let failures: Vec<String> =
        out.list(FAILURES).map_ok(|object| object.path).try_collect().await?;
    let failed: Arc<HashSet<String>> = Arc::new(failures.iter().cloned().collect());
    let (predicted, mut done_after_all) = (out.list(PREDICTIONS), HashSet::new());
    let predicted = predicted.map_ok(|object| object.path);
    let predicted = predicted.inspect_ok(|path| {
        if failed.contains(path) {
            done_after_all.insert(path.clone());
        }
    });
    let read = move |record| ImageRow::predicted(record, embeddings);
    send_all(out, PREDICTIONS, predicted, read, progress, rows).await?;
    // Between the two writes of an image that failed at first.
    let left = failures.into_iter().filter(|path| !done_after_all.contains(path));
    let left = futures::stream::iter(left.map(Ok).collect::<Vec<_>>());
    send_all(out, FAILURES, left, ImageRow::failed, progress, rows).await
}

async fn send_all<T: DeserializeOwned + 'static>(
    out: &Folder,
    folder: &'static str,
    paths: impl futures::Stream<Item = Result<String, camshaft_common::store::StoreError>>,
    to_row: impl Fn(T) -> ImageRow + Copy + Send + Sync + 'static,
    progress: &Arc<Progress>,
    rows: &Sender<Rows>,
) -> Result<(), ReportError> {
    let tasks = 2 * std::thread::available_parallelism().map_or(1, usize::from);
    let chunks = paths.try_filter(|path| futures::future::ready(image_of_result(path).is_some()));
    let chunks = chunks.try_chunks(CHUNK).map_err(|error| error.1).map_ok(|chunk| {
        let (out, progress) = (out.clone(), Arc::clone(progress));
        let read = tokio::spawn(async move {
            let paths = futures::stream::iter(chunk);
            let read = paths.map(|path| read_one(&out, folder, path, to_row));
            let read: Vec<_> = read.buffered(REQUESTS).try_collect().await?;
            progress.read.fetch_add(read.len() as u64, Relaxed);
            Ok::<_, ReportError>(read)
        });
        async move { read.await.map_err(|_panicked| ReportError::Panicked) }
    });
    let mut chunks = std::pin::pin!(chunks.map_err(ReportError::from).try_buffered(tasks));
    while let Some(chunk) = chunks.try_next().await? {
        let chunk = chunk?.into_iter().flatten().collect();
        if rows.send(chunk).await.is_err() {
            // Whoever takes them has failed, and says why.
            break;
        }
    }
    Ok(())
}

/// A result's row; none where it has gone since it was listed.
async fn read_one<T: DeserializeOwned>(
    out: &Folder,
    folder: &str,
    path: String,
    to_row: impl Fn(T) -> ImageRow,
) -> Result<Option<Result<ImageRow, String>>, ReportError> {
    let place = format!("{folder}/{path}");
    let content = match out.get(&place, MAX_RESULT_BYTES).await {
        Ok(content) => content,
        Err(error) if error.kind() == StoreErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let record = serde_json::from_slice(&content.bytes);
    Ok(Some(record.map(to_row).map_err(|error| format!("{place}: {error}"))))
}
