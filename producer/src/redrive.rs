//! `camshaft redrive`: dead letters get another chance.

use camshaft_queue::JobQueue;

use crate::cli::RedriveArgs;
use crate::enqueue::connect;
use crate::terminal::output::{count, say};

/// Moves dead letters back to the job queue.
///
/// # Errors
/// Where the broker can't be reached.
pub(crate) async fn redrive(args: RedriveArgs) -> anyhow::Result<()> {
    let queue = connect(args.broker).await?;
    let moved = queue.redrive(args.run.as_ref()).await?;
    let left = queue.depth().await?.dead;
    queue.close().await;
    say(&format!("Moved {} back to the job queue; {left} left", count(moved, "dead letter")));
    Ok(())
}
