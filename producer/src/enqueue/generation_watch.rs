//! Notices while jobs are published, or done, that they no longer count: `camshaft cancel`, or another
//! enqueue or audit, has written so into `run.json`.
//!
//! Reads `run.json` only. What becomes of jobs that are published already is the workers' matter.

use std::fmt;
use std::time::Duration;

use camshaft_common::manifest;
use camshaft_common::run::{Generation, ReadRunError, RunRecord};
use camshaft_common::store::Folder;
use chrono::{DateTime, SecondsFormat, Utc};
use tracing::debug;

/// The time between two looks. One costs a request.
const INTERVAL: Duration = Duration::from_secs(3);

/// Why the jobs of an enqueue or audit no longer count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobsSuperseded {
    /// `camshaft cancel`.
    Cancelled,
    /// Another enqueue or audit in the same OUT, which began later.
    ByAnother {
        /// OUT.
        out: String,
        /// When it began; `None` if that can't be told.
        began: Option<DateTime<Utc>>,
    },
}

impl fmt::Display for JobsSuperseded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled => f.write_str("cancelled by camshaft cancel"),
            Self::ByAnother { out, began: Some(began) } => {
                let began = began.to_rfc3339_opts(SecondsFormat::Secs, true);
                write!(f, "another audit or enqueue of {out} has begun, at {began}")
            }
            Self::ByAnother { out, began: None } => write!(
                f,
                "another command has taken over: by {out}/run.json, jobs of this one no longer count"
            ),
        }
    }
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

    /// Looks once whether workers settle the jobs without work. `None` if the jobs count.
    ///
    /// # Errors
    /// If `run.json` can't be read.
    pub(crate) async fn look(&self) -> Result<Option<JobsSuperseded>, ReadRunError> {
        let Some(record) = self.read().await? else { return Ok(None) };
        if record.counts(self.generation) {
            return Ok(None);
        }
        self.superseded_by(&record).await.map(Some)
    }

    /// Looks before `run.json` is written: jobs still count until another enqueue or audit has come to
    /// its end, but what it has written when it began must stay.
    ///
    /// # Errors
    /// If `run.json` can't be read.
    pub(crate) async fn look_before_write(&self) -> Result<Option<JobsSuperseded>, ReadRunError> {
        let Some(record) = self.read().await? else { return Ok(None) };
        let is_later = self.generation.is_some() && record.generation > self.generation;
        if record.counts(self.generation) && !is_later {
            return Ok(None);
        }
        self.superseded_by(&record).await.map(Some)
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

    /// What workers have noticed: some of the jobs don't count.
    #[cfg_attr(not(feature = "embedded"), expect(dead_code, reason = "only audit does that"))]
    pub(crate) async fn noticed(&self) -> JobsSuperseded {
        match self.look_before_write().await {
            Ok(Some(superseded)) => superseded,
            Ok(None) | Err(_) => {
                JobsSuperseded::ByAnother { out: self.out.location().to_string(), began: None }
            }
        }
    }

    /// `run.json`. Somebody may have deleted or damaged it: then it is written anew.
    async fn read(&self) -> Result<Option<RunRecord>, ReadRunError> {
        match RunRecord::read(&self.out).await {
            Err(ReadRunError::Malformed { .. } | ReadRunError::Damaged { .. }) => Ok(None),
            read => read,
        }
    }

    async fn superseded_by(&self, record: &RunRecord) -> Result<JobsSuperseded, ReadRunError> {
        if record.cancelled_at.is_some() {
            return Ok(JobsSuperseded::Cancelled);
        }
        let began = match record.generation.filter(|later| Some(*later) > self.generation) {
            Some(later) => {
                let started = manifest::started_at(&self.out, later).await?;
                Some(started.unwrap_or(record.updated_at))
            }
            None => None,
        };
        Ok(JobsSuperseded::ByAnother { out: self.out.location().to_string(), began })
    }
}

