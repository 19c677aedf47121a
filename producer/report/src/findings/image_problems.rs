//! Searches for poor pictures: dark, bright, washed out, blurred, nearly empty, grey, with bars, strongly
//! compressed, or of an odd size or shape.
//!
//! Light, blur, information, bars and blocks are judged by fixed limits, as a person would; size and shape
//! by what is usual in the data set. The limits were chosen on one set of photographs with planted faults
//! (`tests/benches/findings`, seed 1).

use super::finding::{Problem, RowFinding};
use crate::statistics::robust_spread::{self, RobustSpread};
use crate::table::{TableError, TableReader};

/// 95 % of a dark picture are below this brightness.
const DARK: f32 = 0.25;
/// 95 % of a bright picture are above this brightness.
const BRIGHT: f32 = 0.8;
/// The least entropy of brightness, 3 of 8 bits. A drawing has more shades.
const LOW_INFORMATION: f32 = 0.375;
/// A picture above this blur effect looks blurred.
///
/// Photographs with a soft frame or of long fur come close to it.
const BLURRED: f32 = 0.7;
/// The deviations by which the blur has to be above the usual as well, since some kinds of pictures
/// are soft.
const BLURRED_DEVIATIONS: f64 = 3.0;
/// A picture below this mean difference of its colours is grey.
const GREY: f32 = 0.01;
/// It is also below this share of its contrast. A dark picture has little colour in absolute numbers, and
/// as much as others beside its contrast.
const GREY_OF_CONTRAST: f32 = 0.025;
/// A washed-out picture has less contrast, a quarter of what is usual in photographs.
const WASHED_OUT: f32 = 0.0625;
/// It has little colour too. A thing of one strong colour is no washed-out picture.
const WASHED_OUT_CHROMA: f32 = 0.1;
/// Bars on two opposite sides are each at least this share of the width or height.
const LETTERBOX: f32 = 0.05;
/// A share beyond this is no picture with bars.
const ALL_BORDER: f32 = 1.0;
/// A picture whose steps are larger by this share on the grid of a JPEG's blocks than beside it shows the
/// blocks, as a third of all photographs at quality 20 and most at quality 10.
const COMPRESSED: f32 = 0.75;
/// Steps that are larger still are those of enlarged pixels, in a drawing.
const ENLARGED_PIXELS: f32 = 20.0;
/// If a larger share of the pictures is grey, grey is no problem.
const MAX_GREY_SHARE: f64 = 0.2;
/// The factor by which an odd size differs from the median size: the square root of the pixels.
const ODD_SIZE: f32 = 4.0;
/// The factor by which an odd shape differs from the median ratio of width to height.
const ODD_ASPECT: f32 = 2.5;

/// What was measured of the images of one row group; NaN for an image without.
struct MeasureColumns {
    contrast: Vec<f32>,
    /// Left, top, right and bottom.
    border: [Vec<f32>; 4],
    blocking: Vec<f32>,
    bright_percentile: Vec<f32>,
    dark_percentile: Vec<f32>,
    information: Vec<f32>,
    blur: Vec<f32>,
    chroma: Vec<f32>,
    /// Width and height in pixels.
    sides: Vec<Option<(f32, f32)>>,
}

impl MeasureColumns {
    fn read(table: &TableReader, group: usize) -> Result<Self, TableError> {
        let column = |name| table.floats(group, name);
        let [left, top, right, bottom] =
            ["border_left", "border_top", "border_right", "border_bottom"].map(column);
        Ok(Self {
            contrast: column("contrast")?,
            border: [left?, top?, right?, bottom?],
            blocking: column("blocking")?,
            bright_percentile: column("bright_percentile")?,
            dark_percentile: column("dark_percentile")?,
            information: column("information")?,
            blur: column("blur")?,
            chroma: column("chroma")?,
            sides: read_sides(table, group)?,
        })
    }
}

/// Width and height of the images of one row group.
fn read_sides(table: &TableReader, group: usize) -> Result<Vec<Option<(f32, f32)>>, TableError> {
    let (widths, heights) = (table.integers(group, "width")?, table.integers(group, "height")?);
    let sides = widths.iter().zip(&heights);
    Ok(sides.map(|(w, h)| Some(((*w)? as f32, (*h)? as f32))).collect())
}

/// What is usual in the data set.
struct UsualMeasures {
    /// Square root of the number of pixels.
    side: f32,
    /// Width to height.
    aspect: f32,
    blur: RobustSpread,
    grey_is_odd: bool,
}

