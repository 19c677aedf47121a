//! Parts of a forward pass at their addresses: some neighbouring operations, and what a cut does in
//! the place of one operation.
//!
//! Owns which plans they run. Where values lie is the caller's to say. Upstream:
//! [`pass`](crate::pass), which runs single convolutions. Downstream: [`rest`](crate::rest) and
//! [`backward`](crate::backward).

use std::ops::Range;

use super::{CutActivations, CutLayer, GrowingMemory, LayerConvolution, SharedPlaces};
use crate::cudnn::{BoundConvolution, ConvolutionOperands, ConvolutionProblem, Planner};
use crate::error::CudaError;
use crate::memory::{DeviceMemory, DevicePointer};
use crate::network::DeviceNetwork;
use crate::operations::{BufferId, BufferShape, Operation, OperationList};
use crate::pass::{
    ConvolutionStep, ForwardConvolution, ForwardOperands, LaunchQueue, PlannedConvolution,
};
use crate::results::PassInput;

/// What a loaded network computes with, for passes that are cut at a layer. All of them run on one
/// stream, and so share memory for what they don't keep.
pub(crate) struct CutEngine<'a> {
    pub(crate) queue: LaunchQueue<'a>,
    pub(crate) planner: &'a mut Planner,
    pub(crate) network: &'a DeviceNetwork,
    pub(crate) list: &'a OperationList,
    pub(crate) activations: &'a mut CutActivations,
    /// The network's memory for cuDNN on the queue's stream.
    pub(crate) workspace: &'a DeviceMemory,
    /// The largest batch.
    pub(crate) max_images: usize,
}

impl CutEngine<'_> {
    /// The batch size that `images` images are run as: the same sizes as for whole passes, whose
    /// plans are then known.
    pub(crate) fn bucket(&self, images: usize) -> usize {
        images.next_power_of_two().min(self.max_images)
    }

    /// Where each value lies that is not kept, for up to `images` images.
    ///
    /// # Errors
    /// If there is too little memory.
    pub(crate) fn shared_places(&mut self, images: usize) -> Result<SharedPlaces, CudaError> {
        let LaunchQueue { stream, format, .. } = self.queue;
        self.activations.places(stream, self.list, format, images)
    }

    /// Uploads images, and makes the network's input of them. `uploaded` keeps what is uploaded.
    ///
    /// # Errors
    /// If memory is short, or the device fails.
    pub(crate) fn take_in(
        &self,
        input: PassInput<'_>,
        images: usize,
        places: &SharedPlaces,
        uploaded: &mut GrowingMemory,
    ) -> Result<(), CudaError> {
        let &DeviceNetwork { layout, height, width, table, sources, .. } = self.network;
        let LaunchQueue { kernels, stream, format, .. } = self.queue;
        let to = places.at(self.list.input);
        match input {
            PassInput::Pixels(pixels) => {
                let at = uploaded.upload(stream, pixels)?;
                kernels.normalise_pixels(
                    stream, format, at, table, sources, to, layout, images, height, width,
                )
            }
            PassInput::Scaled(values) => {
                let at = uploaded.upload(stream, values)?;
                kernels.scale_in(stream, format, at, to, layout, images, height, width)
            }
        }
    }

    /// Binds a convolution and what follows it.
    ///
    /// # Errors
    /// If cuDNN has no engine for it, or refuses the addresses.
    fn bind_forward(
        &mut self,
        convolution: ForwardConvolution,
        operands: ForwardOperands,
    ) -> Result<ConvolutionStep, CudaError> {
        let (cudnn, workspace) = (self.queue.cudnn, self.workspace);
        let planned =
            PlannedConvolution::choose(self.planner, cudnn, convolution, workspace.bytes())?;
        ConvolutionStep::new(&planned, convolution, operands, workspace.pointer())
    }

    /// Binds a convolution without what follows it.
    ///
    /// # Errors
    /// If cuDNN has no engine for it, or refuses the addresses.
    pub(crate) fn bind_alone(
        &mut self,
        problem: &ConvolutionProblem,
        operands: &ConvolutionOperands,
    ) -> Result<BoundConvolution, CudaError> {
        let plan = self.planner.choose(self.queue.cudnn, problem, self.workspace.bytes())?;
        plan.bind(operands, self.workspace.pointer())
    }
}

/// Neighbouring operations of a pass, at their addresses.
pub(crate) struct PartialPass {
    images: usize,
    steps: Vec<PartialStep>,
}

enum PartialStep {
    Convolution(ConvolutionStep),
    MaxPool { input: DevicePointer, output: DevicePointer, shape: BufferShape },
}

