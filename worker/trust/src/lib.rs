//! Can a run's maps be trusted? Measures of whether they show what the network's answer rests
//! on, after the papers that define them, on a sample of images.
//!
//! One file a measure, all pure functions: they make changed images and take the network's
//! probabilities for them, through a closure, so that they know no network and can be tested
//! with answers known beforehand. [`measure`] takes all of one map; [`examination`] those of a
//! sample with a model. Which images are sampled and where the record goes is the program's
//! business. `docs/trust.md` tells how to read the numbers.

pub mod curves;
pub mod drop;
pub mod estimate;
pub mod examination;
pub mod imputation;
pub mod pixels;
pub mod road;
pub mod sanity;
mod summary;

use curves::Curve;
use drop::Drop;
use pixels::{Heat, Pixels};

/// What was found of one map.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Average drop and increase.
    pub drop: Drop,
    /// Probability as pixels are deleted.
    pub deletion: Curve,
    /// Probability as pixels are inserted.
    pub insertion: Curve,
    /// ROAD combined.
    pub road: f64,
}

/// An image as the measures need it, whatever the map.
#[derive(Clone, Debug, PartialEq)]
pub struct Subject {
    /// The image.
    pub pixels: Pixels,
    /// The same, blurred.
    pub blurred: Vec<f32>,
    /// What deleted pixels become, by channel: the network's zero, which is its mean colour.
    pub blank: [f32; 3],
    /// Of the noise.
    pub seed: u64,
}

impl Subject {
    /// Readies an image.
    #[must_use]
    pub fn new(pixels: Pixels, blank: [f32; 3], seed: u64) -> Self {
        let blurred = curves::blurred(&pixels);
        Self { pixels, blurred, blank, seed }
    }
}

/// Takes every measure of one map. `score` gives the probability of the map's class for each
/// of some images `[3, H, W]`, 0 to 1 before normalisation; `whole` is that of the image itself.
///
/// # Errors
/// `score`'s.
pub fn measure<E>(
    subject: &Subject,
    heat: &Heat,
    whole: f32,
    mut score: impl FnMut(&[Vec<f32>]) -> Result<Vec<f32>, E>,
) -> Result<Measured, E> {
    let Subject { pixels, blurred, blank, seed } = subject;
    // Asked together, so that batches are full; one curve's images at a time, for memory.
    let mut deletion = vec![drop::explanation_map(pixels, heat)];
    deletion.extend(curves::deletion(pixels, heat, *blank));
    let mut deletion = score(&deletion)?;
    let explained = std::mem::replace(&mut deletion[0], whole);
    let mut insertion = curves::insertion(pixels, heat, blurred);
    let steps = insertion.len();
    insertion.extend(road::removals(pixels, heat, *seed));
    let mut insertion = score(&insertion)?;
    let road = insertion.split_off(steps);
    insertion.push(whole);
    Ok(Measured {
        drop: drop::drop(whole, explained),
        deletion: Curve(deletion),
        insertion: Curve(insertion),
        road: road::combined(&road),
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use camshaft_vision::heat_map::HeatMap;

    const SIDE: usize = 56;

    /// A texture, and a network that sees a bright object in the upper left quarter and counts
    /// how much of it is there: its answer to any image is known beforehand.
    fn subject() -> (Subject, impl Fn(&[Vec<f32>]) -> Vec<f32>) {
        let object = |at: usize| at / SIDE < SIDE / 2 && at % SIDE < SIDE / 2;
        // Bright dots on black: a blur takes them away, as it takes away fur and eyes.
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
        let pixels = Pixels { height: SIDE, width: SIDE, values };
        (Subject::new(pixels, [0.0; 3], 1), score)
    }

    fn measured(map: [f32; 4]) -> Measured {
        let (subject, score) = subject();
        let heat = Heat::of(&HeatMap { height: 2, width: 2, values: map.into() }, (SIDE, SIDE));
        measure(&subject, &heat, 1.0, |images| Ok::<_, Infallible>(score(images))).unwrap()
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
        let Measured { deletion, insertion, .. } = measured([1.0, 0.0, 0.0, 0.0]);
        assert_eq!((deletion.0.len(), insertion.0.len()), (curves::STEPS + 1, curves::STEPS + 1));
        assert_eq!((deletion.0[0], insertion.0[curves::STEPS]), (1.0, 1.0));
        assert_eq!((deletion.0[curves::STEPS], insertion.0[0]), (0.0, 0.0));
    }
}
