//! Pixels to the network's input.
//!
//! Owns resizing, cutting and normalisation, as the model's `config.json` asks, and which part
//! of the image the network gets to see. Upstream: a decoded image. Downstream: a batch of the
//! model, and overlays.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::RgbImage;

use crate::model::{ChannelOrder, InputRule, Interpolation, Resize, Scale};

/// Returns `[3, height, width]` f32, row-major: one plane for each channel.
///
/// # Panics
///
/// If the image or the rule has no pixels.
#[must_use]
pub fn to_input(image: &RgbImage, rule: &InputRule) -> Vec<f32> {
    // No `..`: a new choice must not be ignored here.
    let InputRule { height, width, resize: _, interpolation, scale, mean, std, color } = rule;
    let values = Values::of((*scale, *color), mean, std);
    let frame = Frame::of(image.dimensions(), rule);
    let (width, height) = (*width as u32, *height as u32);
    if frame.resized == image.dimensions() && frame.resized == (width, height) {
        return values.planes(image.as_raw());
    }
    values.planes(&frame.cut(image, (width, height), *interpolation))
}

/// The part of an image that becomes the input: left, top, right and bottom edge as shares of
/// its width and height. None where that is all of it.
#[must_use]
pub fn region((width, height): (u32, u32), rule: &InputRule) -> Option<[f32; 4]> {
    let frame = Frame::of((width, height), rule);
    let shares = |start: u32, size: usize, whole: u32| {
        [start as f32, (start as usize + size) as f32].map(|at| at / whole as f32)
    };
    let [left, right] = shares(frame.left, rule.width, frame.resized.0);
    let [top, bottom] = shares(frame.top, rule.height, frame.resized.1);
    let region = [left, top, right, bottom];
    (region != [0.0, 0.0, 1.0, 1.0]).then_some(region)
}

/// The size an image is brought to, and where the input lies in that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    resized: (u32, u32),
    left: u32,
    top: u32,
}

impl Frame {
    fn of(image: (u32, u32), rule: &InputRule) -> Self {
        let (width, height) = (rule.width as u32, rule.height as u32);
        let resized = match rule.resize {
            Resize::Stretch => (width, height),
            Resize::StretchTo { height, width } => (width as u32, height as u32),
            // torchvision's `_compute_resized_output_size`: the longer side is cut to whole
            // pixels, not rounded.
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

    /// Pillow's `resize(resized, …)` and `crop`, to within a level, without computing what is
    /// cut off: filters reach beyond the cut where the image does.
    fn cut(
        self,
        image: &RgbImage,
        (width, height): (u32, u32),
        interpolation: Interpolation,
    ) -> Vec<u8> {
        let filter = match interpolation {
            Interpolation::BilinearAntialiased => FilterType::Bilinear,
            // Both are Keys' with a = -0.5.
            Interpolation::BicubicAntialiased => FilterType::CatmullRom,
            Interpolation::LanczosAntialiased => FilterType::Lanczos3,
        };
        let source = ImageRef::new(image.width(), image.height(), image.as_raw(), PixelType::U8x3)
            .expect("an RgbImage holds three bytes for each pixel");
        let mut target = Image::new(width, height, PixelType::U8x3);
        let span = |start: u32, size: u32, resized: u32, side: u32| {
            let scale = f64::from(side) / f64::from(resized);
            let start = f64::from(start) * scale;
            (start, (f64::from(size) * scale).min(f64::from(side) - start))
        };
        let (left, wide) = span(self.left, width, self.resized.0, image.width());
        let (top, high) = span(self.top, height, self.resized.1, image.height());
        // Convolution widens the filter when shrinking, as Pillow does; Interpolation does not.
        let options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(filter))
            .crop(left, top, wide, high);
        Resizer::new()
            .resize(&source, &mut target, &options)
            .expect("both images have pixels, are of the same type, and the cut lies in the image");
        target.into_vec()
    }
}

/// Half of it, as Python's `round` and so torchvision's `CenterCrop` has it: a half goes to the
/// even neighbour. transformers always takes the lower one, a pixel off now and then.
fn half_to_even(whole: u32) -> u32 {
    let half = whole / 2;
    if whole % 2 == 1 && half % 2 == 1 { half + 1 } else { half }
}

/// What each byte becomes in each of the input's channels.
struct Values {
    bytes: [[f32; 256]; 3],
    /// The image's channel that is the input's.
    sources: [usize; 3],
}

impl Values {
    fn of((scale, color): (Scale, ChannelOrder), mean: &[f32; 3], std: &[f32; 3]) -> Self {
        let scaled = |byte: usize| match scale {
            Scale::ByteToUnit => byte as f32 / 255.0,
            Scale::Byte => byte as f32,
        };
        Self {
            bytes: std::array::from_fn(|channel| {
                std::array::from_fn(|byte| (scaled(byte) - mean[channel]) / std[channel])
            }),
            sources: match color {
                ChannelOrder::Rgb => [0, 1, 2],
                ChannelOrder::Bgr => [2, 1, 0],
            },
        }
    }

    fn planes(&self, pixels: &[u8]) -> Vec<f32> {
        let pixels = pixels.as_chunks::<3>().0;
        let mut input = vec![0.0; 3 * pixels.len()];
        let (first, rest) = input.split_at_mut(pixels.len());
        let (second, third) = rest.split_at_mut(pixels.len());
        let [of_first, of_second, of_third] = self.sources;
        for (((pixel, first), second), third) in pixels.iter().zip(first).zip(second).zip(third) {
            let bytes = pixel.map(usize::from);
            *first = self.bytes[0][bytes[of_first]];
            *second = self.bytes[1][bytes[of_second]];
            *third = self.bytes[2][bytes[of_third]];
        }
        input
    }
}

#[cfg(test)]
mod tests {
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
}
