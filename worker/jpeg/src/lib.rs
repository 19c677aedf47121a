//! Decodes JPEG files to RGB pixels, and encodes pictures, with libjpeg-turbo (in mozjpeg's edition).
//!
//! Owns the calls into C and what its messages mean. This crate has `unsafe` code for that alone.
//! Does not know limits on files, EXIF, or which files are JPEGs: `camshaft-decoding` does.
//!
//! libjpeg goes on after damage and fills what is missing with grey. Here damage is an error: a
//! picture is complete, or it is not returned.

mod encoding;
mod error;
mod session;

pub use encoding::{RowPair, encode};
pub use error::{EncodeJpegError, JpegError};
use session::{Colors, OutputColors, Session};

/// The longest side that libjpeg reads and writes, in pixels: its `JPEG_MAX_DIMENSION`.
pub const MAX_SIDE: u32 = 65_500;

/// How a file is decoded.
#[derive(Clone, Copy, Debug)]
pub struct DecodeSettings {
    /// Width and height of the file in pixels, as its caller has found them.
    pub size: (u32, u32),
    /// 1 for all pixels; 2, 4 or 8 for one pixel of as many along each axis. libjpeg then transforms
    /// only the low frequencies of each block.
    pub divisor: u32,
    /// What the coefficients of a file of several scans may take.
    pub max_coefficient_bytes: usize,
}

/// Decodes a file. Returns RGB, row by row: `height * width * 3` bytes, for the sides of the settings
/// divided by the divisor and rounded up. At every divisor all of the file is read, and damage found.
///
/// A file may end before its end marker. If it has one scan, the picture is complete nevertheless;
/// whether scans of another file are missing is for the caller to find out.
///
/// Grey, YCbCr, RGB, CMYK and YCCK; any sampling factors that libjpeg has; baseline, extended and
/// progressive processes with Huffman codes. CMYK is taken as inverted, with or
/// without Adobe's marker, and converted as Pillow does. Beside the pixels this holds a few rows;
/// for a file of several scans also their coefficients. Asks `is_late` for each row of blocks, and stops if it is true.
///
/// # Errors
/// If the file is damaged, of another size, or of a kind that can't be read.
pub fn decode(
    bytes: &[u8],
    settings: DecodeSettings,
    is_late: &dyn Fn() -> bool,
) -> Result<Vec<u8>, JpegError> {
    let DecodeSettings { size: (width, height), divisor, max_coefficient_bytes } = settings;
    let mut session = Session::open(bytes, max_coefficient_bytes, is_late)?;
    let header = session.read_header()?;
    if (header.width, header.height) != (width, height) {
        return Err(JpegError::Corrupt("its headers contradict each other".to_owned()));
    }
    let colors = match header.colors {
        Colors::Rgb => OutputColors::Rgb,
        Colors::Cmyk => OutputColors::Cmyk,
        Colors::Unknown => {
            return Err(JpegError::Unsupported("its components are no known colours".to_owned()));
        }
    };
    session.start(colors, divisor)?;
    let row_bytes = width.div_ceil(divisor) as usize * 3;
    let mut pixels = vec![0; row_bytes * height.div_ceil(divisor) as usize];
    match colors {
        OutputColors::Rgb => read_rgb(&mut session, &mut pixels, row_bytes)?,
        OutputColors::Cmyk => read_cmyk(&mut session, &mut pixels, row_bytes)?,
    }
    Ok(pixels)
}

fn read_rgb(
    session: &mut Session<'_>,
    pixels: &mut [u8],
    row_bytes: usize,
) -> Result<(), JpegError> {
    let mut rest = pixels;
    while !rest.is_empty() {
        let rows = session.read_rows(rest, row_bytes)?;
        rest = &mut rest[read_some(rows)? * row_bytes..];
    }
    Ok(())
}

fn read_cmyk(
    session: &mut Session<'_>,
    pixels: &mut [u8],
    row_bytes: usize,
) -> Result<(), JpegError> {
    /// Rows that are converted at once.
    const ROWS: usize = 16;
    let cmyk_row_bytes = row_bytes / 3 * 4;
    let mut cmyk = vec![0; cmyk_row_bytes * ROWS];
    let mut rest = pixels;
    while !rest.is_empty() {
        let wanted = (rest.len() / row_bytes).min(ROWS);
        let rows = session.read_rows(&mut cmyk[..wanted * cmyk_row_bytes], cmyk_row_bytes)?;
        let (done, next) = rest.split_at_mut(read_some(rows)? * row_bytes);
        for (rgb, cmyk) in done.as_chunks_mut::<3>().0.iter_mut().zip(cmyk.as_chunks::<4>().0) {
            *rgb = rgb_of_inverted(*cmyk);
        }
        rest = next;
    }
    Ok(())
}

/// libjpeg returns no rows only if its source waits for more bytes. Ours never does.
fn read_some(rows: usize) -> Result<usize, JpegError> {
    if rows == 0 { Err(JpegError::Truncated) } else { Ok(rows) }
}

/// RGB of inverted CMYK: Pillow's `cmyk2rgb`, with its rounding.
fn rgb_of_inverted([cyan, magenta, yellow, key]: [u8; 4]) -> [u8; 3] {
    [cyan, magenta, yellow].map(|ink| {
        let product = u32::from(255 - ink) * u32::from(key) + 128;
        key.saturating_sub((((product >> 8) + product) >> 8) as u8)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_ink_is_white_and_full_key_is_black() {
        assert_eq!(rgb_of_inverted([255, 255, 255, 255]), [255; 3]);
        assert_eq!(rgb_of_inverted([255, 255, 255, 0]), [0; 3]);
        assert_eq!(rgb_of_inverted([0, 255, 255, 255]), [0, 255, 255]);
    }

    #[test]
    fn what_is_no_jpeg_is_an_error() {
        for bytes in [&b""[..], b"\xff\xd8", b"not a picture", b"\xff\xd8\xff\xd9"] {
            let settings = DecodeSettings { size: (1, 1), divisor: 1, max_coefficient_bytes: 1000 };
            let error = decode(bytes, settings, &|| false).unwrap_err();
            assert!(!error.to_string().is_empty(), "{error:?}");
        }
    }
}
