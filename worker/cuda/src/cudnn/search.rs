//! Tries cuDNN's engines for one convolution: finds the first that can be built, or the one that
//! takes the least time.
//!
//! Owns which engines are tried, in which order, and how long that may take. Keeps nothing.
//! Upstream: [`plan`](super::plan). Downstream: [`planner`](super::planner).

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cudarc::driver::sys::CUevent_flags;
use cudarc::driver::{CudaContext, CudaEvent, CudaStream};

use super::convolution_graph::{ConvolutionKind, ConvolutionProblem, NotANumber, operation_graph};
use super::descriptor::Descriptor;
use super::library::Cudnn;
use super::plan::{
    self, BoundConvolution, ConvolutionOperands, ConvolutionPlan, Engine, EngineChoice, Exactness,
    Heuristics,
};
use crate::error::CudaError;
use crate::memory::DevicePointer;
use crate::number_format::NumberFormat;

/// cuDNN's lists in the order in which they are asked, and how many engines of each are timed for
/// each graph. The last is for convolutions that no other engine computes.
const LISTS: [(Heuristics, usize); 3] =
    [(Heuristics::A, 8), (Heuristics::B, 4), (Heuristics::Fallback, 12)];
/// How many engines are timed that are less exact than the number format promises. They are better
/// than none.
const MOST_LESS_EXACT: usize = 8;
/// After this time no other engine is tried, if there is one.
const LONGEST_SEARCH: Duration = Duration::from_millis(400);
/// What the time of an engine is multiplied by that makes a zero of what is no number: one that
/// keeps it may be this much slower and is still taken.
const ZEROING_COSTS: f32 = 1.05;
/// Calls before a measurement: the first loads kernels.
const WARMING_CALLS: usize = 1;
/// An engine whose first measured call takes this many times as long as the fastest engine's is not
/// measured further. Some take a hundred times as long.
const HOPELESS: f32 = 3.0;
/// Measurements of an engine. The fastest counts, since other work on the device only delays.
const MEASUREMENTS: usize = 2;
/// Calls in a measurement: an event's clock ticks every 0.5 µs, and a call may take 5.
const MEASURED_CALLS: usize = 4;

/// The fastest of the plans that were timed.
pub(super) struct Fastest {
    pub(super) plan: ConvolutionPlan,
    pub(super) milliseconds: f32,
    /// How many were timed.
    pub(super) candidates: usize,
}

/// A search for engines that compute one problem.
pub(super) struct Search<'a> {
    cudnn: &'a Cudnn,
    problem: &'a ConvolutionProblem,
    /// The problem in all forms that cuDNN takes, the best one first.
    graphs: Vec<Graph>,
    max_workspace: usize,
    /// Why the last engine or list was left out that was.
    left_out: RefCell<Option<String>>,
}

/// A graph of operations.
struct Graph {
    not_a_number: NotANumber,
    operations: Arc<Descriptor>,
}

/// The engines of a list, best first.
struct Listed {
    /// As exact as the number format promises.
    exact: Vec<Engine>,
    less_exact: Vec<Engine>,
}

impl<'a> Search<'a> {
    /// # Errors
    /// [`CudaError::Unsupported`] if cuDNN takes no graph of the problem. Or if memory is short, or
    /// the device is lost.
    pub(super) fn new(
        cudnn: &'a Cudnn,
        problem: &'a ConvolutionProblem,
        max_workspace: usize,
    ) -> Result<Self, CudaError> {
        let (graphs, left_out) = (Vec::new(), RefCell::new(None));
        let mut search = Self { cudnn, problem, graphs, max_workspace, left_out };
        let has_relu = matches!(problem.kind, ConvolutionKind::Forward { relu: true, .. });
        let forms: &[NotANumber] =
            if has_relu { &[NotANumber::Kept, NotANumber::Zeroed] } else { &[NotANumber::Kept] };
        for &not_a_number in forms {
            let operations = operation_graph(cudnn, problem, not_a_number);
            if let Some(operations) = search.if_possible(operations)? {
                search.graphs.push(Graph { not_a_number, operations });
            }
        }
        if search.graphs.is_empty() { Err(search.unsupported()) } else { Ok(search) }
    }

