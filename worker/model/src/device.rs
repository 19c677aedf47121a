//! Where the model runs and in which precision: the words of `--device` and `--precision`.

use std::fmt;
use std::str::FromStr;

use candle_core::Device;

use super::ModelError;

/// The device to run on: `--device`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum DeviceChoice {
    /// The first CUDA device where there is one and this build can use it, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA device by its number.
    Cuda(usize),
}

/// A text that names no device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a device; use auto, cpu, cuda or cuda:N")]
pub struct ParseDeviceError(String);

impl FromStr for DeviceChoice {
    type Err = ParseDeviceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|ordinal| ordinal.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| ParseDeviceError(text.to_owned())),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

impl DeviceChoice {
    /// Opens the device. Call it on the thread that will own the model: cuDNN's handles are
    /// bound to theirs.
    ///
    /// # Errors
    /// Where a CUDA device is asked for by name and can't be used. `auto` falls back to the
    /// CPU and logs why.
    pub fn open(self) -> Result<Device, ModelError> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Auto if !candle_core::utils::cuda_is_available() => Ok(Device::Cpu),
            Self::Auto => Ok(Device::new_cuda(0).unwrap_or_else(|error| {
                tracing::warn!(%error, "no CUDA device can be used, running on the CPU");
                Device::Cpu
            })),
            Self::Cuda(ordinal) => {
                let problem = if candle_core::utils::cuda_is_available() {
                    match Device::new_cuda(ordinal) {
                        Ok(device) => return Ok(device),
                        Err(error) => format!("{error}; see nvidia-smi, or use --device cpu"),
                    }
                } else {
                    "this build has no CUDA; build with --features cuda, or use --device cpu"
                        .to_owned()
                };
                Err(ModelError::Device { choice: self, problem })
            }
        }
    }
}

/// The number format the network computes in: `--precision`. Logits, features and maps are
/// f32 whatever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// What the device does best: bf16 on a CPU that is faster so, f32 elsewhere.
    #[default]
    Auto,
    /// 32 bits.
    F32,
    /// 16 bits with f32's range and 8 bits of mantissa.
    Bf16,
    /// 16 bits with 11 bits of mantissa and a narrow range.
    F16,
}

/// A text that names no precision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a precision; use auto, f32, bf16 or f16")]
pub struct ParsePrecisionError(String);

impl FromStr for Precision {
    type Err = ParsePrecisionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "f16" => Ok(Self::F16),
            _ => Err(ParsePrecisionError(text.to_owned())),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_survive_text() {
        for (text, choice) in [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("cuda:0", DeviceChoice::Cuda(0)),
            ("cuda:3", DeviceChoice::Cuda(3)),
        ] {
            assert_eq!(text.parse(), Ok(choice));
            assert_eq!(choice.to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:-1"] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn asking_for_cuda_without_it_says_what_to_do() {
        let error = DeviceChoice::Cuda(1).open().unwrap_err();
        assert_eq!(
            error.to_string(),
            "device cuda:1 can't be used: this build has no CUDA; build with --features cuda, \
             or use --device cpu"
        );
        assert!(DeviceChoice::Auto.open().unwrap().is_cpu());
    }

    #[test]
    fn precisions_parse_as_they_print() {
        for text in ["auto", "f32", "bf16", "f16"] {
            assert_eq!(text.parse::<Precision>().unwrap().to_string(), text);
        }
        assert!("f64".parse::<Precision>().is_err());
    }
}
