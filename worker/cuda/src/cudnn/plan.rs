//! The engines that cuDNN has for a graph, and plans that run one of them.
//!
//! Owns which engines a number format allows, and everything that a plan needs while it lives.
//! Does not choose among engines. Upstream: [`convolution_graph`](super::convolution_graph).
//! Downstream: [`search`](super::search), and the passes, which bind plans to addresses.
//!
//! A call of a plan only enqueues kernels: it allocates nothing and waits for nothing, so it may be
//! captured in a CUDA graph. The kernels belong to the plan. So a CUDA graph may be launched only
//! as long as the [`BoundConvolution`]s live that it has captured, and the memory they are bound
//! to.

use std::sync::{Arc, Mutex, PoisonError};

use cudarc::cudnn::sys;
use cudarc::cudnn::sys::cudnnBackendHeurMode_t as RawHeuristics;
use cudarc::cudnn::sys::cudnnBackendNumericalNote_t as Note;
use serde::{Deserialize, Serialize};

use super::convolution_graph::{
    BIAS, ConvolutionKind, INPUT, NotANumber, OUTPUT, RESIDUAL, TENSOR_ALIGNMENT, TensorId, WEIGHTS,
};
use super::descriptor::{
    Descriptor, DescriptorBuilder, DescriptorKind as Kind, NumericalNote, attribute,
};
use super::library::{Cudnn, check};
use crate::error::CudaError;
use crate::memory::DevicePointer;
use crate::number_format::NumberFormat;

/// Engines that are looked at of one list of the heuristics. They are far more than are timed: for
/// f32 the first are those for tensor cores, each with many settings, which are left out.
const MOST_ENGINES: usize = 128;
/// Numerical notes of an engine that are read. cuDNN 9.21 knows 10.
const MOST_NOTES: usize = 16;

/// One of cuDNN's lists of engines, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Heuristics {
    /// Fast to ask.
    A,
    /// More precise, and slower to ask.
    B,
    /// Engines that work, in no order of speed.
    Fallback,
}

impl Heuristics {
    fn raw(self) -> RawHeuristics {
        match self {
            Self::A => RawHeuristics::CUDNN_HEUR_MODE_A,
            Self::B => RawHeuristics::CUDNN_HEUR_MODE_B,
            Self::Fallback => RawHeuristics::CUDNN_HEUR_MODE_FALLBACK,
        }
    }
}

/// An engine with its settings. The name means the same as long as cuDNN, the device and its
/// driver stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EngineChoice {
    /// The graph that the list is for.
    pub(super) not_a_number: NotANumber,
    /// The list that names it.
    pub(super) heuristics: Heuristics,
    /// Its place in the list, from 0.
    pub(super) index: usize,
}

/// An engine with its settings, for one graph.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) choice: EngineChoice,
    /// An engine configuration. It keeps the graph.
    configuration: Arc<Descriptor>,
}

/// The engines that a list has for a graph, best first. `not_a_number` is what the graph was made
/// with.
///
/// # Errors
/// If the list knows no engine for such a graph.
pub(super) fn engines(
    graph: &Arc<Descriptor>,
    not_a_number: NotANumber,
    heuristics: Heuristics,
) -> Result<Vec<Engine>, CudaError> {
    let list = DescriptorBuilder::new(Kind::CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR)?
        .refer(attribute::HEURISTICS_GRAPH, &[graph])?
        .set(attribute::HEURISTICS_MODE, &[heuristics.raw()])?
        .finalise("the search for engines")?;
    let found = list.get_descriptors(
        attribute::HEURISTICS_RESULTS,
        Kind::CUDNN_BACKEND_ENGINECFG_DESCRIPTOR,
        MOST_ENGINES,
    )?;
    let named = found.into_iter().enumerate().map(|(index, configuration)| Engine {
        choice: EngineChoice { not_a_number, heuristics, index },
        configuration,
    });
    Ok(named.collect())
}

