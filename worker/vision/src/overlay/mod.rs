//! A heat map over its image, and that as a file.
//!
//! Owns scaling, blending and encoding. Does not compute maps. Upstream: a decoded image and
//! its map. Downstream: the store.

use std::cell::RefCell;
use std::error::Error;
use std::ops::Range;

use camshaft_common::explain::{Colormap, OverlayFormat};
use camshaft_kernels::YcbcrBlend;
use image::RgbImage;
use image::codecs::png::PngEncoder;
use image::codecs::webp::WebPEncoder;
use jpeg_encoder::{Encoder, ImageBuffer, JpegColorType, SamplingFactor};

use crate::colormap::color_table;
use crate::heat_map::HeatMap;

/// Quality of JPEG overlays, of 100. Heat is smooth and the photograph under it was a JPEG
/// already: more only makes files larger.
const JPEG_QUALITY: u8 = 85;

/// The overlay can't be encoded.
#[derive(Debug, thiserror::Error)]
#[error("can't write the overlay as {format}; choose another overlay format")]
pub struct EncodeOverlayError {
    format: OverlayFormat,
    #[source]
    source: Box<dyn Error + Send + Sync>,
}

/// An image under its map, as a file: the map divided by its maximum (all zero stays all
/// zero), stretched over the part of the image that the network saw, coloured, and
/// `(1 - alpha) * image + alpha * colour`. Outside that part the image stays as it is. `None`
/// where no overlay is written.
///
/// `region` is that part: left, top, right and bottom edge as shares of width and height; none
/// for all of the image.
///
/// The stretch is bilinear with pixel centres at halves and edges clamped: OpenCV's
/// `INTER_LINEAR`, PyTorch's `interpolate(mode="bilinear", align_corners=False)`. `alpha` is
/// clamped to 0..1. A map without cells counts as all zero.
///
/// # Errors
///
/// When the format can't hold an image of this size: a WebP's sides have at most 16,384 pixels,
/// a JPEG's 65,535.
pub fn draw(
    image: &RgbImage,
    region: Option<[f32; 4]>,
    map: &HeatMap,
    (colormap, alpha): (Colormap, f32),
    format: OverlayFormat,
) -> Result<Option<Vec<u8>>, EncodeOverlayError> {
    let mut file = Vec::new();
    let levels = Levels::of(map, image.dimensions(), region);
    let written = match format {
        OverlayFormat::Jpeg => write_jpeg(image, levels, (colormap, alpha), &mut file),
        OverlayFormat::Png => blended(image, &levels, (colormap, alpha))
            .write_with_encoder(PngEncoder::new(&mut file))
            .map_err(Into::into),
        OverlayFormat::Webp => blended(image, &levels, (colormap, alpha))
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
fn blended(image: &RgbImage, levels: &Levels, (colormap, alpha): (Colormap, f32)) -> RgbImage {
    let mut image = image.clone();
    let blend = Blend::new(colormap, alpha);
    let width = image.width() as usize;
    let mut row_levels = vec![0; levels.columns.len()];
    for y in levels.rows.clone() {
        let row = &mut image.as_flat_samples_mut().samples[3 * y * width..][..3 * width];
        let row = &mut row.as_chunks_mut::<3>().0[levels.columns.clone()];
        levels.row(y, &mut row_levels);
        for (pixel, &level) in row.iter_mut().zip(&row_levels) {
            blend.apply(pixel, level);
        }
    }
    image
}

/// By jpeg-encoder, which takes a quarter of the time of the image crate's own encoder. It is
/// handed mixed rows in its own colours, so that nothing is converted twice or copied.
fn write_jpeg(
    image: &RgbImage,
    levels: Levels,
    (colormap, alpha): (Colormap, f32),
    file: &mut Vec<u8>,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut encoder = Encoder::new(file, JPEG_QUALITY);
    // Chroma at half resolution: the heat is smooth, and photographs come that way. Each fourth
    // value as it is, not the mean of four, which costs a tenth of the time and is under 1 dB.
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    let size = (image.width().try_into()?, image.height().try_into()?);
    let alpha = f64::from(alpha.clamp(0.0, 1.0));
    Ok(encoder.encode_image(Rows {
        image,
        size,
        row_levels: RefCell::new(vec![0; image.width() as usize]),
        blend: YcbcrBlend::new(alpha, color_table(colormap)),
        plain: (!levels.cover(image)).then(|| YcbcrBlend::new(0.0, color_table(colormap))),
        levels,
    })?)
}

/// An overlay for jpeg-encoder, which asks for one row after the other.
struct Rows<'a> {
    image: &'a RgbImage,
    size: (u16, u16),
    levels: Levels,
    /// Of the row last asked for.
    row_levels: RefCell<Vec<u8>>,
    blend: YcbcrBlend,
    /// What is outside the map, as it is; none where there is nothing.
    plain: Option<YcbcrBlend>,
}

impl ImageBuffer for Rows<'_> {
    fn get_jpeg_color_type(&self) -> JpegColorType {
        JpegColorType::Ycbcr
    }

    fn width(&self) -> u16 {
        self.size.0
    }

    fn height(&self) -> u16 {
        self.size.1
    }

    fn fill_buffers(&self, y: u16, [luma, blue, red, _]: &mut [Vec<u8>; 4]) {
        let (y, width) = (usize::from(y), usize::from(self.size.0));
        let mut row_levels = self.row_levels.borrow_mut();
        let pixels: &[[u8; 3]] = self.image.as_raw()[3 * width * y..][..3 * width].as_chunks().0;
        let Some(plain) = &self.plain else {
            self.levels.row(y, &mut row_levels);
            return self.blend.row(pixels, &row_levels, [luma, blue, red]);
        };
        let columns = match self.levels.rows.contains(&y) {
            true => self.levels.columns.clone(),
            false => 0..0,
        };
        let (left, rest) = pixels.split_at(columns.start);
        let (middle, right) = rest.split_at(columns.len());
        // A level without weight is any level.
        plain.row(left, &row_levels[..left.len()], [luma, blue, red]);
        if !middle.is_empty() {
            let row_levels = &mut row_levels[..middle.len()];
            self.levels.row(y, row_levels);
            self.blend.row(middle, row_levels, [luma, blue, red]);
        }
        plain.row(right, &row_levels[..right.len()], [luma, blue, red]);
    }
}

