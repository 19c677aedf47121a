//! What an image's pixels are like, in a few numbers: for finding duplicates, outliers and poor
//! pictures without reading an image again.
//!
//! Pure functions; what the numbers mean is [`ImageMeasures`]' business, what becomes of them a
//! report's. Upstream: a decoded image. Downstream: its record.

use camshaft_common::measure::ImageMeasures;
use image::RgbImage;

mod blur;
mod likeness;
mod reduced;
mod shades;

use reduced::Reduced;
use shades::Shades;

/// Measures a picture of any size. None of the numbers is ever infinite or not a number: a
/// picture with nothing to judge (one shade, or a few pixels) gets the values that
/// [`ImageMeasures`] says.
#[must_use]
pub fn measure(picture: &RgbImage) -> ImageMeasures {
    let Reduced { luma, chroma } = Reduced::of(picture);
    let shades = Shades::of(&luma);
    ImageMeasures {
        brightness: shades.mean,
        contrast: shades.deviation,
        dark_percentile: shades.dark,
        bright_percentile: shades.bright,
        information: shades.information,
        blur: blur::blur(&luma),
        chroma,
        perceptual_hash: likeness::perceptual_hash(&luma),
    }
}

#[cfg(test)]
mod tests;
