//! The forward pass of some images of a batch through the network: which convolution reads and
//! writes what, and in which order. Does not know how a convolution is computed, nor how a batch
//! is divided.

use std::fmt;

use crate::buffers::{PassBuffers, SINGLE_IMAGE_STAGES, StageBuffers};
use crate::convolution::{self, ConvolutionStep, LayoutTables};
use crate::dispatch;
use crate::input::BatchInput;
use crate::kernel::ValueFormat;
use crate::network::PackedNetwork;
use crate::network_weights::STAGES;
use crate::pooling;
use crate::profile::StepTimer;
use crate::statistics::{self, StatisticsCollector};
use crate::team::Team;
use crate::winograd::WinogradScratch;

/// Neighbouring images of a batch, and where their outputs go.
pub(crate) struct BatchSlice<'a> {
    pub(crate) input: BatchInput<'a>,
    /// `[N, C, H, W]` of the stages that are wanted.
    pub(crate) stages: [Option<&'a mut [f32]>; STAGES],
    /// `[N, C]`.
    pub(crate) pooled: &'a mut [f32],
}

/// What is noted during a pass. Most passes note nothing.
#[derive(Debug, Default)]
pub(crate) struct PassWatch {
    pub(crate) timer: StepTimer,
    pub(crate) collector: Option<StatisticsCollector>,
}

/// Computes a slice on a team of `members` threads.
///
/// # Panics
/// If the slice has no whole number of images of the buffers' size.
///
/// # Safety
/// The buffers were made for this network.
pub(crate) unsafe fn run(
    network: &PackedNetwork,
    buffers: &mut PassBuffers,
    slice: &mut BatchSlice<'_>,
    members: usize,
    watch: &mut PassWatch,
) {
    let image_values = 3 * buffers.height * buffers.width;
    assert!(slice.input.len().is_multiple_of(image_values), "images of the buffers' size");
    let team = Team::of(members);
    buffers.grow_scratch(network, team.members());
    ForwardPass { network, team, watch }.run(buffers, slice);
}

/// A network while it computes a slice in buffers that were made for it, as [`run`]'s caller promises.
struct ForwardPass<'a> {
    network: &'a PackedNetwork,
    team: Team,
    watch: &'a mut PassWatch,
}

/// Some images of a stage's input, and where the stage's output goes.
#[derive(Clone, Copy)]
struct StageImages {
    /// The first images of the input, this many.
    images: usize,
    /// The first of their places in the next stage's input.
    next_slot: usize,
}