    /// The plan of an engine by its name, if it is there and still does.
    ///
    /// # Errors
    /// If memory is short, or the device is lost.
    pub(super) fn named(&self, choice: EngineChoice) -> Result<Option<ConvolutionPlan>, CudaError> {
        let EngineChoice { not_a_number, heuristics, .. } = choice;
        let Some(graph) = self.graphs.iter().find(|graph| graph.not_a_number == not_a_number)
        else {
            return Ok(None);
        };
        let Listed { exact, less_exact } = self.engines(graph, heuristics)?;
        match exact.into_iter().chain(less_exact).find(|engine| engine.choice == choice) {
            Some(engine) => self.build(&engine),
            None => Ok(None),
        }
    }

    /// The plan of the first engine that can be built.
    ///
    /// # Errors
    /// [`CudaError::Unsupported`] if there is none. Or if memory is short, or the device is lost.
    pub(super) fn recommended(&self) -> Result<ConvolutionPlan, CudaError> {
        let mut spare = Vec::new();
        for (heuristics, _) in LISTS {
            for graph in &self.graphs {
                let Listed { exact, less_exact } = self.engines(graph, heuristics)?;
                if let Some(plan) = self.first(exact)? {
                    return Ok(plan);
                }
                spare.extend(less_exact);
            }
        }
        self.first(spare)?.ok_or_else(|| self.unsupported())
    }

    /// The plan of the first of these engines that can be built.
    fn first(&self, engines: Vec<Engine>) -> Result<Option<ConvolutionPlan>, CudaError> {
        for engine in engines {
            if let Some(plan) = self.build(&engine)? {
                return Ok(Some(plan));
            }
        }
        Ok(None)
    }

    /// The plan that takes the least time on certain memory.
    ///
    /// # Errors
    /// As [`Self::recommended`].
    pub(super) fn fastest(
        &self,
        stopwatch: &Stopwatch<'_>,
        operands: &ConvolutionOperands,
        workspace: DevicePointer,
    ) -> Result<Fastest, CudaError> {
        let mut race = Race {
            search: self,
            stopwatch,
            operands,
            workspace,
            started: Instant::now(),
            fastest: None,
            least: f32::INFINITY,
        };
        let (mut candidates, mut spare) = (0, Vec::new());
        for (heuristics, most) in LISTS {
            for graph in &self.graphs {
                if heuristics == Heuristics::Fallback && race.fastest.is_some() {
                    break;
                }
                let Listed { exact, less_exact } = self.engines(graph, heuristics)?;
                candidates += race.run(exact, most)?;
                spare.extend(less_exact);
            }
        }
        if race.fastest.is_none() {
            candidates += race.run(spare, MOST_LESS_EXACT)?;
        }
        let fastest = race.fastest.ok_or_else(|| self.unsupported())?;
        Ok(Fastest { candidates, ..fastest })
    }

    /// The engines that a list has for a graph.
    fn engines(&self, graph: &Graph, heuristics: Heuristics) -> Result<Listed, CudaError> {
        let listed = plan::engines(&graph.operations, graph.not_a_number, heuristics);
        let listed = self.if_possible(listed)?.unwrap_or_default();
        let (all, is_f32) = (listed.len(), self.problem.format == NumberFormat::F32);
        let (mut exact, mut less_exact) = (Vec::with_capacity(all), Vec::new());
        for engine in listed {
            match self.if_possible(engine.exactness(self.problem.format))? {
                Some(Exactness::Full) => exact.push(engine),
                Some(Exactness::Less) => less_exact.push(engine),
                // What cuDNN does not tell matters most for f32, which TF32 would replace.
                None if !is_f32 => less_exact.push(engine),
                Some(Exactness::Unfit) | None => {}
            }
        }
        tracing::debug!(
            problem = %self.problem,
            not_a_number = ?graph.not_a_number,
            ?heuristics,
            all,
            exact = exact.len(),
            less_exact = less_exact.len(),
            "engines are listed"
        );
        Ok(Listed { exact, less_exact })
    }

