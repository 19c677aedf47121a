//! Makes the network's input from an image.
//!
//! Owns resizing, cropping and normalisation, by the rule in the model's `config.json`, and which
//! part of the image the network sees. Does not batch. Upstream: a decoded image. Downstream: the
//! model, and overlays.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use image::RgbImage;

use crate::picture::Picture;

mod rule;

pub use rule::{ChannelOrder, InputRule, Interpolation, Resize, Scale};

/// Resizes and crops to the input's size: bytes `[height, width, 3]`, with the image's channels.
/// Does not scale them: [`NormalisationTable`] tells what they mean. Of an image at a reduced scale the
/// input is that of the full size, but for frequencies that were not decoded.
///
/// # Panics
///
/// If the image or the rule has no pixels.
#[must_use]
pub fn to_pixels<'a>(picture: impl Into<Picture<'a>>, rule: &InputRule) -> Vec<u8> {
    pixels_of(picture.into(), rule)
}

fn pixels_of(picture: Picture<'_>, rule: &InputRule) -> Vec<u8> {
    let crop = ResizedCrop::of(picture.frame.size, rule);
    let (width, height) = (rule.width as u32, rule.height as u32);
    if crop.resized == picture.pixels.dimensions() && crop.resized == (width, height) {
        return picture.pixels.as_raw().clone();
    }
    let filter = match rule.interpolation {
        Interpolation::BilinearAntialiased => FilterType::Bilinear,
        // Both are Keys' cubic with a = -0.5.
        Interpolation::BicubicAntialiased => FilterType::CatmullRom,
        Interpolation::LanczosAntialiased => FilterType::Lanczos3,
    };
    let region = crop.region(picture, (width, height));
    resample(picture, region, (width, height), filter)
}

/// Makes the input `[3, height, width]`, f32, row-major: one plane for each channel.
///
/// # Panics
///
/// If the image or the rule has no pixels.
#[must_use]
pub fn to_input(image: &RgbImage, rule: &InputRule) -> Vec<f32> {
    NormalisationTable::of(rule).planes(&to_pixels(image, rule))
}

/// The width and height that an image of `size` is resized to before the input is cut out of it.
pub(crate) fn resized(size: (u32, u32), rule: &InputRule) -> (u32, u32) {
    ResizedCrop::of(size, rule).resized
}

/// The part of an image that becomes the input: left, top, right and bottom edge as shares of its
/// width and height. `None` if it is the whole image.
#[must_use]
pub fn region((width, height): (u32, u32), rule: &InputRule) -> Option<[f32; 4]> {
    let crop = ResizedCrop::of((width, height), rule);
    let shares = |start: u32, size: usize, whole: u32| {
        [start as f32, (start as usize + size) as f32].map(|at| at / whole as f32)
    };
    let [left, right] = shares(crop.left, rule.width, crop.resized.0);
    let [top, bottom] = shares(crop.top, rule.height, crop.resized.1);
    let region = [left, top, right, bottom];
    (region != [0.0, 0.0, 1.0, 1.0]).then_some(region)
}

/// The size to which an image is resized, and where the input begins in the resized image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ResizedCrop {
    resized: (u32, u32),
    left: u32,
    top: u32,
}

impl ResizedCrop {
    fn of(image: (u32, u32), rule: &InputRule) -> Self {
        let (width, height) = (rule.width as u32, rule.height as u32);
        let resized = match rule.resize {
            Resize::Stretch => (width, height),
            Resize::StretchTo { height, width } => (width as u32, height as u32),
            // torchvision's `_compute_resized_output_size`: the longer side is rounded down.
            Resize::ShorterSide(side) => {
                let (short, long) = (image.0.min(image.1).max(1), image.0.max(image.1));
                let longer = side as u64 * u64::from(long) / u64::from(short);
                let longer = u32::try_from(longer).unwrap_or(u32::MAX);
                if image.0 <= image.1 { (side as u32, longer) } else { (longer, side as u32) }
            }
        };
        let [left, top] = [(resized.0, width), (resized.1, height)]
            .map(|(whole, part)| half_to_even(whole.saturating_sub(part)));
        Self { resized, left, top }
    }

    /// The part of the decoded pixels that becomes the input of `size`: its left and upper edge, width
    /// and height.
    fn region(self, picture: Picture<'_>, size: (u32, u32)) -> [f64; 4] {
        let [image_left, image_top, image_width, image_height] = picture.frame.in_decoded_pixels();
        let span = |start: u32, size: u32, resized: u32, side: f64| {
            let scale = side / f64::from(resized);
            let start = f64::from(start) * scale;
            (start, (f64::from(size) * scale).min(side - start))
        };
        let (left, width) = span(self.left, size.0, self.resized.0, image_width);
        let (top, height) = span(self.top, size.1, self.resized.1, image_height);
        [image_left + left, image_top + top, width, height]
    }
}