impl ForwardPass<'_> {
    fn run(&mut self, buffers: &mut PassBuffers, slice: &mut BatchSlice<'_>) {
        let image_values = 3 * buffers.height * buffers.width;
        let images = slice.input.len() / image_values;
        for first in (0..images).step_by(buffers.images) {
            let count = (images - first).min(buffers.images);
            for slot in 0..count {
                let image = slice.input.image(first + slot, image_values);
                self.stem(buffers, image);
                for stage in 0..SINGLE_IMAGE_STAGES {
                    let next_slot = if stage + 1 < SINGLE_IMAGE_STAGES { 0 } else { slot };
                    self.stage(buffers, stage, StageImages { images: 1, next_slot });
                    self.copy_out(buffers, stage, next_slot, first + slot, slice);
                }
            }
            for stage in SINGLE_IMAGE_STAGES..STAGES {
                self.stage(buffers, stage, StageImages { images: count, next_slot: 0 });
                for slot in 0..count {
                    self.copy_out(buffers, stage, slot, first + slot, slice);
                }
            }
            let features = buffers.features();
            let pooled = slice.pooled[first * features.channels..].chunks_mut(features.channels);
            self.watch.timer.time(format_args!("avgpool"), 0.0, || {
                for (slot, pooled) in pooled.take(count).enumerate() {
                    pooling::average(features, slot, pooled);
                }
            });
        }
    }

    /// From an image to the first stage's input.
    fn stem(&mut self, buffers: &mut PassBuffers, image: BatchInput<'_>) {
        let PackedNetwork { kernel, stem: weights, .. } = self.network;
        let (kernel, team) = (*kernel, self.team);
        let PassBuffers { stem, stages, .. } = buffers;
        self.watch.timer.time(format_args!("image in"), 0.0, || stem.copy_in(kernel, image));
        let flop = stem.output.layout.pixels() as f64 * weights.flop();
        self.watch.timer.time(format_args!("conv1"), flop, || {
            // SAFETY: the machine has the kernel, and the weights are packed for it.
            unsafe { stem.run(kernel, weights, team) };
        });
        let (from, to) = (&stem.output, &stages[0].input);
        self.watch.timer.time(format_args!("maxpool"), 0.0, || {
            // SAFETY: the machine has the kernel, and parts write different rows.
            team.run(&|part| unsafe { pooling::max_pool(kernel, from, to, 0, part) });
        });
        if let Some(collector) = &mut self.watch.collector {
            collector.note(statistics::STEM.to_owned(), to, 0);
        }
    }

    /// Copies image `slot` of a stage's output to image `image` of the slice, if it is wanted.
    fn copy_out(
        &mut self,
        buffers: &PassBuffers,
        stage: usize,
        slot: usize,
        image: usize,
        slice: &mut BatchSlice<'_>,
    ) {
        let Some(values) = &mut slice.stages[stage] else { return };
        let output = match buffers.stages.get(stage + 1) {
            Some(next) => &next.input,
            None => buffers.features(),
        };
        let size = output.channels * output.layout.pixels();
        let values = &mut values[image * size..][..size];
        let scales = match (&self.network.scales, output.format) {
            (Some(scales), ValueFormat::U8) => scales.stages[stage].outputs.last(),
            _ => None,
        };
        let scales = scales.map(|scales| scales.scale.as_slice());
        self.watch.timer.time(format_args!("read out"), 0.0, || {
            pooling::copy_out(output, slot, scales, values);
        });
    }

    /// Runs a stage.
    fn stage<'b>(&mut self, buffers: &'b PassBuffers, index: usize, images: StageImages) {
        let network = self.network;
        let stage = &network.stages[index];
        let here = &buffers.stages[index];
        let next = buffers.stages.get(index + 1).map(|next| &next.input);
        let StageBuffers { output, input_tables, output_tables, .. } = here;
        let StageImages { images, next_slot } = images;
        let scratch = &buffers.scratch;
        let layer = index + 1;
        let step =
            |weights, input, input_tables, tables: &'b LayoutTables, output| ConvolutionStep {
                weights,
                images,
                input,
                input_tables,
                tables,
                residual: None,
                relu: true,
                output,
                pixel_map: &tables.pixel_map,
                pixel_offset: 0,
            };
        for (number, block) in stage.blocks.iter().enumerate() {
            let first = number == 0;
            let strided = first && stage.stride() == 2;
            let block_input = if first { &here.input } else { output };
            let block_tables = if first { input_tables } else { output_tables };
            if let Some(shortcut) = &block.shortcut {
                let target = here.shortcut.as_ref().unwrap_or(output);
                let step = step(shortcut, block_input, block_tables, output_tables, target);
                let name = format_args!("layer{layer}.{number}.downsample");
                self.convolve(name, ConvolutionStep { relu: false, ..step }, scratch);
            }
            // If it is the output, each of its values is read before the result replaces it.
            let residual = match (first, &block.shortcut) {
                (true, None) => &here.input,
                (true, Some(_)) => here.shortcut.as_ref().unwrap_or(output),
                (false, _) => output,
            };
            let (last, path) = block.path.split_last().expect("`PackedStage::new` checks paths");
            let (mut input, mut tables) = (block_input, block_tables);
            for (at, (weights, between)) in (1..).zip(path.iter().zip(&here.between)) {
                let from = tables;
                if strided && weights.stride == 2 {
                    tables = output_tables;
                }
                let before_stride = strided && std::ptr::eq(tables, input_tables);
                let target = if before_stride { &here.before_stride } else { between };
                let name = format_args!("layer{layer}.{number}.conv{at}");
                self.convolve(name, step(weights, input, from, tables, target), scratch);
                if let Some(collector) = &mut self.watch.collector {
                    collector.note(statistics::inner_point(index, number, at - 1), target, 0);
                }
                input = target;
            }
            let name = format_args!("layer{layer}.{number}.conv{}", block.path.len());
            let mut step = step(last, input, tables, output_tables, output);
            step.residual = Some(residual);
            if let (Some(next), Some(map)) = (next, &here.map_to_next)
                && number + 1 == stage.blocks.len()
            {
                step.output = next;
                step.pixel_map = map;
                step.pixel_offset = next_slot * next.layout.image_pitch();
            }
            if let Some(features) = &here.features
                && number + 1 == stage.blocks.len()
            {
                step.output = features;
            }
            self.convolve(name, step, scratch);
            if let Some(collector) = &mut self.watch.collector {
                // A pass that notes statistics has one image.
                collector.note(statistics::block_point(index, number), step.output, 0);
            }
        }
    }

    fn convolve(
        &mut self,
        name: fmt::Arguments<'_>,
        step: ConvolutionStep<'_>,
        scratch: &[WinogradScratch],
    ) {
        let (kernel, team) = (self.network.kernel, self.team);
        let call = step.call(kernel);
        let pixels = call.images * call.layout.pixels();
        self.watch.timer.time(name, pixels as f64 * call.weights.flop(), || {
            // SAFETY: the machine has the kernel, and each thread is prepared for it. Input,
            // output and residual are activations of these buffers with the call's layouts, at
            // least as many channels as the weights, and borders as wide as taps reach. Only
            // residual and output may be the same, and then pixels keep their indices. Nobody
            // else uses them, and parts write different pixels or planes, each with a discard
            // pixel and scratch buffer of its own. A 3×3 with stride 1 keeps the layout.
            team.run(&|part| unsafe {
                let _prepared = dispatch::prepare_thread(kernel);
                convolution::run(kernel, &call, scratch.get(part.index), part);
            });
        });
    }
}
