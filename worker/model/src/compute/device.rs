//! The device that a model runs on.

use std::fmt;
use std::str::FromStr;

#[cfg(feature = "cuda")]
use camshaft_cuda::{CudaDevice, CudaError};

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
    /// Opens the device. `auto` falls back to the CPU; if there is a GPU, it logs why.
    ///
    /// # Errors
    /// If a CUDA device is asked for by name and can't be used.
    pub fn open(self) -> Result<ComputeDevice, DeviceError> {
        match self {
            Self::Cpu => Ok(ComputeDevice::Cpu),
            Self::Auto => Ok(first_cuda_device().unwrap_or(ComputeDevice::Cpu)),
            Self::Cuda(ordinal) => self.open_cuda(ordinal),
        }
    }

    /// True if it may open a GPU.
    #[must_use]
    pub fn may_be_gpu(self) -> bool {
        match self {
            Self::Cpu => false,
            #[cfg(feature = "cuda")]
            Self::Auto => CudaDevice::is_present(),
            #[cfg(not(feature = "cuda"))]
            Self::Auto => false,
            Self::Cuda(_) => true,
        }
    }

    #[cfg(feature = "cuda")]
    fn open_cuda(self, ordinal: usize) -> Result<ComputeDevice, DeviceError> {
        let device = CudaDevice::open(ordinal).map_err(|error| {
            let advice = match &error {
                CudaError::NoDriver { .. } | CudaError::OldDriver { .. } => "",
                _ => "; see nvidia-smi, or use the CPU",
            };
            DeviceError::Unusable { choice: self, reason: format!("{error}{advice}") }
        })?;
        Ok(ComputeDevice::Cuda(device))
    }

    #[cfg(not(feature = "cuda"))]
    fn open_cuda(self, _ordinal: usize) -> Result<ComputeDevice, DeviceError> {
        Err(DeviceError::WithoutCuda { choice: self })
    }
}

/// The first CUDA device, if this build and this machine have one that can be used.
#[cfg(feature = "cuda")]
fn first_cuda_device() -> Option<ComputeDevice> {
    if !CudaDevice::is_present() {
        return None;
    }
    match CudaDevice::open(0) {
        Ok(device) => Some(ComputeDevice::Cuda(device)),
        Err(error) => {
            tracing::warn!(%error, "no CUDA device can be used, running on the CPU");
            None
        }
    }
}

#[cfg(not(feature = "cuda"))]
fn first_cuda_device() -> Option<ComputeDevice> {
    None
}

/// A device that was opened.
#[derive(Clone, Debug)]
pub enum ComputeDevice {
    /// The CPU.
    Cpu,
    /// A CUDA device.
    #[cfg(feature = "cuda")]
    Cuda(CudaDevice),
}

impl ComputeDevice {
    /// True for the CPU.
    #[must_use]
    pub fn is_cpu(&self) -> bool {
        matches!(self, Self::Cpu)
    }

    /// The choice that opens it: never `auto`.
    #[must_use]
    pub fn choice(&self) -> DeviceChoice {
        match self {
            Self::Cpu => DeviceChoice::Cpu,
            #[cfg(feature = "cuda")]
            Self::Cuda(device) => DeviceChoice::Cuda(device.ordinal()),
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
    #[error("device {choice} can't be used: {reason}")]
    Unusable {
        /// The device that was asked for.
        choice: DeviceChoice,
        /// What CUDA says.
        reason: String,
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
