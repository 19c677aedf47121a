//! Measures an image's pixels. A report uses the numbers to find duplicates, outliers and poor
//! pictures without reading the images again.
//!
//! Pure functions. [`ImageMeasures`] documents the numbers; the report interprets them. Upstream: a
//! decoded image. Downstream: its record.

use camshaft_common::measure::{ImageMeasures, MEASURES_VERSION};
use image::RgbImage;

mod blocking;
mod blur;
mod border;
mod brightness;
mod perceptual_hash;
mod reduced;

use brightness::BrightnessStatistics;
use reduced::ReducedPicture;

/// Measures a picture of any size. All numbers are finite: [`ImageMeasures`] tells the values of a
/// picture that can't be measured (one shade, or a few pixels).
#[must_use]
pub fn measure(picture: &RgbImage) -> ImageMeasures {
    let ReducedPicture { luma, chroma } = ReducedPicture::of(picture);
    let brightness = BrightnessStatistics::of(&luma);
    ImageMeasures {
        version: MEASURES_VERSION,
        brightness: brightness.mean,
        contrast: brightness.deviation,
        dark_percentile: brightness.dark,
        bright_percentile: brightness.bright,
        information: brightness.information,
        blur: blur::blur(&luma),
        chroma,
        perceptual_hash: perceptual_hash::perceptual_hash(&luma),
        border: Some(border::border(&luma)),
        blocking: Some(blocking::blocking(picture)),
    }
}

#[cfg(test)]
mod tests;
