//! A heat map over its image, and that as a file.
//!
//! Owns scaling, blending and encoding. Does not compute maps. Upstream: a decoded image and
//! its map. Downstream: the store.

use std::error::Error;

use camshaft_common::explain::{Colormap, OverlayFormat};
use image::RgbImage;
use image::codecs::png::PngEncoder;
use image::codecs::webp::WebPEncoder;
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use crate::cam::HeatMap;
use crate::colormap::color_table;

/// Quality of JPEG overlays, of 100: text-like edges of the map stay clean.
const JPEG_QUALITY: u8 = 90;

/// The overlay can't be encoded.
#[derive(Debug, thiserror::Error)]
#[error("can't write the overlay as {format}; choose another overlay format")]
pub struct EncodeOverlayError {
    format: OverlayFormat,
    #[source]
    source: Box<dyn Error + Send + Sync>,
}

/// Lays the map over the image: divided by its maximum (all zero stays all zero), stretched to
/// the image's size, coloured, and `(1 - alpha) * image + alpha * colour`.
///
/// The stretch is bilinear with pixel centres at halves and edges clamped: OpenCV's
/// `INTER_LINEAR`, PyTorch's `interpolate(mode="bilinear", align_corners=False)`. `alpha` is
/// clamped to 0..1. A map without cells counts as all zero.
#[must_use]
pub fn overlay(mut image: RgbImage, map: &HeatMap, colormap: Colormap, alpha: f32) -> RgbImage {
    let width = image.width() as usize;
    let height = image.height() as usize;
    if width == 0 || height == 0 {
        return image;
    }
    let levels = Levels::of(map);
    let columns = samples(levels.width, width);
    let rows = samples(levels.height, height);
    let blend = Blend::new(colormap, alpha);

    let mut heat = vec![0.0; levels.width];
    for (pixels, row) in image.chunks_exact_mut(3 * width).zip(rows) {
        let (above, below) = (levels.row(row.first), levels.row(row.second));
        for ((heat, &above), &below) in heat.iter_mut().zip(above).zip(below) {
            *heat = above + (below - above) * row.share;
        }
        for (pixel, column) in pixels.as_chunks_mut::<3>().0.iter_mut().zip(&columns) {
            let (left, right) = (heat[column.first], heat[column.second]);
            // The cast saturates.
            let level = (left + (right - left) * column.share + 0.5) as u8;
            blend.apply(pixel, level);
        }
    }
    image
}

/// A map whose largest value is 255.
struct Levels {
    width: usize,
    height: usize,
    values: Vec<f32>,
}

impl Levels {
    fn of(map: &HeatMap) -> Self {
        if map.width == 0 || map.height == 0 {
            return Self { width: 1, height: 1, values: vec![0.0] };
        }
        assert_eq!(map.values.len(), map.width * map.height, "a map has a value for each cell");
        let max = map.values.iter().copied().fold(0.0, f32::max);
        let values = map
            .values
            .iter()
            .map(|&value| if max > 0.0 { (value / max).max(0.0) * 255.0 } else { 0.0 })
            .collect();
        Self { width: map.width, height: map.height, values }
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.width..][..self.width]
    }
}

/// Where a pixel reads: `(1 - share)` of the first cell and `share` of the second.
struct Sample {
    first: usize,
    second: usize,
    share: f32,
}

/// One sample for each of `pixels`, along one axis of `cells`.
fn samples(cells: usize, pixels: usize) -> Vec<Sample> {
    let scale = cells as f64 / pixels as f64;
    let last = cells - 1;
    (0..pixels)
        .map(|pixel| {
            let position = ((pixel as f64 + 0.5) * scale - 0.5).clamp(0.0, last as f64);
            let first = position as usize;
            let share = (position - first as f64) as f32;
            Sample { first, second: (first + 1).min(last), share }
        })
        .collect()
}

/// Both terms of the blend for every byte and level, in 1/65536.
struct Blend {
    image: [u32; 256],
    color: [[u32; 3]; 256],
}

impl Blend {
    const ONE: f64 = 65536.0;
    const HALF: u32 = 32768;

