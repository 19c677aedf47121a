//! Places in stores, with patience: a store that is out for a while costs no image a try.
//!
//! Owns telling one object's fault from the whole store's. A request that fails is repeated
//! once or twice; when requests keep failing with no success in between, the store is out:
//! everybody who needs it waits, one request at a time asks whether it is back, at growing
//! intervals with jitter, and then all go on. The queue isn't drained meanwhile, since images
//! that wait fill the stages. What this doesn't mend within [`Patience`] is the queue's
//! business: its delays and tries.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use camshaft_common::backoff::Backoff;
use camshaft_common::store::{FetchedObject, Folder, Listed, StoreError, StoreErrorKind};
use futures::future::BoxFuture;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::budget::{Budget, Share};

/// Repetitions of one failed request while the store answers others. The client has tried a
/// few times itself by then; what it can't repeat, such as a body cut off half-way, it leaves
/// to its caller.
const REPEATS: u32 = 2;
/// Objects whose requests fail, with none that succeeds in between, before the store counts as
/// out. One or two may have faults of their own.
const FAILING_OBJECTS: usize = 3;

/// How long one request waits, all in all.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a store that doesn't answer.
    pub outage: Duration,
    /// For room on a store that is full.
    pub no_space: Duration,
}

impl Patience {
    /// A worker's: an outage of minutes passes by. Well within the half hour after which RabbitMQ
    /// takes a message away from who holds it.
    pub const WORKER: Self =
        Self { outage: Duration::from_secs(600), no_space: Duration::from_secs(600) };
    /// Of someone at a terminal, who would rather be told.
    pub const PERSON: Self = Self { outage: Duration::from_secs(60), no_space: Duration::ZERO };

    fn for_error(self, error: &StoreError) -> Duration {
        match error.kind() {
            StoreErrorKind::NoSpace => self.no_space,
            _ => self.outage,
        }
    }
}

/// Whether a store answers.
#[derive(Debug, Default)]
pub struct Outage {
    state: Mutex<State>,
    /// Woken when the store is back, or when a request that asked gave up.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Objects with failed requests since the last answer, as far as it matters.
    failing: BTreeSet<String>,
    /// Why the store counts as out.
    reason: Option<String>,
    /// Somebody is asking whether it is back.
    asking: bool,
    /// Between fruitless questions.
    backoff: Backoff,
}

/// What a request that failed may do.
enum Next {
    Wait,
    Ask(Duration),
}

impl Outage {
    /// Why the store counts as out; `None` where it doesn't.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        self.state().reason.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_answer(&self) {
        let mut state = self.state();
        let was_out = state.reason.is_some();
        *state = State::default();
        drop(state);
        if was_out {
            info!("the store is back");
            self.changed.notify_waiters();
        }
    }

    /// Counts a failure; whether the store is out now.
    fn note_failure(&self, path: &str, error: &StoreError) -> bool {
        let mut state = self.state();
        if state.reason.is_none() {
            state.failing.insert(path.to_owned());
        }
        if state.reason.is_none() && state.failing.len() >= FAILING_OBJECTS {
            warn!(%error, "the store doesn't answer; waiting for it");
            state.reason = Some(error.to_string());
        }
        state.reason.is_some()
    }

    /// What to do while the store is out; `None` where it isn't.
    fn next(&self) -> Option<Next> {
        let mut state = self.state();
        state.reason.as_ref()?;
        if state.asking {
            return Some(Next::Wait);
        }
        state.asking = true;
        Some(Next::Ask(state.backoff.next_delay()))
    }

    /// Waits until the store is back, or it is this caller's turn to ask.
    async fn wait(&self) -> Option<Asking<'_>> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Listens before it looks, so that no change falls in between.
            changed.as_mut().enable();
            match self.next() {
                None => return None,
                Some(Next::Wait) => changed.await,
                Some(Next::Ask(delay)) => {
                    let asking = Asking(self);
                    sleep(delay).await;
                    return Some(asking);
                }
            }
        }
    }
}

