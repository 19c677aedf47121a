//! Which jobs a later enqueue of their run, or of another run in the same OUT, has superseded, and which
//! are of a run that was cancelled. They are settled without work.
//!
//! OUT's `run.json` tells the first generation whose jobs count. It is read about every five seconds
//! while there are jobs for that OUT. If it can't be read, all jobs count. Downstream: `fetch`, before
//! work begins, and `store` and `settle`, before a result is written.

use std::sync::Arc;
use std::time::Duration;

use camshaft_common::job::Job;
use camshaft_common::layout::{Layout, RUN_FILE};
use camshaft_common::location::Location;
use camshaft_common::prediction::MAX_RECORD_BYTES;
use camshaft_common::run::{Generation, MAX_RUN_FILE_BYTES, RunId};
use camshaft_common::store::StoreError;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::recently_used::RecentlyUsed;
use super::stores::Stores;

/// How long an answer is kept.
const KEPT: Duration = Duration::from_secs(5);
/// How long an answer may take. Meanwhile the jobs for that OUT wait.
const READ_LIMIT: Duration = Duration::from_secs(5);
/// The most OUTs whose answers are kept. Messages could name any number.
const MAX_KNOWN: usize = 64;

/// Tells superseded jobs.
#[derive(Debug)]
pub struct SupersededJobs {
    stores: Arc<Stores>,
    known: Mutex<RecentlyUsed<(Location, Arc<KnownRun>)>>,
}

/// What is known of the run in one OUT. It is locked while it is read, so that it is read once.
#[derive(Debug, Default)]
struct KnownRun(tokio::sync::Mutex<Option<LastLook>>);

#[derive(Clone, Copy, Debug)]
struct LastLook {
    began: Instant,
    /// Jobs of earlier generations don't count; `None` if all do.
    jobs_since: Option<Generation>,
}

impl SupersededJobs {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(stores: Arc<Stores>) -> Self {
        Self { stores, known: Mutex::new(RecentlyUsed::new(MAX_KNOWN)) }
    }

    /// True if the job is superseded.
    pub async fn has(&self, job: &Job) -> bool {
        let asked = Instant::now();
        let run = self.run_in(&job.out);
        let mut last = run.0.lock().await;
        let mut look = match *last {
            Some(look) if look.began.elapsed() < KEPT => look,
            _ => self.look(&job.out).await,
        };
        // A job without a generation is of an older version. That writes a `run.json` by which all jobs
        // count, and it may have done so since the last look.
        let may_have_changed = job.generation.is_none() && look.began < asked;
        if job.generation < look.jobs_since && may_have_changed {
            look = self.look(&job.out).await;
        }
        *last = Some(look);
        job.generation < look.jobs_since
    }

    /// True if the job was superseded while it was in work, and the later one is done already: its
    /// prediction or failure lies in OUT.
    pub async fn is_done_later(&self, job: &Job) -> bool {
        /// What tells whose result it is.
        #[derive(Deserialize)]
        struct Record {
            run: RunId,
            generation: Option<Generation>,
        }
        if !self.has(job).await {
            return false;
        }
        let Ok(out) = self.stores.folder(&job.out) else { return false };
        let layout = Layout::of(&job.out);
        for path in [layout.prediction(&job.key), layout.failure(&job.key)] {
            let Ok(stored) = out.get_once(&path, MAX_RECORD_BYTES).await else { continue };
            let Ok(record) = serde_json::from_slice::<Record>(&stored.bytes) else { continue };
            // The ids of runs and generations grow with time. OUT may hold results of earlier runs.
            if (record.run, record.generation) > (job.run, job.generation) {
                return true;
            }
        }
        false
    }

    fn run_in(&self, out: &Location) -> Arc<KnownRun> {
        let mut known = self.known.lock();
        let is_wanted = |(place, _): &(Location, Arc<KnownRun>)| place == out;
        let (_, run) = known.find_or_make(is_wanted, || (out.clone(), Arc::default()));
        Arc::clone(run)
    }

