//! What can go wrong on a GPU, and what it means for the caller.
//!
//! Owns which results of the driver and of cuDNN are want of memory, which are the end of the
//! context, and which are neither. What to do about an error is the caller's to decide: only want
//! of memory is a reason to try a smaller batch, and after [`CudaError::Lost`] nothing on the GPU
//! works any more in this process. Upstream: every module of this crate.

use cudarc::cudnn::sys::cudnnStatus_t;
use cudarc::driver::DriverError;
use cudarc::driver::sys::CUresult;

/// Why something could not be done on a GPU.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CudaError {
    /// There is no driver, or it does not start.
    #[error(
        "there is no usable NVIDIA driver: {reason}; install one, or compute on the CPU with \
         --device cpu"
    )]
    NoDriver {
        /// What the search found.
        reason: String,
    },
    /// The driver is older than this program needs.
    #[error(
        "the NVIDIA driver supports CUDA {}, and CUDA {} is needed; install a newer driver, or \
         compute on the CPU with --device cpu", version(.found), version(.needed)
    )]
    OldDriver {
        /// The CUDA version that the driver supports, as the driver writes it: 12080 is 12.8.
        found: i32,
        /// The lowest that will do.
        needed: i32,
    },
    /// The machine has fewer devices.
    #[error(
        "there is no GPU {ordinal}: the driver lists {devices}, counted from 0; name another one, \
         or compute on the CPU with --device cpu"
    )]
    NoDevice {
        /// The device that was asked for, from 0.
        ordinal: usize,
        /// How many there are.
        devices: usize,
    },
    /// cuDNN can't be loaded.
    #[error(
        "cuDNN cannot be loaded: {reason}; install cuDNN 9, and name its folder in LD_LIBRARY_PATH"
    )]
    NoCudnn {
        /// What the search found.
        reason: String,
    },
    /// cuDNN is older than this program needs.
    #[error("cuDNN {found} is too old; install cuDNN {needed} or a later one")]
    OldCudnn {
        /// cuDNN's own number for its version: 91400 is 9.14.0.
        found: usize,
        /// The lowest that will do.
        needed: usize,
    },
    /// This program has no kernels of its own that the device can run.
    #[error(
        "this program has no kernels for {device}; use a program that was built with CUDA's nvcc, \
         or compute on the CPU with --device cpu"
    )]
    NoKernels {
        /// The device's name.
        device: String,
    },
    /// The device, or the host's memory that it reads, has not enough left.
    #[error(
        "the GPU has not enough memory for {what}; use a smaller batch, or end other programs on it"
    )]
    OutOfMemory {
        /// What the memory was for.
        what: String,
    },
    /// The context is dead: the process can't use the device any more.
    #[error("the GPU failed in {operation}, and this process lost it: {reason}; start it again")]
    Lost {
        /// What was being done.
        operation: String,
        /// The driver's word for it.
        reason: String,
    },
    /// The network, or one of its convolutions, can't be computed here.
    #[error("the GPU engine cannot compute {what}; compute it on the CPU with --device cpu")]
    Unsupported {
        /// What can't be computed.
        what: String,
    },
    /// Anything else. Done again it fails again.
    #[error("the GPU failed in {operation}: {reason}")]
    Failed {
        /// What was being done.
        operation: String,
        /// The driver's or cuDNN's word for it.
        reason: String,
    },
}

impl CudaError {
    /// What an error of the driver in `operation` means.
    pub(crate) fn of_driver(error: DriverError, operation: &str) -> Self {
        let (operation, reason) = (operation.to_owned(), format!("{:?}", error.0));
        match error.0 {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => Self::OutOfMemory { what: operation },
            CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
            | CUresult::CUDA_ERROR_LAUNCH_FAILED
            | CUresult::CUDA_ERROR_LAUNCH_TIMEOUT
            | CUresult::CUDA_ERROR_ECC_UNCORRECTABLE
            | CUresult::CUDA_ERROR_NVLINK_UNCORRECTABLE
            | CUresult::CUDA_ERROR_ASSERT
            | CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR
            | CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | CUresult::CUDA_ERROR_MISALIGNED_ADDRESS
            | CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | CUresult::CUDA_ERROR_INVALID_PC
            | CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE
            | CUresult::CUDA_ERROR_CONTEXT_IS_DESTROYED
            | CUresult::CUDA_ERROR_SYSTEM_NOT_READY
            | CUresult::CUDA_ERROR_UNKNOWN => Self::Lost { operation, reason },
            _ => Self::Failed { operation, reason },
        }
    }

    /// What a status of cuDNN other than success means. `message` is cuDNN's last message, which
    /// may be empty.
    pub(crate) fn of_cudnn(
        status: cudnnStatus_t,
        operation: &str,
        message: impl Into<String>,
    ) -> Self {
        use cudnnStatus_t as S;
        let (operation, message) = (operation.to_owned(), message.into());
        let reason = match message.trim() {
            "" => format!("{status:?}"),
            message => format!("{status:?}: {message}"),
        };
        match status {
            S::CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED
            | S::CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED => {
                Self::OutOfMemory { what: operation }
            }
            // The statuses from 3000 to 3999 are all kinds of "not supported".
            status if (3000..4000).contains(&(status as u32)) => {
                Self::Unsupported { what: format!("{operation} ({reason})") }
            }
            _ => Self::Failed { operation, reason },
        }
    }

    /// True if the process can't use the device any more.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Lost { .. })
    }
}

/// A version of CUDA as people write it.
fn version(number: &i32) -> String {
    format!("{}.{}", number / 1000, number % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_driver(result: CUresult) -> CudaError {
        CudaError::of_driver(DriverError(result), "a pass")
    }

    #[test]
    fn driver_errors_are_want_of_memory_the_end_or_neither() {
        let what = "a pass".to_owned();
        let memory = of_driver(CUresult::CUDA_ERROR_OUT_OF_MEMORY);
        assert_eq!(memory, CudaError::OutOfMemory { what });
        assert!(of_driver(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS).is_lost());
        assert!(of_driver(CUresult::CUDA_ERROR_ECC_UNCORRECTABLE).is_lost());
        let other = of_driver(CUresult::CUDA_ERROR_INVALID_VALUE);
        assert!(matches!(other, CudaError::Failed { .. }), "{other:?}");
    }

    #[test]
    fn a_graph_without_an_engine_is_unsupported() {
        use cudnnStatus_t as S;
        let of = |status| CudaError::of_cudnn(status, "a plan", "why");
        let missing = of(S::CUDNN_STATUS_NOT_SUPPORTED_GRAPH_PATTERN);
        assert!(matches!(missing, CudaError::Unsupported { .. }), "{missing:?}");
        let memory = of(S::CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED);
        assert!(matches!(memory, CudaError::OutOfMemory { .. }), "{memory:?}");
        let failed = of(S::CUDNN_STATUS_EXECUTION_FAILED);
        assert_eq!(
            failed.to_string(),
            "the GPU failed in a plan: CUDNN_STATUS_EXECUTION_FAILED: why"
        );
    }

    #[test]
    fn an_old_drivers_message_names_versions_as_people_do() {
        let message = CudaError::OldDriver { found: 12040, needed: 12080 }.to_string();
        assert!(message.contains("CUDA 12.4, and CUDA 12.8 is needed"), "{message}");
    }
}
