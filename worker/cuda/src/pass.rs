//! A forward pass of one batch size over one piece of memory: each operation with the plan that
//! computes it, at its addresses.
//!
//! Owns how a convolution is computed if cuDNN has no engine for all of it: this is the one place
//! that decides it. Batches, copies and graphs are not known here. Upstream:
//! [`operations`](crate::operations) and [`buffers`](crate::buffers). Downstream:
//! [`slots`](crate::slots), and the backward pass, which runs single convolutions.

use std::sync::Arc;

use cudarc::driver::CudaStream;

use crate::buffers::BufferPlan;
use crate::cudnn::{
    BoundConvolution, ConvolutionKind, ConvolutionOperands, ConvolutionPlan, ConvolutionProblem,
    ConvolutionShape, Cudnn, Planner,
};
use crate::error::CudaError;
use crate::kernels::Kernels;
use crate::memory::DevicePointer;
use crate::number_format::NumberFormat;
use crate::operations::{Operation, OperationList};

/// What a pass enqueues with, and where.
#[derive(Clone, Copy)]
pub(crate) struct LaunchQueue<'a> {
    pub(crate) cudnn: &'a Cudnn,
    pub(crate) kernels: &'a Kernels,
    pub(crate) stream: &'a Arc<CudaStream>,
    pub(crate) format: NumberFormat,
}

/// A convolution and what follows it: `relu(convolution(input) + residual + bias)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ForwardConvolution {
    pub(crate) shape: ConvolutionShape,
    /// True if a residual is added.
    pub(crate) residual: bool,
    pub(crate) relu: bool,
    pub(crate) format: NumberFormat,
}

impl ForwardConvolution {
    /// All of it, as one call of cuDNN.
    pub(crate) fn fused(self) -> ConvolutionProblem {
        let Self { shape, residual, relu, format } = self;
        ConvolutionProblem { shape, kind: ConvolutionKind::Forward { residual, relu }, format }
    }

    /// The convolution alone.
    pub(crate) fn plain(self) -> ConvolutionProblem {
        let Self { shape, format, .. } = self;
        ConvolutionProblem { shape, kind: ConvolutionKind::Plain, format }
    }
}

/// How a convolution and what follows it are computed.
#[derive(Clone)]
pub(crate) enum PlannedConvolution {
    /// By one call of cuDNN.
    Fused(Arc<ConvolutionPlan>),
    /// The convolution by cuDNN, and then the rest by a kernel of our own: it reads and writes the
    /// output once more.
    Plain(Arc<ConvolutionPlan>),
}

impl PlannedConvolution {
    /// Chooses at once, without timing. If cuDNN has no engine for all of it, the convolution is
    /// computed alone.
    ///
    /// # Errors
    /// If cuDNN has no engine for the convolution alone either, or the device fails.
    pub(crate) fn choose(
        planner: &mut Planner,
        cudnn: &Cudnn,
        convolution: ForwardConvolution,
        most_workspace: usize,
    ) -> Result<Self, CudaError> {
        match planner.choose(cudnn, &convolution.fused(), most_workspace) {
            Err(CudaError::Unsupported { what }) => {
                tracing::debug!(%what, "no engine for a fused convolution");
                planner.choose(cudnn, &convolution.plain(), most_workspace).map(Self::Plain)
            }
            found => found.map(Self::Fused),
        }
    }

    /// The problem that its plan solves.
    pub(crate) fn problem(&self, convolution: ForwardConvolution) -> ConvolutionProblem {
        match self {
            Self::Fused(_) => convolution.fused(),
            Self::Plain(_) => convolution.plain(),
        }
    }

    /// What its plan reads and writes, of the operands of the whole.
    pub(crate) fn operands(&self, whole: &ForwardOperands) -> ConvolutionOperands {
        let &ForwardOperands { input, weights, bias, residual, output } = whole;
        match self {
            Self::Fused(_) => {
                ConvolutionOperands { input, weights, bias: Some(bias), residual, output }
            }
            Self::Plain(_) => {
                ConvolutionOperands { input, weights, bias: None, residual: None, output }
            }
        }
    }
}

