//! One compression by libjpeg: a picture of Y, Cb and Cr becomes a baseline file.
//!
//! Owns the calls into C and the strip of rows that they read. Errors unwind as in
//! [`session`](super::session). Does not convert colours: the caller fills strips.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};

use mozjpeg_sys as sys;

use crate::MAX_SIDE;
use crate::error::{EncodeJpegError, JpegError};
use crate::session::{error_of, stop_at_error};

/// Rows of luma that libjpeg encodes at once: two of blocks.
const STRIP_ROWS: usize = 16;
/// Columns that share a block of each chroma.
const UNIT_COLUMNS: usize = 16;

/// Rows of a picture as Y, Cb and Cr of 8 bits, chroma at half resolution both ways.
struct Strip {
    width: usize,
    /// Bytes from a row of luma to the next: the width, padded to whole units.
    stride: usize,
    luma: Vec<u8>,
    chroma: [Vec<u8>; 2],
}

/// Two rows of a strip, to be filled.
#[derive(Debug)]
pub struct RowPair<'a> {
    /// Y of the upper and the lower row: a byte for each pixel.
    pub luma: [&'a mut [u8]; 2],
    /// Cb and Cr of both rows: a byte for each two columns, the last of an odd width alone.
    pub chroma: [&'a mut [u8]; 2],
}

impl Strip {
    fn new(width: usize) -> Self {
        let stride = width.next_multiple_of(UNIT_COLUMNS);
        let chroma = || vec![0; stride / 2 * (STRIP_ROWS / 2)];
        Self { width, stride, luma: vec![0; stride * STRIP_ROWS], chroma: [chroma(), chroma()] }
    }

    /// Rows `2 * pair` and `2 * pair + 1`, without padding.
    fn pair(&mut self, pair: usize) -> RowPair<'_> {
        let (width, stride) = (self.width, self.stride);
        let (upper, lower) = self.luma[2 * pair * stride..][..2 * stride].split_at_mut(stride);
        let chroma = self
            .chroma
            .each_mut()
            .map(|plane| &mut plane[pair * (stride / 2)..][..width.div_ceil(2)]);
        RowPair { luma: [&mut upper[..width], &mut lower[..width]], chroma }
    }

    /// Repeats the last column and, after `pairs` pairs, the last rows: blocks at the edges are
    /// whole.
    fn pad(&mut self, pairs: usize) {
        let (width, stride) = (self.width, self.stride);
        let [blue, red] = &mut self.chroma;
        let planes = [
            (&mut self.luma, stride, width, 2 * pairs),
            (blue, stride / 2, width.div_ceil(2), pairs),
            (red, stride / 2, width.div_ceil(2), pairs),
        ];
        for (plane, stride, width, rows) in planes {
            for row in plane.chunks_exact_mut(stride).take(rows) {
                let last = row[width - 1];
                row[width..].fill(last);
            }
            let (filled, rest) = plane.split_at_mut(rows * stride);
            let last = &filled[(rows - 1) * stride..];
            rest.chunks_exact_mut(stride).for_each(|row| row.copy_from_slice(last));
        }
    }
}

