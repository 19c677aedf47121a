//! How a network is computed on a device: number format and, on a CPU, the kernel. Decided once,
//! when a model is loaded.

use std::sync::Arc;

#[cfg(feature = "cuda")]
use camshaft_cuda::{CudaDevice, NumberFormat};
use camshaft_kernels::{ActivationStatistics, Kernel, UnsupportedNetwork};

use super::device::ComputeDevice;
use super::kernel_choice::KernelChoice;
use super::precision::Precision;
use crate::calibration::Calibration;

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

/// A network can't be computed in a precision.
#[derive(Debug, thiserror::Error)]
pub enum PrecisionError {
    /// No kernel of this CPU computes in it.
    #[error("{precision} with kernel {kernel} is not available on this CPU; use f32")]
    Unavailable {
        /// The precision that was asked for.
        precision: Precision,
        /// The kernel that was asked for.
        kernel: KernelChoice,
    },
    /// A kernel that computes other precisions.
    #[error(
        "kernel {kernel} does not compute {precision}; leave CAMSHAFT_KERNEL away, or use another precision"
    )]
    OtherKernel {
        /// The precision that was asked for.
        precision: Precision,
        /// The kernel that was asked for.
        kernel: KernelChoice,
    },
    /// 8 bits, without scales.
    #[error(
        "int8 needs a calibration, and the run has none; audit or enqueue it with --precision int8"
    )]
    Uncalibrated,
    /// Another precision, for a run in 8 bits.
    #[error("the run is in int8, and this was started with --precision {0}; use int8 or auto")]
    Calibrated(Precision),
    /// 8 bits on a GPU.
    #[error(
        "int8 is computed on CPUs, and this runs on a GPU; use --device cpu, or another precision"
    )]
    Gpu,
    /// 8 bits, for a network that they can't compute.
    #[error("the network can't be computed in int8: {0}; use another precision")]
    Network(#[from] UnsupportedNetwork),
}

impl PrecisionError {
    /// Why none of the kernels of a precision was chosen.
    fn of_kernel(precision: Precision, kernel: KernelChoice, of_precision: &[Kernel]) -> Self {
        match kernel {
            KernelChoice::Only(only) if !of_precision.contains(&only) => {
                Self::OtherKernel { precision, kernel }
            }
            _ => Self::Unavailable { precision, kernel },
        }
    }
}

/// The kernel that computes in 8 bits on this CPU.
///
/// # Errors
/// If the choice allows none.
pub fn int8_kernel(choice: KernelChoice) -> Result<Kernel, PrecisionError> {
    // The fastest first. All give the same bits.
    const INT8: [Kernel; 6] = [
        Kernel::AmxInt8,
        Kernel::Avx512Vnni,
        Kernel::AvxVnni,
        Kernel::NeonI8mm,
        Kernel::NeonDot,
        Kernel::PortableInt8,
    ];
    let kernel = INT8.into_iter().find(|kernel| choice.allows(*kernel));
    kernel.ok_or_else(|| PrecisionError::of_kernel(Precision::Int8, choice, &INT8))
}

/// What runs a network's passes.
#[derive(Clone, Debug)]
pub(crate) enum Backend {
    /// candle, on the CPU.
    Candle,
    /// A kernel of the CPU.
    Kernel(Kernel),
    /// A kernel of the CPU in 8 bits, with what its scales follow from.
    Int8 { kernel: Kernel, statistics: Arc<ActivationStatistics> },
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

    /// Chooses for a device, and for a model with or without a calibration for 8 bits.
    ///
    /// # Errors
    /// If the device doesn't compute in that precision with that kernel.
    pub(crate) fn choose(
        device: &ComputeDevice,
        settings: ComputeSettings,
        calibration: Option<&Calibration>,
    ) -> Result<Self, PrecisionError> {
        if let Some(calibration) = calibration {
            return Self::calibrated(device, settings, calibration);
        }
        if settings.precision == Precision::Int8 {
            return Err(PrecisionError::Uncalibrated);
        }
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
            Precision::Int8 => unreachable!("`choose` has refused it"),
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
            Precision::F16 | Precision::Tf32 | Precision::Int8 => Vec::new(),
        };
        let nobody_asks = choice == KernelChoice::Auto && precision == Precision::Auto;
        let fits = |kernel: &&Kernel| {
            // Without being asked for, bf16 runs only if it is faster than f32.
            choice.allows(**kernel) && (!nobody_asks || !kernel.is_bf16() || kernel.beats_f32())
        };
        let may_be_candle = matches!(precision, Precision::Auto | Precision::F32)
            && !matches!(choice, KernelChoice::Only(_));
        match wanted.iter().find(fits) {
            Some(&kernel) => {
                let precision = if kernel.is_bf16() { Precision::Bf16 } else { Precision::F32 };
                Ok(Self { precision, backend: Backend::Kernel(kernel) })
            }
            None if may_be_candle => Ok(Self::CANDLE_F32),
            None => Err(PrecisionError::of_kernel(precision, choice, &wanted)),
        }
    }

    /// In 8 bits.
    fn calibrated(
        device: &ComputeDevice,
        ComputeSettings { precision, kernel: choice, .. }: ComputeSettings,
        calibration: &Calibration,
    ) -> Result<Self, PrecisionError> {
        if !matches!(precision, Precision::Auto | Precision::Int8) {
            return Err(PrecisionError::Calibrated(precision));
        }
        if !device.is_cpu() {
            return Err(PrecisionError::Gpu);
        }
        let kernel = int8_kernel(choice)?;
        let statistics = Arc::new(calibration.statistics());
        Ok(Self { precision: Precision::Int8, backend: Backend::Int8 { kernel, statistics } })
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
            _ => Err(PrecisionError::Unavailable { precision, kernel: choice }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(precision: Precision, kernel: KernelChoice) -> Result<ComputeMode, PrecisionError> {
        let settings = ComputeSettings { precision, kernel, largest_batch: 1 };
        ComputeMode::choose(&ComputeDevice::Cpu, settings, None)
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
            assert_eq!(int8_kernel(KernelChoice::Only(kernel)).is_ok(), kernel.is_int8());
            if kernel.is_int8() {
                let refused = choose(Precision::Auto, KernelChoice::Only(kernel)).unwrap_err();
                assert!(refused.to_string().contains("does not compute auto"), "{refused}");
                continue;
            }
            let chosen = choose(Precision::Auto, KernelChoice::Only(kernel)).unwrap();
            assert!(matches!(chosen.backend, Backend::Kernel(only) if only == kernel));
            assert_eq!(chosen.precision == Precision::Bf16, kernel.is_bf16());
        }
    }
}
