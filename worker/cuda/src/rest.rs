//! The rest of a network after a target layer: from values that replace the layer's output to
//! logits. Ablation-CAM runs it once for each channel of the layer.
//!
//! Owns what such passes keep between calls, and how rows are divided into batches. What the logits
//! are for is not known here. Upstream: [`layer_cut`](crate::layer_cut). Downstream:
//! [`target_layer`](crate::target_layer).

use std::collections::HashMap;

use crate::error::CudaError;
use crate::kernels::HeadArguments;
use crate::layer_cut::{
    CutEngine, CutLayer, GrowingMemory, NormaliseStep, PartialPass, PassToLayer, SharedPlaces,
};
use crate::memory::DevicePointer;
use crate::operations::BufferId;
use crate::pass::LaunchQueue;
use crate::results::{PassInput, ResultLayout};

/// Passes from one target layer to the logits, with their memory.
pub(crate) struct RestPass {
    // What is bound is dropped before the memory.
    bound: HashMap<usize, BoundRest>,
    layer: CutLayer,
    /// Where the values of `bound` lie.
    places: Option<SharedPlaces>,
    head: HeadMemory,
    uploaded: GrowingMemory,
    /// The layer's output for one image, and the value that is carried past it.
    one_image: [GrowingMemory; 2],
    /// Indices that are all zero.
    zeros: GrowingMemory,
}

/// The rest of the network for one batch size.
struct BoundRest {
    /// From the input of the layer's block to the carried value, if they are not the same.
    shortcut: Option<PartialPass>,
    normalise: Option<NormaliseStep>,
    operations: PartialPass,
}

/// What a head reads and writes besides features and weights. Only the logits are of use here.
struct HeadMemory {
    labels: GrowingMemory,
    logits: GrowingMemory,
    others: GrowingMemory,
}

impl RestPass {
    pub(crate) fn new(layer: CutLayer) -> Self {
        Self {
            bound: HashMap::new(),
            layer,
            places: None,
            head: HeadMemory {
                labels: GrowingMemory::new("labels"),
                logits: GrowingMemory::new("logits"),
                others: GrowingMemory::new("a head's results"),
            },
            uploaded: GrowingMemory::new("values of a target layer"),
            one_image: [(); 2].map(|()| GrowingMemory::new("the output of a target layer")),
            zeros: GrowingMemory::new("indices of images"),
        }
    }

    /// The layer that it starts from.
    pub(crate) fn layer(&self) -> &CutLayer {
        &self.layer
    }

    /// Bytes of its memory on the device.
    pub(crate) fn bytes(&self) -> usize {
        let HeadMemory { labels, logits, others } = &self.head;
        let memory = [labels, logits, others, &self.uploaded, &self.zeros];
        memory.into_iter().chain(&self.one_image).map(GrowingMemory::bytes).sum()
    }

    /// Logits `[R, K]` of `features`, f32 `[R, C, H, W]`, in the place of the layer's output.
    /// `block_input`, f32 `[R, C, H, W]`, is the input of the layer's block; it is needed if the
    /// layer is within a block.
    ///
    /// # Errors
    /// If the values are not whole rows, if memory is short, or the device fails.
    pub(crate) fn logits_of(
        &mut self,
        engine: &mut CutEngine<'_>,
        features: &[f32],
        block_input: Option<&[f32]>,
    ) -> Result<Vec<f32>, CudaError> {
        let place = self.layer.place;
        let values = engine.list.shape(place.output).values();
        let rows = features.len() / values;
        let input_values = place.block_input.map_or(0, |buffer| engine.list.shape(buffer).values());
        let given = block_input.map_or(0, <[f32]>::len);
        let input_fits = place.block_input.is_none() || given == rows * input_values;
        if !features.len().is_multiple_of(values) || !input_fits {
            return Err(CudaError::Failed {
                operation: "taking values of a target layer".to_owned(),
                reason: format!(
                    "{} values are not rows of {values}, or {given} values of its block's input \
                     not as many rows of {input_values}",
                    features.len()
                ),
            });
        }
        let mut logits = Vec::with_capacity(rows * engine.network.head.classes);
        for first in (0..rows).step_by(engine.max_images) {
            let count = engine.max_images.min(rows - first);
            let bucket = engine.bucket(count);
            let places = self.prepare(engine, bucket)?;
            // First, because the features may lie where the block's input was.
            if let (Some(buffer), Some(input)) = (place.block_input, block_input) {
                let input = &input[first * input_values..][..count * input_values];
                self.import(engine, input, buffer, count, &places)?;
                if let Some(shortcut) = &self.bound[&bucket].shortcut {
                    shortcut.run(engine.queue)?;
                }
            }
            let features = &features[first * values..][..count * values];
            self.import(engine, features, place.output, count, &places)?;
            logits.extend(self.run(engine, bucket, count, &places)?);
        }
        Ok(logits)
    }

