//! Pixels to read, and where in them the image lies. Upstream: `camshaft-decoding`. Downstream: the
//! network's input, and measures.

use camshaft_common::decoded_scale::DecodedFrame;
use image::RgbImage;

/// An upright image as decoded pixels, perhaps at a reduced scale.
#[derive(Clone, Copy, Debug)]
pub struct Picture<'a> {
    /// The pixels.
    pub pixels: &'a RgbImage,
    /// Where the image lies in them.
    pub frame: DecodedFrame,
}

impl<'a> From<&'a RgbImage> for Picture<'a> {
    /// Every pixel of an image.
    fn from(pixels: &'a RgbImage) -> Self {
        Self { pixels, frame: DecodedFrame::full(pixels.dimensions()) }
    }
}
