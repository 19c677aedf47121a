//! A network as a caller sees it: made once from weights, then run on batches. Checks what
//! kernels rely on, and shares a batch out among threads.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use crate::arena::Arena;
use crate::detect::Kernel;
use crate::forward::{Share, group};
use crate::layout::PLANE;
use crate::profile::{Clock, StepTime};
use crate::team::Part;
use crate::weights::{ConvolutionWeights, Packed, Unsupported};

/// Residual stages of a network.
pub const STAGES: usize = 4;

/// A block: `relu(path(x) + shortcut(x))`, each convolution of the path but the last followed
/// by a ReLU of its own.
#[derive(Clone, Debug)]
pub struct BlockWeights<'a> {
    /// 1×1 and 3×3 convolutions one after the other, two or more.
    pub path: Vec<ConvolutionWeights<'a>>,
    /// A 1×1, or the input itself.
    pub shortcut: Option<ConvolutionWeights<'a>>,
}

/// Everything but the head: a 7×7 stem with stride 2 and a ReLU, 3×3 max-pooling with stride
/// 2, and stages of blocks.
#[derive(Clone, Debug)]
pub struct NetworkWeights<'a> {
    /// 7×7, stride 2, from 3 channels.
    pub stem: ConvolutionWeights<'a>,
    /// Blocks by stage; only a stage's first may have a stride or a shortcut convolution.
    pub stages: [Vec<BlockWeights<'a>>; STAGES],
}

#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) path: Vec<Packed>,
    pub(crate) shortcut: Option<Packed>,
}

#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) blocks: Vec<Block>,
}

impl Stage {
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
    pub(crate) fn longest(&self) -> usize {
        self.blocks.iter().map(|block| block.path.len()).max().unwrap_or(0)
    }

    /// Most channels between two convolutions of a path.
    pub(crate) fn widest(&self) -> usize {
        let inner = |block: &Block| {
            let inner = &block.path[..block.path.len() - 1];
            inner.iter().map(|convolution| convolution.outputs).max().unwrap_or(0)
        };
        self.blocks.iter().map(inner).max().unwrap_or(0)
    }

    fn new(
        kernel: Kernel,
        blocks: &[BlockWeights<'_>],
        mut inputs: usize,
    ) -> Result<Self, Unsupported> {
        for (number, block) in blocks.iter().enumerate() {
            let stride = check_block(block, inputs)?;
            if number > 0 && (stride != 1 || block.shortcut.is_some()) {
                return Err(Unsupported("a stride or shortcut after a stage's first block".into()));
            }
            inputs = block.path[block.path.len() - 1].outputs;
        }
        if blocks.is_empty() {
            return Err(Unsupported("a stage without blocks".into()));
        }
        let pack = |weights: &ConvolutionWeights<'_>| Packed::new(weights, kernel);
        let block = |block: &BlockWeights<'_>| {
            let path = block.path.iter().map(pack).collect::<Result<_, _>>()?;
            Ok(Block { path, shortcut: block.shortcut.as_ref().map(pack).transpose()? })
        };
        // A fifth of what starting takes.
        Ok(Self { blocks: blocks.par_iter().map(block).collect::<Result<_, _>>()? })
    }
}

/// The block's stride. Fails where shapes don't fit each other or the layout.
fn check_block(block: &BlockWeights<'_>, inputs: usize) -> Result<usize, Unsupported> {
    let path = &block.path;
    let fail = |what: &str| Err(Unsupported(what.to_owned()));
    if path.len() < 2 {
        return fail("a path of one convolution");
    }
    let mut channels = inputs;
    for convolution in path {
        if convolution.inputs != channels || !matches!(convolution.kernel, 1 | 3) {
            return fail("a path whose channels don't fit, or that is not of 1x1 and 3x3");
        }
        channels = convolution.outputs;
    }
    let stride = path.iter().map(|convolution| convolution.stride).product();
    let at_most_one_before = path[0].stride == 2 || path[1].stride == 2 && path[0].kernel == 1;
    if stride != 1 && !(stride == 2 && at_most_one_before) {
        return fail("a stride after a 3x3 convolution or more than one");
    }
    match &block.shortcut {
        None if stride == 1 && channels == inputs => Ok(stride),
        Some(shortcut)
            if (shortcut.kernel, shortcut.stride) == (1, stride)
                && (shortcut.inputs, shortcut.outputs) == (inputs, channels) =>
        {
            Ok(stride)
        }
        _ => fail("a shortcut that does not fit its block"),
    }
}