/// How exact an engine is, beside what a format promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exactness {
    /// As promised.
    Full,
    /// Less, in the last digits.
    Less,
    /// Its numbers are those of another format.
    Unfit,
}

impl Engine {
    /// How exact it is for a format.
    ///
    /// # Errors
    /// If cuDNN does not tell.
    pub(super) fn exactness(&self, format: NumberFormat) -> Result<Exactness, CudaError> {
        let engine = self.configuration.get_descriptors(
            attribute::CONFIGURATION_ENGINE,
            Kind::CUDNN_BACKEND_ENGINE_DESCRIPTOR,
            1,
        )?;
        let Some(engine) = engine.first() else { return Ok(Exactness::Unfit) };
        let notes = engine.get(attribute::ENGINE_NUMERICAL_NOTES, MOST_NOTES)?;
        Ok(exactness_of(&notes, format))
    }
}

/// f32 is multiplied on tensor cores as TF32.
const OF_ANOTHER_FORMAT: &[NumericalNote] = &[
    NumericalNote::named(Note::CUDNN_NUMERICAL_NOTE_TENSOR_CORE),
    NumericalNote::named(Note::CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS),
];
/// Winograd's larger tiles lose digits of f32 (Lavin and Gray, Fast Algorithms for Convolutional
/// Neural Networks, 2015).
const LESS_THAN_F32: &[NumericalNote] = &[
    NumericalNote::named(Note::CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION),
    NumericalNote::named(Note::CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6),
    NumericalNote::named(Note::CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13),
];
/// Sums are f32 in these formats, too.
const LESS_THAN_HALF: &[NumericalNote] =
    &[NumericalNote::named(Note::CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION)];

/// How exact an engine with these notes is.
fn exactness_of(notes: &[NumericalNote], format: NumberFormat) -> Exactness {
    let (unfit, less): (&[NumericalNote], &[NumericalNote]) = match format {
        NumberFormat::F32 => (OF_ANOTHER_FORMAT, LESS_THAN_F32),
        NumberFormat::Tf32 => (&[], &[]),
        NumberFormat::Bf16 | NumberFormat::F16 => (&[], LESS_THAN_HALF),
    };
    if notes.iter().any(|note| unfit.contains(note)) {
        Exactness::Unfit
    } else if notes.iter().any(|note| less.contains(note)) {
        Exactness::Less
    } else {
        Exactness::Full
    }
}

/// What cuDNN executes. Its documentation lets any thread execute it, but engines are known that
/// fail if two do so at once, so one waits for the other. A call takes microseconds.
#[derive(Debug)]
struct Executable {
    /// An execution plan. It keeps the engine, and so the graph with its tensors, and the handle.
    plan: Arc<Descriptor>,
    running: Mutex<()>,
}

/// A convolution that is ready to run on any memory.
#[derive(Debug)]
pub(crate) struct ConvolutionPlan {
    executable: Arc<Executable>,
    kind: ConvolutionKind,
    choice: EngineChoice,
    workspace_bytes: usize,
}

impl ConvolutionPlan {
    /// Prepares an engine. That may load or compile its kernels.
    ///
    /// # Errors
    /// If the engine can't compute its graph after all, or memory is short.
    pub(super) fn new(
        cudnn: &Cudnn,
        kind: ConvolutionKind,
        engine: &Engine,
    ) -> Result<Self, CudaError> {
        let what = "a convolution's plan";
        let plan = DescriptorBuilder::new(Kind::CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)?
            .with_handle(attribute::PLAN_HANDLE, cudnn.handle())?
            .refer(attribute::PLAN_CONFIGURATION, &[&engine.configuration])?
            .finalise(what)?;
        let bytes = plan.get(attribute::PLAN_WORKSPACE_BYTES, 1)?;
        let workspace_bytes = match bytes.as_slice() {
            [] => 0,
            [bytes, ..] => usize::try_from(*bytes).map_err(|_| CudaError::Failed {
                operation: what.to_owned(),
                reason: format!("it wants {bytes} bytes of workspace"),
            })?,
        };
        let executable = Arc::new(Executable { plan, running: Mutex::new(()) });
        Ok(Self { executable, kind, choice: engine.choice, workspace_bytes })
    }

