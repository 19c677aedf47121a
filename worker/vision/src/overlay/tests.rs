//! Overlays against the formula, pixel by pixel.

use image::Rgb;
use proptest::prelude::*;

use super::*;

/// The overlay's pixels, with the map over the whole image.
fn blended(image: &RgbImage, map: &HeatMap, style: OverlayStyle) -> RgbImage {
    super::blended(image, &HeatLevels::new(map, image.dimensions(), None), style)
}

/// A style of the tests that look at pixels; the format does not change those.
fn style(colormap: Colormap, alpha: f32) -> OverlayStyle {
    OverlayStyle { colormap, alpha, ..JET }
}

/// Jet as a file.
fn jet(format: OverlayFormat) -> OverlayStyle {
    OverlayStyle { format, ..JET }
}

fn map(height: usize, width: usize, values: &[f32]) -> HeatMap {
    HeatMap { height, width, values: values.to_vec() }
}

/// The level under each pixel: a black image shows the bare colours.
fn levels(map: &HeatMap, width: u32, height: u32) -> Vec<u8> {
    let table = color_table(Colormap::Viridis);
    blended(&RgbImage::new(width, height), map, style(Colormap::Viridis, 1.0))
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
    let over = blended(&image, &map(1, 1, &[1.0]), style(Colormap::Jet, 0.5));
    assert_eq!(over.get_pixel(0, 0).0, [69, 11, 100]);
}

const JET: OverlayStyle = OverlayStyle {
    colormap: Colormap::Jet,
    alpha: 0.4,
    opacity: OverlayOpacity::Constant,
    format: OverlayFormat::Png,
};

#[test]
fn opacity_may_follow_the_heat() {
    let image = RgbImage::from_pixel(3, 1, Rgb([10, 21, 200]));
    let style = OverlayStyle { alpha: 0.8, opacity: OverlayOpacity::Heat, ..JET };
    let over = blended(&image, &map(1, 3, &[0.0, 0.5, 1.0]), style);
    // Cold stays the photograph; half as hot is half as opaque.
    let pixels: Vec<_> = over.pixels().map(|pixel| pixel.0).collect();
    let middle = color_table(Colormap::Jet)[128];
    let half: [u8; 3] = std::array::from_fn(|channel| {
        let weight = 0.8 * 128.0 / 255.0;
        let photo = f64::from([10, 21, 200][channel]);
        ((1.0 - weight) * photo + weight * f64::from(middle[channel])).round() as u8
    });
    assert_eq!(pixels, [[10, 21, 200], half, [104, 4, 40]]);
}

#[test]
fn lossless_overlays_keep_every_pixel() {
    let image = RgbImage::from_fn(20, 11, |x, y| Rgb([x as u8 * 9, y as u8 * 20, 77]));
    let map = map(2, 2, &[0.0, 1.0, 2.0, 3.0]);
    for format in [OverlayFormat::Png, OverlayFormat::Webp] {
        let file = draw(&image, None, &map, jet(format)).unwrap().unwrap();
        let read = image::load_from_memory(&file).unwrap().into_rgb8();
        assert_eq!(read, blended(&image, &map, JET), "{format}");
    }
}

fn mean_difference(a: &RgbImage, b: &RgbImage) -> f64 {
    assert_eq!(a.dimensions(), b.dimensions());
    let differences = a.iter().zip(b.iter()).map(|(a, &b)| f64::from(a.abs_diff(b)));
    differences.sum::<f64>() / a.len() as f64
}

#[test]
fn a_jpeg_overlay_is_close_to_its_pixels() {
    let image = RgbImage::from_fn(64, 48, |x, y| Rgb([x as u8 * 3, y as u8 * 4, 77]));
    let map = map(1, 1, &[0.0]);
    let file = draw(&image, None, &map, jet(OverlayFormat::Jpeg)).unwrap().unwrap();
    let read = image::load_from_memory(&file).unwrap().into_rgb8();
    let difference = mean_difference(&read, &blended(&image, &map, JET));
    assert!(difference < 3.0, "{difference}");
}

/// Pixels as a JPEG, converted by JFIF's formula without rounding in between.
fn encoded(pixels: &RgbImage) -> Vec<u8> {
    let (width, height) = pixels.dimensions();
    let at =
        |x: u32, y: u32| pixels.get_pixel(x.min(width - 1), y.min(height - 1)).0.map(f64::from);
    camshaft_jpeg::encode((width, height), JPEG_QUALITY, |pair, mixed| {
        let y = 2 * pair as u32;
        for (row, y) in mixed.luma.into_iter().zip(y..) {
            for (luma, x) in row.iter_mut().zip(0..) {
                let [r, g, b] = at(x, y);
                *luma = (0.299 * r + 0.587 * g + 0.114 * b).round() as u8;
            }
        }
        let weights = [[-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]];
        for (row, weights) in mixed.chroma.into_iter().zip(weights) {
            for (chroma, x) in row.iter_mut().zip((0..).step_by(2)) {
                let four = [at(x, y), at(x + 1, y), at(x, y + 1), at(x + 1, y + 1)];
                let sum = four.map(|[r, g, b]| weights[0] * r + weights[1] * g + weights[2] * b);
                *chroma = (128.0 + sum.iter().sum::<f64>() / 4.0).round() as u8;
            }
        }
    })
    .unwrap()
}

