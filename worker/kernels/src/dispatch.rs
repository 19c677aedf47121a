//! Hands a call to a kernel. Multiplying and finishing is the kernels' work; choosing between
//! this and Winograd's filtering is [`convolution`](crate::convolution)'s.

#[cfg(target_arch = "x86_64")]
use crate::amx;
use crate::avx2_neon;
#[cfg(target_arch = "x86_64")]
use crate::avx512;
#[cfg(target_arch = "x86_64")]
use crate::avx512_bf16;
#[cfg(target_arch = "x86_64")]
use crate::avx512_vnni;
use crate::call::ConvolutionCall;
use crate::int8_lanes;
use crate::kernel::Kernel;

/// A thread that may run a kernel's calls, as long as this value lives: for AMX its tile
/// registers are configured. The thread runs nothing else meanwhile, which might release them.
pub(crate) struct PreparedThread {
    #[cfg(target_arch = "x86_64")]
    _tiles: Option<amx::TileRegisters>,
}

/// Prepares this thread for a kernel.
///
/// # Safety
/// The machine has the kernel.
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "nothing to prepare"))]
pub(crate) unsafe fn prepare_thread(kernel: Kernel) -> PreparedThread {
    PreparedThread {
        #[cfg(target_arch = "x86_64")]
        _tiles: tile_shape(kernel)
            // SAFETY: as the caller promises.
            .map(|shape| unsafe { amx::TileRegisters::configure(shape) }),
    }
}

/// The tiles of a kernel, if it uses any.
#[cfg(target_arch = "x86_64")]
fn tile_shape(kernel: Kernel) -> Option<amx::TileShape> {
    match kernel {
        Kernel::AmxBf16 | Kernel::AmxBf16x3 => Some(amx::TileShape::PAIRS),
        Kernel::AmxInt8 => Some(amx::TileShape::QUADS),
        _ => None,
    }
}

/// Runs a call whose weights are not transformed, or at one position of transformed weights.
///
/// # Safety
/// The machine has the kernel, the weights are packed for it, and this thread holds the result
/// of [`prepare_thread`]. Input, output and residual are valid for all pixels that the call
/// names, with the overrun of an [`Activation`](crate::layout::Activation). The output may be
/// the residual if pixels keep their indices, but not the input. Calls that run at the same time
/// on other threads write other pixels or planes.
pub(crate) unsafe fn multiply(kernel: Kernel, call: &ConvolutionCall<'_>) {
    // SAFETY: as the caller promises.
    unsafe {
        match kernel {
            #[cfg(target_arch = "x86_64")]
            Kernel::AmxBf16 => amx::convolve::<false>(call),
            #[cfg(target_arch = "x86_64")]
            Kernel::AmxBf16x3 => amx::convolve::<true>(call),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512Bf16 => avx512_bf16::convolve(call),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 => avx512::convolve(call),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => avx2_neon::convolve_avx2(call),
            #[cfg(target_arch = "aarch64")]
            Kernel::Neon => avx2_neon::convolve_neon(call),
            #[cfg(target_arch = "x86_64")]
            Kernel::AmxInt8 => amx::convolve_int8(call),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512Vnni => avx512_vnni::convolve(call),
            #[cfg(target_arch = "x86_64")]
            Kernel::AvxVnni => int8_lanes::convolve_avx_vnni(call),
            #[cfg(target_arch = "aarch64")]
            Kernel::NeonI8mm => int8_lanes::convolve_i8mm(call),
            #[cfg(target_arch = "aarch64")]
            Kernel::NeonDot => int8_lanes::convolve_dot(call),
            Kernel::PortableInt8 => int8_lanes::convolve_portable(call),
            #[allow(unreachable_patterns, reason = "kernels of other architectures")]
            _ => unreachable!("{kernel} is not available on this architecture"),
        }
    }
}
