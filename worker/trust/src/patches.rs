//! Patches: parts of images that are pasted into others, and the controls beside them.
//!
//! Owns where a patch lies and how it is pasted, not which images are taken. Regions are shares of
//! the part of an image that the network sees, as maps are, so that the network sees a patch at the
//! same place and of the same size in every image. Does not run a network. Downstream:
//! [`shortcut_proof`](super::shortcut_proof).

use camshaft_vision::input::{self, InputRule};
use image::RgbImage;
use image::imageops::{self, FilterType};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

/// Left, top, right and bottom edge, as shares of the part of an image that the network sees.
pub type PatchRegion = [f32; 4];

/// The region of an image in pixels: at least one, and within the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PixelBox {
    left: u32,
    top: u32,
    width: u32,
    height: u32,
}

impl PixelBox {
    fn of(region: PatchRegion, (width, height): (u32, u32), rule: &InputRule) -> Self {
        let seen = input::region((width, height), rule).unwrap_or([0.0, 0.0, 1.0, 1.0]);
        let span = |from: usize, to: usize, pixels: u32| {
            let edge = |at: f32| {
                let share = seen[from] + at.clamp(0.0, 1.0) * (seen[to] - seen[from]);
                (share * pixels as f32).round().clamp(0.0, pixels as f32) as u32
            };
            let start = edge(region[from]).min(pixels.saturating_sub(1));
            (start, edge(region[to]).saturating_sub(start).max(1))
        };
        let ((left, width), (top, height)) = (span(0, 2, width), span(1, 3, height));
        Self { left, top, width, height }
    }
}

/// Pastes the part `from` of one image over the part `to` of another one, stretched to its size.
/// Both images have pixels.
#[must_use]
pub fn paste(
    target: &RgbImage,
    to: PatchRegion,
    donor: &RgbImage,
    from: PatchRegion,
    rule: &InputRule,
) -> RgbImage {
    let place = PixelBox::of(to, target.dimensions(), rule);
    let cut = PixelBox::of(from, donor.dimensions(), rule);
    let patch = imageops::crop_imm(donor, cut.left, cut.top, cut.width, cut.height);
    let patch = if (cut.width, cut.height) == (place.width, place.height) {
        patch.to_image()
    } else {
        imageops::resize(&*patch, place.width, place.height, FilterType::Triangle)
    };
    let mut pasted = target.clone();
    imageops::replace(&mut pasted, &patch, i64::from(place.left), i64::from(place.top));
    pasted
}

/// A region of the same size around `centre`, moved so that it lies within the image.
#[must_use]
pub fn region_around(size: PatchRegion, centre: [f32; 2]) -> PatchRegion {
    let [width, height] = side_lengths(size);
    let start = |at: f32, side: f32| (at - side / 2.0).clamp(0.0, 1.0 - side);
    let (left, top) = (start(centre[0], width), start(centre[1], height));
    [left, top, left + width, top + height]
}

/// A region of the same size at a random place; every place is equally likely.
#[must_use]
pub fn random_region(size: PatchRegion, seed: u64) -> PatchRegion {
    let [width, height] = side_lengths(size);
    let mut random = Pcg64::seed_from_u64(seed);
    let mut start = |side: f32| random.random::<f32>() * (1.0 - side);
    let (left, top) = (start(width), start(height));
    [left, top, left + width, top + height]
}

fn side_lengths([left, top, right, bottom]: PatchRegion) -> [f32; 2] {
    [right - left, bottom - top].map(|side| side.clamp(0.0, 1.0))
}

/// An image of another class, and what is pasted into it.
#[derive(Clone, Copy, Debug)]
pub struct TrialImages<'a> {
    /// The image of another class.
    pub target: &'a RgbImage,
    /// An image of the cluster.
    pub typical: &'a RgbImage,
    /// The patch in it.
    pub region: PatchRegion,
    /// An image of the class outside the cluster.
    pub control: &'a RgbImage,
    /// Where the model looks most in it: x and y, as regions.
    pub hottest: [f32; 2],
    /// The seed of the random place.
    pub seed: u64,
}

/// The images of a trial. Their places in [`TrialImages::inputs`] follow.
pub const TRIAL_IMAGES: usize = 4;
/// The target as it is.
pub(crate) const PLAIN: usize = 0;
/// With the cluster's patch.
pub(crate) const PATCH: usize = 1;
/// With a patch of a random place.
pub(crate) const RANDOM_PLACE: usize = 2;
/// With a patch of the hottest place.
pub(crate) const USUAL_PLACE: usize = 3;

