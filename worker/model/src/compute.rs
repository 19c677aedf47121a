//! How a network is computed: number format and, on the CPU, the kernel.

use std::fmt;
use std::str::FromStr;

use camshaft_kernels::Kernel;
use candle_core::{DType, Device};

use super::device::Precision;
use super::error::ModelError;

/// What multiplies on the CPU: `CAMSHAFT_KERNEL`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KernelChoice {
    /// The fastest of the precision that this machine has.
    #[default]
    Auto,
    /// candle's own matrix products.
    Candle,
    /// This one.
    Only(Kernel),
}

/// A text that names no kernel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a kernel; use auto, candle, {names}", names = Kernel::names())]
pub struct ParseKernelChoiceError(String);

impl FromStr for KernelChoice {
    type Err = ParseKernelChoiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "candle" => Ok(Self::Candle),
            _ => match text.parse() {
                Ok(kernel) => Ok(Self::Only(kernel)),
                Err(_) => Err(ParseKernelChoiceError(text.to_owned())),
            },
        }
    }
}

impl fmt::Display for KernelChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Candle => f.write_str("candle"),
            Self::Only(kernel) => kernel.fmt(f),
        }
    }
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Compute {
    /// What candle's tensors are kept in.
    pub(super) dtype: DType,
    /// Never `auto`.
    pub(super) precision: Precision,
    /// None: candle.
    pub(super) kernel: Option<Kernel>,
}

impl Compute {
    const CANDLE_F32: Self = Self { dtype: DType::F32, precision: Precision::F32, kernel: None };

    /// Decides for a device.
    ///
    /// # Errors
    /// Where the device doesn't compute so.
    pub(super) fn choose(
        device: &Device,
        precision: Precision,
        choice: KernelChoice,
    ) -> Result<Self, ModelError> {
        if !device.is_cpu() {
            let dtype = match precision {
                Precision::Auto | Precision::F32 => return Ok(Self::CANDLE_F32),
                Precision::Bf16 => DType::BF16,
                Precision::F16 => DType::F16,
            };
            return Ok(Self { dtype, precision, kernel: None });
        }
        // bf16x3 keeps 16 of f32's 24 bits between layers: logits are then off by 2e-5, twenty
        // times as much as f32's own (see docs/cpu.md). That is not f32's quality, so it is
        // there for who asks for it.
        const BF16: [Kernel; 2] = [Kernel::AmxBf16, Kernel::Avx512Bf16];
        const F32: [Kernel; 4] = [Kernel::Avx512, Kernel::Avx2, Kernel::Neon, Kernel::AmxBf16x3];
        let wanted: Vec<Kernel> = match precision {
            Precision::Auto => [&BF16[..], &F32].concat(),
            Precision::F32 => F32.into(),
            Precision::Bf16 => BF16.into(),
            Precision::F16 => Vec::new(),
        };
        let fits = |kernel: &&Kernel| match choice {
            // bf16 has to pay, unless it is asked for.
            KernelChoice::Auto if precision == Precision::Auto && kernel.is_bf16() => {
                kernel.is_available() && kernel.beats_f32()
            }
            KernelChoice::Auto => kernel.is_available(),
            KernelChoice::Candle => false,
            KernelChoice::Only(only) => **kernel == only && only.is_available(),
        };
        let may_be_candle = matches!(precision, Precision::Auto | Precision::F32)
            && !matches!(choice, KernelChoice::Only(_));
        match wanted.iter().find(fits) {
            Some(&kernel) => {
                let precision = if kernel.is_bf16() { Precision::Bf16 } else { Precision::F32 };
                Ok(Self { dtype: DType::F32, precision, kernel: Some(kernel) })
            }
            None if may_be_candle => Ok(Self::CANDLE_F32),
            None => Err(ModelError::Precision { precision, choice }),
        }
    }

    /// What to do with a network the kernel can't run.
    ///
    /// # Errors
    /// Where nothing else computes as was asked for.
    pub(super) fn without_kernel(
        precision: Precision,
        choice: KernelChoice,
    ) -> Result<Self, ModelError> {
        match (precision, choice) {
            (Precision::Auto | Precision::F32, KernelChoice::Auto) => Ok(Self::CANDLE_F32),
            _ => Err(ModelError::Precision { precision, choice }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(precision: Precision, choice: KernelChoice) -> Result<Compute, ModelError> {
        Compute::choose(&Device::Cpu, precision, choice)
    }

    #[test]
    fn precision_and_kernel_agree() {
        for precision in [Precision::Auto, Precision::F32] {
            let candle = choose(precision, KernelChoice::Candle).unwrap();
            assert_eq!(candle, Compute::CANDLE_F32);
        }
        assert!(choose(Precision::F16, KernelChoice::Auto).is_err());
        assert!(choose(Precision::Bf16, KernelChoice::Candle).is_err());
        let amx = KernelChoice::Only(Kernel::AmxBf16);
        assert!(choose(Precision::F32, amx).is_err(), "f32 must mean f32");
        for kernel in Kernel::ALL.into_iter().filter(|kernel| kernel.is_available()) {
            let chosen = choose(Precision::Auto, KernelChoice::Only(kernel)).unwrap();
            assert_eq!(chosen.kernel, Some(kernel));
            assert_eq!(chosen.precision == Precision::Bf16, kernel.is_bf16());
        }
    }

    #[test]
    fn choices_parse_as_they_print() {
        let kernels = Kernel::ALL.map(Kernel::name);
        for text in ["auto", "candle"].into_iter().chain(kernels) {
            assert_eq!(text.parse::<KernelChoice>().unwrap().to_string(), text);
        }
        assert!("sse".parse::<KernelChoice>().is_err());
    }
}
