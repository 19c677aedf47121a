//! How large a picture has to be for what is done with it: the scale at which a JPEG is decoded, and the
//! size of overlays.
//!
//! The network sees some hundred pixels, measures are taken of a few hundred, and overlays have the size
//! that the user chooses: decoding more pixels changes no result by much and takes most of the time.
//! Pure functions. Upstream: the worker's decode stage. Downstream: `camshaft-decoding` gets the scale.

use camshaft_common::decoded_scale::{DecodedFrame, DecodedScale};
use camshaft_common::explain::OverlaySize;
use fast_image_resize::FilterType;
use image::RgbImage;

use crate::input::{self, InputRule};
use crate::measures::SHORTER_SIDE;
use crate::picture::Picture;

/// The decoded picture is at least as many times as large as the one that the input is cut from. Then
/// the antialiasing filter reads several pixels for each of the input's, as in the full picture, and
/// what decoding leaves out are frequencies that the filter suppresses. Measured: of 290 photographs at
/// 2.4 times the input's side, 8 had maps with a cosine below 0.999 to those of the full picture; at 3.5
/// times, 2, whose maps were almost zero.
const TIMES_INPUT: u32 = 3;
/// The same for the picture that measures are taken of.
const TIMES_MEASURED: u32 = 2;
/// An overlay of a reduced JPEG has at least this share of the longest side that was asked for. A
/// photograph of 4032 pixels at one half has 2016, which is near enough to 2048.
const LEAST_SHARE: (u32, u32) = (2, 3);

/// The smallest scale at which a picture of `size`, width and height in pixels, is large enough for the
/// network's input, for measures, and for an overlay of that size, if one is drawn.
#[must_use]
pub fn scale_for(size: (u32, u32), rule: &InputRule, overlay: Option<OverlaySize>) -> DecodedScale {
    let longer = size.0.max(size.1);
    let resized = input::resized(size, rule);
    let overlay_side = overlay.map_or(0, |overlay| match overlay {
        OverlaySize::Full => longer,
        OverlaySize::AtMost(pixels) if pixels >= longer => longer,
        OverlaySize::AtMost(pixels) => pixels * LEAST_SHARE.0 / LEAST_SHARE.1,
    });
    let is_enough = |scale: &DecodedScale| {
        let (width, height) = scale.reduce(size);
        width >= resized.0.saturating_mul(TIMES_INPUT)
            && height >= resized.1.saturating_mul(TIMES_INPUT)
            && width.min(height) >= TIMES_MEASURED * SHORTER_SIDE
            && width.max(height) >= overlay_side
    };
    DecodedScale::REDUCED.into_iter().find(is_enough).unwrap_or_default()
}

