//! What a pass does with single values of activations, whatever their format: max-pooling,
//! averages, and copying features out in f32.

use crate::bf16;
use crate::kernel::{Kernel, ValueFormat};
use crate::layout::{Activation, PLANE};
use crate::team::WorkPart;

/// Computes some rows of a 3×3 max-pooling with stride 2 of the stem's output.
///
/// `input` holds one image of values that are zero or more, so that a border of zeros never
/// wins: in bf16 or bytes if the kernel keeps these, and else in f32.
///
/// # Safety
/// The machine has the kernel. `output` has room for image `slot` and is in the kernel's format.
/// Other threads write only other parts of it.
pub(crate) unsafe fn max_pool(
    kernel: Kernel,
    input: &Activation,
    output: &Activation,
    slot: usize,
    part: WorkPart,
) {
    // SAFETY: as the caller promises; kernels for bf16 need AVX-512 BW.
    unsafe {
        match kernel {
            #[cfg(target_arch = "x86_64")]
            Kernel::AmxBf16 | Kernel::Avx512Bf16 => max_pool_bf16(input, output, slot, part),
            #[cfg(target_arch = "x86_64")]
            Kernel::AmxBf16x3 => max_pool_avx512::<true>(input, output, slot, part),
            #[cfg(target_arch = "x86_64")]
            Kernel::AmxInt8 | Kernel::Avx512Vnni | Kernel::AvxVnni => {
                max_pool_bytes_avx2(input, output, slot, part)
            }
            Kernel::NeonI8mm | Kernel::NeonDot | Kernel::PortableInt8 => {
                max_pool_bytes(input, output, slot, part)
            }
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 => max_pool_avx512::<false>(input, output, slot, part),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => max_pool_avx2(input, output, slot, part),
            // NEON needs no copy with a target feature: every 64-bit Arm CPU has it.
            _ => max_pool_f32(input, output, slot, part),
        }
    }
}

/// Compares bf16 by their bits, which have the order of the numbers for zero or more.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn max_pool_bf16(input: &Activation, output: &Activation, slot: usize, part: WorkPart) {
    let larger = |a: u16, b: u16| a.max(b);
    // SAFETY: as for `max_pool`.
    unsafe {
        pool_windows(input, output, slot, part, larger, |pixel, to| {
            to.cast::<[u16; PLANE]>().write(pixel)
        })
    };
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn max_pool_avx512<const PAIRS: bool>(
    input: &Activation,
    output: &Activation,
    slot: usize,
    part: WorkPart,
) {
    // SAFETY: as for `max_pool`.
    unsafe {
        pool_windows(input, output, slot, part, larger, |pixel: [f32; PLANE], to| {
            if PAIRS {
                to.cast::<[[u16; PLANE]; 2]>()
                    .write([pixel.map(bf16::from_f32), pixel.map(bf16::remainder_from_f32)]);
            } else {
                to.cast::<[f32; PLANE]>().write(pixel);
            }
        });
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn max_pool_avx2(input: &Activation, output: &Activation, slot: usize, part: WorkPart) {
    // SAFETY: as for `max_pool`.
    unsafe { max_pool_f32(input, output, slot, part) };
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn max_pool_bytes_avx2(
    input: &Activation,
    output: &Activation,
    slot: usize,
    part: WorkPart,
) {
    // SAFETY: as for `max_pool`.
    unsafe { max_pool_bytes(input, output, slot, part) };
}

#[inline(always)]
unsafe fn max_pool_bytes(input: &Activation, output: &Activation, slot: usize, part: WorkPart) {
    let larger = |a: u8, b: u8| a.max(b);
    // SAFETY: as for `max_pool`.
    unsafe {
        pool_windows(input, output, slot, part, larger, |pixel, to| {
            to.cast::<[u8; PLANE]>().write(pixel)
        })
    };
}

#[inline(always)]
unsafe fn max_pool_f32(input: &Activation, output: &Activation, slot: usize, part: WorkPart) {
    // SAFETY: as for `max_pool`.
    unsafe {
        pool_windows(input, output, slot, part, larger, |pixel, to| {
            to.cast::<[f32; PLANE]>().write(pixel)
        })
    };
}

/// The larger value, but unlike `f32::max` it keeps NaN.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a || b.is_nan() { b } else { a }
}

/// Finds the largest value of each window. Inlined into functions with target features.
///
/// # Safety
/// As for [`max_pool`]. Pixels of `input` are `[T; 32]`.
#[inline(always)]
unsafe fn pool_windows<T: Copy>(
    input: &Activation,
    output: &Activation,
    slot: usize,
    part: WorkPart,
    larger: impl Fn(T, T) -> T,
    write: impl Fn([T; PLANE], *mut u8),
) {
    let window =
        |index: usize, side: usize| (2 * index).saturating_sub(1)..(2 * index + 2).min(side);
    let (from, to) = (input.layout, output.layout);
    debug_assert_eq!(input.pixel_bytes(), size_of::<[T; PLANE]>());
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
                    write(largest, target.add(to.index(slot, y, x) * output.pixel_bytes()));
                }
            }
        }
    }
}

