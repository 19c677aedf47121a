//! A residual network's convolutions: as a caller gives them, and packed for one kernel. Checks
//! here what the code above relies on. Does not run the network.

use rayon::prelude::*;

use crate::kernel::Kernel;
use crate::layout::PLANE;
use crate::weights::{ConvolutionWeights, PackedConvolution, UnsupportedNetwork};

/// Residual stages of a network.
pub const STAGES: usize = 4;

/// A residual block: `relu(path(x) + shortcut(x))`. A ReLU follows each convolution of the path
/// but the last.
#[derive(Clone, Debug)]
pub struct BlockWeights<'a> {
    /// Two or more 1×1 and 3×3 convolutions, one after the other.
    pub path: Vec<ConvolutionWeights<'a>>,
    /// A 1×1 convolution; if there is none, the shortcut is the input itself.
    pub shortcut: Option<ConvolutionWeights<'a>>,
}

/// A network without its head: a 7×7 stem with stride 2 and a ReLU, 3×3 max-pooling with stride
/// 2, and stages of blocks.
#[derive(Clone, Debug)]
pub struct NetworkWeights<'a> {
    /// The 7×7 convolution with stride 2 from 3 channels.
    pub stem: ConvolutionWeights<'a>,
    /// The blocks of each stage. Only the first block of a stage may have a stride or a shortcut
    /// convolution.
    pub stages: [Vec<BlockWeights<'a>>; STAGES],
}

/// A block's convolutions, packed.
#[derive(Debug)]
pub(crate) struct PackedBlock {
    pub(crate) path: Vec<PackedConvolution>,
    pub(crate) shortcut: Option<PackedConvolution>,
}

/// The blocks of one stage, at least one.
#[derive(Debug)]
pub(crate) struct PackedStage {
    pub(crate) blocks: Vec<PackedBlock>,
}

impl PackedStage {
    pub(crate) fn stride(&self) -> usize {
        self.blocks[0].path.iter().map(|convolution| convolution.stride).product()
    }

    pub(crate) fn inputs(&self) -> usize {
        self.blocks[0].path[0].inputs
    }

    pub(crate) fn outputs(&self) -> usize {
        self.blocks[0].path.last().map_or(0, |convolution| convolution.outputs)
    }

    /// Convolutions of the longest path.
    pub(crate) fn longest_path(&self) -> usize {
        self.blocks.iter().map(|block| block.path.len()).max().unwrap_or(0)
    }

    /// Most channels between two convolutions of a path.
    pub(crate) fn most_inner_channels(&self) -> usize {
        let inner = |block: &PackedBlock| {
            let inner = &block.path[..block.path.len() - 1];
            inner.iter().map(|convolution| convolution.outputs).max().unwrap_or(0)
        };
        self.blocks.iter().map(inner).max().unwrap_or(0)
    }

    fn new(
        kernel: Kernel,
        blocks: &[BlockWeights<'_>],
        mut inputs: usize,
    ) -> Result<Self, UnsupportedNetwork> {
        for (number, block) in blocks.iter().enumerate() {
            let stride = check_block(block, inputs)?;
            if number > 0 && (stride != 1 || block.shortcut.is_some()) {
                return Err(UnsupportedNetwork(
                    "a block after a stage's first has a stride or shortcut".into(),
                ));
            }
            inputs = block.path[block.path.len() - 1].outputs;
        }
        if blocks.is_empty() {
            return Err(UnsupportedNetwork("a stage has no blocks".into()));
        }
        let pack = |weights: &ConvolutionWeights<'_>| PackedConvolution::new(weights, kernel);
        let block = |block: &BlockWeights<'_>| {
            let path = block.path.iter().map(pack).collect::<Result<_, _>>()?;
            Ok(PackedBlock { path, shortcut: block.shortcut.as_ref().map(pack).transpose()? })
        };
        // On all cores: packing takes a fifth of the time to start.
        Ok(Self { blocks: blocks.par_iter().map(block).collect::<Result<_, _>>()? })
    }
}

/// The block's stride.
///
/// # Errors
/// If the shapes don't fit each other, or the kernels' layout does not support them.
fn check_block(block: &BlockWeights<'_>, inputs: usize) -> Result<usize, UnsupportedNetwork> {
    let path = &block.path;
    let fail = |what: &str| Err(UnsupportedNetwork(what.to_owned()));
    if path.len() < 2 {
        return fail("a block's path has fewer than two convolutions");
    }
    let mut channels = inputs;
    for convolution in path {
        if convolution.inputs != channels || !matches!(convolution.kernel, 1 | 3) {
            return fail(
                "a path has channels that don't fit, or a convolution other than 1x1 and 3x3",
            );
        }
        channels = convolution.outputs;
    }
    let stride = path.iter().map(|convolution| convolution.stride).product();
    let at_most_one_before = path[0].stride == 2 || path[1].stride == 2 && path[0].kernel == 1;
    if stride != 1 && !(stride == 2 && at_most_one_before) {
        return fail("a path has more than one stride, or a stride after a 3x3 convolution");
    }
    match &block.shortcut {
        None if stride == 1 && channels == inputs => Ok(stride),
        Some(shortcut)
            if (shortcut.kernel, shortcut.stride) == (1, stride)
                && (shortcut.inputs, shortcut.outputs) == (inputs, channels) =>
        {
            Ok(stride)
        }
        _ => fail("a shortcut does not fit its block"),
    }
}

/// A network's convolutions packed for one kernel, which this machine has.
#[derive(Debug)]
pub(crate) struct PackedNetwork {
    pub(crate) kernel: Kernel,
    pub(crate) stem: PackedConvolution,
    pub(crate) stages: Vec<PackedStage>,
}

impl PackedNetwork {
    /// # Errors
    /// As for [`Backbone::new`](crate::Backbone::new).
    pub(crate) fn new(
        kernel: Kernel,
        weights: &NetworkWeights<'_>,
    ) -> Result<Self, UnsupportedNetwork> {
        if !kernel.is_available() {
            return Err(UnsupportedNetwork(format!("this machine does not have {kernel}")));
        }
        let NetworkWeights { stem, stages } = weights;
        if (stem.inputs, stem.kernel, stem.stride) != (3, 7, 2) || stem.outputs % PLANE != 0 {
            return Err(UnsupportedNetwork("its stem is not 7x7 with stride 2".into()));
        }
        let mut inputs = stem.outputs;
        let stem = PackedConvolution::new(stem, kernel)?;
        let mut packed = Vec::new();
        for blocks in stages {
            let stage = PackedStage::new(kernel, blocks, inputs)?;
            inputs = stage.outputs();
            packed.push(stage);
        }
        Ok(Self { kernel, stem, stages: packed })
    }

    /// The most inputs and the most outputs of convolutions with transformed weights, if there
    /// are any.
    pub(crate) fn largest_transformed(&self) -> Option<(usize, usize)> {
        let blocks = self.stages.iter().flat_map(|stage| &stage.blocks);
        let transformed = blocks.flat_map(|block| &block.path).filter(|c| c.transformed);
        transformed.map(|c| (c.inputs, c.outputs)).reduce(|a, b| (a.0.max(b.0), a.1.max(b.1)))
    }
}
