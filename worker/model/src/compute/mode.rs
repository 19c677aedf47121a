//! How a network is computed on a device: number format and, on a CPU, the kernel. Decided once,
//! when a model is loaded.

#[cfg(feature = "cuda")]
use camshaft_cuda::{CudaDevice, NumberFormat};
use camshaft_kernels::Kernel;

use super::device::ComputeDevice;
use super::kernel_choice::KernelChoice;
use super::precision::Precision;

/// How a model is to be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ComputeSettings {
    /// Its number format.
    pub precision: Precision,
    /// What multiplies on a CPU.
    pub kernel: KernelChoice,
    /// Images of the largest batch. A GPU has memory for it from the start.
    pub largest_batch: usize,
}

/// No kernel of this CPU computes in that precision.
#[derive(Debug, thiserror::Error)]
#[error("{precision} with kernel {kernel} is not available on this CPU; use f32")]
pub struct PrecisionError {
    /// The precision that was asked for.
    pub precision: Precision,
    /// The kernel that was asked for.
    pub kernel: KernelChoice,
}

/// What runs a network's passes.
#[derive(Clone, Debug)]
pub(crate) enum Backend {
    /// candle, on the CPU.
    Candle,
    /// A kernel of the CPU.
    Kernel(Kernel),
    /// A GPU, with memory for batches of up to `largest_batch` images.
    #[cfg(feature = "cuda")]
    Cuda { device: CudaDevice, format: NumberFormat, largest_batch: usize },
}

/// How a network is computed.
#[derive(Clone, Debug)]
pub(crate) struct ComputeMode {
    /// The precision in results: never `auto`.
    pub(crate) precision: Precision,
    /// What runs its passes.
    pub(crate) backend: Backend,
}

impl ComputeMode {
    const CANDLE_F32: Self = Self { precision: Precision::F32, backend: Backend::Candle };

    /// Chooses for a device.
    ///
    /// # Errors
    /// If the device doesn't compute in that precision with that kernel.
    pub(crate) fn choose(
        device: &ComputeDevice,
        settings: ComputeSettings,
    ) -> Result<Self, PrecisionError> {
        match device {
            ComputeDevice::Cpu => Self::on_cpu(settings.precision, settings.kernel),
            #[cfg(feature = "cuda")]
            ComputeDevice::Cuda(device) => Ok(Self::on_cuda(device, settings)),
        }
    }

    #[cfg(feature = "cuda")]
    fn on_cuda(device: &CudaDevice, settings: ComputeSettings) -> Self {
        let (precision, format) = match settings.precision {
            // Images whose numbers are too large for it are done again in f32.
            Precision::Auto | Precision::F16 => (Precision::F16, NumberFormat::F16),
            Precision::Bf16 => (Precision::Bf16, NumberFormat::Bf16),
            Precision::F32 => (Precision::F32, NumberFormat::F32),
            Precision::Tf32 => (Precision::Tf32, NumberFormat::Tf32),
        };
        let (device, largest_batch) = (device.clone(), settings.largest_batch);
        Self { precision, backend: Backend::Cuda { device, format, largest_batch } }
    }

    fn on_cpu(precision: Precision, choice: KernelChoice) -> Result<Self, PrecisionError> {
        // bf16x3 keeps 16 of f32's 24 bits between layers. Its logits are off by 2e-5, twenty times
        // as much as f32's own (see docs/cpu.md). So it comes last: it runs only if it is asked
        // for, or if there is no other kernel.
        const BF16: [Kernel; 2] = [Kernel::AmxBf16, Kernel::Avx512Bf16];
        const F32: [Kernel; 4] = [Kernel::Avx512, Kernel::Avx2, Kernel::Neon, Kernel::AmxBf16x3];
        let wanted: Vec<Kernel> = match precision {
            Precision::Auto => [&BF16[..], &F32].concat(),
            Precision::F32 => F32.into(),
            Precision::Bf16 => BF16.into(),
            Precision::F16 | Precision::Tf32 => Vec::new(),
        };
        let fits = |kernel: &&Kernel| match choice {
            // Without being asked for, bf16 runs only if it is faster than f32.
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
                Ok(Self { precision, backend: Backend::Kernel(kernel) })
            }
            None if may_be_candle => Ok(Self::CANDLE_F32),
            None => Err(PrecisionError { precision, kernel: choice }),
        }
    }

    /// Chooses for a network that the kernel can't run.
    ///
    /// # Errors
    /// If nothing else computes in that precision.
    pub(crate) fn without_kernel(
        precision: Precision,
        choice: KernelChoice,
    ) -> Result<Self, PrecisionError> {
        match (precision, choice) {
            (Precision::Auto | Precision::F32, KernelChoice::Auto) => Ok(Self::CANDLE_F32),
            _ => Err(PrecisionError { precision, kernel: choice }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(precision: Precision, kernel: KernelChoice) -> Result<ComputeMode, PrecisionError> {
        let settings = ComputeSettings { precision, kernel, largest_batch: 1 };
        ComputeMode::choose(&ComputeDevice::Cpu, settings)
    }

    #[test]
    fn precision_and_kernel_agree() {
        for precision in [Precision::Auto, Precision::F32] {
            let candle = choose(precision, KernelChoice::Candle).unwrap();
            assert!(matches!(candle.backend, Backend::Candle));
            assert_eq!(candle.precision, Precision::F32);
        }
        assert!(choose(Precision::F16, KernelChoice::Auto).is_err());
        assert!(choose(Precision::Tf32, KernelChoice::Auto).is_err());
        assert!(choose(Precision::Bf16, KernelChoice::Candle).is_err());
        let amx = KernelChoice::Only(Kernel::AmxBf16);
        assert!(choose(Precision::F32, amx).is_err(), "f32 must mean f32");
        for kernel in Kernel::ALL.into_iter().filter(|kernel| kernel.is_available()) {
            let chosen = choose(Precision::Auto, KernelChoice::Only(kernel)).unwrap();
            assert!(matches!(chosen.backend, Backend::Kernel(only) if only == kernel));
            assert_eq!(chosen.precision == Precision::Bf16, kernel.is_bf16());
        }
    }
}