    /// The engine's plan, if it can be built and its workspace fits.
    fn build(&self, engine: &Engine) -> Result<Option<ConvolutionPlan>, CudaError> {
        let plan = ConvolutionPlan::new(self.cudnn, self.problem.kind, engine);
        let plan = self.if_possible(plan)?;
        Ok(plan.filter(|plan| plan.workspace_bytes() <= self.max_workspace))
    }

    /// `None` if one engine, list or graph does not do, which leaves the others. What ends the
    /// search is an error: memory is short, or the device is lost.
    fn if_possible<T>(&self, result: Result<T, CudaError>) -> Result<Option<T>, CudaError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error @ (CudaError::OutOfMemory { .. } | CudaError::Lost { .. })) => Err(error),
            Err(error) => {
                tracing::debug!(problem = %self.problem, %error, "an engine is left out");
                *self.left_out.borrow_mut() = Some(match error {
                    CudaError::Unsupported { what } => what,
                    error => error.to_string(),
                });
                Ok(None)
            }
        }
    }

    fn unsupported(&self) -> CudaError {
        let Self { problem, max_workspace, left_out, .. } = self;
        let reason = match &*left_out.borrow() {
            Some(reason) => format!("; the last that was left out: {reason}"),
            None => String::new(),
        };
        CudaError::Unsupported {
            what: format!(
                "a {problem} (cuDNN has no engine for it with at most {max_workspace} bytes of \
                 workspace{reason})"
            ),
        }
    }
}

/// Finds the fastest of some engines.
struct Race<'a> {
    search: &'a Search<'a>,
    stopwatch: &'a Stopwatch<'a>,
    operands: &'a ConvolutionOperands,
    workspace: DevicePointer,
    started: Instant,
    fastest: Option<Fastest>,
    /// What the time of the fastest counts.
    least: f32,
}

impl Race<'_> {
    /// Times up to `most` of these engines, and returns how many it has timed.
    fn run(&mut self, engines: Vec<Engine>, most: usize) -> Result<usize, CudaError> {
        let mut timed = 0;
        for engine in engines {
            let is_late = self.fastest.is_some() && self.started.elapsed() >= LONGEST_SEARCH;
            if timed == most || is_late {
                break;
            }
            let Some(plan) = self.search.build(&engine)? else { continue };
            let convolution = plan.bind(self.operands, self.workspace)?;
            let time = self.time(&convolution);
            let Some(milliseconds) = self.search.if_possible(time)? else { continue };
            timed += 1;
            let counted = match engine.choice.not_a_number {
                NotANumber::Kept => milliseconds,
                NotANumber::Zeroed => milliseconds * ZEROING_COSTS,
            };
            if counted < self.least {
                self.least = counted;
                self.fastest = Some(Fastest { plan, milliseconds, candidates: 0 });
            }
        }
        Ok(timed)
    }

    /// The milliseconds of one call.
    fn time(&self, convolution: &BoundConvolution) -> Result<f32, CudaError> {
        let call = |times: usize| (0..times).try_for_each(|_| convolution.run(self.search.cudnn));
        call(WARMING_CALLS)?;
        let mut fastest = self.stopwatch.time(|| call(1))?;
        if fastest > HOPELESS * self.least {
            return Ok(fastest);
        }
        for _ in 0..MEASUREMENTS {
            let milliseconds = self.stopwatch.time(|| call(MEASURED_CALLS))?;
            fastest = fastest.min(milliseconds / MEASURED_CALLS as f32);
        }
        Ok(fastest)
    }
}

/// Times what a stream does, by the device's own clock.
pub(super) struct Stopwatch<'a> {
    stream: &'a CudaStream,
    start: CudaEvent,
    end: CudaEvent,
}

impl<'a> Stopwatch<'a> {
    /// # Errors
    /// If the device fails.
    pub(super) fn new(
        context: &Arc<CudaContext>,
        stream: &'a CudaStream,
    ) -> Result<Self, CudaError> {
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
