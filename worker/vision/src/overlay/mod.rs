//! Draws a heat map over its image and encodes the result as a file.
//!
//! Owns scaling (`levels`), blending (`blend`, and `ycbcr` for JPEG) and which encoder writes which
//! format. Does not compute maps. Upstream: a decoded image and its map. Downstream: the store.

use std::error::Error;

use camshaft_common::explain::{Colormap, OverlayFormat, OverlayOpacity};
use camshaft_jpeg::{EncodeJpegError, MAX_SIDE};
use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::codecs::webp::WebPEncoder;

use self::blend::RgbBlend;
use self::levels::HeatLevels;
use self::ycbcr::YcbcrBlend;
use crate::colormap::color_table;
use crate::heat_map::HeatMap;

mod blend;
mod levels;
mod ycbcr;

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
    let written: Result<(), Box<dyn Error + Send + Sync>> = match format {
        // libjpeg writes no longer sides. The image crate's encoder takes many times as long.
        OverlayFormat::Jpeg if image.width().max(image.height()) > MAX_SIDE => {
            blended(image, &levels, style)
                .write_with_encoder(JpegEncoder::new_with_quality(&mut file, JPEG_QUALITY))
                .map_err(Into::into)
        }
        OverlayFormat::Jpeg => {
            jpeg(image, &levels, style).map(|bytes| file = bytes).map_err(Into::into)
        }
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
    let mut row_levels = vec![0; width];
    for y in levels.rows.clone() {
        let row = &mut image.as_flat_samples_mut().samples[3 * y * width..][..3 * width];
        let columns = levels.columns.clone();
        let row = &mut row.as_chunks_mut::<3>().0[columns.clone()];
        levels.write_row(y, &mut row_levels);
        for (pixel, &level) in row.iter_mut().zip(&row_levels[columns]) {
            blend.apply(pixel, level);
        }
    }
    image
}

/// The overlay as a JPEG. libjpeg gets blended rows in Y, Cb and Cr, so that no pixel is copied or
/// converted twice.
fn jpeg(
    image: &RgbImage,
    levels: &HeatLevels,
    style: OverlayStyle,
) -> Result<Vec<u8>, EncodeJpegError> {
    let blend = YcbcrBlend::new(style.alpha, style.opacity, color_table(style.colormap));
    let width = image.width() as usize;
    let last = image.height().saturating_sub(1) as usize;
    let mut row_levels = [vec![0; width], vec![0; width]];
    camshaft_jpeg::encode(image.dimensions(), JPEG_QUALITY, |pair, mixed| {
        // An odd height's last row is also the one below it.
        let rows = [2 * pair, (2 * pair + 1).min(last)];
        for (y, levels_of_row) in rows.into_iter().zip(&mut row_levels) {
            levels.write_row(y, levels_of_row);
        }
        let pixels = rows.map(|y| image.as_raw()[3 * width * y..][..3 * width].as_chunks().0);
        let [upper, lower] = &row_levels;
        blend.mix(pixels, [upper, lower], mixed);
    })
}

#[cfg(test)]
mod tests;