/// Searches all images that have been measured.
pub(super) fn find(
    table: &TableReader,
    notes: &mut Vec<String>,
) -> Result<Vec<RowFinding>, TableError> {
    let (mut sides, mut aspects) = (Vec::new(), Vec::new());
    let blur = table.all_floats("blur")?;
    let chroma = table.all_floats("chroma")?;
    for group in 0..table.groups() {
        for (width, height) in read_sides(table, group)?.into_iter().flatten() {
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
    let border = table.all_floats("border")?;
    let bordered = border.iter().filter(|value| !value.is_nan()).count();
    if bordered < measured {
        notes.push(format!(
            "bars and JPEG blocks were not looked for in {} images: their results are of an older \
             version; camshaft audit --remeasure adds what is missing, without the network",
            measured - bordered
        ));
    }
    let blocking = table.all_floats("blocking")?;
    let looked_for = blocking.iter().filter(|value| !value.is_nan()).count();
    if looked_for < bordered {
        notes.push(format!(
            "JPEG blocks were not looked for in {} images, which were decoded at a reduced scale; \
             camshaft audit --remeasure measures them, without the network",
            bordered - looked_for
        ));
    }
    let spread = RobustSpread::of(&blur);
    let contrast = table.all_floats("contrast")?;
    let grey = chroma.iter().zip(&contrast).filter(|(of, beside)| is_grey(**of, **beside)).count();
    let usual = UsualMeasures {
        side: robust_spread::median(&mut sides).unwrap_or(1.0),
        aspect: robust_spread::median(&mut aspects).unwrap_or(1.0),
        blur: spread,
        grey_is_odd: (grey as f64) < MAX_GREY_SHARE * measured as f64,
    };
    let (mut found, mut start) = (Vec::new(), 0);
    for group in 0..table.groups() {
        let columns = MeasureColumns::read(table, group)?;
        for at in 0..columns.blur.len() {
            judge(&columns, at, start + at, &usual, &mut found);
        }
        start += columns.blur.len();
    }
    Ok(found)
}

/// Whether a picture has no colours, whatever else is in the data set.
pub(super) fn is_grey(chroma: f32, contrast: f32) -> bool {
    chroma < GREY && chroma <= GREY_OF_CONTRAST * contrast
}

/// The smaller bar of two opposite sides, if both are there, or the smallest of a frame; the picture is
/// not all border.
fn letterbox([left, top, right, bottom]: [f32; 4]) -> Option<(f32, &'static str)> {
    let (across, down) = (left.min(right), top.min(bottom));
    let is_bar = |bar| (LETTERBOX..ALL_BORDER).contains(&bar);
    if !is_bar(across.max(down)) {
        None
    } else if is_bar(across.min(down)) {
        Some((across.min(down), "on all sides"))
    } else if across > down {
        Some((across, "left and right"))
    } else {
        Some((down, "above and below"))
    }
}

/// Adds a finding for each problem of one image. `at` is its position in the row group.
fn judge(
    columns: &MeasureColumns,
    at: usize,
    row: usize,
    usual: &UsualMeasures,
    found: &mut Vec<RowFinding>,
) {
    let mut add = |problem, score, reason: String| {
        found.push(RowFinding::of_problem(row, problem, score, reason));
    };
    let (bright, dark) = (columns.bright_percentile[at], columns.dark_percentile[at]);
    if bright < DARK {
        let reason =
            format!("Dark: 95 % of it is no brighter than {:.0} % of white", bright * 100.0);
        add(Problem::Dark, 0.7 - bright, reason);
    }
    if dark > BRIGHT {
        let reason =
            format!("Bright: 95 % of it is at least as bright as {:.0} % of white", dark * 100.0);
        add(Problem::Bright, 0.4 + 2.0 * (dark - BRIGHT) * 0.5, reason);
    }
    let information = columns.information[at];
    if information < LOW_INFORMATION {
        let reason = format!("Low information: its shades have {:.1} of 8 bits", information * 8.0);
        add(Problem::LowInformation, 0.75 - information, reason);
    }
    let blur = columns.blur[at];
    if blur > BLURRED
        && usual.blur.deviations_above(blur) > BLURRED_DEVIATIONS
        && information >= LOW_INFORMATION
    {
        let reason = format!("Blurred: blur effect {blur:.2}, {:.2} is usual", usual.blur.median);
        add(Problem::Blurred, 0.4 + (blur - BLURRED), reason);
    }
    let (chroma, contrast) = (columns.chroma[at], columns.contrast[at]);
    // What has few shades is a drawing or a blank: grey is its least problem.
    if is_grey(chroma, contrast) && usual.grey_is_odd && information >= LOW_INFORMATION {
        add(Problem::Grey, 0.35, "Grey, while most others are in colour".to_owned());
    }
    if contrast < WASHED_OUT
        && chroma < WASHED_OUT_CHROMA
        && bright >= DARK
        && dark <= BRIGHT
        && information >= LOW_INFORMATION
    {
        let reason = format!("Washed out: brightness varies by {:.1} % only", contrast * 100.0);
        add(Problem::WashedOut, 0.4 + 2.0 * (WASHED_OUT - contrast), reason);
    }
    if let Some((bar, sides)) = letterbox(columns.border.each_ref().map(|side| side[at])) {
        let reason = format!("Letterbox: bars {sides}, of {:.0} % each at least", bar * 100.0);
        add(Problem::Letterbox, 0.35 + bar, reason);
    }
    let blocking = columns.blocking[at];
    // The few levels of a dark picture or a drawing have chance steps.
    let is_compressed = blocking > COMPRESSED && blocking < ENLARGED_PIXELS;
    if is_compressed && bright >= DARK && information >= LOW_INFORMATION {
        let reason = format!(
            "Compressed: steps at the edges of its JPEG blocks are {:.0} % larger than others",
            blocking * 100.0
        );
        add(Problem::Compression, 0.3 + 0.1 * (blocking - COMPRESSED), reason);
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
