//! A residual network's convolutions: as a caller gives them, and packed for one kernel. Checks
//! here what the code above relies on. Does not run the network.

use rayon::prelude::*;

use crate::kernel::Kernel;
use crate::layout::PLANE;
use crate::network_weights::{
    BlockWeights, ConvolutionWeights, NetworkWeights, STAGES, UnsupportedNetwork,
};
use crate::quantisation::{
    ChannelScales, InputScale, NetworkScales, QuantisedWeights, StageScales,
};
use crate::statistics::ActivationStatistics;
use crate::weights::PackedConvolution;

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
        scales: Option<ScalesOfStage<'_>>,
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
        let block = |(number, block): (usize, &BlockWeights<'_>)| {
            let pack = |at: Place, weights: &ConvolutionWeights<'_>| match scales {
                Some(scales) => scales.pack(kernel, weights, number, at),
                None => PackedConvolution::new(weights, kernel),
            };
            let path = block.path.iter().enumerate();
            let path = path.map(|(at, weights)| pack(Place::Path(at), weights));
            let shortcut = block.shortcut.as_ref().map(|weights| pack(Place::Shortcut, weights));
            Ok(PackedBlock {
                path: path.collect::<Result<_, _>>()?,
                shortcut: shortcut.transpose()?,
            })
        };
        // On all cores: packing takes a fifth of the time to start.
        Ok(Self { blocks: blocks.par_iter().enumerate().map(block).collect::<Result<_, _>>()? })
    }
}

/// Where a convolution is in its block.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// In its path, counted from 0.
    Path(usize),
    Shortcut,
}

/// The scales of a stage's convolutions.
#[derive(Clone, Copy)]
struct ScalesOfStage<'a> {
    input: &'a ChannelScales,
    stage: &'a StageScales,
    /// Whether its last block ends the network: its output is not rounded to bytes.
    is_last: bool,
}

impl ScalesOfStage<'_> {
    /// Packs a convolution of block `number` in 8 bits.
    fn pack(
        self,
        kernel: Kernel,
        weights: &ConvolutionWeights<'_>,
        number: usize,
        place: Place,
    ) -> Result<PackedConvolution, UnsupportedNetwork> {
        let Self { input, stage: StageScales { inner, outputs }, is_last } = self;
        let (inner, output) = (&inner[number], &outputs[number]);
        let block_input = if number == 0 { input } else { &outputs[number - 1] };
        let (from, to) = match place {
            Place::Path(at) => {
                let from = at.checked_sub(1).map_or(block_input, |before| &inner[before]);
                (from, inner.get(at).unwrap_or(output))
            }
            Place::Shortcut => (block_input, output),
        };
        let ends_network = is_last
            && number + 1 == outputs.len()
            && matches!(place, Place::Path(at) if at == inner.len());
        let quantised = QuantisedWeights::new(weights, from, to)?;
        PackedConvolution::quantised(weights, &quantised, kernel, !ends_network)
    }
}

/// # Errors
/// If the path is too short for a block.
fn check_path(block: &BlockWeights<'_>) -> Result<(), UnsupportedNetwork> {
    match block.path.len() {
        0 | 1 => {
            Err(UnsupportedNetwork("a block's path has fewer than two convolutions".to_owned()))
        }
        _ => Ok(()),
    }
}

/// The block's stride.
///
/// # Errors
/// If the shapes don't fit each other, or the kernels' layout does not support them.
fn check_block(block: &BlockWeights<'_>, inputs: usize) -> Result<usize, UnsupportedNetwork> {
    check_path(block)?;
    let path = &block.path;
    let fail = |what: &str| Err(UnsupportedNetwork(what.to_owned()));
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
    /// What its bytes mean, if its kernel keeps bytes.
    pub(crate) scales: Option<NetworkScales>,
}

impl PackedNetwork {
    /// # Errors
    /// As for [`Backbone::new`](crate::Backbone::new).
    pub(crate) fn new(
        kernel: Kernel,
        weights: &NetworkWeights<'_>,
        calibration: Option<(&ActivationStatistics, [InputScale; 3])>,
    ) -> Result<Self, UnsupportedNetwork> {
        if !kernel.is_available() {
            return Err(UnsupportedNetwork(format!("this machine does not have {kernel}")));
        }
        if kernel.is_int8() != calibration.is_some() {
            return Err(UnsupportedNetwork(format!(
                "{kernel} {} a calibration",
                if kernel.is_int8() { "needs" } else { "takes no" }
            )));
        }
        let NetworkWeights { stem, stages } = weights;
        if (stem.inputs, stem.kernel, stem.stride) != (3, 7, 2) || stem.outputs % PLANE != 0 {
            return Err(UnsupportedNetwork("its stem is not 7x7 with stride 2".into()));
        }
        let mut inputs = stem.outputs;
        let scales = calibration.map(|(statistics, input)| {
            // Blocks without convolutions have no outputs.
            weights.stages.iter().flatten().try_for_each(check_path)?;
            NetworkScales::new(weights, statistics, input)
        });
        let scales = scales.transpose()?;
        let stem = match &scales {
            None => PackedConvolution::new(stem, kernel)?,
            Some(scales) => {
                let quantised = QuantisedWeights::new(stem, &scales.image, &scales.stem)?;
                PackedConvolution::quantised(stem, &quantised, kernel, true)?
            }
        };
        let mut packed = Vec::new();
        for (index, blocks) in stages.iter().enumerate() {
            let of_stage = scales.as_ref().map(|scales| ScalesOfStage {
                input: index.checked_sub(1).map_or(&scales.stem, |before| {
                    scales.stages[before].outputs.last().unwrap_or(&scales.stem)
                }),
                stage: &scales.stages[index],
                is_last: index + 1 == STAGES,
            });
            let stage = PackedStage::new(kernel, blocks, inputs, of_stage)?;
            inputs = stage.outputs();
            packed.push(stage);
        }
        Ok(Self { kernel, stem, stages: packed, scales })
    }

    /// The most inputs and the most outputs of convolutions with transformed weights, if there
    /// are any.
    pub(crate) fn largest_transformed(&self) -> Option<(usize, usize)> {
        let blocks = self.stages.iter().flat_map(|stage| &stage.blocks);
        let transformed = blocks.flat_map(|block| &block.path).filter(|c| c.transformed);
        transformed.map(|c| (c.inputs, c.outputs)).reduce(|a, b| (a.0.max(b.0), a.1.max(b.1)))
    }
}
