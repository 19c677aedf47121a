//! The files of the models in use: read once, and kept while jobs ask for them.
//!
//! Each model is read by a task of its own. A store that is slow or out keeps only the jobs of its
//! models waiting, for some seconds here, then in the queue, where no try is counted. Meanwhile the
//! worker does the jobs of other models. Upstream: `fetch`, which needs a job's model. Downstream:
//! [`model_files`](super::model_files), which reads one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use camshaft_common::backoff::Backoff;
use camshaft_common::model::ModelIdentity;
use camshaft_common::store::StoreOptions;
use camshaft_model::ModelFiles;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::model_files::{KEPT_MODELS, ModelUnavailable, read_wanted};
use super::recently_used::RecentlyUsed;
use crate::waiting;

/// How long the first jobs of a model wait here for it. Most models are read by then. Later jobs
/// come back from the queue.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long an error is remembered that another try would meet again: to read gigabytes for each
/// job would keep the store and this worker from other work.
const ERROR_KEPT: Duration = Duration::from_secs(30);

/// A model whose store is out is tried as long as a job has asked for it within this time. Jobs
/// that wait in the queue ask once a minute or so.
const WANTED_FOR: Duration = Duration::from_secs(600);

/// The most models that are read at the same time: each takes memory for its weights.
const READ_AT_ONCE: usize = 4;

/// The most models that are being read or wait for it. A run has one, but messages could name any
/// number.
const MOST_READINGS: usize = 64;

/// The files of the models in use.
#[derive(Debug)]
pub struct ModelFilesCache {
    pinned: Option<Arc<ModelFiles>>,
    shared: Arc<Shared>,
}

/// What the tasks that read models share with the cache.
#[derive(Debug)]
struct Shared {
    options: StoreOptions,
    max_outage: Duration,
    kept: Mutex<RecentlyUsed<Arc<ModelFiles>>>,
    readings: Mutex<HashMap<ModelIdentity, Reading>>,
    turns: Semaphore,
}

/// A model that a task reads.
#[derive(Debug)]
struct Reading {
    progress: watch::Receiver<Progress>,
    since: Instant,
    last_wanted: Instant,
}

/// How far the reading of a model is.
#[derive(Clone, Debug)]
enum Progress {
    /// The first try is under way, or waits for its turn.
    FirstTry,
    /// The model is read.
    Done(Arc<ModelFiles>),
    /// Its store is out, and is asked again and again.
    Out(Arc<ModelUnavailable>),
    /// Another try would fail, too.
    Failed(Arc<ModelUnavailable>),
}

impl ModelFilesCache {
    /// Holds the files of `first`. If `pinned`, no other model is used. The jobs of a model whose
    /// store is out are put off for `max_outage`, and then refused.
    #[must_use]
    pub fn new(
        first: Option<Arc<ModelFiles>>,
        pinned: bool,
        options: StoreOptions,
        max_outage: Duration,
    ) -> Self {
        let mut kept = RecentlyUsed::new(KEPT_MODELS);
        if let Some(first) = &first {
            kept.insert(Arc::clone(first));
        }
        let shared = Shared {
            options,
            max_outage,
            kept: Mutex::new(kept),
            readings: Mutex::default(),
            turns: Semaphore::new(READ_AT_ONCE),
        };
        Self { pinned: first.filter(|_| pinned), shared: Arc::new(shared) }
    }

