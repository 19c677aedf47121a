//! One convolution as a kernel is told it: where weights and pixels lie, and which pixels and
//! outputs to compute. Does not compute, and does not know which kernel will.

use crate::kernel::ValueFormat;
use crate::layout::{NOT_KEPT, PLANE, PixelLayout, PixelRange, Segment};
use crate::team::WorkPart;
use crate::weights::PackedConvolution;

/// Weights of more bytes than this don't stay in the second-level cache beside activations.
/// Each panel is then used on more pixels before the next.
pub(crate) const CACHED_WEIGHT_BYTES: usize = 1_200_000;
/// How many times more pixels, for kernels that take segments: some hundred pixels, whose input
/// stays in the second-level cache while all weights pass once. Measured on Zen 5; 2 and 8 are
/// 1 % slower.
pub(crate) const UNCACHED_FACTOR: usize = 4;
/// Most ranges of a call: the sections of a split layout.
const MAX_RANGES: usize = 4;

/// A convolution of pixels in memory, or a part of one.
///
/// Pixels are counted in `layout`. Borders and overruns that the output's `pixel_map` does not
/// keep are computed and discarded.
#[derive(Clone, Copy)]
pub(crate) struct ConvolutionCall<'a> {
    pub(crate) weights: &'a PackedConvolution,
    /// Bytes from the start of a panel of weights to the first one that is used.
    pub(crate) weights_offset: usize,
    /// One f32 for each output.
    pub(crate) bias: *const f32,
    /// The pixels to compute: those of the first `images` images.
    pub(crate) layout: PixelLayout,
    pub(crate) images: usize,
    pub(crate) input: CallInput<'a>,
    /// Added before the ReLU, in `layout`.
    pub(crate) residual: Option<Residual>,
    pub(crate) relu: bool,
    pub(crate) output: CallOutput<'a>,
    /// The panels of 32 outputs to compute.
    pub(crate) panels: PanelRange,
    /// The pixels to compute, for kernels that take ranges of any length.
    pub(crate) ranges: PixelRanges,
    /// The same pixels in segments, for the other kernels.
    pub(crate) segments: &'a [Segment],
}

/// Planes of pixels in memory.
#[derive(Clone, Copy)]
pub(crate) struct Planes {
    /// Pixel 0 of plane 0.
    pub(crate) pixels: *const u8,
    /// Bytes from a plane to the next.
    pub(crate) plane_bytes: usize,
}

/// What a call reads.
#[derive(Clone, Copy)]
pub(crate) struct CallInput<'a> {
    pub(crate) planes: Planes,
    /// Bytes from the input of a pixel to that of the next.
    pub(crate) step_bytes: usize,
    /// Bytes from a value's high half to its low half, for a format that has two.
    pub(crate) low_bytes: usize,
    /// Offset in bytes of each tap's input.
    pub(crate) taps: &'a [isize],
}

/// What a call adds to its sums.
#[derive(Clone, Copy)]
pub(crate) struct Residual {
    pub(crate) planes: Planes,
    /// The kernel's own, or 16 bits for one that keeps 8.
    pub(crate) format: ValueFormat,
}

/// What a call writes.
#[derive(Clone, Copy)]
pub(crate) struct CallOutput<'a> {
    /// Output pixel 0 of plane 0.
    pub(crate) pixels: *mut u8,
    /// Bytes from a plane to the next.
    pub(crate) plane_bytes: usize,
    /// For each computed pixel its output pixel, before `pixel_offset` is added.
    pub(crate) pixel_map: &'a [u32],
    pub(crate) pixel_offset: usize,
    /// The output pixel that takes what is discarded.
    pub(crate) discard_pixel: usize,
    /// The kernel's own, or one that it can write instead: f32 for a kernel that keeps pairs of bf16,
    /// without a residual; f32 and 16 bits for those that keep 8 bits.
    pub(crate) format: ValueFormat,
}

/// Neighbouring panels.
#[derive(Clone, Copy)]
pub(crate) struct PanelRange {
    pub(crate) first: usize,
    /// The first panel after the range.
    pub(crate) end: usize,
}

impl PanelRange {
    /// All panels of a convolution.
    pub(crate) fn all(weights: &PackedConvolution) -> Self {
        Self { first: 0, end: weights.outputs / PLANE }
    }

    pub(crate) fn one(panel: usize) -> Self {
        Self { first: panel, end: panel + 1 }
    }

    pub(crate) fn len(self) -> usize {
        self.end - self.first
    }

    pub(crate) fn iter(self) -> std::ops::Range<usize> {
        self.first..self.end
    }
}

/// A few ranges of pixels.
#[derive(Clone, Copy, Default)]
pub(crate) struct PixelRanges {
    ranges: [PixelRange; MAX_RANGES],
    count: usize,
}

impl PixelRanges {
    pub(crate) fn as_slice(&self) -> &[PixelRange] {
        &self.ranges[..self.count]
    }

