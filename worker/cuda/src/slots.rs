//! One of the places where a batch can be under way: a stream with everything that a pass reads and
//! writes but the weights, so that one batch uploads and runs while another one's results are read.
//!
//! Owns a pass from its input on the host to its results on the host. It becomes a graph when it
//! runs for the second time (the first run loads cuDNN's kernels, which a capture does not allow)
//! and its plans are final. Which plans it runs, and when they are timed, is
//! [`engine`](crate::engine)'s to decide. Upstream: [`pass`](crate::pass) and
//! [`buffers`](crate::buffers).

use std::collections::HashMap;
use std::sync::Arc;

use camshaft_kernels::{STAGES, StageOutput};
use cudarc::driver::sys::CUevent_flags;
use cudarc::driver::{CudaEvent, CudaStream};

use crate::buffers::BufferPlan;
use crate::cudnn::Cudnn;
use crate::device::CudaDevice;
use crate::error::CudaError;
use crate::kernels::{HeadArguments, Kernels};
use crate::memory::{DeviceMemory, DevicePointer, PinnedMemory, set_to_zero};
use crate::network::DeviceNetwork;
use crate::operations::{BufferShape, OperationList};
use crate::pass::{BoundPass, LaunchQueue, PassPlan};
use crate::pass_graph::PassGraph;
use crate::results::{PassInput, PassOutput, ResultLayout};
use crate::weight_layout::IMAGE_CHANNELS;

/// What all passes of a network share.
#[derive(Clone, Copy)]
pub(crate) struct PassParts<'a> {
    pub(crate) cudnn: &'a Cudnn,
    pub(crate) kernels: &'a Kernels,
    pub(crate) network: &'a DeviceNetwork,
    pub(crate) list: &'a OperationList,
    pub(crate) buffers: &'a BufferPlan,
}

/// A batch, checked.
pub(crate) struct Batch<'a> {
    pub(crate) input: PassInput<'a>,
    pub(crate) images: usize,
    /// One for each image of the plan's batch, -1 for none.
    pub(crate) labels: Vec<i32>,
    pub(crate) stages: [bool; STAGES],
}

/// The sizes that a slot is made for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotSizes {
    pub(crate) most_images: usize,
    pub(crate) workspace_bytes: usize,
}

/// A place for a batch that is under way.
pub(crate) struct Slot {
    // Dropped before the memory that they use.
    passes: HashMap<usize, PreparedPass>,
    under_way: Option<UnderWay>,
    stream: Arc<CudaStream>,
    /// Recorded when the results of a pass are on the host.
    done: CudaEvent,
    activations: DeviceMemory,
    workspace: DeviceMemory,
    labels: DeviceMemory,
    results: DeviceMemory,
    images_on_host: PinnedMemory,
    labels_on_host: PinnedMemory,
    results_on_host: PinnedMemory,
    most_images: usize,
}

/// A pass of one batch size at this slot's addresses.
struct PreparedPass {
    // Dropped before the plans whose kernels it launches.
    graph: PassGraph,
    bound: BoundPass,
    /// That of the plan that it was made of.
    generation: u64,
    ran: bool,
}

/// A pass that was begun and not yet finished.
struct UnderWay {
    /// The caller has the other reference.
    ticket: Arc<()>,
    images: usize,
    /// Images of the plan.
    bucket: usize,
    exports: [Option<Export>; STAGES],
}

/// A stage's output, f32, `[N, C, H, W]`.
struct Export {
    memory: DeviceMemory,
    shape: BufferShape,
}

impl Slot {
    /// Allocates a slot.
    ///
    /// # Errors
    /// If the device or the host has too little memory, or the device fails.
    pub(crate) fn new(
        device: &CudaDevice,
        network: &DeviceNetwork,
        buffers: &BufferPlan,
        SlotSizes { most_images, workspace_bytes }: SlotSizes,
    ) -> Result<Self, CudaError> {
        let (context, stream) = (device.context(), device.new_stream()?);
        // A thread that waits for it sleeps.
        let done = context
            .new_event(Some(CUevent_flags::CU_EVENT_BLOCKING_SYNC))
            .map_err(|error| CudaError::of_driver(error, "making an event"))?;
        let batch = format!("a batch of {most_images} images");
        let result_bytes = most_result_bytes(network, most_images);
        let label_bytes = most_images * size_of::<i32>();
        let image_bytes = most_images * IMAGE_CHANNELS * network.height * network.width;
        let slot = Self {
            passes: HashMap::new(),
            under_way: None,
            done,
            activations: DeviceMemory::new(&stream, buffers.bytes(), &batch)?,
            workspace: DeviceMemory::new(&stream, workspace_bytes, "cuDNN's workspace")?,
            labels: DeviceMemory::new(&stream, label_bytes, &batch)?,
            results: DeviceMemory::new(&stream, result_bytes, &batch)?,
            images_on_host: PinnedMemory::new(context, image_bytes, &batch)?,
            labels_on_host: PinnedMemory::new(context, label_bytes, &batch)?,
            results_on_host: PinnedMemory::new(context, result_bytes, &batch)?,
            most_images,
            stream,
        };
        // Some drivers notice only now that there is too little memory.
        slot.stream.synchronize().map_err(|error| CudaError::of_driver(error, &batch))?;
        Ok(slot)
    }

