//! Poor pictures: dark, bright, blurred, nearly empty, grey, or of an odd size or shape.
//!
//! Light, blur and information are judged by fixed limits, as a person would; size and shape by
//! what is usual in the data set.

use super::{Found, Problem};
use crate::robust;
use crate::table::{TableError, TableReader};

/// Brightness that nineteen twentieths of a dark picture are below.
const DARK: f32 = 0.25;
/// Brightness that nineteen twentieths of a bright picture are above.
const BRIGHT: f32 = 0.8;
/// Entropy of brightness, 3 of 8 bits: fewer shades than a drawing has.
const LOW_INFORMATION: f32 = 0.375;
/// Blur effect of a picture that looks blurred.
const BLURRED: f32 = 0.6;
/// Blur has to be unusual as well, in robust standard deviations: some kinds of picture are soft.
const BLURRED_Z: f64 = 3.0;
/// Mean difference of the colours of a grey picture.
const GREY: f32 = 0.01;
/// Where more of the pictures are grey, that is no problem.
const FEW: f64 = 0.2;
/// Times larger or smaller, each way, than the median picture.
const ODD_SIZE: f32 = 4.0;
/// Times wider or higher than the median picture.
const ODD_ASPECT: f32 = 2.5;

/// Columns of one group.
struct Group {
    bright_percentile: Vec<f32>,
    dark_percentile: Vec<f32>,
    information: Vec<f32>,
    blur: Vec<f32>,
    chroma: Vec<f32>,
    sides: Vec<Option<(f32, f32)>>,
}

impl Group {
    fn read(table: &TableReader, group: usize) -> Result<Self, TableError> {
        let column = |name| table.floats(group, name);
        let (widths, heights) = (table.integers(group, "width")?, table.integers(group, "height")?);
        let sides = widths.iter().zip(&heights);
        Ok(Self {
            bright_percentile: column("bright_percentile")?,
            dark_percentile: column("dark_percentile")?,
            information: column("information")?,
            blur: column("blur")?,
            chroma: column("chroma")?,
            sides: sides.map(|(w, h)| Some(((*w)? as f32, (*h)? as f32))).collect(),
        })
    }
}

/// What is usual.
struct Usual {
    side: f32,
    aspect: f32,
    blur: robust::Spread,
    grey_is_odd: bool,
}

/// Looks at all images that have been measured.
pub(super) fn find(table: &TableReader, notes: &mut Vec<String>) -> Result<Vec<Found>, TableError> {
    let (mut sides, mut aspects) = (Vec::new(), Vec::new());
    let blur = table.all_floats("blur")?;
    let chroma = table.all_floats("chroma")?;
    for group in 0..table.groups() {
        for (width, height) in Group::read(table, group)?.sides.into_iter().flatten() {
            sides.push((width * height).sqrt());
            aspects.push(width / height.max(1.0));
        }
    }
    let measured = blur.iter().filter(|value| !value.is_nan()).count();
    let without = sides.len() - measured.min(sides.len());
    if without > 0 {
        notes.push(format!(
            "image problems other than size were not looked for in {without} images: their results \
             are of an older version"
        ));
    }
    let spread = robust::Spread::of(&blur);
    let grey = chroma.iter().filter(|value| **value < GREY).count();
    let usual = Usual {
        side: robust::median(&mut sides).unwrap_or(1.0),
        aspect: robust::median(&mut aspects).unwrap_or(1.0),
        blur: spread,
        grey_is_odd: (grey as f64) < FEW * measured as f64,
    };
    let (mut found, mut start) = (Vec::new(), 0);
    for group in 0..table.groups() {
        let columns = Group::read(table, group)?;
        for at in 0..columns.blur.len() {
            judge(&columns, at, start + at, &usual, &mut found);
        }
        start += columns.blur.len();
    }
    Ok(found)
}

fn judge(columns: &Group, at: usize, row: usize, usual: &Usual, found: &mut Vec<Found>) {
    let mut add = |problem, score, reason: String| {
        found.push(Found::problem(row, problem, score, reason));
    };
    let (bright, dark) = (columns.bright_percentile[at], columns.dark_percentile[at]);
    if bright < DARK {
        let reason = format!("Dark: 95 % of it is below {:.0} % brightness", bright * 100.0);
        add(Problem::Dark, 0.7 - bright, reason);
    }
    if dark > BRIGHT {
        let reason = format!("Bright: 95 % of it is above {:.0} % brightness", dark * 100.0);
        add(Problem::Bright, 0.4 + 2.0 * (dark - BRIGHT) * 0.5, reason);
    }
    let information = columns.information[at];
    if information < LOW_INFORMATION {
        let reason = format!("Low information: its shades have {:.1} of 8 bits", information * 8.0);
        add(Problem::LowInformation, 0.75 - information, reason);
    }
    let blur = columns.blur[at];
    if blur > BLURRED && usual.blur.above(blur) > BLURRED_Z && information >= LOW_INFORMATION {
        let reason = format!("Blurred: blur effect {blur:.2}, {:.2} is usual", usual.blur.median);
        add(Problem::Blurred, 0.4 + (blur - BLURRED), reason);
    }
    if columns.chroma[at] < GREY && usual.grey_is_odd {
        add(Problem::Grey, 0.35, "Grey, while most others are in colour".to_owned());
    }
    let Some((width, height)) = columns.sides[at] else { return };
    let times = (width * height).sqrt() / usual.side;
    if !(1.0 / ODD_SIZE..=ODD_SIZE).contains(&times) {
        let reason =
            format!("Odd size: {width} × {height} pixels, {:.0} a side is usual", usual.side);
        add(Problem::OddSize, 0.3 + 0.05 * times.ln().abs(), reason);
    }
    let times = width / height.max(1.0) / usual.aspect;
    if !(1.0 / ODD_ASPECT..=ODD_ASPECT).contains(&times) {
        let reason = format!(
            "Odd shape: {width} × {height} pixels, width to height {:.2} is usual",
            usual.aspect
        );
        add(Problem::OddAspect, 0.3 + 0.05 * times.ln().abs(), reason);
    }
}
