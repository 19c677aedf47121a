//! The pass of a share of a batch through the network: which convolution reads and writes what,
//! and in which order. How a convolution is computed is not known here.

use std::fmt;

use crate::arena::{Arena, GROUP, SINGLE_STAGES, Space, StageArena};
use crate::backbone::{Network, STAGES};
use crate::convolution::{self, Job, pixel_bytes};
use crate::detect::Kernel;
use crate::layout::{Activation, PLANE};
use crate::pixels;
use crate::profile::Clock;
use crate::team::Team;
use crate::weights::Packed;
use crate::winograd::Scratch;

/// A share of a batch: slices of as many images each.
pub(crate) struct Share<'a> {
    /// `[N, 3, H, W]`.
    pub(crate) input: &'a [f32],
    /// `[N, C, H, W]` of stages that are wanted.
    pub(crate) stages: [Option<&'a mut [f32]>; STAGES],
    /// `[N, C]`.
    pub(crate) pooled: &'a mut [f32],
}

/// Images of a group, so that groups of a share differ by at most one.
pub(crate) fn group(images: usize) -> usize {
    images.div_ceil(images.div_ceil(GROUP).max(1)).max(1)
}

impl Network {
    /// Computes a share on a team of `members` threads. The arena fits its images' size and
    /// groups.
    pub(crate) fn forward(
        &self,
        arena: &mut Arena,
        share: &mut Share<'_>,
        members: usize,
        clock: &mut Clock,
    ) {
        let team = Team::of(members);
        let scratch = arena.take_scratch(self, team.members());
        let mut pass = Pass { network: self, team, scratch, clock };
        pass.run(arena, share);
        arena.scratch = pass.scratch;
    }
}

/// A network on its way through a share.
struct Pass<'a> {
    network: &'a Network,
    team: Team,
    /// One for each member, where the kernel needs any.
    scratch: Vec<Scratch>,
    clock: &'a mut Clock,
}

