//! From a picture with transparency to RGB.
//!
//! Owns what each format's fourth channel means, and the blending. Upstream: the decoders.

use camshaft_common::transparency::Transparency;
use image::{DynamicImage, RgbImage};

/// What the alpha channel of a file means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AlphaKind {
    /// Opacity. Colours are independent of it: PNG, WebP, GIF, most TIFFs.
    Straight,
    /// Opacity, which the colours have been multiplied with: TIFF's associated alpha.
    Premultiplied,
    /// Not opacity: a TIFF's extra sample of no stated meaning. Pillow ignores it, too.
    Unspecified,
    /// Opacity, but nothing is opaque if it is zero everywhere: many programs leave the fourth byte
    /// of a bitmap's pixels empty.
    EmptyIfZero,
}

/// Rows that are converted at once: 16-bit samples are copied to 8 bits, and a copy of the whole
/// picture takes too much memory.
const STRIP_ROWS: u32 = 64;

/// Makes a picture RGB.
pub(super) fn to_rgb(image: DynamicImage, kind: AlphaKind, transparency: Transparency) -> RgbImage {
    let opaque = match kind {
        _ if !image.color().has_alpha() => true,
        AlphaKind::Straight => transparency == Transparency::Ignore,
        AlphaKind::Premultiplied => false,
        AlphaKind::Unspecified => true,
        AlphaKind::EmptyIfZero => transparency == Transparency::Ignore || is_zero(&image),
    };
    if opaque {
        return image.into_rgb8();
    }
    let convert: fn([u8; 4]) -> [u8; 3] = match (kind, transparency) {
        (AlphaKind::Premultiplied, Transparency::OverWhite) => premultiplied_over_white,
        (AlphaKind::Premultiplied, Transparency::Ignore) => unmultiplied,
        _ => over_white,
    };
    let (width, height) = (image.width(), image.height());
    let mut pixels = Vec::with_capacity(width as usize * height as usize * 3);
    for top in (0..height).step_by(STRIP_ROWS as usize) {
        let strip = image.crop_imm(0, top, width, STRIP_ROWS).into_rgba8();
        pixels.extend(strip.as_chunks::<4>().0.iter().flat_map(|&pixel| convert(pixel)));
    }
    RgbImage::from_raw(width, height, pixels).expect("three bytes were written for each pixel")
}

/// True if no pixel has any opacity.
fn is_zero(image: &DynamicImage) -> bool {
    match image {
        DynamicImage::ImageRgba8(image) => image.pixels().all(|pixel| pixel.0[3] == 0),
        DynamicImage::ImageLumaA8(image) => image.pixels().all(|pixel| pixel.0[1] == 0),
        // Bitmaps have no other kinds.
        _ => false,
    }
}

/// Blends each channel over white, rounded to the nearest level.
fn over_white([red, green, blue, alpha]: [u8; 4]) -> [u8; 3] {
    [red, green, blue].map(|channel| {
        let (channel, alpha) = (u32::from(channel), u32::from(alpha));
        ((channel * alpha + 255 * (255 - alpha) + 127) / 255) as u8
    })
}

fn premultiplied_over_white([red, green, blue, alpha]: [u8; 4]) -> [u8; 3] {
    [red, green, blue].map(|channel| channel.saturating_add(255 - alpha))
}

/// The colours before they were multiplied; black where nothing is left of them.
fn unmultiplied([red, green, blue, alpha]: [u8; 4]) -> [u8; 3] {
    [red, green, blue].map(|channel| match u32::from(alpha) {
        0 => 0,
        alpha => ((u32::from(channel) * 255 + alpha / 2) / alpha).min(255) as u8,
    })
}

#[cfg(test)]
mod tests {
    use image::RgbaImage;

    use super::*;

    fn converted(pixels: &[u8], kind: AlphaKind, transparency: Transparency) -> Vec<u8> {
        let image = RgbaImage::from_raw(pixels.len() as u32 / 4, 1, pixels.to_vec()).unwrap();
        to_rgb(image.into(), kind, transparency).into_raw()
    }

    #[test]
    fn each_kind_of_alpha_is_treated_as_what_it_is() {
        use AlphaKind::{EmptyIfZero, Premultiplied, Straight, Unspecified};
        use Transparency::{Ignore, OverWhite};
        let half = [100, 50, 0, 128];
        for (kind, transparency, expected) in [
            (Straight, OverWhite, [177, 152, 127]),
            (Straight, Ignore, [100, 50, 0]),
            (Premultiplied, OverWhite, [227, 177, 127]),
            (Premultiplied, Ignore, [199, 100, 0]),
            (Unspecified, OverWhite, [100, 50, 0]),
            (EmptyIfZero, OverWhite, [177, 152, 127]),
        ] {
            assert_eq!(converted(&half, kind, transparency), expected, "{kind:?} {transparency:?}");
        }
        let empty = [100, 50, 0, 0];
        assert_eq!(converted(&empty, EmptyIfZero, OverWhite), [100, 50, 0]);
        assert_eq!(converted(&empty, Straight, OverWhite), [255; 3]);
        let some = [100, 50, 0, 0, 9, 9, 9, 255];
        assert_eq!(converted(&some, EmptyIfZero, OverWhite), [255, 255, 255, 9, 9, 9]);
    }
}
