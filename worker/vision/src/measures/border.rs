//! Bars of one colour at a picture's edges: letterboxes, pillar boxes, frames.
//!
//! A bar is a run of lines of one brightness, from the edge inwards, that ends at a straight edge: there
//! most pixels change at once. A white background, into which a thing juts here and there, has no such
//! edge. Upstream: a reduced picture. Downstream: [`measure`](super::measure).

use super::reduced::{Luma, STEPS};

/// The mean difference from the bar's brightness that a line of it may have, in steps of [`Luma`]: three
/// levels of a byte. JPEGs have noise beside the bar's end.
const MEAN_DIFFERENCE: u32 = 3 * STEPS;
/// A pixel that differs more from the bar's brightness is another: twelve levels.
const OTHER_PIXEL: u16 = 12 * STEPS as u16;
/// A line of the bar may have up to one other pixel in 20.
const OTHERS_IN: usize = 20;
/// The lines in which the end is looked for: averaging and JPEG's ringing soften it.
const END_LINES: usize = 4;
/// Along a straight end, at least 6 of 10 pixels change.
const CHANGED_IN_TEN: usize = 6;

/// How far bars reach inwards from the left, top, right and lower edge, as shares of width and height.
/// All are 1 if the picture has one shade, and 0 if it has no pixels.
#[inline(always)]
pub(super) fn border(luma: &Luma) -> [f32; 4] {
    let (width, height) = (luma.width, luma.height);
    if width == 0 || height == 0 {
        return [0.0; 4];
    }
    [
        bar(width, height, |line, at| luma.values[at * width + line]),
        bar(height, width, |line, at| luma.values[line * width + at]),
        bar(width, height, |line, at| luma.values[at * width + width - 1 - line]),
        bar(height, width, |line, at| luma.values[(height - 1 - line) * width + at]),
    ]
}

/// The share of `lines` lines of `length` pixels that is a bar. Line 0 is at the picture's edge.
#[inline(always)]
fn bar(lines: usize, length: usize, pixel: impl Fn(usize, usize) -> u16) -> f32 {
    let mut first: Vec<u16> = (0..length).map(|at| pixel(0, at)).collect();
    let brightness = *first.select_nth_unstable(length / 2).1;
    let difference = |line: usize, at: usize| pixel(line, at).abs_diff(brightness);
    let is_of_bar = |line: &usize| {
        let (mut sum, mut others) = (0, 0);
        for at in 0..length {
            let difference = difference(*line, at);
            sum += u64::from(difference);
            others += usize::from(difference > OTHER_PIXEL);
        }
        sum <= u64::from(MEAN_DIFFERENCE) * length as u64 && others * OTHERS_IN <= length
    };
    let bar = (0..lines).take_while(is_of_bar).count();
    let end = bar..lines.min(bar + END_LINES);
    let changes = |at: &usize| end.clone().any(|line| difference(line, *at) > OTHER_PIXEL);
    let is_straight = || 10 * (0..length).filter(changes).count() >= CHANGED_IN_TEN * length;
    if bar == lines || bar > 0 && is_straight() { bar as f32 / lines as f32 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn luma(width: usize, height: usize, level: impl Fn(usize, usize) -> usize) -> Luma {
        let at = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        let values = at.map(|(x, y)| level(x, y) as u16 * 256).collect();
        Luma { width, height, values }
    }

    /// What a photograph has beside bars: no line of one brightness.
    fn texture(x: usize, y: usize) -> usize {
        60 + (x * x * 7 + y * y * 3 + x * y * 5) / 11 % 150
    }

    #[test]
    fn bars_are_measured_at_each_edge() {
        let framed = luma(200, 100, |x, y| match (x, y) {
            (..10, _) | (_, ..20) | (180.., _) => 255,
            _ => texture(x, y),
        });
        let [left, top, right, bottom] = border(&framed);
        assert_eq!((left, bottom), (0.05, 0.0));
        assert_eq!((top, right), (0.2, 0.1));
        assert_eq!(border(&luma(200, 100, texture)), [0.0; 4]);
    }

    #[test]
    fn a_plain_background_is_no_bar() {
        // A round thing on white.
        let thing = luma(120, 120, |x, y| {
            let (x, y) = (x.abs_diff(60), y.abs_diff(60));
            if x * x + y * y < 40 * 40 { texture(x, y) } else { 255 }
        });
        assert_eq!(border(&thing), [0.0; 4]);
        // A sky that grows darker.
        assert_eq!(border(&luma(100, 100, |_, y| 255 - y)), [0.0; 4]);
    }

    #[test]
    fn noise_and_a_soft_end_change_little() {
        let noisy = luma(200, 200, |x, y| match y {
            ..30 => (x * 31 + y * 17) % 5,
            30 => texture(x, y) / 4,
            _ => texture(x, y),
        });
        let [_, top, _, _] = border(&noisy);
        assert!((0.14..=0.15).contains(&top), "{top}");
    }

    #[test]
    fn one_shade_is_all_border_and_no_pixels_are_none() {
        assert_eq!(border(&luma(7, 3, |_, _| 9)), [1.0; 4]);
        assert_eq!(border(&luma(1, 1, |_, _| 9)), [1.0; 4]);
        assert_eq!(border(&luma(0, 0, |_, _| 9)), [0.0; 4]);
    }
}
