//! Chooses the engine for each convolution: at once by what cuDNN recommends, and for good by
//! timing.
//!
//! Owns the plans that were made, by problem, and the cache of fastest engines. Does not decide
//! when there is time to measure: a pass asks for plans, and its caller lets them be tuned between
//! batches. Upstream: [`plan`](super::plan) and [`plan_cache`](super::plan_cache). Downstream: the
//! passes.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use cudarc::driver::sys::CUevent_flags;
use cudarc::driver::{CudaContext, CudaEvent, CudaStream};

use super::convolution_graph::{ConvolutionKind, ConvolutionProblem, NotANumber, operation_graph};
use super::descriptor::Descriptor;
use super::library::Cudnn;
use super::plan::{
    self, BoundConvolution, ConvolutionOperands, ConvolutionPlan, Engine, EngineChoice, Heuristics,
};
use super::plan_cache::{DeviceIdentity, PlanCache, TimedChoice};
use crate::error::CudaError;
use crate::memory::DevicePointer;

/// cuDNN's lists in the order in which they are asked, and how many engines of each are timed.
/// The last is for convolutions that no other engine computes.
const LISTS: [(Heuristics, usize); 3] =
    [(Heuristics::A, 8), (Heuristics::B, 4), (Heuristics::Fallback, 12)];
/// Calls before a measurement: the first loads kernels, the second finds the caches warm.
const WARMING_CALLS: usize = 2;
/// Measurements of an engine. The fastest counts, since other work on the device only delays.
const MEASUREMENTS: usize = 2;
/// Calls in a measurement: an event's clock ticks every 0.5 µs, and a call may take 5.
const MEASURED_CALLS: usize = 4;

/// Plans of one device by problem. It belongs to one [`Cudnn`].
#[derive(Debug)]
pub(crate) struct Planner {
    plans: HashMap<ConvolutionProblem, ChosenPlan>,
    cache: PlanCache,
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
        Self { plans: HashMap::new(), cache }
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
        let search = Search::new(cudnn, problem, max_workspace)?;
        let known = match self.cache.get(problem) {
            Some(timed) => search.named(timed.engine)?,
            None => None,
        };
        let is_tuned = known.is_some();
        let plan = Arc::new(match known {
            Some(plan) => plan,
            None => search.recommended()?,
        });
        self.plans.insert(*problem, ChosenPlan { plan: Arc::clone(&plan), is_tuned });
        Ok(plan)
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

/// The fastest of the plans that were timed.
struct Fastest {
    plan: ConvolutionPlan,
    milliseconds: f32,
    candidates: usize,
}

/// A search for engines that compute one problem.
struct Search<'a> {
    cudnn: &'a Cudnn,
    problem: &'a ConvolutionProblem,
    graph: Arc<Descriptor>,
    max_workspace: usize,
}

impl<'a> Search<'a> {
    fn new(
        cudnn: &'a Cudnn,
        problem: &'a ConvolutionProblem,
        max_workspace: usize,
    ) -> Result<Self, CudaError> {
        let of = |not_a_number| {
            let graph = operation_graph(cudnn, problem, not_a_number)?;
            Ok(Self { cudnn, problem, graph, max_workspace })
        };
        let keeps: Self = of(NotANumber::Kept)?;
        let has_relu = matches!(problem.kind, ConvolutionKind::Forward { relu: true, .. });
        if !has_relu || keeps.has_engine()? { Ok(keeps) } else { of(NotANumber::Zeroed) }
    }

