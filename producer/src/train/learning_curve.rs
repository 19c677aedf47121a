//! A picture of how well the images were classified after each epoch, as SVG and as PNG.
//! Pure functions: writing them is not done here. Downstream: [`drawing`] makes the shapes
//! visible.

use camshaft_training::EpochRecord;
use image::codecs::png::PngEncoder;
use image::{ImageError, Rgb};

use drawing::{Anchor, BLACK, Drawing, Point, TextSize, WHITE};

mod drawing;

/// Of both pictures, in pixels.
const SIZE: (u32, u32) = (1000, 600);
/// The part of them that has the curves.
const LEFT: f64 = 90.0;
const RIGHT: f64 = 982.0;
const TOP: f64 = 48.0;
const BOTTOM: f64 = 530.0;
/// Blue and orange of Okabe and Ito's palette, which colour-blind people tell apart.
const TRAINING: Rgb<u8> = Rgb([0, 114, 178]);
const VALIDATION: Rgb<u8> = Rgb([213, 94, 0]);
const GRID: Rgb<u8> = Rgb([204, 204, 204]);
/// Accuracies are drawn down to a multiple of this.
const STEP: f64 = 0.05;
/// Lines across the curves, and labels below them, are no more than these.
const MAX_LINES: f64 = 9.0;
const MAX_EPOCH_LABELS: u32 = 20;

