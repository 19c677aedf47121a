//! A narrow ResNet in plain loops and f64: forward, back to every layer, and from every layer on.
//! BatchNorms are fitted to random images, as training would.

use std::array;

use camshaft_cuda::{Cut, CutConvolution, HeadWeights};
use camshaft_kernels::{BlockWeights, NetworkWeights, STAGES};

use super::convolution::{ChannelTarget, Convolution};
use super::features::{Features, Noise, max_pool, max_pool_back};

/// Number of classes of each network.
pub(crate) const CLASSES: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum BlockKind {
    /// Two 3×3, the first one with the stride.
    Basic,
    /// 1×1, 3×3 with the stride, and 1×1.
    Bottleneck,
    /// 1×1 with the stride, 3×3, and 1×1.
    BottleneckStrideFirst,
}

/// Where BatchNorms put the values in front of ReLUs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Activity {
    /// Around zero.
    Mixed,
    /// Far from zero: in every fourth channel nearly all are negative, in the others nearly none.
    /// Rounding to a half precision then hardly ever takes a value across zero.
    Settled,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) kind: BlockKind,
    pub(crate) width: usize,
    pub(crate) blocks: [usize; STAGES],
    pub(crate) flatten: bool,
    /// Height and width of images.
    pub(crate) sides: [usize; 2],
    pub(crate) activity: Activity,
}

pub(crate) struct Network {
    settings: Settings,
    stem: Convolution,
    stages: [Vec<Block>; STAGES],
    /// `[K, C]`, or `[K, C * P]` if the head flattens.
    head_weight: Vec<f32>,
    head_bias: Vec<f32>,
}

struct Block {
    path: Vec<Convolution>,
    shortcut: Option<Convolution>,
}

/// A value of each layer that can be a target layer: outputs, or gradients.
pub(crate) struct LayerValues {
    stem: Features,
    stages: [Vec<BlockValues>; STAGES],
}

struct BlockValues {
    output: Features,
    path: Vec<Features>,
    shortcut: Option<Features>,
}

impl LayerValues {
    pub(crate) fn at(&self, cut: Cut) -> &Features {
        match cut {
            Cut::Stem => &self.stem,
            Cut::Block(stage, block) => &self.stages[stage][block].output,
            Cut::Path(stage, block, place) => &self.stages[stage][block].path[place],
            Cut::Shortcut(stage, block) => {
                self.stages[stage][block].shortcut.as_ref().expect("the block has it")
            }
        }
    }
}

/// A forward pass of one image.
pub(crate) struct Pass {
    pub(crate) layers: LayerValues,
    /// The output of the stem's ReLU.
    stem_output: Features,
    /// The input of the first block.
    pooled: Features,
    pub(crate) logits: Vec<f64>,
    /// The smallest distance from zero in front of a ReLU.
    pub(crate) nearest_kink: f64,
}

impl Pass {
    fn block_input(&self, stage: usize, block: usize) -> &Features {
        let before = match (stage, block) {
            (0, 0) => return &self.pooled,
            (stage, 0) => self.layers.stages[stage - 1].last(),
            (stage, block) => self.layers.stages[stage].get(block - 1),
        };
        &before.expect("the block has one before it").output
    }

    /// The input of the cut's block, if the cut is within a block.
    pub(crate) fn input_of_block(&self, cut: Cut) -> Option<&Features> {
        match cut {
            Cut::Stem | Cut::Block(..) => None,
            Cut::Path(stage, block, _) | Cut::Shortcut(stage, block) => {
                Some(self.block_input(stage, block))
            }
        }
    }
}

