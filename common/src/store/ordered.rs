//! Listing in the order of names, fast and in bounded memory.
//!
//! A store tells its objects a thousand at a time, and only the end of one page says where the
//! next begins. So the names are cut into stretches, at the folders that one look finds,
//! and some stretches are listed ahead while the first is handed on. A stretch is everything after one
//! name and up to another, so any name will do to cut at, and none is left out or told twice.
//!
//! Local folders have no order of their own: the names of one folder at a time are sorted here.
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
use crate::backoff::Backoff;

mod local;

pub(super) use local::list as list_local;

/// Stretches listed at a time.
const AHEAD: usize = 8;
/// Pages held of each, most of them of 1,000 objects: with their names some 250 bytes each.
const PAGES_HELD: usize = 12;
const PAGE_OBJECTS: usize = 1000;
/// Stretches that a page of folders is cut into, at most.
const STRETCHES_PER_PAGE: usize = 64;
/// With fewer folders than that, those inside are looked for as well.
const FEW_FOLDERS: usize = 16;
/// Requests spent on that.
const MAX_LOOKS: usize = 16;
/// Stretches with fewer objects are not worth a request each: a page has more.
const SMALL_STRETCH: u64 = 500;
/// How often one request is repeated.
const REPEATS: u32 = 4;

/// A store that can start a listing anywhere.
#[derive(Clone)]
pub(super) struct Seekable {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) pages: Arc<dyn PaginatedListStore>,
}

/// Everything after one name and up to another, the latter included.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stretch {
    after: Option<Path>,
    until: Option<Path>,
}

/// Every object below `prefix`, in the order of their names.
pub(super) fn list(seekable: Seekable, prefix: Path) -> BoxStream<'static, Result<ObjectMeta>> {
    let stretches = stream::once(async move {
        // Beside those that wait in it, one is being handed on.
        let (sender, receiver) = mpsc::channel(AHEAD - 1);
        tokio::spawn(async move { Cutter::new(seekable, prefix).cut(sender).await });
        stream::unfold(receiver, |mut receiver: mpsc::Receiver<Pages>| async move {
            receiver.recv().await.map(|pages| (pages, receiver))
        })
    });
    stretches.flatten().flat_map(objects).boxed()
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

/// Cuts the names below a prefix into stretches and starts to list them.
struct Cutter {
    seekable: Seekable,
    prefix: Path,
    /// Where the last stretch ended.
    last: Option<Path>,
    started: u64,
    listed: Arc<AtomicU64>,
}

impl Cutter {
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
            // Two to a stretch and so on, where there are many.
            for folder in folders.into_iter().step_by_most(STRETCHES_PER_PAGE) {
                if self.start(Some(folder), &sender).await.is_err() {
                    return;
                }
            }
            let small = self.listed.load(Relaxed) < SMALL_STRETCH * self.started;
            if next.is_none() || small {
                // Whoever dropped the stream has no use for the rest.
                self.start(None, &sender).await.unwrap_or_default();
                return;
            }
            token = next;
        }
    }

    /// The folders directly in one, in order: so many as a page has; and how to go on.
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

    /// Looks into folders where there are few: a data set's are often `train` and `val`.
    async fn with_those_inside(&self, folders: Vec<Path>) -> Vec<Path> {
        let mut found = folders.clone();
        let mut unseen = VecDeque::from(folders);
        for _ in 0..MAX_LOOKS {
            if found.len() >= FEW_FOLDERS {
                break;
            }
            let Some(folder) = unseen.pop_front() else { break };
            // Only where to cut depends on it; what is wrong will show in listing.
            let Ok((inside, _)) = self.folders(&folder, None).await else { break };
            found.extend(inside.iter().cloned());
            unseen.extend(inside);
        }
        found.sort_unstable();
        found
    }

    /// Starts to list the stretch from the last one's end.
    async fn start(
        &mut self,
        until: Option<Path>,
        stretches: &mpsc::Sender<Pages>,
    ) -> Result<(), mpsc::error::SendError<Pages>> {
        let after = std::mem::replace(&mut self.last, until.clone());
        let (sender, pages) = mpsc::channel(PAGES_HELD);
        let stretch = Stretch { after, until };
        let listing = list_stretch(&self.seekable, &self.prefix, stretch);
        let listed = Arc::clone(&self.listed);
        // In line first: so it is started only when its turn is near.
        stretches.send(pages).await?;
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

fn list_stretch(
    seekable: &Seekable,
    prefix: &Path,
    stretch: Stretch,
) -> BoxStream<'static, Result<ObjectMeta>> {
    let prefix = Some(prefix.clone()).filter(|prefix| !prefix.as_ref().is_empty());
    let listing = Listing {
        store: Arc::clone(&seekable.store),
        prefix,
        stretch,
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

/// A stretch being listed. Where that breaks off it goes on behind the last object it told.
struct Listing {
    store: Arc<dyn ObjectStore>,
    prefix: Option<Path>,
    /// What is left of it.
    stretch: Stretch,
    answers: Option<BoxStream<'static, Result<ObjectMeta>>>,
    tries: Tries,
}

impl Listing {
    async fn next(&mut self) -> Option<Result<ObjectMeta>> {
        loop {
            let (store, prefix) = (&self.store, self.prefix.as_ref());
            let answers = self.answers.get_or_insert_with(|| match &self.stretch.after {
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
            let Stretch { after, until } = &self.stretch;
            if until.as_ref().is_some_and(|until| object.location > *until) {
                return None;
            }
            // A server that doesn't know how to start there starts at the beginning.
            if after.as_ref().is_none_or(|after| object.location > *after) {
                self.stretch.after = Some(object.location.clone());
                self.tries = Tries::default();
                return Some(Ok(object));
            }
        }
    }
}

/// Repetitions of a request that failed and may not fail again: the client has tried a few times
/// itself, but not where a body was cut off half-way.
#[derive(Default)]
struct Tries {
    failed: u32,
    backoff: Backoff,
}

impl Tries {
    /// Waits before another.
    ///
    /// # Errors
    /// The error, where another is no use.
    async fn another(&mut self, error: object_store::Error) -> Result<()> {
        self.failed += 1;
        if self.failed > REPEATS || !may_pass(&error) {
            return Err(error);
        }
        tokio::time::sleep(self.backoff.next_delay()).await;
        Ok(())
    }
}

trait StepByMost: ExactSizeIterator + Sized {
    /// Evenly spread, at most so many of them.
    fn step_by_most(self, most: usize) -> std::iter::StepBy<Self> {
        let step = self.len().div_ceil(most).max(1);
        self.step_by(step)
    }
}

impl<I: ExactSizeIterator> StepByMost for I {}