/// What a convolution and what follows it read and write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ForwardOperands {
    pub(crate) input: DevicePointer,
    pub(crate) weights: DevicePointer,
    pub(crate) bias: DevicePointer,
    pub(crate) residual: Option<DevicePointer>,
    pub(crate) output: DevicePointer,
}

/// A convolution and what follows it, at its addresses.
pub(crate) struct ConvolutionStep {
    bound: BoundConvolution,
    /// What is left to do after the convolution.
    rest: Option<BiasResidualRelu>,
}

struct BiasResidualRelu {
    operands: ForwardOperands,
    relu: bool,
    /// Positions of all images.
    rows: usize,
    channels: usize,
}

impl ConvolutionStep {
    /// Binds a convolution to its operands and to the memory that cuDNN computes in.
    ///
    /// # Errors
    /// If cuDNN refuses them.
    pub(crate) fn new(
        planned: &PlannedConvolution,
        convolution: ForwardConvolution,
        operands: ForwardOperands,
        workspace: DevicePointer,
    ) -> Result<Self, CudaError> {
        let ForwardConvolution { shape, relu, .. } = convolution;
        let (plan, rest) = match planned {
            PlannedConvolution::Fused(plan) => (plan, None),
            PlannedConvolution::Plain(plan) => {
                let rows = shape.images * shape.output_height() * shape.output_width();
                let channels = shape.outputs;
                (plan, Some(BiasResidualRelu { operands, relu, rows, channels }))
            }
        };
        let bound = plan.bind(&planned.operands(&operands), workspace)?;
        Ok(Self { bound, rest })
    }

    /// Enqueues it. cuDNN must be enqueueing on the queue's stream.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn run(&self, queue: LaunchQueue<'_>) -> Result<(), CudaError> {
        let LaunchQueue { cudnn, kernels, stream, format } = queue;
        self.bound.run(cudnn)?;
        let Some(BiasResidualRelu { operands, relu, rows, channels }) = &self.rest else {
            return Ok(());
        };
        let ForwardOperands { bias, residual, output, .. } = *operands;
        kernels.add_bias_relu(stream, format, output, bias, residual, *relu, *rows, *channels)
    }
}

/// How all convolutions of a pass of one batch size are computed.
pub(crate) struct PassPlan {
    /// Images of the batch.
    pub(crate) images: usize,
    /// No two plans of an engine have the same.
    pub(crate) generation: u64,
    /// True if no engine is left to be timed, so that the plan stays.
    pub(crate) settled: bool,
    /// By the index of the convolution.
    convolutions: Vec<PlannedConvolution>,
}