impl Network {
    pub(crate) fn new(settings: Settings, seed: u64) -> Self {
        let Settings { kind, width, blocks, flatten, sides, activity } = settings;
        let mut noise = Noise::new(seed);
        let stem = Convolution::new(&mut noise, [3, width], [7, 2]);
        let mut inputs = width;
        let stages = array::from_fn(|stage| {
            let blocks = (0..blocks[stage]).map(|number| {
                let stride = if stage > 0 && number == 0 { 2 } else { 1 };
                let block = Block::new(&mut noise, kind, [inputs, width << stage], stride);
                inputs = block.path.last().expect("a path is not empty").outputs;
                block
            });
            blocks.collect()
        });
        let positions = sides.iter().map(|side| side.div_ceil(32)).product::<usize>();
        let head_inputs = if flatten { inputs * positions } else { inputs };
        let head_weight = noise.values(CLASSES * head_inputs, (1.0 / head_inputs as f32).sqrt());
        let head_bias = noise.values(CLASSES, 0.1);
        let mut network = Self { settings, stem, stages, head_weight, head_bias };
        let images: Vec<_> = (0..8).map(|_| network.random_image(&mut noise)).collect();
        network.fit_norms(&images, activity);
        network
    }

    pub(crate) fn random_image(&self, noise: &mut Noise) -> Features {
        let [height, width] = self.settings.sides;
        let values = noise.values(3 * height * width, 1.5).into_iter().map(f64::from).collect();
        Features { values, shape: [3, height, width] }
    }

    fn fit_norms(&mut self, images: &[Features], activity: Activity) {
        let outputs: Vec<_> = images.iter().map(|image| self.stem.run(image)).collect();
        self.stem.fit_norm(&outputs, activity.inner());
        let pool = |output| max_pool(&self.stem.normalise(output).relu()).0;
        let mut features: Vec<_> = outputs.iter().map(pool).collect();
        for block in self.stages.iter_mut().flatten() {
            block.fit_norms(&features, activity);
            features = features.iter().map(|input| block.run(input, None).0.output).collect();
        }
    }