/// The picture can't be drawn.
#[derive(Debug, thiserror::Error)]
#[error("the learning curve can't be drawn: {0}")]
pub struct CurveError(#[from] ImageError);

/// The curves as SVG.
pub(crate) fn svg(title: &str, history: &[EpochRecord]) -> String {
    draw(title, history).to_svg()
}

/// The curves as PNG.
///
/// # Errors
/// If the pixels can't be encoded.
pub(crate) fn png(title: &str, history: &[EpochRecord]) -> Result<Vec<u8>, CurveError> {
    let mut file = Vec::new();
    draw(title, history).to_pixels().write_with_encoder(PngEncoder::new(&mut file))?;
    Ok(file)
}

/// Where an epoch's accuracy lies in the picture.
struct Axes {
    last_epoch: u32,
    lowest: f64,
    highest: f64,
}

impl Axes {
    fn of(history: &[EpochRecord]) -> Self {
        let last_epoch = history.last().map_or(1, |last| last.epoch);
        let least = history
            .iter()
            .flat_map(|epoch| [epoch.training_accuracy, epoch.validation_accuracy])
            .fold(1.0, f64::min);
        // Room below the lowest point; a curve at 100 % must not lie on the frame.
        let lowest = ((least / STEP - 0.2).floor() * STEP).clamp(0.0, 1.0 - STEP);
        Self { last_epoch, lowest, highest: 1.0 + 0.02 * (1.0 - lowest) }
    }

    fn x(&self, epoch: u32) -> f64 {
        LEFT + (f64::from(epoch) - 0.5) / f64::from(self.last_epoch) * (RIGHT - LEFT)
    }

    fn y(&self, accuracy: f64) -> f64 {
        BOTTOM - (accuracy - self.lowest) / (self.highest - self.lowest) * (BOTTOM - TOP)
    }

    /// Percentages that have a line.
    fn percentages(&self) -> impl Iterator<Item = u32> {
        let lowest = (self.lowest * 100.0).round() as u32;
        let steps = [1_u32, 2, 5, 10, 20];
        let few = |step: &u32| f64::from(100 - lowest) / f64::from(*step) <= MAX_LINES;
        let step = steps.into_iter().find(few).unwrap_or(25);
        (lowest..=100).filter(move |percentage| percentage % step == 0)
    }

    /// Epochs that have a label.
    fn epochs(&self) -> impl Iterator<Item = u32> {
        let last = self.last_epoch;
        let steps = (0..).flat_map(|power| [1, 2, 5].map(|first| first * 10_u32.pow(power)));
        let step = steps.into_iter().find(|step| last / step <= MAX_EPOCH_LABELS).unwrap_or(last);
        (1..=last).filter(move |epoch| epoch % step == 0)
    }
}

fn draw(title: &str, history: &[EpochRecord]) -> Drawing {
    let axes = Axes::of(history);
    let mut drawing = Drawing::new(SIZE.0, SIZE.1);
    let middle = f64::midpoint(LEFT, RIGHT);
    drawing.text((f64::from(SIZE.0) / 2.0, 26.0), Anchor::Middle, TextSize::Title, title);
    drawing.text((middle, 572.0), Anchor::Middle, TextSize::Normal, "epoch");
    let beside = (24.0, f64::midpoint(TOP, BOTTOM));
    drawing.text(beside, Anchor::Upwards, TextSize::Normal, "accuracy");
    for percentage in axes.percentages() {
        let y = axes.y(f64::from(percentage) / 100.0);
        drawing.line((LEFT, y), (RIGHT, y), 1.0, GRID);
        drawing.line((LEFT - 6.0, y), (LEFT, y), 1.0, BLACK);
        let label = format!("{percentage} %");
        drawing.text((LEFT - 10.0, y), Anchor::End, TextSize::Normal, label);
    }
    for epoch in axes.epochs() {
        let x = axes.x(epoch);
        drawing.line((x, BOTTOM), (x, BOTTOM + 6.0), 1.0, BLACK);
        let below = (x, BOTTOM + 18.0);
        drawing.text(below, Anchor::Middle, TextSize::Normal, epoch.to_string());
    }
    drawing.line((LEFT, TOP), (LEFT, BOTTOM), 1.0, BLACK);
    drawing.line((LEFT, BOTTOM), (RIGHT, BOTTOM), 1.0, BLACK);
    let points = |accuracy: fn(&EpochRecord) -> f64| -> Vec<Point> {
        history.iter().map(|e| (axes.x(e.epoch), axes.y(accuracy(e)))).collect()
    };
    curve(&mut drawing, &points(|e| e.training_accuracy), TRAINING);
    curve(&mut drawing, &points(|e| e.validation_accuracy), VALIDATION);
    legend(&mut drawing);
    drawing
}

fn curve(drawing: &mut Drawing, points: &[Point], color: Rgb<u8>) {
    for pair in points.windows(2) {
        drawing.line(pair[0], pair[1], 3.0, color);
    }
    for point in points {
        drawing.disc(*point, 5.0, color);
        drawing.disc(*point, 2.0, WHITE);
    }
}

/// Names the curves, in the corner where accuracies are low and so rarely drawn.
fn legend(drawing: &mut Drawing) {
    let (left, top, right, bottom) = (RIGHT - 150.0, BOTTOM - 72.0, RIGHT - 4.0, BOTTOM - 6.0);
    drawing.rectangle((left, top), (right, bottom), GRID);
    drawing.rectangle((left + 1.0, top + 1.0), (right - 1.0, bottom - 1.0), WHITE);
    for (name, color, y) in
        [("training", TRAINING, top + 21.0), ("validation", VALIDATION, bottom - 21.0)]
    {
        drawing.line((left + 14.0, y), (left + 38.0, y), 3.0, color);
        drawing.text((left + 46.0, y), Anchor::Start, TextSize::Normal, name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(epochs: u32) -> Vec<EpochRecord> {
        let epoch = |epoch: u32| EpochRecord {
            epoch,
            training_loss: 0.1,
            training_accuracy: 1.0 - 0.4 / f64::from(epoch),
            validation_loss: 0.1,
            validation_accuracy: 1.0 - 0.3 / f64::from(epoch),
            seconds: 1.0,
        };
        (1..=epochs).map(epoch).collect()
    }

    #[test]
    fn both_curves_are_drawn_and_named() {
        for epochs in [1, 10, 300] {
            let text = svg("A title", &history(epochs));
            for part in ["A title", "epoch", "accuracy", "training", "validation", "100 %"] {
                assert!(text.contains(part), "{epochs} epochs: no {part:?}");
            }
            let picture = image::load_from_memory(&png("A title", &history(epochs)).unwrap());
            let picture = picture.unwrap().to_rgb8();
            assert_eq!(picture.dimensions(), SIZE);
            for color in [TRAINING, VALIDATION] {
                let drawn = picture.pixels().filter(|&&pixel| pixel == color).count();
                assert!(drawn > 50, "{epochs} epochs: {drawn} pixels of {color:?}");
            }
        }
    }
}
