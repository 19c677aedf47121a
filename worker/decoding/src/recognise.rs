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
    /// Netpbm's PBM, PGM, PPM and PAM, as text or binary.
    Pnm,
}

impl EncodedFormat {
    /// Every format, for messages.
    pub(super) const CHOICES: &str = "JPEG, PNG, WebP, GIF, BMP, TIFF and PNM";
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
            Self::Pnm => "PNM",
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
    if let Some(looks_like) = variant(bytes) {
        return FileContent::Other(looks_like);
    }
    if let Some(format) = image_format(bytes) {
        return FileContent::Image(format);
    }
    let looks_like = iso_media(bytes)
        .or_else(|| inner_signature(bytes))
        .or_else(|| signed_file(bytes))
        .or_else(|| text(bytes))
        .or_else(|| targa(bytes));
    match looks_like {
        Some(looks_like) => FileContent::Other(looks_like),
        None => FileContent::Unknown,
    }
}

/// A file that begins as a format that can be read, but is another.
fn variant(bytes: &[u8]) -> Option<&'static str> {
    let is_tiff = bytes.starts_with(b"II\x2a\0") || bytes.starts_with(b"MM\0\x2a");
    if is_tiff && bytes.get(8..10) == Some(b"CR") {
        return Some(RAW_PICTURE);
    }
    // Xcode writes such PNGs: without zlib's header, and with blue before red.
    if bytes.starts_with(b"\x89PNG") && bytes.get(12..16) == Some(b"CgBI") {
        return Some("a PNG for iPhones (CgBI)");
    }
    // Its first marker segment, after the start of the image, is JPEG-LS' frame.
    bytes.starts_with(b"\xff\xd8\xff\xf7").then_some("a JPEG-LS picture")
}

const RAW_PICTURE: &str = "a camera's raw picture";

fn image_format(bytes: &[u8]) -> Option<EncodedFormat> {
    if is_pnm(bytes) {
        return Some(EncodedFormat::Pnm);
    }
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
        b"crx " => RAW_PICTURE,
        _ => "a film",
    })
}

/// True for Netpbm's formats: `P1` to `P7`, then a space or a line.
fn is_pnm(bytes: &[u8]) -> bool {
    matches!(bytes, [b'P', b'1'..=b'7', space, ..] if space.is_ascii_whitespace())
}

/// A file that begins with a known signature.
fn signed_file(bytes: &[u8]) -> Option<&'static str> {
    let signatures: [(&[u8], &str); 46] = [
        (b"%PDF-", "a PDF document"),
        (b"%!PS", "a PostScript document"),
        (b"\xff\x0a", "a JPEG XL picture"),
        (b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
        (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
        (b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
        (b"II\xbc", "a JPEG XR picture"),
        (b"8BPS", "a Photoshop document"),
        (b"\0\0\x01\0", "a Windows icon"),
        (b"icns", "an Apple icon"),
        (b"v/1\x01", "an OpenEXR picture"),
        (b"#?RADIANCE", "a Radiance HDR picture"),
        (b"qoif", "a QOI picture"),
        (b"farbfeld", "a farbfeld picture"),
        (b"DDS ", "a DirectDraw surface"),
        (b"\xabKTX ", "a KTX texture"),
        (b"gimp xcf", "a GIMP picture"),
        (b"BPG\xfb", "a BPG picture"),
        (b"FLIF", "a FLIF picture"),
        (b"\x8aMNG", "an MNG animation"),
        (b"\x0a\x02\x01", "a PCX picture"),
        (b"\x0a\x03\x01", "a PCX picture"),
        (b"\x0a\x05\x01", "a PCX picture"),
        (b"\x01\xda\0", "an SGI picture"),
        (b"\x01\xda\x01", "an SGI picture"),
        (b"\x59\xa6\x6a\x95", "a Sun raster picture"),
        (b"PF\n", "a PFM picture"),
        (b"Pf\n", "a PFM picture"),
        (b"\xd7\xcd\xc6\x9a", "a Windows metafile"),
        (b"SIMPLE  =", "a FITS file"),
        (b"FUJIFILMCCD-RAW", RAW_PICTURE),
        (b"IIRO", RAW_PICTURE),
        (b"IIRS", RAW_PICTURE),
        (b"IIU\0", RAW_PICTURE),
        (b"\0MRM", RAW_PICTURE),
        (b"\x1a\x45\xdf\xa3", "a film"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a Thumbs.db or an Office document"),
        (b"SQLite format 3\0", "an SQLite database"),
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

/// A file with a known signature elsewhere than at its start.
fn inner_signature(bytes: &[u8]) -> Option<&'static str> {
    let has = |at: usize, signature: &[u8]| {
        bytes.get(at..).is_some_and(|rest| rest.starts_with(signature))
    };
    if has(128, b"DICM") {
        return Some("a DICOM picture");
    }
    if has(344, b"n+1\0") || has(344, b"ni1\0") || has(4, b"n+2\0") {
        return Some("a NIfTI volume");
    }
    if bytes.ends_with(b"TRUEVISION-XFILE.\0") {
        return Some("a TGA picture");
    }
    if has(257, b"ustar") {
        return Some("a tar archive");
    }
    if bytes.starts_with(b"RIFF") {
        return Some("a film or a sound");
    }
    None
}

/// A TGA picture: the format has no signature, but its header has few valid values.
fn targa(bytes: &[u8]) -> Option<&'static str> {
    let &[_, palette, kind, _, _, _, _, _, _, _, _, _, a, b, c, d, bits, ..] = bytes else {
        return None;
    };
    let known = palette <= 1
        && matches!(kind, 1..=3 | 9..=11)
        && matches!(bits, 8 | 15 | 16 | 24 | 32)
        && [a, b] != [0, 0]
        && [c, d] != [0, 0];
    known.then_some("a TGA picture")
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
    } else {
        "text"
    })
}