impl PartialPass {
    /// Binds operations for a batch to the places of their values.
    ///
    /// # Errors
    /// If cuDNN has no engine for a convolution, or refuses the addresses.
    pub(crate) fn bind(
        engine: &mut CutEngine<'_>,
        operations: Range<usize>,
        images: usize,
        at: impl Fn(BufferId) -> DevicePointer,
    ) -> Result<Self, CudaError> {
        let (list, queue) = (engine.list, engine.queue);
        let mut steps = Vec::with_capacity(operations.len());
        for operation in &list.operations[operations] {
            steps.push(match *operation {
                Operation::Convolution {
                    convolution,
                    input,
                    residual,
                    relu,
                    output,
                    height,
                    width,
                } => {
                    let weights = &list.convolutions[convolution];
                    let whole = ForwardConvolution {
                        shape: weights.shape(images, height, width),
                        residual: residual.is_some(),
                        relu,
                        format: queue.format,
                    };
                    let operands = ForwardOperands {
                        input: at(input),
                        weights: weights.weights,
                        bias: weights.bias,
                        residual: residual.map(&at),
                        output: at(output),
                    };
                    PartialStep::Convolution(engine.bind_forward(whole, operands)?)
                }
                Operation::MaxPool { input, output, height, width, channels } => {
                    let shape = BufferShape { height, width, channels };
                    PartialStep::MaxPool { input: at(input), output: at(output), shape }
                }
            });
        }
        Ok(Self { images, steps })
    }

    /// Enqueues the operations.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn run(&self, queue: LaunchQueue<'_>) -> Result<(), CudaError> {
        let LaunchQueue { kernels, stream, format, .. } = queue;
        for step in &self.steps {
            match *step {
                PartialStep::Convolution(ref convolution) => convolution.run(queue)?,
                PartialStep::MaxPool { input, output, shape } => {
                    let BufferShape { height, width, channels } = shape;
                    let images = self.images;
                    kernels
                        .max_pool(stream, format, input, output, images, height, width, channels)?;
                }
            }
        }
        Ok(())
    }
}

/// From the network's input to a layer's own output, which lies at the place of
/// [`CutPlace::output`] then.
pub(crate) struct PassToLayer {
    operations: PartialPass,
    /// The layer's convolution, if the layer is one.
    convolution: Option<ConvolutionStep>,
}

impl PassToLayer {
    /// Binds it for a batch.
    ///
    /// # Errors
    /// If cuDNN has no engine for a convolution, or refuses the addresses.
    pub(crate) fn bind(
        engine: &mut CutEngine<'_>,
        cut: &CutLayer,
        images: usize,
        places: &SharedPlaces,
    ) -> Result<Self, CudaError> {
        let place = &cut.place;
        let operations =
            PartialPass::bind(engine, 0..place.before, images, |buffer| places.at(buffer))?;
        let Some(LayerConvolution { input, weights, .. }) = &cut.convolution else {
            return Ok(Self { operations, convolution: None });
        };
        let BufferShape { height, width, .. } = engine.list.shape(*input);
        let weights = &weights.convolution;
        let whole = ForwardConvolution {
            shape: weights.shape(images, height, width),
            residual: false,
            relu: false,
            format: engine.queue.format,
        };
        let operands = ForwardOperands {
            input: places.at(*input),
            weights: weights.weights,
            bias: weights.bias,
            residual: None,
            output: places.at(place.output),
        };
        let convolution = engine.bind_forward(whole, operands)?;
        Ok(Self { operations, convolution: Some(convolution) })
    }

    /// Enqueues it.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn run(&self, queue: LaunchQueue<'_>) -> Result<(), CudaError> {
        self.operations.run(queue)?;
        match &self.convolution {
            Some(convolution) => convolution.run(queue),
            None => Ok(()),
        }
    }
}

/// What follows a layer's convolution within its operation, in place: BatchNorm, then the residual
/// and the ReLU if the operation has them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NormaliseStep {
    values: DevicePointer,
    residual: Option<DevicePointer>,
    relu: bool,
    scale: DevicePointer,
    shift: DevicePointer,
    /// In the network's format.
    no_bias: DevicePointer,
    /// Positions of all images.
    rows: usize,
    channels: usize,
}

impl NormaliseStep {
    /// For a batch whose values lie at the places of `at`; none if the layer is a block's output.
    pub(crate) fn new(
        list: &OperationList,
        cut: &CutLayer,
        images: usize,
        at: impl Fn(BufferId) -> DevicePointer,
    ) -> Option<Self> {
        let LayerConvolution { residual, relu, weights, .. } = cut.convolution.as_ref()?;
        let output = cut.place.output;
        let shape = list.shape(output);
        Some(Self {
            values: at(output),
            residual: residual.map(at),
            relu: *relu,
            scale: weights.scale,
            shift: weights.shift,
            no_bias: weights.no_bias,
            rows: images * shape.positions(),
            channels: shape.channels,
        })
    }

    /// Enqueues it.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn run(&self, queue: LaunchQueue<'_>) -> Result<(), CudaError> {
        let &Self { values, residual, relu, scale, shift, no_bias, rows, channels } = self;
        let LaunchQueue { kernels, stream, format, .. } = queue;
        let relu_now = relu && residual.is_none();
        kernels.affine(stream, format, values, scale, Some(shift), relu_now, rows, channels)?;
        if residual.is_none() {
            return Ok(());
        }
        kernels.add_bias_relu(stream, format, values, no_bias, residual, relu, rows, channels)
    }
}
