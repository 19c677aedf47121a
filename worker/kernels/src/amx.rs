//! Convolutions on AMX tiles: blocks of 32 pixels × 32 outputs. Each block is finished while the
//! tiles multiply the next one. In bf16; with each f32 as a high and a low bf16, which takes three
//! products; or in 8 bits.
//!
//! Rust's own intrinsics for tiles are unstable, so this is assembly. Loading, multiplying and
//! storing a block is one `asm!`, because the compiler does not know tile registers.

use std::arch::asm;
use std::arch::x86_64::*;
use std::mem::offset_of;

use crate::avx512_vnni::Requantiser;
use crate::call::{CACHED_WEIGHT_BYTES, ConvolutionCall};
use crate::epilogue::{Bf16PairPixel, Bf16Pixel, Epilogue, F32Pixel, PixelFormat};
use crate::kernel::ValueFormat;
use crate::layout::{PLANE, PixelRange, Segment};
use crate::weights::{QUAD, QUAD_BYTES};

/// Rows of a tile.
const TILE_ROWS: usize = 16;
/// Bytes of a tile's row.
const TILE_ROW_BYTES: usize = 64;
/// Bytes of a tile: 16 × 32 bf16 or 16 × 16 f32.
const TILE_BYTES: usize = TILE_ROWS * TILE_ROW_BYTES;
/// Bytes of 32 × 32 bf16 weights: two tiles.
const STEP_BYTES: usize = 2 * TILE_BYTES;

/// The tile registers of this thread, configured as long as this value lives.
#[derive(Debug)]
pub(crate) struct TileRegisters {
    /// Tile registers belong to a thread: this must not be sent to another.
    _thread: std::marker::PhantomData<*const ()>,
}

/// The shape of all tiles: those of sums have 16 rows of 64 bytes whatever else.
#[derive(Clone, Copy)]
pub(crate) struct TileShape {
    /// Bytes of a row of a tile of pixels.
    pixel_row_bytes: u16,
    /// Rows of a tile of weights.
    weight_rows: u8,
}

impl TileShape {
    /// 32 inputs in bf16.
    pub(crate) const PAIRS: Self =
        Self { pixel_row_bytes: TILE_ROW_BYTES as u16, weight_rows: TILE_ROWS as u8 };
    /// 32 inputs in 8 bits.
    pub(crate) const QUADS: Self =
        Self { pixel_row_bytes: PLANE as u16, weight_rows: (PLANE / QUAD) as u8 };
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

impl TileRegisters {
    /// # Safety
    /// The machine has AMX and this process may use it.
    pub(crate) unsafe fn configure(shape: TileShape) -> Self {
        let mut config = TileConfig {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [0; 16],
            rows: [0; 16],
        };
        config.row_bytes[..8].fill(TILE_ROW_BYTES as u16);
        config.rows[..8].fill(TILE_ROWS as u8);
        // All kernels have pixels in tiles 4 and 5, and weights in 6 and 7.
        config.row_bytes[4..6].fill(shape.pixel_row_bytes);
        config.rows[6..8].fill(shape.weight_rows);
        // SAFETY: the caller promises AMX; the instruction reads the 64 bytes of `config`.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const config,
                options(nostack, readonly, preserves_flags));
        }
        Self { _thread: std::marker::PhantomData }
    }
}

impl Drop for TileRegisters {
    fn drop(&mut self) {
        // SAFETY: `configure` has run on this thread, so there are tiles to release.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
    }
}

/// The sums of 32 pixels × 32 outputs: f32, or the bits of 32-bit integers.
#[repr(align(64))]
struct BlockSums([f32; PLANE * PLANE]);

impl BlockSums {
    /// Bytes of a pixel's sums.
    const PIXEL_BYTES: usize = 4 * PLANE;
}

/// Up to 32 pixels of one panel of outputs.
#[derive(Clone, Copy)]
struct Block {
    pixels: PixelRange,
    panel: usize,
}

/// Operands that the assembly has no registers left for.
#[repr(C)]
struct Operands {
    planes: usize,
    output: *mut f32,
    /// Bytes from the input of the first to that of the second 16 pixels.
    half_bytes: usize,
    plane_bytes: usize,
    low_bytes: usize,
}

