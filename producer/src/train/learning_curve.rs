//! A picture of how well the images were classified after each epoch, as SVG and as PNG.
//! Pure functions: writing them is not done here.

use std::io::Cursor;
use std::sync::Once;

use camshaft_training::EpochRecord;
use epaint_default_fonts::UBUNTU_LIGHT;
use image::{ImageFormat, RgbImage};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

/// Of both pictures, in pixels.
const SIZE: (u32, u32) = (1000, 600);
/// The SVG's viewer has one of this name; the PNG's is in the program.
const FONT: &str = "sans-serif";
/// Blue and orange of Okabe and Ito's palette, which colour-blind people tell apart.
const TRAINING: RGBColor = RGBColor(0, 114, 178);
const VALIDATION: RGBColor = RGBColor(213, 94, 0);
/// Accuracies are drawn down to a multiple of this.
const STEP: f64 = 0.05;

/// The picture can't be drawn.
#[derive(Debug, thiserror::Error)]
#[error("the learning curve can't be drawn: {0}")]
pub struct CurveError(String);

/// The curves as SVG.
///
/// # Errors
/// Where the library fails.
pub(crate) fn svg(title: &str, history: &[EpochRecord]) -> Result<String, CurveError> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        draw(&area, title, history).map_err(|error| CurveError(error.to_string()))?;
    }
    Ok(text)
}

/// The curves as PNG.
///
/// # Errors
/// Where the library fails.
pub(crate) fn png(title: &str, history: &[EpochRecord]) -> Result<Vec<u8>, CurveError> {
    let mut pixels = vec![0; (SIZE.0 * SIZE.1 * 3) as usize];
    {
        let area = BitMapBackend::with_buffer(&mut pixels, SIZE).into_drawing_area();
        draw(&area, title, history).map_err(|error| CurveError(error.to_string()))?;
    }
    let image = RgbImage::from_raw(SIZE.0, SIZE.1, pixels).expect("the buffer has its size");
    let mut file = Cursor::new(Vec::new());
    image.write_to(&mut file, ImageFormat::Png).map_err(|error| CurveError(error.to_string()))?;
    Ok(file.into_inner())
}

fn draw<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    title: &str,
    history: &[EpochRecord],
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    register();
    area.fill(&WHITE)?;
    let last = history.last().map_or(1, |last| last.epoch);
    let least = history
        .iter()
        .flat_map(|epoch| [epoch.training_accuracy, epoch.validation_accuracy])
        .fold(1.0, f64::min);
    // Room below the lowest point; a curve at 100 % must not lie on the frame.
    let bottom = ((least / STEP - 0.2).floor() * STEP).clamp(0.0, 1.0 - STEP);
    let top = 1.0 + 0.02 * (1.0 - bottom);
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 26))
        .margin(18)
        .x_label_area_size(52)
        .y_label_area_size(72)
        .build_cartesian_2d(0.5..f64::from(last) + 0.5, bottom..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("epoch")
        .y_desc("accuracy")
        .x_labels(last.min(20) as usize + 1)
        .x_label_formatter(&|epoch| {
            if epoch.fract() == 0.0 { format!("{epoch:.0}") } else { String::new() }
        })
        .y_label_formatter(&|share| format!("{:.0} %", share * 100.0))
        .axis_desc_style((FONT, 20))
        .label_style((FONT, 17))
        .draw()?;
    let point = |accuracy: f64, epoch: &EpochRecord| (f64::from(epoch.epoch), accuracy);
    let training: Vec<_> = history.iter().map(|e| point(e.training_accuracy, e)).collect();
    let validation: Vec<_> = history.iter().map(|e| point(e.validation_accuracy, e)).collect();
    for (name, points, color) in
        [("training", training, TRAINING), ("validation", validation, VALIDATION)]
    {
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(3)).point_size(4))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], color.stroke_width(3)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .margin(14)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .label_font((FONT, 19))
        .draw()?;
    area.present()
}

/// Makes the font known, once.
fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let registered = register_font(FONT, FontStyle::Normal, UBUNTU_LIGHT);
        assert!(registered.is_ok(), "the font inside the program is one");
    });
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
            let text = svg("A title", &history(epochs)).unwrap();
            for part in ["A title", "epoch", "accuracy", "training", "validation", "100 %"] {
                assert!(text.contains(part), "{epochs} epochs: no {part:?}");
            }
            let picture = image::load_from_memory(&png("A title", &history(epochs)).unwrap());
            let picture = picture.unwrap().to_rgb8();
            assert_eq!(picture.dimensions(), SIZE);
            for color in [TRAINING, VALIDATION] {
                let color = image::Rgb([color.0, color.1, color.2]);
                let drawn = picture.pixels().filter(|&&pixel| pixel == color).count();
                assert!(drawn > 50, "{epochs} epochs: {drawn} pixels of {color:?}");
            }
        }
    }
}
