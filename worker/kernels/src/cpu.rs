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

/// In CPUID's leaf 7, EDX: AMX-TILE.
const TILES: u32 = 1 << 24;
/// With AMX-BF16.
const BF16_TILES: u32 = TILES | 1 << 22;
/// With AMX-INT8.
const INT8_TILES: u32 = TILES | 1 << 25;

/// Whether this process may use AMX tiles for bf16. The first call asks the operating system.
pub(crate) fn bf16_tiles_permitted() -> bool {
    tiles_permitted(BF16_TILES)
}

/// Whether this process may use AMX tiles for 8 bits. The first call asks the operating system.
pub(crate) fn int8_tiles_permitted() -> bool {
    tiles_permitted(INT8_TILES)
}

/// Whether this process may use AMX tiles, and the CPU has these features.
#[cfg(target_os = "linux")]
fn tiles_permitted(features: u32) -> bool {
    use std::sync::OnceLock;

    static PERMITTED: OnceLock<u32> = OnceLock::new();
    let permitted = *PERMITTED.get_or_init(|| {
        let found = tile_features();
        let permitted = if found != 0 && request_permission() { found } else { 0 };
        #[cfg(test)]
        let permitted = match permitted {
            0 if crate::tests::amx_emulator::install() => BF16_TILES | INT8_TILES,
            permitted => permitted,
        };
        permitted
    });
    permitted & features == features
}

/// Whether this process may use AMX tiles: only Linux is supported.
#[cfg(not(target_os = "linux"))]
fn tiles_permitted(_features: u32) -> bool {
    false
}

/// Which of AMX's features there are. Reads CPUID and XCR0, because `is_x86_feature_detected!("amx-bf16")` is not stable: Intel's
/// Software Developer's Manual, volume 1, section 18.2.
#[cfg(target_os = "linux")]
#[allow(unused_unsafe, reason = "reading CPUID became safe in Rust 1.92")]
fn tile_features() -> u32 {
    use std::arch::x86_64::{__cpuid, __cpuid_count};

    /// The leaf that describes tiles.
    const TILE_LEAF: u32 = 0x1d;
    /// Leaf 1, ECX: the operating system has enabled `xgetbv`.
    const OSXSAVE: u32 = 1 << 27;
    /// XCR0: the operating system saves tile configuration and tile data.
    const TILE_STATE: u32 = 3 << 17;

    // SAFETY: every x86-64 CPU has CPUID with leaves 0 and 1.
    let (last, osxsave) = unsafe { (__cpuid(0).eax, __cpuid(1).ecx & OSXSAVE != 0) };
    if last < TILE_LEAF || !osxsave {
        return 0;
    }
    // SAFETY: leaf 7 is below the last leaf.
    let features = unsafe { __cpuid_count(7, 0).edx } & (BF16_TILES | INT8_TILES);
    if features & TILES == 0 {
        return 0;
    }
    let enabled: u32;
    // SAFETY: OSXSAVE says that `xgetbv` may be used; it only writes these two registers.
    unsafe {
        std::arch::asm!("xgetbv", in("ecx") 0, out("eax") enabled, out("edx") _,
            options(nomem, nostack, preserves_flags));
    }
    if enabled & TILE_STATE == TILE_STATE { features } else { 0 }
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
