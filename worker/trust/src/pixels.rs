//! Images before normalisation, as the measures change them, and the heat of each of their pixels.
//!
//! Does not run a model; needs only its input rule. Upstream: a network's input and a map of it.
//! Downstream: the measures.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::F32;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_pcg::Pcg64;

use camshaft_vision::heat_map::HeatMap;
use camshaft_vision::input::InputRule;

/// Channels of an image.
pub const CHANNELS: usize = 3;

/// An image of the network's input size, before normalisation.
#[derive(Clone, Debug, PartialEq)]
pub struct InputImage {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// `[3, height, width]`, 0 to 1.
    pub values: Vec<f32>,
}

impl InputImage {
    /// Undoes the normalisation of a network's input `[3, H, W]`: `input * std + mean`.
    ///
    /// # Panics
    /// If the input's size is not the rule's.
    #[must_use]
    pub fn of_input(input: &[f32], rule: &InputRule) -> Self {
        let plane = rule.height * rule.width;
        assert_eq!(input.len(), CHANNELS * plane, "an input is as large as its rule says");
        let planes = input.chunks(plane).zip(&rule.mean).zip(&rule.std);
        let values =
            planes.flat_map(|((plane, mean), std)| plane.iter().map(move |v| v * std + mean));
        Self { height: rule.height, width: rule.width, values: values.collect() }
    }

    /// Number of values in one channel.
    #[must_use]
    pub fn plane(&self) -> usize {
        self.height * self.width
    }
}

/// Normalises pixels `[3, H, W]`, `(value - mean) / std`, and appends them to a batch.
pub fn push_input(pixels: &[f32], rule: &InputRule, batch: &mut Vec<f32>) {
    let planes = pixels.chunks(rule.height * rule.width).zip(&rule.mean).zip(&rule.std);
    for ((plane, mean), std) in planes {
        batch.extend(plane.iter().map(|value| (value - mean) / std));
    }
}

/// A map stretched to its image's size, and the order of its pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct PixelHeat {
    /// `[H, W]`, 0 to 1: the map divided by its maximum and stretched bilinearly, with pixel
    /// centres at halves, as overlays show it. A map of zeros stays zero.
    pub values: Vec<f32>,
    /// The pixels, hottest first.
    pub order: Vec<u32>,
}

/// Seed of the order of equally hot cells. Any seed will do; it is the same for every image.
const TIES_SEED: u64 = 1;

impl PixelHeat {
    /// Stretches a map without negative values to an image's height and width.
    ///
    /// A rectified map has many zeros, so their order matters. By position, every map would begin
    /// at the top. In a random order of pixels they would be scattered dots, which destroy an image
    /// more than a region does and are imputed more easily. So equally hot pixels are ordered by
    /// the map's cell they are in, and the cells are in a random order.
    ///
    /// # Panics
    /// If the map has no cells, or the image no pixels.
    #[must_use]
    pub fn of(map: &HeatMap, (height, width): (usize, usize)) -> Self {
        let values = stretched(map, (height, width));
        let mut turns: Vec<_> = (0..map.values.len()).collect();
        turns.shuffle(&mut Pcg64::seed_from_u64(TIES_SEED));
        let cell = |pixel: usize| {
            let (row, column) = (pixel / width, pixel % width);
            (row * map.height / height) * map.width + column * map.width / width
        };
        let mut order: Vec<_> = (0..(height * width) as u32).collect();
        order.sort_unstable_by(|&a, &b| {
            let [one, other] = [a, b].map(|pixel| pixel as usize);
            let hotter = values[other].total_cmp(&values[one]);
            hotter.then_with(|| (turns[cell(one)], a).cmp(&(turns[cell(other)], b)))
        });
        Self { values, order }
    }
}

/// The map's values divided by its maximum, at another size.
fn stretched(map: &HeatMap, (height, width): (usize, usize)) -> Vec<f32> {
    let max = map.values.iter().copied().fold(0.0, f32::max);
    let scale = if max > 0.0 { max.recip() } else { 0.0 };
    let cells: Vec<_> = map.values.iter().map(|value| F32::new(value * scale)).collect();
    let source = TypedImageRef::new(map.width as u32, map.height as u32, &cells)
        .expect("a map has a value for each cell");
    let mut target = TypedImage::new(width as u32, height as u32);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    Resizer::new().resize_typed(&source, &mut target, &options).expect("both have pixels");
    // The filter's rounding can leave the range.
    target.pixels().iter().map(|pixel| pixel.0.clamp(0.0, 1.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use camshaft_vision::input::{ChannelOrder, Interpolation, Resize, Scale};

    #[test]
    fn pixels_and_input_are_each_others_inverse() {
        let rule = InputRule {
            height: 1,
            width: 2,
            resize: Resize::Stretch,
            interpolation: Interpolation::BilinearAntialiased,
            scale: Scale::ByteToUnit,
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
            color: ChannelOrder::Rgb,
        };
        let values = [0.0, 1.0, 0.25, 0.5, 0.75, 0.125];
        let mut input = Vec::new();
        push_input(&values, &rule, &mut input);
        assert!((input[1] - (1.0 - 0.485) / 0.229).abs() < 1e-6);
        let pixels = InputImage::of_input(&input, &rule);
        for (found, expected) in pixels.values.iter().zip(values) {
            assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
        }
    }

    #[test]
    fn a_map_is_scaled_and_stretched_between_cell_centres() {
        let map = HeatMap { height: 1, width: 2, values: vec![0.0, 8.0] };
        let heat = PixelHeat::of(&map, (1, 4));
        for (found, expected) in heat.values.iter().zip([0.0, 0.25, 0.75, 1.0]) {
            assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
        }
        assert_eq!(heat.order, [3, 2, 1, 0]);
    }

    #[test]
    fn equally_hot_pixels_come_cell_by_cell() {
        let map = HeatMap { height: 2, width: 2, values: vec![0.0; 4] };
        let heat = PixelHeat::of(&map, (4, 4));
        assert_eq!(heat.values, [0.0; 16]);
        let cells: Vec<_> = heat.order.iter().map(|&p| (p / 8, p % 4 / 2)).collect();
        let mut seen = cells.clone();
        seen.dedup();
        assert_eq!(seen.len(), 4, "{cells:?}");
        let mut pixels = heat.order;
        pixels.sort_unstable();
        assert!(pixels.into_iter().eq(0..16));
    }
}