    fn new(colormap: Colormap, alpha: f32) -> Self {
        let alpha = f64::from(alpha.clamp(0.0, 1.0));
        let share = |share: f64, value: u8| (share * f64::from(value) * Self::ONE).round() as u32;
        Self {
            image: std::array::from_fn(|byte| share(1.0 - alpha, byte as u8)),
            // Half is added here, once, to round the sum to nearest.
            color: color_table(colormap).map(|rgb| rgb.map(|c| share(alpha, c) + Self::HALF)),
        }
    }

    fn apply(&self, pixel: &mut [u8; 3], level: u8) {
        let color = &self.color[usize::from(level)];
        for (channel, color) in pixel.iter_mut().zip(color) {
            *channel = ((self.image[usize::from(*channel)] + color) >> 16) as u8;
        }
    }
}

/// Encodes an overlay; `None` where no overlay is written.
///
/// # Errors
///
/// When the format can't hold an image of this size: a WebP's sides have at most 16,384 pixels,
/// a JPEG's 65,535.
pub fn encode_overlay(
    image: &RgbImage,
    format: OverlayFormat,
) -> Result<Option<Vec<u8>>, EncodeOverlayError> {
    let mut file = Vec::new();
    let written = match format {
        OverlayFormat::Jpeg => write_jpeg(image, &mut file),
        OverlayFormat::Png => {
            image.write_with_encoder(PngEncoder::new(&mut file)).map_err(Into::into)
        }
        OverlayFormat::Webp => {
            image.write_with_encoder(WebPEncoder::new_lossless(&mut file)).map_err(Into::into)
        }
        OverlayFormat::None => return Ok(None),
    };
    match written {
        Ok(()) => Ok(Some(file)),
        Err(source) => Err(EncodeOverlayError { format, source }),
    }
}

/// By jpeg-encoder, which takes a quarter of the time of the image crate's own encoder.
fn write_jpeg(image: &RgbImage, file: &mut Vec<u8>) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut encoder = Encoder::new(file, JPEG_QUALITY);
    // Chroma at half resolution: the heat is smooth, and photographs come that way.
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    let (width, height) = (image.width().try_into()?, image.height().try_into()?);
    Ok(encoder.encode(image.as_raw(), width, height, ColorType::Rgb)?)
}

#[cfg(test)]
mod tests {
    use image::Rgb;
    use proptest::prelude::*;

    use super::*;

    fn map(height: usize, width: usize, values: &[f32]) -> HeatMap {
        HeatMap { height, width, values: values.to_vec() }
    }

    /// The level under each pixel: a black image shows the bare colours.
    fn levels(map: &HeatMap, width: u32, height: u32) -> Vec<u8> {
        let table = color_table(Colormap::Viridis);
        overlay(RgbImage::new(width, height), map, Colormap::Viridis, 1.0)
            .pixels()
            .map(|pixel| {
                let level = table.iter().position(|color| *color == pixel.0);
                level.expect("the colour is in the table") as u8
            })
            .collect()
    }

    /// `np.round(cv2.resize(m / m.max(), (7, 5), interpolation=cv2.INTER_LINEAR) * 255)`,
    /// OpenCV 4.
    #[test]
    fn the_map_is_stretched_as_opencv_does() {
        let map = map(2, 3, &[0.0, 3.0, 6.0, 11.0, 14.0, 0.0]);
        let expected = [
            [0, 8, 31, 55, 78, 101, 109],
            [20, 28, 51, 75, 85, 95, 98],
            [100, 108, 131, 155, 112, 69, 55],
            [180, 188, 212, 235, 139, 43, 11],
            [200, 208, 232, 255, 146, 36, 0],
        ];
        for (found, expected) in levels(&map, 7, 5).iter().zip(expected.as_flattened()) {
            assert!(found.abs_diff(*expected) <= 1, "{found} is not {expected}");
        }
    }

    #[test]
    fn only_the_ratio_to_the_maximum_counts() {
        let small = levels(&map(1, 2, &[1e-6, 2e-6]), 6, 1);
        assert_eq!(small, levels(&map(1, 2, &[500.0, 1000.0]), 6, 1));
        assert_eq!(small[5], 255);
    }

