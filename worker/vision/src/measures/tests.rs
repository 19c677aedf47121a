//! Measures of whole pictures.

use std::io::Cursor;

use camshaft_common::decoded_scale::{DecodedFrame, DecodedScale};
use image::imageops::{self, FilterType};
use image::{ImageFormat, Rgb, RgbImage};

use super::*;

fn distance(one: &RgbImage, other: &RgbImage) -> u32 {
    let [one, other] = [one, other].map(|picture| measure(picture).perceptual_hash.0);
    (one ^ other).count_ones()
}

/// A picture similar to a photograph: waves of many lengths, with a different strength in each
/// colour.
fn scene(width: u32, height: u32, seed: u32) -> RgbImage {
    let wave = |x: f32, y: f32, number: u32| {
        let [across, down, phase] =
            [7, 11, 13].map(|prime| ((seed * 31 + number * prime * prime) % 97) as f32 / 97.0);
        ((60.0 * across - 30.0) * x + (60.0 * down - 30.0) * y + 6.0 * phase).sin()
            / (1.0 + number as f32 / 4.0)
    };
    RgbImage::from_fn(width, height, |x, y| {
        let (x, y) = (x as f32 / width as f32, y as f32 / height as f32);
        let light: f32 = (0..24).map(|number| wave(x, y, number)).sum();
        Rgb([60.0, 45.0, 30.0].map(|gain| (128.0 + gain * light).clamp(0.0, 255.0) as u8))
    })
}

/// Noise of SplitMix's mixing function, the same on every machine.
fn noise(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let mut bits = u64::from(y * width + x + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        Rgb([(bits >> 56) as u8; 3])
    })
}

#[test]
fn a_picture_of_one_shade_has_no_contrast_and_no_likeness() {
    for side in [1, 3, 40, 600] {
        let measures = measure(&RgbImage::from_pixel(side, side, Rgb([51; 3])));
        assert!((measures.brightness - 0.2).abs() < 1e-6);
        assert_eq!((measures.contrast, measures.information, measures.chroma), (0.0, 0.0, 0.0));
        assert_eq!(measures.dark_percentile, measures.bright_percentile);
        assert_eq!(measures.perceptual_hash.0, 0);
    }
}

#[test]
fn half_black_half_white() {
    let halves = RgbImage::from_fn(400, 300, |x, _| Rgb([if x < 200 { 0 } else { 255 }; 3]));
    let measures = measure(&halves);
    assert!((measures.brightness - 0.5).abs() < 1e-6 && (measures.contrast - 0.5).abs() < 1e-6);
    assert_eq!((measures.dark_percentile, measures.bright_percentile), (0.0, 1.0));
    assert_eq!(measures.information, 1.0 / 8.0);
    // The picture begins dark. As in a square wave, the odd frequencies from left to right begin
    // dark and bright in turn.
    assert_eq!(measures.perceptual_hash.0 >> 56, 0b0001_0001);
    assert_eq!(measures.perceptual_hash.0 << 8, 0, "nothing changes from top to bottom");
}

#[test]
fn noise_is_sharp_and_less_so_the_more_it_is_blurred() {
    let noise = noise(300, 260);
    let blurred = [0.0, 1.0, 2.0, 4.0].map(|sigma| {
        if sigma == 0.0 { measure(&noise) } else { measure(&imageops::blur(&noise, sigma)) }
    });
    assert!(blurred.is_sorted_by(|one, other| one.blur + 0.05 < other.blur), "{blurred:?}");
    assert!(blurred.is_sorted_by(|one, other| one.contrast > other.contrast));
    assert!(blurred[0].blur < 0.2 && blurred[0].information > 0.99, "{:?}", blurred[0]);
}

#[test]
fn copies_of_a_picture_look_alike_and_others_do_not() {
    for seed in 0..6 {
        let picture = scene(500, 375, seed);
        let mut jpeg = Cursor::new(Vec::new());
        picture.write_to(&mut jpeg, ImageFormat::Jpeg).unwrap();
        let again = image::load_from_memory(jpeg.get_ref()).unwrap().to_rgb8();
        let half = imageops::resize(&picture, 250, 187, FilterType::CatmullRom);
        let square = imageops::resize(&picture, 224, 224, FilterType::Triangle);
        let large = imageops::resize(&picture, 1300, 975, FilterType::Lanczos3);
        for copy in [again, half, square, large] {
            let size = copy.dimensions();
            assert!(
                distance(&picture, &copy) <= 4,
                "{seed} {size:?}: {}",
                distance(&picture, &copy)
            );
        }
        let mirrored = measure(&imageops::flip_horizontal(&picture)).perceptual_hash;
        let told = measure(&picture).perceptual_hash.mirrored();
        let differing = (mirrored.0 ^ told.0).count_ones();
        assert!(differing <= 2, "{seed}: {differing}");
        for other in 0..seed {
            assert!(distance(&picture, &scene(500, 375, other)) > 10, "{seed} and {other}");
        }
    }
}

