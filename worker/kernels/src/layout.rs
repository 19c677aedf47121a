//! How activations lie in memory. Does not know what computes on them.
//!
//! Channels are split into planes of 32. A plane holds the pixels of all images one after the
//! other, with a zero column after each row and a zero row after each image. A neighbour outside
//! the image is then a zero pixel, and each tap of a 3×3 convolution is one constant offset.
//! The input of a convolution with stride 2 is split into four sections, by the parity of row
//! and column, so that its taps are constant offsets too.

use crate::aligned::AlignedMemory;
use crate::kernel::ValueFormat;
use crate::team::MAX_MEMBERS;

/// Channels of a plane of activations, and outputs of a panel of weights.
pub(crate) const PLANE: usize = 32;
/// Pixels that may be read or computed past the last one: a block of 32 for the kernel, the
/// others to discard results in.
const OVERRUN: usize = 32 + 2 * MAX_MEMBERS;
/// In a pixel map: the pixel is not kept.
pub(crate) const NOT_KEPT: u32 = u32::MAX;

/// Bytes of a pixel's 32 channels.
pub(crate) fn pixel_bytes(format: ValueFormat) -> usize {
    PLANE * format.value_bytes()
}

/// The order of a plane's pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PixelLayout {
    /// Images there is room for.
    pub(crate) images: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// Whether rows and columns are split by parity.
    pub(crate) split: bool,
}

impl PixelLayout {
    /// A layout that is not split.
    pub(crate) fn whole(images: usize, height: usize, width: usize) -> Self {
        Self { images, height, width, split: false }
    }

    /// The layout for the input of a convolution with `stride`.
    pub(crate) fn for_stride(images: usize, height: usize, width: usize, stride: usize) -> Self {
        Self { images, height, width, split: stride == 2 }
    }

    pub(crate) fn sections(self) -> usize {
        if self.split { 4 } else { 1 }
    }

    /// Rows of a section.
    pub(crate) fn rows(self) -> usize {
        if self.split { self.height.div_ceil(2) } else { self.height }
    }

    /// Columns of a section.
    pub(crate) fn columns(self) -> usize {
        if self.split { self.width.div_ceil(2) } else { self.width }
    }

    /// Pixels of one image.
    pub(crate) fn pixels(self) -> usize {
        self.height * self.width
    }

    /// Pixels from one row to the next.
    pub(crate) fn row_pitch(self) -> usize {
        self.columns() + 1
    }

    /// Pixels from one image to the next.
    pub(crate) fn image_pitch(self) -> usize {
        (self.rows() + 1) * self.row_pitch()
    }

    /// How far a tap can reach before the first and past the last pixel.
    fn guard(self) -> usize {
        self.row_pitch() + 1
    }

    /// Pixels from one section to the next.
    fn section_pitch(self) -> usize {
        self.images * self.image_pitch() + if self.split { self.guard() } else { 0 }
    }

    /// Pixels of a plane, all borders included.
    fn plane_pixels(self) -> usize {
        let pixels = self.sections() * self.section_pitch() + 2 * self.guard() + OVERRUN;
        // Planes a power of two apart would share cache sets.
        let pixels = pixels | 1;
        if matches!(pixels % 64, 1 | 63) { pixels + 6 } else { pixels }
    }

    /// A pixel to write discarded results to; no kept output depends on it. The pixels right
    /// before it, one for each further member of a team, serve the same purpose.
    fn discard_pixel(self) -> usize {
        self.plane_pixels() - self.guard() - 1
    }

    pub(crate) fn index(self, image: usize, y: usize, x: usize) -> usize {
        let (section, y, x) =
            if self.split { (y % 2 * 2 + x % 2, y / 2, x / 2) } else { (0, y, x) };
        section * self.section_pitch() + image * self.image_pitch() + y * self.row_pitch() + x
    }

    /// The pixels of the first `images` images, borders included: one range for each section.
    pub(crate) fn ranges(self, images: usize) -> impl Iterator<Item = PixelRange> {
        let length = images * self.image_pitch();
        (0..self.sections())
            .map(move |section| PixelRange { start: section * self.section_pitch(), length })
    }

    /// For each pixel of this layout its index in `target`, another layout of the same images.
    /// Borders are [`NOT_KEPT`].
    pub(crate) fn map_to(self, target: Self) -> Vec<u32> {
        debug_assert_eq!((self.height, self.width), (target.height, target.width));
        let mut map = vec![NOT_KEPT; self.sections() * self.section_pitch() + OVERRUN];
        for image in 0..self.images {
            for y in 0..self.height {
                for x in 0..self.width {
                    map[self.index(image, y, x)] = target.index(image, y, x) as u32;
                }
            }
        }
        map
    }

