//! The kernels by name: which instructions each uses, whether this machine has them, and how
//! each keeps values. Does not choose a kernel; the caller does.

use std::fmt;
use std::str::FromStr;

#[cfg(target_arch = "x86_64")]
use crate::cpu;

/// Pixels that the kernels for AVX-512 compute together: two segments fill its registers, and 7
/// divides ResNet's usual row lengths 56, 28, 14 and 7.
pub(crate) const AVX512_SEGMENT: usize = 7;
/// Pixels that the kernels for narrower vectors compute together.
pub(crate) const NARROW_SEGMENT: usize = 6;

/// A way to compute convolutions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// bf16 products and f32 sums on AMX tiles. Activations are kept in bf16.
    AmxBf16,
    /// Nearly f32 quality on AMX: each value is the sum of two bf16, each product the sum of
    /// three.
    AmxBf16x3,
    /// bf16 products and f32 sums on AVX-512 BF16. Activations are kept in bf16.
    Avx512Bf16,
    /// f32 on AVX-512.
    Avx512,
    /// f32 on AVX2 and FMA.
    Avx2,
    /// f32 on NEON, which every 64-bit Arm CPU has.
    Neon,
    /// 8 bits on AMX tiles. This and all kernels below sum in 32 bits, exactly, and give the same bits.
    AmxInt8,
    /// 8 bits on AVX-512 VNNI.
    Avx512Vnni,
    /// 8 bits on AVX-VNNI.
    AvxVnni,
    /// 8 bits on NEON with products of unsigned and signed bytes (I8MM).
    NeonI8mm,
    /// 8 bits on NEON with products of signed bytes (DotProd).
    NeonDot,
    /// 8 bits on any CPU.
    PortableInt8,
}

/// How a kernel keeps the values of activations and packed weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ValueFormat {
    /// f32.
    F32,
    /// bf16.
    Bf16,
    /// Two bf16, a high and a low half, whose sum is the value. First lie the high halves of 32
    /// values, then their low halves.
    Bf16Pair,
    /// A byte: the value divided by its channel's scale, from 0 to 255.
    U8,
    /// Two bytes with a sign: the value divided by its channel's scale. For what is added to values
    /// before they become bytes.
    I16,
}

impl ValueFormat {
    /// Bytes of a value.
    pub(crate) fn value_bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::Bf16 | Self::I16 => 2,
            Self::F32 | Self::Bf16Pair => 4,
        }
    }
}

impl Kernel {
    /// All kernels.
    pub const ALL: [Self; 12] = [
        Self::AmxBf16,
        Self::AmxBf16x3,
        Self::Avx512Bf16,
        Self::Avx512,
        Self::Avx2,
        Self::Neon,
        Self::AmxInt8,
        Self::Avx512Vnni,
        Self::AvxVnni,
        Self::NeonI8mm,
        Self::NeonDot,
        Self::PortableInt8,
    ];