/// The picture at a reduced scale: averages of its pixels, with the edge repeated beyond it.
fn at_scale(
    picture: &RgbImage,
    scale: DecodedScale,
    margin: (u32, u32),
) -> (RgbImage, DecodedFrame) {
    let size = picture.dimensions();
    let divisor = scale.divisor();
    let sides = scale.reduce((size.0 + margin.0, size.1 + margin.1));
    let pixels = RgbImage::from_fn(sides.0, sides.1, |x, y| {
        let mut sums = [0u32; 3];
        for (down, across) in (0..divisor).flat_map(|y| (0..divisor).map(move |x| (y, x))) {
            let inside = |at: u32, margin: u32, side: u32| at.saturating_sub(margin).min(side - 1);
            let x = inside(x * divisor + across, margin.0, size.0);
            let y = inside(y * divisor + down, margin.1, size.1);
            let pixel = picture.get_pixel(x, y).0;
            sums.iter_mut().zip(pixel).for_each(|(sum, channel)| *sum += u32::from(channel));
        }
        let area = divisor * divisor;
        Rgb(sums.map(|sum| ((sum + area / 2) / area) as u8))
    });
    (pixels, DecodedFrame { size, scale, margin })
}

#[test]
fn a_reduced_picture_has_the_measures_of_the_full_one() {
    for (size, scale, margin) in [
        ((520, 531), DecodedScale::Half, (0, 0)),
        ((1203, 1031), DecodedScale::Half, (1, 1)),
        ((1551, 1490), DecodedScale::Quarter, (1, 2)),
        ((2102, 2051), DecodedScale::Eighth, (0, 0)),
    ] {
        let picture = scene(size.0, size.1, 3);
        let full = measure(&picture);
        let (pixels, frame) = at_scale(&picture, scale, margin);
        let reduced = measure(Picture { pixels: &pixels, frame });
        assert_eq!((full.blocking.is_some(), reduced.blocking), (true, None), "{size:?}");
        let distance = (full.perceptual_hash.0 ^ reduced.perceptual_hash.0).count_ones();
        assert!(distance <= 1, "{size:?}: {distance}");
        for (name, full, reduced) in [
            ("brightness", full.brightness, reduced.brightness),
            ("contrast", full.contrast, reduced.contrast),
            ("dark percentile", full.dark_percentile, reduced.dark_percentile),
            ("bright percentile", full.bright_percentile, reduced.bright_percentile),
            ("information", full.information, reduced.information),
            ("blur", full.blur, reduced.blur),
            ("chroma", full.chroma, reduced.chroma),
        ] {
            assert!((full - reduced).abs() < 0.005, "{size:?}: {name} {full} and {reduced}");
        }
    }
}

#[test]
fn pictures_of_every_shape_have_finite_measures() {
    for (width, height) in
        [(1, 1), (1, 7), (2, 2), (3, 900), (5, 4), (31, 33), (1, 70_000), (9000, 3), (257, 4000)]
    {
        let measures = measure(&noise(width, height));
        let ImageMeasures {
            brightness,
            contrast,
            dark_percentile,
            bright_percentile,
            information,
            blur,
            chroma,
            border,
            blocking,
            ..
        } = measures;
        for value in
            [brightness, contrast, dark_percentile, bright_percentile, information, blur, chroma]
        {
            assert!((0.0..=1.0).contains(&value), "{width}x{height}: {measures:?}");
        }
        assert!(border.unwrap().iter().all(|bar| (0.0..=1.0).contains(bar)), "{measures:?}");
        assert!(blocking.unwrap().is_finite() && blocking >= Some(0.0), "{measures:?}");
    }
}

/// What is compiled for AVX2 measures the same as what every CPU runs.
#[test]
fn every_machine_measures_the_same() {
    for (width, height) in [(1, 1), (33, 40), (500, 375), (379, 501), (1030, 700)] {
        for picture in [scene(width, height, 5), noise(width, height)] {
            let plain = Measured { picture: (&picture).into() }.with_simd(pulp::Scalar);
            assert_eq!(format!("{:?}", measure(&picture)), format!("{plain:?}"));
        }
    }
}
