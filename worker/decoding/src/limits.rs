//! How large an image may be, and how long it may take.
//!
//! Owns the limits and their checks. Upstream: configuration. Downstream: the decoders, which
//! call these before they allocate.

use std::time::Duration;

use image::Limits;

use super::error::DecodeError;
use super::recognise::EncodedFormat;

/// How large a file, its picture and the memory to decode it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageLimits {
    /// Bytes of the encoded file.
    pub max_bytes: u64,
    /// Width times height. The limit is lower if decoding holds more than [`BYTES_PER_PIXEL`] for
    /// each pixel, for example for 16-bit samples and progressive JPEGs.
    pub max_pixels: u64,
    /// Pixels of the longer side.
    pub max_side: u32,
    /// Processor time for one call, on the thread that makes it.
    pub max_time: Duration,
}

/// Bytes that decoding may hold for each of [`ImageLimits::max_pixels`]: 8-bit RGB before and after
/// it is turned upright. The pipeline's memory budget relies on it.
pub const BYTES_PER_PIXEL: u64 = 6;

impl Default for ImageLimits {
    fn default() -> Self {
        Self {
            max_bytes: 64 << 20,
            // More than today's largest camera sensors have; 300 MB as RGB.
            max_pixels: 100_000_000,
            // The longest side that the format JPEG has. libjpeg reads 65,500.
            max_side: 65_535,
            // The largest picture of these limits takes some seconds in the slowest format.
            max_time: Duration::from_secs(60),
        }
    }
}

impl ImageLimits {
    pub(super) fn check_bytes(&self, bytes: usize) -> Result<(), DecodeError> {
        let bytes = bytes as u64;
        if bytes > self.max_bytes {
            return Err(DecodeError::FileTooLarge { bytes, max_bytes: self.max_bytes });
        }
        Ok(())
    }

    /// Checks the size that a header claims.
    pub(super) fn check_size(
        &self,
        format: EncodedFormat,
        width: u32,
        height: u32,
    ) -> Result<(), DecodeError> {
        if width == 0 || height == 0 {
            let reason = format!("its header claims {width}×{height} pixels");
            return Err(DecodeError::Corrupt { format, reason });
        }
        if width.max(height) > self.max_side {
            return Err(DecodeError::SideTooLong { width, height, max_side: self.max_side });
        }
        if u64::from(width) * u64::from(height) > self.max_pixels {
            return Err(DecodeError::TooManyPixels { width, height, max_pixels: self.max_pixels });
        }
        Ok(())
    }

    /// Checks the most bytes that decoding holds at once, from the bytes for each pixel. Headers
    /// and tables are not counted. Returns these bytes.
    pub(super) fn check_memory(
        &self,
        (width, height): (u32, u32),
        bytes_per_pixel: u64,
    ) -> Result<u64, DecodeError> {
        let pixels = u64::from(width) * u64::from(height);
        let max_bytes = self.max_pixels.saturating_mul(BYTES_PER_PIXEL);
        let bytes = pixels.saturating_mul(bytes_per_pixel);
        if bytes > max_bytes {
            let max_pixels = max_bytes / bytes_per_pixel;
            return Err(DecodeError::PixelsTooDeep { width, height, bytes_per_pixel, max_pixels });
        }
        Ok(bytes)
    }

    /// Limits for a decoder of the image crate: `picture_bytes`, and the largest size of a file for
    /// everything else that it unpacks (strips, colour profiles, text).
    pub(super) fn decoder_limits(&self, picture_bytes: u64) -> Limits {
        let mut limits = Limits::no_limits();
        limits.max_alloc = Some(picture_bytes.saturating_add(self.max_bytes));
        limits
    }
}
