//! A residual network as a caller sees it: made once from weights, then run on batches. Divides
//! a batch among threads and keeps their buffers; [`forward`] computes.

use std::sync::{Mutex, PoisonError};

use crate::buffers::{PassBuffers, group_images};
use crate::forward::{self, BatchSlice, PassWatch};
use crate::input::{BatchInput, BatchShape, SMALLEST_SIDE};
use crate::kernel::Kernel;
use crate::network::{PackedNetwork, PackedStage};
use crate::network_weights::{NetworkWeights, STAGES, UnsupportedNetwork};
use crate::profile::{StepTime, StepTimer};
use crate::quantisation::InputScale;
use crate::statistics::{ActivationStatistics, StatisticsCollector};
use crate::team::WorkPart;

/// A residual network for inference on one kernel.
///
/// An image's result does not depend on the other images of its batch or on the number of
/// threads; it is the same to the last bit.
#[derive(Debug)]
pub struct Backbone {
    network: PackedNetwork,
    /// Buffers that no thread is using.
    free_buffers: Mutex<Vec<PassBuffers>>,
}

/// The output of a stage, after its last ReLU.
#[derive(Clone, Debug, PartialEq)]
pub struct StageOutput {
    /// `[N, C, H, W]`, zero or more.
    pub values: Vec<f32>,
    /// `N`, `C`, `H` and `W`.
    pub shape: [usize; 4],
}

/// The outputs of a forward pass.
#[derive(Clone, Debug, PartialEq)]
pub struct BackboneOutputs {
    /// The outputs of the stages that were asked for, each at its stage's index.
    pub stages: [Option<StageOutput>; STAGES],
    /// `[N, C]`: the last stage's output, averaged over its pixels.
    pub pooled: Vec<f32>,
}

impl Backbone {
    /// Packs `weights` for `kernel`.
    ///
    /// # Errors
    /// If the machine lacks the kernel, if channels are not multiples of 32, or if the
    /// convolutions are not arranged as in a ResNet.
    pub fn new(kernel: Kernel, weights: &NetworkWeights<'_>) -> Result<Self, UnsupportedNetwork> {
        let network = PackedNetwork::new(kernel, weights, None)?;
        Ok(Self { network, free_buffers: Mutex::new(Vec::new()) })
    }

    /// Packs `weights` in 8 bits for a [kernel that keeps them](Kernel::is_int8), with scales that
    /// follow from `statistics` of the same network. The input is rounded to `input`'s bytes.
    ///
    /// # Errors
    /// As [`Self::new`], and if the statistics are not this network's.
    pub fn calibrated(
        kernel: Kernel,
        weights: &NetworkWeights<'_>,
        statistics: &ActivationStatistics,
        input: [InputScale; 3],
    ) -> Result<Self, UnsupportedNetwork> {
        let network = PackedNetwork::new(kernel, weights, Some((statistics, input)))?;
        Ok(Self { network, free_buffers: Mutex::new(Vec::new()) })
    }

    /// What the activations of a single image are, for [`Self::calibrated`]. Runs on this thread alone.
    ///
    /// # Panics
    /// As [`Self::run`], and if there is more than one image, or a kernel for 8 bits.
    pub fn statistics(&self, input: BatchInput<'_>, shape: BatchShape) -> ActivationStatistics {
        assert!(shape.images == 1 && !self.kernel().is_int8(), "an image, and no 8 bits");
        let mut outputs = self.empty_outputs(input, shape, [false; STAGES]);
        let mut collector = StatisticsCollector::default();
        collector.note_input(input, shape);
        let mut watch = PassWatch { timer: StepTimer::default(), collector: Some(collector) };
        for slice in &mut slices(input, 1, 1, &mut outputs) {
            self.compute_slice(slice, shape, 1, &mut watch);
        }
        watch.collector.unwrap_or_default().finish()
    }

    /// The kernel that it computes with.
    pub fn kernel(&self) -> Kernel {
        self.network.kernel
    }

    /// Channels of the last stage.
    pub fn features(&self) -> usize {
        self.network.stages.last().map_or(0, PackedStage::outputs)
    }

    /// Runs a batch on at most `threads` threads of the current rayon pool. `wanted` says which
    /// stages' outputs to return.
    ///
    /// # Panics
    /// If `input` does not have the batch's length, or if images are smaller than 32 × 32.
    pub fn run(
        &self,
        input: BatchInput<'_>,
        shape: BatchShape,
        wanted: [bool; STAGES],
        threads: usize,
    ) -> BackboneOutputs {
        let mut outputs = self.empty_outputs(input, shape, wanted);
        self.compute(input, shape, threads, &mut outputs);
        outputs
    }