    /// Logits `[C, K]` of one image, each with one channel of the layer's output set to zero.
    ///
    /// # Errors
    /// If memory is short, or the device fails.
    pub(crate) fn logits_without_channels(
        &mut self,
        engine: &mut CutEngine<'_>,
        image: PassInput<'_>,
    ) -> Result<Vec<f32>, CudaError> {
        let place = self.layer.place;
        let shape = engine.list.shape(place.output);
        let LaunchQueue { kernels, stream, format, .. } = engine.queue;
        let most = engine.bucket(shape.channels.min(engine.max_images));
        let places = self.prepare(engine, most)?;
        let zeros = self.zeros.upload(stream, &vec![0i32; most])?;
        engine.take_in(image, 1, &places, &mut self.uploaded)?;
        PassToLayer::bind(engine, &self.layer, 1, &places)?.run(engine.queue)?;
        let [output, carried] = &mut self.one_image;
        // A copy, since the copies without a channel are made where the output lies.
        let keep = |memory: &mut GrowingMemory, buffer: BufferId| {
            let values = engine.list.shape(buffer).values();
            let to = memory.with_room(stream, values * format.bytes())?.pointer();
            kernels.gather_rows(stream, format, places.at(buffer), zeros, to, 1, values)?;
            Ok::<DevicePointer, CudaError>(to)
        };
        let output = keep(output, place.output)?;
        let carried = match place.carried {
            Some(buffer) => Some((buffer, keep(carried, buffer)?)),
            None => None,
        };
        let mut logits = Vec::with_capacity(shape.channels * engine.network.head.classes);
        for first in (0..shape.channels).step_by(engine.max_images) {
            let count = engine.max_images.min(shape.channels - first);
            let bucket = engine.bucket(count);
            // The memory is large enough already, so the places stay.
            let places = self.prepare(engine, bucket)?;
            if let Some((buffer, from)) = carried {
                let values = engine.list.shape(buffer).values();
                let to = places.at(buffer);
                kernels.gather_rows(stream, format, from, zeros, to, count, values)?;
            }
            let (to, positions) = (places.at(place.output), shape.positions());
            kernels.ablate(stream, format, output, first, count, to, positions, shape.channels)?;
            logits.extend(self.run(engine, bucket, count, &places)?);
        }
        Ok(logits)
    }

    /// Binds the rest of the network for a batch of `bucket` rows, if it is not bound yet.
    fn prepare(
        &mut self,
        engine: &mut CutEngine<'_>,
        bucket: usize,
    ) -> Result<SharedPlaces, CudaError> {
        let places = engine.shared_places(bucket)?;
        if !self.places.as_ref().is_some_and(|before| before.is_same(&places)) {
            self.bound.clear();
            self.places = Some(places.clone());
        }
        if self.bound.contains_key(&bucket) {
            return Ok(places);
        }
        let place = &self.layer.place;
        let at = |buffer| places.at(buffer);
        let shortcut = match place.shortcut {
            Some(operation) => {
                Some(PartialPass::bind(engine, operation..operation + 1, bucket, at)?)
            }
            None => None,
        };
        let normalise = NormaliseStep::new(engine.list, &self.layer, bucket, at);
        let after = place.after..engine.list.operations.len();
        let operations = PartialPass::bind(engine, after, bucket, at)?;
        self.bound.insert(bucket, BoundRest { shortcut, normalise, operations });
        Ok(places)
    }

    /// Uploads rows of a value, f32 `[R, C, H, W]`, to its place.
    fn import(
        &mut self,
        engine: &CutEngine<'_>,
        values: &[f32],
        buffer: BufferId,
        rows: usize,
        places: &SharedPlaces,
    ) -> Result<(), CudaError> {
        let LaunchQueue { kernels, stream, format, .. } = engine.queue;
        let shape = engine.list.shape(buffer);
        let from = self.uploaded.upload(stream, values)?;
        let (to, positions) = (places.at(buffer), shape.positions());
        kernels.import(stream, format, from, to, rows, positions, shape.channels)
    }

    /// Runs the rest of the network, whose inputs are in their places, as a batch of `bucket`.
    /// Returns the logits of the first `rows` rows, `[R, K]`.
    fn run(
        &mut self,
        engine: &CutEngine<'_>,
        bucket: usize,
        rows: usize,
        places: &SharedPlaces,
    ) -> Result<Vec<f32>, CudaError> {
        let bound = &self.bound[&bucket];
        if let Some(normalise) = &bound.normalise {
            normalise.run(engine.queue)?;
        }
        bound.operations.run(engine.queue)?;
        self.head.logits(engine, places.at(engine.list.features()), bucket, rows)
    }
}

impl HeadMemory {
    /// Runs the head on a batch of `bucket`, and returns the logits of the first `rows` rows.
    fn logits(
        &mut self,
        engine: &CutEngine<'_>,
        features: DevicePointer,
        bucket: usize,
        rows: usize,
    ) -> Result<Vec<f32>, CudaError> {
        let LaunchQueue { kernels, stream, format, .. } = engine.queue;
        let head = &engine.network.head;
        let layout = ResultLayout::new(bucket, head);
        // No row has a label, so no map is made for one.
        let labels = self.labels.upload(stream, &vec![-1i32; bucket])?;
        let logit_bytes = bucket * head.classes * size_of::<f32>();
        let logits = self.logits.with_room(stream, logit_bytes)?;
        let others = self.others.with_room(stream, layout.bytes)?.pointer();
        let at = |offset: usize| others + offset as DevicePointer;
        let arguments = HeadArguments {
            weight: head.weight,
            bias: head.bias,
            cam_weight: head.cam_weight,
            labels,
            pooled: at(layout.pooled),
            logits: logits.pointer(),
            maps: at(layout.maps),
            tops: at(layout.tops),
            flatten: head.flatten,
            images: bucket,
            positions: head.positions,
            channels: head.channels,
            classes: head.classes,
        };
        kernels.head(stream, format, features, arguments)?;
        logits.read_f32(stream, rows * head.classes)
    }
}
