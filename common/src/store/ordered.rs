//! Listing in the order of names, fast and in bounded memory.
//!
//! A store lists a page of 1,000 objects at a time, and a page can be asked for only after the one
//! before it. So the names are cut into ranges, at the folders that a first request finds, and several
//! ranges are listed at once. A range is all names after one name and up to another. Any name can be a
//! cut; no object is left out or listed twice.
//!
//! Local folders are not ordered: [`local`] sorts the names of one folder at a time.
//!
//! Upstream: [`Folder::list_in_order`](super::Folder::list_in_order).

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, Result};
use tokio::sync::mpsc;

use super::error::may_pass;
use crate::backoff::Retries;

mod local;

pub(super) use local::list as list_local;

/// Ranges listed at a time.
const RANGES_AT_ONCE: usize = 8;
/// Pages held of each range. A page of 1,000 objects takes some 250 KB.
const PAGES_HELD: usize = 12;
const PAGE_OBJECTS: usize = 1000;
/// Most ranges that a page of folders is cut into.
const MAX_RANGES_PER_PAGE: usize = 64;
/// If a prefix has fewer folders, the folders inside of them become cuts too.
const FEW_FOLDERS: usize = 16;
/// Most requests for folders inside of folders.
const MAX_FOLDER_REQUESTS: usize = 16;
/// Ranges with fewer objects are not worth a request each: a page has more.
const SMALL_RANGE_OBJECTS: u64 = 500;
/// Most repetitions of one request.
const MAX_REPEATS: u32 = 4;

/// A store that can start a listing anywhere.
#[derive(Clone)]
pub(super) struct Seekable {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) pages: Arc<dyn PaginatedListStore>,
}

/// All names after one and up to another; the latter is included.
#[derive(Clone, Debug, PartialEq, Eq)]
struct NameRange {
    after: Option<Path>,
    until: Option<Path>,
}

/// Every object below `prefix`, in the order of their names.
pub(super) fn list(seekable: Seekable, prefix: Path) -> BoxStream<'static, Result<ObjectMeta>> {
    let ranges = stream::once(async move {
        // Beside the ranges in the channel, one is being handed on.
        let (sender, receiver) = mpsc::channel(RANGES_AT_ONCE - 1);
        tokio::spawn(async move { RangeCutter::new(seekable, prefix).cut(sender).await });
        stream::unfold(receiver, |mut receiver: mpsc::Receiver<Pages>| async move {
            receiver.recv().await.map(|pages| (pages, receiver))
        })
    });
    ranges.flatten().flat_map(objects).boxed()
}

type Pages = mpsc::Receiver<Result<Vec<ObjectMeta>>>;

fn objects(pages: Pages) -> BoxStream<'static, Result<ObjectMeta>> {
    let pages =
        stream::unfold(
            pages,
            |mut pages| async move { pages.recv().await.map(|page| (page, pages)) },
        );
    pages.map_ok(|page| stream::iter(page.into_iter().map(Ok))).try_flatten().boxed()
}

/// Cuts the names below a prefix into ranges and starts to list them.
struct RangeCutter {
    seekable: Seekable,
    prefix: Path,
    /// The end of the last range.
    last: Option<Path>,
    started: u64,
    listed: Arc<AtomicU64>,
}

impl RangeCutter {
    fn new(seekable: Seekable, prefix: Path) -> Self {
        Self { seekable, prefix, last: None, started: 0, listed: Arc::default() }
    }

    async fn cut(mut self, sender: mpsc::Sender<Pages>) {
        let mut token = None;
        let mut first = true;
        loop {
            let (mut folders, next) = match self.folders(&self.prefix.clone(), token.take()).await {
                Ok(found) => found,
                Err(error) => {
                    let (failed, pages) = mpsc::channel(1);
                    failed.send(Err(error)).await.unwrap_or_default();
                    sender.send(pages).await.unwrap_or_default();
                    return;
                }
            };
            if first && next.is_none() {
                folders = self.with_those_inside(folders).await;
            }
            first = false;
            // If there are many folders, a range covers several.
            for folder in folders.into_iter().step_by_most(MAX_RANGES_PER_PAGE) {
                if self.start(Some(folder), &sender).await.is_err() {
                    return;
                }
            }
            let small = self.listed.load(Relaxed) < SMALL_RANGE_OBJECTS * self.started;
            if next.is_none() || small {
                // A send fails only if the reader of the stream is gone.
                self.start(None, &sender).await.unwrap_or_default();
                return;
            }
            token = next;
        }
    }

    /// One page of the folders directly in `inside`, in order, and the token of the next page.
    async fn folders(
        &self,
        inside: &Path,
        page_token: Option<String>,
    ) -> Result<(Vec<Path>, Option<String>)> {
        let prefix = Some(format!("{inside}/")).filter(|_| !inside.as_ref().is_empty());
        let mut tries = Tries::default();
        let page = loop {
            let options = PaginatedListOptions {
                delimiter: Some(Cow::Borrowed("/")),
                page_token: page_token.clone(),
                ..PaginatedListOptions::default()
            };
            match self.seekable.pages.list_paginated(prefix.as_deref(), options).await {
                Ok(page) => break page,
                Err(error) => tries.another(error).await?,
            }
        };
        let mut folders = page.result.common_prefixes;
        folders.sort_unstable();
        Ok((folders, page.page_token))
    }