impl Pass<'_> {
    fn run(&mut self, arena: &mut Arena, share: &mut Share<'_>) {
        let image_values = 3 * arena.height * arena.width;
        let images = share.input.len() / image_values;
        for first in (0..images).step_by(arena.images) {
            let count = (images - first).min(arena.images);
            for slot in 0..count {
                let image = &share.input[(first + slot) * image_values..][..image_values];
                self.stem(arena, image);
                for stage in 0..SINGLE_STAGES {
                    let to = if stage + 1 < SINGLE_STAGES { 0 } else { slot };
                    self.stage(arena, stage, 1, to);
                    self.keep(arena, stage, to, first + slot, share);
                }
            }
            for stage in SINGLE_STAGES..STAGES {
                self.stage(arena, stage, count, 0);
                (0..count).for_each(|slot| self.keep(arena, stage, slot, first + slot, share));
            }
            let (kernel, features) = (self.network.kernel, &arena.stages[STAGES - 1].output);
            let pooled = share.pooled[first * features.channels..].chunks_mut(features.channels);
            self.clock.time(format_args!("avgpool"), 0.0, || {
                for (slot, pooled) in pooled.take(count).enumerate() {
                    pixels::average(kernel, features, slot, pooled);
                }
            });
        }
    }

    /// An image to the first stage's input.
    fn stem(&mut self, arena: &mut Arena, image: &[f32]) {
        let Network { kernel, stem: weights, .. } = self.network;
        let (kernel, team) = (*kernel, self.team);
        let Arena { stem, stages, .. } = arena;
        self.clock.time(format_args!("image in"), 0.0, || stem.copy_in(kernel, image));
        let flop = stem.output.geometry.pixels() as f64 * weights.flop();
        self.clock.time(format_args!("conv1"), flop, || {
            // SAFETY: the kernel is available, weights are packed for it.
            unsafe { stem.run(kernel, weights, team) };
        });
        let (from, to) = (&stem.output, &stages[0].input);
        self.clock.time(format_args!("maxpool"), 0.0, || {
            // SAFETY: the kernel is available; parts write different rows.
            team.run(&|part| unsafe { pixels::max_pool(kernel, from, to, 0, part) });
        });
    }

    /// Reads a stage's output out of its slot, if it is wanted.
    fn keep(
        &mut self,
        arena: &Arena,
        stage: usize,
        slot: usize,
        image: usize,
        share: &mut Share<'_>,
    ) {
        let Some(values) = &mut share.stages[stage] else { return };
        let output = match arena.stages.get(stage + 1) {
            Some(next) => &next.input,
            None => &arena.stages[stage].output,
        };
        let size = output.channels * output.geometry.pixels();
        let values = &mut values[image * size..][..size];
        let kernel = self.network.kernel;
        self.clock.time(format_args!("read out"), 0.0, || {
            pixels::read_out(kernel, output, slot, values);
        });
    }

    /// Runs a stage on the first `images` images of its input. Its output goes to the next
    /// stage's input from image `slot` on.
    fn stage(&mut self, arena: &mut Arena, index: usize, images: usize, slot: usize) {
        let (here, next) = arena.stages.split_at_mut(index + 1);
        let StageArena { input, before, between, output, input_space, output_space, next_table } =
            &mut here[index];
        let (input_space, output_space) = (&*input_space, &*output_space);
        let mut next = next.first_mut().map(|next| &mut next.input);
        let network = self.network;
        let stage = &network.stages[index];
        let layer = index + 1;
        for (number, block) in stage.blocks.iter().enumerate() {
            let first = number == 0;
            let source: &Activation = if first { input } else { output };
            // Where the residual lies. In place it is read before it is written over.
            let residual: &Activation =
                if first && block.shortcut.is_none() { input } else { output };
            let residual = (residual.pixels(), residual.plane_bytes());
            let source = (source.pixels(), source.plane_bytes());
            if let Some(shortcut) = &block.shortcut {
                let mut job =
                    describe(network.kernel, shortcut, source, input_space, output_space, images);
                job.relu = false;
                self.convolve(format_args!("layer{layer}.{number}.downsample"), job, output);
            }
            let (last, path) = block.path.split_last().expect("checked when it was made");
            // On which space the next convolution's input lies.
            let mut space = if first { input_space } else { output_space };
            let mut source = source;
            for (at, (convolution, between)) in (1..).zip(path.iter().zip(between.iter_mut())) {
                let halved = first && stage.stride() == 2 && convolution.stride == 2;
                let from = space;
                space = if halved { output_space } else { from };
                let stays = first && stage.stride() == 2 && std::ptr::eq(space, input_space);
                let target = if stays { &mut *before } else { between };
                let job = describe(network.kernel, convolution, source, from, space, images);
                self.convolve(format_args!("layer{layer}.{number}.conv{at}"), job, target);
                source = (target.pixels(), target.plane_bytes());
            }
            let name = format_args!("layer{layer}.{number}.conv{}", block.path.len());
            let mut job = describe(network.kernel, last, source, space, output_space, images);
            (job.residual, job.residual_plane_bytes) = residual;
            match &mut next {
                Some(next) if number + 1 == stage.blocks.len() => {
                    job.table = next_table;
                    job.shift = slot * next.geometry.image_pitch();
                    self.convolve(name, job, next);
                }
                _ => self.convolve(name, job, output),
            }
        }
    }

    fn convolve(&mut self, name: fmt::Arguments<'_>, mut job: Job<'_>, target: &Activation) {
        convolution::set_target(&mut job, target);
        let (kernel, team, scratch) = (self.network.kernel, self.team, &self.scratch);
        let pixels = job.images * job.geometry.pixels();
        self.clock.time(name, pixels as f64 * job.weights.flop(), || {
            // SAFETY: the kernel is available and each thread prepared for it. Source, target and
            // residual are activations of this arena, of the job's geometries, at least as many
            // channels as the weights, and borders as wide as taps reach. Only residual and
            // target may be the same, and then pixels keep their places. Nobody else has them,
            // and parts write different pixels or planes, and each its own sink and scratch. A
            // 3×3 with stride 1 leaves the geometry as it is.
            team.run(&|part| unsafe {
                let _held = convolution::prepare(kernel);
                convolution::run(kernel, &job, scratch.get(part.index), part);
            });
        });
    }
}

/// A convolution of `source` (first pixel, bytes of a plane), which lies on `from`, to
/// `to`: the same, or where the stride leads.
pub(crate) fn describe<'a>(
    kernel: Kernel,
    weights: &'a Packed,
    (source, source_plane_bytes): (*const u8, usize),
    from: &'a Space,
    to: &'a Space,
    images: usize,
) -> Job<'a> {
    let mut runs = [(0, 0); 4];
    runs.iter_mut().zip(to.geometry.runs(images)).for_each(|(run, from)| *run = from);
    let segments = to.segments.len() / to.geometry.images * images;
    Job {
        weights,
        weights_offset: 0,
        bias: weights.bias.as_ptr(),
        geometry: to.geometry,
        images,
        source,
        source_plane_bytes,
        low_bytes: pixel_bytes(kernel) / 2,
        step_bytes: pixel_bytes(kernel),
        // A 1×1 with a stride reads the part of even rows and columns: the first.
        taps: if weights.kernel == 1 { &[0] } else { &from.taps },
        target: std::ptr::null_mut(),
        target_plane_bytes: 0,
        table: &to.table,
        shift: 0,
        sink: 0,
        residual: std::ptr::null(),
        residual_plane_bytes: 0,
        relu: true,
        output_f32: false,
        panels: (0, weights.outputs / PLANE),
        runs,
        run_count: to.geometry.parts(),
        segments: &to.segments[..segments],
    }
}
