//! Where activations lie. Channels in planes of 32; in a plane the pixels of all images one
//! after the other, with one zero column after each row and one zero row after each image.
//! A neighbour outside the image is then a zero pixel, and each tap of a 3×3 one constant
//! offset. What a stride-2 convolution reads is split into four parts by the parity of row
//! and column, so that its taps are constant offsets too.
//!
//! How wide a pixel is in bytes, and what computes, is not known here.

use crate::aligned::Aligned;
use crate::team::LARGEST_TEAM;

/// Channels of a plane.
pub(crate) const PLANE: usize = 32;
/// Pixels a kernel may read or compute past the last: a block of 32, so that the others are
/// free for what is thrown away.
const OVERRUN: usize = 32 + 2 * LARGEST_TEAM;
/// In a table: the pixel is not kept.
pub(crate) const NOT_KEPT: u32 = u32::MAX;

/// How a plane's pixels are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Images there is room for.
    pub(crate) images: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// Whether rows and columns are split by parity.
    pub(crate) split: bool,
}

impl Geometry {
    pub(crate) fn flat(images: usize, height: usize, width: usize) -> Self {
        Self { images, height, width, split: false }
    }

    pub(crate) fn new(images: usize, (height, width): (usize, usize), split: bool) -> Self {
        Self { images, height, width, split }
    }

    pub(crate) fn parts(self) -> usize {
        if self.split { 4 } else { 1 }
    }

    /// Rows of a part.
    pub(crate) fn rows(self) -> usize {
        if self.split { self.height.div_ceil(2) } else { self.height }
    }

    /// Columns of a part.
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

    /// Pixels from one part to the next.
    fn part_pitch(self) -> usize {
        self.images * self.image_pitch() + if self.split { self.guard() } else { 0 }
    }

    /// Pixels of a plane, all borders included.
    fn plane_pixels(self) -> usize {
        let pixels = self.parts() * self.part_pitch() + 2 * self.guard() + OVERRUN;
        // Planes a power of two apart would share cache sets.
        let pixels = pixels | 1;
        if matches!(pixels % 64, 1 | 63) { pixels + 6 } else { pixels }
    }

    /// A pixel that may be written and that no kept output depends on; so may those right
    /// before it, one for each further member of a team.
    fn sink(self) -> usize {
        self.plane_pixels() - self.guard() - 1
    }

    pub(crate) fn index(self, image: usize, y: usize, x: usize) -> usize {
        let (part, y, x) = if self.split { (y % 2 * 2 + x % 2, y / 2, x / 2) } else { (0, y, x) };
        part * self.part_pitch() + image * self.image_pitch() + y * self.row_pitch() + x
    }

    /// First pixel and number of pixels, borders included, of each part for so many images.
    pub(crate) fn runs(self, images: usize) -> impl Iterator<Item = (usize, usize)> {
        let pixels = images * self.image_pitch();
        (0..self.parts()).map(move |part| (part * self.part_pitch(), pixels))
    }

    /// Where each pixel of `self` goes in `target`, an order of the same images; borders are
    /// [`NOT_KEPT`].
    pub(crate) fn table_to(self, target: Self) -> Vec<u32> {
        debug_assert_eq!((self.height, self.width), (target.height, target.width));
        let mut table = vec![NOT_KEPT; self.parts() * self.part_pitch() + OVERRUN];
        for image in 0..self.images {
            for y in 0..self.height {
                for x in 0..self.width {
                    table[self.index(image, y, x)] = target.index(image, y, x) as u32;
                }
            }
        }
        table
    }

    /// Offsets in pixels of a convolution's taps, row by row, from the pixel of `self` that
    /// has the output's index (stride 1), or from the output's index in the first part
    /// (stride 2, split).
    pub(crate) fn taps(self, kernel: usize, stride: usize) -> Vec<isize> {
        if kernel == 1 {
            return vec![0];
        }
        let row = self.row_pitch() as isize;
        let part = self.part_pitch() as isize;
        // Stride 2: row 2y - 1 is row y - 1 of the odd ones, 2y row y of the even ones.
        let split = [(1, -1), (0, 0), (1, 0)];
        let offset = |y: usize, x: usize| match stride {
            1 => (y as isize - 1) * row + x as isize - 1,
            _ => {
                let ((odd_y, y), (odd_x, x)) = (split[y], split[x]);
                (odd_y * 2 + odd_x) * part + y * row + x
            }
        };
        (0..9).map(|tap| offset(tap / 3, tap % 3)).collect()
    }

    /// The pixels of so many images in pieces of at most `length` neighbours, as few as
    /// possible: by rows, or across the borders where rows would leave too much over.
    pub(crate) fn segments(self, length: usize) -> Vec<Segment> {
        let (rows, columns) = (self.rows(), self.columns());
        let across = (self.image_pitch() - self.row_pitch() - 1).div_ceil(length);
        let by_rows = rows * columns.div_ceil(length);
        let mut segments = Vec::new();
        // Images outermost: so many images are so many segments from the start.
        for image in 0..self.images {
            for part in 0..self.parts() {
                let start = part * self.part_pitch() + image * self.image_pitch();
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

/// Neighbouring pixels to be computed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) start: usize,
    /// Pixels of it that count; the others belong to another segment or to none.
    pub(crate) valid: usize,
}

/// Activations of some images in one [`Geometry`]. Borders are zero and are never written.
#[derive(Debug)]
pub(crate) struct Activation {
    memory: Aligned,
    pub(crate) geometry: Geometry,
    pub(crate) channels: usize,
    pub(crate) pixel_bytes: usize,
}

impl Activation {
    pub(crate) fn zeroed(geometry: Geometry, channels: usize, pixel_bytes: usize) -> Self {
        let bytes = geometry.plane_pixels() * pixel_bytes * (channels / PLANE);
        Self { memory: Aligned::zeroed(bytes), geometry, channels, pixel_bytes }
    }

    pub(crate) fn plane_bytes(&self) -> usize {
        self.geometry.plane_pixels() * self.pixel_bytes
    }

    /// The first pixel of the first plane.
    pub(crate) fn pixels(&self) -> *const u8 {
        self.memory.as_ptr().wrapping_add(self.geometry.guard() * self.pixel_bytes)
    }

    /// The first pixel of the first plane, for several threads to write different pixels. None
    /// of them may be borrowed or read meanwhile.
    pub(crate) fn pixels_shared(&self) -> *mut u8 {
        self.pixels().cast_mut()
    }

    /// Index of a pixel that may be written without effect.
    pub(crate) fn sink(&self) -> usize {
        self.geometry.sink()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_cover_every_pixel_once() {
        for (height, width, split) in [(7, 7, false), (5, 8, false), (9, 13, true), (56, 56, true)]
        {
            let geometry = Geometry::new(3, (height, width), split);
            for length in [6, 7] {
                let mut seen = vec![0; geometry.table_to(geometry).len()];
                for segment in geometry.segments(length) {
                    (0..segment.valid).for_each(|pixel| seen[segment.start + pixel] += 1);
                }
                for (pixel, place) in geometry.table_to(geometry).into_iter().enumerate() {
                    assert!(place == NOT_KEPT || place == pixel as u32);
                    assert!(seen[pixel] == 1 || place == NOT_KEPT && seen[pixel] == 0);
                }
            }
        }
    }
}