    /// A part of the ranges, in whole blocks of 32 pixels from each range's start.
    fn part(&self, part: WorkPart) -> Self {
        let blocks = |range: &PixelRange| range.length.div_ceil(PLANE);
        let wanted = part.range(self.as_slice().iter().map(blocks).sum());
        let mut before = 0;
        let parts = self.as_slice().iter().filter_map(|range| {
            let blocks = blocks(range);
            let from = wanted.start.clamp(before, before + blocks) - before;
            let to = wanted.end.clamp(before, before + blocks) - before;
            before += blocks;
            let (from, to) = (from * PLANE, (to * PLANE).min(range.length));
            (from < to).then(|| PixelRange { start: range.start + from, length: to - from })
        });
        parts.collect()
    }
}

impl FromIterator<PixelRange> for PixelRanges {
    /// # Panics
    /// If there are more ranges than sections of a layout.
    fn from_iter<I: IntoIterator<Item = PixelRange>>(ranges: I) -> Self {
        let mut few = Self::default();
        for range in ranges {
            few.ranges[few.count] = range;
            few.count += 1;
        }
        few
    }
}

// SAFETY: a call is only a description. The code that runs it promises that its pointers are valid,
// and that calls that run at the same time are parts of one call, which write different pixels or
// planes.
unsafe impl Sync for ConvolutionCall<'_> {}

impl ConvolutionCall<'_> {
    /// One part of this call: some of the outputs, if reading weights takes most of the time,
    /// and else some of the pixels. Each output is computed in the same way in any part.
    pub(crate) fn part(&self, part: WorkPart) -> Self {
        let mut call = *self;
        if part == WorkPart::WHOLE {
            return call;
        }
        call.output.discard_pixel -= part.index;
        let panels = self.panels.len();
        if panels >= part.parts && self.weight_bytes() > CACHED_WEIGHT_BYTES / 4 {
            let range = part.range(panels);
            let first = self.panels.first;
            call.panels = PanelRange { first: first + range.start, end: first + range.end };
        } else {
            let pairs = part.range(self.segments.len().div_ceil(2));
            let end = (2 * pairs.end).min(self.segments.len());
            call.segments = &self.segments[2 * pairs.start..end];
            call.ranges = self.ranges.part(part);
        }
        call
    }

    /// Bytes of the weights of the panels to compute.
    pub(crate) fn weight_bytes(&self) -> usize {
        self.panels.len() * self.weights.panel_bytes
    }

    /// The weights of a panel.
    pub(crate) fn panel(&self, panel: usize) -> *const u8 {
        let offset = panel * self.weights.panel_bytes + self.weights_offset;
        self.weights.panels.as_ptr().wrapping_add(offset)
    }

    /// The output pixel for a computed pixel.
    #[inline(always)]
    pub(crate) fn output_pixel(&self, pixel: usize) -> usize {
        match self.output.pixel_map[pixel] {
            NOT_KEPT => self.output.discard_pixel,
            mapped => mapped as usize + self.output.pixel_offset,
        }
    }

    /// The output pixel for pixel `at` of a segment.
    #[inline(always)]
    pub(crate) fn segment_output_pixel(&self, segment: Segment, at: usize) -> usize {
        if at < segment.valid {
            self.output_pixel(segment.start + at)
        } else {
            self.output.discard_pixel
        }
    }

    /// The smallest value that an output may have.
    pub(crate) fn floor(&self) -> f32 {
        if self.relu { 0.0 } else { f32::NEG_INFINITY }
    }

    /// Visits each pair of segments with each panel, in an order that keeps the input of
    /// `pairs_at_once` pairs in the first-level cache, or of [`UNCACHED_FACTOR`] times more in
    /// the second-level cache if weights don't stay there.
    #[inline(always)]
    pub(crate) fn for_each_segment_pair(
        &self,
        pairs_at_once: usize,
        mut visit: impl FnMut([Segment; 2], usize),
    ) {
        let cached = self.weight_bytes() <= CACHED_WEIGHT_BYTES;
        let at_once = 2 * pairs_at_once * if cached { 1 } else { UNCACHED_FACTOR };
        for segments in self.segments.chunks(at_once) {
            for panel in self.panels.iter() {
                for pair in segments.chunks(2) {
                    let first = pair[0];
                    // Without a second segment the first is computed twice and kept once.
                    let second = pair.get(1).copied().unwrap_or(Segment { valid: 0, ..first });
                    visit([first, second], panel);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_ranges_cover_every_pixel_once_in_whole_blocks() {
        let ranges = [(3, 70), (100, 32), (200, 1), (300, 65)]
            .map(|(start, length)| PixelRange { start, length });
        for parts in 1..9 {
            let mut seen = vec![0; 400];
            for index in 0..parts {
                let cut = PixelRanges::from_iter(ranges).part(WorkPart { index, parts });
                for &PixelRange { start, length } in cut.as_slice() {
                    let whole = |range: &PixelRange| {
                        (range.start..range.start + range.length).contains(&start)
                            && (start - range.start).is_multiple_of(PLANE)
                    };
                    assert!(ranges.iter().any(whole));
                    (start..start + length).for_each(|pixel| seen[pixel] += 1);
                }
            }
            for (pixel, times) in seen.into_iter().enumerate() {
                let counts = ranges
                    .iter()
                    .any(|range| (range.start..range.start + range.length).contains(&pixel));
                assert_eq!(times, usize::from(counts), "{parts} parts, pixel {pixel}");
            }
        }
    }
}
