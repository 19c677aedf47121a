//! One convolution of a network, from activation to activation: describes it as a call and runs
//! it, by Winograd's filtering or directly. Does not know the network.

use crate::call::{CallInput, CallOutput, ConvolutionCall, PanelRange, Planes, Residual};
use crate::dispatch;
use crate::kernel::Kernel;
use crate::layout::{Activation, PixelLayout, Segment, pixel_bytes};
use crate::team::WorkPart;
use crate::weights::PackedConvolution;
use crate::winograd::{self, WinogradScratch};

/// A layout, and what kernels need to compute its pixels.
#[derive(Debug)]
pub(crate) struct LayoutTables {
    pub(crate) layout: PixelLayout,
    /// From the layout to itself.
    pub(crate) pixel_map: Vec<u32>,
    segments: Vec<Segment>,
    /// Offsets in bytes of the taps of a 3×3 convolution that reads this layout.
    taps: Vec<isize>,
}

impl LayoutTables {
    /// For `layout` as the input of a convolution with `stride`.
    pub(crate) fn new(kernel: Kernel, layout: PixelLayout, stride: usize) -> Self {
        let bytes = pixel_bytes(kernel.value_format()) as isize;
        Self {
            layout,
            pixel_map: layout.map_to(layout),
            segments: layout.segments(kernel.segment_pixels()),
            taps: layout.taps(stride).into_iter().map(|tap| tap * bytes).collect(),
        }
    }
}

/// A convolution between activations.
#[derive(Clone, Copy)]
pub(crate) struct ConvolutionStep<'a> {
    pub(crate) weights: &'a PackedConvolution,
    /// The first images of the activations, this many.
    pub(crate) images: usize,
    pub(crate) input: &'a Activation,
    /// The input's layout.
    pub(crate) input_tables: &'a LayoutTables,
    /// The layout of the computed pixels: the input's, or the one that the stride leads to.
    pub(crate) tables: &'a LayoutTables,
    /// Added before the ReLU. It has the computed pixels' layout.
    pub(crate) residual: Option<&'a Activation>,
    pub(crate) relu: bool,
    pub(crate) output: &'a Activation,
    /// From the computed pixels' layout to the output's.
    pub(crate) pixel_map: &'a [u32],
    /// Added to each output pixel.
    pub(crate) pixel_offset: usize,
}

impl<'a> ConvolutionStep<'a> {
    pub(crate) fn call(&self, kernel: Kernel) -> ConvolutionCall<'a> {
        let &Self { weights, images, output, tables, .. } = self;
        let step_bytes = pixel_bytes(kernel.value_format());
        let layout = tables.layout;
        let segments = tables.segments.len() / layout.images * images;
        ConvolutionCall {
            weights,
            weights_offset: 0,
            bias: weights.bias.as_ptr().cast(),
            layout,
            images,
            input: CallInput {
                planes: planes(self.input),
                step_bytes,
                low_bytes: step_bytes / 2,
                // A 1×1 with stride 2 reads the section of even rows and columns, the first.
                taps: if weights.kernel == 1 { &[0] } else { &self.input_tables.taps },
            },
            residual: self
                .residual
                .map(|added| Residual { planes: planes(added), format: added.format }),
            relu: self.relu,
            output: CallOutput {
                pixels: output.pixels_shared(),
                plane_bytes: output.plane_bytes(),
                pixel_map: self.pixel_map,
                pixel_offset: self.pixel_offset,
                discard_pixel: output.discard_pixel(),
                format: output.format,
            },
            panels: PanelRange::all(weights),
            ranges: layout.ranges(images).collect(),
            segments: &tables.segments[..segments],
        }
    }
}

fn planes(activation: &Activation) -> Planes {
    Planes { pixels: activation.pixels(), plane_bytes: activation.plane_bytes() }
}

/// Runs one part of a call.
///
/// # Safety
/// As for [`dispatch::multiply`], where calls that run at the same time are other parts of this
/// one. `scratch` is large enough for the weights, and only this thread uses it.
pub(crate) unsafe fn run(
    kernel: Kernel,
    call: &ConvolutionCall<'_>,
    scratch: Option<&WinogradScratch>,
    part: WorkPart,
) {
    // SAFETY: as the caller promises.
    unsafe {
        match scratch {
            Some(scratch) if call.weights.transformed => {
                winograd::convolve(kernel, call, scratch, part)
            }
            _ => dispatch::multiply(kernel, &call.part(part)),
        }
    }
}