/// Encodes a picture of `(width, height)` pixels as a baseline JPEG with chroma at half resolution.
/// `quality` is 1 to 100, and scales the tables of T.81's annex K.
///
/// Calls `fill` for each two rows from the top, with their number: rows 0 and 1 are pair 0. It has to
/// fill them. If the height is odd, the lower row of the last pair lies below the picture, and
/// should be the upper one again. Beside the file this holds 16 rows.
///
/// The same rows make the same file on every machine: libjpeg's exact transform is the same to the
/// last bit with SIMD and without.
///
/// # Errors
/// If a side is zero or longer than [`MAX_SIDE`].
pub fn encode(
    (width, height): (u32, u32),
    quality: u8,
    mut fill: impl FnMut(usize, RowPair<'_>),
) -> Result<Vec<u8>, EncodeJpegError> {
    if width == 0 || height == 0 || width.max(height) > MAX_SIDE {
        return Err(EncodeJpegError::Sides { width, height });
    }
    let mut compression = Compression::start((width, height), quality)?;
    let mut strip = Strip::new(width as usize);
    let pairs = (height as usize).div_ceil(2);
    for first in (0..pairs).step_by(STRIP_ROWS / 2) {
        let count = (pairs - first).min(STRIP_ROWS / 2);
        for pair in 0..count {
            fill(first + pair, strip.pair(pair));
        }
        strip.pad(count);
        compression.write(&strip)?;
    }
    Ok(compression.finish()?)
}

/// Bytes that libjpeg writes before they are added to the file.
const BUFFER_BYTES: usize = 1 << 14;

/// libjpeg's state, and the file. It has a fixed address: its parts point to each other.
struct State {
    compress: sys::jpeg_compress_struct,
    errors: sys::jpeg_error_mgr,
    destination: sys::jpeg_destination_mgr,
    buffer: [u8; BUFFER_BYTES],
    file: Vec<u8>,
}

/// A compression that has started.
struct Compression {
    state: NonNull<State>,
}

impl Compression {
    fn start((width, height): (u32, u32), quality: u8) -> Result<Self, JpegError> {
        // SAFETY: all bits zero are a valid value of each part of libjpeg's: integers, null
        // pointers, `None`, and enums that have a variant of zero.
        let state = Box::new(unsafe {
            State {
                compress: MaybeUninit::zeroed().assume_init(),
                errors: MaybeUninit::zeroed().assume_init(),
                destination: MaybeUninit::zeroed().assume_init(),
                buffer: [0; BUFFER_BYTES],
                file: Vec::new(),
            }
        });
        let mut compression = Self { state: NonNull::from(Box::leak(state)) };
        compression.run(|state| {
            // SAFETY: `state` is valid, and its parts stay where they are until `drop`.
            unsafe {
                let errors = sys::jpeg_std_error(&mut (*state).errors);
                errors.error_exit = Some(stop_at_error);
                let compress = &raw mut (*state).compress;
                (*compress).common.err = errors;
                (*compress).common.client_data = state.cast();
                // This keeps the two fields above, and clears all others.
                sys::jpeg_create_compress(compress);
                let destination = &mut (*state).destination;
                destination.init_destination = Some(use_whole_buffer);
                destination.empty_output_buffer = Some(add_whole_buffer);
                destination.term_destination = Some(add_last_bytes);
                (*compress).dest = destination;
                let compress = &mut *compress;
                compress.image_width = width;
                compress.image_height = height;
                compress.input_components = 3;
                compress.in_color_space = sys::JCS_YCbCr;
                // One scan with fixed codes: mozjpeg's own ways to smaller files take many times
                // as long. This comes before the defaults, which depend on it.
                let fastest = sys::JCP_FASTEST as u32 as c_int;
                sys::jpeg_c_set_int_param(compress, sys::JINT_COMPRESS_PROFILE, fastest);
                // Chroma at half resolution is the default.
                sys::jpeg_set_defaults(compress);
                sys::jpeg_set_quality(compress, quality.into(), 1);
                compress.raw_data_in = 1;
                // The exact transform: the fast one depends on the machine.
                compress.dct_method = sys::JDCT_DEFAULT;
                sys::jpeg_start_compress(compress, 1);
                let luma = &*compress.comp_info;
                assert_eq!(
                    (compress.num_components, luma.h_samp_factor, luma.v_samp_factor),
                    (3, 2, 2),
                    "libjpeg reads strips of another layout"
                );
            }
        })?;
        Ok(compression)
    }

    /// Runs `calls`, which may call libjpeg, and returns what libjpeg stopped for.
    ///
    /// After an error the compression must only be dropped.
    fn run<T>(&mut self, calls: impl FnOnce(*mut State) -> T) -> Result<T, JpegError> {
        let state = self.state.as_ptr();
        catch_unwind(AssertUnwindSafe(|| calls(state))).map_err(error_of)
    }

    fn write(&mut self, strip: &Strip) -> Result<(), JpegError> {
        let mut luma = [ptr::null::<u8>(); STRIP_ROWS];
        let mut chroma = [[ptr::null::<u8>(); STRIP_ROWS / 2]; 2];
        for (pointer, row) in luma.iter_mut().zip(strip.luma.chunks_exact(strip.stride)) {
            *pointer = row.as_ptr();
        }
        for (pointers, plane) in chroma.iter_mut().zip(&strip.chroma) {
            for (pointer, row) in pointers.iter_mut().zip(plane.chunks_exact(strip.stride / 2)) {
                *pointer = row.as_ptr();
            }
        }
        let planes = [luma.as_ptr(), chroma[0].as_ptr(), chroma[1].as_ptr()];
        self.run(|state| {
            // SAFETY: `start` has prepared the state. libjpeg reads 16 rows of luma and 8 of each
            // chroma, as the factors say that `start` has checked, each up to the end of its last
            // block: the strip is padded to whole units of both.
            unsafe {
                let compress = &mut (*state).compress;
                let needed = (compress.image_width as usize).next_multiple_of(UNIT_COLUMNS);
                assert_eq!(needed, strip.stride, "the strip has another width");
                let rows = sys::jpeg_write_raw_data(compress, planes.as_ptr(), STRIP_ROWS as _);
                assert_eq!(rows as usize, STRIP_ROWS, "its destination never waits");
            }
        })
    }

    fn finish(mut self) -> Result<Vec<u8>, JpegError> {
        self.run(|state| {
            // SAFETY: `start` has prepared the state. No reference to it lives beyond a statement.
            unsafe {
                sys::jpeg_finish_compress(&mut (*state).compress);
                std::mem::take(&mut (*state).file)
            }
        })
    }
}

impl Drop for Compression {
    fn drop(&mut self) {
        let destroyed = self.run(|state| {
            // SAFETY: the state is valid. libjpeg allows this call in any state, after errors too;
            // if `jpeg_create_compress` has not run, its memory manager is null, and this does
            // nothing.
            unsafe { sys::jpeg_destroy_compress(&mut (*state).compress) }
        });
        debug_assert!(destroyed.is_ok());
        // SAFETY: `start` leaked this box, and nothing else frees it.
        drop(unsafe { Box::from_raw(self.state.as_ptr()) });
    }
}

/// libjpeg calls this before it writes.
unsafe extern "C-unwind" fn use_whole_buffer(compress: &mut sys::jpeg_compress_struct) {
    // SAFETY: `start` has set `client_data` to the compression's state, of which libjpeg holds only
    // `compress` and `destination`.
    unsafe {
        let state = compress.common.client_data.cast::<State>();
        (*compress.dest).next_output_byte = (&raw mut (*state).buffer).cast();
        (*compress.dest).free_in_buffer = BUFFER_BYTES;
    }
}

/// libjpeg calls this if the buffer is full, whatever `free_in_buffer` says.
unsafe extern "C-unwind" fn add_whole_buffer(
    compress: &mut sys::jpeg_compress_struct,
) -> sys::boolean {
    // SAFETY: as in `use_whole_buffer`.
    unsafe {
        let state = compress.common.client_data.cast::<State>();
        let buffer = &(*state).buffer;
        (*state).file.extend_from_slice(buffer);
        use_whole_buffer(compress);
    }
    1
}

/// libjpeg calls this after the last byte.
unsafe extern "C-unwind" fn add_last_bytes(compress: &mut sys::jpeg_compress_struct) {
    // SAFETY: as in `use_whole_buffer`.
    unsafe {
        let state = compress.common.client_data.cast::<State>();
        let written = BUFFER_BYTES - (*compress.dest).free_in_buffer;
        let bytes = &(&(*state).buffer)[..written];
        (*state).file.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DecodeSettings;

    /// A picture with smooth and with hard parts.
    fn encode_sample(width: u32, height: u32) -> Vec<u8> {
        let file = encode((width, height), 85, |pair, rows| {
            for (y, row) in (2 * pair..).zip(rows.luma) {
                for (x, luma) in row.iter_mut().enumerate() {
                    *luma = ((x * 3 + y * 2) % 256) as u8 ^ if x * y % 13 == 0 { 0xff } else { 0 };
                }
            }
            for (shift, row) in rows.chroma.into_iter().enumerate() {
                for (x, chroma) in row.iter_mut().enumerate() {
                    *chroma = ((x + pair) << shift) as u8;
                }
            }
        });
        file.expect("the size is allowed")
    }

    fn decode(file: &[u8], size: (u32, u32)) -> Vec<u8> {
        let settings = DecodeSettings { size, divisor: 1, max_coefficient_bytes: 1 << 20 };
        crate::decode(file, settings, &|| false).expect("the file is whole")
    }

    #[test]
    fn any_size_comes_back() {
        for (width, height) in [(1, 1), (2, 3), (8, 8), (16, 16), (17, 16), (31, 33), (500, 7)] {
            let file = encode_sample(width, height);
            let pixels = decode(&file, (width, height));
            assert_eq!(pixels.len() as u32, width * height * 3);
        }
    }

    #[test]
    fn a_plain_picture_comes_back_to_the_last_bit() {
        let file = encode((37, 21), 85, |_, rows| {
            rows.luma.into_iter().for_each(|row| row.fill(200));
            rows.chroma.into_iter().for_each(|row| row.fill(128));
        });
        let file = file.expect("the size is allowed");
        let pixels = decode(&file, (37, 21));
        assert!(pixels.iter().all(|&value| value == 200), "{pixels:?}");
    }

    /// libjpeg's code differs from CPU to CPU, and with and without SIMD; the file does not. It is
    /// longer than the buffer.
    #[test]
    fn every_machine_makes_the_same_file() {
        let file = encode_sample(301, 199);
        assert!(file.len() > BUFFER_BYTES);
        // FNV-1a of 64 bits.
        let sum = file.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, &byte| {
            (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        assert_eq!((file.len(), sum), (24_780, 16_411_745_899_788_589_517));
    }

    #[test]
    fn sides_have_limits() {
        for (width, height) in [(0, 1), (1, 0), (MAX_SIDE + 1, 1), (1, MAX_SIDE + 1)] {
            let error = encode((width, height), 85, |_, _| {}).expect_err("no JPEG has this size");
            assert_eq!(error, EncodeJpegError::Sides { width, height });
        }
        encode((MAX_SIDE, 1), 85, |_, _| {}).expect("a JPEG may be as wide");
    }
}