    /// Bytes of its memory on the device.
    pub(crate) fn bytes(&self) -> usize {
        let memory = [&self.activations, &self.workspace, &self.labels, &self.results];
        memory.into_iter().map(DeviceMemory::bytes).sum()
    }

    pub(crate) fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// Where its activations and its workspace for cuDNN start. Nothing may be under way while
    /// something else uses them.
    pub(crate) fn addresses(&self) -> (DevicePointer, DevicePointer) {
        (self.activations.pointer(), self.workspace.pointer())
    }

    /// True if a pass can begin. A pass whose caller has dropped its ticket is waited for first.
    pub(crate) fn is_free(&mut self) -> bool {
        if let Some(under_way) = &self.under_way
            && Arc::strong_count(&under_way.ticket) == 1
        {
            if let Err(error) = self.stream.synchronize() {
                tracing::debug!(%error, "a pass that nobody waits for failed");
            }
            self.under_way = None;
        }
        self.under_way.is_none()
    }

    /// Begins a pass: copies the batch, and enqueues all that is to be done with it. Returns the
    /// caller's reference to the pass.
    ///
    /// # Errors
    /// If memory for the stages' outputs is short, or the device fails. The slot can be used again
    /// then, unless the device is lost.
    pub(crate) fn begin(
        &mut self,
        parts: PassParts<'_>,
        plan: &PassPlan,
        batch: &Batch<'_>,
    ) -> Result<Arc<()>, CudaError> {
        match self.enqueue(parts, plan, batch) {
            Ok(exports) => {
                let ticket = Arc::new(());
                self.under_way = Some(UnderWay {
                    ticket: Arc::clone(&ticket),
                    images: batch.images,
                    bucket: plan.images,
                    exports,
                });
                Ok(ticket)
            }
            Err(error) => Err(self.recover(plan.images, error)),
        }
    }

    /// Waits for the pass of `ticket`, and takes its results. Also returns the batch size that it
    /// was planned for.
    ///
    /// # Errors
    /// If the device failed in the pass, or the ticket is not this slot's.
    pub(crate) fn finish(
        &mut self,
        parts: PassParts<'_>,
        ticket: &Arc<()>,
    ) -> Result<(PassOutput, usize), CudaError> {
        let Some(under_way) = self.under_way.take_if(|pass| Arc::ptr_eq(&pass.ticket, ticket))
        else {
            return Err(CudaError::Failed {
                operation: "finishing a pass".to_owned(),
                reason: "it was begun by another engine".to_owned(),
            });
        };
        let bucket = under_way.bucket;
        match self.take_results(parts, &under_way) {
            Ok(output) => Ok((output, bucket)),
            Err(error) => Err(self.recover(bucket, error)),
        }
    }

    fn take_results(
        &self,
        parts: PassParts<'_>,
        UnderWay { images, bucket, exports, .. }: &UnderWay,
    ) -> Result<PassOutput, CudaError> {
        let head = &parts.network.head;
        self.done.synchronize().map_err(|error| CudaError::of_driver(error, "a pass"))?;
        // SAFETY: the download is done.
        let bytes = unsafe { self.results_on_host.content() };
        let mut output = ResultLayout::new(*bucket, head).read(bytes, *images, head);
        for (stage, export) in output.stages.iter_mut().zip(exports) {
            if let Some(Export { memory, shape }) = export {
                let values = memory.read_f32(&self.stream, images * shape.values())?;
                let shape = [*images, shape.channels, shape.height, shape.width];
                *stage = Some(StageOutput { values, shape });
            }
        }
        Ok(output)
    }

    /// Makes the slot usable after an error in a pass planned for `bucket` images. Returns the
    /// error, or that the device is lost if it is.
    fn recover(&mut self, bucket: usize, error: CudaError) -> CudaError {
        self.passes.remove(&bucket);
        // What was enqueued before the error may still be using the memory.
        match self.stream.synchronize() {
            Ok(()) => error,
            Err(later) => match CudaError::of_driver(later, "a pass") {
                lost @ CudaError::Lost { .. } => lost,
                _ => error,
            },
        }
    }

