//! The device that a model runs on.

use std::fmt;
use std::str::FromStr;

use candle_core::Device;

/// The device that a model is to run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum DeviceChoice {
    /// The first CUDA device if there is one and this build can use it, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device with this number.
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
    /// Opens the device. Call it on the thread that will own the model: cuDNN's handles are bound
    /// to their thread. `auto` falls back to the CPU, and logs why.
    ///
    /// # Errors
    /// If a CUDA device is asked for by name and can't be used.
    pub fn open(self) -> Result<Device, DeviceError> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Auto if !candle_core::utils::cuda_is_available() => Ok(Device::Cpu),
            Self::Auto => Ok(Device::new_cuda(0).unwrap_or_else(|error| {
                tracing::warn!(%error, "no CUDA device can be used, running on the CPU");
                Device::Cpu
            })),
            Self::Cuda(_) if !candle_core::utils::cuda_is_available() => {
                Err(DeviceError::WithoutCuda { choice: self })
            }
            Self::Cuda(ordinal) => Device::new_cuda(ordinal)
                .map_err(|source| DeviceError::Unusable { choice: self, source }),
        }
    }
}

/// Why a device can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The program was built without CUDA.
    #[error(
        "device {choice} can't be used: this build has no CUDA; build with the feature \"cuda\", \
         or use the CPU"
    )]
    WithoutCuda {
        /// The device that was asked for.
        choice: DeviceChoice,
    },
    /// CUDA can't open the device.
    #[error("device {choice} can't be used: {source}; see nvidia-smi, or use the CPU")]
    Unusable {
        /// The device that was asked for.
        choice: DeviceChoice,
        /// What CUDA says.
        #[source]
        source: candle_core::Error,
    },
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
            "device cuda:1 can't be used: this build has no CUDA; build with the feature \"cuda\", \
             or use the CPU"
        );
        assert!(DeviceChoice::Auto.open().unwrap().is_cpu());
    }
}
