//! Stretches a heat map over an image, as a level for each pixel. Does not know colours.
//!
//! The stretch is bilinear with pixel centres at halves and edges clamped: OpenCV's
//! `INTER_LINEAR`, PyTorch's `interpolate(mode="bilinear", align_corners=False)`.

use std::ops::Range;

use crate::heat_map::HeatMap;

/// The level of a pixel beside the map. Those under it are 0 to 255.
pub(super) const OUTSIDE: u16 = 256;

/// A map whose largest value is 255, stretched over an image or a part of it.
pub(super) struct HeatLevels {
    /// Cells in a row of the map.
    width: usize,
    values: Vec<f32>,
    /// The image's rows under the map.
    pub(super) rows: Range<usize>,
    /// For each of these rows the map's rows that it reads.
    row_samples: Vec<CellSample>,
    /// The image's columns under the map.
    pub(super) columns: Range<usize>,
    /// These columns, counted from the first.
    runs: Vec<ColumnRun>,
}

impl HeatLevels {
    /// Levels are added up along a run with 16 bits of fraction.
    const ONE: f32 = 65536.0;

    /// `region` is the part of the image under the map: left, top, right and bottom edge as
    /// fractions of width and height; none for the whole image.
    pub(super) fn new(
        map: &HeatMap,
        (width, height): (u32, u32),
        region: Option<[f32; 4]>,
    ) -> Self {
        let cells = map.width * map.height;
        assert_eq!(map.values.len(), cells, "a map has a value for each cell");
        let max = map.values.iter().copied().fold(0.0, f32::max);
        let level = |&value: &f32| if max > 0.0 { (value / max).max(0.0) * 255.0 } else { 0.0 };
        let (wide, high, values) = match cells {
            0 => (1, 1, vec![0.0]),
            _ => (map.width, map.height, map.values.iter().map(level).collect()),
        };
        let [left, top, right, bottom] = region.unwrap_or([0.0, 0.0, 1.0, 1.0]).map(f64::from);
        let (rows, row_samples) = samples(high, height as usize, top..bottom);
        let (columns, column_samples) = samples(wide, width as usize, left..right);
        let runs = runs(&column_samples);
        Self { width: wide, values, rows, row_samples, columns, runs }
    }

    /// Writes the level of each pixel in row `y` of the image: [`OUTSIDE`] beside the map.
    pub(super) fn write_row(&self, y: usize, levels: &mut [u16]) {
        if !self.rows.contains(&y) {
            return levels.fill(OUTSIDE);
        }
        levels[..self.columns.start].fill(OUTSIDE);
        levels[self.columns.end..].fill(OUTSIDE);
        let row = &self.row_samples[y - self.rows.start];
        let levels = &mut levels[self.columns.clone()];
        let heat = |column: usize| {
            let [above, below] =
                [row.first, row.second].map(|row| self.values[row * self.width + column]);
            above + (below - above) * row.weight
        };
        for run in &self.runs {
            let (left, right) = (heat(run.first), heat(run.second));
            let start = ((left + (right - left) * run.weight + 0.5) * Self::ONE) as i32;
            let step = ((right - left) * run.step * Self::ONE) as i32;
            for (at, level) in (0..).zip(&mut levels[run.columns.clone()]) {
                *level = u16::from(((start + at * step) >> 16) as u8);
            }
        }
    }
}

/// What a pixel reads along one axis: `(1 - weight)` of the first cell and `weight` of the
/// second.
struct CellSample {
    first: usize,
    second: usize,
    weight: f32,
}

/// Along one axis of `pixels` pixels: those whose middle lies in `span`, in fractions of the
/// axis, and for each what it reads of `cells` cells stretched over the span.
fn samples(cells: usize, pixels: usize, span: Range<f64>) -> (Range<usize>, Vec<CellSample>) {
    let (start, end) = (span.start * pixels as f64, span.end * pixels as f64);
    let whole = |edge: f64| ((edge - 0.5).ceil().max(0.0) as usize).min(pixels);
    let range = whole(start)..whole(end).max(whole(start));
    let scale = cells as f64 / (end - start);
    let last = cells - 1;
    let sample = |pixel: usize| {
        let position = ((pixel as f64 + 0.5 - start) * scale - 0.5).clamp(0.0, last as f64);
        let first = position as usize;
        let weight = (position - first as f64) as f32;
        CellSample { first, second: (first + 1).min(last), weight }
    };
    (range.clone(), range.map(sample).collect())
}

/// Neighbouring columns that read the same two cells, with evenly growing weights.
struct ColumnRun {
    columns: Range<usize>,
    first: usize,
    second: usize,
    /// The second cell's weight in the first column.
    weight: f32,
    /// What is added to the weight from column to column.
    step: f32,
}

fn runs(samples: &[CellSample]) -> Vec<ColumnRun> {
    let mut runs: Vec<ColumnRun> = Vec::new();
    for (column, &CellSample { first, second, weight }) in samples.iter().enumerate() {
        match runs.last_mut() {
            // At the edges several columns read one cell alone, which makes a run of its own.
            Some(run) if run.first == first && (weight == 0.0) == (run.weight == 0.0) => {
                run.columns.end = column + 1;
                run.step = (weight - run.weight) / (column - run.columns.start) as f32;
            }
            _ => {
                let columns = column..column + 1;
                runs.push(ColumnRun { columns, first, second, weight, step: 0.0 });
            }
        }
    }
    runs
}
