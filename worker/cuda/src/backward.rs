//! Gradients of logits with respect to a target layer, on the device: forward to the logits, with
//! what comes after the layer kept, and back by the chain rule. Weights get no gradients.
//!
//! Owns what such passes keep between calls, and how targets are divided into batches. Where a
//! layer is, and the passes before and after it, are [`layer_cut`](crate::layer_cut)'s; what becomes
//! of the gradients is [`gradient_maps`](crate::gradient_maps)'. Downstream:
//! [`target_layer`](crate::target_layer).

mod kept_rows;
mod program;
mod targets;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::cudnn::{BoundConvolution, ConvolutionKind, ConvolutionOperands, ConvolutionProblem};
use crate::error::CudaError;
use crate::gradient_maps::{GradientOutput, GradientRequest, LayerGradients, ResultMemory};
use crate::layer_cut::{
    CutEngine, CutLayer, GrowingMemory, NormaliseStep, PartialPass, PassToLayer, SharedPlaces,
};
use crate::memory::DevicePointer;
use crate::number_format::NumberFormat;
use crate::operations::{BufferShape, Operation, OperationList};
use crate::pass::LaunchQueue;
use crate::results::PassInput;
use crate::weight_layout::IMAGE_CHANNELS;

use kept_rows::KeptRows;
use program::{BackwardProgram, BackwardStep};
use targets::{SelectedImages, TargetGroup, check_targets};

/// How long engines are timed after a call. At least one convolution's are.
const TUNING_TIME: Duration = Duration::from_millis(50);
/// In f16, what the largest gradients of a head are brought to. A head's weights are below 1, and a
/// ResNet-50's gradients are some hundred times smaller in its first stage: both are then far from
/// f16's limits of 65,504 and 6e-5.
const HALF_GRADIENT: usize = 16;

/// Passes to the gradients of one target layer, with their memory.
pub(crate) struct GradientPass {
    // What is bound is dropped before the memory.
    to_layer: HashMap<usize, PassToLayer>,
    from_layer: HashMap<usize, BoundGradients>,
    layer: CutLayer,
    program: BackwardProgram,
    /// Where the values of `to_layer` lie.
    places: Option<SharedPlaces>,
    kept: Option<KeptRows>,
    uploaded: GrowingMemory,
    rows: GrowingMemory,
    classes: GrowingMemory,
    results: ResultMemory,
    /// The problems whose engines can't be timed.
    untunable: HashSet<ConvolutionProblem>,
}

/// From a layer's output to the logits and back, for one number of rows.
struct BoundGradients {
    normalise: Option<NormaliseStep>,
    operations: PartialPass,
    back: Vec<BoundStep>,
    /// The convolutions of the way back.
    problems: Vec<(ConvolutionProblem, ConvolutionOperands)>,
}

/// A [`BackwardStep`] at its addresses.
enum BoundStep {
    Mask {
        gradient: DevicePointer,
        output: DevicePointer,
        values: usize,
    },
    Convolution(BoundConvolution),
    MaxPool {
        input: DevicePointer,
        output: DevicePointer,
        of_output: DevicePointer,
        of_input: DevicePointer,
        /// Of the input.
        shape: BufferShape,
        rows: usize,
    },
    Add {
        to: DevicePointer,
        from: DevicePointer,
        values: usize,
    },
    /// The way back through the BatchNorm of the layer's convolution.
    Scale {
        gradient: DevicePointer,
        factors: DevicePointer,
        rows: usize,
        channels: usize,
    },
}

impl GradientPass {
    pub(crate) fn new(layer: CutLayer, list: &OperationList) -> Self {
        let relu = layer.convolution.as_ref().is_some_and(|convolution| convolution.relu);
        let program = BackwardProgram::new(list, &layer.place, relu);
        Self {
            to_layer: HashMap::new(),
            from_layer: HashMap::new(),
            layer,
            program,
            places: None,
            kept: None,
            uploaded: GrowingMemory::new("images"),
            rows: GrowingMemory::new("targets"),
            classes: GrowingMemory::new("targets"),
            results: ResultMemory::new(),
            untunable: HashSet::new(),
        }
    }

    /// The layer that its gradients are of.
    pub(crate) fn layer(&self) -> &CutLayer {
        &self.layer
    }

    /// Bytes of its memory on the device.
    pub(crate) fn bytes(&self) -> usize {
        let growing = [&self.uploaded, &self.rows, &self.classes];
        let growing: usize = growing.into_iter().map(GrowingMemory::bytes).sum();
        growing + self.results.bytes() + self.kept.as_ref().map_or(0, KeptRows::bytes)
    }

