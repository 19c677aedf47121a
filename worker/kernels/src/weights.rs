//! The weights of one convolution: as a caller gives them, and packed once for a kernel. Does
//! not compute convolutions.

use crate::aligned::AlignedMemory;
use crate::bf16;
use crate::kernel::{Kernel, ValueFormat};
use crate::layout::PLANE;
use crate::winograd_transform::{POSITIONS, transform_weights};

/// The kernels cannot run a network, and why. The caller must run it by other code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the CPU kernels do not support this network: {0}")]
pub struct UnsupportedNetwork(pub(crate) String);

/// A convolution with BatchNorm folded in. Its input is padded with `kernel / 2` zeros.
#[derive(Clone, Copy, Debug)]
pub struct ConvolutionWeights<'a> {
    /// `[outputs, inputs, kernel, kernel]`, row-major.
    pub weight: &'a [f32],
    /// `[outputs]`.
    pub bias: &'a [f32],
    /// Input channels.
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
    /// Height and width of the filter.
    pub kernel: usize,
    /// Step between outputs.
    pub stride: usize,
}

/// Values that one output reads in one row of the stem's 7×7 filter: 7 pixels of 3 channels.
pub(crate) const STEM_DEPTH: usize = 21;

/// A convolution's weights in the order in which a kernel reads them: by panel of 32 outputs,
/// then by tap, then by plane of 32 inputs. The 32 × 32 weights of one panel, tap and plane are
/// one step of a kernel. For the stem a tap is a row of the filter.
#[derive(Debug)]
pub(crate) struct PackedConvolution {
    pub(crate) panels: AlignedMemory,
    /// One f32 for each output.
    pub(crate) bias: AlignedMemory,
    /// Planes of input channels.
    pub(crate) planes: usize,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    /// Whether the weights are transformed for Winograd's minimal filtering. They are then
    /// ordered by the 16 positions of [`winograd_transform`](crate::winograd_transform) instead
    /// of by tap.
    pub(crate) transformed: bool,
    /// Bytes of a panel.
    pub(crate) panel_bytes: usize,
}

impl PackedConvolution {
    pub(crate) fn new(
        weights: &ConvolutionWeights<'_>,
        kernel: Kernel,
    ) -> Result<Self, UnsupportedNetwork> {
        let &ConvolutionWeights { weight, bias, inputs, outputs, kernel: side, stride } = weights;
        let stem = (inputs, side, stride) == (3, 7, 2);
        let fits = stem || inputs % PLANE == 0 && matches!(side, 1 | 3) && matches!(stride, 1 | 2);
        if !fits || inputs == 0 || outputs == 0 || outputs % PLANE != 0 {
            return Err(UnsupportedNetwork(format!(
                "convolution of {inputs} to {outputs} channels, {side}x{side}, stride {stride}"
            )));
        }
        if weight.len() != outputs * inputs * side * side || bias.len() != outputs {
            return Err(UnsupportedNetwork(format!(
                "{} weights and {} biases for {outputs}x{inputs}x{side}x{side}",
                weight.len(),
                bias.len()
            )));
        }
        let transformed = (side, stride) == (3, 1) && kernel.uses_winograd();
        let (taps, planes) = match (stem, transformed) {
            (true, _) => (7, 1),
            (_, true) => (POSITIONS, inputs / PLANE),
            _ => (side * side, inputs / PLANE),
        };
        let transformed_weights: Vec<[f32; POSITIONS]> = match transformed {
            true => {
                weight.as_chunks().0.iter().map(|g| transform_weights(g.map(f64::from))).collect()
            }
            false => Vec::new(),
        };
        let at = |output: usize, tap: usize, input: usize| match (stem, input) {
            (true, STEM_DEPTH..) => 0.0,
            (true, _) => weight[((output * 3 + input % 3) * 7 + tap) * 7 + input / 3],
            (false, _) if transformed => transformed_weights[output * inputs + input][tap],
            (false, _) => weight[(output * inputs + input) * side * side + tap],
        };
        let mut block = [[0.0; PLANE]; PLANE];
        let mut values = Vec::new();
        let mut halves = Vec::new();
        for first_output in (0..outputs).step_by(PLANE) {
            for tap in 0..taps {
                for plane in 0..planes {
                    for (input, row) in block.iter_mut().enumerate() {
                        for (output, value) in row.iter_mut().enumerate() {
                            *value = at(first_output + output, tap, plane * PLANE + input);
                        }
                    }
                    match kernel.value_format() {
                        ValueFormat::Bf16 => push_tiles(&block, bf16::from_f32, &mut halves),
                        ValueFormat::Bf16Pair => {
                            push_tiles(&block, bf16::from_f32, &mut halves);
                            push_tiles(&block, bf16::remainder_from_f32, &mut halves);
                        }
                        // A step of the stem leaves out the zeros from `STEM_DEPTH` on.
                        ValueFormat::F32 => {
                            let depth = if stem { STEM_DEPTH } else { PLANE };
                            values.extend(block[..depth].iter().flatten());
                        }
                    }
                }
            }
        }
        let panels = match kernel.value_format() {
            ValueFormat::F32 => AlignedMemory::from_f32(&values),
            ValueFormat::Bf16 | ValueFormat::Bf16Pair => AlignedMemory::from_u16(&halves),
        };
        let panel_bytes = (values.len() * 4 + halves.len() * 2) / (outputs / PLANE);
        let bias = AlignedMemory::from_f32(bias);
        Ok(Self {
            panels,
            bias,
            planes,
            inputs,
            outputs,
            kernel: side,
            stride,
            transformed,
            panel_bytes,
        })
    }

    /// Multiplications plus additions for one output pixel.
    pub(crate) fn flop(&self) -> f64 {
        (2 * self.inputs * self.outputs * self.kernel * self.kernel) as f64
    }
}

/// Appends two tiles of 16 outputs each, in the order of `tdpbf16ps`: a row holds two inputs,
/// and for each output the weights of both side by side.
fn push_tiles(block: &[[f32; PLANE]; PLANE], half: fn(f32) -> u16, halves: &mut Vec<u16>) {
    for outputs in [0..16, 16..32] {
        for pair in block.chunks(2) {
            for output in outputs.clone() {
                halves.extend([half(pair[0][output]), half(pair[1][output])]);
            }
        }
    }
}
