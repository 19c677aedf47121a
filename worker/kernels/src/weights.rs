//! The weights of one convolution: as a caller gives them, and packed once for a kernel. Does
//! not compute convolutions.

use crate::aligned::AlignedMemory;
use crate::bf16;
use crate::kernel::{Kernel, ValueFormat};
use crate::layout::PLANE;
use crate::network_weights::{ConvolutionWeights, UnsupportedNetwork};
use crate::quantisation::QuantisedWeights;
use crate::winograd_transform::{POSITIONS, transform_weights};

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
    /// What a kernel that sums integers multiplies them by.
    pub(crate) rescale: Option<Rescale>,
}

/// What follows the integer sums of a convolution in 8 bits. Panels, multipliers and biases have the
/// outputs in [`lane_order`].
#[derive(Debug)]
pub(crate) struct Rescale {
    /// One f32 for each output: from sums to units of the output's scale.
    pub(crate) multiplier: AlignedMemory,
    /// One f32 for each output, in their own order: from these units to values.
    pub(crate) output_scale: AlignedMemory,
}

/// The output of a panel in each lane of two vectors of 16 lanes, one after the other.
///
/// For outputs in 8 or 16 bits it is the order in which instructions that pack two vectors into one
/// (`vpackssdw`, by groups of four lanes) leave the outputs in their own order.
pub(crate) fn lane_order(packed: bool) -> [usize; PLANE] {
    std::array::from_fn(|lane| match packed {
        true => lane % 16 / 4 * 8 + lane / 16 * 4 + lane % 4,
        false => lane,
    })
}

/// Inputs whose weights lie side by side, in 8 bits.
pub(crate) const QUAD: usize = 4;
/// Bytes of the weights of 32 outputs for a quad of inputs.
pub(crate) const QUAD_BYTES: usize = QUAD * PLANE;
/// Quads of the stem's row: 21 inputs and three zeros.
pub(crate) const STEM_QUADS: usize = STEM_DEPTH.div_ceil(QUAD);

impl PackedConvolution {
    pub(crate) fn new(
        weights: &ConvolutionWeights<'_>,
        kernel: Kernel,
    ) -> Result<Self, UnsupportedNetwork> {
        let &ConvolutionWeights { weight, bias, inputs, outputs, kernel: side, stride } = weights;
        weights.check()?;
        let stem = weights.is_stem();
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
                        ValueFormat::U8 | ValueFormat::I16 => {
                            unreachable!("`quantised` packs for them")
                        }
                    }
                }
            }
        }
        let panels = match kernel.value_format() {
            ValueFormat::F32 => AlignedMemory::from_f32(&values),
            ValueFormat::Bf16 | ValueFormat::Bf16Pair => AlignedMemory::from_u16(&halves),
            ValueFormat::U8 | ValueFormat::I16 => unreachable!("`quantised` packs for them"),
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
            rescale: None,
        })
    }

    /// In 8 bits, for a kernel that keeps bytes. The outputs are bytes or, if they are not `packed`,
    /// values in f32.
    pub(crate) fn quantised(
        weights: &ConvolutionWeights<'_>,
        quantised: &QuantisedWeights,
        kernel: Kernel,
        packed: bool,
    ) -> Result<Self, UnsupportedNetwork> {
        weights.check()?;
        let &ConvolutionWeights { inputs, outputs, kernel: side, stride, .. } = weights;
        let (taps, planes) = match weights.is_stem() {
            true => (side, 1),
            false => (side * side, inputs / PLANE),
        };
        let quads = match (weights.is_stem(), kernel) {
            // A tile takes as many inputs of the stem as of other convolutions.
            (true, Kernel::AmxInt8) | (false, _) => PLANE / QUAD,
            (true, _) => STEM_QUADS,
        };
        let order = lane_order(packed);
        let all = &quantised.weight;
        let at = |output: usize, tap: usize, input: usize| match (weights.is_stem(), input) {
            (true, STEM_DEPTH..) => 0,
            (true, _) => all[((output * 3 + input % 3) * 7 + tap) * 7 + input / 3],
            (false, _) => all[(output * inputs + input) * taps + tap],
        };
        let panel_bytes = taps * planes * quads * QUAD_BYTES;
        let mut panels = AlignedMemory::zeroed(panel_bytes * (outputs / PLANE));
        let mut bytes = panels.as_u8_mut().iter_mut();
        for first_output in (0..outputs).step_by(PLANE) {
            for tap in 0..taps {
                for first_input in (0..planes * quads).map(|quad| quad * QUAD) {
                    for output in order {
                        for input in first_input..first_input + QUAD {
                            let weight = at(first_output + output, tap, input);
                            *bytes.next().expect("as many bytes as weights") = weight as u8;
                        }
                    }
                }
            }
        }
        let in_lanes = |values: &[f32]| {
            let panels = values.chunks_exact(PLANE);
            let values: Vec<f32> =
                panels.flat_map(|panel| order.map(|output| panel[output])).collect();
            AlignedMemory::from_f32(&values)
        };
        Ok(Self {
            panels,
            bias: in_lanes(&quantised.bias),
            planes,
            inputs,
            outputs,
            kernel: side,
            stride,
            transformed: false,
            panel_bytes,
            rescale: Some(Rescale {
                multiplier: in_lanes(&quantised.multiplier),
                output_scale: AlignedMemory::from_f32(&quantised.output_scale),
            }),
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