    /// What is wanted of the layer, for each target: an image of `input` and a class.
    ///
    /// # Errors
    /// If a target is not there, if memory is short, or the device fails.
    pub(crate) fn run(
        &mut self,
        engine: &mut CutEngine<'_>,
        input: PassInput<'_>,
        targets: &[(usize, usize)],
        request: GradientRequest,
    ) -> Result<GradientOutput, CudaError> {
        let network = engine.network;
        let images = input.images(network, usize::MAX)?;
        check_targets(targets, images, network.head.classes)?;
        let image_values = IMAGE_CHANNELS * network.height * network.width;
        let mut output = GradientOutput::of_shape(engine.list.shape(self.layer.place.output));
        for targets in targets.chunks(engine.max_images) {
            let group = TargetGroup::new(targets);
            let selected = SelectedImages::new(input, image_values, &group.images);
            let layer = self.enqueue(engine, selected.input(), &group)?;
            self.results.take(engine.queue, layer, request, &mut output)?;
        }
        if let Some(targets) = targets.chunks(engine.max_images).next() {
            let rows = engine.bucket(targets.len());
            self.tune(engine, rows);
        }
        Ok(output)
    }

    /// Enqueues the way to the logits and back for some targets, and says where the results are.
    fn enqueue(
        &mut self,
        engine: &mut CutEngine<'_>,
        input: PassInput<'_>,
        group: &TargetGroup,
    ) -> Result<LayerGradients, CudaError> {
        let LaunchQueue { kernels, stream, format, .. } = engine.queue;
        let images = group.images.len();
        let [image_bucket, bucket] = [images, group.rows.len()].map(|count| engine.bucket(count));
        let places = self.prepare(engine, image_bucket, bucket)?;
        let [rows, classes] = group.padded(bucket);
        let rows = self.rows.upload(stream, &rows)?;
        let classes = self.classes.upload(stream, &classes)?;
        engine.take_in(input, images, &places, &mut self.uploaded)?;
        self.to_layer[&image_bucket].run(engine.queue)?;

        let kept = self.kept.as_ref().expect("it was prepared");
        let place = &self.layer.place;
        let shape = engine.list.shape(place.output);
        let copy = |from: DevicePointer, to: DevicePointer, values: usize| {
            kernels.gather_rows(stream, format, from, rows, to, bucket, values)
        };
        let output = places.at(place.output);
        copy(output, kept.layer(), shape.values())?;
        if self.layer.convolution.is_some() {
            copy(output, kept.at(place.output), shape.values())?;
        }
        if let Some(carried) = place.carried {
            let values = engine.list.shape(carried).values();
            copy(places.at(carried), kept.at(carried), values)?;
        }

        let bound = &self.from_layer[&bucket];
        if let Some(normalise) = &bound.normalise {
            normalise.run(engine.queue)?;
        }
        bound.operations.run(engine.queue)?;
        let head = &engine.network.head;
        let scale = gradient_scale(format, head.positions);
        kernels.head_gradient(
            stream,
            format,
            classes,
            head.weight,
            head.flatten,
            scale,
            kept.area(self.program.start),
            bucket,
            head.positions,
            head.channels,
        )?;
        for step in &bound.back {
            step.run(engine.queue)?;
        }
        let (activations, gradients) = (kept.layer(), kept.area(self.program.end));
        Ok(LayerGradients { activations, gradients, scale, rows: group.rows.len(), shape })
    }

    /// Binds the passes for a batch of `images` images and one of `rows` rows, if they are not
    /// bound yet.
    fn prepare(
        &mut self,
        engine: &mut CutEngine<'_>,
        images: usize,
        rows: usize,
    ) -> Result<SharedPlaces, CudaError> {
        let places = engine.shared_places(images)?;
        if !self.places.as_ref().is_some_and(|before| before.is_same(&places)) {
            self.to_layer.clear();
            self.places = Some(places.clone());
        }
        if !self.to_layer.contains_key(&images) {
            let bound = PassToLayer::bind(engine, &self.layer, images, &places)?;
            self.to_layer.insert(images, bound);
        }
        if self.kept.as_ref().is_none_or(|kept| kept.rows() < rows) {
            self.from_layer.clear();
            // The old memory first: there may not be room for both.
            self.kept = None;
            let LaunchQueue { stream, format, .. } = engine.queue;
            let (list, areas) = (engine.list, &self.program.areas);
            self.kept = Some(KeptRows::new(stream, list, format, &self.layer, areas, rows)?);
        }
        if !self.from_layer.contains_key(&rows) {
            let kept = self.kept.as_ref().expect("it was just made");
            let bound = BoundGradients::bind(engine, &self.layer, &self.program, kept, rows)?;
            self.from_layer.insert(rows, bound);
        }
        Ok(places)
    }

    /// Times engines for some convolutions of the way back of `rows` rows. The next call uses what
    /// is found. No error here is one of the gradients: their caller has them.
    fn tune(&mut self, engine: &mut CutEngine<'_>, rows: usize) {
        let Some(bound) = self.from_layer.get(&rows) else { return };
        let LaunchQueue { cudnn, stream, .. } = engine.queue;
        let started = Instant::now();
        let (mut timed, mut changed) = (0, false);
        for (problem, operands) in &bound.problems {
            if engine.planner.is_tuned(problem) || self.untunable.contains(problem) {
                continue;
            }
            // Another pass on the device would be timed with it. If it fails, its caller is told.
            if timed == 0 && stream.context().synchronize().is_err()
                || timed > 0 && started.elapsed() >= TUNING_TIME
            {
                break;
            }
            timed += 1;
            let tuned = engine.planner.tune(
                cudnn,
                stream.context(),
                stream,
                problem,
                operands,
                engine.workspace.pointer(),
                engine.workspace.bytes(),
            );
            match tuned {
                Ok(tuned) => changed |= tuned.changed,
                Err(error) => {
                    tracing::debug!(%error, "a data gradient's engines cannot be timed");
                    self.untunable.insert(*problem);
                    if error.is_lost() {
                        break;
                    }
                }
            }
        }
        if changed {
            self.from_layer.remove(&rows);
        }
    }
}