/// Computes a call in bf16, or with `PAIRS` in pairs of bf16.
///
/// # Safety
/// As for [`crate::dispatch::multiply`], with AMX and AVX-512 BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(crate) unsafe fn convolve<const PAIRS: bool>(call: &ConvolutionCall<'_>) {
    // SAFETY: as the caller promises.
    unsafe {
        let multiply = if PAIRS { multiply_pairs } else { multiply };
        convolve_blocks(call, multiply, |sums, block| finish_block::<PAIRS>(call, sums, block));
    }
}

/// Computes a call in 8 bits.
///
/// # Safety
/// As for [`crate::dispatch::multiply`], with AMX for 8 bits and AVX-512 BW.
#[target_feature(enable = "avx512f,avx512bw")]
pub(crate) unsafe fn convolve_int8(call: &ConvolutionCall<'_>) {
    // SAFETY: as the caller promises.
    unsafe {
        convolve_blocks(call, multiply_quads, |sums, block| finish_int8_block(call, sums, block))
    };
}

/// Multiplies each block, and finishes it while the next is multiplied.
///
/// # Safety
/// As for [`crate::dispatch::multiply`], and for both functions.
#[inline(always)]
unsafe fn convolve_blocks(
    call: &ConvolutionCall<'_>,
    multiply: unsafe fn(*const u8, &[isize], usize, *const u8, &Operands),
    finish: impl Fn(&BlockSums, Block),
) {
    let mut sums = [BlockSums([0.0; PLANE * PLANE]), BlockSums([0.0; PLANE * PLANE])];
    let mut current = 0;
    // The block that is multiplied but not finished.
    let mut pending: Option<Block> = None;
    let input = &call.input;
    let mut multiply_block = |pixels: PixelRange, panel: usize| {
        let operands = Operands {
            planes: call.weights.planes,
            output: sums[current].0.as_mut_ptr(),
            half_bytes: TILE_ROWS * input.step_bytes,
            plane_bytes: input.planes.plane_bytes,
            low_bytes: input.low_bytes,
        };
        // SAFETY: the caller's promises; a panel has `panel_bytes` bytes.
        unsafe {
            let source = input.planes.pixels.add(pixels.start * input.step_bytes);
            multiply(source, input.taps, input.step_bytes, call.panel(panel), &operands);
        }
        current ^= 1;
        if let Some(block) = pending {
            finish(&sums[current], block);
        }
        pending = Some(Block { pixels, panel });
    };
    let blocks = |range: PixelRange| {
        (0..range.length).step_by(PLANE).map(move |at| PixelRange {
            start: range.start + at,
            length: (range.length - at).min(PLANE),
        })
    };
    let ranges = call.ranges.as_slice();
    if call.weight_bytes() > CACHED_WEIGHT_BYTES / 2 {
        for panel in call.panels.iter() {
            for pixels in ranges.iter().copied().flat_map(blocks) {
                multiply_block(pixels, panel);
            }
        }
    } else {
        for pixels in ranges.iter().copied().flat_map(blocks) {
            for panel in call.panels.iter() {
                multiply_block(pixels, panel);
            }
        }
    }
    if let Some(block) = pending {
        finish(&sums[current ^ 1], block);
    }
}