    /// The files of the model a job asks for.
    ///
    /// # Errors
    /// If this worker may not use the model, or can't, or can't yet.
    pub async fn files_for(
        &self,
        wanted: &ModelIdentity,
    ) -> Result<Arc<ModelFiles>, Arc<ModelUnavailable>> {
        if let Some(pinned) = &self.pinned {
            if pinned.identity().same_content(wanted) {
                return Ok(Arc::clone(pinned));
            }
            let calibration = wanted.options.calibration.clone();
            let in_8_bits = calibration.map(|it| pinned.identity().clone().with_calibration(it));
            // The same model, computed in 8 bits, may be used.
            if !in_8_bits.is_some_and(|ours| ours.same_content(wanted)) {
                return Err(Arc::new(ModelUnavailable::Pinned {
                    ours: pinned.identity().reference.to_string(),
                    wanted: format!("{} ({})", wanted.reference, wanted.digest),
                }));
            }
        }
        let (mut progress, since) = match self.shared.find_or_read(wanted) {
            Found::Kept(files) => return Ok(files),
            Found::Reading { progress, since } => (progress, since),
            Found::TooMany => return Err(being_read(wanted, Duration::ZERO, None)),
        };
        let settled = async {
            let settled = progress.wait_for(|now| !matches!(now, Progress::FirstTry)).await;
            settled.map(|now| Progress::clone(&now))
        };
        let patience = PATIENCE.saturating_sub(since.elapsed());
        match waiting::wait_for_turn(timeout(patience, settled)).await {
            Ok(Ok(Progress::Done(files))) => Ok(files),
            Ok(Ok(Progress::Failed(error))) => Err(error),
            Ok(Ok(Progress::Out(error))) => {
                let waited = since.elapsed();
                if waited >= self.shared.max_outage {
                    return Err(error);
                }
                Err(being_read(wanted, waited, Some(error)))
            }
            Err(_) | Ok(Ok(Progress::FirstTry)) => Err(being_read(wanted, since.elapsed(), None)),
            // The task ended without a word.
            Ok(Err(_closed)) => Err(Arc::new(ModelUnavailable::ReaderPanicked)),
        }
    }

    /// Why models can't be read at the moment whose stores are out.
    #[must_use]
    pub fn outages(&self) -> Vec<String> {
        let readings = self.shared.readings.lock();
        let problems = readings.values().filter_map(|reading| match &*reading.progress.borrow() {
            Progress::Out(error) => Some(error.to_string()),
            Progress::FirstTry | Progress::Done(_) | Progress::Failed(_) => None,
        });
        problems.collect()
    }
}

fn being_read(
    wanted: &ModelIdentity,
    waited: Duration,
    problem: Option<Arc<ModelUnavailable>>,
) -> Arc<ModelUnavailable> {
    Arc::new(ModelUnavailable::BeingRead { name: wanted.name.clone(), waited, problem })
}

/// Where a wanted model is.
enum Found {
    Kept(Arc<ModelFiles>),
    Reading {
        progress: watch::Receiver<Progress>,
        since: Instant,
    },
    /// It can't even wait for its turn.
    TooMany,
}

impl Shared {
    /// Finds a model, or starts to read it.
    fn find_or_read(self: &Arc<Self>, wanted: &ModelIdentity) -> Found {
        // A task adds its model to those that are kept, and then takes itself off this list.
        let mut readings = self.readings.lock();
        if let Some(files) = self.kept.lock().find(|files| files.identity().same_content(wanted)) {
            return Found::Kept(Arc::clone(files));
        }
        let now = Instant::now();
        if let Some(reading) = readings.get_mut(wanted) {
            reading.last_wanted = now;
            let progress = reading.progress.clone();
            return Found::Reading { progress, since: reading.since };
        }
        if readings.len() >= MOST_READINGS {
            return Found::TooMany;
        }
        let (told, progress) = watch::channel(Progress::FirstTry);
        let reading = Reading { progress: progress.clone(), since: now, last_wanted: now };
        readings.insert(wanted.clone(), reading);
        let entry = ReadingEntry { shared: Arc::clone(self), wanted: wanted.clone() };
        tokio::spawn(entry.read(told));
        Found::Reading { progress, since: now }
    }

    /// True if a job has asked for the model lately.
    fn is_wanted(&self, model: &ModelIdentity) -> bool {
        let readings = self.readings.lock();
        readings.get(model).is_some_and(|reading| reading.last_wanted.elapsed() < WANTED_FOR)
    }
}

/// A model's entry in the list of those that are read. It is removed when this is dropped.
struct ReadingEntry {
    shared: Arc<Shared>,
    wanted: ModelIdentity,
}

impl Drop for ReadingEntry {
    fn drop(&mut self) {
        self.shared.readings.lock().remove(&self.wanted);
    }
}

