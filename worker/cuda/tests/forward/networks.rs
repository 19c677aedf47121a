//! Random networks with their heads, and random images. Does not compute; see
//! [`reference`](crate::reference).

use camshaft_cuda::{HeadWeights, InputFormat};
use camshaft_kernels::{BlockWeights, ConvolutionWeights, NetworkWeights, STAGES};

/// Classes of all heads.
pub(crate) const CLASSES: usize = 5;

/// The kinds of residual networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blocks {
    /// Two 3×3 convolutions, the first of them with the stride.
    Basic,
    /// 1×1, 3×3 with the stride, 1×1: as in torchvision.
    StrideIn3x3,
    /// 1×1 with the stride, 3×3, 1×1: as in the paper and in Keras.
    StrideIn1x1,
}

impl Blocks {
    pub(crate) const ALL: [Self; 3] = [Self::Basic, Self::StrideIn3x3, Self::StrideIn1x1];

    /// Inputs, outputs, kernel and stride of each convolution of a path.
    fn path(self, inputs: usize, inner: usize, stride: usize) -> Vec<[usize; 4]> {
        let outputs = self.outputs(inner);
        let (first, second) = match self {
            Self::StrideIn1x1 => (stride, 1),
            Self::Basic | Self::StrideIn3x3 => (1, stride),
        };
        match self {
            Self::Basic => vec![[inputs, inner, 3, stride], [inner, outputs, 3, 1]],
            Self::StrideIn3x3 | Self::StrideIn1x1 => {
                vec![[inputs, inner, 1, first], [inner, inner, 3, second], [inner, outputs, 1, 1]]
            }
        }
    }

    fn outputs(self, inner: usize) -> usize {
        if self == Self::Basic { inner } else { 4 * inner }
    }
}

/// What a network of a test looks like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) blocks: Blocks,
    /// Blocks of each stage.
    pub(crate) depth: [usize; STAGES],
    /// Channels of the stem.
    pub(crate) width: usize,
    /// Height and width of images.
    pub(crate) image: [usize; 2],
    /// Whether the head takes the features of all positions.
    pub(crate) flatten: bool,
}

/// Owns what [`ConvolutionWeights`] borrow.
struct OwnedConvolution {
    weight: Vec<f32>,
    bias: Vec<f32>,
    sizes: [usize; 4],
}

impl OwnedConvolution {
    fn random(sizes: [usize; 4], seed: u64) -> Self {
        let [inputs, outputs, kernel, _] = sizes;
        let depth = inputs * kernel * kernel;
        // Keeps the variance through a ReLU: He et al. 2015, https://arxiv.org/abs/1502.01852.
        let scale = (6.0 / depth as f32).sqrt();
        let weight = noise(outputs * depth, seed).into_iter().map(|value| value * scale).collect();
        let bias = noise(outputs, seed + 1).into_iter().map(|value| value * 0.1).collect();
        Self { weight, bias, sizes }
    }

    fn weights(&self) -> ConvolutionWeights<'_> {
        let [inputs, outputs, kernel, stride] = self.sizes;
        let (weight, bias) = (&self.weight, &self.bias);
        ConvolutionWeights { weight, bias, inputs, outputs, kernel, stride }
    }
}

/// Owns what [`BlockWeights`] borrow.
struct OwnedBlock {
    path: Vec<OwnedConvolution>,
    shortcut: Option<OwnedConvolution>,
}

impl OwnedBlock {
    fn weights(&self) -> BlockWeights<'_> {
        BlockWeights {
            path: self.path.iter().map(OwnedConvolution::weights).collect(),
            shortcut: self.shortcut.as_ref().map(OwnedConvolution::weights),
        }
    }
}

/// A network with its head, and how its input is made.
pub(crate) struct TestNetwork {
    pub(crate) plan: Plan,
    pub(crate) input: InputFormat,
    pub(crate) head_weight: Vec<f32>,
    pub(crate) head_bias: Vec<f32>,
    stem: OwnedConvolution,
    stages: Vec<Vec<OwnedBlock>>,
}

impl TestNetwork {
    pub(crate) fn new(plan: Plan) -> Self {
        let Plan { blocks, depth, width, image, flatten } = plan;
        let mut seed = 1;
        let mut random = |sizes| {
            seed += 2;
            OwnedConvolution::random(sizes, seed)
        };
        let stem = random([3, width, 7, 2]);
        let mut inputs = width;
        let mut sides = image.map(|side| side.div_ceil(4));
        let mut stages = Vec::new();
        for (stage, count) in depth.into_iter().enumerate() {
            let inner = width << stage;
            let mut made = Vec::new();
            for number in 0..count {
                let stride = if stage > 0 && number == 0 { 2 } else { 1 };
                let outputs = blocks.outputs(inner);
                let path = blocks.path(inputs, inner, stride).into_iter().map(&mut random);
                let path = path.collect();
                let shortcut = (stride != 1 || inputs != outputs)
                    .then(|| random([inputs, outputs, 1, stride]));
                made.push(OwnedBlock { path, shortcut });
                inputs = outputs;
                sides = sides.map(|side| side.div_ceil(stride));
            }
            stages.push(made);
        }
        let depth = if flatten { inputs * sides[0] * sides[1] } else { inputs };
        let scale = (3.0 / depth as f32).sqrt();
        let head_weight = noise(CLASSES * depth, 991).into_iter().map(|w| w * scale).collect();
        let [height, width] = image;
        // Of BGR, as Keras's models are: the first input channel is read from blue.
        let table = [0.41f32, 0.46, 0.49]
            .map(|mean| std::array::from_fn(|value| (value as f32 / 255.0 - mean) / 0.26));
        let input = InputFormat { height, width, table, sources: [2, 1, 0] };
        Self { plan, input, head_weight, head_bias: noise(CLASSES, 992), stem, stages }
    }

    pub(crate) fn weights(&self) -> NetworkWeights<'_> {
        NetworkWeights {
            stem: self.stem.weights(),
            stages: std::array::from_fn(|stage| {
                self.stages[stage].iter().map(OwnedBlock::weights).collect()
            }),
        }
    }

    pub(crate) fn head(&self) -> HeadWeights<'_> {
        HeadWeights {
            weight: &self.head_weight,
            bias: &self.head_bias,
            classes: CLASSES,
            flatten: self.plan.flatten,
        }
    }

    /// Multiplies the stem's weights, so that activations leave the range of 16 bits.
    pub(crate) fn scale_stem(&mut self, factor: f32) {
        self.stem.weight.iter_mut().for_each(|weight| *weight *= factor);
    }

    /// Random pixels `[N, H, W, 3]`.
    pub(crate) fn pixels(&self, images: usize, seed: u64) -> Vec<u8> {
        let count = images * self.image_values();
        noise(count, seed).into_iter().map(|value| ((value + 1.0) * 127.5) as u8).collect()
    }

    /// The network's input `[N, 3, H, W]` for these pixels.
    pub(crate) fn scaled(&self, pixels: &[u8]) -> Vec<f32> {
        let InputFormat { table, sources, .. } = &self.input;
        let mut values = Vec::with_capacity(pixels.len());
        for image in pixels.chunks(self.image_values()) {
            for (table, &source) in table.iter().zip(sources) {
                values.extend(image.chunks(3).map(|pixel| table[usize::from(pixel[source])]));
            }
        }
        values
    }

    /// Values of an image.
    pub(crate) fn image_values(&self) -> usize {
        3 * self.input.height * self.input.width
    }
}

/// Pseudorandom numbers from -1 to 1 (xorshift, Marsaglia 2003).
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}