/// Makes a function that multiplies a block: `output = sum over taps and planes of source × weights`.
macro_rules! multiply {
    (
        $(#[$attributes:meta])* $name:ident, $product:literal,
        // Bytes of a row of weights; how many such rows are one of sums; where the weights of the second
        // 16 outputs begin; bytes of a step.
        $row:expr, $sums_row:literal, $right_weights:expr, $step:expr
    ) => {
        $(#[$attributes])*
        #[inline(always)]
        unsafe fn $name(
            source: *const u8,
            taps: &[isize],
            step_bytes: usize,
            weights: *const u8,
            operands: &Operands,
        ) {
            // SAFETY: as the caller promises. The assembly writes only the output.
            unsafe {
                asm!(
                    "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                    "3:",
                    "mov {near}, [{taps}]",
                    "add {near}, {source}",
                    "mov {planes}, [{operands} + {planes_at}]",
                    "2:",
                    "tileloadd tmm6, [{weights} + {row}]",
                    "tileloadd tmm4, [{near} + {step}]",
                    "lea {far}, [{near} + {half}]",
                    "tileloadd tmm7, [{weights} + {row} + {right_weights}]",
                    concat!($product, " tmm0, tmm4, tmm6"),
                    "tileloadd tmm5, [{far} + {step}]",
                    concat!($product, " tmm1, tmm4, tmm7"),
                    concat!($product, " tmm2, tmm5, tmm6"),
                    concat!($product, " tmm3, tmm5, tmm7"),
                    "add {near}, [{operands} + {plane_bytes_at}]",
                    "add {weights}, {step_bytes}",
                    "dec {planes}",
                    "jnz 2b",
                    "add {taps}, 8",
                    "dec {left}",
                    "jnz 3b",
                    "mov {far}, [{operands} + {output_at}]",
                    concat!("tilestored [{far} + {row} * ", $sums_row, "], tmm0"),
                    concat!("tilestored [{far} + {row} * ", $sums_row, " + {right}], tmm1"),
                    concat!("tilestored [{far} + {row} * ", $sums_row, " + {below}], tmm2"),
                    concat!("tilestored [{far} + {row} * ", $sums_row, " + {below} + {right}], tmm3"),
                    source = in(reg) source,
                    taps = inout(reg) taps.as_ptr() => _,
                    left = inout(reg) taps.len() => _,
                    step = in(reg) step_bytes,
                    half = in(reg) operands.half_bytes,
                    weights = inout(reg) weights => _,
                    operands = in(reg) operands,
                    row = in(reg) $row,
                    near = out(reg) _,
                    far = out(reg) _,
                    planes = out(reg) _,
                    planes_at = const offset_of!(Operands, planes),
                    output_at = const offset_of!(Operands, output),
                    plane_bytes_at = const offset_of!(Operands, plane_bytes),
                    right_weights = const $right_weights,
                    right = const TILE_ROW_BYTES,
                    below = const TILE_ROWS * BlockSums::PIXEL_BYTES,
                    step_bytes = const $step,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack)
                );
            }
        }
    };
}

multiply!(
    /// In bf16.
    ///
    /// # Safety
    /// Tiles are configured. 32 pixels can be read at each tap and plane, and `taps × planes` steps
    /// of weights. The output is a [`BlockSums`].
    multiply, "tdpbf16ps", TILE_ROW_BYTES, "2", TILE_BYTES, STEP_BYTES
);
multiply!(
    /// In 8 bits; the output is 32-bit integers. The weights of 32 outputs for a quad are a row.
    ///
    /// # Safety
    /// As for [`multiply`], with tiles of [`TileShape::QUADS`].
    multiply_quads, "tdpbusd", QUAD_BYTES, "1", TILE_ROW_BYTES, QUAD_BYTES * PLANE / QUAD
);

/// As [`multiply`], for values in two halves each: high × high + low × high + high × low. The
/// fourth product, low × low, is smaller than f32's last bit but one.
///
/// # Safety
/// As for [`multiply`], also at `low_bytes` from each source. In each step the weights' low
/// halves follow their high ones.
#[inline(always)]
unsafe fn multiply_pairs(
    source: *const u8,
    taps: &[isize],
    step_bytes: usize,
    weights: *const u8,
    operands: &Operands,
) {
    // SAFETY: as the caller promises. The assembly writes only the output.
    unsafe {
        asm!(
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "3:",
            "mov {near}, [{taps}]",
            "add {near}, {source}",
            "mov {planes}, [{operands} + {planes_at}]",
            "2:",
            "lea {far}, [{near} + {half}]",
            // High × low.
            "tileloadd tmm6, [{weights} + {row} + {low}]",
            "tileloadd tmm4, [{near} + {step}]",
            "tileloadd tmm7, [{weights} + {row} + {low} + {tile}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{far} + {step}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // High × high.
            "tileloadd tmm6, [{weights} + {row}]",
            "tileloadd tmm7, [{weights} + {row} + {tile}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // Low × high.
            "mov {far}, {near}",
            "add {far}, [{operands} + {low_bytes_at}]",
            "tileloadd tmm4, [{far} + {step}]",
            "add {far}, {half}",
            "tileloadd tmm5, [{far} + {step}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {near}, [{operands} + {plane_bytes_at}]",
            "add {weights}, {step_bytes}",
            "dec {planes}",
            "jnz 2b",
            "add {taps}, 8",
            "dec {left}",
            "jnz 3b",
            "mov {far}, [{operands} + {output_at}]",
            "tilestored [{far} + {row} * 2], tmm0",
            "tilestored [{far} + {row} * 2 + {right}], tmm1",
            "tilestored [{far} + {row} * 2 + {below}], tmm2",
            "tilestored [{far} + {row} * 2 + {below} + {right}], tmm3",
            source = in(reg) source,
            taps = inout(reg) taps.as_ptr() => _,
            left = inout(reg) taps.len() => _,
            step = in(reg) step_bytes,
            half = in(reg) operands.half_bytes,
            weights = inout(reg) weights => _,
            operands = in(reg) operands,
            row = in(reg) TILE_ROW_BYTES,
            near = out(reg) _,
            far = out(reg) _,
            planes = out(reg) _,
            planes_at = const offset_of!(Operands, planes),
            output_at = const offset_of!(Operands, output),
            plane_bytes_at = const offset_of!(Operands, plane_bytes),
            low_bytes_at = const offset_of!(Operands, low_bytes),
            tile = const TILE_BYTES,
            low = const STEP_BYTES,
            right = const TILE_ROW_BYTES,
            below = const TILE_ROWS * BlockSums::PIXEL_BYTES,
            step_bytes = const 2 * STEP_BYTES,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack)
        );
    }
}

