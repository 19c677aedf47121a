//! Draws a heat map over its image and encodes the result as a file.
//!
//! Owns scaling (`levels`), blending (`blend`) and encoding. Does not compute maps. Upstream: a
//! decoded image and its map. Downstream: the store.

use std::cell::RefCell;
use std::error::Error;

use camshaft_common::explain::{Colormap, OverlayFormat, OverlayOpacity};
use image::RgbImage;
use image::codecs::png::PngEncoder;
use image::codecs::webp::WebPEncoder;
use jpeg_encoder::{Encoder, ImageBuffer, JpegColorType, SamplingFactor};

use self::blend::{RgbBlend, YcbcrBlend};
use self::levels::HeatLevels;
use crate::colormap::color_table;
use crate::heat_map::HeatMap;

mod blend;
mod levels;

/// Quality of JPEG overlays, of 100. Heat is smooth and the photograph under it was already a
/// JPEG, so a higher quality only makes files larger.
const JPEG_QUALITY: u8 = 85;

/// The overlay can't be encoded.
#[derive(Debug, thiserror::Error)]
#[error("can't write the overlay as {format}; choose another overlay format")]
pub struct EncodeOverlayError {
    format: OverlayFormat,
    #[source]
    source: Box<dyn Error + Send + Sync>,
}

/// How an overlay looks.
#[derive(Clone, Copy, Debug)]
pub struct OverlayStyle {
    /// The colours of heat.
    pub colormap: Colormap,
    /// The colours' weight; it is clamped to 0..1.
    pub alpha: f32,
    /// Whether that weight is everywhere the same, or follows the heat.
    pub opacity: OverlayOpacity,
    /// The file's format.
    pub format: OverlayFormat,
}

/// Draws `map` over `image` and encodes the result. `None` if the style's format is
/// [`OverlayFormat::None`].
///
/// The map is divided by its maximum (a map of zeros stays zero), stretched over `region`, and
/// coloured. Each pixel in the region becomes `(1 - alpha) * image + alpha * colour`, where alpha
/// is multiplied by the heat from 0 to 1 if the style's opacity follows it; pixels outside stay as
/// they are. A map without cells counts as a map of zeros.
///
/// `region` is the part of the image that the network saw: left, top, right and bottom edge as
/// fractions of width and height; none for the whole image.
///
/// # Errors
///
/// If the format can't hold an image of this size: the sides of a WebP have at most 16,384
/// pixels, those of a JPEG 65,535.
pub fn draw(
    image: &RgbImage,
    region: Option<[f32; 4]>,
    map: &HeatMap,
    style: OverlayStyle,
) -> Result<Option<Vec<u8>>, EncodeOverlayError> {
    let mut file = Vec::new();
    let levels = HeatLevels::new(map, image.dimensions(), region);
    let format = style.format;
    let written = match format {
        OverlayFormat::Jpeg => write_jpeg(image, levels, style, &mut file),
        OverlayFormat::Png => blended(image, &levels, style)
            .write_with_encoder(PngEncoder::new(&mut file))
            .map_err(Into::into),
        OverlayFormat::Webp => blended(image, &levels, style)
            .write_with_encoder(WebPEncoder::new_lossless(&mut file))
            .map_err(Into::into),
        OverlayFormat::None => return Ok(None),
    };
    match written {
        Ok(()) => Ok(Some(file)),
        Err(source) => Err(EncodeOverlayError { format, source }),
    }
}

/// The overlay's pixels.
fn blended(image: &RgbImage, levels: &HeatLevels, style: OverlayStyle) -> RgbImage {
    let mut image = image.clone();
    let blend = RgbBlend::new(style.alpha, style.opacity, color_table(style.colormap));
    let width = image.width() as usize;
    let mut row_levels = vec![0; levels.columns.len()];
    for y in levels.rows.clone() {
        let row = &mut image.as_flat_samples_mut().samples[3 * y * width..][..3 * width];
        let row = &mut row.as_chunks_mut::<3>().0[levels.columns.clone()];
        levels.write_row(y, &mut row_levels);
        for (pixel, &level) in row.iter_mut().zip(&row_levels) {
            blend.apply(pixel, level);
        }
    }
    image
}

/// Encodes by jpeg-encoder, which takes a quarter of the time of the image crate's own encoder.
/// It gets blended rows in Y, Cb and Cr, so that nothing is converted twice or copied.
fn write_jpeg(
    image: &RgbImage,
    levels: HeatLevels,
    style: OverlayStyle,
    file: &mut Vec<u8>,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut encoder = Encoder::new(file, JPEG_QUALITY);
    // Chroma at half resolution: heat is smooth, and most photographs have it so. The encoder
    // takes one value of four instead of their mean, which would take a tenth more time for less
    // than 1 dB.
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    let colors = color_table(style.colormap);
    Ok(encoder.encode_image(JpegRows {
        image,
        width: image.width().try_into()?,
        height: image.height().try_into()?,
        row_levels: RefCell::new(vec![0; image.width() as usize]),
        blend: YcbcrBlend::new(style.alpha, style.opacity, colors),
        outside: (!levels.cover(image))
            .then(|| YcbcrBlend::new(0.0, OverlayOpacity::Constant, colors)),
        levels,
    })?)
}

/// An overlay whose rows jpeg-encoder reads one after the other.
struct JpegRows<'a> {
    image: &'a RgbImage,
    width: u16,
    height: u16,
    levels: HeatLevels,
    /// Levels of the row last read; allocated once.
    row_levels: RefCell<Vec<u8>>,
    blend: YcbcrBlend,
    /// Keeps pixels outside the map as they are; none if the map lies over the whole image.
    outside: Option<YcbcrBlend>,
}

impl ImageBuffer for JpegRows<'_> {
    fn get_jpeg_color_type(&self) -> JpegColorType {
        JpegColorType::Ycbcr
    }

    fn width(&self) -> u16 {
        self.width
    }

    fn height(&self) -> u16 {
        self.height
    }

    fn fill_buffers(&self, y: u16, [luma, blue, red, _]: &mut [Vec<u8>; 4]) {
        let (y, width) = (usize::from(y), usize::from(self.width));
        let mut row_levels = self.row_levels.borrow_mut();
        let pixels: &[[u8; 3]] = self.image.as_raw()[3 * width * y..][..3 * width].as_chunks().0;
        let Some(outside) = &self.outside else {
            self.levels.write_row(y, &mut row_levels);
            return self.blend.append_row(pixels, &row_levels, [luma, blue, red]);
        };
        let columns = match self.levels.rows.contains(&y) {
            true => self.levels.columns.clone(),
            false => 0..0,
        };
        let (left, rest) = pixels.split_at(columns.start);
        let (middle, right) = rest.split_at(columns.len());
        // With an alpha of zero the level does not matter.
        outside.append_row(left, &row_levels[..left.len()], [luma, blue, red]);
        if !middle.is_empty() {
            let row_levels = &mut row_levels[..middle.len()];
            self.levels.write_row(y, row_levels);
            self.blend.append_row(middle, row_levels, [luma, blue, red]);
        }
        outside.append_row(right, &row_levels[..right.len()], [luma, blue, red]);
    }
}

#[cfg(test)]
mod tests;
