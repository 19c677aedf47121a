//! A drawing of lines, discs and words, written as SVG or painted as pixels.
//!
//! Owns how each shape looks in both. Which shapes there are is
//! [`learning_curve`](super)'s business.

use std::fmt::Write;

use image::{Rgb, RgbImage};
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

/// Coordinates in pixels, right and down.
pub(super) type Point = (f64, f64);

pub(super) const WHITE: Rgb<u8> = Rgb([255, 255, 255]);
pub(super) const BLACK: Rgb<u8> = Rgb([0, 0, 0]);

/// Where a text lies with respect to its point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Anchor {
    /// It begins there.
    Start,
    /// Its middle is there.
    Middle,
    /// It ends there.
    End,
    /// Its middle is there, and it is read upwards.
    Upwards,
}

/// The two sizes of text.
#[derive(Clone, Copy, Debug)]
pub(super) enum TextSize {
    Normal,
    Title,
}

#[derive(Debug)]
enum Shape {
    Line { from: Point, to: Point, width: f64, color: Rgb<u8> },
    Disc { center: Point, radius: f64, color: Rgb<u8> },
    Rectangle { from: Point, to: Point, color: Rgb<u8> },
    Text { at: Point, anchor: Anchor, size: TextSize, text: String },
}

/// Shapes in the order they are drawn in, on white.
#[derive(Debug)]
pub(super) struct Drawing {
    width: u32,
    height: u32,
    shapes: Vec<Shape>,
}

impl Drawing {
    pub(super) fn new(width: u32, height: u32) -> Self {
        Self { width, height, shapes: Vec::new() }
    }

    pub(super) fn line(&mut self, from: Point, to: Point, width: f64, color: Rgb<u8>) {
        self.shapes.push(Shape::Line { from, to, width, color });
    }

    pub(super) fn disc(&mut self, center: Point, radius: f64, color: Rgb<u8>) {
        self.shapes.push(Shape::Disc { center, radius, color });
    }

    /// Fills a rectangle between its upper left and its lower right corner.
    pub(super) fn rectangle(&mut self, from: Point, to: Point, color: Rgb<u8>) {
        self.shapes.push(Shape::Rectangle { from, to, color });
    }

    /// Writes a text whose middle in height is at a point.
    pub(super) fn text(
        &mut self,
        at: Point,
        anchor: Anchor,
        size: TextSize,
        text: impl Into<String>,
    ) {
        self.shapes.push(Shape::Text { at, anchor, size, text: text.into() });
    }

    pub(super) fn to_svg(&self) -> String {
        let Self { width, height, .. } = self;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\">\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
        );
        for shape in &self.shapes {
            writeln!(svg, "{}", shape.to_svg()).expect("writing to a string can't fail");
        }
        svg.push_str("</svg>\n");
        svg
    }

    pub(super) fn to_pixels(&self) -> RgbImage {
        let mut image = RgbImage::from_pixel(self.width, self.height, WHITE);
        for shape in &self.shapes {
            shape.paint(&mut image);
        }
        image
    }
}

impl TextSize {
    /// Of the letters in the SVG.
    fn pixels(self) -> u32 {
        match self {
            Self::Normal => 17,
            Self::Title => 25,
        }
    }

    fn raster(self) -> RasterHeight {
        match self {
            Self::Normal => RasterHeight::Size16,
            Self::Title => RasterHeight::Size24,
        }
    }
}

impl Shape {
    fn to_svg(&self) -> String {
        match self {
            Self::Line { from: (x1, y1), to: (x2, y2), width, color } => format!(
                "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" \
                 stroke=\"{}\" stroke-width=\"{width}\"/>",
                hex(*color)
            ),
            Self::Disc { center: (x, y), radius, color } => format!(
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"{}\"/>",
                hex(*color)
            ),
            Self::Rectangle { from: (x, y), to, color } => format!(
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\"/>",
                to.0 - x,
                to.1 - y,
                hex(*color)
            ),
            Self::Text { at: (x, y), anchor, size, text } => {
                let start = match anchor {
                    Anchor::Start => "start",
                    Anchor::Middle | Anchor::Upwards => "middle",
                    Anchor::End => "end",
                };
                let turned = match anchor {
                    Anchor::Upwards => format!(" transform=\"rotate(-90 {x:.1} {y:.1})\""),
                    _ => String::new(),
                };
                let text = text.replace('&', "&amp;").replace('<', "&lt;");
                let pixels = size.pixels();
                format!(
                    "<text x=\"{x:.1}\" y=\"{y:.1}\" dy=\"0.35em\" font-size=\"{pixels}\" \
                     text-anchor=\"{start}\"{turned}>{text}</text>"
                )
            }
        }
    }