/// The right to ask a store that is out. Dropped, it goes to the next.
struct Asking<'o>(&'o Outage);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.state().asking = false;
        self.0.changed.notify_waiters();
    }
}

/// An open place in a store whose outages are waited for.
#[derive(Clone, Debug)]
pub struct SteadyFolder {
    folder: Folder,
    outage: Arc<Outage>,
    patience: Patience,
}

impl SteadyFolder {
    /// Wraps an open place.
    #[must_use]
    pub fn new(folder: Folder, patience: Patience) -> Self {
        Self { folder, outage: Arc::default(), patience }
    }

    /// Whether its store answers.
    #[must_use]
    pub fn outage(&self) -> &Outage {
        &self.outage
    }

    /// As [`Folder::get`], once `budget` has room for the content.
    ///
    /// # Errors
    /// As there.
    pub async fn get(
        &self,
        path: &str,
        max_bytes: u64,
        budget: &Budget,
    ) -> Result<(FetchedObject, Share), StoreError> {
        let read = async move || {
            let opened = self.folder.open_object(path, max_bytes).await?;
            let share = budget.reserve(opened.size_bytes()).await;
            Ok((opened.read().await?, share))
        };
        self.steadily(path, || Box::pin(read())).await
    }

    /// As [`Folder::put`].
    ///
    /// # Errors
    /// As there.
    pub async fn put(
        &self,
        path: &str,
        content: impl Into<Bytes>,
        content_type: &'static str,
    ) -> Result<(), StoreError> {
        let content = content.into();
        let put = || self.folder.put(path, content.clone(), content_type);
        self.steadily(path, || Box::pin(put())).await
    }

    /// As [`Folder::delete`].
    ///
    /// # Errors
    /// As there.
    pub async fn delete(&self, path: &str) -> Result<(), StoreError> {
        self.steadily(path, || Box::pin(self.folder.delete(path))).await
    }

    /// As [`Folder::head`].
    ///
    /// # Errors
    /// As there.
    pub async fn head(&self, path: &str) -> Result<Listed, StoreError> {
        self.steadily(path, || Box::pin(self.folder.head(path))).await
    }

    async fn steadily<'r, T>(
        &self,
        path: &str,
        request: impl Fn() -> BoxFuture<'r, Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let started = Instant::now();
        let (mut repeats, mut backoff) = (0, Backoff::default());
        let mut last = None;
        loop {
            let left = self.patience.outage.saturating_sub(started.elapsed());
            let asking = match (timeout(left, self.outage.wait()).await, last.take()) {
                (Ok(asking), _) => asking,
                (Err(_late), Some(error)) => return Err(error),
                // It never got to ask itself: whoever did knows why.
                (Err(_late), None) => return request().await,
            };
            let result = request().await;
            // Told before the next one asks.
            let error = match result {
                Err(error) if error.kind().may_pass() => error,
                answered => {
                    self.outage.note_answer();
                    return answered;
                }
            };
            let patience = self.patience.for_error(&error);
            // What nobody waits for is no outage either.
            let out = !patience.is_zero() && self.outage.note_failure(path, &error);
            drop(asking);
            if started.elapsed() >= patience || (!out && repeats == REPEATS) {
                return Err(error);
            }
            if !out {
                repeats += 1;
                sleep(backoff.next_delay()).await;
            }
            last = Some(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use camshaft_common::store::{JSON, StoreOptions};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// A place that fails while there is a file where its folder should be.
    fn broken(path: &Path) -> SteadyFolder {
        fs::write(path, "in the way").unwrap();
        let location = path.to_str().unwrap().parse().unwrap();
        let folder = Folder::open(&location, &StoreOptions::default()).unwrap();
        SteadyFolder::new(folder, Patience { outage: LONG, no_space: LONG })
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
