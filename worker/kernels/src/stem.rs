//! The first convolution of a network, 7×7 with stride 2 on 3 channels. It reads a copy of the
//! image with a border and interleaved channels, so that 21 neighbouring values are one row of
//! the filter. Does not pool.

use crate::aligned::AlignedMemory;
use crate::bf16;
use crate::call::{CallInput, CallOutput, ConvolutionCall, PanelRange, Planes};
use crate::dispatch;
use crate::input::{BatchInput, PixelValues};
use crate::kernel::{Kernel, ValueFormat};
use crate::layout::{Activation, PixelLayout, PixelRange, Segment};
use crate::quantisation::InputScale;
use crate::team::{Team, WorkPart};
use crate::weights::PackedConvolution;

const CHANNELS: usize = 3;
const BORDER: usize = 3;
/// Values that kernels may read past the image: a block of 32 pixels, and a step.
const OVERRUN: usize = 32 * 6 + 64;

/// Buffers of the stem for one image of one size.
#[derive(Debug)]
pub(crate) struct Stem {
    image: AlignedMemory,
    scales: Option<[InputScale; CHANNELS]>,
    copy: BorderedImage,
    /// Values of `image`, or of each half for a format that has two.
    values: usize,
    taps: Vec<isize>,
    pixel_map: Vec<u32>,
    segments: Vec<Segment>,
    pub(crate) output: Activation,
}

impl Stem {
    /// With the input's scales if the kernel keeps bytes.
    pub(crate) fn new(
        kernel: Kernel,
        scales: Option<[InputScale; CHANNELS]>,
        height: usize,
        width: usize,
        outputs: usize,
    ) -> Self {
        let row_values = ((width + 2 * BORDER) * CHANNELS).next_multiple_of(32);
        let values = ((height + 2 * BORDER) * row_values + OVERRUN).next_multiple_of(32);
        let format = kernel.value_format();
        let layout = PixelLayout::whole(1, height.div_ceil(2), width.div_ceil(2));
        let row = PixelLayout::whole(1, 1, layout.width);
        let mut image = AlignedMemory::zeroed(values * format.value_bytes());
        if let Some(scales) = scales {
            // The border's values are zero, which is not byte 0 if the input has an offset.
            let zeros = scales.map(|channel| channel.byte(0.0));
            for row in image.as_u8_mut().chunks_mut(row_values) {
                let pixels = row.chunks_mut(CHANNELS);
                pixels.for_each(|pixel| pixel.copy_from_slice(&zeros[..pixel.len()]));
            }
        }
        // Kernels that keep pairs of bf16 write this in f32, which has the same size.
        let output_format = if format == ValueFormat::Bf16Pair { ValueFormat::F32 } else { format };
        Self {
            image,
            scales,
            copy: BorderedImage { height, width, row_values },
            values,
            taps: (0..7).map(|row| (row * row_values * part_bytes(format)) as isize).collect(),
            pixel_map: layout.map_to(layout),
            segments: row.segments(kernel.segment_pixels()),
            output: Activation::zeroed(layout, outputs, output_format),
        }
    }

    /// Takes an image for [`Stem::run`].
    pub(crate) fn copy_in(&mut self, kernel: Kernel, image: BatchInput<'_>) {
        match kernel.value_format() {
            ValueFormat::F32 => {
                self.copy.fill(image, self.image.as_f32_mut(), |_, value| value);
            }
            ValueFormat::Bf16 => {
                self.copy.fill(image, self.image.as_u16_mut(), |_, value| bf16::from_f32(value));
            }
            ValueFormat::Bf16Pair => {
                let (high, low) = self.image.as_u16_mut().split_at_mut(self.values);
                self.copy.fill(image, high, |_, value| bf16::from_f32(value));
                self.copy.fill(image, low, |_, value| bf16::remainder_from_f32(value));
            }
            ValueFormat::U8 | ValueFormat::I16 => {
                let scales = self.scales.expect("kernels for bytes have scales");
                let byte = |channel: usize, value| scales[channel].byte(value);
                self.copy.fill(image, self.image.as_u8_mut(), byte);
            }
        }
    }

    /// Computes `self.output` from the image that was copied in.
    ///
    /// # Safety
    /// The machine has the kernel, and `weights` are packed for it.
    pub(crate) unsafe fn run(&self, kernel: Kernel, weights: &PackedConvolution, team: Team) {
        // SAFETY: as the caller promises; parts compute different rows.
        team.run(&|part| unsafe {
            let _prepared = dispatch::prepare_thread(kernel);
            self.convolve(kernel, weights, part);
        });
    }