impl PassPlan {
    /// Chooses at once, by what was timed before if it was. The plan is not settled.
    ///
    /// # Errors
    /// If cuDNN has no engine for a convolution, or the device fails.
    pub(crate) fn choose(
        planner: &mut Planner,
        cudnn: &Cudnn,
        list: &OperationList,
        format: NumberFormat,
        images: usize,
        generation: u64,
        most_workspace: usize,
    ) -> Result<Self, CudaError> {
        let convolutions = forward_convolutions(list, format, images)
            .map(|convolution| {
                PlannedConvolution::choose(planner, cudnn, convolution, most_workspace)
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { images, generation, settled: false, convolutions })
    }

    /// Every convolution's problem and operands, in memory that starts at `base` and is divided as
    /// `buffers` says.
    pub(crate) fn problems(
        &self,
        list: &OperationList,
        format: NumberFormat,
        buffers: &BufferPlan,
        base: DevicePointer,
    ) -> Vec<(ConvolutionProblem, ConvolutionOperands)> {
        forward_convolutions(list, format, self.images)
            .zip(forward_operands(list, buffers, base))
            .zip(&self.convolutions)
            .map(|((convolution, operands), planned)| {
                (planned.problem(convolution), planned.operands(&operands))
            })
            .collect()
    }
}

/// The convolutions of a list, in order, for a batch.
fn forward_convolutions(
    list: &OperationList,
    format: NumberFormat,
    images: usize,
) -> impl Iterator<Item = ForwardConvolution> {
    list.operations.iter().filter_map(move |operation| match *operation {
        Operation::Convolution { convolution, residual, relu, height, width, .. } => {
            let shape = list.convolutions[convolution].shape(images, height, width);
            Some(ForwardConvolution { shape, residual: residual.is_some(), relu, format })
        }
        Operation::MaxPool { .. } => None,
    })
}

/// What each convolution of a list reads and writes, in order.
fn forward_operands(
    list: &OperationList,
    buffers: &BufferPlan,
    base: DevicePointer,
) -> impl Iterator<Item = ForwardOperands> {
    let at = move |buffer| base + buffers.offset(buffer) as DevicePointer;
    list.operations.iter().filter_map(move |operation| match *operation {
        Operation::Convolution { convolution, input, residual, output, .. } => {
            let convolution = &list.convolutions[convolution];
            Some(ForwardOperands {
                input: at(input),
                weights: convolution.weights,
                bias: convolution.bias,
                residual: residual.map(at),
                output: at(output),
            })
        }
        Operation::MaxPool { .. } => None,
    })
}

/// An operation at its addresses.
enum Step {
    Convolution(ConvolutionStep),
    MaxPool {
        input: DevicePointer,
        output: DevicePointer,
        height: usize,
        width: usize,
        channels: usize,
    },
}

/// The operations of a pass at their addresses.
pub(crate) struct BoundPass {
    images: usize,
    /// One for each operation.
    steps: Vec<Step>,
}

impl BoundPass {
    /// Binds a pass to memory that starts at `base`, is divided as `buffers` says, and to a
    /// workspace for cuDNN.
    ///
    /// # Errors
    /// If cuDNN refuses the addresses.
    pub(crate) fn new(
        plan: &PassPlan,
        list: &OperationList,
        format: NumberFormat,
        buffers: &BufferPlan,
        base: DevicePointer,
        workspace: DevicePointer,
    ) -> Result<Self, CudaError> {
        let at = |buffer| base + buffers.offset(buffer) as DevicePointer;
        let mut convolutions = forward_convolutions(list, format, plan.images)
            .zip(forward_operands(list, buffers, base))
            .zip(&plan.convolutions)
            .map(|((convolution, operands), planned)| {
                ConvolutionStep::new(planned, convolution, operands, workspace)
            });
        let mut steps = Vec::with_capacity(list.operations.len());
        for operation in &list.operations {
            steps.push(match *operation {
                Operation::Convolution { .. } => {
                    let step = convolutions.next().expect("a step for each convolution");
                    Step::Convolution(step?)
                }
                Operation::MaxPool { input, output, height, width, channels } => {
                    Step::MaxPool { input: at(input), output: at(output), height, width, channels }
                }
            });
        }
        Ok(Self { images: plan.images, steps })
    }

    /// Enqueues all operations, and calls `after` with each one's index when it is enqueued.
    ///
    /// # Errors
    /// If the device fails, or `after` does.
    pub(crate) fn run(
        &self,
        queue: LaunchQueue<'_>,
        mut after: impl FnMut(usize) -> Result<(), CudaError>,
    ) -> Result<(), CudaError> {
        let LaunchQueue { cudnn, kernels, stream, format } = queue;
        cudnn.use_stream(stream)?;
        for (index, step) in self.steps.iter().enumerate() {
            match *step {
                Step::Convolution(ref convolution) => convolution.run(queue)?,
                Step::MaxPool { input, output, height, width, channels } => {
                    let images = self.images;
                    kernels
                        .max_pool(stream, format, input, output, images, height, width, channels)?;
                }
            }
            after(index)?;
        }
        Ok(())
    }
}
