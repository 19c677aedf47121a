//! Why an image can't be decoded.
//!
//! Owns the kinds of failure, their texts and their class in a result. Does not decide whether to
//! try again. Downstream: the failure record of an image.

use std::error::Error;
use std::io::{self, ErrorKind};

use camshaft_common::prediction::FailureClass;
use image::ImageError;
use image::error::UnsupportedErrorKind;

use super::recognise::EncodedFormat;

/// Why an image can't be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The file has no bytes.
    #[error("the file is empty; restore it from its source")]
    Empty,
    /// The file ends before the picture is complete.
    #[error("the {format} file is truncated; restore it from its source")]
    Truncated {
        /// The format that its first bytes announce.
        format: EncodedFormat,
    },
    /// The data contradict the format.
    #[error("the {format} file is corrupt: {reason}; restore it from its source")]
    Corrupt {
        /// The format that its first bytes announce.
        format: EncodedFormat,
        /// The decoder's message.
        reason: String,
    },
    /// The file is of a known kind, but is not an image that can be read.
    #[error("this looks like {looks_like}; only {} can be read", EncodedFormat::CHOICES)]
    NotAnImage {
        /// The kind that its first bytes announce, with its article.
        looks_like: &'static str,
    },
    /// The file is not text and begins like no known kind of file. Most often it is an image whose
    /// start is damaged.
    #[error(
        "the file is corrupt, or of an unknown kind: it begins like none of {}; restore it from \
         its source",
        EncodedFormat::CHOICES
    )]
    Unrecognised,
    /// The format can be read, but not this rare kind of it.
    #[error("this kind of {format} can't be read: {detail}; save it as 8-bit RGB")]
    UnsupportedKind {
        /// The format.
        format: EncodedFormat,
        /// What is unusual about it.
        detail: String,
    },
    /// The file exceeds [`ImageLimits::max_bytes`](super::ImageLimits::max_bytes).
    #[error("the file has {bytes} bytes, more than the limit of {max_bytes}; shrink it")]
    FileTooLarge {
        /// Size of the file.
        bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// The picture exceeds [`ImageLimits::max_pixels`](super::ImageLimits::max_pixels).
    #[error("{width}×{height} pixels are more than the limit of {max_pixels}; shrink the image")]
    TooManyPixels {
        /// Width in the header.
        width: u32,
        /// Height in the header.
        height: u32,
        /// The limit.
        max_pixels: u64,
    },
    /// The picture has no more than [`ImageLimits::max_pixels`](super::ImageLimits::max_pixels)
    /// pixels, but decoding it takes more memory than that number of pixels in 8-bit RGB.
    #[error(
        "{width}×{height} pixels are more than the limit of {max_pixels} where each takes \
         {bytes_per_pixel} bytes to decode; shrink the image, or save it as 8-bit RGB, a JPEG not \
         progressive"
    )]
    PixelsTooDeep {
        /// Width in the header.
        width: u32,
        /// Height in the header.
        height: u32,
        /// Bytes that decoding would hold for each pixel.
        bytes_per_pixel: u64,
        /// The limit for such pixels.
        max_pixels: u64,
    },
    /// The picture exceeds [`ImageLimits::max_side`](super::ImageLimits::max_side).
    #[error("a side of {width}×{height} pixels exceeds the limit of {max_side}; shrink the image")]
    SideTooLong {
        /// Width in the header.
        width: u32,
        /// Height in the header.
        height: u32,
        /// The limit.
        max_side: u32,
    },
    /// Decoding takes longer than [`ImageLimits::max_time`](super::ImageLimits::max_time).
    #[error(
        "decoding takes more than {seconds} s of processor time; the file is damaged, or made to do \
         harm"
    )]
    TookTooLong {
        /// The limit.
        seconds: u64,
    },
    /// Decoding would take far more memory than a picture of this size needs.
    #[error(
        "decoding the {format} file takes far more memory than its picture needs; save it anew, without \
         metadata"
    )]
    TooMuchMemory {
        /// The format.
        format: EncodedFormat,
    },
}

impl DecodeError {
    /// The class of failure, as results name it.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Empty
            | Self::Truncated { .. }
            | Self::Corrupt { .. }
            | Self::Unrecognised
            | Self::TookTooLong { .. } => FailureClass::Undecodable,
            Self::NotAnImage { .. } | Self::UnsupportedKind { .. } => FailureClass::Unsupported,
            Self::FileTooLarge { .. }
            | Self::TooManyPixels { .. }
            | Self::PixelsTooDeep { .. }
            | Self::SideTooLong { .. }
            | Self::TooMuchMemory { .. } => FailureClass::TooLarge,
        }
    }

    pub(super) fn from_image(format: EncodedFormat, error: ImageError) -> Self {
        match error {
            ImageError::Limits(_) => Self::TooMuchMemory { format },
            ImageError::Unsupported(error) => {
                let detail = match error.kind() {
                    UnsupportedErrorKind::GenericFeature(feature) => feature.clone(),
                    UnsupportedErrorKind::Color(color) => {
                        format!("{} bits a pixel", color.bits_per_pixel())
                    }
                    _ => error.to_string(),
                };
                Self::UnsupportedKind { format, detail: one_line(&detail) }
            }
            error if ends_early(&error) => Self::Truncated { format },
            error => Self::Corrupt { format, reason: one_line(&innermost(&error).to_string()) },
        }
    }
}

/// Makes a decoder's message fit into one of ours: one line, and at most `MAX_CHARS` long. Some
/// messages have line breaks, and some quote the file.
pub(super) fn one_line(message: &str) -> String {
    const MAX_CHARS: usize = 200;
    let mut line = String::new();
    for word in message.split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        let left = MAX_CHARS.saturating_sub(line.chars().count());
        match word.char_indices().nth(left) {
            Some((end, _)) => return line + &word[..end] + "…",
            None => line.push_str(word),
        }
    }
    line
}

/// True if the decoder reached the end of the file too early.
fn ends_early(error: &ImageError) -> bool {
    let end_of_file = |error: &io::Error| error.kind() == ErrorKind::UnexpectedEof;
    // `ImageError` leaves its own I/O error out of the chain of sources.
    if let ImageError::IoError(error) = error {
        return end_of_file(error);
    }
    std::iter::successors(error.source(), |&error| error.source())
        .filter_map(|error| error.downcast_ref())
        .any(end_of_file)
}

/// The innermost cause. The outer errors only repeat that decoding failed.
fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    std::iter::successors(Some(error), |&error| error.source()).last().unwrap_or(error)
}