#[cfg(test)]
mod tests {
    use camshaft_common::location::Location;
    use camshaft_common::store::{JSON, StoreOptions};

    use super::*;

    #[tokio::test]
    async fn what_a_later_command_wrote_when_it_began_is_not_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let location: Location = directory.path().to_str().unwrap().parse().unwrap();
        let out = Folder::open(&location, &StoreOptions::default()).unwrap();
        let own = Generation::after(None);
        let later = Generation::after(Some(own));
        let watch = GenerationWatch::new(&out, Some(own));
        let mut record = record(own);
        record.generation = Some(own);
        record.jobs_since = Some(own);
        write(&out, &record).await;
        assert_eq!(watch.look_before_write().await.unwrap(), None);
        record.generation = Some(later);
        let began = manifest::start(&out, later, None).await.unwrap();
        write(&out, &record).await;
        assert_eq!(watch.look().await.unwrap(), None, "jobs of both count");
        let told = watch.look_before_write().await.unwrap().unwrap().to_string();
        let began = began.to_rfc3339_opts(SecondsFormat::Secs, true);
        let text = format!("another audit or enqueue of {location} has begun, at {began}");
        assert_eq!(told, text);
        assert_eq!(watch.noticed().await.to_string(), text);
        // A run.json that is damaged or gone is written anew.
        std::fs::write(directory.path().join("run.json"), "{").unwrap();
        assert_eq!(watch.look_before_write().await.unwrap(), None);
        std::fs::remove_file(directory.path().join("run.json")).unwrap();
        assert_eq!(watch.look_before_write().await.unwrap(), None);
    }

    async fn write(out: &Folder, record: &RunRecord) {
        out.put("run.json", serde_json::to_vec(record).unwrap(), JSON).await.unwrap();
    }

    fn record(own: Generation) -> RunRecord {
        let record = format!(
            r#"{{"schema":1,"run":"{own}","source":"file:///images","model":{},"explain":{},
                "images":null,"created_at":"2026-01-02T03:04:05Z",
                "updated_at":"2026-01-02T03:04:05Z","camshaft":""}}"#,
            serde_json::to_string(&camshaft_common::model::ModelIdentity::bundled()).unwrap(),
            serde_json::to_string(&camshaft_common::explain::ExplainOptions::default()).unwrap(),
        );
        serde_json::from_str(&record).unwrap()
    }

    #[tokio::test]
    async fn jobs_count_until_the_run_is_cancelled_or_superseded() {
        let directory = tempfile::tempdir().unwrap();
        let location: Location = directory.path().to_str().unwrap().parse().unwrap();
        let out = Folder::open(&location, &StoreOptions::default()).unwrap();
        let own = Generation::after(None);
        let later = Generation::after(Some(own));
        let looks = async || {
            let looks = [Some(own), None].map(|own| GenerationWatch::new(&out, own));
            [looks[0].look().await.unwrap(), looks[1].look().await.unwrap()]
        };
        assert_eq!(looks().await, [None, None], "there is no run.json");
        let mut record = record(own);
        record.generation = Some(own);
        write(&out, &record).await;
        assert_eq!(looks().await, [None, None], "all jobs count");
        record.jobs_since = Some(own);
        write(&out, &record).await;
        let by_another =
            |began| Some(JobsSuperseded::ByAnother { out: location.to_string(), began });
        let updated_at = Some(record.updated_at);
        assert_eq!(looks().await, [None, by_another(updated_at)]);
        record.jobs_since = Some(later);
        write(&out, &record).await;
        assert_eq!(looks().await, [by_another(None), by_another(updated_at)]);
        record.cancel(Utc::now());
        write(&out, &record).await;
        let cancelled = || Some(JobsSuperseded::Cancelled);
        assert_eq!(looks().await, [cancelled(), cancelled()]);
        let watch = GenerationWatch::new(&out, Some(own));
        assert_eq!(watch.superseded().await, JobsSuperseded::Cancelled);
    }
}
