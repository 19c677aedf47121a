//! What follows the integer sums of a convolution in 8 bits: they become units of the output's scale,
//! the residual is added, and they are rounded to bytes. All kernels for 8 bits do this, to the same
//! bit: here in plain Rust, and in [`avx512_vnni`](crate::avx512_vnni) in vectors.
//!
//! Functions are inlined into kernels, which have the target features.

use crate::call::ConvolutionCall;
use crate::kernel::ValueFormat;
use crate::layout::{PLANE, Segment};
use crate::weights::{Rescale, lane_order};

/// Finishes the sums of a panel's outputs, pixel by pixel.
pub(crate) struct Requantiser<'a> {
    /// By lane.
    multiplier: &'a [f32; PLANE],
    /// By lane.
    bias: &'a [f32; PLANE],
    /// By output.
    output_scale: &'a [f32; PLANE],
    /// The outputs' channels of pixel 0.
    output: *mut u8,
    output_format: ValueFormat,
    /// The same channels of the residual's pixel 0.
    residual: Option<(*const u8, ValueFormat)>,
    relu: bool,
}

impl<'a> Requantiser<'a> {
    /// # Safety
    /// The call's pointers are valid for the panel, and its weights are in 8 bits.
    #[inline(always)]
    pub(crate) unsafe fn new(call: &ConvolutionCall<'a>, panel: usize) -> Self {
        let Rescale { multiplier, output_scale } = rescale(call);
        // SAFETY: as the caller promises; each has one f32 for each output.
        unsafe {
            let of_panel = |values: *const f32| &*values.add(panel * PLANE).cast::<[f32; PLANE]>();
            Self {
                multiplier: of_panel(multiplier.as_ptr().cast()),
                bias: of_panel(call.bias),
                output_scale: of_panel(output_scale.as_ptr().cast()),
                output: call.output.pixels.add(panel * call.output.plane_bytes),
                output_format: call.output.format,
                residual: call.residual.map(|residual| {
                    let planes = residual.planes;
                    (planes.pixels.wrapping_add(panel * planes.plane_bytes), residual.format)
                }),
                relu: call.relu,
            }
        }
    }

    /// Finishes the sums of a segment's pixels, each `[i32; 32]` by lane.
    ///
    /// # Safety
    /// As for [`Requantiser::new`], and the segment's pixels exist.
    #[inline(always)]
    pub(crate) unsafe fn finish_segment<const PIXELS: usize>(
        &self,
        call: &ConvolutionCall<'_>,
        sums: &[[i32; PLANE]; PIXELS],
        segment: Segment,
    ) {
        for (at, sums) in sums.iter().enumerate() {
            let output_pixel = call.segment_output_pixel(segment, at);
            // SAFETY: as the caller promises.
            unsafe { self.finish(sums, segment.start + at, output_pixel) };
        }
    }

    /// Finishes the sums of one pixel, by lane, and writes them to `output_pixel`.
    ///
    /// # Safety
    /// As for [`Requantiser::new`], and both pixels exist.
    #[inline(always)]
    pub(crate) unsafe fn finish(&self, sums: &[i32; PLANE], pixel: usize, output_pixel: usize) {
        let packed = self.output_format != ValueFormat::F32;
        let order = lane_order(packed);
        let mut values = [0.0; PLANE];
        for lane in 0..PLANE {
            // Rounded once, as all kernels do it.
            values[order[lane]] =
                (sums[lane] as f32).mul_add(self.multiplier[lane], self.bias[lane]);
        }
        // SAFETY: as the caller promises; a pixel has 32 channels of its format.
        unsafe {
            let added: [i16; PLANE] = match self.residual {
                None => [0; PLANE],
                Some((residual, ValueFormat::I16)) => {
                    *residual.wrapping_add(pixel * 2 * PLANE).cast::<[i16; PLANE]>()
                }
                Some((residual, _)) => {
                    (*residual.wrapping_add(pixel * PLANE).cast::<[u8; PLANE]>()).map(i16::from)
                }
            };
            match self.output_format {
                ValueFormat::F32 => {
                    let to = self.output.add(output_pixel * 4 * PLANE).cast::<[f32; PLANE]>();
                    let floor = if self.relu { 0.0 } else { f32::NEG_INFINITY };
                    to.write(std::array::from_fn(|channel| {
                        let sum = values[channel] + f32::from(added[channel]);
                        sum.max(floor) * self.output_scale[channel]
                    }));
                }
                format => {
                    let sums: [i16; PLANE] = std::array::from_fn(|channel| {
                        (values[channel].round_ties_even() as i16).saturating_add(added[channel])
                    });
                    if format == ValueFormat::I16 {
                        let to = self.output.add(output_pixel * 2 * PLANE);
                        to.cast::<[i16; PLANE]>().write(sums);
                    } else {
                        let bytes = sums.map(|sum| sum.clamp(0, 255) as u8);
                        self.output.add(output_pixel * PLANE).cast::<[u8; PLANE]>().write(bytes);
                    }
                }
            }
        }
    }
}

/// What a call's sums are multiplied by.
#[inline(always)]
pub(crate) fn rescale<'a>(call: &ConvolutionCall<'a>) -> &'a Rescale {
    call.weights.rescale.as_ref().expect("weights in 8 bits, for kernels in 8 bits")
}