/// Packed for one kernel, which is available.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) kernel: Kernel,
    pub(crate) stem: Packed,
    pub(crate) stages: Vec<Stage>,
}

impl Network {
    /// Most inputs and most outputs of convolutions with transformed weights, if there are any.
    pub(crate) fn largest_transformed(&self) -> Option<(usize, usize)> {
        let blocks = self.stages.iter().flat_map(|stage| &stage.blocks);
        let transformed = blocks.flat_map(|block| &block.path).filter(|c| c.transformed);
        transformed.map(|c| (c.inputs, c.outputs)).reduce(|a, b| (a.0.max(b.0), a.1.max(b.1)))
    }
}

/// A residual network for inference on one kernel.
///
/// An image's result is the same to the last bit whatever else is in the batch and however
/// many threads there are.
#[derive(Debug)]
pub struct Backbone {
    network: Network,
    /// Buffers that no thread is using.
    arenas: Mutex<Vec<Arena>>,
}

/// What a stage leaves after its last ReLU.
#[derive(Clone, Debug, PartialEq)]
pub struct StageOutput {
    /// `[N, C, H, W]`, zero or more.
    pub values: Vec<f32>,
    /// `N`, `C`, `H` and `W`.
    pub shape: [usize; 4],
}

/// What a pass leaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Outputs {
    /// By stage, where it was wanted.
    pub stages: [Option<StageOutput>; STAGES],
    /// `[N, C]`: means over the pixels of the last stage.
    pub pooled: Vec<f32>,
}

/// Smallest height and width of images.
pub const SMALLEST_SIDE: usize = 32;

impl Backbone {
    /// Packs `weights` for `kernel`.
    ///
    /// # Errors
    /// If the machine lacks the kernel, or channels are not multiples of 32, or convolutions
    /// are not put together as in a ResNet.
    pub fn new(kernel: Kernel, weights: &NetworkWeights<'_>) -> Result<Self, Unsupported> {
        if !kernel.is_available() {
            return Err(Unsupported(format!("this machine does not have {kernel}")));
        }
        let NetworkWeights { stem, stages } = weights;
        if (stem.inputs, stem.kernel, stem.stride) != (3, 7, 2) || stem.outputs % PLANE != 0 {
            return Err(Unsupported("a stem other than 7x7 with stride 2".into()));
        }
        let mut inputs = stem.outputs;
        let stem = Packed::new(stem, kernel)?;
        let mut packed = Vec::new();
        for blocks in stages {
            let stage = Stage::new(kernel, blocks, inputs)?;
            inputs = stage.outputs();
            packed.push(stage);
        }
        Ok(Self {
            network: Network { kernel, stem, stages: packed },
            arenas: Mutex::new(Vec::new()),
        })
    }

    /// What it computes with.
    pub fn kernel(&self) -> Kernel {
        self.network.kernel
    }

    /// Channels of the last stage.
    pub fn features(&self) -> usize {
        self.network.stages.last().map_or(0, Stage::outputs)
    }

    /// Runs a batch: `input` `[n, 3, height, width]`, on at most `threads` threads, this one
    /// among them.
    ///
    /// # Panics
    /// If `input` has another length, or images are smaller than 32 × 32.
    pub fn run(
        &self,
        input: &[f32],
        (n, height, width): (usize, usize, usize),
        wanted: [bool; STAGES],
        threads: usize,
    ) -> Outputs {
        let mut outputs = self.empty_outputs(input, (n, height, width), wanted);
        self.compute(input, (n, height, width), threads, &mut outputs);
        outputs
    }

    /// Runs a batch as [`Self::run`] does, on this thread alone, and says how long each step
    /// took, in the order of the network.
    ///
    /// # Panics
    /// As [`Self::run`].
    pub fn profile(
        &self,
        input: &[f32],
        (n, height, width): (usize, usize, usize),
    ) -> Vec<StepTime> {
        let mut outputs = self.empty_outputs(input, (n, height, width), [false; STAGES]);
        let mut clock = Clock::running();
        for share in &mut self.shares(input, n, 1, &mut outputs) {
            self.compute_share(share, (height, width), 1, &mut clock);
        }
        clock.steps()
    }