    /// True if an engine can be built.
    fn has_engine(&self) -> Result<bool, CudaError> {
        match self.recommended() {
            Ok(_plan) => Ok(true),
            Err(CudaError::Unsupported { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The plan of an engine by its name, if it is there and still does.
    fn named(&self, choice: EngineChoice) -> Result<Option<ConvolutionPlan>, CudaError> {
        let engines = self.engines(choice.heuristics)?;
        match engines.into_iter().find(|engine| engine.choice == choice) {
            Some(engine) => self.build(&engine),
            None => Ok(None),
        }
    }

    /// The plan of the first engine that can be built.
    fn recommended(&self) -> Result<ConvolutionPlan, CudaError> {
        for (heuristics, _) in LISTS {
            for engine in self.engines(heuristics)? {
                if let Some(plan) = self.build(&engine)? {
                    return Ok(plan);
                }
            }
        }
        Err(self.unsupported())
    }

    /// The plan that takes the least time on certain memory.
    fn fastest(
        &self,
        stopwatch: &Stopwatch<'_>,
        operands: &ConvolutionOperands,
        workspace: DevicePointer,
    ) -> Result<Fastest, CudaError> {
        let mut fastest: Option<Fastest> = None;
        let mut candidates = 0;
        for (heuristics, most) in LISTS {
            if heuristics == Heuristics::Fallback && fastest.is_some() {
                break;
            }
            let mut timed = 0;
            for engine in self.engines(heuristics)? {
                if timed == most {
                    break;
                }
                let Some(plan) = self.build(&engine)? else { continue };
                let convolution = plan.bind(operands, workspace)?;
                let time = self.time(&convolution, stopwatch);
                let Some(milliseconds) = self.if_possible(time)? else { continue };
                timed += 1;
                if fastest.as_ref().is_none_or(|fastest| milliseconds < fastest.milliseconds) {
                    fastest = Some(Fastest { plan, milliseconds, candidates: 0 });
                }
            }
            candidates += timed;
        }
        let fastest = fastest.ok_or_else(|| self.unsupported())?;
        Ok(Fastest { candidates, ..fastest })
    }

    /// The engines of a list that are exact enough, best first.
    fn engines(&self, heuristics: Heuristics) -> Result<Vec<Engine>, CudaError> {
        let listed = self.if_possible(plan::engines(&self.graph, heuristics))?.unwrap_or_default();
        let mut suitable = Vec::new();
        for engine in listed {
            if self.if_possible(engine.suits(self.problem.format))? == Some(true) {
                suitable.push(engine);
            }
        }
        Ok(suitable)
    }

    /// The engine's plan, if it can be built and its workspace fits.
    fn build(&self, engine: &Engine) -> Result<Option<ConvolutionPlan>, CudaError> {
        let plan = ConvolutionPlan::new(self.cudnn, self.problem.kind, engine);
        let plan = self.if_possible(plan)?;
        Ok(plan.filter(|plan| plan.workspace_bytes() <= self.max_workspace))
    }

    /// The milliseconds of one call.
    fn time(
        &self,
        convolution: &BoundConvolution,
        stopwatch: &Stopwatch<'_>,
    ) -> Result<f32, CudaError> {
        for _ in 0..WARMING_CALLS {
            convolution.run(self.cudnn)?;
        }
        let mut fastest = f32::INFINITY;
        for _ in 0..MEASUREMENTS {
            let milliseconds = stopwatch
                .time(|| (0..MEASURED_CALLS).try_for_each(|_| convolution.run(self.cudnn)))?;
            fastest = fastest.min(milliseconds / MEASURED_CALLS as f32);
        }
        Ok(fastest)
    }

    /// `None` if one engine or list does not do, which leaves the others. What ends the search is
    /// an error: memory is short, or the device is lost.
    fn if_possible<T>(&self, result: Result<T, CudaError>) -> Result<Option<T>, CudaError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error @ (CudaError::OutOfMemory { .. } | CudaError::Lost { .. })) => Err(error),
            Err(error) => {
                tracing::debug!(problem = %self.problem, %error, "an engine is left out");
                Ok(None)
            }
        }
    }

    fn unsupported(&self) -> CudaError {
        let Self { problem, max_workspace, .. } = self;
        CudaError::Unsupported {
            what: format!(
                "a {problem} (cuDNN has no engine for it with at most {max_workspace} bytes of \
                 workspace)"
            ),
        }
    }
}

/// Times what a stream does, by the device's own clock.
struct Stopwatch<'a> {
    stream: &'a CudaStream,
    start: CudaEvent,
    end: CudaEvent,
}

impl<'a> Stopwatch<'a> {
    fn new(context: &Arc<CudaContext>, stream: &'a CudaStream) -> Result<Self, CudaError> {
        let event = || {
            context
                .new_event(Some(CUevent_flags::CU_EVENT_DEFAULT))
                .map_err(|error| CudaError::of_driver(error, "the timing of a convolution"))
        };
        Ok(Self { stream, start: event()?, end: event()? })
    }

    /// The milliseconds until the stream has done what `work` enqueues.
    fn time(&self, work: impl FnOnce() -> Result<(), CudaError>) -> Result<f32, CudaError> {
        let failed = |error| CudaError::of_driver(error, "the timing of a convolution");
        self.start.record(self.stream).map_err(failed)?;
        work()?;
        self.end.record(self.stream).map_err(failed)?;
        self.start.elapsed_ms(&self.end).map_err(failed)
    }
}