/// The pixels to draw overlays of that size on. Those of a picture that is not larger stay as they are.
///
/// # Panics
///
/// If the frame is not that of the pixels.
#[must_use]
pub fn for_overlays(pixels: RgbImage, frame: DecodedFrame, overlay: OverlaySize) -> RgbImage {
    let (width, height) = pixels.dimensions();
    let most = match overlay {
        OverlaySize::AtMost(most) if width.max(height) > most => most,
        OverlaySize::AtMost(_) | OverlaySize::Full => return pixels,
    };
    let longer = u64::from(frame.size.0.max(frame.size.1));
    let reduced = |side: u32| {
        let side = (u64::from(side) * u64::from(most) + longer / 2) / longer;
        u32::try_from(side).map_or(most, |side| side.clamp(1, most))
    };
    let (width, height) = (reduced(frame.size.0), reduced(frame.size.1));
    let region = frame.in_decoded_pixels();
    // Pillow's filter for thumbnails: as fast as the bilinear one, and sharper.
    let bytes = input::resample(
        Picture { pixels: &pixels, frame },
        region,
        (width, height),
        FilterType::Hamming,
    );
    RgbImage::from_raw(width, height, bytes).expect("three bytes were made for each pixel")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::{ChannelOrder, Interpolation, Resize, Scale};

    fn rule(resize: Resize) -> InputRule {
        InputRule {
            height: 224,
            width: 224,
            resize,
            interpolation: Interpolation::BilinearAntialiased,
            scale: Scale::ByteToUnit,
            mean: [0.0; 3],
            std: [1.0; 3],
            color: ChannelOrder::Rgb,
        }
    }

    #[test]
    fn a_scale_is_enough_for_network_measures_and_overlay() {
        use DecodedScale::{Eighth, Full, Half, Quarter};
        let usual = Some(OverlaySize::default());
        let small = Some(OverlaySize::AtMost(512));
        let cut = |side| rule(Resize::ShorterSide(side));
        for (size, rule, overlay, scale) in [
            // Photographs of 8, 12, 24 and 48 megapixels, and of a phone held upright.
            ((3264, 2448), cut(256), usual, Half),
            ((4032, 3024), cut(256), usual, Half),
            ((4000, 3000), cut(256), usual, Half),
            ((6000, 4000), cut(256), usual, Quarter),
            ((8064, 6048), cut(256), usual, Quarter),
            ((12_000, 9000), cut(256), usual, Eighth),
            ((3024, 4032), rule(Resize::Stretch), usual, Half),
            // At one half it has less than two thirds of 2048.
            ((2600, 1950), cut(256), usual, Full),
            ((2049, 2049), cut(256), usual, Full),
            ((2048, 1536), cut(256), usual, Full),
            ((500, 375), cut(256), usual, Full),
            ((4032, 3024), cut(256), Some(OverlaySize::Full), Full),
            ((4032, 3024), cut(256), Some(OverlaySize::AtMost(5000)), Full),
            ((4032, 3024), cut(224), small, Quarter),
            ((4032, 3024), cut(224), None, Quarter),
            ((4032, 3024), cut(256), None, Half),
            ((6144, 6144), cut(256), None, Eighth),
            // A network that reads 224 needs 672 pixels, measures need 512.
            ((2688, 2688), cut(224), None, Quarter),
            ((2684, 2684), cut(224), None, Half),
            ((2048, 2048), cut(100), None, Quarter),
            ((2044, 2044), cut(100), None, Half),
            ((1400, 9000), cut(224), None, Half),
            ((9000, 1300), rule(Resize::Stretch), None, Full),
            ((1, 60_000), rule(Resize::Stretch), None, Full),
            ((65_500, 65_500), cut(9000), None, Half),
        ] {
            assert_eq!(scale_for(size, &rule, overlay), scale, "{size:?}, {overlay:?}");
        }
    }

    #[test]
    fn pictures_larger_than_overlays_are_reduced_in_shape() {
        let halves = |width: u32, height: u32| {
            RgbImage::from_fn(width, height, |x, _| {
                image::Rgb([if 2 * x < width { 40 } else { 200 }; 3])
            })
        };
        let drawn = |size: (u32, u32), overlay| {
            for_overlays(halves(size.0, size.1), DecodedFrame::full(size), overlay)
        };
        for (size, most, expected) in [
            ((300, 200), 100, (100, 67)),
            ((200, 300), 100, (67, 100)),
            ((101, 100), 100, (100, 99)),
            ((3000, 2), 100, (100, 1)),
            ((100, 100), 100, (100, 100)),
            ((64, 48), 100, (64, 48)),
        ] {
            let reduced = drawn(size, OverlaySize::AtMost(most));
            assert_eq!(reduced.dimensions(), expected, "{size:?}");
            let (left, right) = (reduced.get_pixel(2, 0), reduced.get_pixel(expected.0 - 3, 0));
            assert_eq!((left.0, right.0), ([40; 3], [200; 3]), "{size:?}");
        }
        assert_eq!(drawn((300, 200), OverlaySize::Full).dimensions(), (300, 200));
        // One half of 1199 × 801 pixels, turned so that the rest of a pixel is at the left.
        let frame = DecodedFrame { size: (1199, 801), scale: DecodedScale::Half, margin: (1, 0) };
        let reduced = for_overlays(halves(600, 401), frame, OverlaySize::AtMost(400));
        assert_eq!(reduced.dimensions(), (400, 267));
    }
}
