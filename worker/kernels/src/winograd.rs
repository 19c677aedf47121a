//! 3×3 convolutions with stride 1 in f32 by Winograd's minimal filtering: four outputs take 16
//! multiplications instead of 36, and some additions. The formulas are in
//! [`winograd_transform`](crate::winograd_transform).
//!
//! A tile is 2 × 2 outputs and reads 4 × 4 inputs. Both are transformed to 16 positions. At each
//! position a product of matrices, tiles × inputs by inputs × outputs, is a 1×1 convolution,
//! which a kernel computes.

use std::ops::Range;

use crate::aligned::AlignedMemory;
use crate::call::{CallInput, CallOutput, ConvolutionCall, PanelRange, Planes};
use crate::dispatch;
use crate::epilogue::{Epilogue, F32Pixel};
use crate::kernel::{Kernel, ValueFormat};
use crate::layout::{PLANE, PixelLayout, Segment};
use crate::team::WorkPart;
use crate::winograd_transform::{Lanes, POSITIONS, transform_input, transform_output};

/// Bytes of a tile's 32 channels at one position.
const TILE_BYTES: usize = 4 * PLANE;
/// Segments of tiles at once: their inputs and outputs stay in the second-level cache, and
/// weights are used on enough tiles.
const SEGMENTS_AT_ONCE: usize = 8;

/// One thread's buffers and tables, for any layer of a network.
#[derive(Debug)]
pub(crate) struct WinogradScratch {
    /// `[position][plane][tile][32]`.
    inputs: AlignedMemory,
    /// `[position][tile][32]` of one panel, with one more tile for what is discarded.
    outputs: AlignedMemory,
    /// Stands for the bias, which is added once, after the products.
    zeros: AlignedMemory,
    /// Tiles at once.
    tiles: usize,
    pixel_map: Vec<u32>,
    segments: Vec<Segment>,
}

impl WinogradScratch {
    /// For convolutions of at most `inputs` input and `outputs` output channels.
    pub(crate) fn new(kernel: Kernel, inputs: usize, outputs: usize) -> Self {
        let length = kernel.segment_pixels();
        let tiles = SEGMENTS_AT_ONCE * length;
        Self {
            inputs: AlignedMemory::zeroed(POSITIONS * inputs / PLANE * tiles * TILE_BYTES),
            outputs: AlignedMemory::zeroed(POSITIONS * (tiles + 1) * TILE_BYTES),
            zeros: AlignedMemory::zeroed(outputs * 4),
            tiles,
            pixel_map: (0..=tiles as u32).collect(),
            segments: PixelLayout::whole(1, 1, tiles).segments(length),
        }
    }
}

/// The tiles of some images.
#[derive(Clone, Copy)]
struct TileGrid {
    layout: PixelLayout,
    /// Of an image.
    rows: usize,
    columns: usize,
}

impl TileGrid {
    fn new(layout: PixelLayout) -> Self {
        let (rows, columns) = (layout.height.div_ceil(2), layout.width.div_ceil(2));
        Self { layout, rows, columns }
    }

    /// The image, row and column of a tile's first output.
    fn first_output(self, tile: usize) -> (usize, usize, usize) {
        let (row, column) = (tile / self.columns, tile % self.columns);
        (row / self.rows, row % self.rows * 2, column * 2)
    }
}

/// Runs one part of a call.
///
/// # Safety
/// As for [`dispatch::multiply`]. The call is a 3×3 convolution with stride 1 from `layout` to
/// itself, with transformed weights. `scratch` is large enough for them, and only this thread
/// uses it.
pub(crate) unsafe fn convolve(
    kernel: Kernel,
    call: &ConvolutionCall<'_>,
    scratch: &WinogradScratch,
    part: WorkPart,
) {
    let grid = TileGrid::new(call.layout);
    let tiles = call.images * grid.rows * grid.columns;
    let blocks = tiles.div_ceil(scratch.tiles);
    let panels = call.panels.len();
    // With few blocks each thread transforms all input and computes some of the outputs.
    let by_blocks = blocks >= 2 * part.parts || panels < part.parts;
    let blocks = if by_blocks { part.range(blocks) } else { 0..blocks };
    let panels = if by_blocks { 0..panels } else { part.range(panels) };
    for block in blocks {
        let start = block * scratch.tiles;
        let tiles = start..(start + scratch.tiles).min(tiles);
        // SAFETY: as the caller promises.
        unsafe {
            transform_inputs(kernel, call, grid, scratch, tiles.clone());
            for panel in panels.clone().map(|panel| call.panels.first + panel) {
                multiply(kernel, call, scratch, panel, tiles.len());
                transform_outputs(kernel, call, grid, scratch, panel, tiles.clone());
            }
        }
    }
}

