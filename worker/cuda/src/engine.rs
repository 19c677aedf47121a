//! A network on a GPU, as a caller sees it: batches go in, and logits, pooled features, maps and
//! stages' outputs come out.
//!
//! Owns which slot a batch takes, the batch size that it is padded to, and when engines are timed:
//! the first pass of a batch size runs with what cuDNN recommends, and after each pass some
//! convolutions are timed until all of them are. What a file of weights looks like, and what
//! classes mean, is not known here. Upstream: every module of this crate. Downstream: the worker's
//! models.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use camshaft_kernels::NetworkWeights;
use cudarc::driver::CudaStream;

use crate::backward::GradientPass;
use crate::buffers::BufferPlan;
use crate::cudnn::{ConvolutionProblem, Cudnn, DeviceIdentity, Planner};
use crate::device::CudaDevice;
use crate::error::CudaError;
use crate::kernels::Kernels;
use crate::layer_cut::CutActivations;
use crate::memory::DeviceMemory;
use crate::network::{DeviceNetwork, HeadWeights, InputFormat};
use crate::number_format::NumberFormat;
use crate::operations::{OperationList, operations};
use crate::pass::PassPlan;
use crate::rest::RestPass;
use crate::results::{PassInput, PassOutput, PassRequest};
use crate::slots::{Batch, PassParts, Slot, SlotSizes};
use crate::stem_choice::StemTrial;
use crate::weight_layout::IMAGE_CHANNELS;

/// Batches that can be under way at the same time.
const SLOTS: usize = 2;
/// How long engines are timed after a pass. At least one convolution's are.
const TUNING_TIME: Duration = Duration::from_millis(50);
/// Most memory that an engine of cuDNN may compute in, for each stream. On an H100 the fastest
/// engines for 256 images took less.
const MOST_WORKSPACE: usize = 256 << 20;
/// The same for one image. Smaller batches need less, and smaller devices have less to spare.
const WORKSPACE_OF_AN_IMAGE: usize = 4 << 20;
/// With less than this, some convolutions have slow engines only.
const LEAST_WORKSPACE: usize = 32 << 20;

/// How a network computes.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// The format of weights and activations.
    pub format: NumberFormat,
    /// Images of the largest batch. Memory is allocated for it once.
    pub max_images: usize,
    /// The folder that keeps which engines were fastest, for other processes. Without one, or if it
    /// can't be used, each process times them again.
    pub plan_cache: Option<PathBuf>,
    /// Channels of the stem's input in a 16-bit format: 4, 8, or 16, of which each holds four pixels.
    /// Without a number the fastest is taken, which differs from device to device.
    pub stem_channels: Option<usize>,
}

/// A pass that was begun. Its results wait for [`CudaNetwork::finish`]; if it is dropped, they are
/// lost.
#[derive(Debug)]
#[must_use = "the results of a pass are taken with its ticket"]
pub struct Ticket {
    slot: usize,
    pass: Arc<()>,
}

/// A network on a GPU. It may move between threads, but is used by one at a time.
pub struct CudaNetwork {
    // What runs is dropped before the memory that it uses, and plans before cuDNN.
    slots: Vec<Slot>,
    /// Of the target layer that gradients were asked for last.
    pub(crate) gradient_pass: Option<GradientPass>,
    /// Of the target layer whose rest was asked for last.
    pub(crate) rest_pass: Option<RestPass>,
    pub(crate) cut_activations: CutActivations,
    plans: HashMap<usize, PassPlan>,
    /// The problems whose engines can't be timed.
    untunable: HashSet<ConvolutionProblem>,
    /// Counts plans.
    generation: u64,
    buffers: BufferPlan,
    max_images: usize,
    pub(crate) planner: Planner,
    pub(crate) list: OperationList,
    /// Memory for cuDNN on `stream`. Its size is also the most that plans may need.
    pub(crate) workspace: DeviceMemory,
    pub(crate) network: DeviceNetwork,
    pub(crate) kernels: Kernels,
    /// Enqueues on the stream that it was told last: whoever uses it says which.
    pub(crate) cudnn: Cudnn,
    /// For everything but forward passes.
    pub(crate) stream: Arc<CudaStream>,
    pub(crate) device: CudaDevice,
}

