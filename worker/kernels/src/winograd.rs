//! 3×3 convolutions with stride 1 in f32 by minimal filtering, F(2×2, 3×3): Winograd 1980;
//! Lavin and Gray 2015, <https://arxiv.org/abs/1509.09308>, section 4.1. Four outputs take 16
//! multiplications instead of 36, and some additions.
//!
//! A tile is 2 × 2 outputs and reads 4 × 4 inputs. Both are brought to 16 positions, at each
//! of which a product of matrices, tiles × inputs by inputs × outputs, is what a kernel does
//! for a 1×1 convolution. How it does so is not known here.

use std::ops::Range;

use crate::aligned::Aligned;
use crate::convolution::{self, Job, segment_length};
use crate::detect::Kernel;
use crate::layout::{Geometry, PLANE, Segment};
use crate::team::Part;

/// Of 4 × 4, row by row.
pub(crate) const POSITIONS: usize = 16;
/// Bytes of a tile's 32 channels at one position.
const TILE_BYTES: usize = 4 * PLANE;
/// Tiles at once, in segments of the kernel's: their inputs and outputs stay in the
/// second-level cache, and weights are read often enough.
const SEGMENTS_AT_ONCE: usize = 8;

/// A kernel of 3 × 3 at its 16 positions: `G g Gᵀ` (section 4.1). In f64, since it is done once.
pub(crate) fn transform_weights(g: [f64; 9]) -> [f32; POSITIONS] {
    let along = |[a, b, c]: [f64; 3]| [a, (a + b + c) / 2.0, (a - b + c) / 2.0, c];
    let columns = [0, 1, 2].map(|x| along([g[x], g[3 + x], g[6 + x]]));
    let mut transformed = [0.0; POSITIONS];
    for (y, row) in transformed.chunks_exact_mut(4).enumerate() {
        let values = along(columns.map(|column| column[y]));
        row.iter_mut().zip(values).for_each(|(to, value)| *to = value as f32);
    }
    transformed
}

/// One thread's buffers and tables, for any layer of a network.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// `[position][plane][tile][32]`.
    inputs: Aligned,
    /// `[position][tile, and one to throw away][32]`, of one panel.
    outputs: Aligned,
    /// In place of a bias, which is added once at the end.
    zeros: Aligned,
    /// Tiles at once.
    tiles: usize,
    table: Vec<u32>,
    segments: Vec<Segment>,
}

impl Scratch {
    /// For convolutions of at most so many input and output channels.
    pub(crate) fn new(kernel: Kernel, inputs: usize, outputs: usize) -> Self {
        let length = segment_length(kernel);
        let tiles = SEGMENTS_AT_ONCE * length;
        Self {
            inputs: Aligned::zeroed(POSITIONS * inputs / PLANE * tiles * TILE_BYTES),
            outputs: Aligned::zeroed(POSITIONS * (tiles + 1) * TILE_BYTES),
            zeros: Aligned::zeroed(outputs * 4),
            tiles,
            table: (0..=tiles as u32).collect(),
            segments: Geometry::flat(1, 1, tiles).segments(length),
        }
    }
}

/// The tiles of some images.
#[derive(Clone, Copy)]
struct Tiling {
    geometry: Geometry,
    rows: usize,
    columns: usize,
}

impl Tiling {
    fn new(geometry: Geometry) -> Self {
        let (rows, columns) = (geometry.height.div_ceil(2), geometry.width.div_ceil(2));
        Self { geometry, rows, columns }
    }

    /// Image, row and column of a tile's first output.
    fn place(self, tile: usize) -> (usize, usize, usize) {
        let (row, column) = (tile / self.columns, tile % self.columns);
        (row / self.rows, row % self.rows * 2, column * 2)
    }
}

/// One part of the job.
///
/// # Safety
/// As for [`convolution::run`]; the job's convolution is 3×3 with stride 1 on `geometry`, its
/// weights transformed. Only this thread uses `scratch`.
pub(crate) unsafe fn convolve(kernel: Kernel, job: &Job<'_>, scratch: &Scratch, part: Part) {
    let tiling = Tiling::new(job.geometry);
    let tiles = job.images * tiling.rows * tiling.columns;
    let blocks = tiles.div_ceil(scratch.tiles);
    let (first, end) = job.panels;
    // Few blocks: each thread then transforms all input for its own outputs.
    let by_blocks = blocks >= 2 * part.of || end - first < part.of;
    let blocks = if by_blocks { part.range(blocks) } else { 0..blocks };
    let panels = if by_blocks { 0..end - first } else { part.range(end - first) };
    for block in blocks {
        let start = block * scratch.tiles;
        let range = start..(start + scratch.tiles).min(tiles);
        // SAFETY: as the caller promises.
        unsafe {
            transform_inputs(kernel, job, tiling, scratch, range.clone());
            for panel in panels.clone() {
                multiply(kernel, job, scratch, first + panel, range.len());
                transform_outputs(kernel, job, tiling, scratch, first + panel, range.clone());
            }
        }
    }
}