/// Resizes a region of the decoded pixels (left and upper edge, width and height) to `size`, as Pillow's
/// `resize` does, to within a level. Does not compute pixels outside. As in Pillow, filters also read
/// pixels outside the region.
pub(crate) fn resample(
    picture: Picture<'_>,
    [left, top, wide, high]: [f64; 4],
    (width, height): (u32, u32),
    filter: FilterType,
) -> Vec<u8> {
    // Typed images: the untyped ones make the compiler build the filters of all other types of
    // pixels, which takes longer than the rest of this crate.
    let image = picture.pixels;
    let source = TypedImageRef::<U8x3>::from_buffer(image.width(), image.height(), image.as_raw())
        .expect("an RgbImage holds three bytes for each pixel");
    let mut bytes = vec![0; width as usize * height as usize * 3];
    let mut target = TypedImage::<U8x3>::from_buffer(width, height, &mut bytes)
        .expect("the buffer holds three bytes for each pixel");
    // `Convolution` widens the filter when it shrinks an image, as Pillow does; `Interpolation`
    // does not.
    let options =
        ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter)).crop(left, top, wide, high);
    Resizer::new()
        .resize_typed(&source, &mut target, &options)
        .expect("the region lies in the image");
    bytes
}

/// Halves a number and rounds a half to the even neighbour, as Python's `round` does, and with it
/// torchvision's `CenterCrop`. transformers rounds down, so its crop can be a pixel off.
fn half_to_even(whole: u32) -> u32 {
    let half = whole / 2;
    if whole % 2 == 1 && half % 2 == 1 { half + 1 } else { half }
}

/// The value of each byte in each of the input's channels.
#[derive(Clone, Debug, PartialEq)]
pub struct NormalisationTable {
    /// By the input's channel, then by byte.
    pub values: [[f32; 256]; 3],
    /// The image's channel for each of the input's channels, 0 to 2.
    pub sources: [usize; 3],
}

impl NormalisationTable {
    /// What `rule` makes of bytes.
    #[must_use]
    pub fn of(rule: &InputRule) -> Self {
        // No `..`, so that a new field is not forgotten here.
        let InputRule { height: _, width: _, resize: _, interpolation: _, scale, mean, std, color } =
            rule;
        let scaled = |byte: usize| match scale {
            Scale::ByteToUnit => byte as f32 / 255.0,
            Scale::Byte => byte as f32,
        };
        Self {
            values: std::array::from_fn(|channel| {
                std::array::from_fn(|byte| (scaled(byte) - mean[channel]) / std[channel])
            }),
            sources: match color {
                ChannelOrder::Rgb => [0, 1, 2],
                ChannelOrder::Bgr => [2, 1, 0],
            },
        }
    }

    /// Looks up pixels, three bytes each; returns one plane for each channel.
    #[must_use]
    pub fn planes(&self, pixels: &[u8]) -> Vec<f32> {
        let pixels = pixels.as_chunks::<3>().0;
        let mut input = vec![0.0; 3 * pixels.len()];
        let (first, rest) = input.split_at_mut(pixels.len());
        let (second, third) = rest.split_at_mut(pixels.len());
        let [of_first, of_second, of_third] = self.sources;
        for (((pixel, first), second), third) in pixels.iter().zip(first).zip(second).zip(third) {
            let bytes = pixel.map(usize::from);
            *first = self.values[0][bytes[of_first]];
            *second = self.values[1][bytes[of_second]];
            *third = self.values[2][bytes[of_third]];
        }
        input
    }
}

#[cfg(test)]
mod tests {
    use camshaft_common::decoded_scale::{DecodedFrame, DecodedScale};

    use super::*;

    fn rule(width: usize, height: usize) -> InputRule {
        InputRule {
            height,
            width,
            resize: Resize::Stretch,
            interpolation: Interpolation::BilinearAntialiased,
            scale: Scale::ByteToUnit,
            mean: [0.0; 3],
            std: [1.0; 3],
            color: ChannelOrder::Rgb,
        }
    }

    fn pattern() -> RgbImage {
        RgbImage::from_fn(7, 5, |x, y| {
            image::Rgb([(x * 53 + y * 29) as u8, (x * 17) as u8, (y * 61) as u8])
        })
    }

    #[test]
    fn an_image_of_the_right_size_is_not_resampled() {
        let image = pattern();
        let input = to_input(&image, &rule(7, 5));
        for (x, y, pixel) in image.enumerate_pixels() {
            for (channel, &byte) in pixel.0.iter().enumerate() {
                let at = channel * 35 + y as usize * 7 + x as usize;
                assert_eq!(input[at], f32::from(byte) / 255.0);
            }
        }
    }

