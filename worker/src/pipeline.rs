//! The pipeline: one chain from delivery to acknowledgement. Wiring only.
//!
//! ```text
//! queue ─▶ admit ─▶ fetch ─▶ decode ─▶ batch ─▶ model ─▶ render ─▶ store ─▶ settle ─▶ queue
//!            │        │        │                  │        │         │        ▲
//!            └────────┴────────┴──── early exits ─┴────────┴─────────┴────────┘
//! ```
//!
//! Each stage consumes its input and returns the next type, so a wrong order does not compile:
//! [`Delivery`] → [`Admitted`](admitted::Admitted) → [`Fetched`](fetch::Fetched) →
//! [`Decoded`](decode::Decoded) → [`Batch`](batch::Batch) → [`Explained`](explain::Explained) →
//! [`Rendered`](render::Rendered) → [`Stored`](store::Stored) → settled. An image that fails, or
//! needs no work, leaves as an [`Exit`](exit::Exit). The receipt of every delivery travels with
//! it, and `settle` is the only stage that settles one. Channels between the stages are bounded,
//! so a slow stage holds back the stages before it.
//!
//! Upstream: the queue's deliveries. The [`engine`](crate::engine) makes the stages and gives
//! each one what it needs.

use std::sync::Arc;

use camshaft_queue::{Deliveries, Delivery};

pub mod admit;
pub mod admitted;
pub mod allowed_places;
pub mod batch;
pub mod batch_size;
pub mod channel;
pub mod decode;
mod device_errors;
pub mod disposition;
pub mod exit;
pub mod explain;
pub mod fetch;
pub mod hold_limit;
pub mod lasting_errors;
pub mod limits;
pub mod memory_budget;
pub mod model_files;
pub mod model_files_cache;
pub mod outage;
pub mod outcome_counters;
pub mod overlay_path;
pub mod recent_jobs;
pub mod recently_used;
pub mod render;
pub mod reporting;
mod request_gate;
mod request_pace;
pub mod retrying_folder;
pub mod settle;
pub mod source_access;
pub mod stages;
pub mod store;
pub mod stored_prediction;
pub mod stores;
pub mod superseded;
pub mod traces;
pub mod work_permits;

use admit::AdmitStage;
use batch::BatchStage;
use channel::channel;
use decode::DecodeStage;
use explain::ModelStage;
use fetch::FetchStage;
use hold_limit::HoldLimit;
use limits::PipelineLimits;
use render::RenderStage;
use settle::SettleStage;
use stages::{PipelineError, Stages};
use store::StoreStage;

use crate::metrics::Metrics;

/// The stages of a pipeline that does not run yet.
#[derive(Debug)]
pub struct Pipeline {
    /// How many images each stage works on at once.
    pub limits: PipelineLimits,
    /// How many images all stages may hold.
    pub hold: Arc<HoldLimit>,
    /// Shows how long the stages take.
    pub metrics: Metrics,
    /// Reads messages.
    pub admit: AdmitStage,
    /// Reads images.
    pub fetch: FetchStage,
    /// Decodes images.
    pub decode: DecodeStage,
    /// Gathers batches.
    pub batch: BatchStage,
    /// Runs the model.
    pub model: ModelStage,
    /// Draws overlays.
    pub render: RenderStage,
    /// Writes results.
    pub store: StoreStage,
    /// Settles deliveries.
    pub settle: SettleStage,
}

impl Pipeline {
    /// Works until the deliveries end and everything that was taken is settled.
    ///
    /// # Errors
    /// If a stage panicked, or the model's device is lost. The messages that it held are handed back to
    /// the queue.
    pub async fn run(self, deliveries: Deliveries) -> Result<(), PipelineError> {
        let Self { limits, hold, metrics, .. } = self;
        let mut stages = Stages::new(metrics, hold, limits.stores);
        let (delivered, incoming) = channel::<Delivery>(1);

        let admitted = stages.run(self.admit, 1, incoming);
        let most = limits.most_requests;
        let fetched = stages.run_growing(self.fetch, limits.fetches, most, admitted);
        let decoded = stages.run(self.decode, limits.cores, fetched);
        let batches = self.batch.start(&mut stages, decoded);
        let explained = self.model.start(&mut stages, limits.batch, batches);
        let rendered = stages.run(self.render, limits.cores, explained);
        let stored = stages.run_growing(self.store, limits.stores, most, rendered);
        self.settle.start(&mut stages, limits.stores, stored);

        stages.feed(deliveries, delivered).await;
        stages.finish().await
    }
}