/// A map whose largest value is 255, stretched over an image or a part of it.
struct Levels {
    width: usize,
    values: Vec<f32>,
    /// The image's rows that it lies over, and where each reads.
    rows: Range<usize>,
    samples: Vec<Sample>,
    /// The image's columns that it lies over, and the same of them.
    columns: Range<usize>,
    runs: Vec<Run>,
}

impl Levels {
    /// Of levels in a row's sums, which a run adds up: 16 bits of fraction.
    const ONE: f32 = 65536.0;

    fn of(map: &HeatMap, (width, height): (u32, u32), region: Option<[f32; 4]>) -> Self {
        let cells = map.width * map.height;
        assert_eq!(map.values.len(), cells, "a map has a value for each cell");
        let max = map.values.iter().copied().fold(0.0, f32::max);
        let level = |&value: &f32| if max > 0.0 { (value / max).max(0.0) * 255.0 } else { 0.0 };
        let (wide, high, values) = match cells {
            0 => (1, 1, vec![0.0]),
            _ => (map.width, map.height, map.values.iter().map(level).collect()),
        };
        let [left, top, right, bottom] = region.unwrap_or([0.0, 0.0, 1.0, 1.0]).map(f64::from);
        let (rows, row_samples) = samples(high, height as usize, (top, bottom));
        let (columns, column_samples) = samples(wide, width as usize, (left, right));
        let runs = runs(&column_samples);
        Self { width: wide, values, rows, samples: row_samples, columns, runs }
    }