    #[test]
    fn each_channel_has_its_mean_and_deviation() {
        // ImageNet's, as torchvision's models use them.
        let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
        let image = RgbImage::from_pixel(2, 1, image::Rgb([0, 51, 255]));
        let input = to_input(&image, &InputRule { mean, std, ..rule(2, 1) });
        let expected = [0.0, 0.2, 1.0].map(|value: f32| value);
        for channel in 0..3 {
            let value = (expected[channel] - mean[channel]) / std[channel];
            assert!((input[2 * channel] - value).abs() < 1e-6);
            assert_eq!(input[2 * channel], input[2 * channel + 1]);
        }
    }

    /// `Image.fromarray(pattern).resize((width, height), Image.BILINEAR)`, Pillow 13.
    #[test]
    fn resizing_is_pillows() {
        let smaller = [
            [[74, 15, 61], [157, 51, 61], [85, 87, 61]],
            [[132, 15, 183], [140, 51, 183], [106, 87, 183]],
        ];
        let input = to_input(&pattern(), &rule(3, 2));
        for (at, pixel) in smaller.as_flattened().iter().enumerate() {
            for (channel, &byte) in pixel.iter().enumerate() {
                let found = input[channel * 6 + at] * 255.0;
                assert!((found - byte as f32).abs() < 1.01, "{found} is not {byte}");
            }
        }

        let second_row_of_larger = [
            [41, 0, 86],
            [76, 11, 86],
            [118, 25, 86],
            [159, 38, 86],
            [200, 51, 86],
            [158, 64, 86],
            [93, 77, 86],
            [68, 91, 86],
            [103, 102, 86],
        ];
        let input = to_input(&pattern(), &rule(9, 4));
        for (x, pixel) in second_row_of_larger.iter().enumerate() {
            for (channel, &byte) in pixel.iter().enumerate() {
                let found = input[channel * 36 + 9 + x] * 255.0;
                assert!((found - byte as f32).abs() < 1.01, "{found} is not {byte}");
            }
        }
    }

    /// A rule that resizes the shorter side to `shorter` and crops `side` × `side` from the middle.
    fn middle(side: usize, shorter: usize, interpolation: Interpolation) -> InputRule {
        let resize = Resize::ShorterSide(shorter);
        InputRule { resize, interpolation, ..rule(side, side) }
    }

    fn assert_row(input: &[f32], (side, row): (usize, usize), expected: &[[u8; 3]]) {
        for (x, pixel) in expected.iter().enumerate() {
            for (channel, &byte) in pixel.iter().enumerate() {
                let found = input[(channel * side + row) * side + x] * 255.0;
                assert!((found - f32::from(byte)).abs() < 1.01, "{x}: {found} is not {byte}");
            }
        }
    }

    /// torchvision's `CenterCrop(3)(Resize(4)(pattern))` and `CenterCrop(8)(Resize(9)(pattern))`
    /// as their sources have it, with Pillow 9.4's `resize` and `crop`.
    #[test]
    fn cutting_out_of_the_middle_is_torchvisions_and_pillows() {
        use Interpolation::{BicubicAntialiased, BilinearAntialiased, LanczosAntialiased};
        for (interpolation, smaller, fourth_row_of_larger) in [
            (
                BicubicAntialiased,
                [
                    [[87, 27, 8], [179, 51, 8], [137, 75, 8]],
                    [[124, 27, 83], [192, 51, 83], [106, 75, 83]],
                    [[165, 27, 161], [201, 51, 161], [42, 75, 161]],
                ],
                [
                    [93, 16, 88],
                    [124, 26, 88],
                    [155, 36, 88],
                    [194, 46, 88],
                    [193, 56, 88],
                    [153, 66, 88],
                    [95, 76, 88],
                    [50, 86, 88],
                ],
            ),
            (
                LanczosAntialiased,
                [
                    [[82, 27, 8], [191, 51, 8], [141, 75, 8]],
                    [[124, 27, 83], [196, 51, 83], [104, 75, 83]],
                    [[171, 27, 161], [204, 51, 161], [30, 75, 161]],
                ],
                [
                    [94, 16, 92],
                    [126, 27, 92],
                    [158, 36, 92],
                    [193, 46, 92],
                    [194, 56, 92],
                    [155, 66, 92],
                    [88, 75, 92],
                    [53, 86, 92],
                ],
            ),
            (
                BilinearAntialiased,
                [
                    [[89, 26, 15], [166, 51, 15], [129, 76, 15]],
                    [[123, 26, 86], [180, 51, 86], [104, 76, 86]],
                    [[157, 26, 158], [187, 51, 158], [55, 76, 158]],
                ],
                [
                    [93, 16, 88],
                    [124, 26, 88],
                    [155, 36, 88],
                    [186, 46, 88],
                    [183, 56, 88],
                    [147, 66, 88],
                    [99, 76, 88],
                    [53, 86, 88],
                ],
            ),
        ] {
            let input = to_input(&pattern(), &middle(3, 4, interpolation));
            for (row, expected) in smaller.iter().enumerate() {
                assert_row(&input, (3, row), expected);
            }
            let input = to_input(&pattern(), &middle(8, 9, interpolation));
            assert_row(&input, (8, 3), &fourth_row_of_larger);
        }
    }

