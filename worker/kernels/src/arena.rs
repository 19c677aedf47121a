//! All buffers and tables that one thread needs for images of one size, made once and used
//! again by every call.

use crate::backbone::{Network, STAGES};
use crate::convolution::{pixel_bytes, segment_length};
use crate::detect::Kernel;
use crate::layout::{Activation, Geometry, Segment};
use crate::stem::Stem;
use crate::winograd::Scratch;

/// Stages run image by image, whose activations then stay in the second-level cache; the
/// others run in groups, since there it is the weights that don't.
pub(crate) const SINGLE_STAGES: usize = 2;
/// Images of a group at most.
pub(crate) const GROUP: usize = 8;

#[derive(Debug)]
pub(crate) struct Arena {
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// Images of a group there is room for.
    pub(crate) images: usize,
    pub(crate) stem: Stem,
    pub(crate) stages: Vec<StageArena>,
    /// One for each thread that has worked here.
    pub(crate) scratch: Vec<Scratch>,
}

/// A geometry with what kernels need to compute it.
#[derive(Debug)]
pub(crate) struct Space {
    pub(crate) geometry: Geometry,
    /// To itself.
    pub(crate) table: Vec<u32>,
    pub(crate) segments: Vec<Segment>,
    /// Byte offsets of a 3×3's taps on this space, at the stride at which it is left.
    pub(crate) taps: Vec<isize>,
}

#[derive(Debug)]
pub(crate) struct StageArena {
    /// What the stage before (or the pooling) leaves.
    pub(crate) input: Activation,
    /// Between convolutions before the one with a stride.
    pub(crate) before: Activation,
    /// Between the other convolutions, one for each but a path's last.
    pub(crate) between: Vec<Activation>,
    /// Of each block, but the last one writes to the next stage's input.
    pub(crate) output: Activation,
    pub(crate) input_space: Space,
    pub(crate) output_space: Space,
    /// From the output's pixels to those of the next stage's input.
    pub(crate) next_table: Vec<u32>,
}

impl Arena {
    /// For groups of `images` images `[3, height, width]`.
    pub(crate) fn new(network: &Network, height: usize, width: usize, images: usize) -> Self {
        let kernel = network.kernel;
        let bytes = pixel_bytes(kernel);
        let halved = |(height, width): (usize, usize)| (height.div_ceil(2), width.div_ceil(2));
        let mut side = halved(halved((height, width)));
        let mut stages: Vec<StageArena> = Vec::new();
        for (index, stage) in network.stages.iter().enumerate() {
            let images = if index < SINGLE_STAGES { 1 } else { images };
            let stride = stage.stride();
            let input_space = space(kernel, images, side, stride);
            let input = input_space.geometry;
            if let Some(before) = stages.last_mut() {
                before.next_table = before.output_space.geometry.table_to(input);
            }
            if stride == 2 {
                side = halved(side);
            }
            let output_space = space(kernel, images, side, 1);
            let output = output_space.geometry;
            let zeroed = |channels| Activation::zeroed(output, channels, bytes);
            stages.push(StageArena {
                input: Activation::zeroed(input, stage.inputs(), bytes),
                before: Activation::zeroed(input, stage.widest(), bytes),
                between: (1..stage.longest()).map(|_| zeroed(stage.widest())).collect(),
                output: zeroed(stage.outputs()),
                input_space,
                output_space,
                next_table: Vec::new(),
            });
        }
        debug_assert_eq!(stages.len(), STAGES);
        let stem = Stem::new(kernel, height, width, network.stem.outputs);
        Self { height, width, images, stem, stages, scratch: Vec::new() }
    }

    /// Buffers for as many threads, where there are convolutions that need any.
    pub(crate) fn take_scratch(&mut self, network: &Network, members: usize) -> Vec<Scratch> {
        let mut scratch = std::mem::take(&mut self.scratch);
        if let Some((inputs, outputs)) = network.largest_transformed() {
            scratch.resize_with(members.max(scratch.len()), || {
                Scratch::new(network.kernel, inputs, outputs)
            });
        }
        scratch
    }

    pub(crate) fn fits(&self, height: usize, width: usize, images: usize) -> bool {
        (self.height, self.width) == (height, width) && images <= self.images
    }
}

/// For images of one size, as a convolution with this stride reads them.
pub(crate) fn space(kernel: Kernel, images: usize, side: (usize, usize), stride: usize) -> Space {
    let geometry = Geometry::new(images, side, stride == 2);
    let bytes = pixel_bytes(kernel) as isize;
    Space {
        geometry,
        table: geometry.table_to(geometry),
        segments: geometry.segments(segment_length(kernel)),
        taps: geometry.taps(3, stride).into_iter().map(|tap| tap * bytes).collect(),
    }
}