/// Computes the products at all positions for one panel of outputs.
///
/// # Safety
/// As for [`convolve`].
unsafe fn multiply(
    kernel: Kernel,
    call: &ConvolutionCall<'_>,
    scratch: &WinogradScratch,
    panel: usize,
    tiles: usize,
) {
    let planes = call.weights.planes;
    // The last segment may hold tiles of the block before, whose products nobody reads.
    let segments = &scratch.segments[..tiles.div_ceil(kernel.segment_pixels())];
    for position in 0..POSITIONS {
        let inputs = position * planes * scratch.tiles * TILE_BYTES;
        let outputs = position * (scratch.tiles + 1) * TILE_BYTES;
        let product = ConvolutionCall {
            weights_offset: position * planes * TILE_BYTES * PLANE,
            bias: scratch.zeros.as_ptr().cast(),
            input: CallInput {
                planes: Planes {
                    pixels: scratch.inputs.as_ptr().wrapping_add(inputs),
                    plane_bytes: scratch.tiles * TILE_BYTES,
                },
                step_bytes: TILE_BYTES,
                low_bytes: call.input.low_bytes,
                taps: &[0],
            },
            residual: None,
            relu: false,
            output: CallOutput {
                pixels: scratch.outputs.as_ptr().cast_mut().wrapping_add(outputs),
                // The buffer holds only this panel's outputs.
                plane_bytes: 0,
                pixel_map: &scratch.pixel_map,
                pixel_offset: 0,
                discard_pixel: scratch.tiles,
                format: ValueFormat::F32,
            },
            panels: PanelRange::one(panel),
            segments,
            ..*call
        };
        // SAFETY: both buffers have all tiles and planes, and the outputs one tile to discard.
        unsafe { dispatch::multiply(kernel, &product) };
    }
}

/// Calls the copy of a transform for a kernel's vectors.
///
/// # Safety
/// As for [`convolve`].
unsafe fn transform_inputs(
    kernel: Kernel,
    call: &ConvolutionCall<'_>,
    grid: TileGrid,
    scratch: &WinogradScratch,
    tiles: Range<usize>,
) {
    // SAFETY: as the caller promises.
    unsafe {
        match kernel {
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 => inputs_avx512(call, grid, scratch, tiles),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => inputs_avx2(call, grid, scratch, tiles),
            #[cfg(target_arch = "aarch64")]
            Kernel::Neon => inputs_neon(call, grid, scratch, tiles),
            _ => unreachable!("{kernel} does not use Winograd's filtering"),
        }
    }
}

/// Calls the copy of a transform for a kernel's vectors.
///
/// # Safety
/// As for [`convolve`].
unsafe fn transform_outputs(
    kernel: Kernel,
    call: &ConvolutionCall<'_>,
    grid: TileGrid,
    scratch: &WinogradScratch,
    panel: usize,
    tiles: Range<usize>,
) {
    // SAFETY: as the caller promises.
    unsafe {
        match kernel {
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 => outputs_avx512(call, grid, scratch, panel, tiles),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => outputs_avx2(call, grid, scratch, panel, tiles),
            #[cfg(target_arch = "aarch64")]
            Kernel::Neon => outputs_neon(call, grid, scratch, panel, tiles),
            _ => unreachable!("{kernel} does not use Winograd's filtering"),
        }
    }
}

/// Makes copies of both transforms for vectors of `lanes` f32.
macro_rules! copies {
    ($inputs:ident, $outputs:ident, $features:literal, $lanes:literal) => {
        /// # Safety
        /// As for [`convolve`].
        #[target_feature(enable = $features)]
        unsafe fn $inputs(
            call: &ConvolutionCall<'_>,
            grid: TileGrid,
            scratch: &WinogradScratch,
            tiles: Range<usize>,
        ) {
            // SAFETY: as the caller promises.
            unsafe { inputs_in_lanes::<$lanes>(call, grid, scratch, tiles) }
        }

        /// # Safety
        /// As for [`convolve`].
        #[target_feature(enable = $features)]
        unsafe fn $outputs(
            call: &ConvolutionCall<'_>,
            grid: TileGrid,
            scratch: &WinogradScratch,
            panel: usize,
            tiles: Range<usize>,
        ) {
            // SAFETY: as the caller promises.
            unsafe { outputs_in_lanes::<$lanes>(call, grid, scratch, panel, tiles) }
        }
    };
}

