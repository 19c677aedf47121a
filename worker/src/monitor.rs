//! Watches an engine from outside, while it runs.

use std::sync::Arc;

use crate::metrics::Metrics;
use crate::pipeline::batch_size::BatchSize;
use crate::pipeline::hold_limit::HoldLimit;
use crate::pipeline::memory_budget::MemoryBudget;
use crate::pipeline::model_files_cache::ModelFilesCache;
use crate::pipeline::outcome_counters::{OutcomeCounters, OutcomeCounts};
use crate::pipeline::recent_jobs::RecentJobs;
use crate::pipeline::reporting::Reporting;
use crate::pipeline::stores::Stores;
use crate::snapshot::EngineSnapshot;

/// A handle on a running engine, for health, metrics and progress. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EngineMonitor {
    pub(crate) hold: Arc<HoldLimit>,
    pub(crate) cores: usize,
    pub(crate) batch_size: Arc<BatchSize>,
    pub(crate) file_budget: Arc<MemoryBudget>,
    pub(crate) pixel_budget: Arc<MemoryBudget>,
    pub(crate) stores: Arc<Stores>,
    pub(crate) models: Arc<ModelFilesCache>,
    pub(crate) reporting: Arc<Reporting>,
}

impl EngineMonitor {
    /// Reads everything that can be read off now.
    #[must_use]
    pub fn snapshot(&self) -> EngineSnapshot {
        let mut outages = self.stores.outages();
        outages.extend(self.models.outages());
        EngineSnapshot {
            counts: self.counts(),
            files: self.file_budget.usage(),
            pixels: self.pixel_budget.usage(),
            prefetch: self.hold.prefetch(),
            batch_limit: self.batch_size.now(),
            outages,
            lasting_error: self.reporting.lasting_errors.recent(),
            lost_decoders: self.decoders_problem(),
        }
    }

    /// Reads what became of deliveries so far.
    #[must_use]
    pub fn counts(&self) -> OutcomeCounts {
        self.reporting.counters.counts()
    }

    /// The counters themselves, for a progress bar.
    #[must_use]
    pub fn counters(&self) -> Arc<OutcomeCounters> {
        Arc::clone(&self.reporting.counters)
    }

    /// The first error that every further image of a run would meet.
    #[must_use]
    pub fn first_lasting_error(&self) -> Option<String> {
        self.reporting.lasting_errors.first()
    }

    /// Why this process can't go on: too many decoders have not come back.
    #[must_use]
    pub fn decoders_problem(&self) -> Option<String> {
        self.pixel_budget.lost().problem(self.cores)
    }

    /// Which of the recent jobs this worker refused.
    #[must_use]
    pub fn recent_jobs(&self) -> &RecentJobs {
        &self.reporting.recent_jobs
    }

    /// The worker's name in results.
    #[must_use]
    pub fn worker_name(&self) -> &str {
        &self.reporting.worker_name
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.reporting.metrics
    }
}
