//! Which code multiplies matrices on a CPU.

use std::fmt;
use std::str::FromStr;

use camshaft_kernels::Kernel;

/// The code that multiplies matrices on a CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KernelChoice {
    /// The fastest kernel for the precision on this machine.
    #[default]
    Auto,
    /// candle's own matrix products.
    Candle,
    /// This kernel.
    Only(Kernel),
}

/// A text that names no kernel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a kernel; use auto, candle, {names}", names = Kernel::names())]
pub struct ParseKernelChoiceError(String);

impl KernelChoice {
    /// True if this may be the kernel, and this CPU has it.
    pub(crate) fn allows(self, kernel: Kernel) -> bool {
        let is_meant = match self {
            Self::Auto => true,
            Self::Candle => false,
            Self::Only(only) => kernel == only,
        };
        is_meant && kernel.is_available()
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_parse_as_they_print() {
        let kernels = Kernel::ALL.map(Kernel::name);
        for text in ["auto", "candle"].into_iter().chain(kernels) {
            assert_eq!(text.parse::<KernelChoice>().unwrap().to_string(), text);
        }
        assert!("sse".parse::<KernelChoice>().is_err());
    }
}
