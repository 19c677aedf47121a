//! `camshaft redrive`: moves dead letters back to the job queue.

use camshaft_common::run::RunId;
use camshaft_queue::{JobQueue, QueueError};

use crate::advice;
use crate::broker::{self, BrokerConfig};
use crate::terminal::output::{format_count, print_line};

/// What `camshaft redrive` is to do.
#[derive(Clone, Debug)]
pub(crate) struct RedriveConfig {
    /// Move only the dead letters of this run.
    pub(crate) run: Option<RunId>,
    /// The broker.
    pub(crate) broker: BrokerConfig,
}

/// Dead letters can't be moved.
#[derive(Debug, thiserror::Error)]
#[error("{}", advice::describe_queue_error(.0))]
pub struct RedriveError(#[from] pub(crate) QueueError);

/// Moves dead letters back to the job queue.
///
/// # Errors
/// If the broker can't be reached, or has no such queue.
pub(crate) async fn redrive(config: RedriveConfig) -> Result<(), RedriveError> {
    let queue = broker::connect_to_existing(config.broker).await?;
    let moved = queue.redrive(config.run.as_ref()).await?;
    let left = queue.depth().await?.dead;
    queue.close().await;
    let moved = format_count(moved, "dead letter");
    print_line(&format!("Moved {moved} back to the job queue; {left} left"));
    Ok(())
}
