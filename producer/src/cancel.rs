//! `camshaft cancel`: none of a run's jobs counts any more. Workers settle them without work.
//!
//! Writes only `run.json`: the jobs stay in their queues, and no broker is needed. An enqueue or audit
//! that is under way looks into `run.json` and stops.

use std::time::Duration;

use camshaft_common::location::Location;
use camshaft_common::run::{ReadRunError, RunRecord};
use camshaft_common::store::{Folder, StoreError, StoreOptions};
use chrono::Utc;
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::advice;
use crate::enqueue::run_record;
use crate::status::run_results::RunResults;
use crate::status::run_status::RunStatus;
use crate::terminal::output::{format_count, format_time, print_line};

/// How long results are counted before a run is cancelled. Those of a large run take longer, and its
/// workers are not to work on meanwhile.
const COUNT_LIMIT: Duration = Duration::from_secs(10);
/// An enqueue that ends at this moment may write over the record. It has done so by then.
const CONFIRMED_AFTER: Duration = Duration::from_secs(1);
/// How often the record is written. Nobody writes over it more than once.
const WRITES: u32 = 5;

/// What `camshaft cancel` is to do.
#[derive(Clone, Debug)]
pub(crate) struct CancelConfig {
    /// Where the run's results go.
    pub(crate) out: Location,
}

/// A run can't be cancelled.
#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    /// OUT can't be opened or written.
    #[error("{}", advice::describe_store_error(.0))]
    Out(#[from] StoreError),
    /// OUT holds no run.
    #[error("{}", advice::describe_run_record_error(.0))]
    Run(#[from] ReadRunError),
    /// Others write `run.json` all the time.
    #[error("other programs keep writing {0}/run.json; end them, and cancel again")]
    WrittenOver(String),
}

/// Cancels the run in OUT.
///
/// # Errors
/// If OUT holds no run, or can't be read or written.
pub(crate) async fn cancel(config: CancelConfig, stores: StoreOptions) -> Result<(), CancelError> {
    let out = Folder::open(&config.out, &stores)?;
    let record = RunRecord::read_existing(&out).await?;
    let run = record.run;
    if let Some(at) = record.cancelled_at {
        print_line(&format!("Run {run} was cancelled at {}", format_time(at)));
        return Ok(());
    }
    let counted = count(&out, &record).await;
    // Without generations, results of before count though images are to be redone.
    let can_be_complete = record.generation.is_some();
    if let Some(status) = counted.as_ref().filter(|it| can_be_complete && it.is_complete()) {
        let finished = format_count(status.done + status.failed, "result");
        print_line(&format!("Run {run} has nothing left to do ({finished}): nothing was changed"));
        return Ok(());
    }
    mark_cancelled(&out).await?;
    print_line(&format!(
        "Cancelled run {run}: {}. Workers notice it within ten seconds: they finish the images in work, and \
         settle other jobs without work. The same enqueue or audit goes on with the run",
        describe_rest(counted.as_ref())
    ));
    Ok(())
}

/// How far the run has come; `None` if that takes long or can't be told. The run is cancelled all the
/// same.
async fn count(out: &Folder, record: &RunRecord) -> Option<RunStatus> {
    let counted = match timeout(COUNT_LIMIT, RunResults::count(out, record)).await.ok()? {
        Ok(counted) => counted,
        Err(error) => {
            warn!(%error, "what is done can't be counted");
            return None;
        }
    };
    let RunResults { counts, unusable_manifest, .. } = counted;
    if let Some(error) = unusable_manifest {
        warn!(%error, "result files are counted, whatever image they are of");
    }
    Some(RunStatus::new(record, counts, None))
}

fn describe_rest(status: Option<&RunStatus>) -> String {
    match status.map(|status| (status.remaining, status.images)) {
        Some((Some(remaining), Some(images))) => {
            format!("{remaining} of {} not done", format_count(images, "image"))
        }
        Some(_) => "SOURCE was not listed to its end".to_owned(),
        None => "camshaft status counts what is not done".to_owned(),
    }
}

/// Writes into `run.json` that the run is cancelled, and makes sure that it stays there.
async fn mark_cancelled(out: &Folder) -> Result<(), CancelError> {
    let mut marked = None;
    for _ in 0..WRITES {
        // Read again each time: an enqueue may have ended meanwhile.
        let mut record = RunRecord::read_existing(out).await?;
        let is_newer = marked.is_some() && record.generation > marked;
        // Somebody has gone on with the run already: that is not to be cancelled.
        if record.cancelled_at.is_some() || is_newer {
            return Ok(());
        }
        record.cancel(Utc::now());
        marked = record.jobs_since;
        run_record::write(out, &record).await?;
        sleep(CONFIRMED_AFTER).await;
    }
    let record = RunRecord::read_existing(out).await?;
    match record.cancelled_at {
        Some(_) => Ok(()),
        None => Err(CancelError::WrittenOver(out.location().to_string())),
    }
}