    /// The kernels that this machine and its operating system can run.
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|kernel| kernel.is_available()).collect()
    }

    /// Whether this machine and its operating system can run it.
    #[cfg(target_arch = "x86_64")]
    pub fn is_available(self) -> bool {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let avx512 = avx2 && is_x86_feature_detected!("avx512f");
        let bf16 = avx512
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512bf16");
        match self {
            Self::Avx2 => avx2,
            Self::Avx512 => avx512,
            Self::Avx512Bf16 => bf16,
            Self::AmxBf16 | Self::AmxBf16x3 => bf16 && cpu::bf16_tiles_permitted(),
            Self::AmxInt8 => bf16 && cpu::int8_tiles_permitted(),
            Self::Avx512Vnni => {
                avx512
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vnni")
            }
            Self::AvxVnni => avx2 && is_x86_feature_detected!("avxvnni"),
            Self::PortableInt8 => true,
            Self::Neon | Self::NeonI8mm | Self::NeonDot => false,
        }
    }

    /// Whether this machine and its operating system can run it.
    #[cfg(target_arch = "aarch64")]
    pub fn is_available(self) -> bool {
        use std::arch::is_aarch64_feature_detected;

        match self {
            Self::Neon | Self::PortableInt8 => true,
            Self::NeonI8mm => is_aarch64_feature_detected!("i8mm"),
            Self::NeonDot => is_aarch64_feature_detected!("dotprod"),
            _ => false,
        }
    }

    /// Whether this machine and its operating system can run it.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    pub fn is_available(self) -> bool {
        self == Self::PortableInt8
    }

    /// Whether it is faster than f32 on a machine that has it. [`Self::Avx512Bf16`] is faster on
    /// AMD's CPUs, which start one (Zen 4) or two (Zen 5) of its instructions a cycle; Intel's
    /// CPUs need several cycles for one.
    #[cfg(target_arch = "x86_64")]
    pub fn beats_f32(self) -> bool {
        match self {
            Self::AmxBf16 | Self::AmxBf16x3 => true,
            Self::Avx512Bf16 => cpu::made_by_amd(),
            _ => false,
        }
    }

    /// Whether it is faster than f32 on a machine that has it.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn beats_f32(self) -> bool {
        false
    }

    /// Whether activations are kept in bf16. Results then have bf16's precision, 8 bits.
    pub fn is_bf16(self) -> bool {
        self.value_format() == ValueFormat::Bf16
    }

    /// Whether activations and weights are kept in 8 bits. Such a network has to be
    /// [calibrated](crate::ActivationStatistics).
    pub fn is_int8(self) -> bool {
        self.value_format() == ValueFormat::U8
    }

    /// How activations are kept.
    pub(crate) fn value_format(self) -> ValueFormat {
        match self {
            Self::AmxBf16 | Self::Avx512Bf16 => ValueFormat::Bf16,
            Self::AmxBf16x3 => ValueFormat::Bf16Pair,
            Self::Avx512 | Self::Avx2 | Self::Neon => ValueFormat::F32,
            Self::AmxInt8
            | Self::Avx512Vnni
            | Self::AvxVnni
            | Self::NeonI8mm
            | Self::NeonDot
            | Self::PortableInt8 => ValueFormat::U8,
        }
    }

    /// Neighbouring pixels that the kernel computes together. AMX takes ranges of any length
    /// and ignores this.
    pub(crate) fn segment_pixels(self) -> usize {
        match self {
            Self::Avx2
            | Self::Neon
            | Self::AvxVnni
            | Self::NeonI8mm
            | Self::NeonDot
            | Self::PortableInt8 => NARROW_SEGMENT,
            Self::AmxBf16
            | Self::AmxBf16x3
            | Self::AmxInt8
            | Self::Avx512Bf16
            | Self::Avx512
            | Self::Avx512Vnni => AVX512_SEGMENT,
        }
    }

    /// Whether 3×3 convolutions with stride 1 are computed by Winograd's minimal filtering. This
    /// pays if multiplications take most of the time, and if the format is precise enough:
    /// in bf16 it would add to the rounding errors.
    pub(crate) fn uses_winograd(self) -> bool {
        self.value_format() == ValueFormat::F32
    }

    /// The names of all kernels, for a message: `a, b or c`.
    #[must_use]
    pub fn names() -> String {
        let names = Self::ALL.map(Self::name);
        let (last, others) = names.split_last().expect("there are kernels");
        format!("{} or {last}", others.join(", "))
    }

    /// The name, as [`fmt::Display`] writes it and [`FromStr`] reads it.
    pub fn name(self) -> &'static str {
        match self {
            Self::AmxBf16 => "amx-bf16",
            Self::AmxBf16x3 => "amx-bf16x3",
            Self::Avx512Bf16 => "avx512-bf16",
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Neon => "neon",
            Self::AmxInt8 => "amx-int8",
            Self::Avx512Vnni => "avx512-vnni",
            Self::AvxVnni => "avx-vnni",
            Self::NeonI8mm => "neon-i8mm",
            Self::NeonDot => "neon-dot",
            Self::PortableInt8 => "portable-int8",
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// No kernel has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown kernel `{0}`: use {names}", names = Kernel::names())]
pub struct UnknownKernel(String);

impl FromStr for Kernel {
    type Err = UnknownKernel;

    fn from_str(name: &str) -> Result<Self, UnknownKernel> {
        Self::ALL
            .into_iter()
            .find(|kernel| kernel.name() == name)
            .ok_or_else(|| UnknownKernel(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for kernel in Kernel::ALL {
            assert_eq!(kernel.to_string().parse(), Ok(kernel));
        }
        assert!("avx1024".parse::<Kernel>().is_err());
    }
}
