//! A forward pass with its head and its maps in plain loops and f64, and how far from it a format's
//! numbers may be.

use camshaft_cuda::{NumberFormat, PassOutput};
use camshaft_kernels::{BlockWeights, ConvolutionWeights, STAGES};

use crate::networks::{CLASSES, TestNetwork};

/// Features `[C, H, W]` of an image.
#[derive(Clone)]
pub(crate) struct Features {
    pub(crate) values: Vec<f64>,
    pub(crate) shape: [usize; 3],
}

/// What a pass must give for an image.
pub(crate) struct Expected {
    pub(crate) stages: [Features; STAGES],
    /// `[C]`.
    pub(crate) pooled: Vec<f64>,
    /// `[K]`.
    pub(crate) logits: Vec<f64>,
    /// The map of each class, rectified: `[K, H × W]`.
    pub(crate) maps: Vec<Vec<f64>>,
    /// The sums of the magnitudes of all terms, the largest of all logits' and of all maps'. Errors
    /// are relative to these: terms of both signs may cancel each other.
    logit_terms: f64,
    map_terms: f64,
}

/// The largest error of a format, relative to the largest value. The 16-bit formats have 11 and 8
/// bits, TF32's factors 11, and a network adds up their rounding errors.
pub(crate) fn tolerance(format: NumberFormat) -> f64 {
    match format {
        NumberFormat::F32 => 1e-5,
        NumberFormat::Tf32 | NumberFormat::F16 => 1e-2,
        NumberFormat::Bf16 => 6e-2,
    }
}

fn convolve(input: &Features, weights: &ConvolutionWeights<'_>) -> Features {
    let &ConvolutionWeights { weight, bias, inputs, outputs, kernel, stride } = weights;
    let [_, height, width] = input.shape;
    let padding = kernel / 2;
    let side = |side: usize| (side + 2 * padding - kernel) / stride + 1;
    let (rows, columns) = (side(height), side(width));
    let mut values = vec![0.0; outputs * rows * columns];
    for output in 0..outputs {
        let result = &mut values[output * rows * columns..][..rows * columns];
        result.fill(f64::from(bias[output]));
        for channel in 0..inputs {
            let source = &input.values[channel * height * width..][..height * width];
            for tap in 0..kernel * kernel {
                let weight = weight[(output * inputs + channel) * kernel * kernel + tap];
                let weight = f64::from(weight);
                for y in 0..rows {
                    let from_y = (y * stride + tap / kernel).wrapping_sub(padding);
                    if from_y >= height {
                        continue;
                    }
                    for x in 0..columns {
                        let from_x = (x * stride + tap % kernel).wrapping_sub(padding);
                        if from_x < width {
                            result[y * columns + x] += weight * source[from_y * width + from_x];
                        }
                    }
                }
            }
        }
    }
    Features { values, shape: [outputs, rows, columns] }
}

fn relu(mut features: Features) -> Features {
    features.values.iter_mut().for_each(|value| *value = value.max(0.0));
    features
}

fn max_pool(input: &Features) -> Features {
    let [channels, height, width] = input.shape;
    let (rows, columns) = (height.div_ceil(2), width.div_ceil(2));
    let window =
        |index: usize, side: usize| (2 * index).saturating_sub(1)..(2 * index + 2).min(side);
    let mut values = Vec::with_capacity(channels * rows * columns);
    for channel in input.values.chunks(height * width) {
        for y in 0..rows {
            for x in 0..columns {
                let pixels = window(y, height).flat_map(|row| {
                    window(x, width).map(move |column| channel[row * width + column])
                });
                values.push(pixels.fold(f64::NEG_INFINITY, f64::max));
            }
        }
    }
    Features { values, shape: [channels, rows, columns] }
}

fn block(input: &Features, weights: &BlockWeights<'_>) -> Features {
    let (last, path) = weights.path.split_last().unwrap();
    let inner = path.iter().fold(input.clone(), |x, weights| relu(convolve(&x, weights)));
    let mut output = convolve(&inner, last);
    let shortcut = weights.shortcut.as_ref().map(|weights| convolve(input, weights));
    let shortcut = shortcut.as_ref().unwrap_or(input);
    output.values.iter_mut().zip(&shortcut.values).for_each(|(value, more)| *value += more);
    relu(output)
}

impl Expected {
    /// For one image's input `[3, H, W]`.
    pub(crate) fn of(network: &TestNetwork, input: &[f32]) -> Self {
        let weights = network.weights();
        let [height, width] = network.plan.image;
        let values = input.iter().copied().map(f64::from).collect();
        let image = Features { values, shape: [3, height, width] };
        let mut features = max_pool(&relu(convolve(&image, &weights.stem)));
        let stages: [Features; STAGES] = std::array::from_fn(|stage| {
            features = weights.stages[stage].iter().fold(features.clone(), |x, b| block(&x, b));
            features.clone()
        });
        Self::with_head(network, stages)
    }