    #[test]
    fn an_image_that_needs_no_resizing_is_only_cut() {
        let input = to_input(&pattern(), &middle(4, 5, Interpolation::BicubicAntialiased));
        // (7 - 4) / 2 is rounded to 2, (5 - 4) / 2 to 0.
        for (row, column) in [(0, 0), (3, 3), (1, 2)] {
            let pixel = pattern().get_pixel(column + 2, row).0;
            for (channel, byte) in pixel.into_iter().enumerate() {
                let at = (channel * 4 + row as usize) * 4 + column as usize;
                assert_eq!(input[at], f32::from(byte) / 255.0);
            }
        }
    }

    /// Of a ramp, each input pixel is known. Pixels beyond the image are black, where the image has none.
    #[test]
    fn the_input_of_a_reduced_image_is_not_shifted() {
        let (size, scale) = ((1001, 803), DecodedScale::Half);
        let value = |x: f64, side: u32| x * 255.0 / f64::from(side);
        for margin in [(0, 0), (1, 1)] {
            let (width, height) = scale.reduce(size);
            let middle = |at: u32, margin: u32| f64::from(2 * at) + 1.0 - f64::from(margin);
            let pixels = RgbImage::from_fn(width, height, |x, y| {
                let (x, y) = (middle(x, margin.0), middle(y, margin.1));
                image::Rgb([value(x, size.0).round() as u8, value(y, size.1).round() as u8, 0])
            });
            let frame = DecodedFrame { size, scale, margin };
            let input = to_pixels(Picture { pixels: &pixels, frame }, &rule(56, 56));
            for (at, pixel) in input.as_chunks::<3>().0.iter().enumerate() {
                let middle = |at: usize| (at as f64 + 0.5) * 255.0 / 56.0;
                let expected = [middle(at % 56), middle(at / 56)];
                for (found, expected) in pixel.iter().zip(expected) {
                    let off = (f64::from(*found) - expected).abs();
                    assert!(off < 1.01, "{at}, margin {margin:?}: {found}, not {expected}");
                }
            }
        }
    }

    #[test]
    fn the_region_is_what_the_network_sees() {
        let cut = |shorter| middle(224, shorter, Interpolation::BilinearAntialiased);
        // 512 × 384 becomes 341 × 256; the cut begins at (58, 16).
        let seen = region((512, 384), &cut(256)).unwrap();
        assert_eq!(seen, [58.0 / 341.0, 16.0 / 256.0, 282.0 / 341.0, 240.0 / 256.0]);
        assert_eq!(region((224, 448), &cut(224)), Some([0.0, 0.25, 1.0, 0.75]));
        assert_eq!(region((500, 500), &cut(224)), None);
        assert_eq!(region((512, 384), &rule(224, 224)), None);
        let stretched = Resize::StretchTo { height: 256, width: 256 };
        let stretched = InputRule { resize: stretched, ..rule(224, 224) };
        assert_eq!(region((9, 999), &stretched), Some([0.0625, 0.0625, 0.9375, 0.9375]));
    }

    /// `keras.applications.imagenet_utils.preprocess_input(x, mode="caffe")`: blue first,
    /// ImageNet's means taken off, nothing divided.
    #[test]
    fn caffes_input_is_blue_first_and_not_scaled() {
        let image = RgbImage::from_pixel(1, 1, image::Rgb([200, 100, 50]));
        let rule = InputRule {
            scale: Scale::Byte,
            color: ChannelOrder::Bgr,
            mean: [103.939, 116.779, 123.68],
            ..rule(1, 1)
        };
        let expected = [50.0 - 103.939, 100.0 - 116.779, 200.0 - 123.68];
        assert_eq!(to_input(&image, &rule), expected);
    }

    #[test]
    fn long_and_thin_images_are_cut_without_being_blown_up() {
        let image = RgbImage::new(20_000, 1);
        let input = to_input(&image, &middle(224, 256, Interpolation::LanczosAntialiased));
        assert_eq!(input.len(), 3 * 224 * 224);
    }
}
