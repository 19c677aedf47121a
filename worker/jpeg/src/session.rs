//! One decompression by libjpeg: its state, its messages, and how it is stopped.
//!
//! Owns every call into C. libjpeg reports through callbacks that may not return; here they unwind
//! with a [`Stop`], which [`Session::run`] catches. Its C code is compiled to be unwound through
//! (feature `unwinding` of mozjpeg-sys). Downstream: [`decode`](super::decode).

use std::any::Any;
use std::ffi::{c_char, c_int, c_long};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::{self, NonNull};

use mozjpeg_sys as sys;

use crate::error::{JpegError, Meaning, meaning_of_error, meaning_of_warning};

/// The most scans of a file. An encoder writes some ten; each costs time for the whole picture, even
/// if it has almost no data.
const MAX_SCANS: c_int = 100;

/// libjpeg's state, and what its callbacks need. It has a fixed address: its parts point to each
/// other.
struct State<'a> {
    decompress: sys::jpeg_decompress_struct,
    errors: sys::jpeg_error_mgr,
    progress: sys::jpeg_progress_mgr,
    /// True if the caller's time is over.
    is_late: &'a dyn Fn() -> bool,
}

/// What a callback unwinds with.
struct Stop(JpegError);

/// A decompression of `'bytes`.
pub(crate) struct Session<'bytes> {
    state: NonNull<State<'bytes>>,
    bytes: PhantomData<&'bytes [u8]>,
}

impl<'bytes> Session<'bytes> {
    /// Prepares the decompression of a file. The coefficients of all its scans may take
    /// `max_coefficient_bytes`. It ends if `is_late` becomes true.
    pub(crate) fn open(
        bytes: &'bytes [u8],
        max_coefficient_bytes: usize,
        is_late: &'bytes dyn Fn() -> bool,
    ) -> Result<Self, JpegError> {
        // SAFETY: all bits zero are a valid value of each part: integers, null pointers, `None`,
        // and enums that have a variant of zero.
        let state = Box::new(unsafe {
            State {
                decompress: MaybeUninit::zeroed().assume_init(),
                errors: MaybeUninit::zeroed().assume_init(),
                progress: MaybeUninit::zeroed().assume_init(),
                is_late,
            }
        });
        let mut session = Self { state: NonNull::from(Box::leak(state)), bytes: PhantomData };
        session.run(|state| {
            // SAFETY: `state` is valid, and its parts stay where they are until `drop`. libjpeg
            // keeps the pointer to `bytes`, which live longer than the session.
            unsafe {
                let decompress = &raw mut (*state).decompress;
                let errors = sys::jpeg_std_error(&mut (*state).errors);
                errors.error_exit = Some(stop_at_error);
                errors.emit_message = Some(note_warning);
                (*decompress).common.err = errors;
                (*decompress).common.client_data = state.cast();
                // This keeps the two fields above, and clears all others.
                sys::jpeg_create_decompress(decompress);
                (*state).progress.progress_monitor = Some(check_progress);
                (*decompress).common.progress = &raw mut (*state).progress;
                let memory = (*decompress).common.mem;
                let limit = c_long::try_from(max_coefficient_bytes).unwrap_or(c_long::MAX);
                // Zero would mean no limit.
                (*memory).max_memory_to_use = limit.max(1);
                sys::jpeg_mem_src(&mut *decompress, bytes.as_ptr(), bytes.len() as _);
            }
        })?;
        Ok(session)
    }