    pub(crate) fn weights(&self) -> NetworkWeights<'_> {
        let stages = self.stages.each_ref();
        NetworkWeights {
            stem: self.stem.folded(),
            stages: stages.map(|blocks| blocks.iter().map(Block::weights).collect()),
        }
    }

    pub(crate) fn head(&self) -> HeadWeights<'_> {
        HeadWeights {
            weight: &self.head_weight,
            bias: &self.head_bias,
            classes: CLASSES,
            flatten: self.settings.flatten,
        }
    }

    /// Every layer that can be a target layer.
    pub(crate) fn cuts(&self) -> Vec<Cut> {
        let mut cuts = vec![Cut::Stem];
        for (stage, blocks) in self.stages.iter().enumerate() {
            for (number, block) in blocks.iter().enumerate() {
                let places = 0..block.path.len();
                cuts.extend(places.map(|place| Cut::Path(stage, number, place)));
                cuts.extend(block.shortcut.as_ref().map(|_| Cut::Shortcut(stage, number)));
                cuts.push(Cut::Block(stage, number));
            }
        }
        cuts
    }

    /// The convolution of a cut, if the cut is at one.
    pub(crate) fn cut_convolution(&self, cut: Cut) -> Option<CutConvolution<'_>> {
        Some(self.convolution(cut)?.cut())
    }

    fn convolution(&self, cut: Cut) -> Option<&Convolution> {
        match cut {
            Cut::Stem => Some(&self.stem),
            Cut::Block(..) => None,
            Cut::Path(stage, block, place) => Some(&self.stages[stage][block].path[place]),
            Cut::Shortcut(stage, block) => self.stages[stage][block].shortcut.as_ref(),
        }
    }

    pub(crate) fn run(&self, image: &Features) -> Pass {
        let stem = self.stem.run(image);
        let normalised = self.stem.normalise(&stem);
        let mut nearest_kink = normalised.nearest_to_zero();
        let stem_output = normalised.relu();
        let pooled = max_pool(&stem_output).0;
        let mut features = pooled.clone();
        let stages = self.stages.each_ref().map(|blocks| {
            let blocks = blocks.iter().map(|block| {
                let (values, nearest) = block.run(&features, None);
                nearest_kink = nearest_kink.min(nearest);
                features = values.output.clone();
                values
            });
            blocks.collect()
        });
        let logits = self.logits(&features);
        let layers = LayerValues { stem, stages };
        Pass { layers, stem_output, pooled, logits, nearest_kink }
    }

    /// The gradients of one class's logit.
    pub(crate) fn gradients(&self, pass: &Pass, class: usize) -> LayerValues {
        let last = Cut::Block(STAGES - 1, self.stages[STAGES - 1].len() - 1);
        let mut gradient = self.head_gradient(pass.layers.at(last), class);
        let mut stages = [const { Vec::new() }; STAGES];
        for stage in (0..STAGES).rev() {
            for (number, block) in self.stages[stage].iter().enumerate().rev() {
                let values = &pass.layers.stages[stage][number];
                let input = pass.block_input(stage, number);
                let (gradients, of_input) = block.back(input, values, gradient);
                stages[stage].insert(0, gradients);
                gradient = of_input;
            }
        }
        let gradient = max_pool_back(&pass.stem_output, &gradient).masked_by(&pass.stem_output);
        LayerValues { stem: self.stem.normalise_back(&gradient), stages }
    }

    /// Logits of the rest of the network, if `features` replace the output of the cut's layer.
    pub(crate) fn rest(
        &self,
        cut: Cut,
        features: &Features,
        block_input: Option<&Features>,
    ) -> Vec<f64> {
        let input = || block_input.expect("the cut is within a block");
        let (stage, block, features) = match cut {
            Cut::Stem => {
                let pooled = max_pool(&self.stem.normalise(features).relu()).0;
                return self.logits_from(self.stages.iter().flatten(), pooled);
            }
            Cut::Block(stage, block) => (stage, block, features.clone()),
            Cut::Path(stage, block, _) | Cut::Shortcut(stage, block) => {
                let replaced = Some((cut, features));
                let (values, _) = self.stages[stage][block].run(input(), replaced);
                (stage, block, values.output)
            }
        };
        let later = self.stages[stage + 1..].iter().flatten();
        self.logits_from(self.stages[stage][block + 1..].iter().chain(later), features)
    }

    fn logits_from<'a>(
        &self,
        blocks: impl Iterator<Item = &'a Block>,
        features: Features,
    ) -> Vec<f64> {
        let run = |input: Features, block: &Block| block.run(&input, None).0.output;
        self.logits(&blocks.fold(features, run))
    }

    fn logits(&self, features: &Features) -> Vec<f64> {
        let logit = |class| {
            let products = features.values.iter().zip(self.head_gradient(features, class).values);
            products.map(|(value, gradient)| value * gradient).sum::<f64>()
        };
        (0..CLASSES).map(|class| logit(class) + f64::from(self.head_bias[class])).collect()
    }

    /// The gradient of a logit with respect to the last stage's output. The head is linear.
    fn head_gradient(&self, features: &Features, class: usize) -> Features {
        let inputs = self.head_weight.len() / CLASSES;
        let row = &self.head_weight[class * inputs..][..inputs];
        let positions = features.positions();
        let at = |index: usize| match self.settings.flatten {
            true => f64::from(row[index]),
            false => f64::from(row[index / positions]) / positions as f64,
        };
        let values = (0..features.values.len()).map(at).collect();
        Features { values, shape: features.shape }
    }
}

impl Block {
    fn new(noise: &mut Noise, kind: BlockKind, [inputs, width]: [usize; 2], stride: usize) -> Self {
        let mut convolution =
            |channels, kernel, stride| Convolution::new(noise, channels, [kernel, stride]);
        let (path, outputs) = match kind {
            BlockKind::Basic => {
                let first = convolution([inputs, width], 3, stride);
                (vec![first, convolution([width, width], 3, 1)], width)
            }
            BlockKind::Bottleneck | BlockKind::BottleneckStrideFirst => {
                let first = kind == BlockKind::BottleneckStrideFirst;
                let (reduce, middle) = if first { (stride, 1) } else { (1, stride) };
                let outputs = 4 * width;
                let path = vec![
                    convolution([inputs, width], 1, reduce),
                    convolution([width, width], 3, middle),
                    convolution([width, outputs], 1, 1),
                ];
                (path, outputs)
            }
        };
        let needed = stride != 1 || inputs != outputs;
        let shortcut = needed.then(|| convolution([inputs, outputs], 1, stride));
        Self { path, shortcut }
    }

