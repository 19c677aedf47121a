//! All buffers and tables that one thread needs for images of one size. They are made once and
//! used again by later passes. Does not compute.

use crate::convolution::LayoutTables;
use crate::kernel::ValueFormat;
use crate::layout::{Activation, PixelLayout};
use crate::network::PackedNetwork;
use crate::network_weights::STAGES;
use crate::stem::Stem;
use crate::winograd::WinogradScratch;

/// The first stages run image by image, so that activations stay in the second-level cache. The
/// later stages run in groups of images, because their weights don't stay there.
pub(crate) const SINGLE_IMAGE_STAGES: usize = 2;
/// Most images of a group.
const MAX_GROUP_IMAGES: usize = 8;

/// Images of each group of `images`. Sizes of groups differ as little as possible.
pub(crate) fn group_images(images: usize) -> usize {
    images.div_ceil(images.div_ceil(MAX_GROUP_IMAGES).max(1)).max(1)
}

/// One thread's buffers for a forward pass.
#[derive(Debug)]
pub(crate) struct PassBuffers {
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// Images of a group there is room for.
    pub(crate) images: usize,
    pub(crate) stem: Stem,
    pub(crate) stages: Vec<StageBuffers>,
    /// One for each thread that has shared these buffers.
    pub(crate) scratch: Vec<WinogradScratch>,
}

/// The buffers of one stage.
#[derive(Debug)]
pub(crate) struct StageBuffers {
    /// The output of the stage before, or of the pooling.
    pub(crate) input: Activation,
    /// Between the first block's convolutions, before the one with a stride.
    pub(crate) before_stride: Activation,
    /// Between all other convolutions of a path, one for each convolution but the last.
    pub(crate) between: Vec<Activation>,
    /// The output of each block. The last block of all but the last stage writes to the next stage's
    /// input instead.
    pub(crate) output: Activation,
    /// The output of the first block's shortcut in 16 bits, if activations have 8. In other formats it
    /// is written to `output`.
    pub(crate) shortcut: Option<Activation>,
    /// The output of the network's last block in f32, if activations have 8 bits.
    pub(crate) features: Option<Activation>,
    pub(crate) input_tables: LayoutTables,
    pub(crate) output_tables: LayoutTables,
    /// From the output's layout to that of the next stage's input; none for the last stage.
    pub(crate) map_to_next: Option<Vec<u32>>,
}

impl PassBuffers {
    /// For groups of `images` images `[3, height, width]`.
    pub(crate) fn new(network: &PackedNetwork, height: usize, width: usize, images: usize) -> Self {
        let kernel = network.kernel;
        let format = kernel.value_format();
        let halved = |[height, width]: [usize; 2]| [height.div_ceil(2), width.div_ceil(2)];
        let mut side = halved(halved([height, width]));
        let mut stages: Vec<StageBuffers> = Vec::new();
        for (index, stage) in network.stages.iter().enumerate() {
            let images = if index < SINGLE_IMAGE_STAGES { 1 } else { images };
            let tables = |[height, width]: [usize; 2], stride| {
                let layout = PixelLayout::for_stride(images, height, width, stride);
                LayoutTables::new(kernel, layout, stride)
            };
            let stride = stage.stride();
            let input_tables = tables(side, stride);
            let input = input_tables.layout;
            if let Some(before) = stages.last_mut() {
                before.map_to_next = Some(before.output_tables.layout.map_to(input));
            }
            if stride == 2 {
                side = halved(side);
            }
            let output_tables = tables(side, 1);
            let output = output_tables.layout;
            let inner = stage.most_inner_channels();
            let zeroed = |layout, channels| Activation::zeroed(layout, channels, format);
            let wider = |format| Activation::zeroed(output, stage.outputs(), format);
            let has_shortcut = stage.blocks[0].shortcut.is_some();
            let shortcut = (kernel.is_int8() && has_shortcut).then(|| wider(ValueFormat::I16));
            let is_last = index + 1 == STAGES;
            let features = (kernel.is_int8() && is_last).then(|| wider(ValueFormat::F32));
            stages.push(StageBuffers {
                input: zeroed(input, stage.inputs()),
                before_stride: zeroed(input, inner),
                between: (1..stage.longest_path()).map(|_| zeroed(output, inner)).collect(),
                output: zeroed(output, stage.outputs()),
                shortcut,
                features,
                input_tables,
                output_tables,
                map_to_next: None,
            });
        }
        debug_assert_eq!(stages.len(), STAGES);
        let scales = network.scales.as_ref().map(|scales| scales.input);
        let stem = Stem::new(kernel, scales, height, width, network.stem.outputs);
        Self { height, width, images, stem, stages, scratch: Vec::new() }
    }

    /// Makes scratch buffers for a team of `members`, if the network has convolutions that need
    /// any.
    pub(crate) fn grow_scratch(&mut self, network: &PackedNetwork, members: usize) {
        if let Some((inputs, outputs)) = network.largest_transformed() {
            let members = members.max(self.scratch.len());
            self.scratch
                .resize_with(members, || WinogradScratch::new(network.kernel, inputs, outputs));
        }
    }

    /// The output of the last stage.
    pub(crate) fn features(&self) -> &Activation {
        let last = &self.stages[STAGES - 1];
        last.features.as_ref().unwrap_or(&last.output)
    }

    pub(crate) fn fits(&self, height: usize, width: usize, images: usize) -> bool {
        (self.height, self.width) == (height, width) && images <= self.images
    }
}
