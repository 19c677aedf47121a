//! Which instructions this machine can run. Which of them is wanted is the caller's business.

use std::fmt;
use std::str::FromStr;

/// A way to compute convolutions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// bf16 products, f32 sums, on AMX tiles. Activations are kept in bf16.
    AmxBf16,
    /// f32 quality on AMX: every value as the sum of two bf16, three products for one.
    AmxBf16x3,
    /// bf16 products, f32 sums, on AVX-512 BF16. Activations are kept in bf16.
    Avx512Bf16,
    /// f32 on AVX-512.
    Avx512,
    /// f32 on AVX2 and FMA.
    Avx2,
    /// f32 on NEON, which every 64-bit Arm CPU has.
    Neon,
}

impl Kernel {
    /// All there are.
    pub const ALL: [Self; 6] =
        [Self::AmxBf16, Self::AmxBf16x3, Self::Avx512Bf16, Self::Avx512, Self::Avx2, Self::Neon];

    /// Those this machine and its operating system can run.
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|kernel| kernel.is_available()).collect()
    }

    /// Whether this machine and its operating system can run it.
    #[cfg(target_arch = "x86_64")]
    pub fn is_available(self) -> bool {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let avx512 = avx2 && is_x86_feature_detected!("avx512f");
        let bf16 = avx512
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512bf16");
        match self {
            Self::Avx2 => avx2,
            Self::Avx512 => avx512,
            Self::Avx512Bf16 => bf16,
            Self::AmxBf16 | Self::AmxBf16x3 => bf16 && tiles_permitted(),
            Self::Neon => false,
        }
    }

    /// Whether it is faster than f32 on a machine that has it. [`Self::Avx512Bf16`] is on AMD's
    /// CPUs; Intel's take several cycles for what AMD's start twice a cycle (Zen 5) or once
    /// (Zen 4).
    #[cfg(target_arch = "x86_64")]
    pub fn beats_f32(self) -> bool {
        match self {
            Self::AmxBf16 | Self::AmxBf16x3 => true,
            Self::Avx512Bf16 => made_by_amd(),
            Self::Avx512 | Self::Avx2 | Self::Neon => false,
        }
    }

    /// Whether it is faster than f32 on a machine that has it.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn beats_f32(self) -> bool {
        false
    }

    /// Whether activations are kept in bf16, whose 8 bits results then have.
    pub fn is_bf16(self) -> bool {
        matches!(self, Self::AmxBf16 | Self::Avx512Bf16)
    }

    /// Whether this machine and its operating system can run it.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn is_available(self) -> bool {
        self == Self::Neon && cfg!(target_arch = "aarch64")
    }

    /// Whether 3×3 convolutions are computed by minimal filtering: only where products are what
    /// takes long, and rounding to bf16 doesn't get worse by it.
    pub(crate) fn transforms(self) -> bool {
        matches!(self, Self::Avx512 | Self::Avx2 | Self::Neon)
    }

    /// The names of all, for a message: `a, b or c`.
    #[must_use]
    pub fn names() -> String {
        let names = Self::ALL.map(Self::name);
        let (last, others) = names.split_last().expect("there are kernels");
        format!("{} or {last}", others.join(", "))
    }

    /// As [`fmt::Display`] and [`FromStr`] have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::AmxBf16 => "amx-bf16",
            Self::AmxBf16x3 => "amx-bf16x3",
            Self::Avx512Bf16 => "avx512-bf16",
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Neon => "neon",
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// No kernel has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown kernel `{0}`: use {names}", names = Kernel::names())]
pub struct UnknownKernel(String);

impl FromStr for Kernel {
    type Err = UnknownKernel;

    fn from_str(name: &str) -> Result<Self, UnknownKernel> {
        Self::ALL
            .into_iter()
            .find(|kernel| kernel.name() == name)
            .ok_or_else(|| UnknownKernel(name.to_owned()))
    }
}

/// The vendor's name in CPUID's leaf 0 (AMD's Architecture Programmer's Manual, volume 3,
/// appendix E.3.1).
#[cfg(target_arch = "x86_64")]
#[allow(unused_unsafe, reason = "reading CPUID became safe in Rust 1.92")]
fn made_by_amd() -> bool {
    // SAFETY: every x86-64 has CPUID.
    let leaf = unsafe { std::arch::x86_64::__cpuid(0) };
    let name = [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes);
    name.as_flattened() == b"AuthenticAMD"
}

/// Whether there are bf16 tiles and this process may use them. Asks the kernel once.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn tiles_permitted() -> bool {
    use std::sync::OnceLock;

    static PERMITTED: OnceLock<bool> = OnceLock::new();
    *PERMITTED.get_or_init(|| {
        let permitted = tiles_supported() && request_permission();
        #[cfg(test)]
        let permitted = permitted || crate::tests::tiles::emulate();
        permitted
    })
}

#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn tiles_permitted() -> bool {
    false
}

/// CPUID and XCR0, since `is_x86_feature_detected!("amx-bf16")` is not stable: Intel's
/// Software Developer's Manual, volume 1, section 18.2.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[allow(unused_unsafe, reason = "reading CPUID became safe in Rust 1.92")]
fn tiles_supported() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};

    /// Leaf that describes tiles.
    const TILE_LEAF: u32 = 0x1d;
    /// Leaf 1, ECX: the operating system has enabled `xgetbv`.
    const OSXSAVE: u32 = 1 << 27;
    /// Leaf 7, EDX: AMX-BF16 and AMX-TILE.
    const TILES_OF_BF16: u32 = 1 << 22 | 1 << 24;
    /// XCR0: the operating system saves tile configuration and tile data.
    const TILE_STATE: u32 = 3 << 17;

    // SAFETY: every x86-64 has CPUID, and the leaf is there where the first says so.
    let (last, osxsave) = unsafe { (__cpuid(0).eax, __cpuid(1).ecx & OSXSAVE != 0) };
    if last < TILE_LEAF || !osxsave {
        return false;
    }
    // SAFETY: leaf 7 is below the last.
    if unsafe { __cpuid_count(7, 0).edx } & TILES_OF_BF16 != TILES_OF_BF16 {
        return false;
    }
    let enabled: u32;
    // SAFETY: OSXSAVE says that `xgetbv` may be used; it only writes these two registers.
    unsafe {
        std::arch::asm!("xgetbv", in("ecx") 0, out("eax") enabled, out("edx") _,
            options(nomem, nostack, preserves_flags));
    }
    enabled & TILE_STATE == TILE_STATE
}

/// Linux keeps the 8 KiB of tile data out of a process's state until it asks:
/// <https://docs.kernel.org/arch/x86/xstate.html>.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn request_permission() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: this request takes a number and no pointer.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for kernel in Kernel::ALL {
            assert_eq!(kernel.to_string().parse(), Ok(kernel));
        }
        assert!("avx1024".parse::<Kernel>().is_err());
    }
}
