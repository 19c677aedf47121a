//! Convolutions on AMX tiles: blocks of 32 pixels × 32 outputs, each finished (bias,
//! residual, ReLU, conversion) while the tiles work on the next. In bf16, or with each f32 as
//! a high and a low bf16 of which three of the four products are summed.
//!
//! Rust's own intrinsics for tiles are unstable, so this is assembly. A block's load,
//! multiply and store are one `asm!` each: the compiler knows nothing of tile registers.

use std::arch::asm;
use std::arch::x86_64::*;

use crate::bf16::{narrow, widen};
use crate::convolution::{CACHED_WEIGHT_BYTES, Job};
use crate::layout::PLANE;

/// Bytes of 32 × 32 bf16 weights.
const STEP_BYTES: usize = 2048;

/// Tile registers configured for this thread, as long as it lives.
#[derive(Debug)]
pub(crate) struct Tiles {
    /// Tiles are a thread's own: this must not be sent.
    _thread: std::marker::PhantomData<*const ()>,
}

/// The operand of `ldtilecfg` (Intel's Architecture Instruction Set Extensions, chapter 3).
#[repr(C, align(64))]
pub(crate) struct TileConfig {
    pub(crate) palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    pub(crate) row_bytes: [u16; 16],
    pub(crate) rows: [u8; 16],
}

impl Tiles {
    /// # Safety
    /// The machine has AMX and this process may use it.
    pub(crate) unsafe fn configure() -> Self {
        let mut config = TileConfig {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [0; 16],
            rows: [0; 16],
        };
        config.row_bytes[..8].fill(64);
        config.rows[..8].fill(16);
        // SAFETY: AMX is there, says the caller; it reads the 64 bytes of `config`.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const config,
                options(nostack, readonly, preserves_flags));
        }
        Self { _thread: std::marker::PhantomData }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: the same thread has configured tiles, so there are some.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
    }
}

/// 32 pixels × 32 outputs in f32.
#[repr(align(64))]
struct Block([f32; PLANE * PLANE]);

/// What the assembly has no registers left for.
#[repr(C)]
struct Operands {
    planes: usize,
    output: *mut f32,
    /// From the first to the second 16 pixels.
    half_bytes: usize,
    plane_bytes: usize,
    low_bytes: usize,
}

/// # Safety
/// As for [`crate::convolution::run`], with AMX and AVX-512 BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(crate) unsafe fn convolve<const THREE: bool>(job: &Job<'_>) {
    let mut blocks = [Block([0.0; PLANE * PLANE]), Block([0.0; PLANE * PLANE])];
    let mut current = 0;
    // Pixel, number of pixels and panel of the block that is multiplied but not finished.
    let mut pending: Option<(usize, usize, usize)> = None;
    let panels = job.panels.0..job.panels.1;
    let mut one = |pixel: usize, count: usize, panel: usize| {
        let operands = Operands {
            planes: job.weights.planes,
            output: blocks[current].0.as_mut_ptr(),
            half_bytes: 16 * job.step_bytes,
            plane_bytes: job.source_plane_bytes,
            low_bytes: job.low_bytes,
        };
        // SAFETY: the caller's promises; a panel has `panel_bytes` bytes.
        unsafe {
            let source = job.source.add(pixel * job.step_bytes);
            let weights = job.panel(panel);
            if THREE {
                multiply_three(source, job.taps, job.step_bytes, weights, &operands);
            } else {
                multiply(source, job.taps, job.step_bytes, weights, &operands);
            }
            current ^= 1;
            if let Some(block) = pending {
                finish::<THREE>(job, &blocks[current], block);
            }
        }
        pending = Some((pixel, count, panel));
    };
    let starts = |(start, pixels): (usize, usize)| {
        (0..pixels).step_by(PLANE).map(move |at| (start + at, (pixels - at).min(PLANE)))
    };
    let runs = &job.runs[..job.run_count];
    if job.weight_bytes() > CACHED_WEIGHT_BYTES / 2 {
        for panel in panels {
            for (pixel, count) in runs.iter().copied().flat_map(starts) {
                one(pixel, count, panel);
            }
        }
    } else {
        for (pixel, count) in runs.iter().copied().flat_map(starts) {
            for panel in panels.clone() {
                one(pixel, count, panel);
            }
        }
    }
    if let Some(block) = pending {
        // SAFETY: the caller's promises.
        unsafe { finish::<THREE>(job, &blocks[current ^ 1], block) };
    }
}

/// `output = sum over taps and planes of source × weights`, in bf16.
///
/// # Safety
/// Tiles are configured; 32 pixels can be read at each tap and plane, and `taps × planes`
/// steps of weights; the output is a [`Block`].
#[inline(always)]
unsafe fn multiply(
    source: *const u8,
    taps: &[isize],
    step_bytes: usize,
    weights: *const u8,
    operands: &Operands,
) {
    // SAFETY: as the caller promises. Only the output is written.
    unsafe {
        asm!(
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "3:",
            "mov {near}, [{taps}]",
            "add {near}, {source}",
            "mov {planes}, [{operands}]",
            "2:",
            "tileloadd tmm6, [{weights} + {line}]",
            "tileloadd tmm4, [{near} + {step}]",
            "lea {far}, [{near} + {half}]",
            "tileloadd tmm7, [{weights} + {line} + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{far} + {step}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {near}, [{operands} + 24]",
            "add {weights}, {step_bytes}",
            "dec {planes}",
            "jnz 2b",
            "add {taps}, 8",
            "dec {left}",
            "jnz 3b",
            "mov {far}, [{operands} + 8]",
            "tilestored [{far} + {line} * 2], tmm0",
            "tilestored [{far} + {line} * 2 + 64], tmm1",
            "tilestored [{far} + {line} * 2 + 2048], tmm2",
            "tilestored [{far} + {line} * 2 + 2112], tmm3",
            source = in(reg) source,
            taps = inout(reg) taps.as_ptr() => _,
            left = inout(reg) taps.len() => _,
            step = in(reg) step_bytes,
            half = in(reg) operands.half_bytes,
            weights = inout(reg) weights => _,
            operands = in(reg) operands,
            line = in(reg) 64usize,
            near = out(reg) _,
            far = out(reg) _,
            planes = out(reg) _,
            step_bytes = const STEP_BYTES,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack)
        );
    }
}