impl CudaNetwork {
    /// Uploads a network, and allocates all that its passes need.
    ///
    /// # Errors
    /// If cuDNN or kernels for the device are missing, if the network can't be computed here, if
    /// the device has too little memory for `max_images` images, or fails.
    pub fn load(
        device: &CudaDevice,
        weights: &NetworkWeights<'_>,
        head: &HeadWeights<'_>,
        input: &InputFormat,
        settings: EngineSettings,
    ) -> Result<Self, CudaError> {
        let EngineSettings { format, max_images, plan_cache, stem_channels } = settings;
        let max_images = max_images.max(1);
        device.bind_to_thread()?;
        let stream = device.new_stream()?;
        let kernels = Kernels::load(device.context())?;
        let cudnn = Cudnn::open(&stream)?;
        let identity = DeviceIdentity { name: device.name().to_owned(), driver: device.driver() };
        let mut planner = Planner::new(&cudnn, identity, plan_cache);
        let mut network = DeviceNetwork::new(&stream, weights, head, input, format)?;
        let workspace_bytes = workspace_bytes(max_images);
        let workspace = DeviceMemory::new(&stream, workspace_bytes, "cuDNN's workspace")?;
        let trial = StemTrial {
            cudnn: &cudnn,
            stream: &stream,
            workspace: &workspace,
            network: &network,
            weights: &weights.stem,
            images: max_images,
            channels: stem_channels,
        };
        let stem = trial.fastest(&mut planner)?;
        network.set_stem(stem);
        let list = operations(&network);
        let image_bytes = IMAGE_CHANNELS * network.height * network.width * size_of::<f32>();
        let buffers = BufferPlan::new(&list, format, max_images, image_bytes);
        let sizes = SlotSizes { most_images: max_images, workspace_bytes };
        let slots = (0..SLOTS)
            .map(|_| Slot::new(device, &network, &buffers, sizes))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            slots,
            gradient_pass: None,
            rest_pass: None,
            cut_activations: CutActivations::default(),
            plans: HashMap::new(),
            untunable: HashSet::new(),
            generation: 0,
            buffers,
            max_images,
            planner,
            list,
            workspace,
            network,
            kernels,
            cudnn,
            stream,
            device: device.clone(),
        })
    }

    /// Images of the largest batch.
    pub fn max_images(&self) -> usize {
        self.max_images
    }

    /// Bytes that it keeps allocated on the device. cuDNN's own are not among them.
    pub fn memory_bytes(&self) -> usize {
        let slots: usize = self.slots.iter().map(Slot::bytes).sum();
        slots + self.network.bytes() + self.workspace.bytes() + self.target_layer_bytes()
    }

    /// Begins a pass over 1 to [`Self::max_images`] images, and returns while it runs. Up to two
    /// passes can be under way.
    ///
    /// # Errors
    /// If the batch or its labels don't fit the network, if two passes are under way, if memory for
    /// stages' outputs is short, or the device fails.
    pub fn begin(
        &mut self,
        input: PassInput<'_>,
        request: &PassRequest<'_>,
    ) -> Result<Ticket, CudaError> {
        self.device.bind_to_thread()?;
        let images = input.images(&self.network, self.max_images)?;
        let bucket = bucket(images, self.max_images);
        let labels = request.label_numbers(images, bucket, self.network.head.classes)?;
        let Some(slot) = self.slots.iter_mut().position(Slot::is_free) else {
            return Err(CudaError::Failed {
                operation: "beginning a pass".to_owned(),
                reason: format!("{SLOTS} passes are under way; finish one first"),
            });
        };
        if !self.plans.contains_key(&bucket) {
            let plan = self.new_plan(bucket)?;
            self.plans.insert(bucket, plan);
        }
        let batch = Batch { input, images, labels, stages: request.stages };
        let parts = PassParts {
            cudnn: &self.cudnn,
            kernels: &self.kernels,
            network: &self.network,
            list: &self.list,
            buffers: &self.buffers,
        };
        let pass = self.slots[slot].begin(parts, &self.plans[&bucket], &batch)?;
        Ok(Ticket { slot, pass })
    }

    /// Waits for a pass, and returns its results.
    ///
    /// # Errors
    /// If the device failed in the pass. Later passes work, unless it is lost.
    pub fn finish(&mut self, ticket: Ticket) -> Result<PassOutput, CudaError> {
        self.device.bind_to_thread()?;
        let Ticket { slot, pass } = ticket;
        let parts = PassParts {
            cudnn: &self.cudnn,
            kernels: &self.kernels,
            network: &self.network,
            list: &self.list,
            buffers: &self.buffers,
        };
        let (output, bucket) = self.slots[slot].finish(parts, &pass)?;
        self.tune(slot, bucket);
        Ok(output)
    }

    /// Chooses how a batch of `bucket` images is computed, by what is known now.
    fn new_plan(&mut self, bucket: usize) -> Result<PassPlan, CudaError> {
        self.generation += 1;
        let mut plan = PassPlan::choose(
            &mut self.planner,
            &self.cudnn,
            &self.list,
            self.network.format,
            bucket,
            self.generation,
            self.workspace.bytes(),
        )?;
        plan.settled = self.untimed(&plan).is_empty();
        Ok(plan)
    }

    /// The problems of a plan whose engines are still to be timed.
    fn untimed(&self, plan: &PassPlan) -> Vec<ConvolutionProblem> {
        // The addresses don't matter.
        let problems = plan.problems(&self.list, self.network.format, &self.buffers, 0);
        let problems = problems.into_iter().map(|(problem, _)| problem);
        let known = |problem: &ConvolutionProblem| {
            self.planner.is_tuned(problem) || self.untunable.contains(problem)
        };
        problems.filter(|problem| !known(problem)).collect()
    }

    /// Times engines for some convolutions of batches of `bucket` images, in the memory of a slot
    /// whose pass is finished. If a faster one is found, later passes use it. No error here is one
    /// of the pass: it has its results.
    fn tune(&mut self, slot: usize, bucket: usize) {
        let Some(plan) = self.plans.get(&bucket).filter(|plan| !plan.settled) else { return };
        // Another pass on the device would be timed with it. If it fails, its own caller is told.
        if self.slots.iter().any(|slot| slot.stream().synchronize().is_err()) {
            return;
        }
        let (base, workspace) = self.slots[slot].addresses();
        let problems = plan.problems(&self.list, self.network.format, &self.buffers, base);
        let started = Instant::now();
        let (mut timed, mut changed) = (0, false);
        for (problem, operands) in problems {
            if self.planner.is_tuned(&problem) || self.untunable.contains(&problem) {
                continue;
            }
            if timed > 0 && started.elapsed() >= TUNING_TIME {
                break;
            }
            timed += 1;
            let tuned = self.planner.tune(
                &self.cudnn,
                self.device.context(),
                self.slots[slot].stream(),
                &problem,
                &operands,
                workspace,
                self.workspace.bytes(),
            );
            match tuned {
                Ok(tuned) => changed |= tuned.changed,
                Err(error) => {
                    tracing::debug!(%error, "a convolution's engines cannot be timed");
                    self.untunable.insert(problem);
                    if error.is_lost() {
                        return;
                    }
                }
            }
        }
        if changed {
            self.replace_plan(bucket);
        } else {
            let settled = self.plans.get(&bucket).map(|plan| self.untimed(plan).is_empty());
            if let (Some(plan), Some(settled)) = (self.plans.get_mut(&bucket), settled) {
                plan.settled = settled;
            }
        }
    }

    /// Chooses again for a batch size, now that faster engines are known.
    fn replace_plan(&mut self, bucket: usize) {
        match self.new_plan(bucket) {
            Ok(plan) => {
                self.plans.insert(bucket, plan);
            }
            // The plan before still works.
            Err(error) => tracing::debug!(%error, "faster engines are not used yet"),
        }
    }
}

