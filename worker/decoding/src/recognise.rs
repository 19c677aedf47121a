//! Recognises what a file is by its first bytes.
//!
//! Owns the signatures. Does not use names or media types: data sets contain many PNGs called
//! `.jpg`. Downstream: `decode`, and the messages about files that are not images.

use std::fmt;

/// A format that can be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodedFormat {
    /// JPEG: grey, YCbCr, RGB, CMYK and YCCK; baseline and progressive.
    Jpeg,
    /// PNG; the still picture of an animated one.
    Png,
    /// WebP; the first frame of an animated one.
    WebP,
    /// GIF; its first frame.
    Gif,
    /// Windows bitmap.
    Bmp,
    /// TIFF with integer samples; its first page.
    Tiff,
}

impl EncodedFormat {
    /// Every format, for messages.
    pub(super) const CHOICES: &str = "JPEG, PNG, WebP, GIF, BMP and TIFF";
}

impl fmt::Display for EncodedFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
            Self::Gif => "GIF",
            Self::Bmp => "BMP",
            Self::Tiff => "TIFF",
        })
    }
}

/// What a file is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FileContent {
    Empty,
    Image(EncodedFormat),
    /// Another kind of file, with its article, to complete "this looks like …".
    Other(&'static str),
    Unknown,
}

pub(super) fn recognise(bytes: &[u8]) -> FileContent {
    if bytes.is_empty() {
        return FileContent::Empty;
    }
    if let Some(format) = image_format(bytes) {
        return FileContent::Image(format);
    }
    match iso_media(bytes).or_else(|| signed_file(bytes)).or_else(|| text(bytes)) {
        Some(looks_like) => FileContent::Other(looks_like),
        None => FileContent::Unknown,
    }
}

fn image_format(bytes: &[u8]) -> Option<EncodedFormat> {
    // Text may also begin with "BM". A bitmap is not text: its header has zero bytes.
    if bytes.starts_with(b"BM") && text(bytes).is_none() {
        return Some(EncodedFormat::Bmp);
    }
    if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        return Some(EncodedFormat::WebP);
    }
    let signatures: [(&[u8], EncodedFormat); 8] = [
        (b"\xff\xd8", EncodedFormat::Jpeg),
        (b"\x89PNG\r\n\x1a\n", EncodedFormat::Png),
        (b"GIF87a", EncodedFormat::Gif),
        (b"GIF89a", EncodedFormat::Gif),
        (b"II\x2a\0", EncodedFormat::Tiff),
        (b"MM\0\x2a", EncodedFormat::Tiff),
        // BigTIFF.
        (b"II\x2b\0", EncodedFormat::Tiff),
        (b"MM\0\x2b", EncodedFormat::Tiff),
    ];
    signatures.iter().find(|(start, _)| bytes.starts_with(start)).map(|&(_, format)| format)
}

/// A file with a `ftyp` box, whose major brand tells pictures from films: ISO/IEC 14496-12.
fn iso_media(bytes: &[u8]) -> Option<&'static str> {
    if bytes.get(4..8) != Some(b"ftyp") {
        return None;
    }
    Some(match bytes.get(8..12)? {
        b"avif" | b"avis" => "an AVIF picture",
        b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"mif1" | b"msf1" => {
            "a HEIC picture"
        }
        b"crx " => "a camera's raw picture",
        _ => "a film",
    })
}

/// A file that begins with a known signature.
fn signed_file(bytes: &[u8]) -> Option<&'static str> {
    let signatures: [(&[u8], &str); 19] = [
        (b"%PDF-", "a PDF document"),
        (b"\xff\x0a", "a JPEG XL picture"),
        (b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
        (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
        (b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
        (b"8BPS", "a Photoshop document"),
        (b"\0\0\x01\0", "a Windows icon"),
        (b"v/1\x01", "an OpenEXR picture"),
        (b"qoif", "a QOI picture"),
        (b"DDS ", "a DirectDraw surface"),
        (b"gimp xcf", "a GIMP picture"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"\x1f\x8b", "a gzip archive"),
        (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
        (b"Rar!", "a RAR archive"),
        (b"\x93NUMPY", "a NumPy array"),
        (b"\x89HDF", "an HDF5 file"),
        (b"PAR1", "a Parquet file"),
    ];
    signatures.iter().find(|(start, _)| bytes.starts_with(start)).map(|&(_, name)| name)
}

/// A file of text, and which kind of text.
fn text(bytes: &[u8]) -> Option<&'static str> {
    /// Longer than an XML declaration and a comment before the first element.
    const HEAD: usize = 1024;
    let head = &bytes[..bytes.len().min(HEAD)];
    let is_text = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | 0x20..=0x7e | 0x80..);
    if !head.iter().all(is_text) {
        return None;
    }
    // The head may end within a character.
    let head = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&head[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    let head = head.trim_start_matches('\u{feff}').trim_start().to_ascii_lowercase();
    Some(if head.starts_with("version https://git-lfs") {
        "a Git LFS pointer, whose content was not fetched"
    } else if head.starts_with('<') && head.contains("<svg") {
        "an SVG drawing"
    } else if head.starts_with("<!doctype html") || head.contains("<html") {
        "a web page"
    } else if ["p1", "p2", "p3"].iter().any(|magic| {
        head.strip_prefix(magic).is_some_and(|rest| rest.starts_with(char::is_whitespace))
    }) {
        "a PNM picture"
    } else {
        "text"
    })
}