#[cfg(target_arch = "x86_64")]
copies!(inputs_avx512, outputs_avx512, "avx512f", 16);
#[cfg(target_arch = "x86_64")]
copies!(inputs_avx2, outputs_avx2, "avx2,fma", 8);
#[cfg(target_arch = "aarch64")]
copies!(inputs_neon, outputs_neon, "neon", 4);

/// `Bᵀ d B` of each tile and channel.
///
/// # Safety
/// As for [`convolve`].
#[inline(always)]
unsafe fn inputs_in_lanes<const N: usize>(
    call: &ConvolutionCall<'_>,
    grid: TileGrid,
    scratch: &WinogradScratch,
    tiles: Range<usize>,
) {
    let planes = call.weights.planes;
    let input = call.input.planes;
    let pitch = grid.layout.row_pitch();
    let position_bytes = planes * scratch.tiles * TILE_BYTES;
    for (slot, tile) in tiles.enumerate() {
        let (image, y, x) = grid.first_output(tile);
        let pixel = grid.layout.index(image, y, x);
        for plane in 0..planes {
            for lane in (0..PLANE).step_by(N) {
                // SAFETY: a tile reads one row and column before its image and up to two after
                // it, which are borders and overrun. The rest is in `scratch`.
                unsafe {
                    let source = input.pixels.add(plane * input.plane_bytes + lane * 4);
                    let source = source.add(pixel * TILE_BYTES).sub((pitch + 1) * TILE_BYTES);
                    let at = |y: usize, x: usize| {
                        source.add((y * pitch + x) * TILE_BYTES).cast::<Lanes<N>>().read()
                    };
                    let target = scratch.inputs.as_ptr().cast_mut();
                    let target = target.add((plane * scratch.tiles + slot) * TILE_BYTES + lane * 4);
                    let mut columns = [[[0.0; N]; 4]; 4];
                    for (x, column) in columns.iter_mut().enumerate() {
                        *column = transform_input([at(0, x), at(1, x), at(2, x), at(3, x)]);
                    }
                    for y in 0..4 {
                        let [a, b, c, d] = &columns;
                        let row = transform_input([a[y], b[y], c[y], d[y]]);
                        for (x, values) in row.into_iter().enumerate() {
                            let to = target.add((4 * y + x) * position_bytes);
                            to.cast::<Lanes<N>>().write(values);
                        }
                    }
                }
            }
        }
    }
}

/// `Aᵀ m A` of each tile and channel of a panel, and the epilogue.
///
/// # Safety
/// As for [`convolve`].
#[inline(always)]
unsafe fn outputs_in_lanes<const N: usize>(
    call: &ConvolutionCall<'_>,
    grid: TileGrid,
    scratch: &WinogradScratch,
    panel: usize,
    tiles: Range<usize>,
) {
    let layout = grid.layout;
    let position_bytes = (scratch.tiles + 1) * TILE_BYTES;
    for (slot, tile) in tiles.enumerate() {
        let (image, y, x) = grid.first_output(tile);
        for lane in (0..PLANE).step_by(N) {
            // SAFETY: the tile's products, the panel's outputs, and pixels of the image.
            unsafe {
                let source = scratch.outputs.as_ptr().add(slot * TILE_BYTES + lane * 4);
                let at = |position: usize| {
                    source.add(position * position_bytes).cast::<Lanes<N>>().read()
                };
                let epilogue = Epilogue::<F32Pixel, Lanes<N>, 1>::new(call, panel, lane);
                let mut columns = [[[0.0; N]; 2]; 4];
                for (x, column) in columns.iter_mut().enumerate() {
                    *column = transform_output([at(x), at(4 + x), at(8 + x), at(12 + x)]);
                }
                for below in 0..2 {
                    let [a, b, c, d] = &columns;
                    let pair = transform_output([a[below], b[below], c[below], d[below]]);
                    for (right, sums) in pair.into_iter().enumerate() {
                        if y + below >= layout.height || x + right >= layout.width {
                            continue;
                        }
                        let pixel = layout.index(image, y + below, x + right);
                        epilogue.finish([sums], pixel, call.output_pixel(pixel));
                    }
                }
            }
        }
    }
}