/// As [`multiply`], of values in two halves each: high × high + low × high + high × low.
/// What is left out, low × low, is below f32's last bit but one.
///
/// # Safety
/// As for [`multiply`], also at `low_bytes` from each source; weights of low halves follow
/// each step's high ones.
#[inline(always)]
unsafe fn multiply_three(
    source: *const u8,
    taps: &[isize],
    step_bytes: usize,
    weights: *const u8,
    operands: &Operands,
) {
    // SAFETY: as the caller promises. Only the output is written.
    unsafe {
        asm!(
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "3:",
            "mov {near}, [{taps}]",
            "add {near}, {source}",
            "mov {planes}, [{operands}]",
            "2:",
            "lea {far}, [{near} + {half}]",
            // High × low.
            "tileloadd tmm6, [{weights} + {line} + 2048]",
            "tileloadd tmm4, [{near} + {step}]",
            "tileloadd tmm7, [{weights} + {line} + 3072]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{far} + {step}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // High × high.
            "tileloadd tmm6, [{weights} + {line}]",
            "tileloadd tmm7, [{weights} + {line} + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // Low × high.
            "mov {far}, {near}",
            "add {far}, [{operands} + 32]",
            "tileloadd tmm4, [{far} + {step}]",
            "add {far}, {half}",
            "tileloadd tmm5, [{far} + {step}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {near}, [{operands} + 24]",
            "add {weights}, {step_bytes}",
            "dec {planes}",
            "jnz 2b",
            "add {taps}, 8",
            "dec {left}",
            "jnz 3b",
            "mov {far}, [{operands} + 8]",
            "tilestored [{far} + {line} * 2], tmm0",
            "tilestored [{far} + {line} * 2 + 64], tmm1",
            "tilestored [{far} + {line} * 2 + 2048], tmm2",
            "tilestored [{far} + {line} * 2 + 2112], tmm3",
            source = in(reg) source,
            taps = inout(reg) taps.as_ptr() => _,
            left = inout(reg) taps.len() => _,
            step = in(reg) step_bytes,
            half = in(reg) operands.half_bytes,
            weights = inout(reg) weights => _,
            operands = in(reg) operands,
            line = in(reg) 64usize,
            near = out(reg) _,
            far = out(reg) _,
            planes = out(reg) _,
            step_bytes = const 2 * STEP_BYTES,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack)
        );
    }
}

/// Bias, residual, ReLU and conversion of one block, and off to the output.
///
/// # Safety
/// As for [`crate::convolution::run`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn finish<const THREE: bool>(
    job: &Job<'_>,
    block: &Block,
    (pixel, count, panel): (usize, usize, usize),
) {
    // SAFETY: pixels and planes are the job's own.
    unsafe {
        let bias = job.bias.cast::<f32>().add(panel * PLANE);
        let bias = [_mm512_load_ps(bias), _mm512_load_ps(bias.add(16))];
        let floor = _mm512_set1_ps(job.floor());
        let pixel_bytes = if THREE { 128 } else { 64 };
        let target = job.target.add(panel * job.target_plane_bytes);
        let residual = job.residual.wrapping_add(panel * job.residual_plane_bytes);
        for row in 0..count {
            let sums = block.0.as_ptr().add(row * PLANE);
            let mut values = [
                _mm512_add_ps(_mm512_load_ps(sums), bias[0]),
                _mm512_add_ps(_mm512_load_ps(sums.add(16)), bias[1]),
            ];
            if !job.residual.is_null() {
                let residual = residual.add((pixel + row) * pixel_bytes);
                for half in (0..pixel_bytes).step_by(64) {
                    let [low, high] = widen(_mm512_load_si512(residual.add(half).cast()));
                    values[0] = _mm512_add_ps(values[0], low);
                    values[1] = _mm512_add_ps(values[1], high);
                }
            }
            // This order of operands keeps what is not a number.
            let values = [_mm512_max_ps(floor, values[0]), _mm512_max_ps(floor, values[1])];
            let target = target.add(job.place(pixel + row) * pixel_bytes);
            if job.output_f32 {
                _mm512_store_ps(target.cast(), values[0]);
                _mm512_store_ps(target.add(64).cast(), values[1]);
                continue;
            }
            let high = narrow(values);
            _mm512_store_si512(target.cast(), high);
            if THREE {
                let rounded = widen(high);
                let rest =
                    [_mm512_sub_ps(values[0], rounded[0]), _mm512_sub_ps(values[1], rounded[1])];
                _mm512_store_si512(target.add(64).cast(), narrow(rest));
            }
        }
    }
}