    /// Runs `calls`, which may call libjpeg, and returns what libjpeg stopped for.
    ///
    /// After an error the session must only be dropped.
    fn run<T>(&mut self, calls: impl FnOnce(*mut State<'bytes>) -> T) -> Result<T, JpegError> {
        let state = self.state.as_ptr();
        catch_unwind(AssertUnwindSafe(|| calls(state))).map_err(error_of)
    }

    /// Reads the file up to its first scan. Returns its properties.
    pub(crate) fn read_header(&mut self) -> Result<Properties, JpegError> {
        self.run(|state| {
            // SAFETY: `open` has prepared the state. No reference to it lives beyond a statement.
            unsafe {
                // True: without a frame and a scan this is an error.
                sys::jpeg_read_header(&mut (*state).decompress, 1);
                let decompress = &(*state).decompress;
                Properties {
                    width: decompress.image_width,
                    height: decompress.image_height,
                    colors: Colors::of(decompress.jpeg_color_space),
                }
            }
        })
    }

    /// Starts the decompression to `colors`, at one `divisor`th of the file's size: 1, 2, 4 or 8. Reads
    /// all scans of a file that has several.
    pub(crate) fn start(&mut self, colors: OutputColors, divisor: u32) -> Result<(), JpegError> {
        self.run(|state| {
            // SAFETY: as in `read_header`.
            unsafe {
                let decompress = &mut (*state).decompress;
                decompress.out_color_space = match colors {
                    OutputColors::Rgb => sys::JCS_RGB,
                    OutputColors::Cmyk => sys::JCS_CMYK,
                };
                // The exact transform, and smooth chroma: as Pillow does.
                decompress.dct_method = sys::JDCT_DEFAULT;
                decompress.do_fancy_upsampling = 1;
                (decompress.scale_num, decompress.scale_denom) = (1, divisor);
                sys::jpeg_start_decompress(decompress);
                let sides = [decompress.image_width, decompress.image_height];
                assert_eq!(
                    [decompress.output_width, decompress.output_height],
                    sides.map(|side| side.div_ceil(divisor)),
                    "libjpeg writes another size"
                );
                assert_eq!(decompress.output_components as usize, colors.channels());
            }
        })
    }

    /// Decodes the next rows into `rows`, which holds whole rows of `row_bytes`. Returns their
    /// number, which is zero after the last row.
    pub(crate) fn read_rows(
        &mut self,
        rows: &mut [u8],
        row_bytes: usize,
    ) -> Result<usize, JpegError> {
        /// More than libjpeg ever decodes at once.
        const ROWS_AT_ONCE: usize = 16;
        let mut pointers = [ptr::null_mut::<u8>(); ROWS_AT_ONCE];
        let mut count = 0;
        for (pointer, row) in pointers.iter_mut().zip(rows.chunks_exact_mut(row_bytes)) {
            *pointer = row.as_mut_ptr();
            count += 1;
        }
        self.run(|state| {
            // SAFETY: each pointer is to a row of its own with `row_bytes`, which `start` has
            // compared with what libjpeg writes: the caller's rows have `output_components` bytes
            // for each of the `output_width` pixels.
            unsafe {
                let decompress = &mut (*state).decompress;
                let row = decompress.output_width as usize * decompress.output_components as usize;
                assert_eq!(row, row_bytes, "the rows have another length");
                if decompress.output_scanline >= decompress.output_height {
                    return 0;
                }
                sys::jpeg_read_scanlines(decompress, pointers.as_mut_ptr(), count) as usize
            }
        })
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        let destroyed = self.run(|state| {
            // SAFETY: the state is valid. libjpeg allows this call in any state, after errors too;
            // if `jpeg_create_decompress` has not run, its memory manager is null, and this does
            // nothing.
            unsafe { sys::jpeg_destroy_decompress(&mut (*state).decompress) }
        });
        debug_assert!(destroyed.is_ok());
        // SAFETY: `open` leaked this box, and nothing else frees it.
        drop(unsafe { Box::from_raw(self.state.as_ptr()) });
    }
}

/// What a file's header says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Properties {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) colors: Colors,
}

/// The colours of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colors {
    /// Grey, RGB or YCbCr.
    Rgb,
    /// CMYK or YCCK.
    Cmyk,
    /// Components of no known meaning.
    Unknown,
}

impl Colors {
    fn of(space: sys::J_COLOR_SPACE) -> Self {
        match space {
            sys::JCS_GRAYSCALE | sys::JCS_RGB | sys::JCS_YCbCr => Self::Rgb,
            sys::JCS_CMYK | sys::JCS_YCCK => Self::Cmyk,
            _ => Self::Unknown,
        }
    }
}