    /// Whether it lies over all of an image.
    fn cover(&self, image: &RgbImage) -> bool {
        let (width, height) = (image.width() as usize, image.height() as usize);
        (self.columns.len(), self.rows.len()) == (width, height)
    }

    /// Levels of a row of the image that it lies over, 0 to 255, for each of its columns.
    fn row(&self, y: usize, levels: &mut [u8]) {
        let row = &self.samples[y - self.rows.start];
        let heat = |column: usize| {
            let [above, below] =
                [row.first, row.second].map(|row| self.values[row * self.width + column]);
            above + (below - above) * row.share
        };
        for run in &self.runs {
            let (left, right) = (heat(run.first), heat(run.second));
            let start = ((left + (right - left) * run.share + 0.5) * Self::ONE) as i32;
            let step = ((right - left) * run.step * Self::ONE) as i32;
            for (at, level) in (0..).zip(&mut levels[run.pixels.clone()]) {
                *level = ((start + at * step) >> 16) as u8;
            }
        }
    }
}

/// Where a pixel reads: `(1 - share)` of the first cell and `share` of the second.
struct Sample {
    first: usize,
    second: usize,
    share: f32,
}

/// The pixels, of so many along one axis, whose middle lies between `start` and `end` (shares
/// of the axis), and for each where it reads in `cells` stretched over that part.
fn samples(cells: usize, pixels: usize, (start, end): (f64, f64)) -> (Range<usize>, Vec<Sample>) {
    let (start, end) = (start * pixels as f64, end * pixels as f64);
    let whole = |edge: f64| ((edge - 0.5).ceil().max(0.0) as usize).min(pixels);
    let range = whole(start)..whole(end).max(whole(start));
    let scale = cells as f64 / (end - start);
    let last = cells - 1;
    let sample = |pixel: usize| {
        let position = ((pixel as f64 + 0.5 - start) * scale - 0.5).clamp(0.0, last as f64);
        let first = position as usize;
        let share = (position - first as f64) as f32;
        Sample { first, second: (first + 1).min(last), share }
    };
    (range.clone(), range.map(sample).collect())
}

/// Neighbouring pixels whose share of the same two cells grows evenly.
struct Run {
    pixels: Range<usize>,
    first: usize,
    second: usize,
    /// Of the first pixel.
    share: f32,
    /// From pixel to pixel.
    step: f32,
}

fn runs(samples: &[Sample]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (pixel, &Sample { first, second, share }) in samples.iter().enumerate() {
        match runs.last_mut() {
            // At the edges several pixels read one cell alone: those are a run of their own.
            Some(run) if run.first == first && (share == 0.0) == (run.share == 0.0) => {
                run.pixels.end = pixel + 1;
                run.step = (share - run.share) / (pixel - run.pixels.start) as f32;
            }
            _ => runs.push(Run { pixels: pixel..pixel + 1, first, second, share, step: 0.0 }),
        }
    }
    runs
}

/// Both terms of the blend for every byte and level, in 1/65536.
struct Blend {
    image: [u32; 256],
    color: [[u32; 3]; 256],
}

impl Blend {
    const ONE: f64 = 65536.0;
    const HALF: u32 = 32768;

    fn new(colormap: Colormap, alpha: f32) -> Self {
        let alpha = f64::from(alpha.clamp(0.0, 1.0));
        let share = |share: f64, value: u8| (share * f64::from(value) * Self::ONE).round() as u32;
        Self {
            image: std::array::from_fn(|byte| share(1.0 - alpha, byte as u8)),
            // Half is added here, once, to round the sum to nearest.
            color: color_table(colormap).map(|rgb| rgb.map(|c| share(alpha, c) + Self::HALF)),
        }
    }

    fn apply(&self, pixel: &mut [u8; 3], level: u8) {
        let color = &self.color[usize::from(level)];
        for (channel, color) in pixel.iter_mut().zip(color) {
            *channel = ((self.image[usize::from(*channel)] + color) >> 16) as u8;
        }
    }
}

#[cfg(test)]
mod tests;