/// The products at all positions, for one panel of outputs.
///
/// # Safety
/// As for [`convolve`].
unsafe fn multiply(kernel: Kernel, job: &Job<'_>, scratch: &Scratch, panel: usize, tiles: usize) {
    let planes = job.weights.planes;
    // The last of them may have tiles of the block before, which nobody reads.
    let segments = &scratch.segments[..tiles.div_ceil(segment_length(kernel))];
    let mut product = Job {
        source_plane_bytes: scratch.tiles * TILE_BYTES,
        step_bytes: TILE_BYTES,
        taps: &[0],
        bias: scratch.zeros.as_ptr(),
        table: &scratch.table,
        shift: 0,
        sink: scratch.tiles,
        residual: std::ptr::null(),
        relu: false,
        panels: (panel, panel + 1),
        // The panel's outputs are the only ones there.
        target_plane_bytes: 0,
        segments,
        ..*job
    };
    for position in 0..POSITIONS {
        let inputs = position * planes * scratch.tiles * TILE_BYTES;
        let outputs = position * (scratch.tiles + 1) * TILE_BYTES;
        product.source = scratch.inputs.as_ptr().wrapping_add(inputs);
        product.target = scratch.outputs.as_ptr().cast_mut().wrapping_add(outputs);
        product.weights_offset = position * planes * TILE_BYTES * PLANE;
        // SAFETY: there are so many tiles and planes in both buffers, one more to throw away.
        unsafe { convolution::multiply(kernel, &product) };
    }
}

/// Calls the copy of a function for a kernel's vectors.
macro_rules! for_vectors {
    ($kernel:expr, $function:ident($($argument:expr),*)) => {
        match $kernel {
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => avx2::$function($($argument),*),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 => avx512::$function($($argument),*),
            #[cfg(target_arch = "aarch64")]
            Kernel::Neon => neon::$function($($argument),*),
            _ => unreachable!("{} does not transform", $kernel),
        }
    };
}

/// # Safety
/// As for [`convolve`].
unsafe fn transform_inputs(
    kernel: Kernel,
    job: &Job<'_>,
    tiling: Tiling,
    scratch: &Scratch,
    tiles: Range<usize>,
) {
    // SAFETY: as the caller promises.
    unsafe { for_vectors!(kernel, inputs(job, tiling, scratch, tiles)) }
}

/// # Safety
/// As for [`convolve`].
unsafe fn transform_outputs(
    kernel: Kernel,
    job: &Job<'_>,
    tiling: Tiling,
    scratch: &Scratch,
    panel: usize,
    tiles: Range<usize>,
) {
    // SAFETY: as the caller promises.
    unsafe { for_vectors!(kernel, outputs(job, tiling, scratch, panel, tiles)) }
}

