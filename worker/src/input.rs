//! Pixels to the network's input.
//!
//! Owns resizing and normalisation, as the model's `config.json` asks. Upstream: a decoded
//! image. Downstream: a batch of the model.

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
    // No `..` and no `_`: a new choice must not be ignored here.
    let InputRule { height, width, resize, interpolation, scale, mean, std, color } = rule;
    let (Resize::Stretch, Interpolation::BilinearAntialiased) = (resize, interpolation);
    let (Scale::ByteToUnit, ChannelOrder::Rgb) = (scale, color);

    let (width, height) = (*width as u32, *height as u32);
    if image.dimensions() == (width, height) {
        return planes(image.as_raw(), mean, std);
    }
    planes(&stretch(image, width, height), mean, std)
}

/// Pillow's `resize((width, height), Image.BILINEAR)` to within a level.
fn stretch(image: &RgbImage, width: u32, height: u32) -> Vec<u8> {
    let source = ImageRef::new(image.width(), image.height(), image.as_raw(), PixelType::U8x3)
        .expect("an RgbImage holds three bytes for each pixel");
    let mut target = Image::new(width, height, PixelType::U8x3);
    // Convolution widens the filter when shrinking, as Pillow does; Interpolation does not.
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    Resizer::new()
        .resize(&source, &mut target, &options)
        .expect("both images have pixels and are of the same type");
    target.into_vec()
}

fn planes(pixels: &[u8], mean: &[f32; 3], std: &[f32; 3]) -> Vec<f32> {
    let pixels = pixels.as_chunks::<3>().0;
    let values: [[f32; 256]; 3] = std::array::from_fn(|channel| {
        std::array::from_fn(|byte| (byte as f32 / 255.0 - mean[channel]) / std[channel])
    });
    let mut input = vec![0.0; 3 * pixels.len()];
    let (red, rest) = input.split_at_mut(pixels.len());
    let (green, blue) = rest.split_at_mut(pixels.len());
    for (((pixel, red), green), blue) in pixels.iter().zip(red).zip(green).zip(blue) {
        let [r, g, b] = pixel.map(usize::from);
        (*red, *green, *blue) = (values[0][r], values[1][g], values[2][b]);
    }
    input
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