    fn weights(&self) -> BlockWeights<'_> {
        BlockWeights {
            path: self.path.iter().map(Convolution::folded).collect(),
            shortcut: self.shortcut.as_ref().map(Convolution::folded),
        }
    }

    fn fit_norms(&mut self, inputs: &[Features], activity: Activity) {
        if let Some(shortcut) = &mut self.shortcut {
            let outputs: Vec<_> = inputs.iter().map(|input| shortcut.run(input)).collect();
            shortcut.fit_norm(&outputs, activity.shortcut());
        }
        let last = self.path.len() - 1;
        let mut inputs = inputs.to_vec();
        for (place, convolution) in self.path.iter_mut().enumerate() {
            let outputs: Vec<_> = inputs.iter().map(|input| convolution.run(input)).collect();
            let target = if place == last { activity.last() } else { activity.inner() };
            convolution.fit_norm(&outputs, target);
            let relu = |output| convolution.normalise(output).relu();
            inputs = outputs.iter().map(relu).collect();
        }
    }

    /// Also gives the smallest distance from zero in front of a ReLU. `replaced` stands in for the
    /// output of one convolution.
    fn run(&self, input: &Features, replaced: Option<(Cut, &Features)>) -> (BlockValues, f64) {
        let mut nearest = f64::INFINITY;
        let mut path: Vec<Features> = Vec::new();
        let (mut features, mut sum) = (input.clone(), None);
        for (place, convolution) in self.path.iter().enumerate() {
            let own = match replaced {
                Some((Cut::Path(_, _, at), replaced)) if at == place => replaced.clone(),
                _ => convolution.run(&features),
            };
            let normalised = convolution.normalise(&own);
            path.push(own);
            if place + 1 == self.path.len() {
                sum = Some(normalised);
            } else {
                nearest = nearest.min(normalised.nearest_to_zero());
                features = normalised.relu();
            }
        }
        let mut sum = sum.expect("a path is not empty");
        let shortcut = self.shortcut.as_ref().map(|convolution| {
            let own = match replaced {
                Some((Cut::Shortcut(..), replaced)) => replaced.clone(),
                _ => convolution.run(input),
            };
            sum.add(&convolution.normalise(&own));
            own
        });
        if shortcut.is_none() {
            sum.add(input);
        }
        nearest = nearest.min(sum.nearest_to_zero());
        (BlockValues { output: sum.relu(), path, shortcut }, nearest)
    }

    /// The gradients of the block's layers and of its input, from that of its output.
    fn back(
        &self,
        input: &Features,
        values: &BlockValues,
        output: Features,
    ) -> (BlockValues, Features) {
        let mut gradient = output.clone().masked_by(&values.output);
        let (shortcut, mut of_input) = match &self.shortcut {
            Some(convolution) => {
                let own = convolution.normalise_back(&gradient);
                let of_input = convolution.back(&own, input.shape);
                (Some(own), of_input)
            }
            None => (None, gradient.clone()),
        };
        let mut path = Vec::new();
        for (place, convolution) in self.path.iter().enumerate().rev() {
            let own = convolution.normalise_back(&gradient);
            gradient = match place.checked_sub(1) {
                None => convolution.back(&own, input.shape),
                Some(before) => {
                    let before = self.path[before].normalise(&values.path[before]).relu();
                    convolution.back(&own, before.shape).masked_by(&before)
                }
            };
            path.insert(0, own);
        }
        of_input.add(&gradient);
        (BlockValues { output, path, shortcut }, of_input)
    }
}

impl Activity {
    /// Of the stem, and of convolutions that a ReLU follows.
    fn inner(self) -> ChannelTarget {
        match self {
            Self::Mixed => |_| (0.0, 1.0),
            Self::Settled => |channel| (if channel % 4 == 3 { -1.5 } else { 1.5 }, 0.4),
        }
    }

    /// Of a path's last convolution, to which the shortcut is added.
    fn last(self) -> ChannelTarget {
        match self {
            Self::Mixed => |_| (-0.3, 0.7),
            Self::Settled => |channel| (if channel % 4 == 3 { -1.5 } else { 0.0 }, 0.3),
        }
    }

    fn shortcut(self) -> ChannelTarget {
        match self {
            Self::Mixed => |_| (0.0, 1.0),
            Self::Settled => |channel| (if channel % 4 == 3 { 0.0 } else { 1.5 }, 0.3),
        }
    }
}
