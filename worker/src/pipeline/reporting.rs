//! What stages report to: counts, metrics, lasting errors and recent jobs.

use std::sync::Arc;

use super::lasting_errors::LastingErrors;
use super::outcome_counters::OutcomeCounters;
use super::recent_jobs::RecentJobs;
use crate::metrics::Metrics;

/// What stages report to. Shared by those that do.
#[derive(Debug)]
pub struct Reporting {
    /// This worker's name in results.
    pub worker_name: String,
    /// Counts of what became of deliveries.
    pub counters: Arc<OutcomeCounters>,
    /// Times and sizes, for Prometheus.
    pub metrics: Metrics,
    /// Errors that every further image of a run would meet.
    pub lasting_errors: LastingErrors,
    /// Which of the recent jobs this worker refused.
    pub recent_jobs: Arc<RecentJobs>,
}