    /// Room for what a pass leaves.
    fn empty_outputs(
        &self,
        input: &[f32],
        (n, height, width): (usize, usize, usize),
        wanted: [bool; STAGES],
    ) -> Outputs {
        assert_eq!(input.len(), n * 3 * height * width, "a batch of {n} images");
        assert!(height.min(width) >= SMALLEST_SIDE, "an image of {height} x {width}");
        let shapes = self.shapes(n, height, width);
        Outputs {
            stages: std::array::from_fn(|stage| {
                let shape = shapes[stage];
                let values = || vec![0.0; shape.iter().product()];
                wanted[stage].then(|| StageOutput { values: values(), shape })
            }),
            pooled: vec![0.0; n * self.features()],
        }
    }

    /// `[N, C, H, W]` of each stage's output.
    fn shapes(&self, n: usize, height: usize, width: usize) -> [[usize; 4]; STAGES] {
        // Every kernel's padding is half its side, so that stride 2 halves and rounds up.
        let mut side = [height, width].map(|side| side.div_ceil(4));
        std::array::from_fn(|index| {
            let stage = &self.network.stages[index];
            side = side.map(|side| side.div_ceil(stage.stride()));
            [n, stage.outputs(), side[0], side[1]]
        })
    }

    fn compute(
        &self,
        input: &[f32],
        (n, height, width): (usize, usize, usize),
        threads: usize,
        outputs: &mut Outputs,
    ) {
        let mut shares = self.shares(input, n, threads, outputs);
        let count = shares.len();
        let work = &|index: usize, share: &mut Share<'_>| {
            // Threads beyond one for each image join those there are.
            let members = Part { index, of: count }.range(threads.max(count)).len();
            self.compute_share(share, (height, width), members, &mut Clock::default());
        };
        // On the pool that the rest of the process computes on too, so that there are never more
        // threads at work than cores.
        rayon::scope(|scope| {
            for (index, share) in shares.iter_mut().enumerate() {
                scope.spawn(move |_| work(index, share));
            }
        });
    }

    fn compute_share(
        &self,
        share: &mut Share<'_>,
        (height, width): (usize, usize),
        members: usize,
        clock: &mut Clock,
    ) {
        let images = group(share.input.len() / (3 * height * width));
        let mut arena = self.arena(height, width, images);
        self.network.forward(&mut arena, share, members, clock);
        self.arenas.lock().unwrap_or_else(PoisonError::into_inner).push(arena);
    }

    /// Neighbouring images to each thread, as evenly as possible, and at least one.
    fn shares<'a>(
        &self,
        mut input: &'a [f32],
        n: usize,
        threads: usize,
        outputs: &'a mut Outputs,
    ) -> Vec<Share<'a>> {
        let mut pooled = outputs.pooled.as_mut_slice();
        let mut stages =
            outputs.stages.each_mut().map(|stage| stage.as_mut().map(|s| s.values.as_mut_slice()));
        let threads = threads.clamp(1, n.max(1));
        let mut left = n;
        let mut shares = Vec::with_capacity(threads);
        for thread in 0..threads {
            if left == 0 {
                break;
            }
            let images = left.div_ceil(threads - thread);
            let mut split = |values: &mut &'a mut [f32]| {
                let size = values.len() / left * images;
                let (own, rest) = std::mem::take(values).split_at_mut(size);
                *values = rest;
                own
            };
            let own_input;
            (own_input, input) = input.split_at(input.len() / left * images);
            shares.push(Share {
                input: own_input,
                stages: stages.each_mut().map(|stage| stage.as_mut().map(&mut split)),
                pooled: split(&mut pooled),
            });
            left -= images;
        }
        shares
    }

    /// Buffers for this size, used before if there are any.
    fn arena(&self, height: usize, width: usize, images: usize) -> Arena {
        let mut arenas = self.arenas.lock().unwrap_or_else(PoisonError::into_inner);
        let found = arenas.iter().position(|arena| arena.fits(height, width, images));
        let arena = match found {
            Some(index) => Some(arenas.swap_remove(index)),
            None => {
                // Of another size: it makes room before the new one is made.
                arenas.pop();
                None
            }
        };
        drop(arenas);
        arena.unwrap_or_else(|| Arena::new(&self.network, height, width, images))
    }
}