/// The 32 channels of one pixel in f32.
///
/// # Safety
/// `pixel` is a pixel of an activation in this format.
#[inline]
unsafe fn decode(format: ValueFormat, pixel: *const u8) -> [f32; PLANE] {
    // SAFETY: a pixel has 32 values of this format, aligned to 64 bytes.
    unsafe {
        match format {
            ValueFormat::Bf16 => (*pixel.cast::<[u16; PLANE]>()).map(bf16::to_f32),
            ValueFormat::Bf16Pair => {
                let [high, low] = *pixel.cast::<[[u16; PLANE]; 2]>();
                std::array::from_fn(|c| bf16::to_f32(high[c]) + bf16::to_f32(low[c]))
            }
            ValueFormat::F32 => *pixel.cast(),
            ValueFormat::U8 => (*pixel.cast::<[u8; PLANE]>()).map(f32::from),
            ValueFormat::I16 => (*pixel.cast::<[i16; PLANE]>()).map(f32::from),
        }
    }
}

/// Calls `visit` with the plane, the number (row by row) and the values of each pixel, which are
/// multiplied by their channels' `scales`, if there are any.
///
/// # Panics
/// If the activation has no such image, or not as many channels as there are scales.
pub(crate) fn for_each_pixel(
    activation: &Activation,
    image: usize,
    scales: Option<&[f32]>,
    mut visit: impl FnMut(usize, usize, [f32; PLANE]),
) {
    let layout = activation.layout;
    assert!(image < layout.images, "image {image} of {}", layout.images);
    for plane in 0..activation.channels / PLANE {
        let pixels = activation.pixels().wrapping_add(plane * activation.plane_bytes());
        let scales = scales.map(|scales| &scales[plane * PLANE..][..PLANE]);
        for y in 0..layout.height {
            for x in 0..layout.width {
                let offset = layout.index(image, y, x) * activation.pixel_bytes();
                // SAFETY: it is a pixel of an image of the activation, which has this format.
                let mut values = unsafe { decode(activation.format, pixels.wrapping_add(offset)) };
                if let Some(scales) = scales {
                    values.iter_mut().zip(scales).for_each(|(value, scale)| *value *= scale);
                }
                visit(plane, y * layout.width + x, values);
            }
        }
    }
}

/// Copies one image out, as `[C, H, W]` in f32.
///
/// # Panics
/// As [`for_each_pixel`], and if the output is too short.
pub(crate) fn copy_out(
    activation: &Activation,
    image: usize,
    scales: Option<&[f32]>,
    output: &mut [f32],
) {
    let pixels = activation.layout.pixels();
    for_each_pixel(activation, image, scales, |plane, pixel, values| {
        let channels = output[plane * PLANE * pixels..].chunks_exact_mut(pixels);
        channels.zip(values).for_each(|(channel, value)| channel[pixel] = value);
    });
}

/// Each channel's mean over the pixels of one image, `[C]`.
///
/// # Panics
/// As [`for_each_pixel`], and if the output is too short.
pub(crate) fn average(activation: &Activation, image: usize, output: &mut [f32]) {
    let pixels = activation.layout.pixels();
    output.fill(0.0);
    for_each_pixel(activation, image, None, |plane, _, values| {
        output[plane * PLANE..].iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    });
    output.iter_mut().for_each(|sum| *sum /= pixels as f32);
}
