//! The first convolution, 7×7 with stride 2 on 3 channels. It reads a copy of the image with
//! its border and its channels interleaved, so that a row of the kernel is 21 neighbours.

use crate::aligned::Aligned;
use crate::convolution::{self, Job, pixel_bytes, segment_length};
use crate::detect::Kernel;
use crate::layout::{Activation, Geometry, PLANE, Segment};
use crate::team::{Part, Team};
use crate::weights::{Packed, rest_in_bf16, to_bf16};

const CHANNELS: usize = 3;
const BORDER: usize = 3;
/// Values that kernels may read past the image: a block of 32 pixels, and a step.
const OVERRUN: usize = 32 * 6 + 64;

/// Buffers of the stem for one image of one size.
#[derive(Debug)]
pub(crate) struct Stem {
    height: usize,
    width: usize,
    image: Aligned,
    /// Values from one row of `image` to the next.
    row_values: usize,
    /// Values of `image`, of each half where there are two.
    values: usize,
    taps: Vec<isize>,
    table: Vec<u32>,
    segments: Vec<Segment>,
    pub(crate) output: Activation,
}

impl Stem {
    pub(crate) fn new(kernel: Kernel, height: usize, width: usize, outputs: usize) -> Self {
        let row_values = ((width + 2 * BORDER) * CHANNELS).next_multiple_of(32);
        let values = ((height + 2 * BORDER) * row_values + OVERRUN).next_multiple_of(32);
        let value_bytes = value_bytes(kernel);
        let halves = if kernel == Kernel::AmxBf16x3 { 2 } else { 1 };
        let geometry = Geometry::flat(1, height.div_ceil(2), width.div_ceil(2));
        Self {
            height,
            width,
            image: Aligned::zeroed(values * value_bytes * halves),
            row_values,
            values,
            taps: (0..7).map(|row| (row * row_values * value_bytes) as isize).collect(),
            table: geometry.table_to(geometry),
            segments: Geometry::flat(1, 1, geometry.width).segments(segment_length(kernel)),
            output: Activation::zeroed(geometry, outputs, pixel_bytes(kernel)),
        }
    }

    /// Of the image that was copied in; the result is in `self.output`.
    ///
    /// # Safety
    /// The machine has the kernel, and `weights` are packed for it.
    pub(crate) unsafe fn run(&self, kernel: Kernel, weights: &Packed, team: Team) {
        // SAFETY: as the caller promises; parts compute different rows.
        team.run(&|part| unsafe {
            let _held = convolution::prepare(kernel);
            self.convolve(kernel, weights, part);
        });
    }

    /// Some rows of the output.
    ///
    /// # Safety
    /// As for [`Stem::run`]; this thread holds what [`convolution::prepare`] gives, and other
    /// threads compute other parts.
    unsafe fn convolve(&self, kernel: Kernel, weights: &Packed, part: Part) {
        let value_bytes = value_bytes(kernel);
        let geometry = self.output.geometry;
        for y in part.range(geometry.height) {
            let row = 2 * y * self.row_values * value_bytes;
            let mut job = Job {
                weights,
                weights_offset: 0,
                bias: weights.bias.as_ptr(),
                geometry,
                images: 1,
                source: self.image.as_ptr().wrapping_add(row),
                source_plane_bytes: 0,
                low_bytes: self.values * 2,
                step_bytes: 2 * CHANNELS * value_bytes,
                taps: &self.taps,
                target: std::ptr::null_mut(),
                target_plane_bytes: 0,
                table: &self.table[y * geometry.row_pitch()..],
                shift: 0,
                sink: 0,
                residual: std::ptr::null(),
                residual_plane_bytes: 0,
                relu: true,
                output_f32: kernel == Kernel::AmxBf16x3,
                panels: (0, weights.outputs / PLANE),
                runs: [(0, geometry.width); 4],
                run_count: 1,
                segments: &self.segments,
            };
            convolution::set_target(&mut job, &self.output);
            job.sink -= part.index;
            // SAFETY: the caller's promises; rows and overrun lie in `image`.
            unsafe { convolution::multiply(kernel, &job) };
        }
    }

    /// Takes an image `[3, H, W]` for [`Stem::run`].
    pub(crate) fn copy_in(&mut self, kernel: Kernel, image: &[f32]) {
        let values = self.values;
        let rows = Rows { height: self.height, width: self.width, pitch: self.row_values };
        match kernel {
            Kernel::AmxBf16 | Kernel::AmxBf16x3 | Kernel::Avx512Bf16 => {
                let (high, low) = self.image.as_u16_mut().split_at_mut(values);
                rows.interleave(image, high, to_bf16);
                if kernel == Kernel::AmxBf16x3 {
                    rows.interleave(image, low, rest_in_bf16);
                }
            }
            Kernel::Avx512 | Kernel::Avx2 | Kernel::Neon => {
                rows.interleave(image, self.image.as_f32_mut(), |value| value);
            }
        }
    }
}

/// Where an image lies within its border.
struct Rows {
    height: usize,
    width: usize,
    pitch: usize,
}

impl Rows {
    /// `[3, H, W]` to rows of pixels.
    fn interleave<T>(&self, image: &[f32], target: &mut [T], convert: impl Fn(f32) -> T) {
        let plane = self.height * self.width;
        for y in 0..self.height {
            let row = |channel: usize| &image[channel * plane + y * self.width..][..self.width];
            let start = (y + BORDER) * self.pitch + BORDER * CHANNELS;
            let target = target[start..][..self.width * CHANNELS].as_chunks_mut::<CHANNELS>().0;
            for (((to, &r), &g), &b) in target.iter_mut().zip(row(0)).zip(row(1)).zip(row(2)) {
                *to = [convert(r), convert(g), convert(b)];
            }
        }
    }
}

/// Bytes of a value of the copied image.
fn value_bytes(kernel: Kernel) -> usize {
    match kernel {
        Kernel::AmxBf16 | Kernel::AmxBf16x3 | Kernel::Avx512Bf16 => 2,
        Kernel::Avx512 | Kernel::Avx2 | Kernel::Neon => 4,
    }
}