    /// Memory that a call needs for itself while it runs.
    pub(crate) fn workspace_bytes(&self) -> usize {
        self.workspace_bytes
    }

    /// The engine that it uses.
    pub(super) fn choice(&self) -> EngineChoice {
        self.choice
    }

    /// The plan on certain memory. The result keeps what it needs of the plan, and may be run until
    /// the memory is freed. Nothing checks that: a wrong address is read and written. `workspace`
    /// has [`Self::workspace_bytes`] bytes, and nothing else uses them while the convolution runs.
    ///
    /// # Errors
    /// If `operands` has not exactly the tensors of this plan, or one is not aligned.
    pub(crate) fn bind(
        &self,
        operands: &ConvolutionOperands,
        workspace: DevicePointer,
    ) -> Result<BoundConvolution, CudaError> {
        let tensors = operands.tensors(self.kind)?;
        if self.workspace_bytes > 0 && !is_aligned(workspace) {
            return Err(unfit(format!("the workspace's address is {workspace:#x}")));
        }
        let (ids, pointers): (Vec<TensorId>, Vec<DevicePointer>) = tensors.into_iter().unzip();
        let pack = DescriptorBuilder::new(Kind::CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR)?
            .set(attribute::PACK_IDS, &ids)?
            .set(attribute::PACK_POINTERS, &pointers)?
            .set(attribute::PACK_WORKSPACE, &[workspace])?
            .finalise("a convolution's memory")?;
        Ok(BoundConvolution { executable: Arc::clone(&self.executable), pack })
    }
}

/// The addresses of a convolution's tensors. For a data gradient, `input` is the gradient of the
/// forward convolution's output, and `output` that of its input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConvolutionOperands {
    /// `[N, H, W, C]`.
    pub(crate) input: DevicePointer,
    /// `[outputs, kernel, kernel, inputs]`.
    pub(crate) weights: DevicePointer,
    /// `[outputs]`, if the bias is added.
    pub(crate) bias: Option<DevicePointer>,
    /// Of the output's shape, if a residual is added. Not the output itself.
    pub(crate) residual: Option<DevicePointer>,
    /// `[N, H, W, C]`.
    pub(crate) output: DevicePointer,
}

impl ConvolutionOperands {
    /// The tensors of a kind of convolution.
    fn tensors(&self, kind: ConvolutionKind) -> Result<Vec<(TensorId, DevicePointer)>, CudaError> {
        let (wants_bias, wants_residual) = match kind {
            ConvolutionKind::Forward { residual, .. } => (true, residual),
            ConvolutionKind::Plain | ConvolutionKind::DataGradient => (false, false),
        };
        let optional = [
            ("bias", BIAS, self.bias, wants_bias),
            ("residual", RESIDUAL, self.residual, wants_residual),
        ];
        let mut tensors = vec![(INPUT, self.input), (WEIGHTS, self.weights), (OUTPUT, self.output)];
        for (name, id, pointer, is_wanted) in optional {
            match (pointer, is_wanted) {
                (Some(pointer), true) => tensors.push((id, pointer)),
                (None, false) => {}
                (None, true) => return Err(unfit(format!("a {kind} lacks its {name}"))),
                (Some(_), false) => return Err(unfit(format!("a {kind} takes no {name}"))),
            }
        }
        for &(id, pointer) in &tensors {
            if !is_aligned(pointer) {
                return Err(unfit(format!("tensor {id}'s address is {pointer:#x}")));
            }
        }
        Ok(tensors)
    }
}

/// Whether a tensor may lie there. Engines rely on it, and would read other memory.
fn is_aligned(pointer: DevicePointer) -> bool {
    pointer != 0 && pointer.is_multiple_of(TENSOR_ALIGNMENT as DevicePointer)
}