    fn enqueue(
        &mut self,
        parts: PassParts<'_>,
        plan: &PassPlan,
        batch: &Batch<'_>,
    ) -> Result<[Option<Export>; STAGES], CudaError> {
        self.prepare(parts, plan)?;
        let exports = self.room_for_stages(parts, batch)?;
        self.take_in(parts, plan, batch)?;
        if exports.iter().any(Option::is_some) {
            self.run_with_exports(parts, plan, batch.images, &exports)?;
        } else {
            self.run(parts, plan)?;
        }
        let bytes = ResultLayout::new(plan.images, &parts.network.head).bytes;
        // SAFETY: the results have these bytes, and the slot keeps both memories until the pass is
        // finished.
        unsafe { self.results_on_host.download(&self.stream, bytes, self.results.pointer()) }?;
        self.done.record(&self.stream).map_err(|error| CudaError::of_driver(error, "a pass"))?;
        Ok(exports)
    }

    /// Binds the plan to this slot's addresses, if it is not bound yet.
    fn prepare(&mut self, parts: PassParts<'_>, plan: &PassPlan) -> Result<(), CudaError> {
        let prepared = self.passes.get(&plan.images);
        if prepared.is_some_and(|pass| pass.generation == plan.generation) {
            return Ok(());
        }
        let PassParts { network, list, buffers, .. } = parts;
        let (base, workspace) = self.addresses();
        let bound = BoundPass::new(plan, list, network.format, buffers, base, workspace)?;
        let generation = plan.generation;
        let prepared = PreparedPass { generation, bound, ran: false, graph: PassGraph::NotYet };
        self.passes.insert(plan.images, prepared);
        Ok(())
    }

    /// Memory for the outputs of the stages that are wanted. A pass without any allocates nothing.
    fn room_for_stages(
        &self,
        PassParts { list, .. }: PassParts<'_>,
        batch: &Batch<'_>,
    ) -> Result<[Option<Export>; STAGES], CudaError> {
        let mut exports = [const { None }; STAGES];
        for (stage, export) in exports.iter_mut().enumerate() {
            if batch.stages[stage] {
                let shape = list.shape(list.stage_output(stage));
                let bytes = batch.images * shape.values() * size_of::<f32>();
                let memory = DeviceMemory::new(&self.stream, bytes, "the output of a stage")?;
                *export = Some(Export { memory, shape });
            }
        }
        Ok(exports)
    }

    /// Uploads the batch, and makes the network's input of it. What the plan's batch has beyond is
    /// zero, so that no result depends on an earlier batch.
    fn take_in(
        &mut self,
        parts: PassParts<'_>,
        plan: &PassPlan,
        batch: &Batch<'_>,
    ) -> Result<(), CudaError> {
        let PassParts { kernels, network, list, buffers, .. } = parts;
        let &DeviceNetwork { format, layout, height, width, table, sources, .. } = network;
        self.write_on_host(network, batch)?;
        let base = self.activations.pointer();
        let images_at = base + buffers.images_offset() as DevicePointer;
        let input = base + buffers.offset(list.input) as DevicePointer;
        let image_bytes = list.shape(list.input).values() * format.bytes();
        let (filled, all) = (batch.images * image_bytes, plan.images * image_bytes);
        let label_bytes = size_of_val(batch.labels.as_slice());
        let stream = &self.stream;
        // SAFETY: both targets have room for the largest batch, and the sources stay as they are
        // until the pass is finished.
        unsafe {
            self.images_on_host.upload(stream, batch.input.bytes(), images_at)?;
            self.labels_on_host.upload(stream, label_bytes, self.labels.pointer())?;
        }
        // SAFETY: the input has room for the largest batch.
        unsafe { set_to_zero(stream, input + filled as DevicePointer, all - filled) }?;
        let images = batch.images;
        match batch.input {
            PassInput::Pixels(_) => kernels.normalise_pixels(
                stream, format, images_at, table, sources, input, layout, images, height, width,
            ),
            PassInput::Scaled(_) => {
                kernels.scale_in(stream, format, images_at, input, layout, images, height, width)
            }
        }
    }