    #[test]
    fn a_map_of_zeros_stays_zero() {
        assert_eq!(levels(&map(2, 2, &[0.0; 4]), 3, 3), [0; 9]);
        assert_eq!(levels(&map(0, 0, &[]), 3, 3), [0; 9]);
    }

    #[test]
    fn half_an_alpha_is_half_of_each() {
        let image = RgbImage::from_pixel(1, 1, Rgb([10, 21, 200]));
        // The hottest colour of jet is (128, 0, 0).
        let over = overlay(image, &map(1, 1, &[1.0]), Colormap::Jet, 0.5);
        assert_eq!(over.get_pixel(0, 0).0, [69, 11, 100]);
    }

    #[test]
    fn lossless_overlays_keep_every_pixel() {
        let image = RgbImage::from_fn(20, 11, |x, y| Rgb([x as u8 * 9, y as u8 * 20, 77]));
        for format in [OverlayFormat::Png, OverlayFormat::Webp] {
            let file = encode_overlay(&image, format).unwrap().unwrap();
            assert_eq!(image::load_from_memory(&file).unwrap().into_rgb8(), image, "{format}");
        }
    }

    #[test]
    fn a_jpeg_overlay_is_close_to_its_pixels() {
        let image = RgbImage::from_fn(64, 48, |x, y| Rgb([x as u8 * 3, y as u8 * 4, 77]));
        let file = encode_overlay(&image, OverlayFormat::Jpeg).unwrap().unwrap();
        let read = image::load_from_memory(&file).unwrap().into_rgb8();
        assert_eq!(read.dimensions(), image.dimensions());
        let differences = read.iter().zip(image.iter()).map(|(a, &b)| u64::from(a.abs_diff(b)));
        assert!(differences.sum::<u64>() < 3 * image.len() as u64);
    }

    #[test]
    fn no_overlay_is_no_file() {
        assert!(encode_overlay(&RgbImage::new(1, 1), OverlayFormat::None).unwrap().is_none());
    }

    #[test]
    fn a_format_that_cannot_hold_the_image_is_named() {
        let error = encode_overlay(&RgbImage::new(16_385, 1), OverlayFormat::Webp).unwrap_err();
        assert!(error.to_string().contains("webp; choose another"), "{error}");
    }

    prop_compose! {
        fn any_map()(height in 1_usize..9, width in 1_usize..9)(
            values in prop::collection::vec(-1.0_f32..5.0, height * width),
            height in Just(height),
            width in Just(width),
        ) -> HeatMap {
            HeatMap { height, width, values }
        }
    }

    prop_compose! {
        fn any_image()(width in 1_u32..40, height in 1_u32..40)(
            pixels in prop::collection::vec(any::<u8>(), (width * height * 3) as usize),
            width in Just(width),
            height in Just(height),
        ) -> RgbImage {
            RgbImage::from_raw(width, height, pixels).unwrap()
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn alpha_mixes_image_and_colors(
            image in any_image(),
            map in any_map(),
            colormap in prop::sample::select(Colormap::ALL),
            alpha in 0.0_f32..=1.0,
        ) {
            let nothing = overlay(image.clone(), &map, colormap, 0.0);
            prop_assert_eq!(&nothing, &image);
            let colors = overlay(image.clone(), &map, colormap, 1.0);
            let table = color_table(colormap);
            prop_assert!(colors.pixels().all(|pixel| table.contains(&pixel.0)));
            let over = overlay(image.clone(), &map, colormap, alpha);
            prop_assert_eq!(over.dimensions(), image.dimensions());
            for ((&over, &image), &color) in over.iter().zip(image.iter()).zip(colors.iter()) {
                let exact = (1.0 - alpha) * f32::from(image) + alpha * f32::from(color);
                prop_assert!((f32::from(over) - exact).abs() <= 0.501);
            }
        }

        #[test]
        fn odd_values_never_panic(
            image in any_image(),
            mut map in any_map(),
            odd in prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::MIN, f32::MAX]),
            alpha in any::<f32>(),
        ) {
            map.values[0] = odd;
            let size = image.dimensions();
            prop_assert_eq!(overlay(image, &map, Colormap::Jet, alpha).dimensions(), size);
        }
    }
}
