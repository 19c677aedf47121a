//! Listing in the order of names, fast and in bounded memory.
//!
//! A store lists a page of 1,000 objects at a time, and a page can be asked for only after the one
//! before it. So the names are cut into ranges, at the folders that a first request finds, and several
//! ranges are listed at once. A range is all names after one name and up to another. Any name can be a
//! cut; no object is left out or listed twice. Names are compared as the store has them: a
//! [`Path`] drops a `/` at an end, and would be in another order.
//!
//! A store sorts names by their UTF-8 bytes. Some stores sort them as UTF-16, and some put U+FFFD in
//! place of characters that XML can't have: then a name with U+E000 or above is listed in another
//! place than its bytes say. So no such name is a cut, and none decides where a range ends: it belongs
//! to the range of the names before it.
//!
//! Local folders are not ordered: [`local`] sorts the names of one folder at a time.
//!
//! Upstream: [`Folder::list_in_order`](super::Folder::list_in_order).

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::path::Path;
use object_store::{ObjectMeta, Result};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::error::may_pass;
use super::found::{FoundEntry, FoundObject};
use super::listed_names::name_of;
use crate::backoff::Retries;

mod local;

pub(super) use local::{etag, list as list_local};

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
/// The first byte of U+E000 in UTF-8. From there on, the order of UTF-16 is another.
const FIRST_UNCERTAIN_BYTE: u8 = 0xee;

/// A store that can start a listing anywhere.
pub(super) type Seekable = Arc<dyn PaginatedListStore>;

/// All names after one and up to another; the latter is included.
#[derive(Clone, Debug, PartialEq, Eq)]
struct NameRange {
    after: Option<String>,
    until: Option<String>,
}

/// Every object below `prefix`, in the order of their names.
pub(super) fn list(store: Seekable, prefix: &Path) -> BoxStream<'static, Result<FoundEntry>> {
    let prefix = Some(format!("{prefix}/")).filter(|_| !prefix.as_ref().is_empty());
    let prefix_bytes = prefix.as_ref().map_or(0, String::len);
    let ranges = stream::once(async move {
        // Beside the ranges in the channel, one is being handed on.
        let (sender, receiver) = mpsc::channel(RANGES_AT_ONCE - 1);
        let cutting = tokio::spawn(RangeCutter::new(store, prefix).cut(sender));
        received(receiver, cutting).map(|range| range.flatten())
    });
    let found = ranges.flatten().map_ok(Range::objects).try_flatten();
    found
        .try_filter_map(move |meta| async move {
            Ok(FoundObject::in_store(meta, prefix_bytes).map(FoundEntry::Object))
        })
        .boxed()
}

/// What a task sends, and an error at the end if the task panicked: what it did not send would be
/// missing, and nobody would know.
fn received<T: Send + 'static>(
    receiver: mpsc::Receiver<T>,
    task: JoinHandle<()>,
) -> BoxStream<'static, Result<T>> {
    stream::unfold((receiver, Some(task)), |(mut receiver, mut task)| async move {
        if let Some(item) = receiver.recv().await {
            return Some((Ok(item), (receiver, task)));
        }
        let panic = task.take()?.await.err()?;
        Some((Err(panic.into()), (receiver, None)))
    })
    .boxed()
}

/// A range, while a task lists it.
struct Range {
    pages: mpsc::Receiver<Result<Vec<ObjectMeta>>>,
    listing: JoinHandle<()>,
}

impl Range {
    fn objects(self) -> BoxStream<'static, Result<ObjectMeta>> {
        let pages = received(self.pages, self.listing).map(|page| page.flatten());
        pages.map_ok(|page| stream::iter(page.into_iter().map(Ok))).try_flatten().boxed()
    }
}

/// Cuts the names below a prefix into ranges and starts to list them.
struct RangeCutter {
    store: Seekable,
    /// The start of all names, a `/` at its end.
    prefix: Option<String>,
    /// The end of the last range.
    last: Option<String>,
    started: u64,
    listed: Arc<AtomicU64>,
}

impl RangeCutter {
    fn new(store: Seekable, prefix: Option<String>) -> Self {
        Self { store, prefix, last: None, started: 0, listed: Arc::default() }
    }

    async fn cut(mut self, ranges: mpsc::Sender<Result<Range>>) {
        if let Err(error) = self.start_all(&ranges).await {
            // A send fails only if the reader of the stream is gone.
            ranges.send(Err(error)).await.unwrap_or_default();
        }
    }

    async fn start_all(&mut self, ranges: &mpsc::Sender<Result<Range>>) -> Result<()> {
        let mut token = None;
        let mut first = true;
        loop {
            let (mut folders, next) = self.folders(self.prefix.as_deref(), token.take()).await?;
            if first && next.is_none() {
                folders = self.with_those_inside(folders).await;
            }
            first = false;
            // If there are many folders, a range covers several.
            for folder in folders.into_iter().step_by_most(MAX_RANGES_PER_PAGE) {
                // A store sorts `cat-1/` before `cat/`, and `cat` before both: a page may begin with
                // a cut that is below the last one of the page before.
                if self.last.as_ref().is_some_and(|last| folder <= *last) {
                    continue;
                }
                if self.start(Some(folder), ranges).await.is_err() {
                    return Ok(());
                }
            }
            let small = self.listed.load(Relaxed) < SMALL_RANGE_OBJECTS * self.started;
            if next.is_none() || small {
                self.start(None, ranges).await.unwrap_or_default();
                return Ok(());
            }
            token = next;
        }
    }

