//! Keeps the plan of each convolution: at first the one that cuDNN recommends, and once engines
//! were timed the fastest.
//!
//! Owns the plans that were made, by problem, and the cache of fastest engines. Does not decide
//! when there is time to measure: a pass asks for plans, and its caller lets them be tuned between
//! batches. Upstream: [`search`](super::search) and [`plan_cache`](super::plan_cache). Downstream:
//! the passes.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaStream};

use super::convolution_graph::ConvolutionProblem;
use super::library::Cudnn;
use super::plan::{ConvolutionOperands, ConvolutionPlan};
use super::plan_cache::{DeviceIdentity, PlanCache, TimedChoice};
use super::search::{Fastest, Search, Stopwatch};
use crate::error::CudaError;
use crate::memory::DevicePointer;

/// Plans of one device by problem. It belongs to one [`Cudnn`].
#[derive(Debug)]
pub(crate) struct Planner {
    plans: HashMap<ConvolutionProblem, ChosenPlan>,
    /// Searches that found nothing. They take long, since every list of engines is asked, and they
    /// are asked for again whenever a pass is planned anew.
    unsupported: HashMap<ConvolutionProblem, NothingFound>,
    cache: PlanCache,
}

#[derive(Debug)]
struct NothingFound {
    max_workspace: usize,
    /// [`CudaError::Unsupported`]'s.
    what: String,
}

#[derive(Debug)]
struct ChosenPlan {
    plan: Arc<ConvolutionPlan>,
    /// True if its engine was timed, now or by an earlier process.
    is_tuned: bool,
}

/// The fastest plan for a problem.
#[derive(Debug)]
pub(crate) struct Tuned {
    /// The time of one call.
    pub(crate) milliseconds: f32,
    /// True if it is another plan than [`Planner::choose`] gave before. What was bound to that one
    /// still works, but slower.
    pub(crate) changed: bool,
}

impl Planner {
    /// A planner with what `cache_folder` holds for the device.
    pub(crate) fn new(
        cudnn: &Cudnn,
        device: DeviceIdentity,
        cache_folder: Option<PathBuf>,
    ) -> Self {
        let cache = PlanCache::open(device, cudnn.version(), cache_folder);
        Self { plans: HashMap::new(), unsupported: HashMap::new(), cache }
    }

    /// A plan for a problem, at once: the fastest if that is known, or else what cuDNN recommends
    /// and can build within `max_workspace` bytes.
    ///
    /// # Errors
    /// [`CudaError::Unsupported`] if cuDNN has no engine for the problem, or none that computes as
    /// exactly as its format promises. Or if memory is short, or the device is lost.
    pub(crate) fn choose(
        &mut self,
        cudnn: &Cudnn,
        problem: &ConvolutionProblem,
        max_workspace: usize,
    ) -> Result<Arc<ConvolutionPlan>, CudaError> {
        if let Some(chosen) = self.plans.get(problem)
            && chosen.plan.workspace_bytes() <= max_workspace
        {
            return Ok(Arc::clone(&chosen.plan));
        }
        if let Some(NothingFound { max_workspace: before, what }) = self.unsupported.get(problem)
            && *before >= max_workspace
        {
            return Err(CudaError::Unsupported { what: what.clone() });
        }
        let chosen = self.search(cudnn, problem, max_workspace);
        if let Err(CudaError::Unsupported { what }) = &chosen {
            let nothing = NothingFound { max_workspace, what: what.clone() };
            self.unsupported.insert(*problem, nothing);
        }
        let chosen = chosen?;
        let plan = Arc::clone(&chosen.plan);
        self.plans.insert(*problem, chosen);
        Ok(plan)
    }

    /// The fastest plan if it is known, or else the recommended one.
    fn search(
        &self,
        cudnn: &Cudnn,
        problem: &ConvolutionProblem,
        max_workspace: usize,
    ) -> Result<ChosenPlan, CudaError> {
        let search = Search::new(cudnn, problem, max_workspace)?;
        let known = match self.cache.get(problem) {
            Some(timed) => search.named(timed.engine)?,
            None => None,
        };
        let is_tuned = known.is_some();
        let plan = match known {
            Some(plan) => plan,
            None => search.recommended()?,
        };
        Ok(ChosenPlan { plan: Arc::new(plan), is_tuned })
    }

    /// True if the plan that [`Self::choose`] gives for the problem has the engine that was
    /// fastest, in this process or an earlier one.
    pub(crate) fn is_tuned(&self, problem: &ConvolutionProblem) -> bool {
        match self.plans.get(problem) {
            Some(chosen) => chosen.is_tuned,
            None => self.cache.get(problem).is_some(),
        }
    }

    /// Times engines for a problem on `stream`, and keeps the fastest, here and in the cache. Waits
    /// for the stream. The convolution is computed again and again, so `operands` are its true
    /// memory, or as large. `workspace` has `max_workspace` bytes.
    ///
    /// # Errors
    /// As [`Self::choose`].
    #[expect(clippy::too_many_arguments, reason = "where to compute, what, and on which memory")]
    pub(crate) fn tune(
        &mut self,
        cudnn: &Cudnn,
        context: &Arc<CudaContext>,
        stream: &Arc<CudaStream>,
        problem: &ConvolutionProblem,
        operands: &ConvolutionOperands,
        workspace: DevicePointer,
        max_workspace: usize,
    ) -> Result<Tuned, CudaError> {
        let search = Search::new(cudnn, problem, max_workspace)?;
        let stopwatch = Stopwatch::new(context, stream)?;
        let before = cudnn.stream();
        cudnn.use_stream(stream)?;
        let fastest = search.fastest(&stopwatch, operands, workspace);
        cudnn.use_stream(&before)?;
        let Fastest { plan, milliseconds, candidates } = fastest?;
        let engine = plan.choice();
        self.cache.insert(problem, TimedChoice { engine, milliseconds });
        // A plan that is in use already is kept, so that what was bound to it stays the newest.
        let same = self
            .plans
            .get(problem)
            .map(|chosen| Arc::clone(&chosen.plan))
            .filter(|chosen| chosen.choice() == engine);
        let changed = same.is_none();
        let plan = same.unwrap_or_else(|| Arc::new(plan));
        self.plans.insert(*problem, ChosenPlan { plan: Arc::clone(&plan), is_tuned: true });
        tracing::debug!(%problem, ?engine, milliseconds, candidates, "an engine is chosen");
        Ok(Tuned { milliseconds, changed })
    }
}