    /// Runs a batch as [`Self::run`] does, but on this thread alone, and returns the time of
    /// each step, in the order of the network.
    ///
    /// # Panics
    /// As [`Self::run`].
    pub fn profile(&self, input: BatchInput<'_>, shape: BatchShape) -> Vec<StepTime> {
        let mut outputs = self.empty_outputs(input, shape, [false; STAGES]);
        let mut watch = PassWatch { timer: StepTimer::running(), collector: None };
        for slice in &mut slices(input, shape.images, 1, &mut outputs) {
            self.compute_slice(slice, shape, 1, &mut watch);
        }
        watch.timer.steps()
    }

    /// Room for a pass's outputs.
    fn empty_outputs(
        &self,
        input: BatchInput<'_>,
        shape: BatchShape,
        wanted: [bool; STAGES],
    ) -> BackboneOutputs {
        let BatchShape { images, height, width } = shape;
        assert_eq!(input.len(), images * shape.image_values(), "a batch of {images} images");
        assert!(height.min(width) >= SMALLEST_SIDE, "an image of {height} x {width}");
        let shapes = self.stage_shapes(shape);
        BackboneOutputs {
            stages: std::array::from_fn(|stage| {
                let shape = shapes[stage];
                wanted[stage]
                    .then(|| StageOutput { values: vec![0.0; shape.iter().product()], shape })
            }),
            pooled: vec![0.0; images * self.features()],
        }
    }

    /// `[N, C, H, W]` of each stage's output.
    fn stage_shapes(
        &self,
        BatchShape { images, height, width }: BatchShape,
    ) -> [[usize; 4]; STAGES] {
        // Each convolution is padded by half its side, so stride 2 halves and rounds up.
        let mut side = [height, width].map(|side| side.div_ceil(4));
        std::array::from_fn(|index| {
            let stage = &self.network.stages[index];
            side = side.map(|side| side.div_ceil(stage.stride()));
            [images, stage.outputs(), side[0], side[1]]
        })
    }

    fn compute(
        &self,
        input: BatchInput<'_>,
        shape: BatchShape,
        threads: usize,
        outputs: &mut BackboneOutputs,
    ) {
        let mut slices = slices(input, shape.images, threads, outputs);
        let count = slices.len();
        let work = &|index: usize, slice: &mut BatchSlice<'_>| {
            // If there are more threads than images, the further threads join the teams.
            let members = WorkPart { index, parts: count }.range(threads.max(count)).len();
            self.compute_slice(slice, shape, members, &mut PassWatch::default());
        };
        // On the pool that the rest of the process computes on too, so that there are never more
        // threads at work than cores.
        rayon::scope(|scope| {
            for (index, slice) in slices.iter_mut().enumerate() {
                scope.spawn(move |_| work(index, slice));
            }
        });
    }

    fn compute_slice(
        &self,
        slice: &mut BatchSlice<'_>,
        shape: BatchShape,
        members: usize,
        watch: &mut PassWatch,
    ) {
        let images = group_images(slice.input.len() / shape.image_values());
        let mut buffers = self.take_buffers(shape.height, shape.width, images);
        // SAFETY: `take_buffers` makes buffers for this network, and no other's are among its own.
        unsafe { forward::run(&self.network, &mut buffers, slice, members, watch) };
        self.free_buffers.lock().unwrap_or_else(PoisonError::into_inner).push(buffers);
    }

    /// Buffers for images of this size: used ones if there are any, else new ones.
    fn take_buffers(&self, height: usize, width: usize, images: usize) -> PassBuffers {
        let mut free = self.free_buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let found = free.iter().position(|buffers| buffers.fits(height, width, images));
        let buffers = match found {
            Some(index) => Some(free.swap_remove(index)),
            None => {
                // Drops buffers of another size, so that there is memory for new ones.
                free.pop();
                None
            }
        };
        drop(free);
        buffers.unwrap_or_else(|| PassBuffers::new(&self.network, height, width, images))
    }
}

/// Divides a batch of `n` images into one slice for each thread, as evenly as possible. Each
/// slice has at least one image.
fn slices<'a>(
    mut input: BatchInput<'a>,
    n: usize,
    threads: usize,
    outputs: &'a mut BackboneOutputs,
) -> Vec<BatchSlice<'a>> {
    let mut pooled = outputs.pooled.as_mut_slice();
    let mut stages =
        outputs.stages.each_mut().map(|stage| stage.as_mut().map(|s| s.values.as_mut_slice()));
    let threads = threads.clamp(1, n.max(1));
    let mut left = n;
    let mut slices = Vec::with_capacity(threads);
    for thread in 0..threads {
        if left == 0 {
            break;
        }
        let images = left.div_ceil(threads - thread);
        let mut split = |values: &mut &'a mut [f32]| {
            let size = values.len() / left * images;
            let (own, rest) = std::mem::take(values).split_at_mut(size);
            *values = rest;
            own
        };
        let own_input;
        (own_input, input) = input.split_at(input.len() / left * images);
        slices.push(BatchSlice {
            input: own_input,
            stages: stages.each_mut().map(|stage| stage.as_mut().map(&mut split)),
            pooled: split(&mut pooled),
        });
        left -= images;
    }
    slices
}