impl ReadingEntry {
    /// Reads the model, however often its store must be asked, as long as it is wanted.
    async fn read(self, told: watch::Sender<Progress>) {
        let Self { shared, wanted } = &self;
        let (model, mut backoff) = (&wanted.name, Backoff::default());
        let mut is_out = false;
        loop {
            let turn = shared.turns.acquire().await.expect("turns are never closed");
            let read = read_wanted(wanted, &shared.options).await;
            drop(turn);
            let error = match read {
                Ok(files) => {
                    let files = Arc::new(files);
                    shared.kept.lock().insert(Arc::clone(&files));
                    told.send_replace(Progress::Done(files));
                    if is_out {
                        info!(model, "the model's store is back");
                    }
                    return;
                }
                Err(error) => Arc::new(error),
            };
            if !error.may_pass() {
                told.send_replace(Progress::Failed(error));
                // Jobs that ask meanwhile get the same answer.
                sleep(ERROR_KEPT).await;
                return;
            }
            if !is_out {
                warn!(model, %error, "the model's store doesn't answer; its jobs wait");
                is_out = true;
            }
            told.send_replace(Progress::Out(error));
            sleep(backoff.next_delay()).await;
            if !shared.is_wanted(wanted) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use camshaft_common::model::{FileDigest, ModelOptions, ModelReference};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn cache(max_outage: Duration) -> ModelFilesCache {
        ModelFilesCache::new(None, false, StoreOptions::default(), max_outage)
    }

    /// A model that the job says is in a folder.
    fn in_folder(path: &Path) -> ModelIdentity {
        let reference: ModelReference = path.to_str().unwrap().parse().unwrap();
        let digest = FileDigest::of(b"");
        let config_digest = digest.clone();
        let options = ModelOptions::default();
        ModelIdentity { name: "pets".to_owned(), reference, digest, config_digest, options }
    }

    async fn error_of(cache: &ModelFilesCache, model: &ModelIdentity) -> Arc<ModelUnavailable> {
        timeout(HOUR, cache.files_for(model)).await.expect("it ends").expect_err("it can't be read")
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_is_remembered_for_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(HOUR);
        let model = in_folder(&folder.path().join("absent"));
        let first = error_of(&cache, &model).await;
        assert!(first.to_string().contains("absent"), "{first}");
        assert!(Arc::ptr_eq(&first, &error_of(&cache, &model).await), "it was read again");
        sleep(ERROR_KEPT + Duration::from_secs(1)).await;
        assert!(!Arc::ptr_eq(&first, &error_of(&cache, &model).await), "it was not read again");
        assert!(cache.outages().is_empty());
    }

    /// A folder whose requests fail as if its store were out: a file is in its place.
    fn broken(folder: &Path) -> PathBuf {
        let place = folder.join("store");
        std::fs::write(&place, "in the way").unwrap();
        place.join("model")
    }

    /// Class names below a broken store. A model's own folder that can't be read counts as absent.
    fn names_in(path: &Path) -> ModelOptions {
        let classes = Some(path.join("names.txt").to_str().unwrap().parse().unwrap());
        ModelOptions { classes, ..ModelOptions::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_out_keeps_only_its_own_jobs_waiting_and_is_asked_again() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, path) = (cache(HOUR), broken(folder.path()));
        let out = ModelIdentity { options: names_in(&path), ..in_folder(folder.path()) };
        let error = error_of(&cache, &out).await;
        let ModelUnavailable::BeingRead { problem: Some(problem), .. } = &*error else {
            panic!("{error}")
        };
        assert!(problem.may_pass() && problem.to_string().contains("store/"), "{problem}");
        assert_eq!(cache.outages(), [problem.to_string()]);
        assert!(matches!(
            &*error_of(&cache, &in_folder(&folder.path().join("absent"))).await,
            ModelUnavailable::Files(error) if !error.may_pass()
        ));
        // What is there when the store is back is another model, but that is told.
        std::fs::remove_file(folder.path().join("store")).unwrap();
        let back = async {
            while !cache.outages().is_empty() {
                sleep(Duration::from_secs(1)).await;
            }
        };
        timeout(HOUR, back).await.expect("it is asked again");
        let error = error_of(&cache, &out).await;
        assert!(!error.may_pass(), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_stays_out_is_told_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, path) = (cache(Duration::from_secs(60)), broken(folder.path()));
        let out = ModelIdentity { options: names_in(&path), ..in_folder(folder.path()) };
        let told = async {
            loop {
                match &*error_of(&cache, &out).await {
                    ModelUnavailable::BeingRead { waited, .. } => {
                        assert!(*waited < Duration::from_secs(60), "{waited:?}");
                    }
                    error => break error.may_pass(),
                }
                sleep(Duration::from_secs(10)).await;
            }
        };
        assert!(timeout(HOUR, told).await.expect("it is told"));
        // Nobody asks any more.
        sleep(WANTED_FOR + Duration::from_secs(60)).await;
        assert!(cache.shared.readings.lock().is_empty());
    }
}