    /// Adds the folders inside of few folders: those of a data set are often `train` and `val`.
    async fn with_those_inside(&self, folders: Vec<Path>) -> Vec<Path> {
        let mut found = folders.clone();
        let mut unseen = VecDeque::from(folders);
        for _ in 0..MAX_FOLDER_REQUESTS {
            if found.len() >= FEW_FOLDERS {
                break;
            }
            let Some(folder) = unseen.pop_front() else { break };
            // An error here changes only the cuts; the listing itself will show it.
            let Ok((inside, _)) = self.folders(&folder, None).await else { break };
            found.extend(inside.iter().cloned());
            unseen.extend(inside);
        }
        found.sort_unstable();
        found
    }

    /// Starts to list the range from the last range's end.
    async fn start(
        &mut self,
        until: Option<Path>,
        ranges: &mpsc::Sender<Pages>,
    ) -> Result<(), mpsc::error::SendError<Pages>> {
        let after = std::mem::replace(&mut self.last, until.clone());
        let (sender, pages) = mpsc::channel(PAGES_HELD);
        let range = NameRange { after, until };
        let listing = list_range(&self.seekable, &self.prefix, range);
        let listed = Arc::clone(&self.listed);
        // Waits for room first, so that a range is started only when its turn is near.
        ranges.send(pages).await?;
        self.started += 1;
        tokio::spawn(async move {
            let mut listing = listing.ready_chunks(PAGE_OBJECTS);
            while let Some(chunk) = listing.next().await {
                let page: Result<Vec<_>> = chunk.into_iter().collect();
                let count = page.as_ref().map_or(0, Vec::len) as u64;
                let failed = page.is_err();
                if sender.send(page).await.is_err() || failed {
                    return;
                }
                listed.fetch_add(count, Relaxed);
            }
        });
        Ok(())
    }
}

fn list_range(
    seekable: &Seekable,
    prefix: &Path,
    range: NameRange,
) -> BoxStream<'static, Result<ObjectMeta>> {
    let prefix = Some(prefix.clone()).filter(|prefix| !prefix.as_ref().is_empty());
    let listing = RangeListing {
        store: Arc::clone(&seekable.store),
        prefix,
        range,
        answers: None,
        tries: Tries::default(),
    };
    stream::unfold(Some(listing), |listing| async move {
        let mut listing = listing?;
        match listing.next().await? {
            Ok(object) => Some((Ok(object), Some(listing))),
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

/// A range being listed. After an error it goes on behind the last object it returned.
struct RangeListing {
    store: Arc<dyn ObjectStore>,
    prefix: Option<Path>,
    /// The rest of the range.
    range: NameRange,
    answers: Option<BoxStream<'static, Result<ObjectMeta>>>,
    tries: Tries,
}

impl RangeListing {
    async fn next(&mut self) -> Option<Result<ObjectMeta>> {
        loop {
            let (store, prefix) = (&self.store, self.prefix.as_ref());
            let answers = self.answers.get_or_insert_with(|| match &self.range.after {
                None => store.list(prefix),
                Some(after) => store.list_with_offset(prefix, after),
            });
            let object = match answers.next().await? {
                Ok(object) => object,
                Err(error) => {
                    self.answers = None;
                    match self.tries.another(error).await {
                        Ok(()) => continue,
                        Err(error) => return Some(Err(error)),
                    }
                }
            };
            let NameRange { after, until } = &self.range;
            if until.as_ref().is_some_and(|until| object.location > *until) {
                return None;
            }
            // A server that does not support an offset starts at the beginning.
            if after.as_ref().is_none_or(|after| object.location > *after) {
                self.range.after = Some(object.location.clone());
                self.tries = Tries::default();
                return Some(Ok(object));
            }
        }
    }
}

/// Repetitions of a failed request whose error may pass. The client repeats requests too, but not
/// after a body that was cut off.
struct Tries(Retries);

impl Default for Tries {
    fn default() -> Self {
        Self(Retries::at_most(MAX_REPEATS))
    }
}

impl Tries {
    /// Waits before another try.
    ///
    /// # Errors
    /// The error itself, if another try would not help.
    async fn another(&mut self, error: object_store::Error) -> Result<()> {
        match self.0.next_delay() {
            Some(delay) if may_pass(&error) => tokio::time::sleep(delay).await,
            _ => return Err(error),
        }
        Ok(())
    }
}

trait StepByMost: ExactSizeIterator + Sized {
    /// At most `most` of the items, evenly spread.
    fn step_by_most(self, most: usize) -> std::iter::StepBy<Self> {
        let step = self.len().div_ceil(most).max(1);
        self.step_by(step)
    }
}

impl<I: ExactSizeIterator> StepByMost for I {}