/// Operands that a plan can't be bound to.
fn unfit(reason: String) -> CudaError {
    CudaError::Failed { operation: "the binding of a convolution".to_owned(), reason }
}

/// A plan on certain memory.
#[derive(Debug)]
pub(crate) struct BoundConvolution {
    executable: Arc<Executable>,
    /// The addresses: a variant pack.
    pack: Arc<Descriptor>,
}

impl BoundConvolution {
    /// Enqueues the convolution on the stream of `cudnn`. Does nothing else, so the stream may be
    /// one that is captured.
    ///
    /// # Errors
    /// If the kernels can't be launched, or the device is lost.
    pub(crate) fn run(&self, cudnn: &Cudnn) -> Result<(), CudaError> {
        let _running = self.executable.running.lock().unwrap_or_else(PoisonError::into_inner);
        let (plan, pack) = (self.executable.plan.raw(), self.pack.raw());
        // SAFETY: the three are alive and complete, no other thread uses the handle or the plan,
        // and the memory is there, as the caller of `bind` knows.
        let status = unsafe { sys::cudnnBackendExecute(cudnn.handle().raw(), plan, pack) };
        check(status, "a convolution").map_err(|error| cudnn.cause_of(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPERANDS: ConvolutionOperands = ConvolutionOperands {
        input: 0x1000,
        weights: 0x2000,
        bias: Some(0x4000),
        residual: Some(0x3000),
        output: 0x5000,
    };

    #[test]
    fn every_kind_gets_its_tensors() {
        let all = ConvolutionKind::Forward { residual: true, relu: true };
        assert_eq!(
            OPERANDS.tensors(all).unwrap(),
            [(1, 0x1000), (2, 0x2000), (5, 0x5000), (4, 0x4000), (3, 0x3000)]
        );
        let two = ConvolutionOperands { bias: None, residual: None, ..OPERANDS };
        for kind in [ConvolutionKind::Plain, ConvolutionKind::DataGradient] {
            assert_eq!(two.tensors(kind).unwrap(), [(1, 0x1000), (2, 0x2000), (5, 0x5000)]);
        }
    }

    #[test]
    fn missing_and_needless_tensors_are_told() {
        let kind = ConvolutionKind::Forward { residual: false, relu: true };
        let message = OPERANDS.tensors(kind).unwrap_err().to_string();
        assert!(message.contains("convolution + bias + relu takes no residual"), "{message}");
        let bare = ConvolutionOperands { bias: None, residual: None, ..OPERANDS };
        let message = bare.tensors(kind).unwrap_err().to_string();
        assert!(message.contains("lacks its bias"), "{message}");
    }

    #[test]
    fn addresses_that_are_not_aligned_are_told() {
        let kind = ConvolutionKind::Forward { residual: true, relu: true };
        for output in [0, 0x5008] {
            let operands = ConvolutionOperands { output, ..OPERANDS };
            let message = operands.tensors(kind).unwrap_err().to_string();
            assert!(message.contains("tensor 5's address"), "{message}");
        }
    }

    #[test]
    fn engines_of_another_format_are_unfit_and_short_sums_less_exact() {
        use Exactness::{Full, Less, Unfit};
        let tensor_core = NumericalNote::named(Note::CUDNN_NUMERICAL_NOTE_TENSOR_CORE);
        let reduced = NumericalNote::named(Note::CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION);
        let both = [tensor_core, reduced];
        let of = |format: NumberFormat| {
            [&both[..1], &both[1..], &both[..]].map(|notes| exactness_of(notes, format))
        };
        assert_eq!(of(NumberFormat::F32), [Unfit, Less, Unfit]);
        assert_eq!(of(NumberFormat::Tf32), [Full, Full, Full]);
        for half in [NumberFormat::Bf16, NumberFormat::F16] {
            assert_eq!(of(half), [Full, Less, Less]);
        }
        assert_eq!(exactness_of(&[], NumberFormat::F32), Full);
    }
}