    fn with_head(network: &TestNetwork, stages: [Features; STAGES]) -> Self {
        let Features { values, shape: [channels, height, width] } = &stages[STAGES - 1];
        let positions = height * width;
        let mean = |values: &[f64]| values.iter().sum::<f64>() / positions as f64;
        let pooled: Vec<f64> = values.chunks(positions).map(mean).collect();
        let mut logits = Vec::new();
        let mut maps = Vec::new();
        let (mut logit_terms, mut map_terms) = (0.0, 0.0);
        let row_values = network.head_weight.len() / CLASSES;
        for (row, &bias) in network.head_weight.chunks(row_values).zip(&network.head_bias) {
            let row: Vec<f64> = row.iter().copied().map(f64::from).collect();
            let inputs = if network.plan.flatten { values } else { &pooled };
            let products = || row.iter().zip(inputs).map(|(weight, value)| weight * value);
            logits.push(products().sum::<f64>() + f64::from(bias));
            logit_terms = f64::max(logit_terms, products().map(f64::abs).sum());
            // The gradient of each channel, averaged over positions.
            let share = |channel: usize| match network.plan.flatten {
                true => mean(&row[channel * positions..][..positions]),
                false => row[channel] / positions as f64,
            };
            let weights: Vec<f64> = (0..*channels).map(share).collect();
            let mut map = Vec::new();
            for position in 0..positions {
                let terms = weights
                    .iter()
                    .enumerate()
                    .map(|(channel, weight)| weight * values[channel * positions + position]);
                map.push(terms.clone().sum::<f64>().max(0.0));
                map_terms = f64::max(map_terms, terms.map(f64::abs).sum());
            }
            maps.push(map);
        }
        Self { stages, pooled, logits, maps, logit_terms, map_terms }
    }

    /// The first of the classes with the largest logit.
    pub(crate) fn top(&self) -> usize {
        first_largest(&self.logits)
    }
}

/// The index of the first of the largest values.
pub(crate) fn first_largest<T: PartialOrd + Copy>(values: &[T]) -> usize {
    let mut largest = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[largest] {
            largest = index;
        }
    }
    largest
}

/// Fails if a value is off by more than `allowed`.
pub(crate) fn compare(what: &str, values: &[f32], expected: &[f64], allowed: f64) {
    assert_eq!(values.len(), expected.len(), "{what}");
    let mut worst = 0.0;
    for (index, (&value, &expected)) in values.iter().zip(expected).enumerate() {
        assert!(value.is_finite(), "{what}: value {index} is {value}");
        worst = f64::max(worst, (f64::from(value) - expected).abs());
    }
    assert!(worst <= allowed, "{what}: off by {worst:e}, more than {allowed:e}");
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |a, b| f64::max(a, b.abs()))
}

/// Fails if a pass's output is not what is expected of its images, with the stages that it has.
/// `labels` are those of the request, or empty.
pub(crate) fn check(
    what: &str,
    output: &PassOutput,
    expected: &[&Expected],
    labels: &[Option<usize>],
    format: NumberFormat,
) {
    let images = expected.len();
    assert_eq!(output.tops.len(), images, "{what}");
    let tolerance = tolerance(format);
    let part = |values: &[f32], image: usize| {
        let size = values.len() / images;
        values[image * size..][..size].to_vec()
    };
    for (image, expected) in expected.iter().enumerate() {
        let what = format!("{what}, {format:?}, image {image} of {images}");
        for (stage, output) in output.stages.iter().enumerate() {
            let Some(output) = output else { continue };
            let Features { values, shape } = &expected.stages[stage];
            assert_eq!(output.shape[0], images, "{what}");
            assert_eq!(output.shape[1..], shape[..], "{what}, stage {stage}");
            let what = format!("{what}, stage {stage}");
            compare(&what, &part(&output.values, image), values, tolerance * largest(values));
        }
        let pooled = part(&output.pooled, image);
        let allowed = tolerance * largest(&expected.pooled);
        compare(&format!("{what}, pooled"), &pooled, &expected.pooled, allowed);
        let logits = part(&output.logits, image);
        let allowed = tolerance * expected.logit_terms;
        compare(&format!("{what}, logits"), &logits, &expected.logits, allowed);
        let top = output.tops[image];
        assert_eq!(top, first_largest(&logits), "{what}: the top class");
        let maps = part(&output.maps, image);
        let (of_top, of_label) = maps.split_at(maps.len() / 2);
        let allowed = tolerance * expected.map_terms;
        compare(&format!("{what}, map"), of_top, &expected.maps[top], allowed);
        match labels.get(image).copied().flatten() {
            Some(label) => {
                let what = format!("{what}, the label's map");
                compare(&what, of_label, &expected.maps[label], allowed);
            }
            None => assert!(of_label.iter().all(|&value| value == 0.0), "{what}: no label, a map"),
        }
    }
}