    /// One page of the folders directly in `inside`, in order and without their last `/`, and the
    /// token of the next page.
    async fn folders(
        &self,
        inside: Option<&str>,
        page_token: Option<String>,
    ) -> Result<(Vec<String>, Option<String>)> {
        let options = PaginatedListOptions {
            delimiter: Some(Cow::Borrowed("/")),
            page_token,
            ..PaginatedListOptions::default()
        };
        let page = request_page(&self.store, inside, options).await?;
        let prefix_bytes = self.prefix.as_ref().map_or(0, String::len);
        // A folder whose name is no path has none here. It needs no cut of its own.
        let can_be_cut = |folder: &String| {
            folder.get(prefix_bytes..).is_some_and(|name| {
                !name.is_empty() && name.bytes().all(|byte| byte < FIRST_UNCERTAIN_BYTE)
            })
        };
        let folders = page.result.common_prefixes.into_iter().map(String::from);
        let mut folders: Vec<_> = folders.filter(can_be_cut).collect();
        folders.sort_unstable();
        Ok((folders, page.page_token))
    }

    /// Adds the folders inside of few folders: those of a data set are often `train` and `val`.
    async fn with_those_inside(&self, folders: Vec<String>) -> Vec<String> {
        let mut found = folders.clone();
        let mut unseen = VecDeque::from(folders);
        for _ in 0..MAX_FOLDER_REQUESTS {
            if found.len() >= FEW_FOLDERS {
                break;
            }
            let Some(folder) = unseen.pop_front() else { break };
            // An error here changes only the cuts; the listing itself will show it.
            let inside = self.folders(Some(&format!("{folder}/")), None).await;
            let Ok((inside, _)) = inside else { break };
            found.extend(inside.iter().cloned());
            unseen.extend(inside);
        }
        found.sort_unstable();
        found
    }

    /// Starts to list the range from the last range's end.
    ///
    /// # Errors
    /// If the reader of the stream is gone.
    async fn start(
        &mut self,
        until: Option<String>,
        ranges: &mpsc::Sender<Result<Range>>,
    ) -> Result<(), mpsc::error::SendError<()>> {
        // Waits for room first, so that a range is started only when its turn is near.
        let room = ranges.reserve().await?;
        let after = std::mem::replace(&mut self.last, until.clone());
        let (sender, pages) = mpsc::channel(PAGES_HELD);
        let range = NameRange { after, until };
        let listing = list_range(&self.store, self.prefix.clone(), range);
        let listed = Arc::clone(&self.listed);
        self.started += 1;
        let listing = tokio::spawn(async move {
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
        room.send(Ok(Range { pages, listing }));
        Ok(())
    }
}

fn list_range(
    store: &Seekable,
    prefix: Option<String>,
    range: NameRange,
) -> BoxStream<'static, Result<ObjectMeta>> {
    let listing = RangeListing {
        store: Arc::clone(store),
        prefix,
        has_begun: range.after.is_none(),
        range,
        next_page: NextPage::First,
        page: VecDeque::new(),
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

/// A range being listed.
struct RangeListing {
    store: Seekable,
    prefix: Option<String>,
    range: NameRange,
    /// True from the first name that is certainly after the cut before this range. The names before
    /// it belong to the range before. A server that does not support an offset lists all of them.
    has_begun: bool,
    next_page: NextPage,
    /// The rest of the last page.
    page: VecDeque<ObjectMeta>,
}

/// The page that is asked for next.
enum NextPage {
    First,
    /// The one that the page before it names.
    Token(String),
    None,
}

impl RangeListing {
    async fn next(&mut self) -> Option<Result<ObjectMeta>> {
        loop {
            let NameRange { after, until } = &self.range;
            while let Some(object) = self.page.pop_front() {
                let name = name_of(&object.location);
                if until.as_deref().is_some_and(|until| is_after(&name, until)) {
                    return None;
                }
                let begins = || after.as_deref().is_some_and(|after| is_after(&name, after));
                self.has_begun = self.has_begun || begins();
                if self.has_begun {
                    return Some(Ok(object));
                }
            }
            let page_token = match &self.next_page {
                NextPage::First => None,
                NextPage::Token(token) => Some(token.clone()),
                NextPage::None => return None,
            };
            let options = PaginatedListOptions {
                offset: after.clone(),
                page_token,
                ..PaginatedListOptions::default()
            };
            let page = request_page(&self.store, self.prefix.as_deref(), options).await;
            let PaginatedListResult { result, page_token } = match page {
                Ok(page) => page,
                Err(error) => return Some(Err(error)),
            };
            self.page = result.objects.into();
            self.next_page = page_token.map_or(NextPage::None, NextPage::Token);
        }
    }
}

/// True if every store lists `name` after `cut`. A `cut` has no uncertain characters: if `name` has
/// one where the two begin to differ, its place can't be told.
fn is_after(name: &str, cut: &str) -> bool {
    let same = name.bytes().zip(cut.bytes()).take_while(|(of_name, of_cut)| of_name == of_cut);
    let at = same.count();
    match (name.as_bytes().get(at), cut.as_bytes().get(at)) {
        (Some(of_name), Some(of_cut)) => of_name > of_cut && *of_name < FIRST_UNCERTAIN_BYTE,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

/// A page of a listing.
async fn request_page(
    store: &Seekable,
    prefix: Option<&str>,
    options: PaginatedListOptions,
) -> Result<PaginatedListResult> {
    let mut tries = Tries::default();
    loop {
        match store.list_paginated(prefix, options.clone()).await {
            Ok(mut page) => {
                // Some servers send an empty token with the last page. Sent back, it would ask for
                // the first page.
                page.page_token = page.page_token.filter(|token| !token.is_empty());
                return Ok(page);
            }
            Err(error) => tries.another(error).await?,
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

#[cfg(test)]
mod tests;