/// Copies of the transforms for vectors of `lanes` f32.
macro_rules! copies {
    ($name:ident, $features:literal, $lanes:literal) => {
        mod $name {
            use super::*;

            #[target_feature(enable = $features)]
            pub(super) unsafe fn inputs(
                job: &Job<'_>,
                tiling: Tiling,
                scratch: &Scratch,
                tiles: Range<usize>,
            ) {
                // SAFETY: as the caller promises.
                unsafe { inputs_in_lanes::<$lanes>(job, tiling, scratch, tiles) }
            }

            #[target_feature(enable = $features)]
            pub(super) unsafe fn outputs(
                job: &Job<'_>,
                tiling: Tiling,
                scratch: &Scratch,
                panel: usize,
                tiles: Range<usize>,
            ) {
                // SAFETY: as the caller promises.
                unsafe { outputs_in_lanes::<$lanes>(job, tiling, scratch, panel, tiles) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
copies!(avx512, "avx512f", 16);
#[cfg(target_arch = "x86_64")]
copies!(avx2, "avx2,fma", 8);
#[cfg(target_arch = "aarch64")]
copies!(neon, "neon", 4);

type Lanes<const N: usize> = [f32; N];

#[inline(always)]
fn add<const N: usize>(a: Lanes<N>, b: Lanes<N>) -> Lanes<N> {
    std::array::from_fn(|lane| a[lane] + b[lane])
}

#[inline(always)]
fn subtract<const N: usize>(a: Lanes<N>, b: Lanes<N>) -> Lanes<N> {
    std::array::from_fn(|lane| a[lane] - b[lane])
}

/// `Bᵀ d` of one column or row.
#[inline(always)]
fn input_along<const N: usize>([a, b, c, d]: [Lanes<N>; 4]) -> [Lanes<N>; 4] {
    [subtract(a, c), add(b, c), subtract(c, b), subtract(b, d)]
}

/// `Aᵀ m` of one column or row.
#[inline(always)]
fn output_along<const N: usize>([a, b, c, d]: [Lanes<N>; 4]) -> [Lanes<N>; 2] {
    [add(add(a, b), c), subtract(subtract(b, c), d)]
}

/// `Bᵀ d B` of each tile and channel.
///
/// # Safety
/// As for [`convolve`].
#[inline(always)]
unsafe fn inputs_in_lanes<const N: usize>(
    job: &Job<'_>,
    tiling: Tiling,
    scratch: &Scratch,
    tiles: Range<usize>,
) {
    let planes = job.weights.planes;
    let pitch = tiling.geometry.row_pitch();
    let position_bytes = planes * scratch.tiles * TILE_BYTES;
    for (slot, tile) in tiles.enumerate() {
        let (image, y, x) = tiling.place(tile);
        let pixel = tiling.geometry.index(image, y, x);
        for plane in 0..planes {
            for lane in (0..PLANE).step_by(N) {
                // SAFETY: borders and overrun hold what lies outside an image: a row and a
                // column before and two after. The rest is in `scratch`.
                unsafe {
                    let source = job.source.add(plane * job.source_plane_bytes + lane * 4);
                    let source = source.add(pixel * TILE_BYTES).sub((pitch + 1) * TILE_BYTES);
                    let at = |y: usize, x: usize| {
                        source.add((y * pitch + x) * TILE_BYTES).cast::<Lanes<N>>().read()
                    };
                    let target = scratch.inputs.as_ptr().cast_mut();
                    let target = target.add((plane * scratch.tiles + slot) * TILE_BYTES + lane * 4);
                    let mut columns = [[[0.0; N]; 4]; 4];
                    for (x, column) in columns.iter_mut().enumerate() {
                        *column = input_along([at(0, x), at(1, x), at(2, x), at(3, x)]);
                    }
                    for y in 0..4 {
                        let [a, b, c, d] = &columns;
                        let row = input_along([a[y], b[y], c[y], d[y]]);
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

/// `Aᵀ m A` of each tile and channel of a panel; bias, residual and ReLU, and off to the output.
///
/// # Safety
/// As for [`convolve`].
#[inline(always)]
unsafe fn outputs_in_lanes<const N: usize>(
    job: &Job<'_>,
    tiling: Tiling,
    scratch: &Scratch,
    panel: usize,
    tiles: Range<usize>,
) {
    let geometry = tiling.geometry;
    let position_bytes = (scratch.tiles + 1) * TILE_BYTES;
    let floor = job.floor();
    for (slot, tile) in tiles.enumerate() {
        let (image, y, x) = tiling.place(tile);
        for lane in (0..PLANE).step_by(N) {
            // SAFETY: the tile's products, the panel's bias, and pixels of the image.
            unsafe {
                let source = scratch.outputs.as_ptr().add(slot * TILE_BYTES + lane * 4);
                let at = |position: usize| {
                    source.add(position * position_bytes).cast::<Lanes<N>>().read()
                };
                let bias = job.bias.add(panel * TILE_BYTES + lane * 4).cast::<Lanes<N>>().read();
                let mut columns = [[[0.0; N]; 2]; 4];
                for (x, column) in columns.iter_mut().enumerate() {
                    *column = output_along([at(x), at(4 + x), at(8 + x), at(12 + x)]);
                }
                for below in 0..2 {
                    let [a, b, c, d] = &columns;
                    let pair = output_along([a[below], b[below], c[below], d[below]]);
                    for (right, values) in pair.into_iter().enumerate() {
                        if y + below >= geometry.height || x + right >= geometry.width {
                            continue;
                        }
                        let pixel = geometry.index(image, y + below, x + right);
                        let mut values = add(values, bias);
                        if !job.residual.is_null() {
                            let residual = job.residual.add(panel * job.residual_plane_bytes);
                            let residual = residual.add(pixel * TILE_BYTES + lane * 4);
                            values = add(values, residual.cast::<Lanes<N>>().read());
                        }
                        // What is not a number stays so.
                        let values = values.map(|v| if v < floor { floor } else { v });
                        let target = job.target.add(panel * job.target_plane_bytes + lane * 4);
                        let target = target.add(job.place(pixel) * TILE_BYTES);
                        target.cast::<Lanes<N>>().write(values);
                    }
                }
            }
        }
    }
}