/// The batch size that `images` images are padded to: a power of two, or the largest.
fn bucket(images: usize, max_images: usize) -> usize {
    images.next_power_of_two().min(max_images)
}

/// Bytes that an engine of cuDNN may compute in, for batches of up to `max_images` images.
fn workspace_bytes(max_images: usize) -> usize {
    max_images.saturating_mul(WORKSPACE_OF_AN_IMAGE).clamp(LEAST_WORKSPACE, MOST_WORKSPACE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_padded_to_powers_of_two_and_the_largest() {
        let buckets = |max| (1..=max).map(|images| bucket(images, max)).collect::<Vec<_>>();
        assert_eq!(buckets(1), [1]);
        assert_eq!(buckets(6), [1, 2, 4, 4, 6, 6]);
        assert_eq!(buckets(8), [1, 2, 4, 4, 8, 8, 8, 8]);
    }

    #[test]
    fn workspaces_grow_with_batches_within_limits() {
        assert_eq!(workspace_bytes(1), LEAST_WORKSPACE);
        assert_eq!(workspace_bytes(32), 128 << 20);
        assert_eq!(workspace_bytes(1024), MOST_WORKSPACE);
    }

    #[test]
    fn a_network_moves_between_threads() {
        fn moves<T: Send>() {}
        moves::<CudaNetwork>();
        moves::<Ticket>();
    }
}
