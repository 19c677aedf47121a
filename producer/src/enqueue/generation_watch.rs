//! Notices while jobs are published, or done, that they no longer count: `camshaft cancel`, or another
//! enqueue or audit, has written so into `run.json`.
//!
//! Reads `run.json` only. What becomes of jobs that are published already is the workers' matter.

use std::time::Duration;

use camshaft_common::run::{Generation, ReadRunError, RunRecord};
use camshaft_common::store::Folder;
use tracing::debug;

/// The time between two looks. One costs a request.
const INTERVAL: Duration = Duration::from_secs(3);

/// Why the jobs of an enqueue or audit no longer count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobsSuperseded {
    /// `camshaft cancel`.
    #[error(
        "cancelled by camshaft cancel: jobs that were published are settled without work; the same \
         command again does the rest"
    )]
    Cancelled,
    /// Another enqueue or audit in the same OUT, which began later.
    #[error(
        "another enqueue or audit of this OUT has superseded this one: its jobs count, and those of \
         this one are settled without work"
    )]
    ByAnother,
}

/// Looks whether the jobs of a generation still count.
#[derive(Clone, Debug)]
pub(crate) struct GenerationWatch {
    out: Folder,
    generation: Option<Generation>,
}

impl GenerationWatch {
    /// Watches a generation, or jobs without one.
    pub(crate) fn new(out: &Folder, generation: Option<Generation>) -> Self {
        Self { out: out.clone(), generation }
    }

    /// Looks once. `None` if the jobs count.
    ///
    /// # Errors
    /// If `run.json` can't be read.
    pub(crate) async fn look(&self) -> Result<Option<JobsSuperseded>, ReadRunError> {
        let Some(record) = RunRecord::read(&self.out).await? else { return Ok(None) };
        if record.counts(self.generation) {
            return Ok(None);
        }
        let is_cancelled = record.cancelled_at.is_some();
        Ok(Some(if is_cancelled { JobsSuperseded::Cancelled } else { JobsSuperseded::ByAnother }))
    }

    /// Looks again and again, and returns once the jobs don't count.
    pub(crate) async fn superseded(&self) -> JobsSuperseded {
        loop {
            tokio::time::sleep(INTERVAL).await;
            match self.look().await {
                Ok(Some(superseded)) => return superseded,
                Ok(None) => {}
                // A store that stays out is noticed by those who need it.
                Err(error) => debug!(%error, "run.json can't be read at the moment"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use camshaft_common::store::{JSON, StoreOptions};

    use super::*;

    #[tokio::test]
    async fn jobs_count_until_the_run_is_cancelled_or_superseded() {
        let directory = tempfile::tempdir().unwrap();
        let location = directory.path().to_str().unwrap().parse().unwrap();
        let out = Folder::open(&location, &StoreOptions::default()).unwrap();
        let own = Generation::after(None);
        let later = Generation::after(Some(own));
        let looks = async || {
            let looks = [Some(own), None].map(|own| GenerationWatch::new(&out, own));
            [looks[0].look().await.unwrap(), looks[1].look().await.unwrap()]
        };
        assert_eq!(looks().await, [None, None], "there is no run.json");
        let record = format!(
            r#"{{"schema":1,"run":"{own}","source":"file:///images","model":{},"explain":{},
                "images":null,"created_at":"2026-01-02T03:04:05Z",
                "updated_at":"2026-01-02T03:04:05Z","camshaft":""}}"#,
            serde_json::to_string(&camshaft_common::model::ModelIdentity::bundled()).unwrap(),
            serde_json::to_string(&camshaft_common::explain::ExplainOptions::default()).unwrap(),
        );
        let mut record: RunRecord = serde_json::from_str(&record).unwrap();
        let write = async |record: &RunRecord| {
            let json = serde_json::to_vec(record).unwrap();
            out.put("run.json", json, JSON).await.unwrap();
        };
        record.generation = Some(own);
        write(&record).await;
        assert_eq!(looks().await, [None, None], "all jobs count");
        record.jobs_since = Some(own);
        write(&record).await;
        let by_another = Some(JobsSuperseded::ByAnother);
        assert_eq!(looks().await, [None, by_another]);
        record.jobs_since = Some(later);
        write(&record).await;
        assert_eq!(looks().await, [by_another, by_another]);
        record.cancel(chrono::Utc::now());
        write(&record).await;
        let cancelled = Some(JobsSuperseded::Cancelled);
        assert_eq!(looks().await, [cancelled, cancelled]);
        let watch = GenerationWatch::new(&out, Some(own));
        assert_eq!(watch.superseded().await, JobsSuperseded::Cancelled);
    }
}
