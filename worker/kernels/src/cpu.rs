//! What this CPU and its operating system can do beyond what Rust's own feature detection says:
//! AMX tiles, and who made the CPU. Does not know kernels; [`kernel`](crate::kernel) decides
//! with these answers.

/// Whether the CPU reports AMD as its vendor: CPUID leaf 0 (AMD's Architecture Programmer's
/// Manual, volume 3, appendix E.3.1).
#[allow(unused_unsafe, reason = "reading CPUID became safe in Rust 1.92")]
pub(crate) fn made_by_amd() -> bool {
    // SAFETY: every x86-64 CPU has CPUID.
    let leaf = unsafe { std::arch::x86_64::__cpuid(0) };
    let name = [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes);
    name.as_flattened() == b"AuthenticAMD"
}

/// Whether this process may use AMX tiles for bf16. The first call asks the operating system.
#[cfg(target_os = "linux")]
pub(crate) fn tiles_permitted() -> bool {
    use std::sync::OnceLock;

    static PERMITTED: OnceLock<bool> = OnceLock::new();
    *PERMITTED.get_or_init(|| {
        let permitted = tiles_supported() && request_permission();
        #[cfg(test)]
        let permitted = permitted || crate::tests::amx_emulator::install();
        permitted
    })
}

/// Whether this process may use AMX tiles for bf16: only Linux is supported.
#[cfg(not(target_os = "linux"))]
pub(crate) fn tiles_permitted() -> bool {
    false
}

/// Reads CPUID and XCR0, because `is_x86_feature_detected!("amx-bf16")` is not stable: Intel's
/// Software Developer's Manual, volume 1, section 18.2.
#[cfg(target_os = "linux")]
#[allow(unused_unsafe, reason = "reading CPUID became safe in Rust 1.92")]
fn tiles_supported() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};

    /// The leaf that describes tiles.
    const TILE_LEAF: u32 = 0x1d;
    /// Leaf 1, ECX: the operating system has enabled `xgetbv`.
    const OSXSAVE: u32 = 1 << 27;
    /// Leaf 7, EDX: AMX-BF16 and AMX-TILE.
    const BF16_TILES: u32 = 1 << 22 | 1 << 24;
    /// XCR0: the operating system saves tile configuration and tile data.
    const TILE_STATE: u32 = 3 << 17;

    // SAFETY: every x86-64 CPU has CPUID with leaves 0 and 1.
    let (last, osxsave) = unsafe { (__cpuid(0).eax, __cpuid(1).ecx & OSXSAVE != 0) };
    if last < TILE_LEAF || !osxsave {
        return false;
    }
    // SAFETY: leaf 7 is below the last leaf.
    if unsafe { __cpuid_count(7, 0).edx } & BF16_TILES != BF16_TILES {
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

/// Asks Linux for tiles. Without this request a process has no room for the 8 KiB of tile data:
/// <https://docs.kernel.org/arch/x86/xstate.html>.
#[cfg(target_os = "linux")]
fn request_permission() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: this request takes a number and no pointer.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}
