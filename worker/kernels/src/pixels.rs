//! Single values of activations, whatever the kernel keeps them in: max-pooling, reading
//! them out in f32, averages.

use crate::detect::Kernel;
use crate::layout::{Activation, PLANE};
use crate::team::Part;
use crate::weights::{from_bf16, rest_in_bf16, to_bf16};

/// The largest of each 3×3 window, every second pixel, of the stem's output, which is zero or
/// more: a border of zeros never wins. `input` holds one image, in bf16 where activations
/// are one bf16 and else in f32. Computes some rows of each plane.
///
/// # Safety
/// The machine has the kernel. `output` has room for image `slot`, and is of that kernel;
/// other threads write only other parts of it.
pub(crate) unsafe fn max_pool(
    kernel: Kernel,
    input: &Activation,
    output: &Activation,
    slot: usize,
    part: Part,
) {
    // SAFETY: as the caller promises; those with bf16 have AVX-512 BW.
    unsafe {
        match kernel {
            #[cfg(target_arch = "x86_64")]
            Kernel::AmxBf16 | Kernel::Avx512Bf16 => max_pool_bf16(input, output, slot, part),
            #[cfg(target_arch = "x86_64")]
            Kernel::AmxBf16x3 => max_pool_avx512::<true>(input, output, slot, part),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 => max_pool_avx512::<false>(input, output, slot, part),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => max_pool_avx2(input, output, slot, part),
            // What every CPU of an architecture has needs no copy of its own.
            _ => max_pool_f32(input, output, slot, part),
        }
    }
}

/// Of bf16, whose bits are in the numbers' order as long as they are zero or more.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn max_pool_bf16(input: &Activation, output: &Activation, slot: usize, part: Part) {
    let larger = |a: u16, b: u16| a.max(b);
    // SAFETY: as for `max_pool`.
    unsafe {
        windows(input, output, slot, part, larger, |pixel, to| {
            to.cast::<[u16; PLANE]>().write(pixel)
        })
    };
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn max_pool_avx512<const HALVES: bool>(
    input: &Activation,
    output: &Activation,
    slot: usize,
    part: Part,
) {
    // SAFETY: as for `max_pool`.
    unsafe {
        windows(input, output, slot, part, larger, |pixel: [f32; PLANE], to| {
            if HALVES {
                to.cast::<[[u16; PLANE]; 2]>().write([pixel.map(to_bf16), pixel.map(rest_in_bf16)]);
            } else {
                to.cast::<[f32; PLANE]>().write(pixel);
            }
        });
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn max_pool_avx2(input: &Activation, output: &Activation, slot: usize, part: Part) {
    // SAFETY: as for `max_pool`.
    unsafe { max_pool_f32(input, output, slot, part) };
}

#[inline(always)]
unsafe fn max_pool_f32(input: &Activation, output: &Activation, slot: usize, part: Part) {
    // SAFETY: as for `max_pool`.
    unsafe {
        windows(input, output, slot, part, larger, |pixel, to| {
            to.cast::<[f32; PLANE]>().write(pixel)
        })
    };
}

/// Unlike `f32::max` this keeps what is not a number.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a || b.is_nan() { b } else { a }
}

/// Inlined into functions with their own target features.
///
/// # Safety
/// As for [`max_pool`]; pixels of `input` are `[T; 32]`.
#[inline(always)]
unsafe fn windows<T: Copy>(
    input: &Activation,
    output: &Activation,
    slot: usize,
    part: Part,
    larger: impl Fn(T, T) -> T,
    write: impl Fn([T; PLANE], *mut u8),
) {
    let window =
        |index: usize, side: usize| (2 * index).saturating_sub(1)..(2 * index + 2).min(side);
    let (from, to) = (input.geometry, output.geometry);
    debug_assert_eq!(input.pixel_bytes, size_of::<[T; PLANE]>());
    for plane in 0..input.channels / PLANE {
        // SAFETY: both have this plane, and the pixels below.
        unsafe {
            let source = input.pixels().add(plane * input.plane_bytes()).cast::<[T; PLANE]>();
            let target = output.pixels_shared().add(plane * output.plane_bytes());
            for y in part.range(to.height) {
                for x in 0..to.width {
                    let (rows, columns) = (window(y, from.height), window(x, from.width));
                    let mut largest = *source.add(from.index(0, rows.start, columns.start));
                    for row in rows {
                        let row = source.add(from.index(0, row, 0));
                        for column in columns.clone() {
                            let pixel = &*row.add(column);
                            for (largest, value) in largest.iter_mut().zip(pixel) {
                                *largest = larger(*largest, *value);
                            }
                        }
                    }
                    write(largest, target.add(to.index(slot, y, x) * output.pixel_bytes));
                }
            }
        }
    }
}

/// 32 channels of one pixel in f32.
///
/// # Safety
/// `pixel` is a pixel of an activation of this kernel.
#[inline]
unsafe fn decode(kernel: Kernel, pixel: *const u8) -> [f32; PLANE] {
    // SAFETY: a pixel has so many bytes, aligned to 64.
    unsafe {
        match kernel {
            Kernel::AmxBf16 | Kernel::Avx512Bf16 => (*pixel.cast::<[u16; PLANE]>()).map(from_bf16),
            Kernel::AmxBf16x3 => {
                let [high, low] = *pixel.cast::<[[u16; PLANE]; 2]>();
                std::array::from_fn(|c| from_bf16(high[c]) + from_bf16(low[c]))
            }
            Kernel::Avx512 | Kernel::Avx2 | Kernel::Neon => *pixel.cast(),
        }
    }
}

/// Calls `visit` with plane, pixel number (row by row) and values of an image's pixels.
fn for_each_pixel(
    kernel: Kernel,
    activation: &Activation,
    image: usize,
    mut visit: impl FnMut(usize, usize, [f32; PLANE]),
) {
    let geometry = activation.geometry;
    for plane in 0..activation.channels / PLANE {
        let pixels = activation.pixels().wrapping_add(plane * activation.plane_bytes());
        for y in 0..geometry.height {
            for x in 0..geometry.width {
                let offset = geometry.index(image, y, x) * activation.pixel_bytes;
                // SAFETY: the image's pixel, and the activation is the kernel's.
                let values = unsafe { decode(kernel, pixels.wrapping_add(offset)) };
                visit(plane, y * geometry.width + x, values);
            }
        }
    }
}

/// One image to `[C, H, W]` in f32.
pub(crate) fn read_out(kernel: Kernel, activation: &Activation, image: usize, output: &mut [f32]) {
    let pixels = activation.geometry.pixels();
    for_each_pixel(kernel, activation, image, |plane, pixel, values| {
        let channels = output[plane * PLANE * pixels..].chunks_exact_mut(pixels);
        channels.zip(values).for_each(|(channel, value)| channel[pixel] = value);
    });
}

/// Each channel's mean over one image, `[C]`.
pub(crate) fn average(kernel: Kernel, activation: &Activation, image: usize, output: &mut [f32]) {
    let pixels = activation.geometry.pixels();
    output.fill(0.0);
    for_each_pixel(kernel, activation, image, |plane, _, values| {
        output[plane * PLANE..].iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    });
    output.iter_mut().for_each(|sum| *sum /= pixels as f32);
}