    /// Copies the batch to where the device reads it from.
    fn write_on_host(
        &mut self,
        network: &DeviceNetwork,
        batch: &Batch<'_>,
    ) -> Result<(), CudaError> {
        if self.images_on_host.bytes() < batch.input.bytes() {
            // Once: the first batch of scaled values needs more than pixels do.
            let values = self.most_images * IMAGE_CHANNELS * network.height * network.width;
            let (context, bytes) = (self.stream.context(), values * size_of::<f32>());
            self.images_on_host = PinnedMemory::new(context, bytes, "a batch of scaled images")?;
        }
        match batch.input {
            // SAFETY: nothing is under way in this slot, so the device does not read it.
            PassInput::Pixels(pixels) => unsafe { self.images_on_host.fill(pixels) },
            PassInput::Scaled(values) => {
                // SAFETY: as above.
                let images = unsafe { self.images_on_host.content_mut() };
                for (target, value) in images.as_chunks_mut().0.iter_mut().zip(values) {
                    *target = value.to_ne_bytes();
                }
            }
        }
        // SAFETY: as above.
        let labels = unsafe { self.labels_on_host.content_mut() };
        for (target, label) in labels.as_chunks_mut().0.iter_mut().zip(&batch.labels) {
            *target = label.to_ne_bytes();
        }
        Ok(())
    }

    /// Enqueues the pass, as a graph if it can be one.
    fn run(&mut self, parts: PassParts<'_>, plan: &PassPlan) -> Result<(), CudaError> {
        let head = self.head_arguments(parts, plan);
        let prepared = self.passes.get_mut(&plan.images).expect("it was prepared");
        let queue = queue(parts, &self.stream);
        let features = self.activations.pointer()
            + parts.buffers.offset(parts.list.features()) as DevicePointer;
        let bound = &prepared.bound;
        let enqueue = || {
            bound.run(queue, |_| Ok(()))?;
            queue.kernels.head(queue.stream, queue.format, features, head)
        };
        if prepared.ran && plan.settled && matches!(prepared.graph, PassGraph::NotYet) {
            // Before the capture, which may not take whatever cuDNN does to change its stream.
            queue.cudnn.use_stream(queue.stream)?;
            prepared.graph = PassGraph::capture(&self.stream, enqueue);
        }
        if !prepared.graph.launch()? {
            enqueue()?;
        }
        prepared.ran = true;
        Ok(())
    }

    /// Enqueues the pass, and copies of the wanted stages' outputs, each before later operations
    /// write over it.
    fn run_with_exports(
        &mut self,
        parts: PassParts<'_>,
        plan: &PassPlan,
        images: usize,
        exports: &[Option<Export>; STAGES],
    ) -> Result<(), CudaError> {
        let head = self.head_arguments(parts, plan);
        let prepared = self.passes.get_mut(&plan.images).expect("it was prepared");
        let PassParts { list, buffers, .. } = parts;
        let queue = queue(parts, &self.stream);
        let base = self.activations.pointer();
        let at = |buffer| base + buffers.offset(buffer) as DevicePointer;
        prepared.bound.run(queue, |operation| {
            let stage = (0..STAGES)
                .find(|&stage| list.stage_output(stage) == list.operations[operation].output());
            let Some((stage, Export { memory, shape })) =
                stage.and_then(|stage| Some((stage, exports[stage].as_ref()?)))
            else {
                return Ok(());
            };
            let from = at(list.stage_output(stage));
            let (positions, channels) = (shape.positions(), shape.channels);
            queue.kernels.export(
                queue.stream,
                queue.format,
                from,
                memory.pointer(),
                images,
                positions,
                channels,
            )
        })?;
        queue.kernels.head(queue.stream, queue.format, at(list.features()), head)?;
        prepared.ran = true;
        Ok(())
    }

    /// What the head reads and writes, besides features.
    fn head_arguments(
        &self,
        PassParts { network, .. }: PassParts<'_>,
        plan: &PassPlan,
    ) -> HeadArguments {
        let head = &network.head;
        let layout = ResultLayout::new(plan.images, head);
        let at = |offset: usize| self.results.pointer() + offset as DevicePointer;
        HeadArguments {
            weight: head.weight,
            bias: head.bias,
            cam_weight: head.cam_weight,
            labels: self.labels.pointer(),
            pooled: at(layout.pooled),
            logits: at(layout.logits),
            maps: at(layout.maps),
            tops: at(layout.tops),
            flatten: head.flatten,
            images: plan.images,
            positions: head.positions,
            channels: head.channels,
            classes: head.classes,
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // The host's memory is freed at once, so the device must not be copying any more.
        self.stream.context().record_err(self.stream.synchronize());
    }
}

/// The results of a batch are laid out for its own size. The largest batch has the most bytes.
fn most_result_bytes(network: &DeviceNetwork, most_images: usize) -> usize {
    ResultLayout::new(most_images, &network.head).bytes
}

fn queue<'a>(parts: PassParts<'a>, stream: &'a Arc<CudaStream>) -> LaunchQueue<'a> {
    let PassParts { cudnn, kernels, network, .. } = parts;
    LaunchQueue { cudnn, kernels, stream, format: network.format }
}
