//! Weights as a caller has them, and packed once for a kernel.

use crate::aligned::Aligned;
use crate::detect::Kernel;
use crate::layout::PLANE;
use crate::winograd::{POSITIONS, transform_weights};

/// Why a network can't be run here; other code must.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no kernel for this network: {0}")]
pub struct Unsupported(pub(crate) String);

/// A convolution with BatchNorm folded in and `kernel / 2` zeros around its input.
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
    /// Side of the kernel.
    pub kernel: usize,
    /// Step between outputs.
    pub stride: usize,
}

/// Values that one output takes from one row of the stem's kernel: 7 pixels of 3 channels.
pub(crate) const STEM_DEPTH: usize = 21;

/// Weights in the order a kernel reads them: by 32 outputs, then by tap, then by 32 inputs;
/// a block of 32 × 32 is one step of a kernel. For the stem a tap is a row of the kernel.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) blocks: Aligned,
    pub(crate) bias: Aligned,
    /// Planes of input channels.
    pub(crate) planes: usize,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    /// Whether blocks are by position of [`winograd`](crate::winograd), in place of taps.
    pub(crate) transformed: bool,
    /// Bytes for 32 outputs.
    pub(crate) panel_bytes: usize,
}

impl Packed {
    pub(crate) fn new(
        weights: &ConvolutionWeights<'_>,
        kernel: Kernel,
    ) -> Result<Self, Unsupported> {
        let &ConvolutionWeights { weight, bias, inputs, outputs, kernel: side, stride } = weights;
        let stem = (inputs, side, stride) == (3, 7, 2);
        let fits = stem || inputs % PLANE == 0 && matches!(side, 1 | 3) && matches!(stride, 1 | 2);
        if !fits || inputs == 0 || outputs == 0 || outputs % PLANE != 0 {
            return Err(Unsupported(format!(
                "convolution of {inputs} to {outputs} channels, {side}x{side}, stride {stride}"
            )));
        }
        if weight.len() != outputs * inputs * side * side || bias.len() != outputs {
            return Err(Unsupported(format!(
                "{} weights and {} biases for {outputs}x{inputs}x{side}x{side}",
                weight.len(),
                bias.len()
            )));
        }
        let transformed = (side, stride) == (3, 1) && kernel.transforms();
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
                    match kernel {
                        Kernel::AmxBf16 | Kernel::Avx512Bf16 => {
                            push_tiles(&block, to_bf16, &mut halves);
                        }
                        Kernel::AmxBf16x3 => {
                            push_tiles(&block, to_bf16, &mut halves);
                            push_tiles(&block, rest_in_bf16, &mut halves);
                        }
                        // A step of the stem is as deep as it need be.
                        Kernel::Avx512 | Kernel::Avx2 | Kernel::Neon => {
                            let depth = if stem { STEM_DEPTH } else { PLANE };
                            values.extend(block[..depth].iter().flatten());
                        }
                    }
                }
            }
        }
        let blocks =
            if halves.is_empty() { Aligned::from_f32(&values) } else { Aligned::from_u16(&halves) };
        let panel_bytes = (values.len() * 4 + halves.len() * 2) / (outputs / PLANE);
        let bias = Aligned::from_f32(bias);
        Ok(Self {
            blocks,
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

    /// Multiplications and additions for one output pixel.
    pub(crate) fn flop(&self) -> f64 {
        (2 * self.inputs * self.outputs * self.kernel * self.kernel) as f64
    }
}

/// Two tiles of 16 outputs each, in the order of `tdpbf16ps`: a row holds two inputs, the
/// pair side by side for each output.
fn push_tiles(block: &[[f32; PLANE]; PLANE], half: fn(f32) -> u16, halves: &mut Vec<u16>) {
    for outputs in [0..16, 16..32] {
        for pair in block.chunks(2) {
            for output in outputs.clone() {
                halves.extend([half(pair[0][output]), half(pair[1][output])]);
            }
        }
    }
}

/// Nearest bf16, ties to even. What is not a number stays so.
pub(crate) fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// What [`to_bf16`] leaves over, again in bf16.
pub(crate) fn rest_in_bf16(value: f32) -> u16 {
    to_bf16(value - from_bf16(to_bf16(value)))
}

pub(crate) fn from_bf16(half: u16) -> f32 {
    f32::from_bits(u32::from(half) << 16)
}
