//! Measures an image's pixels. A report uses the numbers to find duplicates, outliers and poor
//! pictures without reading the images again.
//!
//! Pure functions. [`ImageMeasures`] documents the numbers; the report interprets them. Upstream: a
//! decoded image. Downstream: its record.

use camshaft_common::measure::{ImageMeasures, MEASURES_VERSION};
use pulp::{Simd, WithSimd};

use crate::picture::Picture;

mod blocking;
mod blur;
mod border;
mod brightness;
mod perceptual_hash;
mod reduced;

use brightness::BrightnessStatistics;
use reduced::ReducedPicture;
pub(crate) use reduced::SHORTER_SIDE;

/// Measures a picture of any size. All numbers are finite: [`ImageMeasures`] tells the values of a
/// picture that can't be measured (one shade, or a few pixels).
///
/// The measures of a picture at a reduced scale compare with those of the full size: they are averages
/// of the same boxes. It has no `blocking`: its blocks have fewer pixels, and smoother edges.
#[must_use]
pub fn measure<'a>(picture: impl Into<Picture<'a>>) -> ImageMeasures {
    measure_picture(picture.into())
}

// Not generic, so that it is compiled here, as every caller's.
fn measure_picture(picture: Picture<'_>) -> ImageMeasures {
    // Compiled for AVX2 this takes half of the time, and the numbers are the same to the last bit:
    // loops over numbers with fractions are not reordered. What is called is inlined for that.
    #[cfg(target_arch = "x86_64")]
    if let Some(avx2) = pulp::x86::V3::try_new() {
        return Simd::vectorize(avx2, Measured { picture });
    }
    Measured { picture }.with_simd(pulp::Scalar)
}

/// A picture to measure, as pulp compiles it for other instructions than the rest of the program.
struct Measured<'a> {
    picture: Picture<'a>,
}

impl WithSimd for Measured<'_> {
    type Output = ImageMeasures;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> ImageMeasures {
        let Self { picture } = self;
        let is_full = picture.frame.scale.is_full();
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
            blocking: is_full.then(|| blocking::blocking(picture.pixels)),
        }
    }
}

#[cfg(test)]
mod tests;
