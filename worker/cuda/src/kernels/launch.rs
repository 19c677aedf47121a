//! One kernel: its arguments and its blocks, as the driver takes them. Knows none by name.
//! Upstream: the methods of [`Kernels`](super::Kernels).

use std::sync::Arc;

use cudarc::driver::{
    CudaFunction, CudaModule, CudaStream, DriverError, LaunchConfig, PushKernelArg,
};

use crate::error::CudaError;
use crate::memory::DevicePointer;
use crate::number_format::NumberFormat;

/// Threads of a block, in all kernels.
pub(super) const THREADS: usize = 256;
/// Bytes that a thread loads at once: a group of channels.
const GROUP_BYTES: usize = 16;

/// Groups of `channels` values: each is loaded by one thread at once.
pub(super) fn groups_of(format: NumberFormat, channels: usize) -> usize {
    channels.div_ceil(GROUP_BYTES / format.bytes())
}

/// Blocks for `items`, if each thread has one.
pub(super) fn blocks_for(items: usize) -> usize {
    items.div_ceil(THREADS)
}

/// An argument, as a caller has it. The kernels declare what is in parentheses.
#[derive(Clone, Copy, Debug)]
pub(super) enum Argument {
    /// Memory on the device (a pointer).
    Pointer(DevicePointer),
    /// Memory that may be missing (a pointer, null if it is).
    OptionalPointer(Option<DevicePointer>),
    /// A size or an index (`int`).
    Size(usize),
    /// A number of values that may be large (`long long`).
    Count(usize),
    /// Yes or no (`int`).
    Flag(bool),
    /// A number (`float`).
    Number(f32),
}

/// An argument's value, as the kernel takes it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Value {
    Pointer(u64),
    Int(i32),
    LongLong(i64),
    Float(f32),
}

impl Argument {
    /// `None` if a size is too large.
    fn value(self) -> Option<Value> {
        Some(match self {
            Self::Pointer(pointer) => Value::Pointer(pointer),
            Self::OptionalPointer(pointer) => Value::Pointer(pointer.unwrap_or(0)),
            Self::Size(size) => Value::Int(i32::try_from(size).ok()?),
            Self::Count(count) => Value::LongLong(i64::try_from(count).ok()?),
            Self::Flag(flag) => Value::Int(i32::from(flag)),
            Self::Number(number) => Value::Float(number),
        })
    }
}

/// A kernel on a device.
#[derive(Debug)]
pub(super) struct Kernel {
    name: &'static str,
    function: CudaFunction,
}

impl Kernel {
    /// Finds a kernel for the format with this suffix.
    pub(super) fn load(
        module: &Arc<CudaModule>,
        name: &'static str,
        suffix: &str,
    ) -> Result<Self, DriverError> {
        let function = module.load_function(&format!("{name}_{suffix}"))?;
        Ok(Self { name, function })
    }

    /// Enqueues the kernel. The arguments are in the order in which it declares them. With no
    /// blocks there is nothing to do.
    ///
    /// # Errors
    /// If there are more blocks, or larger sizes, than a launch can have, or the device fails.
    pub(super) fn launch(
        &self,
        stream: &Arc<CudaStream>,
        blocks: usize,
        arguments: &[Argument],
    ) -> Result<(), CudaError> {
        if blocks == 0 {
            return Ok(());
        }
        let name = self.name;
        let values: Option<Vec<Value>> = arguments.iter().map(|a| a.value()).collect();
        let grid = i32::try_from(blocks).ok().and_then(|blocks| u32::try_from(blocks).ok());
        let (Some(values), Some(grid)) = (values, grid) else {
            return Err(CudaError::Unsupported { what: format!("{name} of such a size") });
        };
        let mut launch = stream.launch_builder(&self.function);
        for value in &values {
            match value {
                Value::Pointer(pointer) => launch.arg(pointer),
                Value::Int(int) => launch.arg(int),
                Value::LongLong(int) => launch.arg(int),
                Value::Float(float) => launch.arg(float),
            };
        }
        let config = LaunchConfig {
            grid_dim: (grid, 1, 1),
            block_dim: (THREADS as u32, 1, 1),
            shared_mem_bytes: 0,
        };
        // SAFETY: the arguments have the types and the order that the kernel declares. It reads and
        // writes only memory on the device, which has the sizes that the callers say.
        let launched = unsafe { launch.launch(config) };
        launched.map(|_| ()).map_err(|error| CudaError::of_driver(error, &format!("kernel {name}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_not_cut_off() {
        let large = 1 << 31;
        assert_eq!(Argument::Size(large).value(), None);
        assert_eq!(Argument::Size(large - 1).value(), Some(Value::Int(i32::MAX)));
        assert_eq!(Argument::Count(large).value(), Some(Value::LongLong(1 << 31)));
        assert_eq!(Argument::OptionalPointer(None).value(), Some(Value::Pointer(0)));
    }

    #[test]
    fn groups_have_16_bytes() {
        assert_eq!(groups_of(NumberFormat::F16, 64), 8);
        assert_eq!(groups_of(NumberFormat::Bf16, 65), 9);
        assert_eq!(groups_of(NumberFormat::Tf32, 64), 16);
    }
}
