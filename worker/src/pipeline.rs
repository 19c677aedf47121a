//! The pipeline: one chain from delivery to acknowledgement. Wiring only.
//!
//! ```text
//! queue ─▶ admit ─▶ fetch ─▶ decode ─▶ batch ─▶ model ─▶ render ─▶ store ─▶ settle ─▶ queue
//!            │        │        │                  │        │         │        ▲
//!            └────────┴────────┴──── early exits ─┴────────┴─────────┴────────┘
//! ```
//!
//! Each step consumes its input and returns the next type, so an illegal order does not
//! compile: [`Delivery`] → [`Admitted`](stage::Admitted) → [`Fetched`](fetch::Fetched) →
//! [`Decoded`](decode::Decoded) → [`Batch`](batch::Batch) →
//! [`Explained`](explain::Explained) → [`Rendered`](render::Rendered) →
//! [`Stored`](store::Stored) → settled. An image that fails, or needs no work, leaves by
//! an early [`Exit`](stage::Exit) that `settle` receives all the same: its receipt travels
//! with it and can be settled in one place only. Channels between the steps are bounded,
//! so a slow step holds the ones before it.

use std::sync::Arc;

use camshaft_queue::{Deliveries, Delivery};
use futures::StreamExt;

pub mod admit;
pub mod batch;
pub mod batch_size;
pub mod budget;
pub mod channel;
pub mod context;
pub mod decode;
pub mod explain;
mod explain_advice;
pub mod fetch;
pub mod model_files;
pub mod outage;
pub mod places;
pub mod render;
pub mod settle;
pub mod stage;
pub mod store;
pub mod tally;
pub mod traces;
pub mod trouble;

use channel::channel;
use context::Context;
use stage::Stages;

/// A worker's pipeline could not go on.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// A bug in a stage; what it held is delivered again.
    #[error("the {stage} stage ended by a panic; its images are delivered again")]
    StagePanicked {
        /// Which.
        stage: &'static str,
    },
}

/// Works through `deliveries` until they end and everything taken is settled.
///
/// # Errors
/// Where a stage panicked. What it held is handed back to the queue.
pub async fn run(
    mut deliveries: Deliveries,
    context: Arc<Context>,
    model: explain::ModelThread,
) -> Result<(), PipelineError> {
    let limits = context.limits;
    let (delivered, incoming) = channel::<Delivery>(1);
    let mut stages = Stages::new(context);

    let admitted = stages.run("admit", 1, incoming, admit::admit);
    let fetched = stages.run("fetch", limits.fetches, admitted, fetch::fetch);
    let decoded = stages.run("decode", limits.cores, fetched, decode::decode);
    let batches = stages.batch(decoded, limits.batch_wait);
    let explained = stages.model(batches, model);
    let rendered = stages.run("render", limits.cores, explained, render::render);
    let stored = stages.run("store", limits.stores, rendered, store::store);
    stages.settle(stored, limits.stores);

    while let Some(delivery) = deliveries.next().await {
        if delivered.send(delivery).await.is_err() {
            break;
        }
    }
    drop(delivered);
    stages.finish().await
}