    fn paint(&self, image: &mut RgbImage) {
        match self {
            &Self::Line { from, to, width, color } => stroke(image, from, to, width, color),
            &Self::Disc { center, radius, color } => {
                stroke(image, center, center, 2.0 * radius, color);
            }
            Self::Rectangle { from, to, color } => {
                for y in from.1.round() as u32..to.1.round() as u32 {
                    for x in from.0.round() as u32..to.0.round() as u32 {
                        image.put_pixel(x, y, *color);
                    }
                }
            }
            Self::Text { at, anchor, size, text } => letters(image, *at, *anchor, *size, text),
        }
    }
}

fn hex(Rgb([r, g, b]): Rgb<u8>) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// Paints all that is nearer to a line than half its width, with soft edges.
fn stroke(image: &mut RgbImage, from: Point, to: Point, width: f64, color: Rgb<u8>) {
    let reach = width / 2.0 + 1.0;
    let range = |a: f64, b: f64, end: u32| {
        let low = (a.min(b) - reach).floor().max(0.0) as u32;
        let high = (a.max(b) + reach).ceil().max(0.0) as u32;
        low..high.min(end)
    };
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let squared = dx * dx + dy * dy;
    for y in range(from.1, to.1, image.height()) {
        for x in range(from.0, to.0, image.width()) {
            let (px, py) = (f64::from(x) + 0.5 - from.0, f64::from(y) + 0.5 - from.1);
            // Where on the line the pixel's nearest point is, from 0 to 1.
            let along = if squared > 0.0 { (px * dx + py * dy) / squared } else { 0.0 };
            let along = along.clamp(0.0, 1.0);
            let distance = (px - along * dx).hypot(py - along * dy);
            blend(image, x, y, color, (width / 2.0 + 0.5 - distance).clamp(0.0, 1.0));
        }
    }
}

fn letters(image: &mut RgbImage, at: Point, anchor: Anchor, size: TextSize, text: &str) {
    let raster_height = size.raster();
    let letter_width = get_raster_width(FontWeight::Regular, raster_height);
    let length = (letter_width * text.chars().count()) as f64;
    let before = match anchor {
        Anchor::Start => 0.0,
        Anchor::Middle | Anchor::Upwards => length / 2.0,
        Anchor::End => length,
    };
    let half = raster_height.val() as f64 / 2.0;
    for (index, letter) in text.chars().enumerate() {
        // The font has ASCII alone, as all texts here are.
        let letter = get_raster(letter, FontWeight::Regular, raster_height)
            .or_else(|| get_raster('?', FontWeight::Regular, raster_height));
        let Some(letter) = letter else { continue };
        for (row, line) in letter.rows().enumerate() {
            for (column, darkness) in line.iter().enumerate() {
                let along = (index * letter_width + column) as f64 - before;
                let down = row as f64 - half;
                let (x, y) = match anchor {
                    Anchor::Upwards => (at.0 + down, at.1 - along),
                    _ => (at.0 + along, at.1 + down),
                };
                let inside = x >= 0.0
                    && y >= 0.0
                    && x < f64::from(image.width())
                    && y < f64::from(image.height());
                if inside {
                    let darkness = f64::from(*darkness) / 255.0;
                    blend(image, x as u32, y as u32, BLACK, darkness);
                }
            }
        }
    }
}

fn blend(image: &mut RgbImage, x: u32, y: u32, Rgb(color): Rgb<u8>, opacity: f64) {
    let Rgb(pixel) = image.get_pixel_mut(x, y);
    for (under, over) in pixel.iter_mut().zip(color) {
        let mixed = f64::from(*under) + (f64::from(over) - f64::from(*under)) * opacity;
        *under = mixed.round() as u8;
    }
}
