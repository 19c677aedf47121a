//! Measures whether a run's maps can be trusted: whether they show what the network's answers
//! depend on. The measures are those of published papers, on a sample of images.
//!
//! Each measure has a file of pure functions. They make changed images and get the network's
//! probabilities for them from a closure. So they know no network, and tests use known answers.
//! [`measure`] measures one map, [`examination`] a sample of images with a model. Does not choose
//! the sample or write the record: the program does. `docs/trust.md` tells how to read the numbers.

pub mod confidence_drop;
pub mod curves;
pub mod estimate;
pub mod examination;
pub mod imputation;
pub mod patches;
pub mod pixels;
pub mod road;
pub mod sanity;
pub mod shortcut_proof;
mod summary;

use confidence_drop::ConfidenceDrop;
use curves::ProbabilityCurve;
use pixels::{InputImage, PixelHeat};

/// The measures of one map.
#[derive(Clone, Debug, PartialEq)]
pub struct MapMeasures {
    /// Average drop and increase.
    pub drop: ConfidenceDrop,
    /// Probability as pixels are deleted.
    pub deletion: ProbabilityCurve,
    /// Probability as pixels are inserted.
    pub insertion: ProbabilityCurve,
    /// ROAD combined.
    pub road: f64,
}

/// An image, prepared for the measures of all its maps.
#[derive(Clone, Debug, PartialEq)]
pub struct PreparedImage {
    /// The image.
    pub pixels: InputImage,
    /// The blurred image.
    pub blurred: Vec<f32>,
    /// The values of deleted pixels, one for each channel: the network's zero, its mean colour.
    pub blank: [f32; 3],
    /// Seed of ROAD's noise.
    pub seed: u64,
}

impl PreparedImage {
    /// Blurs the image.
    #[must_use]
    pub fn new(pixels: InputImage, blank: [f32; 3], seed: u64) -> Self {
        let blurred = curves::blur(&pixels);
        Self { pixels, blurred, blank, seed }
    }
}

/// Takes every measure of one map. `score` returns the probability of the map's class for each of
/// its images `[3, H, W]`, whose pixels are 0 to 1, before normalisation. `whole` is the
/// probability for the image itself.
///
/// # Errors
/// If `score` fails.
pub fn measure<E>(
    image: &PreparedImage,
    heat: &PixelHeat,
    whole: f32,
    mut score: impl FnMut(&[Vec<f32>]) -> Result<Vec<f32>, E>,
) -> Result<MapMeasures, E> {
    let PreparedImage { pixels, blurred, blank, seed } = image;
    // Two calls of `score`: enough images to fill batches, and not too many to hold in memory.
    let mut deletion = vec![confidence_drop::explanation_map(pixels, heat)];
    deletion.extend(curves::deletion_images(pixels, heat, *blank));
    let mut deletion = score(&deletion)?;
    let explained = std::mem::replace(&mut deletion[0], whole);
    let mut insertion = curves::insertion_images(pixels, heat, blurred);
    let steps = insertion.len();
    insertion.extend(road::removal_images(pixels, heat, *seed));
    let mut insertion = score(&insertion)?;
    let road = insertion.split_off(steps);
    insertion.push(whole);
    Ok(MapMeasures {
        drop: ConfidenceDrop::new(whole, explained),
        deletion: ProbabilityCurve(deletion),
        insertion: ProbabilityCurve(insertion),
        road: road::combined_score(&road),
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use camshaft_vision::heat_map::HeatMap;

    const SIDE: usize = 56;

    /// An image with a bright object in the upper left quarter, and a network whose answer to any
    /// image is known: the share of the object that the image shows.
    fn object_and_network() -> (PreparedImage, impl Fn(&[Vec<f32>]) -> Vec<f32>) {
        let object = |at: usize| at / SIDE < SIDE / 2 && at % SIDE < SIDE / 2;
        // Bright dots on black, which a blur removes, as it removes fur and eyes.
        let value = move |at: usize| {
            let bright = object(at) && (at / SIDE).is_multiple_of(4) && at.is_multiple_of(4);
            f32::from(u8::from(bright))
        };
        let plane = SIDE * SIDE;
        let values = (0..3 * plane).map(|at| value(at % plane)).collect();
        let dots: Vec<_> = (0..plane).filter(|&at| value(at) > 0.0).collect();
        let score = move |images: &[Vec<f32>]| {
            let seen = |image: &Vec<f32>| {
                dots.iter().filter(|&&dot| image[dot] > 0.5).count() as f32 / dots.len() as f32
            };
            images.iter().map(seen).collect()
        };
        let pixels = InputImage { height: SIDE, width: SIDE, values };
        (PreparedImage::new(pixels, [0.0; 3], 1), score)
    }

    fn measured(map: [f32; 4]) -> MapMeasures {
        let (image, score) = object_and_network();
        let heat =
            PixelHeat::of(&HeatMap { height: 2, width: 2, values: map.into() }, (SIDE, SIDE));
        measure(&image, &heat, 1.0, |images| Ok::<_, Infallible>(score(images))).unwrap()
    }

    #[test]
    fn a_map_of_the_object_beats_one_of_everything_else_by_every_measure() {
        let right = measured([1.0, 0.0, 0.0, 0.0]);
        let wrong = measured([0.0, 1.0, 1.0, 1.0]);
        assert!(right.drop.drop < wrong.drop.drop, "{right:?}\n{wrong:?}");
        assert!(right.deletion.area() < 0.3 && wrong.deletion.area() > 0.7, "{right:?}{wrong:?}");
        assert!(right.insertion.area() > 0.7 && wrong.insertion.area() < 0.3);
        assert!(right.road > 0.2 && wrong.road < -0.2, "{} and {}", right.road, wrong.road);
    }

    #[test]
    fn curves_begin_and_end_at_what_is_known() {
        let MapMeasures { deletion, insertion, .. } = measured([1.0, 0.0, 0.0, 0.0]);
        assert_eq!((deletion.0.len(), insertion.0.len()), (curves::STEPS + 1, curves::STEPS + 1));
        assert_eq!((deletion.0[0], insertion.0[curves::STEPS]), (1.0, 1.0));
        assert_eq!((deletion.0[curves::STEPS], insertion.0[0]), (0.0, 0.0));
    }
}
