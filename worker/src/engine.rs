//! Assembles a pipeline: opens the device, loads the model, and gives each stage what it needs.
//!
//! Any queue can feed it: `camshaft-worker` uses RabbitMQ, `camshaft audit` a queue in the same
//! process.

use std::sync::Arc;

use camshaft_common::store::StoreOptions;
use camshaft_model::{ModelError, ModelFiles};
use camshaft_queue::Deliveries;
use parking_lot::Mutex;

use crate::advice;
use crate::config::{EngineConfig, EngineSettings};
use crate::metrics::Metrics;
use crate::monitor::EngineMonitor;
use crate::pipeline::Pipeline;
use crate::pipeline::admit::AdmitStage;
use crate::pipeline::batch::BatchStage;
use crate::pipeline::decode::DecodeStage;
use crate::pipeline::explain::{ModelStage, ModelThread};
use crate::pipeline::fetch::FetchStage;
use crate::pipeline::hold_limit::HoldLimit;
use crate::pipeline::lasting_errors::LastingErrors;
use crate::pipeline::memory_budget::MemoryBudget;
use crate::pipeline::model_files::ModelUnavailable;
use crate::pipeline::model_files_cache::ModelFilesCache;
use crate::pipeline::render::RenderStage;
use crate::pipeline::reporting::Reporting;
use crate::pipeline::settle::SettleStage;
use crate::pipeline::stages::PipelineError;
use crate::pipeline::store::StoreStage;
use crate::pipeline::stores::Stores;
use crate::pipeline::superseded::SupersededJobs;
use crate::pipeline::work_permits::WorkPermits;

/// A worker holds what it does in this part of the broker's consumer_timeout: one of two. An image
/// that has waited for all of it has as much left for the model.
const HELD_PART: u32 = 2;

/// Why an engine can't start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The model's files can't be read.
    #[error(transparent)]
    Files(#[from] ModelUnavailable),
    /// The device or the model can't be used.
    #[error("{}", advice::describe_model_error(.0))]
    Model(#[from] ModelError),
}

/// A pipeline that is ready to run.
#[derive(Debug)]
pub struct Engine {
    pipeline: Pipeline,
    monitor: EngineMonitor,
}

impl Engine {
    /// Opens the device, and loads the first model if there is one. Other models are loaded when
    /// a job first asks for one, unless the first is the only one allowed.
    ///
    /// # Errors
    /// If the device or the model can't be used.
    pub fn start(
        config: EngineConfig,
        first: Option<Arc<ModelFiles>>,
        store_options: StoreOptions,
    ) -> Result<Self, EngineError> {
        let compute = &config.compute;
        let device = compute.device.open().map_err(ModelError::from)?;
        let batch_size = Arc::new(compute.batch_size(&device));
        let on_cpu = device.is_cpu();
        let settings = compute.settings(batch_size.max());
        let thread = ModelThread::new(device, settings, first.as_deref())?;
        let limits = config.limits(batch_size.max());
        let max_activation_bytes = on_cpu.then_some(limits.pixel_bytes);
        let EngineSettings {
            pinned,
            worker_name,
            outage_policy,
            consumer_timeout,
            stop_at_lasting_error,
            allowed_places,
            refusal_limit,
        } = config.settings;
        let allowed_places = if pinned { allowed_places.with_any_model() } else { allowed_places };

        let max_outage = outage_policy.max_outage;
        let models = ModelFilesCache::new(first, pinned, store_options.clone(), max_outage);
        let models = Arc::new(models);
        let stores = Arc::new(Stores::new(store_options, outage_policy));
        let superseded = Arc::new(SupersededJobs::new(Arc::clone(&stores)));
        let file_budget = Arc::new(MemoryBudget::new(limits.file_bytes));
        let pixel_budget = Arc::new(MemoryBudget::new(limits.pixel_bytes));
        let max_time = consumer_timeout.map(|timeout| timeout / HELD_PART);
        let hold = Arc::new(HoldLimit::new(limits.prefetch(), max_time));
        let metrics = Metrics::default();
        let reporting = Arc::new(Reporting {
            worker_name,
            counters: Arc::default(),
            metrics: metrics.clone(),
            lasting_errors: LastingErrors::new(stop_at_lasting_error),
            recent_jobs: Arc::default(),
        });

        let monitor = EngineMonitor {
            hold: Arc::clone(&hold),
            cores: limits.cores,
            batch_size: Arc::clone(&batch_size),
            file_budget: Arc::clone(&file_budget),
            pixel_budget: Arc::clone(&pixel_budget),
            stores: Arc::clone(&stores),
            models: Arc::clone(&models),
            reporting: Arc::clone(&reporting),
        };
        let pipeline = Pipeline {
            limits,
            hold: Arc::clone(&hold),
            metrics: metrics.clone(),
            admit: AdmitStage {
                allowed_places: Arc::new(allowed_places),
                permits: WorkPermits::default(),
                hold: Arc::clone(&hold),
                reporting: Arc::clone(&reporting),
            },
            fetch: FetchStage {
                stores: Arc::clone(&stores),
                superseded: Arc::clone(&superseded),
                models,
                file_budget,
                max_image_bytes: limits.image.max_bytes,
                max_activation_bytes,
                reporting: Arc::clone(&reporting),
            },
            decode: DecodeStage {
                pixel_budget,
                image_limits: limits.image,
                cores: limits.cores,
                reporting: Arc::clone(&reporting),
            },
            batch: BatchStage {
                size: Arc::clone(&batch_size),
                wait: limits.batch_wait,
                max_activation_bytes,
                hold: Arc::clone(&hold),
            },
            model: ModelStage { thread, batch_size, pace: hold.stage(1), metrics },
            render: RenderStage { max_overlay_bytes: limits.pixel_bytes },
            store: StoreStage {
                stores: Arc::clone(&stores),
                superseded: Arc::clone(&superseded),
                reporting: Arc::clone(&reporting),
            },
            settle: SettleStage {
                stores,
                superseded,
                refusal_limit,
                refusal_told: Mutex::default(),
                reporting,
            },
        };
        Ok(Self { pipeline, monitor })
    }

    /// How many images it may hold, which changes while it works.
    #[must_use]
    pub fn hold_limit(&self) -> Arc<HoldLimit> {
        Arc::clone(&self.monitor.hold)
    }

    /// A handle to watch the engine with while it runs.
    #[must_use]
    pub fn monitor(&self) -> EngineMonitor {
        self.monitor.clone()
    }

    /// Works until the deliveries end and everything that was taken is settled.
    ///
    /// # Errors
    /// If a stage panicked, or the model's device is lost.
    pub async fn run(self, deliveries: Deliveries) -> Result<(), PipelineError> {
        let ended = self.pipeline.run(deliveries).await;
        self.monitor.metrics().log_cpu_times();
        ended
    }
}