/// The colours that libjpeg writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutputColors {
    Rgb,
    Cmyk,
}

impl OutputColors {
    pub(crate) fn channels(self) -> usize {
        match self {
            Self::Rgb => 3,
            Self::Cmyk => 4,
        }
    }
}

/// The error of a [`Stop`]. Any other panic goes on.
pub(crate) fn error_of(panic: Box<dyn Any + Send>) -> JpegError {
    match panic.downcast::<Stop>() {
        Ok(stop) => stop.0,
        Err(other) => resume_unwind(other),
    }
}

/// Unwinds to [`Session::run`]. The panic hook does not run.
fn stop(error: JpegError) -> ! {
    resume_unwind(Box::new(Stop(error)))
}

fn stop_for(meaning: Meaning, common: &mut sys::jpeg_common_struct) -> ! {
    stop(match meaning {
        Meaning::ScanEndsEarly => JpegError::Truncated,
        Meaning::Unsupported(detail) => JpegError::Unsupported(detail.to_owned()),
        Meaning::TooMuchMemory => JpegError::TooMuchMemory,
        Meaning::Harmless | Meaning::Corrupt => JpegError::Corrupt(message(common)),
    })
}

/// libjpeg can't go on.
pub(crate) unsafe extern "C-unwind" fn stop_at_error(common: &mut sys::jpeg_common_struct) {
    // SAFETY: `open`, or the start of a compression, has set `err`, which lives as long as that.
    let code = unsafe { (*common.err).msg_code };
    stop_for(meaning_of_error(code), common)
}

/// libjpeg would go on. `level` is -1 for a warning; other levels are traces.
unsafe extern "C-unwind" fn note_warning(common: &mut sys::jpeg_common_struct, level: c_int) {
    if level >= 0 {
        return;
    }
    // SAFETY: as in `stop_at_error`. All bits are a valid value of the numbers in a message.
    let (code, numbers) =
        unsafe { ((*common.err).msg_code, (*common.err).msg_parm._bindgen_data_) };
    match meaning_of_warning(code, numbers[1]) {
        Meaning::Harmless => {}
        meaning => stop_for(meaning, common),
    }
}

/// libjpeg calls this for each row of blocks.
unsafe extern "C-unwind" fn check_progress(common: &mut sys::jpeg_common_struct) {
    // SAFETY: `open` has set `client_data` to the session's state. What the state borrows lives as
    // long as the session.
    let (scan, is_late) = unsafe {
        let state = common.client_data.cast::<State<'_>>();
        ((*state).decompress.input_scan_number, (*state).is_late)
    };
    if scan > MAX_SCANS {
        stop(JpegError::Corrupt(format!("it has more than {MAX_SCANS} scans")));
    }
    if is_late() {
        stop(JpegError::Late);
    }
}

/// libjpeg's text for its last message.
fn message(common: &mut sys::jpeg_common_struct) -> String {
    /// libjpeg's `JMSG_LENGTH_MAX`, which its header demands of the buffer.
    const MAX_LENGTH: usize = 200;
    /// The field's true type: the bindings' says 80 bytes, and that they are not written.
    type FormatMessage = unsafe extern "C-unwind" fn(*mut sys::jpeg_common_struct, *mut c_char);
    let mut text = [0_u8; MAX_LENGTH + 1];
    // SAFETY: `jpeg_std_error` has set the function, whose type in C is `FormatMessage`. It writes
    // at most `MAX_LENGTH` bytes, the last of which is zero.
    unsafe {
        if let Some(format) = (*common.err).format_message {
            let format: FormatMessage = std::mem::transmute(format);
            format(common, text.as_mut_ptr().cast());
        }
    }
    let length = text.iter().position(|&byte| byte == 0).unwrap_or(0);
    String::from_utf8_lossy(&text[..length]).into_owned()
}
