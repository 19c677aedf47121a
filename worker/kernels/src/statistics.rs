//! What a network's activations are on a sample of images, from which the scales of 8 bits follow.
//! Collects and combines; [`quantisation`](crate::quantisation) makes scales of it.

use crate::input::{BatchInput, BatchShape};
use crate::layout::{Activation, PLANE};
use crate::network_weights::{NetworkWeights, STAGES, UnsupportedNetwork};
use crate::pooling;

/// The name of the network's input among points.
pub(crate) const INPUT: &str = "input";
/// The name of the stem's output, after pooling.
pub(crate) const STEM: &str = "conv1";

/// The name of the output of a convolution within a block, as torchvision has it.
pub(crate) fn inner_point(stage: usize, block: usize, convolution: usize) -> String {
    format!("layer{}.{block}.conv{}", stage + 1, convolution + 1)
}

/// The name of a block's output.
pub(crate) fn block_point(stage: usize, block: usize) -> String {
    format!("layer{}.{block}", stage + 1)
}

/// The activations at one point of a network, by channel.
#[derive(Clone, Debug, PartialEq)]
pub struct PointStatistics {
    /// torchvision's name of the layer whose output it is: `conv1` (after pooling), `layer1.0.conv2`
    /// or `layer1.0` (a block's output), each after its ReLU; `input` for the scaled image.
    pub name: String,
    /// The largest value of each channel.
    pub largest: Vec<f32>,
    /// The mean of each channel over images and pixels.
    pub mean: Vec<f32>,
}

/// The activations of a network on some images: its points from the input to the last block.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ActivationStatistics {
    /// In the order of the network.
    pub points: Vec<PointStatistics>,
}

/// How the largest values of several images become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeRule {
    /// The largest of all.
    Largest,
    /// The mean of the images' largest: Krishnamoorthi's whitepaper, arXiv:1806.08342, takes a moving
    /// one.
    MeanOfLargest,
    /// The images' largest at the 99th percentile: clipping after Migacz (GTC 2017), by a quantile.
    Percentile99,
}

impl ActivationStatistics {
    /// Statistics of several images, from those of each.
    ///
    /// # Panics
    /// If there are no images, or if their points differ.
    pub fn of_images(images: &[Self], rule: RangeRule) -> Self {
        let first = images.first().expect("statistics of at least one image");
        let points = first.points.iter().enumerate().map(|(at, point)| {
            let all: Vec<_> = images.iter().map(|image| &image.points[at]).collect();
            assert!(all.iter().all(|other| other.name == point.name), "the same points");
            let channel = |channel: usize| {
                let mut largest: Vec<f32> =
                    all.iter().map(|point| point.largest[channel]).collect();
                largest.sort_by(f32::total_cmp);
                let sum: f64 = all.iter().map(|point| f64::from(point.mean[channel])).sum();
                (rule.apply(&largest), (sum / images.len() as f64) as f32)
            };
            let (largest, mean) = (0..point.largest.len()).map(channel).unzip();
            PointStatistics { name: point.name.clone(), largest, mean }
        });
        Self { points: points.collect() }
    }

    /// The statistics of a point.
    pub(crate) fn point(
        &self,
        name: &str,
        channels: usize,
    ) -> Result<&PointStatistics, UnsupportedNetwork> {
        let found = self.points.iter().find(|point| point.name == name);
        let Some(point) = found else {
            return Err(UnsupportedNetwork(format!("its calibration has no {name}")));
        };
        if point.largest.len() != channels || point.mean.len() != channels {
            return Err(UnsupportedNetwork(format!(
                "its calibration has {} channels of {name}, and it has {channels}",
                point.largest.len()
            )));
        }
        let usable = |value: &f32| value.is_finite();
        if !point.largest.iter().chain(&point.mean).all(usable) {
            return Err(UnsupportedNetwork(format!(
                "its calibration has numbers of {name} that are not finite"
            )));
        }
        Ok(point)
    }

    /// True if it has the points of this network and no others.
    pub(crate) fn fits(&self, weights: &NetworkWeights<'_>) -> bool {
        let blocks = (0..STAGES).flat_map(|stage| {
            weights.stages[stage].iter().enumerate().flat_map(move |(number, block)| {
                let inner = (0..block.path.len() - 1).map(move |at| inner_point(stage, number, at));
                inner.chain([block_point(stage, number)])
            })
        });
        let names = [INPUT, STEM].map(str::to_owned).into_iter().chain(blocks);
        names.eq(self.points.iter().map(|point| point.name.clone()))
    }
}

impl RangeRule {
    /// All rules.
    pub const ALL: [Self; 3] = [Self::Largest, Self::MeanOfLargest, Self::Percentile99];

    /// Its name in calibrations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Largest => "largest",
            Self::MeanOfLargest => "mean-of-largest",
            Self::Percentile99 => "percentile-99",
        }
    }

    /// Of values in their order.
    fn apply(self, sorted: &[f32]) -> f32 {
        match self {
            Self::Largest => sorted[sorted.len() - 1],
            Self::MeanOfLargest => {
                (sorted.iter().copied().map(f64::from).sum::<f64>() / sorted.len() as f64) as f32
            }
            Self::Percentile99 => sorted[(sorted.len() * 99).div_ceil(100) - 1],
        }
    }
}

/// Collects a single image's statistics during its pass.
#[derive(Debug, Default)]
pub(crate) struct StatisticsCollector {
    statistics: ActivationStatistics,
}

impl StatisticsCollector {
    pub(crate) fn finish(self) -> ActivationStatistics {
        self.statistics
    }

    /// Notes the scaled image, which is there before the pass.
    pub(crate) fn note_input(&mut self, input: BatchInput<'_>, shape: BatchShape) {
        let pixels = shape.height * shape.width;
        let (mut largest, mut mean) = (vec![f32::NEG_INFINITY; 3], Vec::new());
        for (channel, largest) in largest.iter_mut().enumerate() {
            let values = (0..pixels).map(|pixel| input.value(channel, pixel, pixels));
            let mut sum = 0.0;
            for value in values {
                *largest = largest.max(value);
                sum += f64::from(value);
            }
            mean.push((sum / pixels as f64) as f32);
        }
        self.statistics.points.push(PointStatistics { name: INPUT.to_owned(), largest, mean });
    }

    /// Notes the output of a layer for the image in a slot.
    pub(crate) fn note(&mut self, name: String, activation: &Activation, slot: usize) {
        let mut largest = vec![f32::NEG_INFINITY; activation.channels];
        let mut sums = vec![0.0_f64; activation.channels];
        pooling::for_each_pixel(activation, slot, None, |plane, _, values| {
            let channels = plane * PLANE..(plane + 1) * PLANE;
            let places = largest[channels.clone()].iter_mut().zip(&mut sums[channels]);
            for ((largest, sum), value) in places.zip(values) {
                *largest = largest.max(value);
                *sum += f64::from(value);
            }
        });
        let pixels = activation.layout.pixels() as f64;
        let mean = sums.into_iter().map(|sum| (sum / pixels) as f32).collect();
        self.statistics.points.push(PointStatistics { name, largest, mean });
    }
}
