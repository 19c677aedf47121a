//! A folder in a store whose failed requests are retried, so that an image does not lose a try
//! of its job to an error that passes.
//!
//! A request is repeated twice while the store answers others. While the store is out, it waits
//! for the [`Outage`] to end. Errors that outlast the [`OutagePolicy`] are left to the queue,
//! which delivers the job again later.

use std::sync::Arc;

use bytes::Bytes;
use camshaft_common::backoff::Backoff;
use camshaft_common::key::ImageKey;
use camshaft_common::location::Location;
use camshaft_common::store::{FetchedObject, Folder, Listed, StoreError};
use futures::future::BoxFuture;
use tokio::time::{Instant, sleep, timeout};

use super::memory_budget::{ImageMemoryPermit, MemoryBudget};
use super::outage::{Outage, OutagePolicy};
use super::source_access::{SourceAccess, UnreadImage};

/// How often a failed request is repeated while the store answers others. The store's client has
/// repeated it a few times before. It leaves to its caller what it can't repeat, such as a body
/// that was cut off.
const REPEATS: u32 = 2;

/// An open folder in a store. Requests to it survive errors that pass.
#[derive(Clone, Debug)]
pub struct RetryingFolder {
    folder: Folder,
    outage: Arc<Outage>,
    /// If it is a SOURCE.
    access: Arc<SourceAccess>,
    policy: OutagePolicy,
}

impl RetryingFolder {
    /// Wraps an open folder.
    #[must_use]
    pub fn new(folder: Folder, policy: OutagePolicy) -> Self {
        Self { folder, outage: Arc::default(), access: Arc::default(), policy }
    }

    /// The place that it opens.
    #[must_use]
    pub fn location(&self) -> &Location {
        self.folder.location()
    }

    /// Whether its store is out.
    #[must_use]
    pub fn outage(&self) -> &Outage {
        &self.outage
    }

    /// Does what [`Folder::get`] does, once `budget` has room for the content.
    ///
    /// # Errors
    /// As [`Folder::get`].
    pub async fn get(
        &self,
        path: &str,
        max_bytes: u64,
        budget: &MemoryBudget,
    ) -> Result<(FetchedObject, ImageMemoryPermit), StoreError> {
        let read = async move || {
            let opened = self.folder.open_object(path, max_bytes).await?;
            let memory = budget.reserve(opened.size_bytes()).await;
            Ok((opened.read().await?, memory))
        };
        self.retry(path, || Box::pin(read())).await
    }

    /// Does what [`Folder::get`] does, once. It does not wait while the store is out, and does not tell
    /// whether the store answers. For what can be done without.
    ///
    /// # Errors
    /// As [`Folder::get`].
    pub async fn get_once(&self, path: &str, max_bytes: u64) -> Result<FetchedObject, StoreError> {
        self.folder.get(path, max_bytes).await
    }

    /// Does what [`Folder::get_image`] does, once `budget` has room for the content.
    ///
    /// # Errors
    /// As [`Folder::get_image`]; or why no image of this folder can be read.
    pub async fn get_image(
        &self,
        key: &ImageKey,
        max_bytes: u64,
        budget: &MemoryBudget,
    ) -> Result<(FetchedObject, ImageMemoryPermit), UnreadImage> {
        let read = async move || {
            let opened = self.folder.open_image(key, max_bytes).await?;
            self.access.note_readable(key);
            let memory = budget.reserve(opened.size_bytes()).await;
            Ok((opened.read().await?, memory))
        };
        match self.retry(key.as_str(), || Box::pin(read())).await {
            Ok(read) => Ok(read),
            Err(error) => Err(self.access.judge(&self.folder, key, error).await),
        }
    }

    /// Does what [`Folder::put`] does.
    ///
    /// # Errors
    /// As [`Folder::put`].
    pub async fn put(
        &self,
        path: &str,
        content: impl Into<Bytes>,
        content_type: &'static str,
    ) -> Result<(), StoreError> {
        let content = content.into();
        let put = || self.folder.put(path, content.clone(), content_type);
        self.retry(path, || Box::pin(put())).await
    }

    /// Does what [`Folder::delete`] does.
    ///
    /// # Errors
    /// As [`Folder::delete`].
    pub async fn delete(&self, path: &str) -> Result<(), StoreError> {
        self.retry(path, || Box::pin(self.folder.delete(path))).await
    }

    /// Does what [`Folder::head_image`] does.
    ///
    /// # Errors
    /// As [`Folder::head_image`]; or why no image of this folder can be read.
    pub async fn head_image(&self, key: &ImageKey) -> Result<Listed, UnreadImage> {
        match self.retry(key.as_str(), || Box::pin(self.folder.head_image(key))).await {
            Ok(listed) => Ok(listed),
            Err(error) => Err(self.access.judge(&self.folder, key, error).await),
        }
    }

    async fn retry<'r, T>(
        &self,
        path: &str,
        request: impl Fn() -> BoxFuture<'r, Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let started = Instant::now();
        let (mut repeats, mut backoff) = (0, Backoff::default());
        let mut last_error = None;
        loop {
            let left = self.policy.max_outage.saturating_sub(started.elapsed());
            let probe = match (timeout(left, self.outage.wait()).await, last_error.take()) {
                (Ok(probe), _) => probe,
                (Err(_elapsed), Some(error)) => return Err(error),
                // The time was over before this request was sent once. Its own error says why.
                (Err(_elapsed), None) => return request().await,
            };
            let error = match request().await {
                Err(error) if error.kind().may_pass() => error,
                answered => {
                    // This ends the outage before the probe is dropped, so no other caller probes.
                    self.outage.note_answer();
                    return answered;
                }
            };
            let limit = self.policy.limit_for(&error);
            // An error that is not retried at all is no outage either.
            let out = !limit.is_zero() && self.outage.note_failure(path, &error);
            drop(probe);
            if started.elapsed() >= limit || (!out && repeats == REPEATS) {
                return Err(error);
            }
            if !out {
                repeats += 1;
                sleep(backoff.next_delay()).await;
            }
            last_error = Some(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    use camshaft_common::store::{JSON, StoreOptions};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// A folder whose requests fail as long as a file is in its place.
    fn broken(path: &Path) -> RetryingFolder {
        fs::write(path, "in the way").unwrap();
        let location = path.to_str().unwrap().parse().unwrap();
        let folder = Folder::open(&location, &StoreOptions::default()).unwrap();
        RetryingFolder::new(folder, OutagePolicy { max_outage: LONG, max_no_space: LONG })
    }

    fn mend(path: &Path) {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    }

    #[tokio::test]
    async fn what_fails_for_everybody_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let folder = broken(&path);
        let requests = ["a", "b", "c", "d"].map(|object| {
            let folder = folder.clone();
            tokio::spawn(async move { folder.put(object, "x", JSON).await })
        });
        let out = async {
            while folder.outage().reason().is_none() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LONG, out).await.expect("it is noticed");
        assert!(folder.outage().reason().unwrap().contains("store/"));
        mend(&path);
        for request in requests {
            request.await.unwrap().unwrap();
        }
        assert_eq!(folder.outage().reason(), None);
    }

    #[tokio::test]
    async fn one_objects_fault_is_no_outage() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let folder = broken(&path);
        for _ in 0..3 {
            assert!(folder.put("a", "x", JSON).await.is_err());
        }
        assert_eq!(folder.outage().reason(), None);
        mend(&path);
        folder.put("a", "x", JSON).await.unwrap();
    }
}
