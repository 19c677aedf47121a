//! JPEGs at reduced scales.

use camshaft_common::decoded_scale::DecodedScale;

use super::*;
use crate::{DecodedPicture, decode_at_scale, memory_to_decode, memory_to_decode_at_scale};

fn at_scale(bytes: &[u8], scale: DecodedScale) -> Result<DecodedPicture, DecodeError> {
    decode_at_scale(bytes, &ImageLimits::default(), Transparency::OverWhite, &|_size| scale)
}

fn jpegs() -> impl Iterator<Item = (String, Vec<u8>)> {
    let names = expected().into_keys().filter(|name| name.ends_with(".jpg"));
    names.map(|name| (name.clone(), file(&name)))
}

/// The mean of the pixels that a decoded pixel covers along both axes, as far as they are in the image.
fn mean_below(
    picture: &RgbImage,
    at: (u32, u32),
    divisor: u32,
    margin: (u32, u32),
) -> Option<[f64; 3]> {
    let inside = |at: u32, margin: u32, side: u32| {
        let start = at * divisor;
        start.saturating_sub(margin)..(start + divisor - margin).min(side)
    };
    let (mut sum, mut count) = ([0.0; 3], 0.0);
    for y in inside(at.1, margin.1, picture.height()) {
        for x in inside(at.0, margin.0, picture.width()) {
            let pixel = picture.get_pixel(x, y).0;
            sum.iter_mut().zip(pixel).for_each(|(sum, channel)| *sum += f64::from(channel));
            count += 1.0;
        }
    }
    (count == f64::from(divisor * divisor)).then(|| sum.map(|sum| sum / count))
}

/// Grey, CMYK, YCCK, progressive, with restarts, of all samplings and orientations.
#[test]
fn a_reduced_jpeg_is_the_average_of_the_whole_one() {
    for (name, bytes) in jpegs() {
        let whole = decoded(&bytes).unwrap();
        let full = at_scale(&bytes, DecodedScale::Full).unwrap();
        assert_eq!((&full.pixels, full.frame.margin), (&whole, (0, 0)), "{name}");
        for scale in DecodedScale::REDUCED {
            let DecodedPicture { pixels, frame } = at_scale(&bytes, scale).unwrap();
            assert_eq!((frame.size, frame.scale), (whole.dimensions(), scale), "{name}");
            assert_eq!(pixels.dimensions(), scale.reduce(whole.dimensions()), "{name}");
            let (mut sum, mut compared) = (0.0, 0.0);
            for (x, y, pixel) in pixels.enumerate_pixels() {
                let below = mean_below(&whole, (x, y), scale.divisor(), frame.margin);
                let Some(expected) = below else { continue };
                for (found, expected) in pixel.0.into_iter().zip(expected) {
                    sum += (f64::from(found) - expected).abs();
                    compared += 1.0;
                }
            }
            let off = sum / compared;
            // A frame that is off by one of the file's pixels is off by seven levels. With chroma of half
            // the columns but all rows, libjpeg has chroma of half the columns at every scale.
            let most = if name.contains("422") { 20.0 } else { 2.0 };
            assert!(off < most, "{name} at {scale:?}: {off} levels off, margin {:?}", frame.margin);
        }
    }
}

#[test]
fn the_scale_is_chosen_by_the_upright_size() {
    for (name, size) in [("orientation-1.jpg", (24, 16)), ("orientation-6.jpg", (16, 24))] {
        let chosen = |found: (u32, u32)| {
            assert_eq!(found, size, "{name}");
            DecodedScale::Half
        };
        let (bytes, limits) = (file(name), ImageLimits::default());
        let picture = decode_at_scale(&bytes, &limits, Transparency::OverWhite, &chosen).unwrap();
        assert_eq!(picture.frame.size, size);
        memory_to_decode_at_scale(&bytes, &limits, &chosen).unwrap();
    }
}

#[test]
fn damage_is_found_at_every_scale() {
    for (name, bytes) in jpegs() {
        for length in (0..bytes.len()).step_by(7) {
            let cut = &bytes[..length];
            let expected = decoded(cut).err().map(|error| error.class());
            for scale in DecodedScale::REDUCED {
                let found = at_scale(cut, scale).err().map(|error| error.class());
                assert_eq!(found, expected, "{name} at {scale:?}, {length} bytes");
            }
        }
        for at in (0..bytes.len()).step_by(11) {
            let mut spoilt = bytes.clone();
            spoilt[at] ^= 0x55;
            let expected = decoded(&spoilt).is_err();
            for scale in DecodedScale::REDUCED {
                let found = at_scale(&spoilt, scale).is_err();
                assert_eq!(found, expected, "{name} at {scale:?}, byte {at}");
            }
        }
    }
}

#[test]
fn a_reduced_jpeg_takes_less_memory_and_the_limits_stay() {
    let limits = ImageLimits { max_pixels: 640 * 480, ..ImageLimits::default() };
    let bytes = encoded(&gradient(640, 480), ImageFormat::Jpeg);
    let whole = memory_to_decode(&bytes, &limits).unwrap();
    for scale in DecodedScale::REDUCED {
        let memory = memory_to_decode_at_scale(&bytes, &limits, &|_size| scale).unwrap();
        assert_eq!(memory, whole / u64::from(scale.divisor().pow(2)), "{scale:?}");
    }
    // Its coefficients are those of the whole picture.
    let progressive = file("progressive.jpg");
    let memory = memory_to_decode_at_scale(&progressive, &limits, &|_size| DecodedScale::Eighth);
    assert!(memory.unwrap() > 37 * 23 * 3 / 64 + 37 * 23 * 3);
    let bomb = ImageLimits { max_pixels: 640 * 480 - 1, ..limits };
    let error = memory_to_decode_at_scale(&bytes, &bomb, &|_size| DecodedScale::Eighth);
    assert_eq!(error.unwrap_err().class(), FailureClass::TooLarge);
}

#[test]
fn other_formats_are_decoded_at_their_full_size() {
    let image = gradient(64, 48);
    for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::WebP] {
        let found = at_scale(&encoded(&image, format), DecodedScale::Quarter).unwrap();
        assert_eq!((&found.pixels, found.frame.scale), (&image, DecodedScale::Full), "{format:?}");
    }
}