impl BoundGradients {
    fn bind(
        engine: &mut CutEngine<'_>,
        layer: &CutLayer,
        program: &BackwardProgram,
        kept: &KeptRows,
        rows: usize,
    ) -> Result<Self, CudaError> {
        let at = |value| kept.at(value);
        let normalise = NormaliseStep::new(engine.list, layer, rows, at);
        let after = layer.place.after..engine.list.operations.len();
        let operations = PartialPass::bind(engine, after, rows, at)?;
        let (mut back, mut problems) = (Vec::with_capacity(program.steps.len() + 1), Vec::new());
        for &step in &program.steps {
            back.push(BoundStep::bind(engine, step, kept, rows, &mut problems)?);
        }
        if let Some(convolution) = &layer.convolution {
            let shape = engine.list.shape(layer.place.output);
            back.push(BoundStep::Scale {
                gradient: kept.area(program.end),
                factors: convolution.weights.scale,
                rows: rows * shape.positions(),
                channels: shape.channels,
            });
        }
        Ok(Self { normalise, operations, back, problems })
    }
}

impl BoundStep {
    /// Binds a step. A convolution is added to `problems`.
    fn bind(
        engine: &mut CutEngine<'_>,
        step: BackwardStep,
        kept: &KeptRows,
        rows: usize,
        problems: &mut Vec<(ConvolutionProblem, ConvolutionOperands)>,
    ) -> Result<Self, CudaError> {
        let list = engine.list;
        let values = |value| rows * list.shape(value).values();
        Ok(match step {
            BackwardStep::Mask { gradient, output } => Self::Mask {
                gradient: kept.area(gradient),
                output: kept.at(output),
                values: values(output),
            },
            BackwardStep::Add { to, from, value } => {
                Self::Add { to: kept.area(to), from: kept.area(from), values: values(value) }
            }
            BackwardStep::Through { operation, from, to } => {
                let (from, to) = (kept.area(from), kept.area(to));
                match list.operations[operation] {
                    Operation::Convolution { convolution, height, width, .. } => {
                        let weights = &list.convolutions[convolution];
                        let problem = ConvolutionProblem {
                            shape: weights.shape(rows, height, width),
                            kind: ConvolutionKind::DataGradient,
                            format: engine.queue.format,
                        };
                        let operands = ConvolutionOperands {
                            input: from,
                            weights: weights.weights,
                            bias: None,
                            residual: None,
                            output: to,
                        };
                        problems.push((problem, operands));
                        Self::Convolution(engine.bind_alone(&problem, &operands)?)
                    }
                    Operation::MaxPool { input, output, height, width, channels } => {
                        Self::MaxPool {
                            input: kept.at(input),
                            output: kept.at(output),
                            of_output: from,
                            of_input: to,
                            shape: BufferShape { height, width, channels },
                            rows,
                        }
                    }
                }
            }
        })
    }

    fn run(&self, queue: LaunchQueue<'_>) -> Result<(), CudaError> {
        let LaunchQueue { cudnn, kernels, stream, format } = queue;
        match *self {
            Self::Mask { gradient, output, values } => {
                kernels.relu_mask(stream, format, gradient, output, values)
            }
            Self::Convolution(ref convolution) => convolution.run(cudnn),
            Self::MaxPool { input, output, of_output, of_input, shape, rows } => {
                let BufferShape { height, width, channels } = shape;
                kernels.max_pool_gradient(
                    stream, format, input, output, of_output, of_input, rows, height, width,
                    channels,
                )
            }
            Self::Add { to, from, values } => kernels.add(stream, format, to, from, values),
            Self::Scale { gradient, factors, rows, channels } => {
                kernels.scale_channels(stream, format, gradient, factors, rows, channels)
            }
        }
    }
}

/// What gradients are multiplied by on the way back, so that f16 holds them: a power of two, which
/// rounds nothing. A head that averages divides its weights by the number of positions.
fn gradient_scale(format: NumberFormat, positions: usize) -> f32 {
    match format {
        NumberFormat::F16 => (HALF_GRADIENT * positions.next_power_of_two()) as f32,
        NumberFormat::F32 | NumberFormat::Tf32 | NumberFormat::Bf16 => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_f16_is_scaled_and_by_a_power_of_two() {
        assert_eq!(gradient_scale(NumberFormat::F16, 49), 1024.0);
        for format in [NumberFormat::F32, NumberFormat::Tf32, NumberFormat::Bf16] {
            assert_eq!(gradient_scale(format, 49), 1.0);
        }
    }
}