    /// Offsets in pixels of the taps of a 3×3 convolution that reads this layout, row by row.
    /// They count from the pixel with the output's index; with stride 2 that is a pixel of the
    /// first section.
    pub(crate) fn taps(self, stride: usize) -> Vec<isize> {
        let row = self.row_pitch() as isize;
        let section = self.section_pitch() as isize;
        // Stride 2: row 2y - 1 is row y - 1 of the odd rows, and 2y is row y of the even ones.
        let split = [(1, -1), (0, 0), (1, 0)];
        let offset = |y: usize, x: usize| match stride {
            1 => (y as isize - 1) * row + x as isize - 1,
            _ => {
                let ((odd_y, y), (odd_x, x)) = (split[y], split[x]);
                (odd_y * 2 + odd_x) * section + y * row + x
            }
        };
        (0..9).map(|tap| offset(tap / 3, tap % 3)).collect()
    }

    /// The pixels of all images in segments of `length` neighbours, as few as possible: each row
    /// by itself, or across the borders if single rows would leave too many segments half empty.
    pub(crate) fn segments(self, length: usize) -> Vec<Segment> {
        let (rows, columns) = (self.rows(), self.columns());
        let across = (self.image_pitch() - self.row_pitch() - 1).div_ceil(length);
        let by_rows = rows * columns.div_ceil(length);
        let mut segments = Vec::new();
        // The first n images are then the first segments, n / `images` of them.
        for image in 0..self.images {
            for section in 0..self.sections() {
                let start = section * self.section_pitch() + image * self.image_pitch();
                let mut cut = |start: usize, pixels: usize| {
                    for at in (0..pixels).step_by(length) {
                        let valid = (pixels - at).min(length);
                        segments.push(Segment { start: start + at, valid });
                    }
                };
                if by_rows <= across {
                    (0..rows).for_each(|y| cut(start + y * self.row_pitch(), columns));
                } else {
                    cut(start, rows * self.row_pitch() - 1);
                }
            }
        }
        segments
    }
}

/// Neighbouring pixels, any number of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PixelRange {
    pub(crate) start: usize,
    pub(crate) length: usize,
}

/// Neighbouring pixels, as many as a kernel computes together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) start: usize,
    /// Pixels that are kept. The others belong to another segment or to none.
    pub(crate) valid: usize,
}

/// Activations of some images in one [`PixelLayout`]. Borders are zero and are never written.
#[derive(Debug)]
pub(crate) struct Activation {
    memory: AlignedMemory,
    pub(crate) layout: PixelLayout,
    pub(crate) channels: usize,
    pub(crate) format: ValueFormat,
}

impl Activation {
    /// # Panics
    /// If their bytes can't be counted.
    pub(crate) fn zeroed(layout: PixelLayout, channels: usize, format: ValueFormat) -> Self {
        // Kernels write what this says there is room for.
        let plane_bytes = layout.plane_pixels().checked_mul(pixel_bytes(format));
        let bytes = plane_bytes.and_then(|bytes| bytes.checked_mul(channels / PLANE));
        let bytes = bytes.expect("activations that fit an address space");
        Self { memory: AlignedMemory::zeroed(bytes), layout, channels, format }
    }

    /// Bytes of a pixel's 32 channels.
    pub(crate) fn pixel_bytes(&self) -> usize {
        pixel_bytes(self.format)
    }

    /// Bytes from a plane to the next.
    pub(crate) fn plane_bytes(&self) -> usize {
        self.layout.plane_pixels() * self.pixel_bytes()
    }

    /// The first pixel of the first plane.
    pub(crate) fn pixels(&self) -> *const u8 {
        self.memory.as_ptr().wrapping_add(self.layout.guard() * self.pixel_bytes())
    }

    /// The first pixel of the first plane, for several threads that write different pixels.
    /// Nobody may borrow or read those pixels meanwhile.
    pub(crate) fn pixels_shared(&self) -> *mut u8 {
        self.pixels().cast_mut()
    }

    /// Index of a pixel to write discarded results to.
    pub(crate) fn discard_pixel(&self) -> usize {
        self.layout.discard_pixel()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_cover_every_pixel_once() {
        for (height, width, split) in [(7, 7, false), (5, 8, false), (9, 13, true), (56, 56, true)]
        {
            let layout = PixelLayout { images: 3, height, width, split };
            for length in [6, 7] {
                let mut seen = vec![0; layout.map_to(layout).len()];
                for segment in layout.segments(length) {
                    (0..segment.valid).for_each(|pixel| seen[segment.start + pixel] += 1);
                }
                for (pixel, place) in layout.map_to(layout).into_iter().enumerate() {
                    assert!(place == NOT_KEPT || place == pixel as u32);
                    assert!(seen[pixel] == 1 || place == NOT_KEPT && seen[pixel] == 0);
                }
            }
        }
    }
}
