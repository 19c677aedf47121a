//! The number formats of weights and activations on the GPU.
//!
//! Owns their sizes, their names in kernels, and the way from f32 to their bytes. Sums, logits,
//! pooled features and maps are f32 in all of them. Which format a run uses is its caller's choice.

use half::{bf16, f16};

/// How weights and activations are kept, and how convolutions multiply them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NumberFormat {
    /// f32, multiplied in f32.
    F32,
    /// f32, multiplied by tensor cores, which round each factor to TF32: 10 bits after the point.
    Tf32,
    /// bfloat16.
    Bf16,
    /// IEEE half precision.
    F16,
}

impl NumberFormat {
    /// Bytes of a value.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::F32 | Self::Tf32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }

    /// The end of the names of kernels for this format.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::F32 | Self::Tf32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }

    /// The bytes of `values` in this format, rounded to nearest, in this machine's byte order.
    pub(crate) fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 | Self::Tf32 => values.iter().flat_map(|v| v.to_ne_bytes()).collect(),
            Self::Bf16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_ne_bytes()).collect(),
            Self::F16 => values.iter().flat_map(|&v| f16::from_f32(v).to_ne_bytes()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_keeps_small_whole_numbers() {
        let values = [0.0, -1.0, 2.0, 96.0];
        for format in [NumberFormat::F32, NumberFormat::Tf32, NumberFormat::Bf16, NumberFormat::F16]
        {
            let bytes = format.encode(&values);
            assert_eq!(bytes.len(), values.len() * format.bytes());
            let decoded = bytes.chunks(format.bytes()).map(|value| match format {
                NumberFormat::F32 | NumberFormat::Tf32 => {
                    f32::from_ne_bytes(value.try_into().unwrap())
                }
                NumberFormat::Bf16 => bf16::from_ne_bytes(value.try_into().unwrap()).to_f32(),
                NumberFormat::F16 => f16::from_ne_bytes(value.try_into().unwrap()).to_f32(),
            });
            assert_eq!(decoded.collect::<Vec<_>>(), values);
        }
    }
}
