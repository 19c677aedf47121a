//! Where and how a network is computed: device, number format, and kernel.
//!
//! Owns the words a user chooses by, and what is decided from them. Upstream: the programs'
//! settings. Downstream: [`network`](crate::network).

mod device;
mod kernel_choice;
mod mode;
mod precision;

pub use device::{ComputeDevice, DeviceChoice, DeviceError, ParseDeviceError};
pub use kernel_choice::{KernelChoice, ParseKernelChoiceError};
pub(crate) use mode::{Backend, ComputeMode};
pub use mode::{ComputeSettings, PrecisionError, int8_kernel};
pub use precision::{ParsePrecisionError, Precision};