#[test]
fn a_jpeg_overlay_is_as_close_as_its_pixels_encoded_afterwards() {
    let map = map(2, 3, &[0.0, 1.0, 2.0, 3.0, 1.0, 0.5]);
    // The second's sides are no multiples of a JPEG's blocks.
    for (width, height) in [(64, 48), (61, 35)] {
        let image = RgbImage::from_fn(width, height, |x, y| Rgb([x as u8 * 3, y as u8 * 4, 77]));
        let pixels = blended(&image, &map, JET);
        let afterwards = encoded(&pixels);
        let file = draw(&image, None, &map, jet(OverlayFormat::Jpeg)).unwrap().unwrap();
        // Each off by its own rounding, which moves a quantised coefficient now and then.
        let [ours, theirs] = [file, afterwards].map(|file| {
            let read = image::load_from_memory(&file).unwrap().into_rgb8();
            mean_difference(&read, &pixels)
        });
        assert!(ours < theirs + 0.1, "{ours} and {theirs}");
    }
}

#[test]
fn a_map_of_a_part_lies_over_that_part_and_nothing_else() {
    let image = RgbImage::from_fn(120, 90, |x, y| Rgb([x as u8 * 2, y as u8 * 2, 77]));
    let map = map(2, 3, &[0.0, 1.0, 2.0, 3.0, 1.0, 0.5]);
    // Columns 30 to 89, rows 9 to 80.
    let region = Some([0.25, 0.1, 0.75, 0.9]);
    let part = image::imageops::crop_imm(&image, 30, 9, 60, 72).to_image();
    let mut expected = image.clone();
    image::imageops::replace(&mut expected, &blended(&part, &map, JET), 30, 9);
    let file = draw(&image, region, &map, jet(OverlayFormat::Png)).unwrap().unwrap();
    assert_eq!(image::load_from_memory(&file).unwrap().into_rgb8(), expected);
    let file = draw(&image, region, &map, jet(OverlayFormat::Jpeg)).unwrap().unwrap();
    let [ours, theirs] = [file, encoded(&expected)].map(|file| {
        let read = image::load_from_memory(&file).unwrap().into_rgb8();
        mean_difference(&read, &expected)
    });
    assert!(ours < theirs + 0.1, "{ours} and {theirs}");
}

#[test]
fn no_overlay_is_no_file() {
    let drawn = draw(&RgbImage::new(1, 1), None, &map(1, 1, &[1.0]), jet(OverlayFormat::None));
    assert!(drawn.unwrap().is_none());
}

#[test]
fn a_format_that_cannot_hold_the_image_is_named() {
    let (image, map) = (RgbImage::new(16_385, 1), map(1, 1, &[1.0]));
    let error = draw(&image, None, &map, jet(OverlayFormat::Webp)).unwrap_err();
    assert!(error.to_string().contains("webp; choose another"), "{error}");
    for (width, height) in [(65_536, 1), (1, 65_536)] {
        let image = RgbImage::new(width, height);
        let error = draw(&image, None, &map, jet(OverlayFormat::Jpeg)).unwrap_err();
        assert!(error.to_string().contains("jpeg; choose another"), "{error}");
    }
}

#[test]
fn the_smallest_and_the_longest_jpegs_have_all_pixels() {
    let map = map(1, 1, &[1.0]);
    let short = [(1, 1), (1, 2), (2, 1), (17, 1), (1, 17)];
    // libjpeg's longest sides, and the format's.
    let long = [(65_500, 1), (1, 65_500), (65_501, 1), (65_535, 2), (2, 65_535)];
    for (width, height) in short.into_iter().chain(long) {
        let image =
            RgbImage::from_fn(width, height, |x, y| Rgb([(x / 300) as u8, (y / 300) as u8, 77]));
        let file = draw(&image, None, &map, jet(OverlayFormat::Jpeg)).unwrap().unwrap();
        let read = image::load_from_memory(&file).unwrap().into_rgb8();
        let difference = mean_difference(&read, &blended(&image, &map, JET));
        assert!(difference < 3.0, "{difference} of {width} and {height}");
    }
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
        let nothing = blended(&image, &map, style(colormap, 0.0));
        prop_assert_eq!(&nothing, &image);
        let colors = blended(&image, &map, style(colormap, 1.0));
        let table = color_table(colormap);
        prop_assert!(colors.pixels().all(|pixel| table.contains(&pixel.0)));
        let over = blended(&image, &map, style(colormap, alpha));
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
        let over = blended(&image, &map, style(Colormap::Jet, alpha));
        prop_assert_eq!(over.dimensions(), image.dimensions());
        let file = draw(&image, None, &map, OverlayStyle { alpha, ..jet(OverlayFormat::Jpeg) });
        prop_assert!(file.unwrap().is_some());
        let part = Some([0.3, 0.0, 0.31, 1.0]);
        let file = draw(&image, part, &map, OverlayStyle { alpha, ..jet(OverlayFormat::Jpeg) });
        prop_assert!(file.unwrap().is_some());
    }
}