    /// Computes some rows of the output.
    ///
    /// # Safety
    /// As for [`Stem::run`]. This thread holds the result of [`dispatch::prepare_thread`], and
    /// other threads compute other parts.
    unsafe fn convolve(&self, kernel: Kernel, weights: &PackedConvolution, part: WorkPart) {
        for y in part.range(self.output.layout.height) {
            let call = self.row_call(kernel, weights, y, part);
            // SAFETY: the caller's promises; rows and overrun lie in `image`.
            unsafe { dispatch::multiply(kernel, &call) };
        }
    }

    /// The call for row `y` of the output.
    fn row_call<'a>(
        &'a self,
        kernel: Kernel,
        weights: &'a PackedConvolution,
        y: usize,
        part: WorkPart,
    ) -> ConvolutionCall<'a> {
        let format = kernel.value_format();
        let layout = self.output.layout;
        let row_bytes = self.copy.row_values * part_bytes(format);
        ConvolutionCall {
            weights,
            weights_offset: 0,
            bias: weights.bias.as_ptr().cast(),
            layout,
            images: 1,
            input: CallInput {
                planes: Planes {
                    pixels: self.image.as_ptr().wrapping_add(2 * y * row_bytes),
                    // There is only one.
                    plane_bytes: 0,
                },
                step_bytes: 2 * CHANNELS * part_bytes(format),
                low_bytes: self.values * 2,
                taps: &self.taps,
            },
            residual: None,
            relu: true,
            output: CallOutput {
                pixels: self.output.pixels_shared(),
                plane_bytes: self.output.plane_bytes(),
                pixel_map: &self.pixel_map[y * layout.row_pitch()..],
                pixel_offset: 0,
                discard_pixel: self.output.discard_pixel() - part.index,
                format: self.output.format,
            },
            panels: PanelRange::all(weights),
            ranges: std::iter::once(PixelRange { start: 0, length: layout.width }).collect(),
            segments: &self.segments,
        }
    }
}

/// How an image lies within its border.
#[derive(Debug)]
struct BorderedImage {
    height: usize,
    width: usize,
    /// Values from one row to the next.
    row_values: usize,
}

impl BorderedImage {
    /// Converts an image to rows of pixels.
    ///
    /// `convert` gets a value and its channel.
    fn fill<T: Copy>(
        &self,
        image: BatchInput<'_>,
        target: &mut [T],
        convert: impl Fn(usize, f32) -> T,
    ) {
        match image {
            BatchInput::Values(image) => self.interleave(image, target, convert),
            BatchInput::Pixels { bytes, values } => self.look_up(bytes, values, target, convert),
        }
    }

    /// Converts bytes `[H, W, 3]`. Each byte's value is converted once, not for each pixel.
    fn look_up<T: Copy>(
        &self,
        image: &[u8],
        PixelValues { values, sources }: &PixelValues,
        target: &mut [T],
        convert: impl Fn(usize, f32) -> T,
    ) {
        let [first, second, third] =
            std::array::from_fn(|channel| values[channel].map(|value| convert(channel, value)));
        let [of_first, of_second, of_third] = *sources;
        for (y, row) in image.chunks_exact(self.width * CHANNELS).enumerate() {
            let start = (y + BORDER) * self.row_values + BORDER * CHANNELS;
            let target = target[start..][..self.width * CHANNELS].as_chunks_mut::<CHANNELS>().0;
            for (to, pixel) in target.iter_mut().zip(row.as_chunks::<CHANNELS>().0) {
                let pixel = pixel.map(usize::from);
                *to = [first[pixel[of_first]], second[pixel[of_second]], third[pixel[of_third]]];
            }
        }
    }

    /// Converts `[3, H, W]`.
    fn interleave<T>(&self, image: &[f32], target: &mut [T], convert: impl Fn(usize, f32) -> T) {
        let plane = self.height * self.width;
        for y in 0..self.height {
            let row = |channel: usize| &image[channel * plane + y * self.width..][..self.width];
            let start = (y + BORDER) * self.row_values + BORDER * CHANNELS;
            let target = target[start..][..self.width * CHANNELS].as_chunks_mut::<CHANNELS>().0;
            for (((to, &r), &g), &b) in target.iter_mut().zip(row(0)).zip(row(1)).zip(row(2)) {
                *to = [convert(0, r), convert(1, g), convert(2, b)];
            }
        }
    }
}

/// Bytes of a value of the copied image, or of one of its halves for a format that has two.
fn part_bytes(format: ValueFormat) -> usize {
    match format {
        ValueFormat::U8 => 1,
        ValueFormat::Bf16 | ValueFormat::Bf16Pair | ValueFormat::I16 => 2,
        ValueFormat::F32 => 4,
    }
}
