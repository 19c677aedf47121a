//! Why libjpeg does not decode or encode a file.
//!
//! Owns which of libjpeg's messages mean damage, and which mean a kind that it can't read. Upstream:
//! [`session`](super::session), which receives the messages.

use std::ffi::c_int;
use std::ops::RangeInclusive;

use crate::MAX_SIDE;

/// Why a JPEG can't be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JpegError {
    /// A scan has fewer data than its picture needs.
    #[error("a scan ends early")]
    Truncated,
    /// The data contradict the format.
    #[error("{0}")]
    Corrupt(String),
    /// The file is valid, but not of a kind that can be read.
    #[error("{0}")]
    Unsupported(String),
    /// The caller's time is over.
    #[error("it takes too long")]
    Late,
    /// The coefficients of all scans take more memory than the caller allows.
    #[error("its coefficients take too much memory")]
    TooMuchMemory,
}

/// Why a picture can't be encoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeJpegError {
    /// A side is empty, or longer than libjpeg writes.
    #[error("a JPEG's sides have 1 to {MAX_SIDE} pixels, not {width} and {height}")]
    Sides {
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// libjpeg stopped.
    #[error(transparent)]
    Libjpeg(#[from] JpegError),
}

/// What a message of libjpeg means for the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// All pixels are still right.
    Harmless,
    ScanEndsEarly,
    Corrupt,
    /// Says what is unusual about the file.
    Unsupported(&'static str),
    TooMuchMemory,
}

/// What a warning means: libjpeg would go on. `number` is the second in its text.
pub(crate) fn meaning_of_warning(code: c_int, number: u32) -> Meaning {
    use mozjpeg_sys as sys;
    /// The markers that divide a scan: T.81, table B.1.
    const RESTART_MARKERS: RangeInclusive<u32> = 0xd0..=0xd7;
    match code {
        // A part of a scan has data left: its blocks ended too early.
        sys::JWRN_EXTRANEOUS_DATA if RESTART_MARKERS.contains(&number) => Meaning::Corrupt,
        // Bytes between segments, or after a complete scan.
        sys::JWRN_EXTRANEOUS_DATA
        // The file has ended. If the scan is complete, only an end marker is missing; if not, there
        // is a warning of that, too.
        | sys::JWRN_JPEG_EOF
        // Metadata.
        | sys::JWRN_ADOBE_XFORM
        | sys::JWRN_JFIF_MAJOR
        // A baseline scan with fields that only a progressive one needs.
        | sys::JWRN_NOT_SEQUENTIAL
        // The scans of a progressive file in an unusual order.
        | sys::JWRN_BOGUS_PROGRESSION => Meaning::Harmless,
        sys::JWRN_HIT_MARKER => Meaning::ScanEndsEarly,
        // Invalid codes, and restart markers that are missing or out of order.
        _ => Meaning::Corrupt,
    }
}

/// What an error means: libjpeg can't go on.
pub(crate) fn meaning_of_error(code: c_int) -> Meaning {
    use mozjpeg_sys as sys;
    match code {
        sys::JERR_SOF_UNSUPPORTED | sys::JERR_ARITH_NOTIMPL => {
            Meaning::Unsupported("its coding process is lossless, hierarchical or arithmetic")
        }
        sys::JERR_BAD_PRECISION => Meaning::Unsupported("its samples have other than 8 bits"),
        sys::JERR_CCIR601_NOTIMPL | sys::JERR_FRACT_SAMPLE_NOTIMPL => {
            Meaning::Unsupported("the ratio of its components' sizes is no whole number")
        }
        sys::JERR_BAD_MCU_SIZE => Meaning::Unsupported("its units have more than ten blocks"),
        sys::JERR_COMPONENT_COUNT | sys::JERR_CONVERSION_NOTIMPL => {
            Meaning::Unsupported("its components are no known colours")
        }
        sys::JERR_IMAGE_TOO_BIG => Meaning::Unsupported("its sides are too long"),
        sys::JERR_OUT_OF_MEMORY | sys::JERR_NO_BACKING_STORE => Meaning::TooMuchMemory,
        _ => Meaning::Corrupt,
    }
}
