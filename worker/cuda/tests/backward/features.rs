//! One image's values at a layer, in f64, and the steps of a network that have no weights. Plain
//! loops, for reading. Convolutions are in `convolution`.

/// The values of one image, `[C, H, W]`.
#[derive(Clone, Debug)]
pub(crate) struct Features {
    pub(crate) values: Vec<f64>,
    pub(crate) shape: [usize; 3],
}

impl Features {
    pub(crate) fn zeros(shape: [usize; 3]) -> Self {
        Self { values: vec![0.0; shape.iter().product()], shape }
    }

    /// Values of one channel.
    pub(crate) fn positions(&self) -> usize {
        self.shape[1] * self.shape[2]
    }

    pub(crate) fn relu(mut self) -> Self {
        self.values.iter_mut().for_each(|value| *value = value.max(0.0));
        self
    }

    /// The gradient in front of a ReLU whose output is `output`.
    pub(crate) fn masked_by(mut self, output: &Self) -> Self {
        for (gradient, output) in self.values.iter_mut().zip(&output.values) {
            if *output <= 0.0 {
                *gradient = 0.0;
            }
        }
        self
    }

    pub(crate) fn add(&mut self, more: &Self) {
        assert_eq!(self.shape, more.shape);
        self.values.iter_mut().zip(&more.values).for_each(|(value, more)| *value += more);
    }

    /// Applies `factor * value + term` with each channel's own factor and term.
    pub(crate) fn affine(&self, factors: &[f32], terms: impl Fn(usize) -> f64) -> Self {
        let positions = self.positions();
        let values = self.values.iter().enumerate().map(|(index, value)| {
            let channel = index / positions;
            f64::from(factors[channel]) * value + terms(channel)
        });
        Self { values: values.collect(), shape: self.shape }
    }

    /// The same with one channel set to zero.
    pub(crate) fn without_channel(&self, channel: usize) -> Self {
        let mut without = self.clone();
        let positions = self.positions();
        without.values[channel * positions..][..positions].fill(0.0);
        without
    }

    /// The smallest distance of a value from zero.
    pub(crate) fn nearest_to_zero(&self) -> f64 {
        self.values.iter().map(|value| value.abs()).fold(f64::INFINITY, f64::min)
    }

    pub(crate) fn to_f32(&self) -> Vec<f32> {
        self.values.iter().map(|&value| value as f32).collect()
    }
}

/// The largest value of each 3×3 window with stride 2 and padding 1, and where in `input` each one
/// is: the first in row order.
pub(crate) fn max_pool(input: &Features) -> (Features, Vec<usize>) {
    let [channels, height, width] = input.shape;
    let (rows, columns) = (height.div_ceil(2), width.div_ceil(2));
    let window =
        |index: usize, side: usize| (2 * index).saturating_sub(1)..(2 * index + 2).min(side);
    let (mut values, mut winners) = (Vec::new(), Vec::new());
    for channel in 0..channels {
        for cell in 0..rows * columns {
            let mut winner: Option<usize> = None;
            for y in window(cell / columns, height) {
                for x in window(cell % columns, width) {
                    let index = (channel * height + y) * width + x;
                    if winner.is_none_or(|winner| input.values[index] > input.values[winner]) {
                        winner = Some(index);
                    }
                }
            }
            let winner = winner.expect("a window covers the input");
            values.push(input.values[winner]);
            winners.push(winner);
        }
    }
    (Features { values, shape: [channels, rows, columns] }, winners)
}

/// The gradient in front of [`max_pool`] of `input`.
pub(crate) fn max_pool_back(input: &Features, gradient: &Features) -> Features {
    let mut result = Features::zeros(input.shape);
    for (winner, gradient) in max_pool(input).1.into_iter().zip(&gradient.values) {
        result.values[winner] += gradient;
    }
    result
}

/// Pseudorandom numbers from -1 to 1 (xorshift, Marsaglia 2003).
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn value(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub(crate) fn values(&mut self, count: usize, largest: f32) -> Vec<f32> {
        (0..count).map(|_| largest * self.value()).collect()
    }
}