/// Finishes a block.
///
/// # Safety
/// As for [`crate::dispatch::multiply`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn finish_block<const PAIRS: bool>(
    call: &ConvolutionCall<'_>,
    sums: &BlockSums,
    block: Block,
) {
    // SAFETY: as the caller promises.
    unsafe {
        if call.output.format == ValueFormat::F32 {
            finish_block_as::<F32Pixel>(call, sums, block);
        } else if PAIRS {
            finish_block_as::<Bf16PairPixel>(call, sums, block);
        } else {
            finish_block_as::<Bf16Pixel>(call, sums, block);
        }
    }
}

/// Finishes a block of integer sums.
///
/// # Safety
/// As for [`crate::dispatch::multiply`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn finish_int8_block(
    call: &ConvolutionCall<'_>,
    sums: &BlockSums,
    Block { pixels, panel }: Block,
) {
    // The rows of either half are those of a tile.
    let segment = |first: usize| Segment {
        start: pixels.start + first,
        valid: pixels.length.saturating_sub(first).min(TILE_ROWS),
    };
    // SAFETY: pixels and planes are the call's own, and `sums` has 32 rows of 32 lanes, aligned for
    // vectors.
    unsafe {
        let sums = &*(&raw const sums.0).cast::<[[[__m512i; 2]; TILE_ROWS]; 2]>();
        let segments = [segment(0), segment(TILE_ROWS)];
        Requantiser::new(call, panel).finish_pairs(call, sums, segments);
    }
}

/// Finishes a block whose output has the format `F`.
///
/// # Safety
/// As for [`crate::dispatch::multiply`].
#[inline(always)]
unsafe fn finish_block_as<F: PixelFormat<__m512, 2>>(
    call: &ConvolutionCall<'_>,
    sums: &BlockSums,
    Block { pixels, panel }: Block,
) {
    // SAFETY: pixels and planes are the call's own, and `sums` has 32 rows of 32.
    unsafe {
        let epilogue = Epilogue::<F, __m512, 2>::new(call, panel, 0);
        for row in 0..pixels.length {
            let sums = sums.0.as_ptr().add(row * PLANE);
            let sums = [_mm512_load_ps(sums), _mm512_load_ps(sums.add(16))];
            let pixel = pixels.start + row;
            epilogue.finish(sums, pixel, call.output_pixel(pixel));
        }
    }
}