impl TrialImages<'_> {
    /// The network's inputs `[3, H, W]`: the target as it is; with the cluster's patch; with a
    /// patch of a random place of the control image; and with the place there where the model looks
    /// most. All patches have the same size and lie at the same place.
    #[must_use]
    pub fn inputs(&self, rule: &InputRule) -> [Vec<f32>; TRIAL_IMAGES] {
        let Self { target, typical, region, control, hottest, seed } = *self;
        let with = |donor, from| input::to_input(&paste(target, region, donor, from, rule), rule);
        [
            input::to_input(target, rule),
            with(typical, region),
            with(control, random_region(region, seed)),
            with(control, region_around(region, hottest)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use camshaft_vision::input::{ChannelOrder, Interpolation, Resize, Scale};
    use image::Rgb;

    const RED: Rgb<u8> = Rgb([255, 0, 0]);
    const BLUE: Rgb<u8> = Rgb([0, 0, 255]);

    fn rule(resize: Resize) -> InputRule {
        InputRule {
            height: 8,
            width: 8,
            resize,
            interpolation: Interpolation::BilinearAntialiased,
            scale: Scale::ByteToUnit,
            mean: [0.0; 3],
            std: [1.0; 3],
            color: ChannelOrder::Rgb,
        }
    }

    #[test]
    fn a_patch_keeps_its_shares_in_an_image_of_another_size() {
        // Red only in the right bottom quarter.
        let donor = RgbImage::from_fn(10, 20, |x, y| if x >= 5 && y >= 10 { RED } else { BLUE });
        let target = RgbImage::from_pixel(40, 8, BLUE);
        let quarter = [0.5, 0.5, 1.0, 1.0];
        let pasted = paste(&target, quarter, &donor, quarter, &rule(Resize::Stretch));
        for (x, y, pixel) in pasted.enumerate_pixels() {
            assert_eq!(*pixel == RED, x >= 20 && y >= 4, "{x} {y}");
        }
    }

    #[test]
    fn a_patch_lies_in_what_the_network_sees_of_a_cropped_image() {
        let rule = rule(Resize::ShorterSide(8));
        // The network sees the middle square: columns 8 to 15.
        let place = PixelBox::of([0.5, 0.0, 1.0, 0.5], (24, 8), &rule);
        assert_eq!(place, PixelBox { left: 12, top: 0, width: 4, height: 4 });
        let target = RgbImage::from_pixel(24, 8, BLUE);
        let donor = RgbImage::from_pixel(8, 8, RED);
        let region = [0.5, 0.0, 1.0, 0.5];
        let pasted = paste(&target, region, &donor, region, &rule);
        let input = input::to_pixels(&pasted, &rule);
        let (pixels, _) = input.as_chunks::<3>();
        for (at, pixel) in pixels.iter().enumerate() {
            let inside = at % 8 >= 4 && at / 8 < 4;
            assert_eq!(*pixel == RED.0, inside, "{at}");
        }
    }

    #[test]
    fn a_region_has_a_pixel_and_stays_in_the_image_whatever_a_file_says() {
        for region in [[0.0; 4], [1.0; 4], [0.9, 0.9, 0.1, 0.1], [-5.0, 7.0, 1e30, f32::NAN]] {
            for size in [(1, 1), (7, 3), (500, 2)] {
                let place = PixelBox::of(region, size, &rule(Resize::Stretch));
                assert!(place.width > 0 && place.left + place.width <= size.0, "{place:?}");
                assert!(place.height > 0 && place.top + place.height <= size.1, "{place:?}");
            }
        }
    }

    #[test]
    fn controls_have_the_patchs_size_and_lie_within_the_image() {
        let patch = [0.7, 0.5, 1.0, 1.0];
        let is_same_size = |[left, top, right, bottom]: PatchRegion| {
            let within = left >= 0.0 && top >= 0.0 && right <= 1.000_1 && bottom <= 1.000_1;
            within && (right - left - 0.3).abs() < 1e-5 && (bottom - top - 0.5).abs() < 1e-5
        };
        assert!(is_same_size(region_around(patch, [0.0, 1.0])));
        assert_eq!(region_around(patch, [0.5, 0.5])[1], 0.25);
        let places: Vec<_> = (0..50).map(|seed| random_region(patch, seed)).collect();
        assert!(places.iter().all(|place| is_same_size(*place)));
        assert!(places.iter().any(|place| place[0] < 0.2), "{places:?}");
        assert!(places.iter().any(|place| place[0] > 0.5), "{places:?}");
        assert_eq!(random_region(patch, 7), random_region(patch, 7));
    }

    #[test]
    fn a_trial_changes_only_the_patchs_place() {
        let rule = rule(Resize::Stretch);
        let (target, typical) =
            (RgbImage::from_pixel(8, 8, BLUE), RgbImage::from_pixel(16, 16, RED));
        let control = RgbImage::from_pixel(5, 9, Rgb([0, 255, 0]));
        let region = [0.5, 0.5, 1.0, 1.0];
        let images = TrialImages {
            target: &target,
            typical: &typical,
            region,
            control: &control,
            hottest: [0.1, 0.9],
            seed: 3,
        };
        let inputs = images.inputs(&rule);
        let channel = |image: usize, channel: usize, at: usize| inputs[image][channel * 64 + at];
        for at in 0..64 {
            let inside = at % 8 >= 4 && at / 8 >= 4;
            assert_eq!(channel(PLAIN, 2, at), 1.0);
            assert_eq!(channel(PATCH, 0, at) == 1.0, inside);
            for control in [RANDOM_PLACE, USUAL_PLACE] {
                assert_eq!(channel(control, 1, at) == 1.0, inside);
            }
        }
    }
}
