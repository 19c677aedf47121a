//! What can be read off a running engine at one moment. Plain data, for health and metrics.

use crate::pipeline::memory_budget::BudgetUse;
use crate::pipeline::outcome_counters::OutcomeCounts;

/// The state of an engine at one moment.
#[derive(Clone, Debug)]
pub struct EngineSnapshot {
    /// What became of deliveries so far.
    pub counts: OutcomeCounts,
    /// Memory of files that are not decoded yet.
    pub files: BudgetUse,
    /// Memory of pixels and overlays.
    pub pixels: BudgetUse,
    /// How many unsettled deliveries to take at most.
    pub prefetch: u16,
    /// How many images a full batch has at present.
    pub batch_limit: usize,
    /// Why stores are out, one reason for each folder or model that is waited for.
    pub outages: Vec<String>,
    /// A recent error that every further image of a run would meet.
    pub lasting_error: Option<String>,
    /// Why the process can't go on: too many decoders have not come back.
    pub lost_decoders: Option<String>,
}
