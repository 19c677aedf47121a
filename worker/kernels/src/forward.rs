//! The pass of one thread through the network: which convolution reads and writes what, and
//! in which order. How a convolution is computed is not known here.

use crate::amx::Tiles;
use crate::arena::{Arena, GROUP, SINGLE_STAGES, Space, StageArena};
use crate::backbone::{Network, STAGES};
use crate::convolution::{self, Job, pixel_bytes};
use crate::detect::Kernel;
use crate::layout::Activation;
use crate::pixels;
use crate::weights::Packed;

/// One thread's share of a batch: slices of as many images each.
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
    /// Computes a share. The arena fits its images' size and groups.
    pub(crate) fn forward(&self, arena: &mut Arena, share: &mut Share<'_>) {
        let tiles = matches!(self.kernel, Kernel::AmxBf16 | Kernel::AmxBf16x3)
            // SAFETY: a network is only made for a kernel that is available.
            .then(|| unsafe { Tiles::configure() });
        let image_values = 3 * arena.height * arena.width;
        let images = share.input.len() / image_values;
        for first in (0..images).step_by(arena.images) {
            let count = (images - first).min(arena.images);
            for slot in 0..count {
                let image = &share.input[(first + slot) * image_values..][..image_values];
                // SAFETY: the kernel is available, tiles are held, weights are packed for it.
                unsafe {
                    arena.stem.run(self.kernel, &self.stem, image);
                    let (from, to) = (&arena.stem.output, &mut arena.stages[0].input);
                    pixels::max_pool(self.kernel, from, to, 0);
                }
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
            let features = &arena.stages[STAGES - 1].output;
            let pooled = share.pooled[first * features.channels..].chunks_mut(features.channels);
            for (slot, pooled) in pooled.take(count).enumerate() {
                pixels::average(self.kernel, features, slot, pooled);
            }
        }
        drop(tiles);
    }

    /// Reads a stage's output out of its slot, if it is wanted.
    fn keep(&self, arena: &Arena, stage: usize, slot: usize, image: usize, share: &mut Share<'_>) {
        let Some(values) = &mut share.stages[stage] else { return };
        let output = match arena.stages.get(stage + 1) {
            Some(next) => &next.input,
            None => &arena.stages[stage].output,
        };
        let size = output.channels * output.geometry.height * output.geometry.width;
        pixels::read_out(self.kernel, output, slot, &mut values[image * size..][..size]);
    }

    /// Runs a stage on the first `images` images of its input. Its output goes to the next
    /// stage's input from image `slot` on.
    fn stage(&self, arena: &mut Arena, index: usize, images: usize, slot: usize) {
        let (here, next) = arena.stages.split_at_mut(index + 1);
        let StageArena { input, before, between, output, input_space, output_space, next_table } =
            &mut here[index];
        let (input_space, output_space) = (&*input_space, &*output_space);
        let mut next = next.first_mut().map(|next| &mut next.input);
        let stage = &self.stages[index];
        for (number, block) in stage.blocks.iter().enumerate() {
            let first = number == 0;
            let source: &Activation = if first { input } else { output };
            // Where the residual lies. In place it is read before it is written over.
            let residual: &Activation =
                if first && block.shortcut.is_none() { input } else { output };
            let residual = (residual.pixels(), residual.plane_bytes());
            let source = (source.pixels(), source.plane_bytes());
            if let Some(shortcut) = &block.shortcut {
                let mut job = self.job(shortcut, source, input_space, output_space, images);
                job.relu = false;
                self.run(job, output);
            }
            let (last, path) = block.path.split_last().expect("checked when it was made");
            // On which space the next convolution's input lies.
            let mut space = if first { input_space } else { output_space };
            let mut source = source;
            for (convolution, between) in path.iter().zip(between.iter_mut()) {
                let halved = first && stage.stride() == 2 && convolution.stride == 2;
                let from = space;
                space = if halved { output_space } else { from };
                let stays = first && stage.stride() == 2 && std::ptr::eq(space, input_space);
                let target = if stays { &mut *before } else { between };
                let job = self.job(convolution, source, from, space, images);
                self.run(job, target);
                source = (target.pixels(), target.plane_bytes());
            }
            let mut job = self.job(last, source, space, output_space, images);
            (job.residual, job.residual_plane_bytes) = residual;
            match &mut next {
                Some(next) if number + 1 == stage.blocks.len() => {
                    job.table = next_table;
                    job.shift = slot * next.geometry.image_pitch();
                    self.run(job, next);
                }
                _ => self.run(job, output),
            }
        }
    }

    /// A convolution of `source` (first pixel, bytes of a plane), which lies on `from`, to
    /// `to`: the same, or where the stride leads.
    fn job<'a>(
        &self,
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
            source,
            source_plane_bytes,
            low_bytes: pixel_bytes(self.kernel) / 2,
            step_bytes: pixel_bytes(self.kernel),
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
            runs,
            run_count: to.geometry.parts(),
            segments: &to.segments[..segments],
        }
    }

    fn run(&self, mut job: Job<'_>, target: &mut Activation) {
        convolution::set_target(&mut job, target);
        // SAFETY: the kernel is available and tiles are held while `forward` runs. Source,
        // target and residual are activations of this arena, of the job's geometries, at least
        // as many channels as the weights, and borders as wide as taps reach. Only residual
        // and target may be the same, and then pixels keep their places.
        unsafe { convolution::run(self.kernel, &job) };
    }
}