    async fn look(&self, out: &Location) -> LastLook {
        let began = Instant::now();
        let jobs_since = match timeout(READ_LIMIT, self.read(out)).await {
            Ok(Ok(jobs_since)) => jobs_since,
            Ok(Err(error)) => {
                debug!(%error, "run.json can't be read: all jobs count");
                None
            }
            Err(_elapsed) => {
                debug!(%out, "run.json is not read in time: all jobs count");
                None
            }
        };
        LastLook { began, jobs_since }
    }

    async fn read(&self, out: &Location) -> Result<Option<Generation>, StoreError> {
        /// The one field that is needed, of any version.
        #[derive(Deserialize)]
        struct RunFile {
            jobs_since: Option<Generation>,
        }
        let folder = self.stores.folder(out)?;
        let file = folder.get_once(RUN_FILE, MAX_RUN_FILE_BYTES).await?;
        let file = serde_json::from_slice::<RunFile>(&file.bytes).ok();
        Ok(file.and_then(|file| file.jobs_since))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use camshaft_common::explain::ExplainOptions;
    use camshaft_common::job::JOB_VERSION;
    use camshaft_common::key::ImageKey;
    use camshaft_common::model::ModelIdentity;
    use camshaft_common::store::StoreOptions;

    use super::super::outage::OutagePolicy;
    use super::*;

    fn job(out: &Path, generation: Option<Generation>) -> Job {
        let place: Location = out.to_str().unwrap().parse().unwrap();
        Job {
            v: JOB_VERSION,
            run: RunId::generate(),
            generation,
            key: ImageKey::parse("a.jpg").unwrap(),
            etag: None,
            size: None,
            label: None,
            given_label: None,
            source: place.clone(),
            out: place,
            model: ModelIdentity::bundled(),
            explain: ExplainOptions::default(),
            replaces: false,
            changed: false,
            again: false,
        }
    }

    fn write(out: &Path, jobs_since: Option<Generation>) {
        let record = match jobs_since {
            Some(generation) => format!(r#"{{"jobs_since":"{generation}","later":[1]}}"#),
            None => "{}".to_owned(),
        };
        std::fs::write(out.join(RUN_FILE), record).unwrap();
    }

    fn superseded() -> SupersededJobs {
        let stores = Stores::new(StoreOptions::default(), OutagePolicy::INTERACTIVE);
        SupersededJobs::new(Arc::new(stores))
    }

    #[tokio::test]
    async fn jobs_before_the_first_generation_that_counts_are_superseded() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path();
        let first = Generation::after(None);
        let second = Generation::after(Some(first));
        // There is no run.json, or one of an older version, or a broken one.
        for content in [None, Some("{}"), Some("{\"jobs_since\":7}")] {
            if let Some(content) = content {
                std::fs::write(out.join(RUN_FILE), content).unwrap();
            }
            assert!(!superseded().has(&job(out, None)).await, "{content:?}");
        }
        write(out, Some(second));
        for (generation, expected) in [(None, true), (Some(first), true), (Some(second), false)] {
            assert_eq!(superseded().has(&job(out, generation)).await, expected);
        }
        let other = tempfile::tempdir().unwrap();
        let jobs = superseded();
        assert!(jobs.has(&job(out, Some(first))).await);
        assert!(!jobs.has(&job(other.path(), Some(first))).await, "each OUT has its own");
    }

    #[tokio::test]
    async fn an_answer_is_kept_but_a_job_of_an_older_version_is_not_dropped_by_it() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path();
        let first = Generation::after(None);
        let second = Generation::after(Some(first));
        let jobs = superseded();
        write(out, Some(second));
        assert!(jobs.has(&job(out, Some(first))).await);
        // An older version has enqueued meanwhile.
        write(out, None);
        assert!(jobs.has(&job(out, Some(first))).await, "the answer is kept");
        assert!(!jobs.has(&job(out, None)).await, "it looked again");
    }
}
